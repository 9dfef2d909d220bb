"""The rules of a valid graph, executable: run after every pass, they name the pass that breaks one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tdsl.compiler.ir import Attr, Graph, Node, Operand, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import knowing, same_shape
from tdsl.compiler.ops.op import Arg, Bound, Types
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import ProgramError


class InvalidGraph(Exception):
    """A graph that breaks a rule: a defect of the compiler, never of a program."""

    def __init__(self, graph: Graph, rule: str, node: Node | None = None) -> None:
        where = f", node {graph.nodes.index(node)} `{node.op.name}`" if node is not None else ""
        super().__init__(f"graph `{graph.name}`{where}: {rule}")
        self.graph, self.node, self.rule = graph, node, rule


def verify(graph: Graph) -> Graph:
    """The graph itself where it is valid; else `InvalidGraph`, which names the first node at fault and the rule."""
    _ordered(graph)
    for node in graph.nodes:
        for rule in RULES:
            for broken in rule(node, graph):
                raise InvalidGraph(graph, broken, node)
        for inner in (*((node.group.body,) if node.group is not None else ()), *node.regions):
            verify(inner)
    return graph


# The graph -----------------------------------------------------------------------------------------------------------


def _ordered(graph: Graph) -> None:
    """Each value is made once, before it is used; results exist, and what is tracked is a single number."""
    made: set[Value] = set()
    for value in (*graph.inputs, *(p.value for p in graph.params)):
        if value in made:
            raise InvalidGraph(graph, f"`{value.name}` is an input twice")
        made.add(value)
    for node in graph.nodes:
        for value in node.values:
            if value not in made:
                raise InvalidGraph(graph, f"operand {_told(value)} is used before it is made", node)
        for value in node.outputs:
            if value in made:
                raise InvalidGraph(graph, f"{_told(value)} is made twice", node)
            made.add(value)
    for value in graph.results:
        if value not in made:
            raise InvalidGraph(graph, f"result {_told(value)} is never made")
    for name, value in graph.tracked.items():
        if value.type.shape:
            raise InvalidGraph(graph, f"tracked `{name}` is {value.type}, not a single number")


def _told(value: Value) -> str:
    return f"`{value.name or '?'}`: {value.type}"


# A node --------------------------------------------------------------------------------------------------------------


def _operands(node: Node, graph: Graph) -> Iterator[str]:
    """Operands are as many as the signature has, each of the kind that it says."""
    args = [arg for arg in node.op.signature if arg.is_operand]
    if not node.op.signature or node.regions:
        return
    args = [each for arg in args for each in ([arg] * _several(node, args) if arg.kind == "tensors" else [arg])]
    if len(args) != len(node.inputs) or (not args and node.op.signature[0].kind == "tensors"):
        yield f"{len(node.inputs)} operands where the signature has {len(args)}"
        return
    for arg, operand in zip(args, node.inputs, strict=True):
        if not _fits_operand(arg, operand):
            yield f"operand `{arg.name}` is {_kind_of(operand)}, not of kind {arg.kind}"


def _several(node: Node, args: Sequence[Arg]) -> int:
    """How many operands a list of tensors takes: those that the other arguments leave."""
    return len(node.inputs) - len(args) + 1


def _fits_operand(arg: Arg, operand: Operand) -> bool:
    if isinstance(operand, Value):
        return True
    if operand.value is None and not operand.text:
        return not arg.required or arg.optional
    return arg.kind == "operand"


def _kind_of(operand: Operand | Attr) -> str:
    if isinstance(operand, Value):
        return f"a tensor {operand.type}"
    return f"the number {operand.text or operand.value}" if isinstance(operand, Scalar) else repr(operand)


def _attributes(node: Node, graph: Graph) -> Iterator[str]:
    """Attributes are those of the signature, all of them, each of the kind that it says.

    Those of a module's call are keywords of its `forward`.
    """
    if node.op.name == "call_module":
        return
    wanted = {arg.name: arg for arg in node.op.signature if not arg.is_operand}
    for name in sorted(wanted.keys() ^ node.attrs.keys()):
        yield f"attribute `{name}` is {'missing' if name in wanted else 'not in the signature'}"
    for name, arg in wanted.items():
        if name in node.attrs and not _fits(arg, node.attrs[name]):
            yield f"attribute `{name}` is {_kind_of(node.attrs[name])}, not of kind {arg.kind}"


def _fits(arg: Arg, attr: Attr) -> bool:
    if attr is None:
        return not arg.required or arg.optional or arg.kind == "any"
    if arg.variadic:
        return isinstance(attr, tuple) and all(_is_sizes(a) or KINDS[arg.kind](a) for a in attr)
    return KINDS[arg.kind](attr)


def _integer(attr: Attr) -> bool:
    """A size; in the body of a group, one that is an argument is a number, too."""
    size = attr.value if isinstance(attr, Scalar) and attr.text else attr
    return isinstance(size, (int, Size)) and not isinstance(size, bool)


def _number(attr: Attr) -> bool:
    return _integer(attr) or isinstance(attr, (float, Scalar))


def _is_sizes(attr: Attr) -> bool:
    return all(map(_integer, attr)) if isinstance(attr, tuple) else _integer(attr)


KINDS: Mapping[str, Callable[[Attr], bool]] = {
    "int": _integer,
    "size": _integer,
    "float": _number,
    "bool": lambda attr: isinstance(attr, bool),
    "str": lambda attr: isinstance(attr, str),
    "dtype": lambda attr: isinstance(attr, str),
    "device": lambda attr: isinstance(attr, Scalar),
    "built": lambda attr: isinstance(attr, (bool, int, str)),
    "sizes": _is_sizes,
    "shape": _is_sizes,
    "any": lambda attr: True,
}


def _types(node: Node, graph: Graph) -> Iterator[str]:
    """Results are of the types that the op's rule says: as sizes are written, or for those that are known."""
    told = ""
    for known in ({}, graph.known):
        try:
            found = _inferred(node, known, graph)
        except ProgramError as error:
            told = "" if _open(error, node, known) else error.diagnostic.message
            continue
        if not found or _same(found, node, known, graph):
            return
        told = f"{_listed(v.type for v in node.outputs)} where the op's rule says {_listed(found)}"
    if told:
        yield told


def _open(error: ProgramError, node: Node, known: Mapping[Symbol, int]) -> bool:
    """Whether a proof may need the sizes of one use of a module, where `known` joins those of several.

    Only division depends on more than that the sizes are equal.
    """
    divided = any("//" in str(v.type) or "%" in str(v.type) for v in (*node.values, *node.outputs))
    return len(known) > 1 and (error.diagnostic.code == "E208" or divided)


def _inferred(node: Node, known: Mapping[Symbol, int], graph: Graph) -> Types:
    with knowing(known, graph.assumed):
        return node.op.infer(Bound(node.op, node.inputs, node.attrs, node.span))


def _same(found: Types, node: Node, known: Mapping[Symbol, int], graph: Graph) -> bool:
    if len(found) != len(node.outputs):
        return False
    with knowing(known, graph.assumed):
        pairs = [(t, v.type) for t, v in zip(found, node.outputs, strict=True)]
        return all(t.dtype == u.dtype and same_shape(t.shape, u.shape) for t, u in pairs)


def _listed(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types)) or "nothing"


def _group(node: Node, graph: Graph) -> Iterator[str]:
    """A group's operands are the inputs and numbers of its body, its results the body's own."""
    if node.group is None:
        return
    if node.inputs != (*node.group.body.inputs, *node.group.scalars):
        yield "its operands are not the inputs and numbers of its group"
    if node.outputs != node.group.body.outputs:
        yield "its results are not those of its group"


def _regions(node: Node, graph: Graph) -> Iterator[str]:
    """The inputs and results of each region are of the types of the node's."""
    with knowing(graph.known, graph.assumed):
        for region in node.regions:
            pairs = [(region.inputs, node.inputs), (region.outputs, node.outputs)]
            for inner, outer in pairs:
                types = [v.type if isinstance(v, Value) else None for v in outer]
                if len(inner) != len(outer) or not all(t and _alike(v.type, t) for v, t in zip(inner, types)):
                    yield f"its region `{region.name}` has {_listed(v.type for v in inner)} there"


def _alike(a: TensorType, b: TensorType) -> bool:
    return a.dtype == b.dtype and same_shape(a.shape, b.shape)


RULES = (_operands, _attributes, _group, _regions, _types)
