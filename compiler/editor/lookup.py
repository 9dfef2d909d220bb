"""Built-ins and settings by the place that a cursor stands in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tdsl.compiler.build.values import FunctionRef, LayerRef, ListInstance, ModuleInstance, ModuleRef, OpRef, Semantic
from tdsl.compiler.editor import builtins, sections_doc
from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.builtins import Builtin, Parameter, Table
from tdsl.compiler.editor.context import Context, context
from tdsl.compiler.editor.symbols import Symbol
from tdsl.dsl import ast, kinds, signatures

# What the settings of sections call.
CALLS = {
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "source": "source",
    "val": "source",
    "test": "source",
    "split": "split",
    "metrics": "metric",
    "transform": "transform",
    "tokenizer": "tokenizer",
    "transforms": "transform",
    "ema": "average",
    "distributed": "strategy",
    "init_from": "start",
    "field": "column",
}
Settings = Mapping[str, tuple[Parameter, str]]


def tables(here: Context) -> list[Table]:
    """The built-ins that can be called where the cursor stands, those meant before the others."""
    sections = builtins.of_sections()
    if here.place in ("data", "run", "section"):
        inner = here.call.callee.text if here.call is not None and here.call.callee is not None else ""
        keyword = here.call.keyword if here.call is not None else ""
        setting = here.statement[0] if here.statement else ""
        group = CALLS.get(keyword) or ("transform" if inner == "Compose" else None if inner else CALLS.get(setting))
        if setting == "field" and here.place == "data":
            return [sections["column"], builtins.functions()] if inner else [sections["column"]]
        if setting == "split" and here.place == "run":
            group = None
        if group is not None:
            return [sections[group]]
        return [] if setting != "model" and setting in SETTINGS else [builtins.layers()]
    if here.place == "members":
        if here.statement[:1] in (["param"], ["buffer"]):
            return [builtins.initializers()]
        return [builtins.layers(), builtins.functions(), builtins.folded()]
    if here.place == "body":
        return [builtins.functions(), builtins.folded(), builtins.layers()]
    return [builtins.functions(), builtins.folded(), builtins.layers()] if here.is_value else []


SETTINGS = {arg.name for arg in (*signatures.TRAIN_SETTINGS, *signatures.DATA_SETTINGS, *signatures.EVALUATE_SETTINGS)}


def builtin_at(analysis: Analysis, start: int, end: int) -> Builtin | None:
    """The built-in that a word is; a declared name is none."""
    here = context(analysis.source.text, end)
    word = analysis.source.text[start:end]
    if here.string is not None or not word:
        return None
    if here.dot is not None:
        return builtins.methods().get(word)
    is_type = here.is_type or word not in builtins.functions() or analysis.source.text[end : end + 1] == "["
    if word in sections_doc.DTYPES and is_type:
        return Builtin(word, "dtype", (), sections_doc.DTYPES[word])
    return next((table[word] for table in tables(here) if word in table), None)


def callee_at(analysis: Analysis, here: Context) -> Builtin | Symbol | None:
    """What the call around the cursor calls."""
    token = here.call.callee if here.call is not None else None
    if token is None:
        return None
    start, end = here.begin + token.start, here.begin + token.end
    found = analysis.index.at(analysis.path, start)
    if found is not None and found.span.end == end:
        return found.symbol
    return builtin_at(analysis, start, end)


def parameters_of(analysis: Analysis, here: Context) -> tuple[Parameter, ...]:
    """The arguments that the call around the cursor takes."""
    found = callee_at(analysis, here)
    if isinstance(found, Builtin):
        return found.parameters
    return () if found is None else declared_parameters(analysis, found) or _made_parameters(analysis, here)


def _made_parameters(analysis: Analysis, here: Context) -> tuple[Parameter, ...]:
    """The arguments of what the builder found to be called."""
    token = here.call.callee if here.call is not None else None
    if token is None:
        return ()
    return made_parameters(analysis.facts.get((analysis.path, here.begin + token.start, here.begin + token.end)))


def declared_parameters(analysis: Analysis, symbol: Symbol) -> tuple[Parameter, ...]:
    """The arguments that a declared name takes: of a module its parameters, of its instance the inputs of `forward`."""
    node = symbol.node
    if isinstance(node, (ast.Module, ast.ExternModule)):
        return _parameters(node.params)
    if isinstance(node, ast.Function):
        return _inputs(node)
    span = symbol.span
    return made_parameters(analysis.facts.get((span.source.name, span.start, span.end)))


def made_parameters(value: Semantic | None) -> tuple[Parameter, ...]:
    """The arguments that a value takes where it is called."""
    if isinstance(value, ModuleInstance):
        return tuple(Parameter(name, str(type)) for name, type in value.signature.inputs)
    if isinstance(value, ModuleRef):
        return _parameters(value.decl.params)
    if isinstance(value, FunctionRef):
        return _inputs(value.decl)
    if isinstance(value, LayerRef):
        found = builtins.layers().get(value.layer.name)
        return found.parameters if found is not None else ()
    if isinstance(value, OpRef):
        found = builtins.functions().get(value.op.name)
        return found.parameters if found is not None else ()
    return (Parameter("input", "tensor"),) if isinstance(value, ListInstance) else ()


def _parameters(params: Iterable[ast.Parameter]) -> tuple[Parameter, ...]:
    return tuple(Parameter(p.name, p.kind, None if p.default is None else p.default.span.text) for p in params)


def _inputs(function: ast.Function) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(each.name, each.type.span.text) if isinstance(each, ast.Input) else _parameters((each,))[0]
        for each in function.takes
    )


def setting_table(analysis: Analysis, here: Context) -> Settings:
    """Settings, sections and blocks that can stand where the cursor is, each with what it means."""
    word = here.declaration[0].text if here.declaration else ""
    if here.place == "data":
        return _settings(signatures.DATA_SETTINGS, sections_doc.DATA)
    if here.place == "section":
        return _section(analysis, here)
    if here.place != "run":
        return {}
    if word == "evaluate":
        blocks = {name: (Parameter(name, ""), sections_doc.EVALUATE[name]) for name in signatures.EVALUATE_BLOCKS}
        return {**_settings(signatures.EVALUATE_SETTINGS, sections_doc.EVALUATE), **blocks}
    names = (*signatures.TRAIN_BLOCKS, *signatures.SECTIONS, *signatures.OPTIONAL_SECTIONS, "group")
    docs = {**sections_doc.SECTIONS, **sections_doc.TRAIN}
    more = {name: (Parameter(name, ""), docs.get(name, "")) for name in names}
    return {**_settings(signatures.TRAIN_SETTINGS, sections_doc.TRAIN), **more}


def _settings(args: Iterable[kinds.Arg], docs: Mapping[str, str], prefix: str = "") -> Settings:
    return {p.name: (p, docs.get(prefix + p.name, "")) for p in builtins.setting_parameters(args)}


def _section(analysis: Analysis, here: Context) -> Settings:
    name = here.section
    known = {**signatures.SECTIONS, **signatures.OPTIONAL_SECTIONS}
    if name in known:
        return _settings(known[name].args, sections_doc.SECTIONS, f"{name}.")
    if name != "group":
        return {}
    run = analysis.declaration(here.start)
    for setting in run.settings if isinstance(run, ast.Train) else ():
        function = setting.value.function if isinstance(setting.value, ast.Call) else None
        if setting.name == "optimizer" and isinstance(function, ast.Name) and function.id in signatures.OPTIMIZERS:
            return _settings(signatures.OPTIMIZERS[function.id].args, {})
    return _settings(signatures.OPTIMIZERS["AdamW"].args, {})


def receiver(analysis: Analysis, dot: int) -> Semantic | None:
    """What stands before the `.` at an offset."""
    ending = [
        (end - start, value)
        for (name, start, end), value in analysis.facts.items()
        if name == analysis.path and end == dot
    ]
    return min(ending, key=lambda each: each[0])[1] if ending else None
