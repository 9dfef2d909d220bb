"""Datasets of libraries and of one's own, whose rows Python makes when they are asked for."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdsl.runtime.columns import Column, stack
from tdsl.runtime.data_error import DataError
from tdsl.runtime.sources.arrow import arrow_columns
from tdsl.runtime.sources.extras import extra
from tdsl.runtime.sources.files import inside
from tdsl.runtime.sources.images import pixels
from tdsl.runtime.table import Array, Table

# What the column of labels is called; the second of a tuple's values.
LABELS = ("label", "1")


def python(base: Path, target: str, /, **arguments: Any) -> Table:
    """The rows of a map-style dataset: `python(root, "package.module:Dataset", size=3)`.

    Rows are dicts or named tuples, whose keys are the columns; tuples, whose columns are `0`, `1` and so on; or single
    values, as the column `data`. Values are tensors, arrays, images and numbers. Modules in the program's folder are
    found, too.
    """
    module, _, name = target.partition(":")
    folder = str(Path(base).resolve())
    if folder not in sys.path:
        sys.path.append(folder)  # and it stays, as workers import the module, too
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        help = "put the module into the folder of the program, or install it"
        raise DataError(f"no module `{error.name}`", file=target, help=help) from None
    except Exception as error:
        raise DataError(f"`{module}` can't be imported: {_told(error)}", file=target) from error
    if found is None:
        raise DataError(f"`{module}` has no `{name}`", file=target, help="name a class of the module")
    try:
        dataset = found(**arguments)
    except Exception as error:
        raise DataError(f"can't be made: {_told(error)}", file=target) from error
    return _table(dataset, target, {})


def torchvision(
    base: Path,
    name: str,
    /,
    *,
    root: str = "data",
    train: bool = True,
    download: bool = False,
    allow_outside: bool = False,
    **arguments: Any,
) -> Table:
    """A dataset of torchvision: columns `image` (u8 [C, H, W]) and `label`.

    Its files are in the folder `root`; `download` fetches them where they are not. Further arguments are those of the
    dataset's class. MNIST, CIFAR and their like are held in memory as a whole, images of others read as needed.
    """
    datasets = extra("torchvision", name, module="torchvision.datasets")
    if not hasattr(datasets, name):
        raise DataError(f"torchvision has no dataset `{name}`", file=name, help="see torchvision.datasets")
    found = getattr(datasets, name)
    takes = inspect.signature(found).parameters
    known: dict[str, Any] = {"root": str(inside(base, root, allow_outside)), "train": train, "download": download}
    given = {key: value for key, value in known.items() if key in takes}
    try:
        with _alone(Path(given["root"]) if download and "root" in given else None):
            dataset = found(**given, **arguments)
    except RuntimeError as error:
        help = "fetch it with `download=true`, or name its folder with `root`"
        raise DataError(f"{error}", file=f"{root}/{name}", help=help) from None
    except Exception as error:
        raise DataError(f"can't be made: {_told(error)}", file=name) from error
    held = _held(dataset)
    if held is not None:
        return Table(held, ((name, len(dataset)),), _class_names(dataset, held))
    return _table(dataset, name, {"0": "image", "1": "label"})


def huggingface(
    base: Path, name: str, *, config: str | None = None, split: str = "train", allow_outside: bool = False
) -> Table:
    """A dataset of the Hugging Face hub, or the folder that `save_to_disk` wrote, by its own columns.

    Images (u8 [C, H, W]) are read when they are asked for, everything else is held in memory.
    """
    datasets = extra("datasets", name)
    try:
        if (Path(base) / name).is_dir():
            dataset = datasets.load_from_disk(str(inside(base, name, allow_outside)))
            dataset = dataset[split] if isinstance(dataset, dict) else dataset
        else:
            dataset = datasets.load_dataset(name, config, split=split)
    except DataError:
        raise
    except Exception as error:  # the hub, the network and the files fail in their own ways
        what = f"no split `{split}`" if isinstance(error, KeyError) else _told(error)
        raise DataError(f"can't be loaded: {what}", file=name) from error
    return _of_hub(dataset, name)


def _of_hub(dataset: Any, name: str) -> Table:
    rows = len(dataset)
    if not rows:
        raise DataError("holds no rows", file=name)
    read = [column for column, feature in dataset.features.items() if type(feature).__name__ == "Image"]
    held = [column for column in dataset.column_names if column not in read]
    columns: dict[str, Array | Column] = {}
    if held:
        columns |= arrow_columns(dataset.select_columns(held).with_format("arrow")[:], name)
    if read:
        items = Items(dataset.select_columns(read), name)
        columns |= {column: Item(items, column, column) for column in read}
    names = {column: list(map(str, getattr(feature, "names", ()))) for column, feature in dataset.features.items()}
    ordered = {column: columns[column] for column in dataset.column_names}
    return Table(ordered, ((name, rows),), {column: found for column, found in names.items() if found})


def _held(dataset: Any) -> dict[str, Array | Column] | None:
    """The arrays of a dataset that has all of its images in memory; None of another."""
    from torchvision.datasets import CIFAR10, MNIST

    if not isinstance(dataset, (MNIST, CIFAR10)):
        return None
    images = np.asarray(dataset.data)
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    labels = np.asarray(dataset.targets)
    return {"image": images, "label": labels} if labels.ndim == 1 else None


# Rows that Python makes ----------------------------------------------------------------------------------------------


class Items:
    """Rows of a map-style dataset; those asked for last are kept, as each column of a batch asks for them."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self.name = name
        self.length = len(dataset)
        self.last: tuple[list[int], list[Mapping[str, Any]]] = ([], [])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "last": ([], [])}

    def rows(self, indices: list[int]) -> list[Mapping[str, Any]]:
        """The rows of those numbers, as columns by name."""
        known, rows = self.last
        if known != indices:
            rows = [self._row(index) for index in indices]
            self.last = indices, rows
        return rows

    def _row(self, index: int) -> Mapping[str, Any]:
        try:
            return _named(self.dataset[index])
        except Exception as error:
            raise DataError(f"can't be read: {_told(error)}", file=self.name, row=index + 1) from error


class Item(Column):
    """One column of such rows."""

    uniform = False

    def __init__(self, items: Items, key: str, name: str) -> None:
        self.items = items
        self.key = key
        self.name = name

    def __len__(self) -> int:
        return self.items.length

    def take(self, indices: Tensor) -> Tensor:
        return stack(self, self.rows(indices), indices)

    def rows(self, indices: Tensor) -> list[Tensor]:
        numbers = indices.tolist()
        return [self._value(row, number) for row, number in zip(self.items.rows(numbers), numbers, strict=True)]

    def _value(self, row: Mapping[str, Any], number: int) -> Tensor:
        if self.key not in row:
            what = f"has no `{self.key}`, and the first row has: it has {', '.join(row)}"
            raise self.error(number, what, field=self.name)
        value = row[self.key]
        if isinstance(value, Tensor):
            return value.detach().cpu()
        if hasattr(value, "getbands"):  # an image of Pillow
            return pixels(value if value.mode in ("L", "RGB", "RGBA") else value.convert("RGB"))
        try:
            return torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError):
            what = f"is {type(value).__name__}, which is no number, array or tensor"
            raise self.error(number, what, field=self.name) from None

    def where(self, row: int) -> tuple[str, int | None]:
        return self.items.name, row + 1


def _table(dataset: Any, name: str, names: Mapping[str, str]) -> Table:
    """A table of the columns that the first row has, some by other names."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        help = "give it `__len__` and `__getitem__`: a row is asked for by its number"
        raise DataError("is no map-style dataset", file=name, help=help)
    items = Items(dataset, name)
    if not items.length:
        raise DataError("holds no rows", file=name)
    (first,) = items.rows([0])
    columns = {names.get(key, key): Item(items, key, names.get(key, key)) for key in first}
    return Table(columns, ((name, items.length),), _class_names(dataset, columns))


def _class_names(dataset: Any, columns: Iterable[str]) -> dict[str, list[str]]:
    """What the labels stand for, where a dataset has `classes`, as those of torchvision have."""
    classes, label = getattr(dataset, "classes", None), next((each for each in columns if each in LABELS), None)
    if label is None or not isinstance(classes, (list, tuple)) or not all(isinstance(each, str) for each in classes):
        return {}
    return {label: list(classes)}


def _named(row: Any) -> Mapping[str, Any]:
    """A row as columns by name."""
    if isinstance(row, Mapping):
        return {str(key): value for key, value in row.items()}
    if isinstance(row, tuple) and hasattr(row, "_fields"):
        return dict(zip(row._fields, row, strict=True))
    if isinstance(row, (tuple, list)):
        return {str(place): value for place, value in enumerate(row)}
    return {"data": row}


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """One process at a time fetches into a folder: every rank of a run asks for the same files."""
    if folder is None or sys.platform == "win32":
        yield
        return
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".download").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _told(error: Exception) -> str:
    """An exception and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error)[:300]}{where}"
