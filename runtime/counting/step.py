"""Count one training step of an emitted project: of the project as it is, or as plain PyTorch would take it.

Run as `python -m tdsl.runtime.counting.step FOLDER emitted|plain`: `FOLDER/batch.json` has the rows, the precision and
the fields of a batch. Tensors have no contents: nothing is computed, no data are read and no GPU is needed; with
`--real` they are on the GPU, and what is counted there is the same. The first step, in which optimizers make their
state, is not counted; the second is, as one that nothing is logged in.

- `emitted` runs the loop of `train.py`, and all that it launches counts.
- `plain` takes models, loss, groups and arguments from `train.py`, and makes the step of `tdsl.runtime.counting.plain`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tdsl.runtime import checkpoint, run
from tdsl.runtime.counting.autocast import autocast
from tdsl.runtime.counting.counter import BACKWARD, FORWARD, UPDATE, Counter, counting
from tdsl.runtime.counting.gpu import GPU, fake_gpu
from tdsl.runtime.counting.operators import META
from tdsl.runtime.counting.plain import PlainStep, made, replaced
from tdsl.runtime.loader import Batch
from tdsl.runtime.settings import Settings

LOW = {"bf16": torch.bfloat16, "f16": torch.float16}
# A run so long that nothing is logged, validated or saved in its first steps.
LONG = 10**9
# The modules of a project: those of another have the same names.
PROJECT = ("data", "kernels", "model", "train")
# The steps that are taken, of which the last is counted.
STEPS = 2


@dataclass(frozen=True)
class BatchSpec:
    """A batch: its rows, and for each field the dtype and the shape of a row. `precision` is the run's."""

    rows: int
    precision: str
    fields: Mapping[str, tuple[str, Sequence[int]]]

    @classmethod
    def read(cls, folder: Path) -> BatchSpec:
        return cls(**json.loads((folder / "batch.json").read_text(encoding="utf-8")))

    def make(self) -> Batch:
        """A batch of zeros on the GPU."""
        found = {
            name: torch.zeros((self.rows, *shape), dtype=getattr(torch, dtype), device=GPU)
            for name, (dtype, shape) in self.fields.items()
        }
        return Batch(found, self.rows)


class _Done(Exception):
    """All that is wanted of a training script has happened."""


class _Batches:
    """Stands for a split: `train.py` asks how many batches there are."""

    def __len__(self) -> int:
        return LONG


def count(folder: Path, how: str, real: bool = False) -> Counter:
    """What the step launches; `how` is `emitted` or `plain`. `real`: on the GPU that is there."""
    spec = BatchSpec.read(folder)
    device = contextlib.nullcontext() if real else fake_gpu()
    with _project(folder, real) as train, device, counting(real) as counter:
        counter.on = False
        if how == "plain":
            _plain(train, spec, counter, real)
        else:
            _emitted(train, spec, counter)
    return counter


@contextlib.contextmanager
def _project(folder: Path, real: bool) -> Iterator[ModuleType]:
    """The folder's `train.py` as a module. It reads no data and no weights."""
    before = {name: sys.modules.pop(name) for name in PROJECT if name in sys.modules}
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        train, data = importlib.import_module("train"), importlib.import_module("data")
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(data, "batches", mock.Mock(return_value=_Batches())))
            stack.enter_context(mock.patch.object(checkpoint, "load_weights", mock.Mock(return_value=None)))
            for name, value in vars(train).copy().items():
                if isinstance(value, type) and issubclass(value, nn.Module) and not real:
                    stack.enter_context(mock.patch.object(train, name, _without_contents(value)))
            yield train
    finally:
        sys.path.remove(str(folder))
        for name in PROJECT:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _without_contents(model: type[nn.Module]) -> Callable[..., nn.Module]:
    """The class of a model, made without the memory that it would take on the CPU."""

    def made(*args: Any, **kwargs: Any) -> nn.Module:
        with META:
            return model(*args, **kwargs)

    return made


def _start(train: ModuleType) -> None:
    """Run the script, in a folder that is thrown away."""
    often = ("logging.every", "validate.every", "checkpoint.every")
    settings = Settings({**train.SETTINGS, **dict.fromkeys(often, LONG), "epochs": None, "steps": LONG})
    with tempfile.TemporaryDirectory() as out:
        train.train(run.Job("counted", Path(out), GPU, settings, "none", ""))


def _plain(train: ModuleType, spec: BatchSpec, counter: Counter, real: bool) -> None:
    with replaced():
        training = made(lambda: _start(train))
        run.train_mode(*training.models.values())
        step = PlainStep(train, training, LOW.get(spec.precision), _autocast if real else autocast)
        for number in range(1, STEPS + 1):
            batch = spec.make()
            counter.on = number == STEPS
            step.take(batch, counter)
            counter.on = False


def _autocast(low: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cuda", low)


def _emitted(train: ModuleType, spec: BatchSpec, counter: Counter) -> None:
    def stream(*_: Any) -> Iterator[Batch]:
        for number in range(1, STEPS + 1):
            batch = spec.make()
            counter.phase, counter.on = FORWARD, number == STEPS
            yield batch
            counter.on = False
        raise _Done

    def backward(value: Tensor, *args: Any, **kwargs: Any) -> None:
        counter.phase = BACKWARD
        original(value, *args, **kwargs)  # type: ignore[no-untyped-call]
        counter.phase = UPDATE

    def forward(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            counter.phase = FORWARD
            return function(*args)

        return called

    original = Tensor.backward
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(run, "stream", stream))
        stack.enter_context(mock.patch.object(Tensor, "backward", backward))
        # The parts of a batch come after one another.
        for name in ("loss", "counted"):
            if hasattr(train, name):
                stack.enter_context(mock.patch.object(train, name, forward(getattr(train, name))))
        with contextlib.suppress(_Done):
            _start(train)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what a step launches as JSON: a list of objects with phase, category, name, launches and bytes."""
    parser = argparse.ArgumentParser(description="Count the launches of a training step.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("how", choices=("emitted", "plain"))
    parser.add_argument("--real", action="store_true", help="on the GPU that is there")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    try:
        counter = count(options.folder.resolve(), options.how, options.real)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps([{**asdict(kind), **asdict(tally)} for kind, tally in counter.found.items()]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
