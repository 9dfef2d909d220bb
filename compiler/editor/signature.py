"""The signature of the call that is being typed."""

from __future__ import annotations

from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Help
from tdsl.compiler.editor.builtins import Builtin, Parameter
from tdsl.compiler.editor.context import Opened, context
from tdsl.compiler.editor.describe import doc_of
from tdsl.compiler.editor.lookup import callee_at, parameters_of


def signature(analysis: Analysis, offset: int) -> Help | None:
    """Help for the innermost call around an offset."""
    here = context(analysis.source.text, offset)
    call = here.call
    if call is None or call.callee is None:
        return None
    found = callee_at(analysis, here)
    parameters = parameters_of(analysis, here)
    if found is None or (not parameters and not isinstance(found, Builtin)):
        return None
    name = call.callee.text
    parts = found.parts if isinstance(found, Builtin) else [str(each) for each in parameters]
    ends: list[tuple[int, int]] = []
    label = f"{name}("
    for part in parts:
        label += ", " if ends else ""
        ends.append((len(label), len(label) + len(part)))
        label += part
    doc = found.doc if isinstance(found, Builtin) else doc_of(found)
    return Help(f"{label})", doc, tuple(ends), _active(call, parameters))


def _active(call: Opened, parameters: tuple[Parameter, ...]) -> int | None:
    """The argument that the cursor is in."""
    names = [each.name for each in parameters]
    if call.keyword:
        return names.index(call.keyword) if call.keyword in names else None
    if call.commas < len(names):
        return call.commas
    return len(names) - 1 if parameters and parameters[-1].variadic else None
