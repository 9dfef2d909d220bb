"""Match the arguments of a call with a signature: the unknown, missing, doubled and those of a wrong kind are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tdsl.compiler.build.values import Dtype, Infer, OpRef, Semantic, describe
from tdsl.compiler.ir import Attr, Operand, Scalar, Value
from tdsl.compiler.ops.op import Arg, Bound, Op, Signature
from tdsl.compiler.size import Size
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import ProgramError, Span, fail
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.values import with_quotes

Given = tuple[Semantic, Span]
# What the padding of a convolution may be beside numbers.
PADDINGS = ("same", "valid")


def match(
    what: str,
    signature: Signature,
    args: Sequence[ast.Argument],
    evaluate: Callable[[ast.Expr], Semantic],
    span: Span,
    first: Given | None = None,
) -> dict[str, Given]:
    """The value given for each argument; `first` stands before the positional ones, as the object of a method."""
    found: dict[str, Given] = {}
    positional = [arg for arg in signature if not arg.keyword_only]
    values = [(evaluate(a.value), a.span) for a in args if a.name is None]
    if first is not None:
        values.insert(0, first)
    for i, value in enumerate(values):
        if positional and positional[-1].variadic and i >= len(positional) - 1:
            rest = values[i:]
            found[positional[-1].name] = (tuple(v for v, _ in rest), rest[0][1].to(rest[-1][1]))
            break
        if i >= len(positional):
            fail("E202", f"too many arguments of `{what}`", value[1], help=f"it takes {_listed(signature)}")
        found[positional[i].name] = value
    for argument in args:
        if argument.name is not None:
            _named(what, signature, argument, found, evaluate)
    _complete(what, signature, found, span)
    return found


def _named(
    what: str,
    signature: Signature,
    argument: ast.Argument,
    found: dict[str, Given],
    evaluate: Callable[[ast.Expr], Semantic],
) -> None:
    name = argument.name
    assert name is not None
    names = [arg.name for arg in signature]
    if name not in names:
        help = did_you_mean(name, names) or f"it takes {_listed(signature)}"
        fail("E202", f"`{what}` has no argument `{name}`", argument.span, help=help)
    if name in found:
        fail("E202", f"argument `{name}` of `{what}` is given twice", argument.span, help="keep one of the two")
    try:
        found[name] = (evaluate(argument.value), argument.value.span)
    except ProgramError as error:
        (arg,) = (arg for arg in signature if arg.name == name)
        raise (with_quotes(error, argument.value) if _may_be_string(arg, argument.value) else error) from None


def _may_be_string(arg: Arg, value: ast.Expr) -> bool:
    """Whether a name stands where a string was meant: what takes more than strings has known ones."""
    return arg.kind == "str" or (arg.kind == "any" and isinstance(value, ast.Name) and value.id in PADDINGS)


def _complete(what: str, signature: Signature, found: dict[str, Given], span: Span) -> None:
    missing = [arg.name for arg in signature if arg.required and arg.name not in found]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        fail("E202", f"`{what}` needs {names}", span, help=f"it takes {_listed(signature)}")


def _listed(signature: Signature) -> str:
    return ", ".join(arg.name for arg in signature) or "no arguments"


def attribute(what: str, arg: Arg, value: Semantic, span: Span) -> Attr:
    """An argument that is not a tensor, checked against its kind."""
    if isinstance(value, Scalar) and value.value is None and not value.text:
        if arg.optional or arg.kind == "any":
            return None
        fail("E202", f"argument `{arg.name}` of `{what}` can't be none", span)
    check = _KINDS[arg.kind]
    found = check(value)
    if found is _WRONG:
        told, such = f"argument `{arg.name}` of `{what}` is {_CALLED[arg.kind]}", _SUCH.get(arg.kind)
        help = f"such as `{arg.name}={such}`" if such else None
        if arg.kind == "str" and isinstance(value, OpRef) and span.text.isidentifier():
            help = f'a string has quotes: write `"{span.text}"`'
        fail("E202", told, span, f"this is {describe(value)}", help=help)
    return found  # type: ignore[no-any-return]


_WRONG: Any = object()


def _int(value: Semantic) -> Any:
    if isinstance(value, Scalar) and isinstance(value.value, (int, Size)) and not isinstance(value.value, bool):
        constant = value.value.constant if isinstance(value.value, Size) else value.value
        return constant if constant is not None else value.value
    return _WRONG


def _float(value: Semantic) -> Any:
    if not isinstance(value, Scalar) or isinstance(value.value, bool):
        return _WRONG
    if isinstance(value.value, (int, float)) and not value.text:
        return value.value
    return value


def _bool(value: Semantic) -> Any:
    return value.value if isinstance(value, Scalar) and isinstance(value.value, bool) else _WRONG


def _str(value: Semantic) -> Any:
    return value if isinstance(value, str) else _WRONG


def _sizes(value: Semantic) -> Any:
    if isinstance(value, tuple):
        found = tuple(_int(v) for v in value)
        return _WRONG if any(v is _WRONG for v in found) else found
    return _int(value)


def _shape(value: Semantic) -> Any:
    found = _sizes(value)
    return found if found is _WRONG or isinstance(found, tuple) else (found,)


def _any(value: Semantic) -> Any:
    if isinstance(value, tuple):
        return tuple(_any(v) for v in value)
    if isinstance(value, Scalar):
        return value.value if not value.text else value
    return value if isinstance(value, str) else _WRONG


def _dtype(value: Semantic) -> Any:
    return value.name if isinstance(value, Dtype) else _WRONG


_KINDS: dict[str, Callable[[Semantic], Any]] = {
    "int": _int,
    "size": _int,
    "float": _float,
    "bool": _bool,
    "str": _str,
    "sizes": _sizes,
    "shape": _shape,
    "any": _any,
    "dtype": _dtype,
}
_SUCH = {
    "int": "-1",
    "size": "64",
    "float": "0.5",
    "bool": "true",
    "str": '"mean"',
    "sizes": "[3, 3]",
    "shape": "[B, 64]",
    "dtype": "f32",
}
_CALLED = {
    "int": "an integer",
    "size": "a size",
    "float": "a number",
    "bool": "`true` or `false`",
    "str": "a string",
    "sizes": "an integer or a list of them",
    "shape": "a list of integers",
    "any": "a number, a string or a list",
    "dtype": "a dtype",
}


def accepts(arg: Arg, value: Semantic) -> bool:
    """Whether a value is of the kind that an argument has."""
    if isinstance(value, Scalar) and value.value is None and not value.text:
        return arg.optional or arg.kind == "any"
    if arg.kind == "tensors":
        return isinstance(value, (tuple, Value))
    if arg.is_operand:
        return isinstance(value, Value) or (arg.kind == "operand" and isinstance(value, Scalar))
    return _KINDS[arg.kind](value) is not _WRONG


def bind(
    op: Op,
    args: Sequence[ast.Argument],
    evaluate: Callable[[ast.Expr], Semantic],
    scalar: Callable[[Scalar], Scalar],
    span: Span,
    first: Given | None = None,
) -> Bound:
    """A call of an op as the program writes it."""
    offered = tuple(arg for arg in op.signature if not arg.is_built)
    found = match(op.name, offered, args, evaluate, span, first)
    operands: list[Operand] = []
    attrs: dict[str, Attr] = {}
    for arg in op.signature:
        if arg.kind == "tensors":
            operands += _tensors(op, arg, *found[arg.name])
        elif arg.is_operand:
            operands.append(_operand(op, arg, found.get(arg.name), scalar))
        elif arg.name in found:
            value, at = found[arg.name]
            if arg.variadic:
                if not isinstance(value, tuple):
                    told = f"this is {describe(value)}"
                    fail("E202", f"argument `{arg.name}` of `{op.name}` is a list by this name", at, told)
                items = value[0] if len(value) == 1 and isinstance(value[0], tuple) else value
                attrs[arg.name] = tuple(attribute(op.name, arg, v, at) for v in items)
            else:
                attrs[arg.name] = attribute(op.name, arg, value, at)
        else:
            attrs[arg.name] = () if arg.variadic else arg.default
    return Bound(op, tuple(operands), attrs, span)


def _tensors(op: Op, arg: Arg, value: Semantic, span: Span) -> list[Value]:
    given = value if isinstance(value, tuple) else (value,)
    if len(given) == 1 and isinstance(given[0], tuple):
        given = given[0]
    wrong = next((v for v in given if not isinstance(v, Value)), None)
    if wrong is not None or not given:
        fail("E202", f"argument `{arg.name}` of `{op.name}` is a list of tensors", span)
    return [v for v in given if isinstance(v, Value)]


def _operand(op: Op, arg: Arg, given: Given | None, scalar: Callable[[Scalar], Scalar]) -> Operand:
    if given is None:
        return Scalar(arg.default)
    value, span = given
    if isinstance(value, Value):
        return value
    if isinstance(value, Scalar) and value.value is None and not value.text:
        if arg.optional:
            return value
        fail("E202", f"argument `{arg.name}` of `{op.name}` can't be none", span)
    if isinstance(value, Scalar) and arg.kind == "operand":
        return scalar(value)
    extra = "" if not isinstance(value, (OpRef, Infer)) else ": it is to be called"
    wanted = "a tensor" if arg.kind == "tensor" else "a tensor or a number"
    number = value.value if isinstance(value, Scalar) and isinstance(value.value, (int, float)) else None
    help = None if number is None else f"write `tensor({number})`, or `tensor([...])` with several numbers"
    fail(
        "E202",
        f"argument `{arg.name}` of `{op.name}` is {wanted}",
        span,
        f"this is {describe(value)}{extra}",
        help=help,
    )
