"""Reading once what is asked for often."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def once(function: Callable[P, T]) -> Callable[P, T]:
    """Call a function once for the same arguments, which have to be hashable.

    `functools.cache` takes an argument that is given for another than the same one left to its default: data would be
    read, and held, twice.
    """
    known, kept = signature(function), cache(function)

    @wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> T:
        bound = known.bind(*args, **options)
        bound.apply_defaults()
        found: Any = kept(*bound.args, **bound.kwargs)
        result: T = found
        return result

    return called
