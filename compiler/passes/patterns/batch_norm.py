"""A batch norm, a layer or a call, with the residual that is added to it, and the activation after that, in one.

Before: `%n = batch_norm_layer(%c) layer=norm; %s = add(%x, %n); %y = relu(%s)`.
After:  `%y = group batch_norm_add_relu(%c, %x)`, which is given the layer `norm`.

A norm that neither follows is left to PyTorch: alone, it computes it as well.
"""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.ir import Graph, Node, Scalar, Structure, Value
from tdsl.compiler.ops.infer import same_shape
from tdsl.compiler.passes.structure import structured_node
from tdsl.compiler.structured.activation import is_activation

# Of every batch norm: the body tells one of matrices from one of images no more than the kernels do.
RANKS = (2, 3, 4, 5)


def batch_norm(graph: Graph) -> Graph:
    """The graph with each such chain replaced."""
    users = graph.users()
    kept = set(graph.results)
    replaced: dict[Node, Node | None] = {}
    for node in graph.nodes:
        if not _is_norm(node) or node in replaced:
            continue
        chain = _chain(node, users, kept)
        if len(chain) > 1 and not any(each in replaced for each in chain) and _may_wait(chain, graph):
            replaced |= dict.fromkeys(chain[:-1])
            replaced[chain[-1]] = _group(chain, graph)
    nodes = (replaced.get(node, node) for node in graph.nodes)
    return replace(graph, nodes=tuple(node for node in nodes if node is not None)) if replaced else graph


def _is_norm(node: Node) -> bool:
    """Whether it is a layer's call; or `batch_norm`, with distinct tensors and what else it has told here."""
    if node.op.name == "batch_norm_layer":
        return bool(node.layer)
    if node.op.name != "batch_norm" or len(set(node.values)) < len(node.values):
        return False
    mean, variance, weight, bias = (isinstance(operand, Value) for operand in node.inputs[1:])
    told = all(isinstance(node.attrs[name], (int, float)) for name in ("momentum", "eps"))
    return mean == variance and weight == bias and told


def _chain(norm: Node, users: dict[Value, list[Node]], kept: set[Value]) -> list[Node]:
    """The norm and what follows it, each the only reader of the one before."""
    chain = [norm]
    if norm.output.type.dtype not in ("float", "f32"):
        return chain
    follower = _only_reader(norm.output, users, kept)
    if follower is not None and _adds_residual(follower, norm):
        chain.append(follower)
        follower = _only_reader(follower.output, users, kept)
    if follower is not None and is_activation(follower, chain[-1].output):
        chain.append(follower)
    return chain


def _may_wait(chain: list[Node], graph: Graph) -> bool:
    """Whether nothing has to do with what the norm keeps before the end of the chain, where it is computed then."""
    norm = chain[0]
    kept = {p.value for p in graph.params if norm.layer and p.path.startswith(f"{norm.layer}.running_")}
    kept |= set(norm.values[1:]) if not norm.layer else set()
    between = graph.nodes[graph.nodes.index(norm) + 1 : graph.nodes.index(chain[-1])]
    inside = [n for node in between for n in (node, *(n for region in node.regions for n in region.walk()))]
    return not any((norm.layer and n.layer == norm.layer) or kept.intersection(n.values) for n in inside)


def _only_reader(value: Value, users: dict[Value, list[Node]], kept: set[Value]) -> Node | None:
    found = users.get(value, [])
    return found[0] if len(found) == 1 and value not in kept and not found[0].regions else None


def _adds_residual(node: Node, norm: Node) -> bool:
    """Whether it is the sum with another tensor of the same type, and not the one that is normalised."""
    others = [v for v in node.values if v is not norm.output]
    if node.op.name != "add" or node.attrs or len(node.values) != 2 or len(others) != 1 or others[0] is norm.inputs[0]:
        return False
    first, second = (v.type for v in node.values)
    return first.dtype == second.dtype and same_shape(first.shape, second.shape)


def _group(chain: list[Node], graph: Graph) -> Node:
    norm, *rest = chain
    names = [arg.name for arg in norm.op.signature if arg.is_operand]
    roles = {name: v for name, v in zip(names, norm.inputs, strict=True) if isinstance(v, Value)}
    affine = "weight" in roles
    if norm.layer:  # which has its parameters itself
        norm = replace(norm, inputs=(norm.inputs[0], Scalar(None), Scalar(None)), attrs={"ranks": RANKS})
        roles = {"input": roles["input"]}
    made = {node.output for node in chain}
    added = [v for node in rest for v in node.values if v not in made]
    roles = {"x": roles.pop("input"), **roles, **dict(zip(["residual"], added))}
    found = Structure("batch_norm", roles, {"affine": affine}, norm.layer)
    name = "_".join(["batch_norm", *(node.op.name for node in rest)])
    return structured_node(name, [norm, *rest], chain[-1].outputs, found, graph)
