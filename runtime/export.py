"""What `tdsl export` does with a checkpoint: a file in another format, loaded back and compared before it is there.

    state_dict   the weights alone, for `torch.load(FILE, weights_only=True)`
    safetensors  the same, for `safetensors.torch.load_file`
    module       the whole module, pickled: its classes come from `model.py` where it is loaded
    pt2          the program of its operations, for `torch.export.load`; any number of rows
    onnx         the same for ONNX; any number of rows

A program that is exported is the model in plain PyTorch and float32, without kernels: what made the weights need not be
there. Every file is compared with the model as it is emitted, in evaluation, on rows of the data.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tdsl.runtime import checkpoint
from tdsl.runtime.evaluation import status_of
from tdsl.runtime.loader import Batch
from tdsl.runtime.run import Failure, choose_device

# The files of a project: both that are compared have them under the same names.
MODULES = ("checkpoint", "data", "evaluate", "kernels", "model", "predict", "train")
# Two batches of different sizes, by which the dimensions are known that grow with the rows.
FEW, FEWER = 6, 4
# How far outputs may be from the model's, beside as much of the largest of them, by the run's precision.
TOLERANCE = {"f32": 1e-4, "bf16": 4e-2, "f16": 4e-3}
# What holds the same numbers computes the same.
EXACT = ("state_dict", "safetensors", "module")
ONNX = ("onnx", "onnxscript", "onnxruntime")

Outputs = tuple[Tensor, ...]
Loaded = Callable[[Outputs], Outputs]


@dataclass(frozen=True)
class Job:
    """One export: the model `which` of a checkpoint, to `file` in `format`."""

    emitted: Path
    plain: Path
    checkpoint: Path
    which: str
    file: Path
    format: str
    precision: str
    device: torch.device


@dataclass(frozen=True)
class Sample:
    """What a model is given for a batch of the data, and for two smaller ones."""

    whole: Outputs
    few: Outputs
    fewer: Outputs

    @property
    def rows(self) -> int:
        return len(self.whole[0])

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        """For each input, the dimensions that depend on the number of rows, as `torch.export` takes them."""
        any_size = torch.export.Dim.DYNAMIC
        return tuple(
            {i: any_size for i, (n, m) in enumerate(zip(a.shape, b.shape, strict=True)) if n != m}
            for a, b in zip(self.few, self.fewer, strict=True)
        )


class _Seen(Exception):
    """The inputs of a model are known: the rest of the batch need not be computed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Export, as the command line of this module asks; the exit status: 0, 1 where it failed, 2 for wrong options."""
    return status_of("export", "export", lambda: export(_job(_parser().parse_args(argv))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Export a checkpoint.", allow_abbrev=False)
    for name in ("emitted", "plain", "output", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("checkpoint", "format", "precision", "device", "model"):
        parser.add_argument(f"--{name}", required=True)
    return parser


def _job(given: argparse.Namespace) -> Job:
    found = checkpoint.find(given.out / "checkpoints", given.checkpoint)
    device = choose_device(given.device)
    return Job(given.emitted, given.plain, found.path, given.model, given.output, given.format, given.precision, device)


def export(job: Job) -> None:
    """Write the file, load it back, compare it, and say so. Raises `Failure`; the file then is not there."""
    _check_packages(job.format)
    if not job.file.parent.is_dir():
        raise Failure(f"there is no folder `{job.file.parent}`")
    with _imported(job.emitted):
        model = _model(job)
        sample = _sample(job, model)
        made = _plain(job) if job.format not in EXACT else model
        aside = job.file.with_name(f".{job.file.stem}.new{job.file.suffix}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _write(job.format, made, sample, aside)
                told = _compared(job, model, sample, _load(job, aside))
            aside.replace(job.file)
        finally:
            aside.unlink(missing_ok=True)
    print(f"{job.file}: {job.format} of {job.checkpoint.name}, {job.file.stat().st_size / 2**20:.2f} MiB")
    print(f"compared with the model on {sample.rows} rows: {told}")
    if job.format == "module":
        print(
            "to load it, `model.py` (and `kernels.py`, where there is one) of the project must be on Python's path, and"
        )
        print("`tdsl` installed: torch.load(FILE, weights_only=False) runs what is in the file, so load only your own")


def _check_packages(format: str) -> None:
    lacking = [name for name in ONNX if not _is_there(name)] if format == "onnx" else []
    if lacking:
        raise Failure(f"ONNX needs {', '.join(lacking)}", f"pip install {' '.join(lacking)}")


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


# Models and their inputs ----------------------------------------------------------------------------------------------


@contextmanager
def _imported(folder: Path) -> Iterator[None]:
    """Within, the modules of a project can be imported; those of another are forgotten, and known again behind it."""
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _model(job: Job, name: str = "") -> nn.Module:
    """A model of the run with the weights of the checkpoint, by the project that is imported."""
    name = name or job.which
    function = "load" if name == checkpoint.MODEL else f"load_{name}"
    load = getattr(importlib.import_module("checkpoint"), function)
    found: nn.Module = load(str(job.checkpoint), device=str(job.device))
    return found


def _plain(job: Job) -> nn.Module:
    with _imported(job.plain):
        return _model(job)


def _sample(job: Job, model: nn.Module) -> Sample:
    """What the run's own functions give to a model, for rows of the data's last split."""
    data = importlib.import_module("data")
    rows = importlib.import_module("evaluate").BATCH_SIZE
    others = {name: model if name == job.which else _model(job, name) for name in _names(job.emitted)}
    function = _caller()

    def inputs(count: int) -> Outputs:
        # Processes that read ahead would be there still when PyTorch forks this one.
        batches = replace(data.batches(data.SPLITS[-1], count, device=job.device), workers=0)
        return _inputs(function, others, model, next(iter(batches)))

    return Sample(inputs(max(rows, FEW)), inputs(FEW), inputs(FEWER))


def _names(folder: Path) -> list[str]:
    """The run's models, in the order in which its functions take them."""
    record = json.loads((folder / "program.json").read_text(encoding="utf-8"))
    return list(record["models"])


def _caller() -> Callable[..., object]:
    """The function that calls the model as it is used: `predict`, else `compare`, else the loss."""
    evaluate, train = importlib.import_module("evaluate"), importlib.import_module("train")
    found: Callable[..., object] = (
        getattr(evaluate, "predict", None) or getattr(evaluate, "compare", None) or train.loss
    )
    return found


def _inputs(
    function: Callable[..., object], models: Mapping[str, nn.Module], model: nn.Module, batch: Batch
) -> Outputs:
    found: list[Tensor] = []

    def see(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        # What is no tensor says how the loss wants the result, as `head=False` does.
        found.extend(value.detach() for value in (*args, *named.values()) if isinstance(value, Tensor))
        raise _Seen

    handle = model.register_forward_pre_hook(see, with_kwargs=True)
    try:
        function(*models.values(), batch)
    except _Seen:
        return tuple(found)
    finally:
        handle.remove()
    raise Failure("the run does not call the model", "export another with `--model NAME`")


# Formats ------------------------------------------------------------------------------------------------------------


def _write(format: str, model: nn.Module, sample: Sample, file: Path) -> None:
    if format == "state_dict":
        torch.save({name: value.cpu() for name, value in model.state_dict().items()}, file)
    elif format == "safetensors":
        checkpoint.save_weights(file, model)
    elif format == "module":
        torch.save(model, file)
    else:
        program = _traced(model, sample)
        if format == "pt2":
            torch.export.save(program, file)
        else:
            _write_onnx(program, file)


def _traced(model: nn.Module, sample: Sample) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(model, sample.few, dynamic_shapes=sample.dynamic())
    except Exception as error:  # PyTorch tells dozens of kinds of what it can't trace
        (what, *_) = str(error).strip().splitlines() or [type(error).__name__]
        raise Failure(f"torch.export can't follow this model: {what}", "`--format module` keeps it as it is") from None


def _write_onnx(program: torch.export.ExportedProgram, file: Path) -> None:
    # It warns of operators of packages that are not there, whether a model has them or not.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        torch.onnx.export(program, f=file, dynamo=True, external_data=False, verbose=False)
    except Exception as error:
        (what, *_) = str(error).strip().splitlines() or [type(error).__name__]
        raise Failure(f"torch.onnx can't translate this model: {what}", "`--format pt2` needs no translation") from None


def _load(job: Job, file: Path) -> Loaded:
    """The file as a function of the model's inputs, loaded as its users do."""
    if job.format == "onnx":
        return _onnx(file)
    if job.format == "pt2":
        return _called(torch.export.load(file).module())
    if job.format == "module":
        found: nn.Module = torch.load(file, weights_only=False)
        return _called(found)
    model = _model(job)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    if job.format == "safetensors":
        checkpoint.load_weights(file, model)
    else:
        model.load_state_dict(torch.load(file, weights_only=True))
    return _called(model)


def _called(model: Callable[..., Any]) -> Loaded:
    return lambda inputs: flat(model(*inputs))


def _onnx(file: Path) -> Loaded:
    import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: Outputs) -> Outputs:
        given = {name: value.cpu().numpy() for name, value in zip(names, inputs, strict=True)}
        return tuple(map(torch.from_numpy, session.run(None, given)))

    return run


def flat(outputs: Any) -> Outputs:
    """The tensors of a result, of tuples within tuples too."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    return tuple(tensor for each in outputs for tensor in flat(each))


# The comparison -----------------------------------------------------------------------------------------------------


def _compared(job: Job, model: nn.Module, sample: Sample, loaded: Loaded) -> str:
    """What is told of the comparison. Raises `Failure` where outputs differ by more than is allowed.

    Where a model draws random numbers in evaluation, too, a program in another format draws others: of outputs that
    depend on them only shapes are compared.
    """
    allowed = 0.0 if job.format in EXACT else TOLERANCE[job.precision]
    drawn = _drawn(model, sample.few) if job.format not in EXACT else set()
    largest = 0.0
    # Fewer rows than the program was traced with, too.
    for inputs in (sample.whole, sample.fewer):
        expected, found = _seeded(_called(model), inputs), _seeded(loaded, inputs)
        for i, (one, other) in enumerate(zip(expected, found, strict=True)):
            if one.shape != other.shape:
                raise Failure(f"output {i} of what was written is {list(other.shape)}, of the model {list(one.shape)}")
            difference = 0.0 if i in drawn else _difference(one.cpu(), other.cpu())
            if difference > allowed * max(_scale(one), 1.0):
                raise Failure(f"output {i} of what was written differs by {difference:.3g} from the model's")
            largest = max(largest, difference)
    if len(drawn) == len(expected):
        return "shapes are equal; values were not compared, as the model draws random numbers"
    told = f"the largest difference is {largest:.3g}, of {allowed:g} times the largest output allowed"
    which = ", ".join(map(str, sorted(drawn)))
    return f"{told}; of output {which}, which random numbers go into, the shape alone was compared" if drawn else told


def _seeded(function: Loaded, inputs: Outputs, seed: int = 0) -> Outputs:
    torch.manual_seed(seed)
    with torch.no_grad():
        return function(inputs)


def _drawn(model: nn.Module, inputs: Outputs) -> set[int]:
    """The outputs of the model that depend on the seed, by number."""
    one, other = (_seeded(_called(model), inputs, seed) for seed in (0, 1))
    return {i for i, (a, b) in enumerate(zip(one, other, strict=True)) if _difference(a, b) > 0}


def _difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference of an element; NaN equals NaN."""
    one, other = expected.double(), found.double()
    same = (one == other) | (one.isnan() & other.isnan())
    return float(torch.where(same, 0.0, (one - other).abs()).nan_to_num(torch.inf).max()) if one.numel() else 0.0


def _scale(expected: Tensor) -> float:
    finite = expected[expected.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


if __name__ == "__main__":
    sys.exit(main())
