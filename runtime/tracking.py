"""Scalars that modules track: kept until the loss that called them collects them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_VALUES: dict[str, list[Tensor]] = {}


def start() -> None:
    """Forget what calls outside of a loss have left."""
    _VALUES.clear()


def add(name: str, value: Tensor) -> None:
    """Keep a value of a module's call."""
    _VALUES.setdefault(name, []).append(value.detach())


def collect() -> dict[str, Tensor]:
    """The values since `start`, by name; of several, as where a list of modules tracks, their mean."""
    found = {name: sum(values[1:], values[0]) / len(values) for name, values in _VALUES.items()}
    _VALUES.clear()
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Within, what is kept is forgotten again behind it: a module that computes a second time tracks nothing new."""
    before = {name: list(values) for name, values in _VALUES.items()}
    try:
        yield
    finally:
        _VALUES.clear()
        _VALUES.update(before)
