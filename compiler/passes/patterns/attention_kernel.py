"""Attention that PyTorch's own has no kernel for, and linear biases that need not be stored, have kernels of ours.

Before: `%b = alibi(8, T, S); %y = attention(%q, %k, %v, %b, causal=true)`.
After:  `%y = group attention(%q, %k, %v, causal=true, alibi=8)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tdsl.compiler.emit.sizes import Sizes
from tdsl.compiler.ir import Attr, Graph, Node, Scalar, Structure, Value
from tdsl.compiler.ops.attention import is_own, never_drops
from tdsl.compiler.ops.infer import same
from tdsl.compiler.passes.structure import structured_node
from tdsl.compiler.passes.tidy import prune
from tdsl.compiler.size import Size, Symbol

# The dimensions of scores, of which a bias has the last ones.
SCORES = ("batch", "head", "queries", "keys")
# What the autograd function calls the sizes of its tensors.
SIZES = {"q": ("n_batch", "n_heads", "n_queries", "width"), "v": ("n_batch", "n_groups", "n_keys", "v_width")}


def attention_kernel(graph: Graph) -> Graph:
    """The graph with each attention that needs a kernel of ours as a group of it alone."""
    makers = graph.producers()
    nodes = tuple(_grouped(node, makers, graph) for node in graph.nodes)
    return graph if nodes == graph.nodes else prune(replace(graph, nodes=nodes))


def _grouped(node: Node, makers: Mapping[Value, Node], graph: Graph) -> Node:
    if node.op.name != "attention" or node.group is not None or any(v.type.dtype == "f64" for v in node.values):
        return node
    found = node.inputs[3]
    bias = found if isinstance(found, Value) else None
    heads = _linear(node, None if bias is None else makers.get(bias))
    if is_own(node.attrs, bias is not None) and heads is None:
        return node
    if heads is not None:
        bias = None
    detached = bias is not None and not carries(bias, makers, graph)
    return _group(node, bias, {"fused": True, "alibi": heads, "detached": detached}, graph) or node


def _linear(node: Node, maker: Node | None) -> Attr:
    """Of linear biases, of how many heads they are: a number, or `heads` for those of q. None for another bias."""
    if maker is None or maker.op.name != "alibi":
        return None
    heads, queries, keys = maker.output.type.shape
    q, k = (value.type.shape for value in node.values[:2])
    if not same(queries, q[2]) or not same(keys, k[2]):
        return None
    if heads.constant is not None:
        return heads.constant
    return "heads" if same(heads, q[1]) else None


def _group(node: Node, bias: Value | None, told: Mapping[str, Attr], graph: Graph) -> Node | None:
    """The call as a group; None where a number of it is one that only the caller knows."""
    q, k, v = node.values[:3]
    sizes = _named(q, v)
    numbers = {name: _settled(node.attrs[name], sizes) for name in ("window", "softcap", "scale")}
    if bias in (q, k, v) or any(isinstance(n, Size) and not n.symbols() <= set(sizes) for n in numbers.values()):
        return None
    rate = node.attrs["dropout_p"]
    attrs = {**node.attrs, **numbers, **told, "dropout_p": 0.0 if never_drops(rate) else rate}
    roles = {"q": q, "k": k, "v": v, **({} if bias is None else {"bias": bias})}
    options: dict[str, Attr] = {
        "scale": _written(numbers["scale"], sizes),
        "softcap": _written(numbers["softcap"], sizes),
        "window": None if _is_endless(numbers["window"]) else _written(numbers["window"], sizes),
        "causal": attrs["causal"],
        "grouped": attrs["grouped"],
        "dropout_p": None if never_drops(rate) else rate,
        "alibi": told["alibi"],
        "bias": () if bias is None else _dims(bias),
        "bias_grad": not told["detached"],
    }
    inputs = (q, k, v, Scalar(None) if bias is None else bias)
    body = replace(node, inputs=inputs, attrs=attrs)
    return structured_node("attention", [body], node.outputs, Structure("attention", roles, options), graph)


# Numbers -------------------------------------------------------------------------------------------------------------


def _named(q: Value, v: Value) -> dict[Symbol, Size]:
    """The symbols among the sizes of the tensors, by what the autograd function calls these."""
    found: dict[Symbol, Size] = {}
    for value, names in ((q, SIZES["q"]), (v, SIZES["v"])):
        for size, name in zip(value.type.shape, names):
            symbol = next(iter(size.symbols()), None)
            if symbol is not None and size == Size.of(symbol):
                found.setdefault(symbol, Size.of(Symbol(name)))
    return found


def _settled(value: Attr, sizes: Mapping[Symbol, Size]) -> Attr:
    """A number as a group may hold it: what the module alone knows is an argument."""
    size = value.value if isinstance(value, Scalar) and not value.text else value
    if not isinstance(size, Size):
        return size
    if size.constant is not None:
        return size.constant
    if size.symbols() <= set(sizes) or not all(symbol.param for symbol in size.symbols()):
        return size
    return Scalar(size, Sizes([(0, size)], {}, (), "self.").text(size))


def _is_endless(window: Attr) -> bool:
    """Whether a window is longer than any tensor, and than kernels can count."""
    return isinstance(window, int) and window >= 1 << 30


def _written(value: Attr, sizes: Mapping[Symbol, Size]) -> Attr:
    """A number as the template takes it: one that the sizes tell as their names tell it."""
    return str(value.substitute(sizes)) if isinstance(value, Size) else value


# Biases --------------------------------------------------------------------------------------------------------------


def _dims(bias: Value) -> tuple[str, ...]:
    """Which dimension of the scores each of a bias is; "" where it is broadcast along it."""
    shape = bias.type.shape
    return tuple("" if size.constant == 1 else dim for size, dim in zip(shape, SCORES[4 - len(shape) :]))


def carries(value: Value, makers: Mapping[Value, Node], graph: Graph) -> bool:
    """Whether a gradient may be asked of a value: whether inputs or parameters that are trained may reach it."""
    seen, left = set(), [value]
    trained = {*graph.inputs, *(p.value for p in graph.params if p.trainable)}
    while left:
        value = left.pop()
        if value in seen or not value.type.is_float:
            continue
        if value in trained or (value in makers and _holds(makers[value])):
            return True
        seen.add(value)
        if value in makers and makers[value].op.name != "detach":
            left += makers[value].values
    return False


def _holds(node: Node) -> bool:
    """Whether it may have parameters that are none of its inputs."""
    return bool(node.regions or node.layer) or node.op.name.startswith("call_")
