"""What is known of the word under the cursor: type and shape, signature, documentation."""

from __future__ import annotations

from collections.abc import Iterator

from tdsl.compiler.build.values import ModuleInstance, Semantic
from tdsl.compiler.editor import sections_doc
from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Hover
from tdsl.compiler.editor.builtins import Builtin, Parameter
from tdsl.compiler.editor.context import context
from tdsl.compiler.editor.describe import builtin_doc, call_signature, doc_of, head, kind_of
from tdsl.compiler.editor.lookup import builtin_at, parameters_of, setting_table
from tdsl.compiler.editor.symbols import Symbol
from tdsl.compiler.ir import Value
from tdsl.dsl import ast
from tdsl.dsl.constants import describe as constant_text
from tdsl.dsl.signatures import FACTS


def hover(analysis: Analysis, offset: int) -> Hover | None:
    """What there is to say at an offset."""
    start, end = analysis.text.word(offset)
    if offset == end and start < end < len(analysis.source.text) and not analysis.source.text[end].isspace():
        start = end  # a bracket or an operator behind a word: the expression is meant
    here = context(analysis.source.text, end)
    if here.place == "nothing" or (here.string is not None and analysis.index.at(analysis.path, offset) is None):
        return None
    for look in (_symbol, _fact, _argument, _builtin, _setting, _keyword):
        text = look(analysis, start, end)
        if text:
            return Hover(start, end, text)
    return _expression(analysis, offset)


def code(text: str, doc: str = "") -> str:
    """Markdown: code, then a paragraph."""
    return f"```tdsl\n{text}\n```" + (f"\n\n{doc}" if doc else "")


def _symbol(analysis: Analysis, start: int, end: int) -> str:
    found = analysis.index.at(analysis.path, start)
    if found is None or found.span.start != start or found.span.end != end:
        return ""
    symbol = found.symbol
    value = analysis.facts.get((analysis.path, start, end)) or _declared(analysis, symbol)
    lines = list(_lines(analysis, symbol, value))
    if symbol.kind in ("fn", "member", "model") and (result := _result(analysis, start, end)):
        lines.append(result)
    return code("\n".join(lines), doc_of(symbol))


def _result(analysis: Analysis, start: int, end: int) -> str:
    """What the call of the word gives, if it is called here."""
    text = analysis.source.text
    is_called = text[end:].lstrip(" ").startswith("(") or text[:start].rstrip().endswith("|>")
    found = _smallest(analysis, start, end) if is_called else None
    return f"-> {kind_of(found[2])}" if found is not None and isinstance(found[2], (Value, tuple)) else ""


def _smallest(analysis: Analysis, start: int, end: int) -> tuple[int, int, Semantic] | None:
    """The smallest expression that has more in it than what stands between two offsets."""
    around = [
        (right - left, left, right, value)
        for (name, left, right), value in analysis.facts.items()
        if name == analysis.path and left <= start and end <= right and right - left > end - start
    ]
    return min(around, key=lambda each: each[:3])[1:] if around else None


def _declared(analysis: Analysis, symbol: Symbol) -> Semantic | None:
    span = symbol.span
    return analysis.facts.get((span.source.name, span.start, span.end))


def _lines(analysis: Analysis, symbol: Symbol, value: Semantic | None) -> Iterator[str]:
    """A declaration, and what it is known to be."""
    shown = kind_of(value) if value is not None else ""
    if symbol.kind in ("local", "loop", "input", "tracked") and value is not None:
        yield f"{symbol.name}: {shown}"
        return
    yield head(symbol)
    if isinstance(value, ModuleInstance):
        yield f"{symbol.name}{call_signature(value)}"
        return
    if symbol.kind == "batch":
        yield from _fields(analysis, symbol)
    elif symbol.kind == "const" and analysis.program is not None and symbol.name in analysis.program.consts:
        value_text = constant_text(analysis.program.consts[symbol.name]).strip("`")
        if not head(symbol).endswith(f"= {value_text}"):
            yield f"= {value_text}"
    elif symbol.kind == "data":
        yield from _facts(analysis, symbol.name)
    elif shown and symbol.kind in ("member", "param", "buffer") and shown not in head(symbol):
        yield f"{symbol.name}: {shown}"


def _fields(analysis: Analysis, symbol: Symbol) -> Iterator[str]:
    declaration = analysis.declaration(symbol.span.start)
    for name, field in run_fields(analysis, declaration).items():
        node = field.node
        assert isinstance(node, ast.Field)
        yield f"{symbol.name}.{name}: {batched(node)}"


def batched(node: ast.Field) -> str:
    """A field's type in a batch."""
    dims = ", ".join(["B", *(dim.span.text for dim in node.type.dims or ())])
    return f"{node.type.dtype or 'float'}[{dims}]"


def run_fields(analysis: Analysis, declaration: ast.Declaration | None) -> dict[str, Symbol]:
    """The fields of the batch of a run, or of its evaluation."""
    if isinstance(declaration, ast.Evaluate):
        name = declaration.name
        runs = [d for _, tree in analysis.trees for d in tree.declarations if isinstance(d, ast.Train)]
        declaration = next((run for run in runs if run.name == name), None)
    if isinstance(declaration, ast.Train):
        for setting in declaration.settings:
            if setting.name == "data" and isinstance(setting.value, ast.Name):
                return analysis.index.fields.get(setting.value.id, {})
    return {}


def _facts(analysis: Analysis, name: str) -> Iterator[str]:
    spec = analysis.program.data.get(name) if analysis.program is not None else None
    for fact, number in (spec.facts if spec is not None else {}).items():
        yield f"{name}.{fact} = {number:,}".replace(",", "_")


def _fact(analysis: Analysis, start: int, end: int) -> str:
    """`Digits.num_classes`."""
    text = analysis.source.text
    name = text[start:end]
    if name not in FACTS or text[start - 1 : start] != ".":
        return ""
    owner = text[slice(*analysis.text.word(start - 1))]
    spec = analysis.program.data.get(owner) if analysis.program is not None else None
    if spec is None:
        return ""
    value = spec.facts.get(name)
    shown = f"{owner}.{name}" if value is None else f"{owner}.{name}: int = {value}"
    return code(shown, sections_doc.FACTS[name])


def _argument(analysis: Analysis, start: int, end: int) -> str:
    """The name of an argument of a built-in."""
    text = analysis.source.text
    if not text[end:].lstrip(" ").startswith("=") or text[end:].lstrip(" ").startswith("=="):
        return ""
    here = context(text, start)
    if here.call is None or here.inner is not here.call or here.inner.parts:
        return ""
    found: list[Parameter] = [p for p in parameters_of(analysis, here) if p.name == text[start:end]]
    return code(str(found[0])) if found else ""


def _builtin(analysis: Analysis, start: int, end: int) -> str:
    found: Builtin | None = builtin_at(analysis, start, end)
    if found is None:
        return ""
    result = _result(analysis, start, end)
    signature = found.signature if found.group != "dtype" else found.name
    return code(f"{signature}\n{result}" if result else signature, builtin_doc(found))


def _setting(analysis: Analysis, start: int, end: int) -> str:
    """The name of a setting, a section or a block."""
    word = analysis.source.text[start:end]
    here = context(analysis.source.text, start)
    if here.place not in ("data", "run", "section") or not here.is_start:
        return ""
    parameter, doc = setting_table(analysis, here).get(word, (None, ""))
    if parameter is None:
        return ""
    return code(str(parameter), doc) if parameter.kind else code(word, doc)


def _keyword(analysis: Analysis, start: int, end: int) -> str:
    word = analysis.source.text[start:end]
    here = context(analysis.source.text, start)
    doc = sections_doc.KEYWORDS.get(word, "")
    return code(word, doc) if doc and (here.is_start or word == "else") else ""


def _expression(analysis: Analysis, offset: int) -> Hover | None:
    """The smallest expression around an offset."""
    found = _smallest(analysis, offset, offset)
    if found is None or found[1] == offset:
        return None
    start, end, value = found
    if "\n" in analysis.source.text[start:end] and analysis.source.text[offset : offset + 1].isspace():
        return None
    return Hover(start, end, code(kind_of(value)))
