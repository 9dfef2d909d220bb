"""The header of a dataset that `save_to_disk` of Hugging Face's `datasets` wrote: its columns and classes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tdsl.compiler.headers import Column, Damaged

INFO = "dataset_info.json"
KINDS = {"int": "int", "uint": "int", "float": "float", "bool": "bool", "string": "text", "large_string": "text"}


class SavedDataset:
    """One split of a folder. How many rows it has, its files of Arrow's know alone."""

    def __init__(self, folder: Path, split: str) -> None:
        inner = folder if (folder / INFO).is_file() else folder / split
        if not (inner / INFO).is_file():
            found = sorted(each.parent.name for each in folder.glob(f"*/{INFO}"))
            help = f"its splits are {', '.join(found)}" if found else "name a folder that `save_to_disk` wrote"
            raise Damaged(f"has no split `{split}`" if found else "holds no dataset", help=help)
        try:
            self.features = dict(json.loads((inner / INFO).read_bytes())["features"])
            self.columns: Mapping[str, Column] = {name: _column(each) for name, each in self.features.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Damaged(f"its {INFO} can't be read") from None

    def rows(self) -> int:
        raise Damaged("its rows are not counted before they are read", help="write the number")

    def labels(self, column: str) -> tuple[int, int]:
        """The smallest and the largest label."""
        names = self.features[column].get("names")
        if not isinstance(names, list) or not names:
            raise Damaged(f"column `{column}` does not name its classes", help="write the number of classes")
        return 0, len(names) - 1


def _column(feature: Any) -> Column:
    kind = str(feature["_type"]) if isinstance(feature, dict) else ""
    if kind == "ClassLabel":
        return Column("int")
    if kind == "Image":
        return Column("int", None, varies=True)
    if kind == "Value":
        return Column(_kind(str(feature["dtype"])))
    if re.fullmatch(r"Array\dD", kind):
        return Column(_kind(str(feature["dtype"])), tuple(map(int, feature["shape"])))
    if kind in ("Sequence", "List", "LargeList") and isinstance(feature.get("feature"), dict):
        inner = _column(feature["feature"])
        length = int(feature.get("length", -1))
        return Column(inner.kind, None if length < 0 or inner.shape is None else (length, *inner.shape))
    return Column("other")


def _kind(dtype: str) -> str:
    found = re.fullmatch(r"(u?int|float)\d+|(\w+)", dtype)
    return KINDS.get(found[1] or found[2], "other") if found else "other"
