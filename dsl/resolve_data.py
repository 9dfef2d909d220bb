"""`data` declarations: settings, fields against the columns of their files, transforms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import NoReturn

from tdsl.dsl import ast, statistics
from tdsl.dsl.categories import all_categories, called, is_categories, numbering
from tdsl.dsl.constants import describe, fold
from tdsl.dsl.diagnostics import Diagnostic, Span, fail
from tdsl.dsl.facts import Column, Probe, other_delimiter
from tdsl.dsl.kinds import many
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.program import Call, Categories, Constant, DataSpec, FieldSpec, TransformSpec
from tdsl.dsl.row_shapes import ROWS, Shape, indexed, row, viewed
from tdsl.dsl.scope import Scope
from tdsl.dsl.signatures import DATA_SETTINGS, SPLIT_NAMES, TRANSFORM
from tdsl.dsl.transforms import RESIZING, UNKNOWN, VARIES, Dims, Image, shown, transformed
from tdsl.dsl.values import evaluate, unknown

SOURCES = ("source", "val", "test")
# The splits that divide rows by a field or a column.
BY = ("stratified", "grouped")
ROUNDING = 1e-6
# Methods that move values and compute nothing.
MOVES = frozenset(
    ("flatten", "movedim", "permute", "reshape", "squeeze", "transpose", "unflatten", "unsqueeze", "view")
)
# What to do with a column whose categories are of another kind, by what it holds.
ONE_OF = {
    "text": "write them as strings",
    "int": "write them as whole numbers",
    "bool": "`column` reads it as 0 and 1",
    "float": "categories are no fractions, and no missing values: make the column one of whole numbers, or of text",
    "other": "categories are strings, or whole numbers",
}


def resolve_data(data: ast.Data, scope: Scope) -> DataSpec:
    """The dataset that a declaration describes; mistakes are reported, and their settings left out."""
    settings = _settings(data, scope)
    split = settings.pop("split", None)
    sources = {name: call for name in SOURCES if (call := scope.source(data, name)) is not None}
    with scope.guard():
        if not any(setting.name == "source" for setting in data.settings):
            help = 'such as `source = csv("data.csv")`'
            fail("E303", f"`data {data.name}` needs a `source`", data.name_span, help=help)
    checked = split if isinstance(split, Call) else None
    transforms = _transforms(data, {field.name for field in data.fields}, scope)
    fields = _fields(data, Readings(sources, checked, transforms), scope)
    if checked is not None:
        _check_split(data, checked, sources, fields, scope)
    numbered: Mapping[str, Categories] = {}
    with scope.guard():
        numbered = all_categories(data.fields, scope.lookup)
    facts = scope.told.setdefault(data.name, {})
    return DataSpec(data.name, sources, checked, fields, transforms, settings, facts, data.span, data.doc, numbered)


def splits_of(data: DataSpec) -> list[str]:
    """The splits that have rows."""
    return _with_rows(data.sources, data.split)


def lacks(split: Constant, data: DataSpec, scope: Scope) -> bool:
    """Whether data have no such split; of those whose source or `split` is mistaken, nothing is known."""
    declaration = scope.declarations.get(data.name)
    settings = declaration.settings if isinstance(declaration, ast.Data) else ()
    mistaken = data.split is None and any(setting.name == "split" for setting in settings)
    return bool(data.sources) and not mistaken and split not in splits_of(data)


def _with_rows(sources: Mapping[str, Call], split: Call | None) -> list[str]:
    shares = split.args if split else {"train": 1.0}
    return [name for name in SPLIT_NAMES if name in sources or shares.get(name)]


def _settings(data: ast.Data, scope: Scope) -> dict[str, Constant]:
    known = {arg.name: arg for arg in DATA_SETTINGS}
    values: dict[str, Constant] = {}
    for setting in data.settings:
        with scope.guard():
            if setting.name not in known:
                unknown("setting", setting, known, "a dataset")
            if setting.name not in SOURCES:
                kind = known[setting.name].kind
                values[setting.name] = evaluate(setting.value, kind, f"`{setting.name}`", scope.lookup)
    return values


def _check_split(
    data: ast.Data, split: Call, sources: dict[str, Call], fields: tuple[FieldSpec, ...], scope: Scope
) -> None:
    shares = {name: value for name in SPLIT_NAMES if isinstance(value := split.args.get(name), (int, float))}
    total = sum(shares.values())
    with scope.guard():
        if total > 1 + ROUNDING:
            help = "lower them; rows that are left over are in no split"
            fail("E314", f"the fractions add up to {total:g}", split.span, "at most 1", help=help)
        if total == 0:
            fail("E314", "the split names no fraction", split.span, help=f"write `{split.name}(train=0.9, val=0.1)`")
        for name in shares:
            if name in sources:
                fail("E315", f"`{name}` has a source of its own", split.span, help=f"remove `{name}=` from the split")
    probe = scope.probed(data, "source")
    if "by" in split.args and probe is not None and not probe.missing:
        known = [*(field.name for field in fields), *probe.columns]
        by = str(split.args.get("by"))
        with scope.guard():
            if by not in known:
                fail("E402", f"no field or column `{by}`", split.span, help=did_you_mean(by, known))


@dataclass(frozen=True)
class Readings:
    """Which rows become which split, and what is done with them there."""

    sources: Mapping[str, Call]
    split: Call | None
    transforms: tuple[TransformSpec, ...]

    def chains(self, field: str, source: str) -> dict[str, tuple[Call, ...]]:
        """What each split that has rows of a source applies to a field."""
        named = {each.split: each.calls for each in self.transforms if each.field == field}
        splits = [source] if source in SPLIT_NAMES else _with_rows({}, self.split)
        return {
            split: named.get(split, named.get(None, ()))
            for split in splits
            if source == split or split not in self.sources
        }

    def check_statistics(self, field: ast.Field, scope: Scope) -> None:
        """Refuse a field that takes numbers from the train split where it can't."""
        by = self.split.args.get("by", "label") if self.split and self.split.name in BY else None
        statistics.check(field, self.sources, _with_rows(self.sources, self.split), by, scope.lookup)


# Fields -------------------------------------------------------------------------------------------------------------


def _fields(data: ast.Data, readings: Readings, scope: Scope) -> tuple[FieldSpec, ...]:
    found: list[FieldSpec] = []
    probes = {name: probe for name in SOURCES if (probe := scope.probed(data, name)) is not None}
    for name, probe in probes.items():
        if probe.missing and not (name == "source" and data.name in scope.absent):
            call = scope.source(data, name)
            span = call.span if call else data.span
            note = "the columns of its fields are not checked"
            help = "put it there before training: the path is from the program's folder"
            scope.reporter.add(Diagnostic("W401", f"no such file: {probe.missing[0]}", span, notes=(note,), help=help))
    for field in data.fields:
        with scope.guard():
            shape = tuple(_size(dim, scope) for dim in field.type.dims or ())
            spec = FieldSpec(field.name, field.type.dtype or "float", shape, field.value, field.span, field.doc)
            found.append(spec)
            spec = replace(spec, fitted=statistics.fitted(field.value, scope.lookup))
            found[-1] = _checked(spec, field, readings, probes, scope)
            readings.check_statistics(field, scope)
    if not data.fields:
        help = 'such as `field x: float[4] = columns("x*")`'
        scope.reporter.add(Diagnostic("E303", f"`data {data.name}` has no field", data.name_span, help=help))
    return tuple(found)


def _size(dim: ast.Expr, scope: Scope) -> int:
    if isinstance(dim, ast.Ellipsis_):
        help = "write them out, such as `float[3, 32, 32]`"
        fail("E316", "the sizes of a field are known: `...` can't be one", dim.span, help=help)
    size = fold(dim, scope.lookup)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        fail(
            "E316",
            "a size is an integer of 0 or more",
            dim.span,
            f"this is {describe(size)}",
            help="such as `float[3]`",
        )
    return size


def _checked(
    spec: FieldSpec, field: ast.Field, readings: Readings, probes: Mapping[str, Probe], scope: Scope
) -> FieldSpec:
    """The field, once what its columns and transforms give in each split is known to be what it is declared as."""
    columns = {
        name: _Columns(probe, scope, readings.sources[name]) for name, probe in probes.items() if not probe.missing
    }
    given = {name: columns[name].shape(field.value) if name in columns else None for name in readings.sources}
    chains = {name: readings.chains(spec.name, name) for name in readings.sources}
    calls = [chain for found in chains.values() for chain in found.values()]
    if not any(calls):
        for shape in given.values():
            _check_field(field, shape, spec.shape)
        return spec
    if _may_resize(calls):  # images of several sizes come to one: the first one's tells nothing
        varying = {name for name, each in columns.items() if any(column.varies for column in each.seen)}
        given = {name: None if name in varying else shape for name, shape in given.items()}
    scales = any(call.name == "ToTensor" for chain in calls for call in chain)
    floats = any(column.kind == "float" for each in columns.values() for column in each.seen)
    as_bytes = scales and _is_as_stored(field.value) and not floats
    for name, found in chains.items():
        # Those that keep the size first: they tell best where the data have another.
        for split, chain in sorted(found.items(), key=lambda each: _may_resize([each[1]])):
            if chain or not as_bytes:
                _check_chain(spec, split, chain, given[name], as_bytes)
            else:
                _no_floats(spec, split)
    resized = any(shape != spec.shape and (shape is not None or _may_resize(calls)) for shape in given.values())
    return replace(spec, bytes=as_bytes, resized=resized)


def _no_floats(spec: FieldSpec, split: str) -> NoReturn:
    message = f"`{spec.name}` has no `ToTensor()` in the split `{split}`, and has it in others"
    help = f"write `transform {spec.name} = [ToTensor()]`"
    fail("E454", message, spec.span, "its values would be bytes there", help=help)


def _check_chain(spec: FieldSpec, split: str, chain: tuple[Call, ...], given: Shape | None, as_bytes: bool) -> None:
    """Refuse transforms that can't take what the columns give, or do not give what the field is declared as."""
    shape: Dims = given if given is not None else UNKNOWN if _may_resize([chain]) else spec.shape
    image = Image(shape, "u8" if as_bytes else spec.dtype)
    for call in chain:
        image = transformed(call, image)
    declared = f"`{spec.name}` is declared as {spec.dtype}{list(spec.shape)}"
    span = chain[-1].span if chain else spec.span
    if as_bytes and ("float" if spec.dtype == "f32" else spec.dtype) != image.dtype:
        fail("E454", f"{declared}, and its values are {image.dtype} in the split `{split}`", span,
             help="`ToTensor()` makes `float` of bytes: declare that, and put it into every split")  # fmt: skip
    if VARIES in image.shape:
        fail("E454", f"{declared}, and its images are of several sizes in the split `{split}`", span,
             help=f"bring them to one at the end: `Resize([{', '.join(map(str, spec.shape[1:]))}])`")  # fmt: skip
    if len(image.shape) != len(spec.shape) or any(a not in (None, b) for a, b in zip(image.shape, spec.shape)):
        told = f"{declared}, and is {shown(image.shape)} in the split `{split}`"
        if image.shape == given:
            resized = f", or `Resize({list(spec.shape[1:])})` first among its transforms" if len(given) == 3 else ""
            fail("E454", told, spec.span, "the data have another size, and no transform changes it",
                 help=f"write `{spec.dtype}{list(given)}`{resized}, for every split the same")  # fmt: skip
        fail("E454", told, span,
             "what comes out of the transforms" if chain else "no transform is applied there",
             help="declare the shape that comes out of its transforms, for every split the same")  # fmt: skip


def _may_resize(chains: Iterable[tuple[Call, ...]]) -> bool:
    return any(call.name in RESIZING for chain in chains for call in chain)


def _is_as_stored(expr: ast.Expr) -> bool:
    """Whether an expression only picks and moves values of columns."""
    if isinstance(expr, ast.Index):
        return _is_as_stored(expr.value)
    function = expr.function if isinstance(expr, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.name in MOVES and _is_as_stored(function.value)
    return getattr(function, "id", "") in ("column", "columns")


def _check_field(field: ast.Field, given: Shape | None, shape: Shape) -> None:
    if given is not None and _core(given) != _core(shape):
        declared = f"{field.type.dtype or 'float'}{list(shape)}"
        behind = len(given) == 3 and (given[2], *given[:2]) == shape
        moved = f"; `transform {field.name} = [ToTensor()]` brings channels of bytes to the front" if behind else ""
        fail("E406", f"`{field.name}` is declared as {declared}, and its columns give {list(given)} a row",
             field.type.span, help=f"write `{field.type.dtype or 'float'}{list(given)}`{moved}")  # fmt: skip


def _core(shape: Shape) -> Shape:
    """A shape without its sizes of 1: those are added and dropped freely, as a grey image's channel."""
    return tuple(size for size in shape if size != 1)


class _Columns:
    """Checks the columns that an expression names, and tells the shape of its value where that is plain."""

    def __init__(self, probe: Probe, scope: Scope, source: Call) -> None:
        self.probe = probe
        self.source = source
        self.untyped = source.name == "csv"
        self.scope = scope
        self.seen: list[Column] = []

    def shape(self, expr: ast.Expr) -> Shape | None:
        """The shape of one row; None where it is not known. Raises ProgramError for a column that is not there."""
        found = self.whole(expr)
        return found if found is None else tuple(size for size in found if size != ROWS)

    def whole(self, expr: ast.Expr) -> Shape | None:
        """The shape of all rows: that of one, after `ROWS` where it is of columns and not of constants alone."""
        if isinstance(expr, ast.Literal):
            return () if isinstance(expr.value, (int, float)) else None
        if isinstance(expr, ast.Unary):
            return self.whole(expr.operand)
        if isinstance(expr, ast.Binary):
            return self.binary(expr)
        if isinstance(expr, ast.Call) and called(expr) in ("column", "columns", "categories"):
            shape = self.numbered(expr) if is_categories(expr) else self.read(expr, called(expr))
            return None if shape is None else (ROWS, *shape)
        if statistics.is_standardized(expr):
            return self.whole(expr.args[0].value)
        if isinstance(expr, ast.Call) and called(expr) == "tensor" and expr.args:
            value = expr.args[0].value
            return (len(value.items),) if isinstance(value, ast.ListExpr) else self.whole(value)
        if isinstance(expr, ast.Index):
            return indexed(expr, self.whole(expr.value), self.scope.lookup)
        parts = [self.whole(part) for part in _parts(expr)]
        if isinstance(expr, ast.Call) and isinstance(expr.function, ast.Attribute):
            return viewed(expr, parts[0], self.scope.lookup)
        return None

    def binary(self, expr: ast.Binary) -> Shape | None:
        left, right = self.whole(expr.left), self.whole(expr.right)
        if expr.op == "@" or left is None or right is None:
            return None
        length = max(len(left), len(right))
        pairs = [*zip((1,) * (length - len(left)) + left, (1,) * (length - len(right)) + right)]
        if any(a != b and 1 not in (a, b) for a, b in pairs):
            label = f"{row(left)} and {row(right)}"
            fail("E406", f"what is on both sides of `{expr.op}` has different sizes", expr.span, label,
                 help="columns of as many numbers a row, or a number for each as in `tensor([0.5, 0.25])`")  # fmt: skip
        return tuple(a if b == 1 else b for a, b in pairs)

    def read(self, call: ast.Call, kind: str) -> Shape | None:
        args = [arg for arg in call.args if arg.name != statistics.MISSING]
        names = [(str(fold(arg.value, self.scope.lookup)), arg.value.span) for arg in args]
        if not names or any(arg.name is not None for arg in args) or (kind == "column" and len(names) > 1):
            fail("E302", f"`{kind}` takes the name of a column", call.span, help=f'write `{kind}("name")`')
        found = [column for name, span in names for column in self.named(name, span, kind)]
        for name, column, span in found:
            if column.kind in ("text", "other"):
                fail("E407", f"column `{name}` holds {column.kind}, not numbers", span, help=self.numbers(name, column))
        self.seen += [column for _, column, _ in found]
        shapes = {column.shape for _, column, _ in found}
        if len(shapes) > 1:
            fail("E406", "columns of several shapes can't be stacked", call.span, help="make a field of each")
        (shape,) = shapes
        return shape if kind == "column" or shape is None else (len(found), *shape)

    def numbers(self, name: str, column: Column) -> str:
        """What to do about a column without numbers: number its values, where they are few, or take another."""
        if self.divided():
            return str(self.divided())
        listed = self.probe.texts(name) if column.kind == "text" else ()
        if listed:
            return f"number its values: `categories({json.dumps(name)}, {json.dumps(listed, ensure_ascii=False)})`"
        numeric = [each for each, other in self.probe.columns.items() if other.kind not in ("text", "other")]
        return f"columns of numbers are {', '.join(numeric[:8])}" if numeric else "no column holds numbers"

    def numbered(self, call: ast.Call) -> Shape | None:
        """The shape of a row of a column with categories, which are of the column's kind."""
        name, values = numbering(call, self.scope.lookup)
        ((_, column, span),) = self.named(name, call.args[0].value.span, "column")
        texts = isinstance(values[0], str)
        # A csv file has no types: what looks like numbers is read as text, where the categories are.
        if column.kind != ("text" if texts else "int") and not (texts and self.untyped):
            are = "strings" if texts else "whole numbers"
            help = ONE_OF[column.kind] if not self.untyped else "write them as strings, as they stand in the file"
            fail("E408", f"column `{name}` holds {column.kind}, and its categories are {are}", span, help=help)
        self.seen.append(column)
        return column.shape

    def named(self, name: str, span: Span, kind: str) -> list[tuple[str, Column, Span]]:
        columns = self.probe.columns
        if name in columns:
            return [(name, columns[name], span)]
        if kind == "columns" and (matching := [each for each in columns if fnmatchcase(each, name)]):
            return [(each, columns[each], span) for each in matching]
        listed = ", ".join([*list(columns)[:8], *(["..."] if len(columns) > 8 else [])])
        help = self.divided() or did_you_mean(name, columns) or f"the columns are {listed}"
        return fail("E402", f"the file has no column `{name}`", span, help=help)

    def divided(self) -> str | None:
        """The cure of a csv file whose header is one column as it is read."""
        columns, path = self.probe.columns, json.dumps(self.source.args.get("path"))
        delimiter = other_delimiter(columns, str(self.source.args.get("delimiter", ","))) if self.untyped else None
        header = json.dumps(next(iter(columns), ""), ensure_ascii=False)
        return delimiter and f"its header is one column, {header}: write `csv({path}, {delimiter})`"


def _parts(expr: ast.Expr) -> list[ast.Expr]:
    if isinstance(expr, ast.Call):
        inner = [expr.function.value] if isinstance(expr.function, ast.Attribute) else []
        return [*inner, *(argument.value for argument in expr.args)]
    if isinstance(expr, (ast.Index, ast.Attribute)):
        return [expr.value]
    if isinstance(expr, ast.Pipe):
        return [expr.value, expr.stage]
    return list(expr.items) if isinstance(expr, (ast.ListExpr, ast.TupleExpr)) else []


# Transforms ---------------------------------------------------------------------------------------------------------


def _transforms(data: ast.Data, fields: set[str], scope: Scope) -> tuple[TransformSpec, ...]:
    found: list[TransformSpec] = []
    for transform in data.transforms:
        with scope.guard():
            found.append(_transform(transform, fields, [(each.field, each.split) for each in found], scope))
    return tuple(found)


def _transform(
    transform: ast.Transform, fields: set[str], earlier: list[tuple[str, str | None]], scope: Scope
) -> TransformSpec:
    if transform.field not in fields:
        help = did_you_mean(transform.field, fields) or f"the fields are {', '.join(sorted(fields))}"
        fail("E114", f"no field `{transform.field}`", transform.field_span, help=help)
    if transform.split not in (None, *SPLIT_NAMES):
        help = did_you_mean(str(transform.split), SPLIT_NAMES) or "the splits are train, val and test"
        fail("E115", f"no split `{transform.split}`", transform.span, help=help)
    if (transform.field, transform.split) in earlier:
        fail("E101", f"a second `transform` of `{transform.field}`", transform.span, help="put all into one list")
    calls = evaluate(transform.value, many(TRANSFORM), "a `transform`", scope.lookup)
    assert isinstance(calls, tuple)
    return TransformSpec(transform.field, transform.split, tuple(_flat(calls)), transform.span)


def _flat(calls: tuple[Constant, ...]) -> list[Call]:
    """The transforms in order; those within `Compose` are taken out of it."""
    found: list[Call] = []
    for call in calls:
        assert isinstance(call, Call)
        inner = call.args.get("transforms") if call.name == "Compose" else None
        found += _flat(inner) if isinstance(inner, tuple) else [call]
    return found
