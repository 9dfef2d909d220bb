"""The settings of a run by name, `batch_size` or `optimizer.lr`, and their change by `--set KEY=VALUE`."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

WORDS = {"true": True, "false": False, "none": None}


class UsageError(Exception):
    """A wrong option; `help` is the way out."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(f"{message}\n  help: {help}" if help else message)


class Rule(NamedTuple):
    """What a setting takes: a value of `kind`, at least `low`, or `size` numbers; and `none` where `optional`."""

    kind: type
    low: float | None = None
    optional: bool = False
    above: bool = False
    size: int = 0

    def __str__(self) -> str:
        if self.size:
            return f"{self.size} numbers, as in `({', '.join(['0.9'] * self.size)})`"
        what = {int: "an integer", float: "a number", bool: "`true` or `false`", str: "a string"}[self.kind]
        limit = "" if self.low is None else f" {'greater than' if self.above else 'of at least'} {self.low:g}"
        return f"{what}{limit}{' or `none`' if self.optional else ''}"

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if self.size:
            return isinstance(value, (tuple, list)) and len(value) == self.size and all(map(_is_number, value))
        if self.kind in (bool, str):
            return type(value) is self.kind
        if not _is_number(value) or (self.kind is int and not isinstance(value, int)):
            return False
        return self.low is None or value > self.low or (value == self.low and not self.above)


COUNT = Rule(int, 1)
PERIOD = Rule(int, 1, optional=True)
RULES = {
    "epochs": COUNT,
    "steps": COUNT,
    "batch_size": COUNT,
    "accumulate": COUNT,
    "seed": Rule(int, 0),
    "clip_grad_norm": Rule(float, 0, optional=True, above=True),
    "checkpoint.every": PERIOD,
    "checkpoint.keep": COUNT,
    "validate.every": PERIOD,
    "logging.every": COUNT,
    "early_stopping.patience": Rule(int, 0),
    "early_stopping.min_delta": Rule(float, 0),
    "data.workers": Rule(int, 0),
    "data.prefetch": COUNT,
}
# Arguments of optimizers that are never negative.
NONNEGATIVE = frozenset({"lr", "weight_decay", "eps", "momentum"})
# Settings of the program that code is emitted by; behind a point, those of a call, of the data or of a section.
COMPILED = frozenset(
    ["model", "data", "optimizer", "scheduler", "precision", "ema", "freeze", "init_from", "activation_checkpointing",
     "distributed", "checkpoint.best", "checkpoint.mode", "early_stopping.monitor", "early_stopping.mode",
     "evaluate.metrics", "evaluate.split", "data.source", "data.val", "data.test", "data.split", "data.shuffle",
     "data.drop_last", "data.resident"]
)  # fmt: skip
CALLS = ("model", "optimizer", "scheduler", "ema")
# What a run may change when it goes on from a checkpoint; its steps stay the same steps.
FREE = ("epochs", "steps", "checkpoint.", "logging.", "early_stopping.", "data.")


class Settings(Mapping[str, Any]):
    """Values by name, checked where they are changed; `before` has what those that were changed had been."""

    def __init__(self, values: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
        self.values_ = dict(values)
        self.before = dict(before or {})

    def __getitem__(self, key: str) -> Any:
        return self.values_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def under(self, section: str) -> dict[str, Any]:
        """`{"lr": 1e-3}` of `optimizer.lr`: the settings of a section."""
        return {key[len(section) + 1 :]: value for key, value in self.items() if key.startswith(f"{section}.")}

    def fixed(self) -> dict[str, Any]:
        """Those that a run must keep to go on from a checkpoint, and what it counts."""
        kept = {key: value for key, value in self.items() if not key.startswith(FREE)}
        return {"unit": "epoch" if self["steps"] is None else "step", **kept}

    def changed(self, options: Sequence[str]) -> Settings:
        """With every `KEY=VALUE` of `options`; raises `UsageError` for one that is wrong."""
        values = dict(self.values_)
        for option in options:
            key, sign, text = option.partition("=")
            if not sign:
                raise UsageError(f"`--set {option}` lacks a value", f"--set {option}=...")
            values[key] = self._parse(key, text)
            other = {"epochs": "steps", "steps": "epochs"}.get(key)
            if other is not None:
                values[other] = None
        parts = values.get("accumulate", 1)
        if values["batch_size"] % parts:
            raise UsageError(f"a batch of {values['batch_size']} rows does not divide into {parts} equal parts")
        changed = {key: self[key] for key, value in values.items() if value != self[key]}
        return Settings(values, changed | self.before)

    def _parse(self, key: str, text: str) -> Any:
        if key not in self and (key in COMPILED or key in RULES or self._is_argument(key)):
            help = f"`tdsl train FILE --set {key}={text}` takes it, which compiles the program with it"
            raise UsageError(f"`{key}` is no option of this script, but a setting of its program", help)
        if key not in self:
            close = get_close_matches(key, self, n=1)
            help = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(self)}"
            raise UsageError(f"there is no setting `{key}`", help)
        value = _literal(text)
        rule = self._rule(key)
        if not rule.accepts(value):
            raise UsageError(f"`{key}` takes {rule}, not `{text}`")
        return float(value) if rule.kind is float and value is not None else value

    def _is_argument(self, key: str) -> bool:
        """Whether a key may be an argument of a call that is compiled, and not one of the script misspelt."""
        return key.partition(".")[0] in CALLS and "." in key and not get_close_matches(key, self, n=1, cutoff=0.85)

    def _rule(self, key: str) -> Rule:
        """The rule of a setting, or, of an optimizer's argument, that it stays what it was."""
        if key in RULES:
            return RULES[key]
        if isinstance(self[key], (tuple, list)):
            return Rule(tuple, size=len(self[key]))
        kind = type(self[key])
        low = 0 if key.rpartition(".")[2] in NONNEGATIVE else None
        return Rule(float if kind is int else kind, low)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _literal(text: str) -> Any:
    """A value as the language writes it; text that is none is a string."""
    if text in WORDS:
        return WORDS[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
