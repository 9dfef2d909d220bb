"""Checkpoints: folders `step-N` of safetensors and JSON, with a manifest that tells a damaged one from a good one.

    model.safetensors      parameters and buffers; `NAME.safetensors` of each further model of the run
    ema.safetensors        the averaged model, where the run keeps one
    optimizer.safetensors  optimizer state, `PARAMETER.exp_avg` and so on
    random.safetensors     the states of the random streams of each process, `RANK.torch` and so on
    shards.json            where parameters are divided among processes: which rows are in which file (`shards`)
    state.json             all that is no tensor: step, schedule, best value, settings, optimizer groups
    program.model          the text that made the model
    tokenizer.json         what numbers texts, where the data are texts: the vocabulary
    manifest.json          the SHA-256 of each of the above

A checkpoint is written aside, flushed to the disk and renamed, so that it is there whole or not at all. None of it is
ever unpickled.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tdsl.runtime import fitting, shards
from tdsl.runtime.average import Average
from tdsl.runtime.files import MANIFEST, remove_folder, sha256, sweep, write_folder
from tdsl.runtime.run import Failure
from tdsl.runtime.statistics import Statistics

STATE, PROGRAM, MODEL, EMA = "state.json", "program.model", "model", "ema"
OPTIMIZER, RANDOM, TOKENIZER = "optimizer", "random", "tokenizer.json"
FORMAT = 2
_NAME = re.compile(r"step-(\d+)")


class Damaged(Exception):
    """A checkpoint that is not what was written."""


# The values that number columns of the data, by their places.
Categories = Mapping[str, Sequence[str] | Sequence[int]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk."""

    path: Path
    step: int

    def verify(self) -> None:
        """Raise `Damaged` unless every file is as it was written."""
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            files = dict(manifest["files"])
        except FileNotFoundError:
            raise Damaged(f"{self.path}: `{MANIFEST}` is missing") from None
        except (ValueError, KeyError, TypeError):
            raise Damaged(f"{self.path}: `{MANIFEST}` is damaged") from None
        if manifest.get("format") != FORMAT:
            raise Damaged(f"{self.path}: format {manifest.get('format')}, this version reads {FORMAT}")
        for name, digest in files.items():
            if not (self.path / name).is_file():
                raise Damaged(f"{self.path}: `{name}` is missing")
            if sha256(self.path / name) != digest:
                raise Damaged(f"{self.path}: `{name}` is damaged")

    @property
    def state(self) -> dict[str, Any]:
        """All that is no tensor."""
        found: dict[str, Any] = json.loads((self.path / STATE).read_text(encoding="utf-8"))
        return found

    @property
    def statistics(self) -> Statistics:
        """What fields took from the rows of the train split."""
        return Statistics.of(self.state.get("statistics", {}))

    @property
    def tokenizer(self) -> str | None:
        """The record of what numbers texts; None of a run whose data are none."""
        file = self.path / TOKENIZER
        return file.read_text(encoding="utf-8") if file.exists() else None

    def stem(self, name: str = MODEL) -> str:
        """By what name a model's weights are kept: of `model` the averaged ones, where the run keeps an average."""
        return EMA if name == MODEL and shards.exists(self.path, EMA) else name

    def weights(self, name: str = MODEL) -> dict[str, Tensor]:
        """A model's weights, on the CPU: of `model` the averaged ones, where the run keeps an average."""
        return self.tensors(self.stem(name))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a name, on the CPU and whole."""
        return shards.read(self.path, name)


# Writing ------------------------------------------------------------------------------------------------------------


def write(
    folder: Path,
    step: int,
    *,
    models: Mapping[str, nn.Module],
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    program: str,
    tokenizer: str | None = None,
) -> Checkpoint:
    """Write the checkpoint of a step.

    Raises `Failure`, and leaves nothing of it, where a parameter is not finite, or the disk is full.
    """
    for name, model in models.items():
        check_finite(name, model.state_dict(), step)

    def fill(path: Path) -> None:
        for name, model in models.items():
            save_weights(path / f"{name}.safetensors", model)
        for name, values in tensors.items():
            contiguous = {key: value.detach().cpu().contiguous() for key, value in values.items()}
            save_file(contiguous, path / f"{name}.safetensors")
        describe(path, step, state, program, tokenizer)
        enlist(path, {file.name: sha256(file) for file in sorted(path.iterdir())})

    path = folder / f"step-{step}"
    try:
        write_folder(path, fill)
    except (OSError, SafetensorError) as error:
        raise unwritten(path, error) from None
    return Checkpoint(path, step)


def describe(path: Path, step: int, state: Mapping[str, Any], program: str, tokenizer: str | None) -> list[str]:
    """Write what is no tensor; the names of its files."""
    texts = {STATE: json.dumps({"step": step, **state}, indent=1), PROGRAM: program, TOKENIZER: tokenizer}
    written = {name: text for name, text in texts.items() if text is not None}
    for name, text in written.items():
        (path / name).write_text(text, encoding="utf-8")
    return list(written)


def enlist(path: Path, files: Mapping[str, str]) -> None:
    """Write the manifest of files, given their sums."""
    manifest = {"format": FORMAT, "files": dict(sorted(files.items()))}
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def unwritten(path: Path, error: BaseException) -> Failure:
    """What is told where a checkpoint can't be written."""
    help = "make room on the disk, and start the run again: the checkpoints before it are intact"
    return Failure(f"{path} can't be written: {error}", help)


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the tensors of a model, each once: of its several names the first, as safetensors' `save_model` does.

    That refuses tensors with several names that are part of a larger storage, as parallel linear layers' weights are.
    """
    state = model.state_dict()
    names = {names[0]: names[1:] for names in _same(state)}
    kept = {name: state[name] for name in names}
    others = {other: name for name, more in names.items() for other in more}
    save_file({name: _by_itself(value) for name, value in kept.items()}, path, metadata=others or None)


def _same(state: Mapping[str, Tensor]) -> list[list[str]]:
    """The names of each tensor, in alphabetical order."""
    found: dict[object, list[str]] = {}
    for name, value in sorted(state.items()):
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device) if value.numel() else name
        found.setdefault(place, []).append(name)
    return list(found.values())


def _by_itself(value: Tensor) -> Tensor:
    """A tensor that shares no storage with another."""
    part = value.untyped_storage().nbytes() != value.nbytes
    return value.to("cpu", copy=True).contiguous() if part else value.contiguous()


def check_finite(name: str, state: Mapping[str, Tensor], step: int) -> None:
    """Raise `Failure` where a parameter is not finite."""
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            help = "the last checkpoint is intact; lower `optimizer.lr`, or set `clip_grad_norm`"
            raise Failure(f"`{key}` of `{name}` is not finite after step {step}; no checkpoint was written", help)


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and that of step `best`."""
    for checkpoint in listed(folder)[keep:]:
        if checkpoint.step != best:
            remove_folder(checkpoint.path)


# Finding ------------------------------------------------------------------------------------------------------------


def listed(folder: Path) -> list[Checkpoint]:
    """The checkpoints in a folder, the newest first, good or not."""
    paths = folder.iterdir() if folder.is_dir() else iter(())
    found = [Checkpoint(path, int(match[1])) for path in paths if (match := _NAME.fullmatch(path.name))]
    return sorted(found, key=lambda checkpoint: -checkpoint.step)


def latest_good(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is as it was written, with a warning of each newer one; None where there is none.

    Raises `Failure` where there are some, and all are damaged.
    """
    there = listed(folder)
    for checkpoint in there:
        try:
            checkpoint.verify()
        except Damaged as error:
            print(f"warning: {error}; the one before it is used", file=sys.stderr)
        else:
            return checkpoint
    if there:
        raise Failure(f"every checkpoint in {folder} is damaged", "start anew with `--resume none`")
    return None


def best(folder: Path) -> Checkpoint | None:
    """The checkpoint of the best value of what the run monitors; the newest where there is none, or it is lost."""
    newest = latest_good(folder)
    step = newest.state.get("best", {}).get("step") if newest else None
    if newest is None or step in (None, newest.step):
        return newest
    found = Checkpoint(folder / f"step-{step}", int(step))
    try:
        found.verify()
    except Damaged as error:
        print(f"warning: {error}; the newest checkpoint is used", file=sys.stderr)
        return newest
    return found


def find(folder: Path, which: str = "best") -> Checkpoint:
    """The checkpoint `which`: `best`, `last` or the path of one. Raises `Failure` where it is not there, or damaged."""
    found = {"best": best, "last": latest_good}[which](folder) if which in ("best", "last") else at(Path(which))
    if found is None:
        raise Failure(f"there is no checkpoint in {folder}", "train the run first")
    return found


def at(path: Path) -> Checkpoint:
    """The checkpoint at a path. Raises `Failure` where it is not there, or damaged."""
    match = _NAME.fullmatch(path.resolve().name)
    if not path.is_dir() or match is None:
        raise Failure(f"`{path}` is no checkpoint", "give the path of a folder `step-N`")
    found = Checkpoint(path, int(match[1]))
    try:
        found.verify()
    except Damaged as error:
        raise Failure(str(error)) from None
    return found


def clean(folder: Path) -> None:
    """Remove what a write that was cut short has left."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)


# Reading ------------------------------------------------------------------------------------------------------------


def load_model_weights(checkpoint: Checkpoint, model: nn.Module, name: str = MODEL) -> None:
    """Put the weights of a checkpoint into a model: of `model` the averaged ones, where the run keeps an average.

    Raises `Failure` where the names or shapes of its tensors are others.
    """
    load(checkpoint, checkpoint.stem(name), model)


def check_categories(checkpoint: Checkpoint, categories: Categories) -> None:
    """Raise `Failure` where columns are numbered otherwise than those that the checkpoint was trained on."""
    for column, values in checkpoint.state.get("categories", {}).items():
        if column in categories and [*categories[column]] != values:
            what = f"column `{column}` has other categories than when {checkpoint.path} was trained"
            raise Failure(what, f"give it the list {json.dumps(values, ensure_ascii=False)}, or train anew")


def load(checkpoint: Checkpoint, name: str, model: nn.Module | Average) -> None:
    """Put the tensors of a name into a model, of one that is divided among ranks each rank's rows."""
    state, path = model.state_dict(keep_vars=True), checkpoint.path / f"{name}.safetensors"
    with fitting.told(path):
        given = shards.read(checkpoint.path, name, shards.wanted(state))
        if isinstance(model, Average) or any(map(shards.divided, state.values())):
            shards.put(_named(given, _identical(state)), state)
        else:
            _fill(model, given, path)


def load_weights(path: Path, model: nn.Module, without: Sequence[str] = ()) -> None:
    """Put the tensors of a safetensors file into a model, those of a checkpoint, or of a run's best one.

    What a glob of `without` names, by itself or by a module that it is in, stays as it is. Raises `Failure` where the
    path is none of these, lacks others of the model's tensors, or has others.
    """
    found = None
    if path.is_dir():
        run = path / "checkpoints"
        found = find(run) if run.is_dir() else at(path)
        path = found.path / f"{found.stem()}.safetensors"
    with fitting.told(path):
        given = load_file(path) if found is None else found.weights()
        _fill(model, given, path, _without(model.state_dict(), given, without, path))


def _without(
    state: Mapping[str, Tensor], given: Mapping[str, Tensor], patterns: Sequence[str], path: Path
) -> Container[str]:
    """The names, of the model and of the file, that no glob names. Raises `Failure` for a glob that names none."""
    names = {*state, *given}
    for pattern in patterns:
        if not any(fitting.is_named(name, pattern) for name in names):
            what = f'"{pattern}" of `without` matches no weight of the model, nor of `{path}`'
            raise Failure(what, f"the model has {fitting.listed([*state])}")
    return {name for name in names if not any(fitting.is_named(name, pattern) for pattern in patterns)}


def _fill(model: nn.Module, given: Mapping[str, Tensor], path: Path, taken: Container[str] | None = None) -> None:
    """Put tensors into a model: into all of it, or into those of these names."""
    state = model.state_dict()
    found, kept = _named(given, _same(state)), state
    if taken is not None:
        found, kept = ({name: value for name, value in each.items() if name in taken} for each in (found, kept))
    first = {names[0] for names in _same(kept)}
    wanted = {name: value.shape for name, value in kept.items() if name in first}
    fitting.check(path, wanted, found, known=state, partly=taken is not None)
    model.load_state_dict(found, strict=taken is None)


def _named(given: Mapping[str, Tensor], same: list[list[str]]) -> dict[str, Tensor]:
    """The tensors by all of their names."""
    found = dict(given)
    for names in same:
        one = next((name for name in names if name in given), None)
        found |= {name: given[one] for name in names if one is not None and name not in given}
    return found


def _identical(state: Mapping[str, Any]) -> list[list[str]]:
    """The names of each tensor that is one object of several."""
    found: dict[int, list[str]] = {}
    for name, value in state.items():
        found.setdefault(id(value), []).append(name)
    return list(found.values())


def flat_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer with named parameters: its tensors by `PARAMETER.KEY`, and all else."""
    state = optimizer.state_dict()
    names = dict(_names(state["param_groups"]))
    entries = {f"{names[i]}.{key}": value for i, slots in state["state"].items() for key, value in slots.items()}
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    rest = {key: value for key, value in entries.items() if not isinstance(value, Tensor)}
    return tensors, {"groups": state["param_groups"], "values": rest}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    """Undo `flat_optimizer`."""
    groups = [{key: _tupled(key, value) for key, value in group.items()} for group in rest["groups"]]
    indices = {name: i for i, name in _names(groups)}
    slots: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **rest["values"]}.items():
        name, _, slot = key.rpartition(".")
        slots.setdefault(indices[name], {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            # In files all is in PyTorch's own order; an optimizer has its tensors in that of their parameter.
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _names(groups: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    for group in groups:
        yield from zip(group["params"], group["param_names"], strict=True)


def _tupled(key: str, value: Any) -> Any:
    """JSON has lists where an optimizer has tuples, such as `betas`."""
    return tuple(value) if isinstance(value, list) and key not in ("params", "param_names") else value
