"""Attention and positions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tdsl.compiler.ir import Scalar, TensorType
from tdsl.compiler.ops.cost import Call, Keeps
from tdsl.compiler.ops.infer import broadcast, known, quotient, same, same_shape, stated
from tdsl.compiler.ops.op import Bound, Types, internal, library
from tdsl.compiler.ops.spatial import agreeing, below, floating
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _attention(b: Bound) -> Types:
    q, k, v = b.type(0), b.type(1), b.type(2)
    for name, t in (("q", q), ("k", k), ("v", v)):
        if len(t.shape) != 4 or not t.is_float:
            help = "add the heads: `q.unsqueeze(1)`" if t.is_float and len(t.shape) == 3 else None
            fail("E203", f"`{name}` of `attention` is float[B, heads, T, D]", b.span, f"this is {t}", help=help)
    _options(b, TensorType("float", (*q.shape[:3], k.shape[2])))
    agreeing(b, *range(3))
    given = f"q {q}, k {k}, v {v}"
    for what, left, right in (
        ("batch sizes", q.shape[0], k.shape[0]),
        ("batch sizes", k.shape[0], v.shape[0]),
        ("heads of k and v", k.shape[1], v.shape[1]),
        ("lengths of k and v", k.shape[2], v.shape[2]),
        ("widths of q and k", q.shape[3], k.shape[3]),
    ):
        if not same(left, right):
            fail("E203", f"the {what} do not match in `attention`: {left} and {right}", b.span, given)
    _heads(b, q.shape[1], k.shape[1])
    return (TensorType(q.dtype, (*q.shape[:3], v.shape[3])),)


def _heads(b: Bound, heads: Size, groups: Size) -> None:
    """As many heads of q as of k, or a multiple of them."""
    if same(heads, groups) or quotient(heads, groups) is not None:
        return
    if known(heads) is None or known(groups) is None:
        what = "can't prove that the heads of q are a multiple of those of k"
        fail("E208", what, b.span, f"{heads} and {groups}", help=stated(heads, groups))
    fail("E203", "the heads of q are no multiple of those of k", b.span, f"{heads} and {groups}")


def _options(b: Bound, scores: TensorType) -> None:
    window = b.attrs["window"]
    if window is not None and below(Size.of(window), 1):  # type: ignore[arg-type]
        fail("E202", "`window` of `attention` is at least 1: a query sees itself", b.span, f"this is {window}")
    if not b.given(3):
        return
    bias = b.type(3)
    if not bias.is_float:
        help = "make it of a mask: `where(mask, 0.0, -1e9)`" if bias.dtype == "bool" else None
        fail("E205", "`bias` of `attention` is added to the scores", b.span, f"this is {bias}", help=help)
    if not same_shape(broadcast([scores, bias], "bias of attention", b.span), scores.shape):
        fail("E203", "`bias` of `attention` has more than the scores", b.span, f"{bias} to {scores}")


def _attention_text(texts: list[str], attrs: dict[str, Any]) -> str:
    """PyTorch's own where it has what is asked for."""
    own = attrs["window"] is None and attrs["softcap"] is None and not (attrs["causal"] and texts[3] != "None")
    options = {
        "attn_mask" if own else "bias": None if texts[3] == "None" else texts[3],
        "is_causal" if own else "causal": True if attrs["causal"] else None,
        "window": attrs["window"],
        "softcap": attrs["softcap"],
        "scale": attrs["scale"],
        "dropout_p": None if _is_zero(attrs["dropout_p"]) else attrs["dropout_p"],
        "enable_gqa": True if own and attrs["grouped"] else None,
    }
    given = [f"{name}={_shown(value)}" for name, value in options.items() if value is not None]
    function = "F.scaled_dot_product_attention" if own else "nn_functions.attention"
    return f"{function}({', '.join([*texts[:3], *given])})"


def _is_zero(p: Any) -> bool:
    return p == 0 or (isinstance(p, Scalar) and p.text.partition(" if ")[0] in ("0", "0.0"))


def _shown(value: Any) -> str:
    return value.text or str(value.value) if isinstance(value, Scalar) else str(value)


def _flops(call: Call) -> int:
    """All scores, as PyTorch's counter has it, also where a causal mask lets half of them be skipped."""
    q, v = call.operand(0), call.operand(2)
    return 2 * _scores(call) * (q.shape[3] + v.shape[3])


def _scores(call: Call) -> int:
    return prod(call.operand(0).shape[:3]) * call.operand(1).shape[2]


def _is_own(call: Call) -> bool:
    """Whether PyTorch's attention does it, which never writes the scores down."""
    plain = call.attrs["window"] is None and call.attrs["softcap"] is None
    return plain and not (call.attrs["causal"] and call.operands[3] is not None)


def _keeps_more(call: Call) -> int:
    """The logarithms of the sums, a number a query; written out in PyTorch, the scores, and those before a cap."""
    if _is_own(call):
        return 4 * prod(call.operand(0).shape[:3])
    return _scores(call) * call.width * (1 + (call.attrs["softcap"] is not None))


library(
    "attention",
    "q: tensor, k: tensor, v: tensor, causal: bool = false, window: int? = none, softcap: float? = none, "
    "scale: float? = none, bias: tensor? = none, dropout_p: float = 0.0, *, grouped: built = false",
    _attention,
    _attention_text,
    effects=True,
    product=_flops,
    # Five products for two: the scores are computed again.
    product_backward=lambda needed: 2.5,
    keeps=lambda call: Keeps.ALL if _is_own(call) else Keeps.INPUTS,
    keeps_more=_keeps_more,
)


def _rope(b: Bound) -> Types:
    floating(b)
    x = b.type(0)
    if len(x.shape) < 2:
        fail("E203", "`rope` needs float[..., T, D]", b.span, f"this is {x}")
    width, two = x.shape[-1], Size.of(2)
    if quotient(width, two) is not None:
        return (x,)
    if known(width) is None:
        what = f"can't prove that {width} is even"
        fail("E208", "`rope` turns dimensions in pairs", b.span, what, help=stated(width, two))
    fail("E203", "`rope` turns dimensions in pairs", b.span, f"{x} has an odd last size")


def _angles(call: Call) -> int:
    """A cosine and a sine for each pair of each position."""
    *_, length, width = call.operand(0).shape
    return length * width * call.operand(0).width


library(
    "rope",
    "x: tensor, base: float = 10000.0, offset: int = 0",
    _rope,
    "nn_functions.rope",
    keeps=Keeps.NOTHING,
    keeps_more=_angles,
)


def _alibi(b: Bound) -> Types:
    sizes = [b.attrs["heads"], b.attrs["T"], b.attrs["T"] if b.attrs["S"] is None else b.attrs["S"]]
    if below(Size.of(sizes[0]), 1):  # type: ignore[arg-type]
        fail("E202", "`heads` of `alibi` is at least 1", b.span, f"this is {sizes[0]}")
    return (TensorType("float", tuple(Size.of(s) for s in sizes)),)  # type: ignore[arg-type]


library("alibi", "heads: size, T: size, S: size? = none, *, device: device = none", _alibi, "nn_functions.alibi")


# MultiheadAttention --------------------------------------------------------------------------------------------------


def _multihead(b: Bound) -> Types:
    query, key, value = b.type(0), b.type(1), b.type(2)
    agreeing_floats = all(t.is_float for t in (query, key, value))
    rank = len(query.shape)
    if not agreeing_floats or rank not in (2, 3) or not len(key.shape) == len(value.shape) == rank:
        given = f"query {query}, key {key}, value {value}"
        order = "[N, T, embed_dim]" if b.attrs["batch_first"] else "[T, N, embed_dim]"
        fail("E203", f"`MultiheadAttention` needs query, key and value of float{order}", b.span, given)
    at = 1 if rank == 3 and b.attrs["batch_first"] else 0
    batch = query.shape[1 - at : 2 - at] if rank == 3 else ()
    for name, t in (("key", key), ("value", value)):
        if rank == 3 and not same(t.shape[1 - at], batch[0]):
            fail("E203", f"the batch of `{name}` is not that of the query", b.span, f"{t} and {query}")
    agreeing(b, *range(3))
    if not same(key.shape[at], value.shape[at]):
        fail("E203", "key and value differ in length", b.span, f"{key} and {value}")
    _widths(b)
    _masks(b, batch, query.shape[at], key.shape[at])
    more = int(bool(b.attrs["add_bias_kv"])) + int(bool(b.attrs["add_zero_attn"]))
    heads = () if b.attrs["average_attn_weights"] else (Size.of(b.attrs["num_heads"]),)  # type: ignore[arg-type]
    weights = TensorType(query.dtype, (*batch, *heads, query.shape[at], key.shape[at] + more))
    return (query, weights)


def _widths(b: Bound) -> None:
    width = b.attrs["embed_dim"]
    for index, (name, given) in enumerate((("query", width), ("key", b.attrs["kdim"]), ("value", b.attrs["vdim"]))):
        want = Size.of(width if given is None else given)  # type: ignore[arg-type]
        if not same(b.type(index).shape[-1], want):
            fail("E203", f"`{name}` of `MultiheadAttention` has width {want}", b.span, f"this is {b.type(index)}")


def _masks(b: Bound, batch: tuple[Size, ...], length: Size, keys: Size) -> None:
    """A mask of keys is [N, S], one of scores [T, S] or [N * heads, T, S]; `true`, or -inf, hides."""
    if b.given(3):
        _mask(b, 3, "key_padding_mask", [(*batch, keys)])
    if b.given(4):
        heads = Size.of(b.attrs["num_heads"])  # type: ignore[arg-type]
        every = (batch[0] * heads if batch else heads, length, keys)
        _mask(b, 4, "attn_mask", [(length, keys), every])
    elif b.attrs["is_causal"]:
        help = "give `attn_mask` as well, or use `attention(q, k, v, causal=true)`"
        fail("E202", "`is_causal` only hints at what `attn_mask` holds", b.span, help=help)


def _mask(b: Bound, index: int, name: str, shapes: list[tuple[Size, ...]]) -> None:
    mask = b.type(index)
    if not mask.is_float and mask.dtype != "bool":
        fail("E205", f"`{name}` is of booleans, or of what is added to the scores", b.span, f"this is {mask}")
    if not any(same_shape(mask.shape, shape) for shape in shapes):
        wanted = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes)
        fail("E203", f"`{name}` is {wanted} here", b.span, f"this is {mask}")


def _multihead_arguments(texts: Any, attrs: Any) -> list[str]:
    """Those of `nn.MultiheadAttention`, in its order, without those at their defaults."""
    options = {
        "key_padding_mask": texts[3] if texts[3] != "None" else None,
        "need_weights": None if attrs["need_weights"] else False,
        "attn_mask": texts[4] if texts[4] != "None" else None,
        "average_attn_weights": None if attrs["average_attn_weights"] else False,
        "is_causal": attrs["is_causal"] or None,
    }
    return [*texts[:3], *(f"{name}={value}" for name, value in options.items() if value is not None)]


def _multihead_flops(call: Call) -> int:
    query, key = call.operand(0).shape, call.operand(1).shape
    tokens, keys = prod(query[:-1]), prod(key[:-1])
    at = 1 if len(query) == 3 and call.attrs["batch_first"] else 0
    projections = 4 * query[-1] * (tokens * query[-1] + keys * key[-1])
    return projections + 4 * tokens * key[at] * query[-1]


def _multihead_gradients(needed: Sequence[bool]) -> int:
    """Each token goes through every matrix: a gradient of all of these, and one of what comes in."""
    return 1 + needed[0]


def _projections(call: Call) -> int:
    """Its projections, what is attended to, and the weights where they are told."""
    weights = call.results[1].bytes if call.attrs["need_weights"] else 0
    return 2 * (call.operand(0).bytes + call.operand(1).bytes) + weights


library(
    "multihead_attention",
    "query: tensor, key: tensor, value: tensor, key_padding_mask: tensor? = none, attn_mask: tensor? = none, "
    "weights: tensors, need_weights: bool = true, average_attn_weights: bool = true, is_causal: bool = false, "
    "embed_dim: size = 0, num_heads: size = 1, kdim: size? = none, vdim: size? = none, batch_first: bool = false, "
    "add_bias_kv: bool = false, add_zero_attn: bool = false",
    _multihead,
    effects=True,
    arguments=_multihead_arguments,
    product=_multihead_flops,
    product_backward=_multihead_gradients,
    keeps_more=_projections,
    doc="Yields what it attends to, and the weights, which are none where `need_weights` is false.",
)

internal("multihead_attention")
