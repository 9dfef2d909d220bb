"""Statements that run others under a condition: `no_grad { }`, `if training { } else { }`, `a if training else b`.

Their bodies become regions of one node. What a body binds is visible after it: as results of the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tdsl.compiler.build.frame import Frame, GraphBuilder
from tdsl.compiler.build.values import Poison, Semantic, Training, Unbound, describe
from tdsl.compiler.ir import Graph, Node, Scalar, Value
from tdsl.compiler.ops.infer import assuming, same_shape
from tdsl.compiler.ops.op import OPS
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span, fail

Returned = tuple[tuple[Value, ...], Span]
# Runs a body in a frame: what it returns, None where it goes on to what follows.
Run = Callable[[Frame], "Returned | None"]


def no_grad(run: Run, span: Span, frame: Frame) -> Returned | None:
    """A body whose results carry no gradient."""
    inner = _opened(frame)
    returned = run(inner)
    leaving = _Leaving({v for n in inner.builder.nodes for v in n.outputs})
    bound = {name: leaving.value(value) for name, value in _bound(inner, frame).items()}
    results = tuple(leaving.one(v) for v in returned[0]) if returned is not None else ()
    tracked = {name: leaving.one(value) for name, value in frame.builder.tracked.items()}
    _record("no_grad", {}, (tuple(leaving.found),), tuple(leaving.found.values()), (inner,), span, frame)
    frame.builder.tracked.update(tracked)
    frame.names.update(bound)
    return None if returned is None else (results, returned[1])


def branch(condition: Training, then: Run, otherwise: Run, span: Span, frame: Frame) -> Returned | None:
    """Two bodies, of which the module's mode chooses one; both return, or neither."""
    tracked = dict(frame.builder.tracked)
    sides = (then, otherwise) if not condition.negated else (otherwise, then)
    inner = tuple(_opened(frame) for _ in sides)
    returned = []
    for run, each in zip(sides, inner):
        with assuming():
            returned.append(run(each))
    if frame.builder.tracked != tracked:
        fail("E201", "`track` in a branch that is not always run", span, help="track it after the branches")
    joint = _Joint()
    results = _both_returned(returned, joint, span)
    bound = {} if results is not None else joint.names(inner[0], inner[1], frame, span)
    outputs = tuple(joint.found.values())
    regions = (tuple(a for a, _ in joint.found), tuple(b for _, b in joint.found))
    _record("branch", {"condition": Scalar(None, condition.text)}, regions, outputs, inner, span, frame)
    frame.names.update(bound)
    return None if results is None else (results, span)


def chosen(
    condition: Training, expr: ast.Conditional, evaluate: Callable[[ast.Expr, Frame], Semantic], frame: Frame
) -> Semantic:
    """`a if training else b`."""
    inner = (_opened(frame), _opened(frame))
    exprs = (expr.then, expr.otherwise) if not condition.negated else (expr.otherwise, expr.then)
    left, right = (evaluate(e, f) for e, f in zip(exprs, inner))
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        texts = (_operand(frame.scalar(s)) for s in (left, right))
        return Scalar(None, f" if {condition.text} else ".join(texts))
    joint = _Joint()
    found = joint.value(left, right)
    if isinstance(found, Unbound):
        label = f"{describe(left)} while training, {describe(right)} otherwise"
        fail("E203", "both sides of `if training` are of one type", expr.span, label.replace("a tensor ", ""))
    regions = (tuple(a for a, _ in joint.found), tuple(b for _, b in joint.found))
    attrs = {"condition": Scalar(None, condition.text)}
    _record("branch", attrs, regions, tuple(joint.found.values()), inner, expr.span, frame)
    return found


def _operand(scalar: Scalar) -> str:
    text = scalar.text or repr(scalar.value)
    return f"({text})" if " if " in text else text


def _opened(frame: Frame) -> Frame:
    return replace(frame, builder=frame.builder.region(), names=dict(frame.names))


def _bound(inner: Frame, outer: Frame) -> dict[str, Semantic]:
    return {name: value for name, value in inner.names.items() if outer.names.get(name) is not value}


@dataclass
class _Leaving:
    """Values that leave a region, and what they are outside."""

    made: set[Value]
    found: dict[Value, Value] = field(default_factory=dict)

    def one(self, value: Value) -> Value:
        if value not in self.made:
            return value
        return self.found.setdefault(value, Value(value.type, value.name))

    def value(self, value: Semantic) -> Semantic:
        if isinstance(value, tuple):
            return tuple(self.value(v) for v in value)
        return self.one(value) if isinstance(value, Value) else value


@dataclass
class _Joint:
    """Pairs of values of which the node yields one, and that result."""

    found: dict[tuple[Value, Value], Value] = field(default_factory=dict)

    def names(self, then: Frame, otherwise: Frame, before: Frame, span: Span) -> dict[str, Semantic]:
        """What each name means after both branches."""
        names = [*_bound(then, before), *_bound(otherwise, before)]
        return {n: self.name(n, then.names.get(n), otherwise.names.get(n), span) for n in dict.fromkeys(names)}

    def name(self, name: str, then: Semantic | None, otherwise: Semantic | None, span: Span) -> Semantic:
        if then is None or otherwise is None:
            return Unbound("is bound in one branch of `if training` only", f"the branches are at {span}")
        return self.value(then, otherwise, name)

    def value(self, then: Semantic, otherwise: Semantic, name: str = "") -> Semantic:
        if then is otherwise or (isinstance(then, (Scalar, str)) and then == otherwise):
            return then
        if isinstance(then, Poison) or isinstance(otherwise, Poison):
            return Poison()  # type: ignore[return-value]
        if isinstance(then, tuple) and isinstance(otherwise, tuple) and len(then) == len(otherwise):
            return tuple(self.value(a, b) for a, b in zip(then, otherwise))
        if isinstance(then, Value) and isinstance(otherwise, Value) and _alike(then, otherwise):
            return self.found.setdefault((then, otherwise), Value(then.type, name))
        told = f"{describe(then)} while training, and {describe(otherwise)} otherwise"
        return Unbound(f"is {told}", "both branches bind a name to values of one type")


def _alike(a: Value, b: Value) -> bool:
    return a.type.dtype == b.type.dtype and same_shape(a.type.shape, b.type.shape)


def _both_returned(returned: Sequence[Returned | None], joint: _Joint, span: Span) -> tuple[Value, ...] | None:
    first, second = returned
    if first is None and second is None:
        return None
    if first is None or second is None:
        fail("E207", "one branch of `if training` returns, and the other never does", span)
    (these, at), (those, _) = first, second
    if len(these) != len(those) or not all(map(_alike, these, those)):
        shown = (", ".join(str(v.type) for v in values) for values in (these, those))
        fail(
            "E207", "both branches return values of the same types", at, " while training, ".join(shown) + " otherwise"
        )
    return tuple(v for a, b in zip(these, those) if isinstance(v := joint.value(a, b), Value))


def _record(
    name: str,
    attrs: dict[str, Scalar],
    outputs: tuple[tuple[Value, ...], ...],
    results: tuple[Value, ...],
    inner: Sequence[Frame],
    span: Span,
    frame: Frame,
) -> None:
    """Add the node; its regions share their inputs, all that any of them takes from around it."""
    taken = dict.fromkeys(v for f, out in zip(inner, outputs) for v in _taken(f.builder, out))
    regions: list[Graph] = [f.builder.closed(name, tuple(taken), out) for f, out in zip(inner, outputs)]
    node = Node(OPS[name], tuple(taken), attrs, results, span, origin=frame.origin, regions=tuple(regions))
    frame.builder.nodes.append(node)
    frame.builder.made.update(dict.fromkeys(results, span))


def _taken(builder: GraphBuilder, outputs: Sequence[Value]) -> list[Value]:
    made = {v for node in builder.nodes for v in node.outputs}
    return [v for v in (*(v for n in builder.nodes for v in n.values), *outputs) if v not in made]
