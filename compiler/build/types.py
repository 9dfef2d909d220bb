"""Types as a program writes them, and what a call binds in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
    if isinstance(expr, ast.Name) and expr.id not in names:
        declared_once = _global(expr, evaluate)
        if declared_once is not None:
            return declared_once
        if bind and expr.id[0].isupper():
            return Size.of(Symbol(expr.id))
        if expr.id[0].isupper():
            help = "a result may use only sizes that the inputs bind"
            fail("E110", f"unknown size `{expr.id}`", expr.span, help=help)
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


Explain = Callable[[Value, TensorType], tuple[str, ...]]


def bind_types(
    what: str,
    signature: Signature,
    values: Sequence[Value],
    span: Span,
    env: Mapping[str, Semantic] | None = None,
    explain: Explain = lambda value, type: (),
) -> Binding:
    """Match the types of a call with a signature: what each of its sizes is, in the caller's words.

    `explain` has notes on why a tensor is not of a type.
    """
    call = _Call(what, span, explain)
    for name, value in (env or {}).items():
        if isinstance(value, Scalar) and isinstance(value.value, (int, Size)) and not isinstance(value.value, bool):
            call.binding[Symbol(name, param=True)] = (Size.of(value.value),)
    # Inputs whose sizes are plain names bind first, so that `[B, 2 * C]` may stand before `[C]`.
    for (name, formal), value in zip(signature.inputs, values):
        call.bind(name, formal, value)
    for (name, formal), value in zip(signature.inputs, values):
        call.check(name, formal, value)
    return call.binding


@dataclass
class _Call:
    """A call while its sizes are bound."""

    what: str
    span: Span
    explain: Explain
    binding: Binding = field(default_factory=dict)
    # The input that has told each size.
    told: dict[Symbol, str] = field(default_factory=dict)

    def bind(self, name: str, formal: TensorType, value: Value) -> None:
        pairs = _aligned(formal, value.type)
        if pairs is None:
            self.mismatch(name, formal, value)
        for have, want in pairs or ():
            symbol = _lone(want)
            if symbol is not None and not symbol.param:
                self.binding.setdefault(symbol, have)
                self.told.setdefault(symbol, name)

    def check(self, name: str, formal: TensorType, value: Value) -> None:
        if not _dtype_fits(formal.dtype, value.type.dtype):
            word = "int" if formal.dtype == "i64" else formal.dtype
            help = (
                f"convert it first: `.{word}()`" if word in ("int", "float", "bool") else f"convert it: `.to({word})`"
            )
            fail("E205", f"`{name}` of `{self.what}` is {word}", self.span, f"this is {value.type}", help=help)
        expected, actual = substituted(formal, self.binding).shape, value.type.shape
        if len(expected) != len(actual) or not all(map(same, expected, actual)):
            self.mismatch(name, formal, value)

    def mismatch(self, name: str, formal: TensorType, value: Value) -> None:
        expected = substituted(formal, self.binding)
        pairs = zip(formal.shape, expected.shape, value.type.shape) if len(formal.shape) == len(expected.shape) else ()
        wrong = dict.fromkeys(s for size, want, have in pairs if not same(want, have) for s in size.symbols())
        bound = [(s, self.binding[s], self.told[s]) for s in wrong if self.told.get(s, name) != name]
        fail(
            "E203",
            f"shapes do not match in the call of `{self.what}`",
            self.span,
            f"{value.type} where {expected} is expected",
            notes=(
                f"`{name}` of `{self.what}` is declared {formal}",
                *(f"`{symbol}` is {size} there, as `{other}` has it" for symbol, (size,), other in bound),
                *self.explain(value, expected),
            ),
            help="give it that shape; a size that is a name, as in `float[B, D]`, takes any",
        )


def _dtype_fits(formal: str, actual: str) -> bool:
    floats = ("float", "f32", "f64", "f16", "bf16")
    return formal == actual or (formal in floats and actual in floats)


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
