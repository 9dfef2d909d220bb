"""What is not in one kernel with what stands beside it, and why: `fuse` itself is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tdsl.compiler.build.unit import Unit
from tdsl.compiler.explain.model import Unfused
from tdsl.compiler.ir import Graph, Node
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.passes.fuse import Boundary, boundaries, fuse
from tdsl.compiler.passes.fusible import Why, unfusible
from tdsl.compiler.passes.tidy import prune, share
from tdsl.dsl.diagnostics import Span

ALONE = "a single operation, which PyTorch computes as well"
CALLS = ("call_module", "call_list")
ARROW = "\u2192"


def unfused(unit: Unit, run: str | None) -> Iterator[Unfused]:
    """Of a program before its passes: of each module, then of the run's loss (as the module '')."""
    for ir in unit.modules:
        yield from _graph(ir.class_name, ir.graph)
    if run is not None:
        yield from _graph("", unit.runs[run].loss)


def _graph(module: str, graph: Graph) -> Iterator[Unfused]:
    for node in graph.nodes:
        for region in node.regions:
            yield from _graph(module, region)
    tidied = prune(share(graph))
    with knowing(graph.known, graph.assumed):
        found = list(_told(module, tidied))
    yield from found


def _told(module: str, tidied: Graph) -> Iterator[Unfused]:
    found: dict[tuple[str, str], tuple[Span, ...]] = {}
    met = boundaries(tidied)
    for each in (*_boundaries(module, met), *_left_out(module, tidied, {b.culprit for b in met})):
        key = (each.operations, each.why)
        found[key] = _places((*found.get(key, ()), *each.spans))
    yield from (Unfused(module, *key, spans) for key, spans in found.items())
    alone: dict[str, list[Node]] = {}
    for node in fuse(tidied).nodes:
        if unfusible(node) is None:
            alone.setdefault(_name(node), []).append(node)
    yield from (Unfused(module, name, ALONE, _spans(nodes)) for name, nodes in alone.items())


def _left_out(module: str, graph: Graph, told: set[Node | None]) -> Iterator[Unfused]:
    """Operations that kernels do compute, but not so, beside none that one could."""
    for node in graph.nodes:
        why = unfusible(node)
        if why is not None and why not in (Why.LIBRARY, Why.VIEW) and node not in told:
            yield Unfused(module, _name(node), f"{node.op.name} {_clause(why)}", _spans([node]))


def _boundaries(module: str, found: list[Boundary]) -> Iterator[Unfused]:
    """All that one operation is kept apart from, on one side of it, is told together."""
    together: dict[object, list[Boundary]] = {}
    for each in found:
        key = each if each.culprit is None else (each.culprit, each.culprit is each.maker)
        together.setdefault(key, []).append(each)
    for group in together.values():
        makers, readers = (_names([getattr(b, side) for b in group]) for side in ("maker", "reader"))
        culprit = group[0].culprit
        where = [b.reader for b in group] if culprit is None else [culprit]
        yield Unfused(module, f"{makers} {ARROW} {readers}", _why(group[0]), _spans(where))


def _why(boundary: Boundary) -> str:
    culprit, why = boundary.culprit, boundary.why
    if culprit is None:
        return why.value
    if culprit.regions:
        return f"{culprit.op.name} is a block of its own"
    if culprit.op.name in CALLS:
        return f"{culprit.layer} is a call of a module, with kernels of its own"
    return f"{culprit.op.name} {_clause(why)}"


def _clause(why: Why) -> str:
    """What follows the name of an operation."""
    return f"is {why.value}" if why in (Why.LIBRARY, Why.VIEW, Why.FORM) else why.value


def _names(nodes: list[Node]) -> str:
    return ", ".join(dict.fromkeys(map(_name, nodes)))


def _name(node: Node) -> str:
    if node.op.name in CALLS:
        return node.layer
    return f"{node.layer}: {node.op.name}" if node.layer else node.op.name


def _spans(nodes: list[Node]) -> tuple[Span, ...]:
    return _places(node.span for node in nodes if node.span is not None)


def _places(spans: Iterable[Span]) -> tuple[Span, ...]:
    """One for each line."""
    return tuple({(span.source.name, span.line): span for span in spans}.values())
