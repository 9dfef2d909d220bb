"""The first records of a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tdsl.compiler.headers import SAMPLE, Column, Damaged

HELP = 'each line is an object, such as `{"x": [1, 2], "label": 0}`'
KINDS = {bool: "bool", int: "int", float: "float", str: "text", dict: "other"}


class Jsonl:
    """The keys of the first objects, each a column."""

    def __init__(self, file: Path) -> None:
        self.file = file
        sample = list(islice(self._objects(), SAMPLE))
        if not sample:
            raise Damaged("holds no rows" if file.stat().st_size else "is empty")
        names = dict.fromkeys(name for found in sample for name in found)
        self.columns: Mapping[str, Column] = {
            name: _column([found.get(name) for found in sample], name) for name in names
        }

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.file.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield number, line

    def _objects(self) -> Iterator[dict[str, Any]]:
        for row, (number, line) in enumerate(self._lines(), 1):
            try:
                found = json.loads(line)
            except UnicodeDecodeError:
                raise Damaged(f"line {number} is not UTF-8", row, "save the file as UTF-8") from None
            except (ValueError, RecursionError) as error:
                what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise Damaged(f"line {number} is not JSON: {what}", row, HELP) from None
            if not isinstance(found, dict):
                raise Damaged(f"line {number} is no object", row, HELP)
            yield found

    def rows(self) -> int:
        return sum(1 for _ in self._lines())

    def labels(self, column: str) -> tuple[int, int]:
        """The smallest and the largest label."""
        found = []
        for row, each in enumerate(self._objects(), 1):
            value = each.get(column)
            if not isinstance(value, int) or isinstance(value, bool):
                what = f"column `{column}` has {json.dumps(value)[:40]}, which is no label"
                raise Damaged(what, row, "number labels from 0")
            found.append(value)
        return min(found), max(found)

    def texts(self, column: str) -> Iterator[str]:
        """The texts of a column."""
        yield from (value for each in self._objects() if isinstance(value := each.get(column), str))


def _column(values: list[Any], name: str) -> Column:
    """The kind and the shape of values, None being a number that is missing."""
    shape: tuple[int, ...] = ()
    while any(isinstance(value, list) for value in values):
        width = next(len(value) for value in values if isinstance(value, list))
        for row, value in enumerate(values, 1):
            if not isinstance(value, list) or len(value) != width:
                if shape:
                    raise Damaged(f"a list of column `{name}` has not the length of the first")
                what = f"{len(value)} values" if isinstance(value, list) else "no list"
                raise Damaged(f"column `{name}` has {what}, and the first list has {width}", row)
        values = [item for value in values for item in value]
        shape = (*shape, width)
    return Column(_kind(values), shape)


def _kind(values: list[Any]) -> str:
    kinds = {KINDS.get(type(value), "other") for value in values if value is not None}
    if not kinds or kinds == {"int", "float"} or (None in values and kinds <= {"int", "bool"}):
        return "float"
    return kinds.pop() if len(kinds) == 1 else "other"
