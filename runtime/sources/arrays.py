"""Arrays of NumPy and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from tdsl.runtime.data_error import DataError
from tdsl.runtime.sources.files import read
from tdsl.runtime.table import Array, Table


def npz(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """NumPy arrays by name, all with the same number of rows."""
    return read(base, path, allow_outside, _npz)


def npy(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """One NumPy array, as the column `data`; a structured array has its own columns."""
    return read(base, path, allow_outside, _npy)


def safetensors(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """Tensors by name, all with the same number of rows; bf16 and the 8-bit floats are read as float32."""
    return read(base, path, allow_outside, _safetensors)


def _npz(file: Path, name: str) -> Mapping[str, Array]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: np.asarray(arrays[key]) for key in arrays.files}
    except OSError:
        raise
    except Exception as error:  # NumPy lists no errors for damaged files, and raises a dozen kinds
        raise _not_numpy(error, name, "an .npz") from None


def _npy(file: Path, name: str) -> Mapping[str, Array]:
    try:
        array = np.load(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:
        raise _not_numpy(error, name, "an .npy") from None
    if not isinstance(array, np.ndarray):
        raise DataError("holds several arrays", file=name, help="read it with `npz(...)`")
    if array.dtype.names:
        return {key: array[key] for key in array.dtype.names}
    return {"data": array}


def _not_numpy(error: Exception, name: str, kind: str) -> DataError:
    if "allow_pickle" in str(error):
        return DataError(
            "holds Python objects, or is no NumPy file",
            file=name,
            help="save arrays of numbers; arrays of objects are not read, as that could run code",
        )
    return DataError(f"is not {kind} file, or is damaged: {error}", file=name)


def _safetensors(file: Path, name: str) -> Mapping[str, Array]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return {key: _array(tensors.get_tensor(key)) for key in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(f"is not a safetensors file, or is damaged: {error}", file=name) from None


def _array(tensor: Tensor) -> Array:
    try:
        array: Array = tensor.numpy()
    except TypeError:  # NumPy has no such type
        array = tensor.float().numpy()
    return array
