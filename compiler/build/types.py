"""Types as a program writes them, and what a call binds in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tdsl.compiler.build.values import Semantic, Signature
from tdsl.compiler.ir import Scalar, Shape, TensorType, Value
from tdsl.compiler.ops.infer import same
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import ProgramError, Span, fail
from tdsl.dsl.names import did_you_mean

REST = Symbol("...")
DTYPES = {"int": "i64", None: "float"}
# What a call binds: sizes by symbol; `...` to any number of dimensions.
Binding = dict[Symbol, Shape]


def declared(
    expr: ast.TypeExpr, names: Mapping[str, Semantic], bind: bool, evaluate: Callable[[ast.Expr], Semantic]
) -> TensorType:
    """A declared tensor type. With `bind`, an undeclared capitalised name is a new run-time size."""
    if expr.dims is None:
        fail("E207", "expected a tensor type, such as `float[B, 64]`", expr.span)
    dims = tuple(_dim(d, names, bind, evaluate) for d in expr.dims)
    return TensorType(DTYPES.get(expr.dtype, expr.dtype or "float"), dims)


def _dim(expr: ast.Expr, names: Mapping[str, Semantic], bind: bool, evaluate: Callable[[ast.Expr], Semantic]) -> Size:
    if isinstance(expr, ast.Ellipsis_):
        return Size.of(REST)
    if isinstance(expr, ast.Name) and expr.id not in names and bind and expr.id[0].isupper():
        return Size.of(Symbol(expr.id))
    if isinstance(expr, ast.Name) and expr.id not in names and expr.id[0].isupper():
        fail("E110", f"unknown size `{expr.id}`", expr.span, help="a result may use only sizes that the inputs bind")
    if isinstance(expr, ast.Name) and expr.id not in names:
        try_global = _global(expr, evaluate)
        if try_global is not None:
            return try_global
        fail("E110", f"unknown size `{expr.id}`", expr.span, help=did_you_mean(expr.id, names) or _CAPITAL)
    value = evaluate(expr)
    if not isinstance(value, Scalar) or isinstance(value.value, bool) or not isinstance(value.value, (int, Size)):
        fail("E207", "a size is an integer", expr.span)
    return Size.of(value.value)


_CAPITAL = "a size of the run is capitalised"


def _global(expr: ast.Name, evaluate: Callable[[ast.Expr], Semantic]) -> Size | None:
    """A `const` of the program."""
    try:
        value = evaluate(expr)
    except ProgramError:
        return None
    return Size.of(value.value) if isinstance(value, Scalar) and isinstance(value.value, (int, Size)) else None


def new_sizes(types: Sequence[TensorType]) -> dict[str, Semantic]:
    """The run-time sizes of a signature's inputs, as names."""
    symbols = {s for t in types for size in t.shape for s in size.symbols() if not s.param and s != REST}
    return {s.name: Scalar(Size.of(s)) for s in sorted(symbols, key=lambda s: s.name)}


def bind_types(
    what: str,
    signature: Signature,
    values: Sequence[Value],
    span: Span,
    env: Mapping[str, Semantic] | None = None,
) -> Binding:
    """Match the types of a call with a signature: what each of its sizes is, in the caller's words."""
    binding: Binding = {}
    for name, value in (env or {}).items():
        if isinstance(value, Scalar) and isinstance(value.value, (int, Size)) and not isinstance(value.value, bool):
            binding[Symbol(name, param=True)] = (Size.of(value.value),)
    # Inputs whose sizes are plain names bind first, so that `[B, 2 * C]` may stand before `[C]`.
    for (name, formal), value in zip(signature.inputs, values):
        _bind_type(what, name, formal, value.type, binding, span)
    for (name, formal), value in zip(signature.inputs, values):
        _check_type(what, name, formal, value.type, binding, span)
    return binding


def _bind_type(what: str, name: str, formal: TensorType, actual: TensorType, binding: Binding, span: Span) -> None:
    pairs = _aligned(formal, actual)
    if pairs is None:
        _mismatch(what, name, formal, actual, binding, span)
    for have, want in pairs or ():
        symbol = _lone(want)
        if symbol is not None and not symbol.param:
            binding.setdefault(symbol, have)


def _check_type(what: str, name: str, formal: TensorType, actual: TensorType, binding: Binding, span: Span) -> None:
    if not _dtype_fits(formal.dtype, actual.dtype):
        fail("E205", f"`{name}` of `{what}` is {formal.dtype}", span, f"this is {actual}", help="convert it first")
    expected = substituted(formal, binding)
    if len(expected.shape) != len(actual.shape) or not all(map(same, expected.shape, actual.shape)):
        _mismatch(what, name, formal, actual, binding, span)


def _dtype_fits(formal: str, actual: str) -> bool:
    floats = ("float", "f32", "f64", "f16", "bf16")
    return formal == actual or (formal in floats and actual in floats)


def _mismatch(what: str, name: str, formal: TensorType, actual: TensorType, binding: Binding, span: Span) -> None:
    expected = substituted(formal, binding)
    fail(
        "E203",
        f"shapes do not match in the call of `{what}`",
        span,
        f"{actual} where {expected} is expected",
        notes=(f"`{name}` of `{what}` is declared {formal}",),
    )


def _aligned(formal: TensorType, actual: TensorType) -> list[tuple[Shape, Size]] | None:
    """Each declared size with the sizes that stand for it."""
    rest = [i for i, s in enumerate(formal.shape) if _lone(s) == REST]
    if not rest:
        if len(formal.shape) != len(actual.shape):
            return None
        return [((have,), want) for have, want in zip(actual.shape, formal.shape)]
    at = rest[0]
    after = len(formal.shape) - at - 1
    if len(actual.shape) < at + after:
        return None
    middle = actual.shape[at : len(actual.shape) - after]
    head = [((h,), w) for h, w in zip(actual.shape[:at], formal.shape[:at])]
    tail = [((h,), w) for h, w in zip(actual.shape[len(actual.shape) - after :], formal.shape[at + 1 :])]
    return [*head, (middle, formal.shape[at]), *tail]


def _lone(size: Size) -> Symbol | None:
    """The symbol that a size is, alone."""
    symbols = size.symbols()
    symbol = next(iter(symbols), None)
    return symbol if symbol is not None and size == Size.of(symbol) else None


def substituted(type: TensorType, binding: Binding) -> TensorType:
    """A declared type in the caller's words."""
    plain = {symbol: shape[0] for symbol, shape in binding.items() if len(shape) == 1}
    shape: list[Size] = []
    for size in type.shape:
        symbol = _lone(size)
        if symbol is not None and symbol in binding:
            shape += binding[symbol]
        else:
            shape.append(size.substitute(plain))
    return TensorType(type.dtype, tuple(shape))
