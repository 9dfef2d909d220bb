"""Values of settings and arguments, checked against what their signature takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tdsl.dsl import ast, habits
from tdsl.dsl.constants import Lookup, describe, fold
from tdsl.dsl.diagnostics import ProgramError, fail
from tdsl.dsl.kinds import Arg, Kind, Required, Signature
from tdsl.dsl.names import did_you_mean, nearest
from tdsl.dsl.program import Call, Constant


def evaluate(expr: ast.Expr, kind: Kind, what: str, lookup: Lookup) -> Constant:
    """The value of `expr` for the setting or argument called `what`; raises ProgramError for another kind."""
    value = _value(expr, kind, what, lookup)
    if not kind.accepts(value):
        numbers = isinstance(value, (int, float)) and not isinstance(value, bool) and "number" in kind.what
        code = "E312" if numbers or (isinstance(value, int) and "integer" in kind.what) else "E311"
        near = (_quoted(value, kind) or did_you_mean(value, kind.words)) if isinstance(value, str) else None
        single = kind.what.startswith("a list") and kind.accepts((value,))
        help = near or (f"write `[{expr.span.text}]`" if single else _example(kind))
        fail(code, f"{what} takes {kind.what}, not {describe(value)}", expr.span, help=help)
    return value


EXAMPLES = {
    "an integer": "such as `10`",
    "a number": "such as `0.1`",
    "a string": 'such as `"text"`',
    "one character": 'a tab is written `"\\t"`',
    "`true`": "`true` or `false`, without quotes",
    "a list, each a number": "such as `[0.9, 0.95]`",
    "a list, each an integer": "such as `[10, 20]`",
    "a list, each a string": 'such as `["text"]`',
}


def _quoted(text: str, kind: Kind) -> str | None:
    """The cure of a string where a call stands: of `"adamw"`, or of a path whose ending names a source."""
    if text.rpartition(".")[2] in kind.calls:
        return f'write `{text.rpartition(".")[2]}("{text}")`'
    return next((f"write `{name}(...)`, without quotes" for name in kind.calls if name.lower() == text.lower()), None)


def _example(kind: Kind) -> str | None:
    """The cure of a value of another kind: one of this kind."""
    return next((text for start, text in EXAMPLES.items() if kind.what.startswith(start)), None)


def _value(expr: ast.Expr, kind: Kind, what: str, lookup: Lookup) -> Constant:
    if kind.words and isinstance(expr, ast.Name):
        return _word(expr, kind, what, lookup)
    if kind.element and isinstance(expr, (ast.ListExpr, ast.TupleExpr)):
        return tuple(evaluate(item, kind.element, f"each value of {what}", lookup) for item in expr.items)
    if kind.calls and isinstance(expr, ast.Call) and isinstance(expr.function, ast.Name):
        return bind(expr, kind, what, lookup)
    if kind.calls and isinstance(expr, ast.Name) and expr.id in kind.calls:
        fail("E313", f"{what} takes {kind.what}, and this is not called", expr.span, help=f"write `{expr.id}(...)`")
    if kind.calls and isinstance(expr, ast.Name):
        help = did_you_mean(expr.id, kind.calls)
        fail("E313", f"{what} takes {kind.what}, not `{expr.id}`", expr.span, help=help)
    try:
        return fold(expr, lookup)
    except ProgramError as error:
        meant = isinstance(expr, ast.Name) and kind.accepts(expr.id)
        # Where any string would do, a name that is nearly there is the likelier mistake.
        keeps = kind.accepts("") and (error.diagnostic.help or "").startswith("did you mean")
        raise (with_quotes(error, expr) if meant and not keeps else error) from None


def with_quotes(error: ProgramError, expr: ast.Expr) -> ProgramError:
    """The error of a name that is not known, where a string may stand, with its cure: `"same"` for `same`."""
    diagnostic = error.diagnostic
    if diagnostic.code != "E110" or not isinstance(expr, ast.Name) or diagnostic.span != expr.span:
        return error
    return ProgramError(replace(diagnostic, help=f'a string has quotes: write `"{expr.id}"`'))


def _word(expr: ast.Name, kind: Kind, what: str, lookup: Lookup) -> Constant:
    if expr.id in kind.words:
        return expr.id
    help = did_you_mean(expr.id, kind.words)
    if help is None:
        return fold(expr, lookup)
    return fail("E311", f"{what} takes {kind.what}, not `{expr.id}`", expr.span, help=help)


def bind(expr: ast.Call, kind: Kind, what: str, lookup: Lookup) -> Call:
    """The call of one of the built-ins that `kind` names, its arguments by name and checked."""
    assert isinstance(expr.function, ast.Name)
    name = expr.function.id
    if name not in kind.calls:
        listed = ", ".join(kind.calls)
        help = did_you_mean(name, kind.calls) or f"there are {listed}"
        fail("E313", f"{what} takes {kind.what}, not `{name}`", expr.function.span, help=help)
    signature = kind.calls[name]
    values: dict[str, Constant] = {}
    for position, argument in enumerate(expr.args):
        arg = _argument(argument, position, signature)
        if arg.name in values:
            fail("E304", f"`{arg.name}` of `{name}` is given twice", argument.span, help="keep one of the two")
        values[arg.name] = evaluate(argument.value, arg.kind, f"`{arg.name}` of `{name}`", lookup)
    _require(expr, signature, values)
    order = [arg.name for arg in signature.args]
    ordered = {key: values[key] for key in [*order, *(key for key in values if key not in order)] if key in values}
    return Call(name, ordered, expr.span)


# Arguments of torchmetrics that no metric has here.
TOLD_BY_TYPES = ("task", "num_classes", "num_labels", "multiclass")


def _argument(argument: ast.Argument, position: int, signature: Signature) -> Arg:
    known = {arg.name: arg for arg in signature.args}
    if argument.name is None:
        if position < len(signature.args):
            return signature.args[position]
        help = f"it takes {', '.join(known)}" if known else "it takes none"
        return fail("E302", f"too many arguments of `{signature.name}`", argument.span, help=help)
    if argument.name in known:
        return known[argument.name]
    if signature.variadic is not None:
        return Arg(argument.name, signature.variadic)
    told = "the types of what `compare` returns tell it: leave it out" if argument.name in TOLD_BY_TYPES else None
    help = told or did_you_mean(argument.name, known) or (f"it takes {', '.join(known)}" if known else "it takes none")
    return fail("E302", f"`{signature.name}` has no argument `{argument.name}`", argument.span, help=help)


def _require(expr: ast.Call, signature: Signature, values: Mapping[str, Constant]) -> None:
    lacking = [arg.name for arg in signature.args if arg.default is Required and arg.name not in values]
    if lacking:
        listed = ", ".join(f"`{name}`" for name in lacking)
        help = f"write `{signature.name}({lacking[0]}=...)`"
        fail("E303", f"`{signature.name}` needs {listed}", expr.span, help=help)


def unknown(what: str, name: ast.Declaration | ast.Section | ast.Block, known: Iterable[str], where: str) -> None:
    """Raise the error of a setting, section or block that `where` does not have."""
    names = list(known)
    cures = habits.SETTINGS if where == "a run" else {}
    meant = nearest(name.name, [*names, *cures])
    help = cures.get(name.name) or (cures.get(meant) or f"did you mean `{meant}`?" if meant else None)
    help = help or f"it has {', '.join(names)}"
    fail("E301", f"{where} has no {what} `{name.name}`", name.name_span, help=help)
