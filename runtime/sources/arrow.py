"""CSV, Parquet and lines of JSON, read with Arrow."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tdsl.runtime.data_error import DataError
from tdsl.runtime.sources.files import read
from tdsl.runtime.table import Array, Table

# A block as large as the file, so that a column's type is inferred from all of its rows.
LARGEST_BLOCK = 2**31 - 1
DELIMITER_HELP = 'such as ";", or "\\t", a tab'
JSON_HELP = 'each line is an object, such as `{"x": [1, 2], "label": 0}`'


def csv(base: Path, path: str, delimiter: str = ",", *, text: Sequence[str] = (), allow_outside: bool = False) -> Table:
    """Values with a delimiter between them, under a header; an empty cell is a missing value.

    Blank lines are skipped. The columns `text` hold text as it stands there, whatever it looks like.
    """
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\n\r':
        raise DataError(f"`delimiter` is one character, not {delimiter!r:.40}", file=path, help=DELIMITER_HELP)
    return read(base, path, allow_outside, partial(_csv, delimiter=delimiter, text=text))


def parquet(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """An Apache Parquet file; a column of equally long lists has them as its rows."""
    return read(base, path, allow_outside, _parquet)


def jsonl(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """A JSON object a line; blank lines are skipped, and a key that a line lacks is a missing value.

    Lists, nested ones too, that are as long in every line are the rows of their column.
    """
    return read(base, path, allow_outside, _jsonl)


def _csv(file: Path, name: str, delimiter: str, text: Sequence[str]) -> Mapping[str, Array]:
    import pyarrow as pa
    from pyarrow import csv as reader

    size = file.stat().st_size
    if size == 0:
        raise DataError("is empty", file=name)

    def parsed(threads: bool) -> Any:
        options = reader.ReadOptions(use_threads=threads, block_size=min(size + 1, LARGEST_BLOCK))
        types = reader.ConvertOptions(column_types=dict.fromkeys(text, pa.string()))
        parsing = reader.ParseOptions(delimiter=delimiter)
        return reader.read_csv(file, read_options=options, parse_options=parsing, convert_options=types)

    try:
        table = parsed(True)
    except pa.ArrowCancelled:  # what Arrow makes of SIGINT
        raise KeyboardInterrupt from None
    except pa.ArrowInvalid:
        try:
            table = parsed(False)  # tells the row
        except pa.ArrowInvalid as error:
            raise _malformed(str(error), name) from None
    return arrow_columns(table, name)


def _malformed(message: str, name: str) -> DataError:
    """Arrow's complaint, with its line counted from the header turned into a data row."""
    found = re.fullmatch(r"(?:CSV parse error: )?(?:Row #(\d+): )?(.*)", message, re.DOTALL)
    line, what = found.groups() if found else (None, message)
    what = what[:1].lower() + what[1:].splitlines()[0][:200] if what else message
    return DataError(what, file=name, row=int(line) - 1 if line else None)


def _parquet(file: Path, name: str) -> Mapping[str, Array]:
    import pyarrow as pa
    from pyarrow import parquet as reader

    try:
        table = reader.ParquetFile(file).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"is not a Parquet file that can be read: {str(error)[:200]}", file=name) from None
    return arrow_columns(table, name)


def _jsonl(file: Path, name: str) -> Mapping[str, Array]:
    import pyarrow as pa
    from pyarrow import json as reader

    size = file.stat().st_size
    if size == 0:
        raise DataError("is empty", file=name)
    try:
        table = reader.read_json(file, read_options=reader.ReadOptions(block_size=min(size + 1, LARGEST_BLOCK)))
        return arrow_columns(table, name)
    except pa.ArrowException as error:  # text that is not UTF-8 fails as it is converted
        raise _not_json(file, name) or _malformed(str(error), name) from None


def _not_json(file: Path, name: str) -> DataError | None:
    """What is wrong with the first line that is no object, or that has another kind of value than those before it."""
    kinds: dict[str, tuple[str, int]] = {}
    row = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row += 1
            try:
                found = json.loads(line)
            except UnicodeDecodeError:
                return DataError(f"line {number} is not UTF-8", file=name, row=row, help="save the file as UTF-8")
            except (ValueError, RecursionError) as error:
                what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                return DataError(f"line {number} is not JSON: {what}", file=name, row=row, help=JSON_HELP)
            if not isinstance(found, dict):
                return DataError(f"line {number} is no object", file=name, row=row, help=JSON_HELP)
            for key, value in found.items():
                kind = _json_kind(value)
                first, earlier = kinds.setdefault(key, (kind, row)) if kind else (kind, row)
                if kind != first:
                    what = f"is {kind} in line {number}, and was {first} in row {earlier}"
                    return DataError(what, file=name, row=row, field=key, help="give every line the same kind of value")
    return None


def _json_kind(value: object) -> str:
    """What Arrow would have to read a value as; empty where that is open."""
    if isinstance(value, list):
        inner = next(filter(None, map(_json_kind, value)), "")
        return f"a list of {inner}" if inner else ""
    kinds: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text", dict: "an object"}
    return kinds.get(type(value), "")


def arrow_columns(table: Any, name: str) -> Mapping[str, Array]:
    """The columns of a table of Arrow's; `name` is what errors call its file."""
    try:
        names = table.column_names
    except UnicodeDecodeError:
        raise DataError("its header is not UTF-8", file=name, help="save the file as UTF-8") from None
    for column in names:
        if names.count(column) > 1:
            raise DataError(f"has several columns of the name `{column}`", file=name, help="rename all but one")
    return {column: _arrow(table.column(at), name, column) for at, column in enumerate(names)}


def _arrow(array: Any, name: str, column: str, each: int = 1) -> Array:
    """The values of an array, `each` of which belong to one row."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _arrow(array.storage, name, column, each)
    if pa.types.is_dictionary(kind):
        return _arrow(array.dictionary_decode(), name, column, each)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _arrow_lists(array, name, column, each)
    if pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    if pa.types.is_boolean(kind) and array.null_count:
        array = array.cast(pa.uint8()).cast(pa.float64())
    found: Array = array.to_numpy(zero_copy_only=False)
    return found


def _arrow_lists(array: Any, name: str, column: str, each: int) -> Array:
    lengths = array.value_lengths().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~(lengths == lengths[:1])) if len(lengths) else lengths
    if len(wrong):
        at, length = int(wrong[0]), lengths[wrong[0]]
        what = "is missing" if math.isnan(length) else f"has {int(length)} values, and the first has {int(lengths[0])}"
        raise DataError(f"its list {what}", file=name, row=at // each + 1, field=column)
    width = int(lengths[0]) if len(lengths) else 0
    values = _arrow(array.flatten(), name, column, each * width)
    return values.reshape(len(array), width, *values.shape[1:])
