"""Where the time of a run goes: seconds by what they were spent on, as this process sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_SPENT: dict[str, float] = {}
_BEGAN = [time.perf_counter()]


def start(before: Mapping[str, float] | None = None) -> None:
    """Count from now, on top of what was spent `before`."""
    _SPENT.clear()
    _SPENT.update(before or {})
    _BEGAN[0] = time.perf_counter() - sum(_SPENT.values())


@contextmanager
def spent(on: str) -> Iterator[None]:
    """Count what is done within."""
    began = time.perf_counter()
    try:
        yield
    finally:
        add(on, time.perf_counter() - began)


def add(on: str, seconds: float) -> None:
    """Count seconds that were spent already."""
    _SPENT[on] = _SPENT.get(on, 0.0) + seconds


def waited(on: str, items: Iterator[T]) -> Iterator[T]:
    """The same items; what is counted is the wait for each."""
    while True:
        with spent(on):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def summary(rest: str) -> dict[str, float]:
    """The seconds spent on each, and on the `rest` until now."""
    whole = time.perf_counter() - _BEGAN[0]
    found = {on: round(seconds, 3) for on, seconds in _SPENT.items() if on != rest}
    return {rest: round(max(0.0, whole - sum(found.values())), 3), **found}
