"""Words that can stand at the cursor, by what stands before it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tdsl.compiler.build.values import Batch, LayerInstance, ModuleInstance
from tdsl.compiler.editor import builtins, columns, sections_doc
from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Completion, Completions
from tdsl.compiler.editor.builtins import Builtin, Parameter, Table
from tdsl.compiler.editor.context import Context, context
from tdsl.compiler.editor.describe import builtin_doc, doc_of, head, kind_of
from tdsl.compiler.editor.hover import batched, run_fields
from tdsl.compiler.editor.lookup import CALLS, SETTINGS, parameters_of, receiver, setting_table, tables
from tdsl.compiler.editor.snippets import SNIPPETS
from tdsl.compiler.editor.symbols import Symbol
from tdsl.compiler.ir import Value
from tdsl.dsl import ast, kinds, signatures
from tdsl.dsl.build import KINDS
from tdsl.dsl.monitors import logged
from tdsl.dsl.statistics import MEAN, MISSING

# Kinds of the protocol by those of symbols.
_SYMBOLS = {
    "const": "constant", "fn": "function", "module": "class", "extern": "class", "data": "struct", "train": "event",
    "parameter": "variable", "input": "variable", "member": "field", "param": "property", "buffer": "property",
    "size": "typeparameter", "local": "variable", "loop": "variable", "model": "module", "batch": "variable",
}  # fmt: skip
_VALUES = ("true", "false", "none")
MOST_FILES = 200
# What arguments of functions and layers can be that are one of a few strings.
CHOICES = {
    "reduction": ("mean", "sum", "none"),
    "approximate": ("none", "tanh"),
    "padding_mode": ("zeros", "reflect", "replicate", "circular"),
    "nonlinearity": ("tanh", "relu"),
    "rounding_mode": ("trunc", "floor"),
    "mode": ("nearest", "linear", "bilinear", "bicubic", "trilinear", "area"),
}


def complete(analysis: Analysis, offset: int) -> Completions:
    """What can be typed at an offset, nothing where it is free: in a comment, or for a new name."""
    here = context(analysis.source.text, offset)
    found: dict[str, Completion] = {}
    for each in _items(analysis, here):
        found.setdefault(each.label, each)
    return Completions(here.start, tuple(found.values()))


def _items(analysis: Analysis, here: Context) -> Iterator[Completion]:
    if here.place == "nothing":
        return
    if here.string is not None:
        yield from _strings(analysis, here)
    elif here.dot is not None:
        yield from _attributes(analysis, here)
    elif here.is_dimension:
        yield from _sizes(analysis, here)
    elif here.is_type:
        yield from _types(here)
    elif here.place == "top" and not here.is_value:
        yield from _top(analysis, here)
    elif here.inner.bracket == "(" and here.inner.first in ("module", "extern", "forward", "fn") and not here.is_value:
        return
    elif here.is_start:
        yield from _starts(analysis, here)
    elif here.is_value or here.place == "body" or here.inner.bracket in ("(", "["):
        yield from _values(analysis, here)


# Declarations and statements -----------------------------------------------------------------------------------------


def _top(analysis: Analysis, here: Context) -> Iterator[Completion]:
    words = here.inner.words
    if words[:1] == ["evaluate"]:
        for _, tree in analysis.trees:
            yield from (Completion(d.name, "event", "train") for d in tree.declarations if isinstance(d, ast.Train))
    elif not words:
        yield from _keywords("top")


def _keywords(place: str) -> Iterator[Completion]:
    for word, text in SNIPPETS[place].items():
        yield Completion(word, "keyword", doc=sections_doc.KEYWORDS.get(word, ""), insert=text, snippet=True, rank=2)


def _starts(analysis: Analysis, here: Context) -> Iterator[Completion]:
    """What a line can begin with."""
    if here.place == "members":
        yield from _keywords("members")
    elif here.place == "body":
        yield from _keywords("body")
        for symbol in _visible(analysis, here):
            if symbol.kind in ("local", "input"):
                yield _symbol(analysis, symbol, rank=3)
    else:
        written = _written(analysis, here)
        for name, (parameter, doc) in setting_table(analysis, here).items():
            if name not in written or name == "group":
                yield _setting(name, parameter, doc)
        if here.place == "data":
            yield from _keywords("data")


def _setting(name: str, parameter: Parameter, doc: str) -> Completion:
    if name in SNIPPETS["run"]:
        return Completion(name, "module", doc=doc, insert=SNIPPETS["run"][name], snippet=True, rank=2)
    default = "" if parameter.default in (None, "none", "[]") else f" = {parameter.default}"
    return Completion(name, "property", f"{parameter.kind}{default}", doc, f"{name} = ", rank=1)


def _written(analysis: Analysis, here: Context) -> set[str]:
    """Settings, blocks and sections that are there already."""
    declaration = analysis.declaration(here.start)
    if isinstance(declaration, ast.Data):
        return {s.name for s in declaration.settings}
    if not isinstance(declaration, (ast.Train, ast.Evaluate)):
        return set()
    if here.place == "section":
        around = [s for s in declaration.sections if s.span.start <= here.start <= s.span.end]
        return {setting.name for section in around for setting in section.settings}
    names = {each.name_span.start: each.name for each in declaration.settings}
    names |= {each.name_span.start: each.name for each in declaration.blocks}
    names |= {each.name_span.start: each.name for each in declaration.sections}
    return {name for start, name in names.items() if start != here.start}


# Types ---------------------------------------------------------------------------------------------------------------


def _types(here: Context) -> Iterator[Completion]:
    if here.inner.bracket == "(" and here.inner.first in ("module", "extern"):
        yield from (Completion(kind, "keyword", rank=1) for kind in KINDS)
        return
    if here.inner.bracket == "(" and here.inner.first == "fn":
        yield from (Completion(kind, "keyword", rank=2) for kind in KINDS if kind != "module")
    for name, doc in sections_doc.DTYPES.items():
        yield Completion(name, "type", doc=doc, insert=f"{name}[$1]", snippet=True, rank=1)


def _sizes(analysis: Analysis, here: Context) -> Iterator[Completion]:
    for symbol in _visible(analysis, here):
        if symbol.kind in ("size", "const") or (symbol.kind == "parameter" and ": int" in symbol.node.span.text):
            yield _symbol(analysis, symbol, rank=1)
    declaration = analysis.declaration(here.start)
    if not isinstance(declaration, (ast.Data, ast.Train)):
        yield from (Completion(name, "typeparameter", "run-time size", rank=4) for name in ("B", "T", "C", "H", "W"))


# Values --------------------------------------------------------------------------------------------------------------


def _values(analysis: Analysis, here: Context) -> Iterator[Completion]:
    yield from _arguments(analysis, here)
    if columns.is_list_of_categories(here):
        yield from columns.categories(analysis, here)
    if here.call is not None and here.call.keyword and here.inner is here.call:
        yield from _words(_kind_of_argument(here))
    setting = _setting_kind(here)
    if setting is not None and here.inner.bracket in ("{", ""):
        yield from _words(setting)
    for rank, table in enumerate(tables(here), start=3):
        yield from _builtins(table, rank)
    if here.place not in ("data", "run", "section") or _takes_values(here):
        yield from (_symbol(analysis, symbol) for symbol in _visible(analysis, here) if _fits(symbol, here))
    if not here.is_stage and (here.place in ("members", "body", "top") or here.call is not None):
        yield from (Completion(word, "keyword", rank=8) for word in _VALUES)
    if here.place == "members":
        yield Completion("range", "function", doc=sections_doc.OTHERS["range"], rank=6)


def _takes_values(here: Context) -> bool:
    """Whether a setting's value may name what the program declares."""
    setting = here.statement[0] if here.statement else ""
    return setting not in CALLS or here.call is not None


# What a stage of a pipe can be.
_STAGES = ("fn", "member", "parameter", "loop", "model")


def _fits(symbol: Symbol, here: Context) -> bool:
    if symbol.span.start in here.targets or (here.is_stage and symbol.kind not in _STAGES):
        return False
    if here.place in ("data", "run", "section"):
        setting = here.statement[0] if here.statement else ""
        if setting == "data" and here.place == "run":
            return symbol.kind == "data"
        if setting == "model" and here.call is None:
            return symbol.kind in ("module", "extern")
        return symbol.kind in ("const", "data") or (setting not in SETTINGS and symbol.kind in ("module", "extern"))
    return symbol.kind != "train" and (here.statement[:1] not in (["param"], ["buffer"]) or here.call is not None)


def _arguments(analysis: Analysis, here: Context) -> Iterator[Completion]:
    """Names of arguments that are not given yet."""
    call = here.call
    if call is None or here.inner is not call or call.parts:
        return
    parameters = parameters_of(analysis, here)
    positional = call.commas - len(call.given)
    for number, each in enumerate(parameters):
        if (number >= positional or each.keyword_only) and each.name not in call.given and not each.variadic:
            yield Completion(f"{each.name}=", "property", _detail(each), insert=f"{each.name}=", rank=1)


def _detail(parameter: Parameter) -> str:
    return parameter.kind if parameter.default is None else f"{parameter.kind} = {parameter.default}".lstrip(" =")


def _setting_kind(here: Context) -> kinds.Kind | None:
    """What the setting whose value is typed takes."""
    name = here.statement[0] if here.statement else ""
    sections = {**signatures.SECTIONS, **signatures.OPTIONAL_SECTIONS}
    if here.place == "section" and here.section in sections:
        args: Iterable[kinds.Arg] = sections[here.section].args
    elif here.place == "data":
        args = signatures.DATA_SETTINGS
    else:
        is_evaluation = bool(here.declaration) and here.declaration[0].text == "evaluate"
        args = signatures.EVALUATE_SETTINGS if is_evaluation else signatures.TRAIN_SETTINGS
    return next((arg.kind for arg in args if arg.name == name), None) if here.place != "body" else None


def _kind_of_argument(here: Context) -> kinds.Kind | None:
    """What the argument of a section's built-in takes."""
    if here.call is None or here.call.callee is None or here.place not in ("data", "run", "section"):
        return None
    name = here.call.callee.text
    for table in (t for _, t, _, _ in builtins.TABLES):
        if name in table:
            return next((arg.kind for arg in table[name].args if arg.name == here.call.keyword), None)
    return None


def _words(kind: kinds.Kind | None) -> Iterator[Completion]:
    """The words and strings that a setting can be."""
    if kind is None:
        return
    found = list(kind.words) or [f'"{text}"' for text in _choices(kind)]
    if "`true` or `false`" in kind.what:
        found += ["true", "false"]
    if "`none`" in kind.what:
        found.append("none")
    yield from (Completion(word, "enummember", rank=1) for word in found)


def _choices(kind: kinds.Kind | None) -> list[str]:
    """The strings that a value may be, or such as it may be."""
    return re.findall(r'"([^"]+)"', kind.what) if kind is not None else []


def _builtins(table: Table, rank: int) -> Iterator[Completion]:
    for each in table.values():
        yield _builtin(each, rank)


def _builtin(each: Builtin, rank: int) -> Completion:
    kind = {"layer": "class", "function": "function", "method": "method", "number": "function"}.get(each.group, "class")
    return Completion(each.name, kind, each.signature, builtin_doc(each), rank=rank)


def _visible(analysis: Analysis, here: Context) -> list[Symbol]:
    return analysis.index.visible(analysis.path, here.start)


def _symbol(analysis: Analysis, symbol: Symbol, rank: int = 2) -> Completion:
    span = symbol.span
    value = analysis.facts.get((span.source.name, span.start, span.end))
    is_plain = symbol.kind in ("local", "input", "loop", "param", "buffer", "model")
    detail = kind_of(value) if value is not None and is_plain else head(symbol)
    return Completion(symbol.name, _SYMBOLS.get(symbol.kind, "variable"), detail, doc_of(symbol), rank=rank)


# Behind a dot --------------------------------------------------------------------------------------------------------


def _attributes(analysis: Analysis, here: Context) -> Iterator[Completion]:
    assert here.dot is not None
    value = receiver(analysis, here.dot)
    start, end = analysis.text.word(here.dot)
    owner = analysis.index.at(analysis.path, start)
    symbol = owner.symbol if owner is not None and owner.span.end == end else None
    if (symbol is not None and symbol.kind == "batch") or isinstance(value, Batch):
        for name, field in run_fields(analysis, analysis.declaration(here.start)).items():
            assert isinstance(field.node, ast.Field)
            yield Completion(name, "field", batched(field.node), field.node.doc, rank=1)
    elif symbol is not None and symbol.kind == "data":
        yield from (Completion(name, "property", "int", sections_doc.FACTS[name], rank=1) for name in signatures.FACTS)
    elif isinstance(value, LayerInstance):
        yield from (Completion(name, "property", "parameter", rank=1) for name in value.layer.params)
    elif isinstance(value, ModuleInstance):
        for member in value.decl.members if isinstance(value.decl, ast.Module) else ():
            yield Completion(member.name, "field", " ".join(member.span.text.split()), member.doc, rank=1)
    elif isinstance(value, Value) or (value is None and here.place == "body"):
        yield from _builtins(builtins.methods(), 3)


# Strings -------------------------------------------------------------------------------------------------------------


def _strings(analysis: Analysis, here: Context) -> Iterator[Completion]:
    callee = here.call.callee.text if here.call is not None and here.call.callee is not None else ""
    keyword = here.call.keyword if here.call is not None else ""
    words = here.statement
    choices = _choices(_kind_of_argument(here) or (_setting_kind(here) if here.call is None else None))
    if columns.is_list_of_categories(here):
        yield from columns.categories(analysis, here)
    elif callee in builtins.of_sections()["column"] and keyword == MISSING:
        yield Completion(MEAN, "enummember", "the mean over the train split", rank=1)
    elif callee in builtins.of_sections()["column"] or keyword == "by":
        yield from columns.columns(analysis, here, callee == "columns")
    elif words[:1] == ["import"] or (callee in (*builtins.of_sections()["source"], "hf") and not choices):
        yield from _paths(analysis, here, words[:1] == ["import"])
    elif keyword == "monitor" or (words and words[0] in ("best", "monitor")):
        yield from _logged(analysis, here)
    else:
        yield from (Completion(text, "enummember", rank=1) for text in choices or CHOICES.get(keyword, ()))


def _paths(analysis: Analysis, here: Context, programs: bool) -> Iterator[Completion]:
    """Files below the program's folder, one folder at a time."""
    inner = os.path.dirname(here.string or "")
    folder = Path(analysis.path).parent / inner
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)[:MOST_FILES]
    except (OSError, ValueError):
        return
    for entry in entries:
        name = f"{inner}/{entry.name}" if inner else entry.name
        if entry.name.startswith(".") or os.path.realpath(entry.path) == os.path.realpath(analysis.path):
            continue
        if entry.is_dir():
            yield Completion(f"{name}/", "folder", rank=2)
        elif entry.name.endswith(".model") == programs:
            yield Completion(name, "file", rank=1)


def _logged(analysis: Analysis, here: Context) -> Iterator[Completion]:
    """What a run logs."""
    run = analysis.declaration(here.start)
    if not isinstance(run, ast.Train):
        return
    declarations = [each for _, tree in analysis.trees for each in tree.declarations]
    evaluations = [each for each in declarations if isinstance(each, ast.Evaluate)]
    evaluation = next((each for each in evaluations if each.name == run.name), None)
    means, metrics = logged(run, evaluation, declarations)
    for name in (*means, *metrics):
        yield Completion(f"val/{name}", "enummember", rank=1)
    for name in means:
        yield Completion(f"train/{name}", "enummember", rank=2)
