"""Libraries that only some sources need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tdsl.runtime.data_error import DataError


def extra(package: str, what: str, *, module: str | None = None) -> Any:
    """The module of an optional package. Raises `DataError` that tells how to install it."""
    name = module or package
    help = f"pip install {package}, or all that data can need: pip install 'tdsl[datasets]'"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == name.partition(".")[0]:
            raise DataError(f"needs the package `{package}`, which is not installed", file=what, help=help) from None
        failure: Exception = error
    except Exception as error:  # such as of a torchvision that was built for another torch
        failure = error
    message = f"the package `{package}` can't be imported: {type(failure).__name__}: {failure}"
    raise DataError(message, file=what, help=help) from failure
