"""The settings of a run, as its script declares them and `--set KEY=VALUE` changes them."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

from tdsl.runtime.errors import RunError

WORDS = {"true": True, "false": False, "none": None}
# Settings whose change leaves what was trained so far as it is.
FREE = ("epochs", "steps", "checkpoint", "validate", "early_stopping", "logging")


def _count(default: Any = None, least: int = 1) -> Any:
    return field(default=default, metadata={"least": least})


@dataclass(frozen=True)
class Checkpoint:
    """When checkpoints are written (`every` in the run's unit), how many are kept, and by what the best is known."""

    every: int | None = _count()
    keep: int = _count(3)
    best: str | None = None
    mode: str = "auto"
    resume: str = "auto"


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` validations in a row without an improvement of `monitor` by more than `min_delta`."""

    monitor: str = "val/loss"
    patience: int = _count(3, 0)
    min_delta: float = 0.0
    mode: str = "auto"


@dataclass(frozen=True)
class Every:
    """How often, in the run's unit; None leaves it to the run's length."""

    every: int | None = _count()


@dataclass(frozen=True)
class Settings:
    """All that a run can be told. One of `epochs` and `steps` is given; `optimizer`, `scheduler` are arguments."""

    epochs: int | None = _count()
    steps: int | None = _count()
    batch_size: int = _count(32)
    accumulate: int = _count(1)
    clip_grad_norm: float | None = None
    seed: int = _count(0, 0)
    deterministic: bool = False
    tf32: bool = False
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    ema: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint = Checkpoint()
    validate: Every = Every()
    early_stopping: EarlyStopping | None = None
    logging: Every = Every(10)

    def override(self, edits: Mapping[str, str]) -> Settings:
        """The settings with `KEY` (`batch_size`, `optimizer.lr`) given the value that the text `VALUE` stands for.

        Raises `RunError` for a key that the run does not have and for a value of the wrong kind.
        """
        changed = self
        for key, text in edits.items():
            owner, _, name = key.rpartition(".")
            section = getattr(changed, owner, None) if owner else changed
            if key not in dict(changed.keys()):
                raise _unknown(key, [name for name, _ in changed.keys()])
            value = _value(key, text, section, name)
            other = {"epochs": "steps", "steps": "epochs"}.get(key)
            edited = {**section, name: value} if isinstance(section, Mapping) else replace(section, **{name: value})
            changed = replace(changed, **{owner: edited}) if owner else edited
            changed = replace(changed, **{other: None}) if other else changed
        changed.check()
        return changed

    def keys(self) -> Iterator[tuple[str, Any]]:
        """The keys that can be set, with their values."""
        for name, value in ((each.name, getattr(self, each.name)) for each in fields(self)):
            if isinstance(value, Mapping):
                yield from ((f"{name}.{inner}", each) for inner, each in value.items())
            elif is_dataclass(value):
                yield from ((f"{name}.{each.name}", getattr(value, each.name)) for each in fields(value))
            elif name != "early_stopping":
                yield name, value

    def check(self) -> None:
        """Raise `RunError` where settings contradict one another."""
        if (self.epochs is None) == (self.steps is None):
            raise RunError("a run has `epochs` or `steps`", help="set one of them", status=2)
        if self.batch_size % self.accumulate:
            message = f"a batch of {self.batch_size} rows does not divide into {self.accumulate} equal parts"
            raise RunError(message, help="choose an `accumulate` that divides `batch_size`", status=2)

    def differences(self, then: Mapping[str, Any]) -> list[str]:
        """Keys in which a run with the settings `then` (of `asdict`) trained otherwise than this one would."""
        mine = _plain(asdict(self))
        return [key for key in mine if key not in FREE and mine[key] != then.get(key)]


def _plain(value: Any) -> Any:
    """As JSON brings it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _unknown(key: str, known: list[str]) -> RunError:
    close = difflib.get_close_matches(key, known, 1)
    help = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(known)}"
    return RunError(f"--set {key}: the run has no such setting", help=help, status=2)


def _value(key: str, text: str, section: Any, name: str) -> Any:
    value = _parse(text)
    if isinstance(section, Mapping):
        kinds, least = _kinds_of(section[name]), 0 if name in ("patience", "cooldown", "warmup") else 1
    else:
        hint = get_type_hints(type(section))[name]
        kinds = get_args(hint) or (hint,)
        least = next(each for each in fields(section) if each.name == name).metadata.get("least")
    if float in kinds and type(value) is int:
        value = float(value)
    told = " or ".join(_told(kind) for kind in kinds)
    if type(value) not in kinds:
        raise RunError(f"--set {key}: takes {told}, not `{text}`", status=2)
    if type(value) is int and least is not None and value < least:
        raise RunError(f"--set {key}: takes an integer of at least {least}, not {value}", status=2)
    if isinstance(value, tuple) and [type(each) for each in value] != [type(each) for each in section[name]]:
        raise RunError(f"--set {key}: takes values such as {list(section[name])}, not `{text}`", status=2)
    return value


def _kinds_of(value: Any) -> tuple[type, ...]:
    return (type(value),)


def _told(kind: type) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string", tuple: "a list"}
    return names.get(kind, "none")


def _parse(text: str) -> Any:
    """The value that a text of the language stands for; a bare word is a string."""
    if text in WORDS:
        return WORDS[text]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return tuple(value) if isinstance(value, (list, tuple)) else value
