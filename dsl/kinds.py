"""What a value of a section may be, and the arguments that a built-in takes: what `dsl/signatures.py` is written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """What a value may be. `words` are bare words, as `bf16`; `calls` a table of built-ins, as `AdamW(...)`."""

    what: str
    accepts: Callable[[Any], bool]
    words: tuple[str, ...] = ()
    calls: Mapping[str, Signature] = {}
    element: Kind | None = None


class Required:
    """The default of an argument that has none."""


class Arg(NamedTuple):
    name: str
    kind: Kind
    default: Any = Required


class Signature(NamedTuple):
    name: str
    args: tuple[Arg, ...]
    variadic: Kind | None = None


def signature(name: str, *args: Arg, variadic: Kind | None = None) -> tuple[str, Signature]:
    return name, Signature(name, args, variadic)


def number(low: float | None = None, high: float | None = None, above: float | None = None) -> Kind:
    """A number from `low` to `high`, or greater than `above`."""
    return Kind(
        f"a number{_limits(low, high, above)}", lambda value: _is_number(value) and _in(value, low, high, above)
    )


def integer(low: int | None = None) -> Kind:
    return Kind(
        f"an integer{_limits(low, None, None)}", lambda value: _is_integer(value) and _in(value, low, None, None)
    )


def optional(kind: Kind) -> Kind:
    return kind._replace(what=f"{kind.what} or `none`", accepts=lambda value: value is None or kind.accepts(value))


def many(kind: Kind, size: int | None = None) -> Kind:
    """A list of values of one kind."""

    def accepts(value: Any) -> bool:
        return isinstance(value, tuple) and size in (None, len(value)) and all(kind.accepts(item) for item in value)

    what = f"{'a list' if size is None else f'{size} values'}, each {kind.what}"
    return Kind(what, accepts, kind.words, kind.calls, kind)


def either(first: Kind, second: Kind) -> Kind:
    return Kind(
        f"{first.what} or {second.what}",
        lambda value: first.accepts(value) or second.accepts(value),
        first.words + second.words,
        {**first.calls, **second.calls},
        first.element or second.element,
    )


def choice(*values: str) -> Kind:
    """One of a few strings."""
    listed = ", ".join(f'"{value}"' for value in values)
    return Kind(f"one of {listed}", lambda value: isinstance(value, str) and value in values)


def word(*words: str) -> Kind:
    """One of a few bare words, which strings of the same text stand for too."""
    return Kind(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words, words)


def call(what: str, table: Mapping[str, Signature]) -> Kind:
    return Kind(what, lambda value: getattr(value, "name", None) in table, calls=table)


def _limits(low: float | None, high: float | None, above: float | None) -> str:
    if above is not None:
        return f" greater than {above:g}"
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    return "" if low is None else f" of at least {low:g}"


def _in(value: float, low: float | None, high: float | None, above: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, float)


REAL = number()
NONNEGATIVE = number(low=0)
POSITIVE = number(above=0)
UNIT = number(low=0, high=1)
INTEGER = integer()
NATURAL = integer(low=0)
COUNT = integer(low=1)
FLAG = Kind("`true` or `false`", lambda value: isinstance(value, bool))
TEXT = Kind("a string", lambda value: isinstance(value, str))
TEXTS = many(TEXT)
DELIMITER = Kind(
    'one character, such as ";" or "\\t"',
    lambda value: isinstance(value, str) and len(value) == 1 and value.isascii() and value not in '"\n\r',
)
BETAS = many(UNIT, 2)
SIZE = either(COUNT, many(COUNT))
RANGE = either(NONNEGATIVE, many(REAL, 2))
