"""`data.py`: how a program's data are read, divided among splits and cut into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from tdsl.compiler.build.unit import Limit
from tdsl.compiler.emit.expression import constant, expression
from tdsl.compiler.emit.render import WIDTH, broken, import_from, layout, plain, render
from tdsl.compiler.emit.sources import bad_sources, has_texts, shared, source_arguments, tokenizer, vocabulary
from tdsl.dsl.categories import column_named, is_categories
from tdsl.dsl.declared_names import walk
from tdsl.dsl.diagnostics import Diagnostic, ProgramError
from tdsl.dsl.program import Call, Constant, DataSpec, FieldSpec
from tdsl.dsl.scope import column_of
from tdsl.dsl.signatures import DATA_SETTINGS

DTYPES = {
    "float": "torch.float32",
    "f64": "torch.float64",
    "f32": "torch.float32",
    "f16": "torch.float16",
    "bf16": "torch.bfloat16",
    "int": "torch.int64",
    "i64": "torch.int64",
    "i32": "torch.int32",
    "i16": "torch.int16",
    "i8": "torch.int8",
    "u8": "torch.uint8",
    "bool": "torch.bool",
}
# The splits, in the order in which they are told.
SPLITS = ("train", "val", "test")
# The label that losses leave out, unless they are told another: fields do not name it.
IGNORED = -100
# Attributes that every batch has beside its fields.
BATCH_ATTRIBUTES = frozenset({"fields", "total", "size", "to", "chunk"})


@dataclass(frozen=True)
class FieldText:
    """One field: its `entry` in the dict of fields, where it was declared, and a line of documentation.

    `numbered` are the columns with categories that it reads, `fitted` says that it takes numbers from the train split.
    """

    entry: str
    origin: str
    doc: str
    numbered: tuple[str, ...]
    fitted: bool


@dataclass(frozen=True)
class SplitText:
    """One split, and the expression for its rows."""

    name: str
    rows: str


@dataclass(frozen=True)
class DataText:
    """All that varies in `data.py`: Python text, but for `program`, `doc`, `root` and the fields' `doc`.

    `numbered` are the columns with categories, `categories` the entries of a dictionary of what they hold and `kinds`
    the type of its values; `transforms` are entries of dictionaries, by split and field; `reads` are the statements
    that make the fields of each source, `division` that which divides the rows of one behind them, `divided` says that
    rows are; `tokenizer` is that which returns what numbers texts; `fitted` says that fields take numbers from the rows
    of the train split, and `kept` is what checkpoints keep of the data and batches are given, with its type.
    """

    program: str
    doc: str
    root: str
    fields: tuple[FieldText, ...]
    numbered: tuple[str, ...]
    categories: tuple[str, ...]
    kinds: str
    reads: tuple[str, ...]
    division: str
    divided: bool
    splits: tuple[SplitText, ...]
    transforms: Mapping[str, Mapping[str, str]]
    imports: str
    loading: tuple[str, ...]
    workers: str
    prefetch: str
    tokenizer: str
    fitted: bool
    kept: Mapping[str, str]


def emit_data(
    spec: DataSpec,
    consts: Mapping[str, Constant],
    *,
    limits: Mapping[str, Limit] | None = None,
    root: str = "../../..",
    allow_outside: bool = False,
) -> str:
    """The text of `data.py`. `root` leads from the folder of `data.py` to the one that the paths are relative to.

    `limits` are what the run can take of fields whose numbers are indices.

    Raises `ProgramError` for what the run time does not have; `unsupported` tells all of it.
    """
    for diagnostic in unsupported(spec, consts):
        raise ProgramError(diagnostic)
    return render(
        "scripts/data.py.jinja", data=data_text(spec, consts, _unchecked(spec, limits or {}), root, allow_outside)
    )


def data_text(
    spec: DataSpec, consts: Mapping[str, Constant], limits: Mapping[str, Limit], root: str, allow_outside: bool
) -> DataText:
    """What the template shows."""
    splits = _splits(spec)
    transforms = {split.name: _transforms(spec, split.name) for split in splits}
    fields = tuple(_field(field, spec, consts, limits.get(field.name)) for field in spec.fields)
    used = {call.name for transform in spec.transforms for call in transform.calls}
    return DataText(
        program=plain(PurePath(spec.span.source.name).name),
        doc=spec.doc,
        root=root,
        fields=fields,
        numbered=columns_numbered(fields),
        categories=tuple(_categories(spec, columns_numbered(fields))),
        kinds=" | ".join(sorted({f"list[{type(values[0]).__name__}]" for values in spec.categories.values()})),
        reads=(*shared(spec, allow_outside), *_all_reads(spec, consts, limits, allow_outside)),
        division="" if spec.fitted else _division(spec),
        divided=spec.split is not None,
        splits=splits,
        transforms=transforms if any(transforms.values()) else {},
        imports=import_from("tdsl.runtime.transforms", [*used, "Transform"]) if used else "",
        loading=tuple(_loading(spec)),
        workers=constant(loading_setting(spec, "workers")),
        prefetch=constant(loading_setting(spec, "prefetch")),
        tokenizer=tokenizer(spec, allow_outside),
        fitted=spec.fitted,
        kept=kept(spec),
    )


def kept(spec: DataSpec) -> dict[str, str]:
    """What checkpoints keep of the data, for batches of other rows: arguments of `data.batches`, with their types."""
    found = {"tokenizer": "sources.Tokenizer"} if has_texts(spec) else {}
    return found | ({"statistics": "sources.Statistics"} if spec.fitted else {})


def _type(field: FieldSpec) -> str:
    return f"{field.dtype}[{', '.join(map(str, field.shape))}]"


def _field(field: FieldSpec, spec: DataSpec, consts: Mapping[str, Constant], limit: Limit | None) -> FieldText:
    arguments = _field_arguments(field, spec, consts, limit)
    doc = " ".join(field.doc.split())
    return FieldText(
        entry=layout(f"{constant(field.name)}: table.field", arguments, ",", indent=8),
        origin=f"{plain(PurePath(field.span.source.name).name)}:{field.span.line}",
        doc=f"{field.name}: {_type(field)}{f', {doc}' if doc else ''}",
        numbered=_numbered(field),
        fitted=field.fitted,
    )


def _field_arguments(
    field: FieldSpec, spec: DataSpec, consts: Mapping[str, Constant], limit: Limit | None, table: str = "table"
) -> list[str]:
    """The arguments of the call that makes a field, of the table of that name."""
    value = broken(expression(field.value, consts, field.name, table), 12)
    arguments = [constant(field.name), value, DTYPES["u8" if field.bytes else field.dtype], repr(field.shape)]
    return [*arguments, *_limit(field, spec, limit), *(["resized=True"] if field.resized else [])]


def _numbered(field: FieldSpec) -> tuple[str, ...]:
    """The columns with categories that a field reads."""
    return tuple(map(column_named, filter(is_categories, walk(field.value))))


def _limit(field: FieldSpec, spec: DataSpec, limit: Limit | None) -> Iterator[str]:
    """The arguments that say what the field's numbers may be, but for those that places in a list are anyway."""
    known = spec.facts.get("num_classes") if _is_label(field, spec) else None
    if is_categories(field.value) and limit is not None:
        limit = limit if len(spec.categories[column_named(field.value)]) > limit.count else None
    if limit is None:
        if known is not None:
            yield f"classes={known}"
        return
    count = limit.count if known is None else min(limit.count, known)
    yield f"{'entries' if limit.looked_up else 'classes'}={count}"
    if not limit.looked_up and limit.ignored != IGNORED:
        yield f"ignored={limit.ignored}"


def _unchecked(spec: DataSpec, limits: Mapping[str, Limit]) -> Mapping[str, Limit]:
    """The limits without those of token files, whose numbers are held against a vocabulary that is no larger."""
    fields = {field.name: field for field in spec.fields}
    sizes = [vocabulary(call, spec) for call in spec.sources.values()]

    def is_checked(name: str, count: int) -> bool:
        plain = column_of(fields[name].value) is not None
        return plain and all(isinstance(size, int) and size <= count for size in sizes)

    return {name: limit for name, limit in limits.items() if not is_checked(name, limit.count)}


def columns_numbered(fields: Iterable[FieldText]) -> tuple[str, ...]:
    """The columns with categories that fields read, each once."""
    return tuple(dict.fromkeys(column for field in fields for column in field.numbered))


def _categories(spec: DataSpec, columns: Iterable[str]) -> Iterator[str]:
    """The entries of a dictionary: the values that number each column."""
    for column in columns:
        values = list(map(constant, spec.categories[column]))
        line = f"{constant(column)}: [{', '.join(values)}],"
        if 4 + len(line) > WIDTH:
            line = "\n".join([f"{constant(column)}: [", *(f"        {value}," for value in values), "    ],"])
        yield line


def _is_label(field: FieldSpec, spec: DataSpec) -> bool:
    """Whether `num_classes` counts this field."""
    found = label_field(spec)
    return found is not None and found.name == field.name


def label_field(spec: DataSpec) -> FieldSpec | None:
    """The field whose classes `num_classes` counts: that called `label`, or else the only one with an integer a row."""
    integers = [
        each for each in spec.fields if each.dtype in ("int", "i64", "i32", "i16", "i8", "u8") and not each.shape
    ]
    named = [each for each in integers if each.name == "label"]
    return named[0] if named else integers[0] if len(integers) == 1 else None


def _all_reads(
    spec: DataSpec, consts: Mapping[str, Constant], limits: Mapping[str, Limit], allow_outside: bool
) -> Iterator[str]:
    fitting = list(_fitting(spec, consts, limits)) if spec.fitted else []
    for split, call in spec.sources.items():
        yield from _reads(split, call, spec, fitting, allow_outside)


def _reads(split: str, call: Call, spec: DataSpec, fitting: list[str], allow_outside: bool) -> Iterator[str]:
    """The statements that bind the fields of a source to its name, and that which is divided to `table` as well.

    `fitting` are those that come between.
    """
    arguments = source_arguments(call, spec, allow_outside)
    given = ", statistics" if spec.fitted else ""
    if split == "source" and (spec.split is not None or spec.fitted):
        yield layout(f"table = sources.{call.name}", arguments, "", indent=4)
        yield from fitting
        yield f"source = fields(table{given})"
    else:
        yield layout(f"{split} = fields(sources.{call.name}", arguments, f"{given})", indent=4)


def _division(spec: DataSpec) -> str:
    """The call that divides the rows of `source`; empty where one split has them all."""
    if spec.split is None:
        return ""
    args = {name: value for name, value in spec.split.args.items() if name != "by" and value is not None}
    fractions = ", ".join(f"{name}={constant(value)}" for name, value in args.items())
    return f"rows = splits.{spec.split.name}({_divided(spec)}, {fractions})"


def _divided(spec: DataSpec) -> str:
    """What is divided: a number of rows, or the labels to be kept in proportion, or together."""
    assert spec.split is not None
    if spec.split.name not in ("stratified", "grouped"):
        return "table.rows"
    field = _divides(spec)
    if field is None:
        return f"table.values({constant(spec.split.args.get('by', 'label'))})"
    return "labels" if spec.fitted else f"source[{constant(field.name)}]"


def _divides(spec: DataSpec) -> FieldSpec | None:
    """The field whose values tell how rows are divided."""
    by = spec.split.args.get("by", "label") if spec.split and spec.split.name in ("stratified", "grouped") else None
    return next((field for field in spec.fields if field.name == by), None)


def _fitting(spec: DataSpec, consts: Mapping[str, Constant], limits: Mapping[str, Limit]) -> Iterator[str]:
    """The statements between a table and its fields, which need to know the rows of the train split.

    Rows that a field divides are divided by that field alone.
    """
    field, table = _divides(spec), "table"
    if field is not None:
        for column in map(constant, _numbered(field)):
            yield f"numbered = {table}.numbered({column}, CATEGORIES[{column}])"
            table = "numbered"
        yield layout(
            f"labels = {table}.field",
            _field_arguments(field, spec, consts, limits.get(field.name), table),
            "",
            indent=4,
        )
    yield from filter(None, [_division(spec)])
    train = 'rows["train"]' if spec.split is not None else "torch.arange(table.rows)"
    yield f"statistics = statistics or sources.Statistics({train})"


def _splits(spec: DataSpec) -> tuple[SplitText, ...]:
    return tuple(filter(None, (_split(name, spec) for name in SPLITS)))


def _split(name: str, spec: DataSpec) -> SplitText | None:
    if name in spec.sources:
        return SplitText(name, f"Split.whole({name})")
    if spec.split is None:
        return SplitText(name, "Split.whole(source)") if name == "train" else None
    return SplitText(name, f"Split(source, rows[{constant(name)}])") if spec.split.args.get(name) else None


def _transforms(spec: DataSpec, split: str) -> dict[str, str]:
    """The chains of a split by field, as entries; one that names the split wins over one that names none."""
    chains = {each.field: each for each in spec.transforms if each.split is None}
    chains |= {each.field: each for each in spec.transforms if each.split == split}
    return {
        name: layout(f"{constant(name)}: ", list(map(_transform, chain.calls)), ",", 8, brackets="[]")
        for name, chain in chains.items()
        if chain.calls
    }


def _transform(call: Call) -> str:
    arguments = [f"{name}={constant(value)}" for name, value in call.args.items()]
    return layout(call.name, arguments, ",", indent=12).removesuffix(",")


def _loading(spec: DataSpec) -> Iterator[str]:
    """The arguments of `Batches` that the settings decide."""
    if spec.settings.get("shuffle", True) is not False:
        yield 'shuffle=split == "train"'
    if spec.settings.get("drop_last"):
        yield 'drop_last=split == "train"'
    if spec.settings.get("resident", "auto") != "auto":
        yield f"resident={constant(spec.settings['resident'])}"


def loading_setting(spec: DataSpec, name: str) -> Constant:
    """What a dataset says of how its rows are read, or the default."""
    return spec.settings.get(name, next(arg.default for arg in DATA_SETTINGS if arg.name == name))


# What the run time does not have -------------------------------------------------------------------------------------


def unsupported(spec: DataSpec, consts: Mapping[str, Constant] | None = None) -> list[Diagnostic]:
    """What of a dataset can't be run, each with its place and the way out; with `consts`, its expressions too."""
    found = [diagnostic for look in _CHECKS for diagnostic in look(spec)]
    found += _bad_expressions(spec, consts) if consts is not None else []
    return sorted(found, key=lambda diagnostic: diagnostic.span.start if diagnostic.span else 0)


def _bad_expressions(spec: DataSpec, consts: Mapping[str, Constant]) -> Iterator[Diagnostic]:
    for field in spec.fields:
        try:
            expression(field.value, consts, field.name)
        except ProgramError as error:
            yield error.diagnostic


def _bad_settings(spec: DataSpec) -> Iterator[Diagnostic]:
    if spec.settings.get("workers") and spec.settings.get("resident") is True:
        message = "`resident = true` leaves `workers` nothing to do"
        help = "take one of them out: rows that stay on the GPU are gathered there"
        yield Diagnostic("E451", message, spec.span.word("workers"), help=help)
    if "prefetch" in spec.settings and not spec.settings.get("workers"):
        message = "`prefetch` is what workers read ahead, and there are none"
        help = "give it workers, such as `workers = 2`, or remove it"
        yield Diagnostic("E451", message, spec.span.word("prefetch"), help=help)


def _bad_fields(spec: DataSpec) -> Iterator[Diagnostic]:
    for field in spec.fields:
        if field.name in BATCH_ATTRIBUTES:
            help = f"choose another name, such as `{field.name}_`"
            yield Diagnostic("E452", f"every batch has an attribute `{field.name}`", field.span, help=help)


_CHECKS: tuple[Callable[[DataSpec], Iterator[Diagnostic]], ...] = (
    bad_sources,
    _bad_settings,
    _bad_fields,
)
