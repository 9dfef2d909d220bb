"""Writing IR as arithmetic: what lowerings and VJPs are written in.

`t.exp(x) * g + 1` records nodes. Equal calls are recorded once, so what a VJP writes again costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Union

from tdsl.compiler.ir import Attr, Node, Operand, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import pointwise_float
from tdsl.compiler.ops.op import OPS, Op, bind_plain
from tdsl.dsl.diagnostics import Span

ExprLike = Union["Expr", Operand, int, float, bool, None]


@dataclass(frozen=True, eq=False)
class Expr:
    """An operand with the operators of arithmetic on it."""

    tracer: Tracer
    operand: Operand

    @property
    def type(self) -> TensorType:
        return self.operand.type if isinstance(self.operand, Value) else TensorType(self.operand.dtype, ())

    @property
    def value(self) -> Value:
        assert isinstance(self.operand, Value)
        return self.operand

    def __add__(self, other: ExprLike) -> Expr:
        return self.tracer("add", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return self.tracer("add", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return self.tracer("sub", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return self.tracer("sub", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return self.tracer("mul", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return self.tracer("mul", other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return self.tracer("div", self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return self.tracer("div", other, self)

    def __neg__(self) -> Expr:
        return self.tracer("neg", self)

    def __gt__(self, other: ExprLike) -> Expr:
        return self.tracer("gt", self, other)

    def __lt__(self, other: ExprLike) -> Expr:
        return self.tracer("lt", self, other)

    def __ge__(self, other: ExprLike) -> Expr:
        return self.tracer("ge", self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return self.tracer("le", self, other)


class Tracer:
    """Records nodes; `t("op", ...)` and `t.op(...)` are the same."""

    def __init__(self, span: Span | None = None) -> None:
        self.nodes: list[Node] = []
        self.span = span
        self._seen: dict[Any, tuple[Value, ...]] = {}

    def wrap(self, operand: ExprLike) -> Expr:
        if isinstance(operand, Expr):
            return operand
        return Expr(self, operand if isinstance(operand, (Value, Scalar)) else Scalar(operand))

    def __getattr__(self, name: str) -> Callable[..., Expr]:
        if name.startswith("__") or name not in OPS:
            raise AttributeError(name)
        return lambda *args, **attrs: self(name, *args, **attrs)

    def __call__(self, name: str, *args: ExprLike, **attrs: Attr) -> Expr:
        """Record one call of an op with one result."""
        operands = [self.wrap(a) for a in args]
        folded = _fold(name, operands)
        if folded is not None:
            return self.wrap(folded)
        if all(x.type.dtype == "bool" for x in operands):
            name = _OF_TRUTH.get(name, name)
        if _computes_in_floats(OPS[name]):
            operands = [self.real(x) if _is_whole(x) else x for x in operands]
        (value,) = self.record(name, tuple(x.operand for x in operands), attrs)
        return Expr(self, value)

    def record(self, name: str, operands: tuple[Operand, ...], attrs: dict[str, Attr]) -> tuple[Value, ...]:
        op = OPS[name]
        bound = bind_plain(op, operands, attrs, self.span)
        key = (name, bound.inputs, tuple(bound.attrs.items()))
        if key not in self._seen:
            outputs = tuple(Value(t) for t in op.infer(bound))
            self.nodes.append(Node(op, bound.inputs, bound.attrs, outputs, self.span))
            self._seen[key] = outputs
        return self._seen[key]

    def rename_last(self, value: Value) -> None:
        """Let the last node make `value` instead of its own result, which nothing has used yet."""
        last = self.nodes[-1]
        self.nodes[-1] = replace(last, outputs=(value,))
        self._seen[_key(last)] = (value,)

    def adopt(self, nodes: tuple[Node, ...]) -> None:
        """Continue from nodes recorded elsewhere: calls equal to theirs yield their values."""
        for node in nodes:
            self.nodes.append(node)
            self._seen[_key(node)] = node.outputs


def _key(node: Node) -> Any:
    return (node.op.name, node.inputs, tuple(node.attrs.items()))


# Arithmetic on truth values is logic, where a kernel's own would wrap at one bit.
_OF_TRUTH = {"add": "either", "mul": "both", "maximum": "either", "minimum": "both"}
_ROUNDING = ("floor", "ceil", "trunc", "whole")


def _is_whole(x: Expr) -> bool:
    return isinstance(x.operand, Value) and not x.type.is_float


def _computes_in_floats(op: Op) -> bool:
    """Whether a primitive is a function of Triton's that takes floating-point numbers alone."""
    return op.infer is pointwise_float and not op.triton.startswith("{0}")


def _fold(name: str, args: list[Expr]) -> ExprLike:
    """What integers rounded, literals, and adding 0 or multiplying by 1 leave; None where there is nothing to fold."""
    if name in _ROUNDING or name == "sign":
        return args[0] if _is_whole(args[0]) and (name != "sign" or args[0].type.dtype == "bool") else None
    if name not in ("add", "sub", "mul", "div") or len(args) != 2:
        return None
    left, right = (a.operand for a in args)
    a, b = (_literal(x) for x in (left, right))
    if a is not None and b is not None:
        return {"add": a + b, "sub": a - b, "mul": a * b, "div": a / b if b else None}[name]
    if (b == 0 and name in ("add", "sub")) or (b == 1 and name in ("mul", "div")):
        return args[0]
    if (a == 0 and name == "add") or (a == 1 and name == "mul"):
        return args[1]
    return None


def _literal(operand: Operand) -> float | int | None:
    if isinstance(operand, Scalar) and not operand.text and isinstance(operand.value, (int, float)):
        return operand.value
    return None
