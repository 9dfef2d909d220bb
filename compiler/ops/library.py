"""Ops left to PyTorch's libraries: products, convolutions, normalisation by batch, look-ups, calls of modules."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import Shape, TensorType
from tdsl.compiler.ops.infer import broadcast, known, promote, reduced, same, same_shape, tensors
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, register, signature
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _library(name: str, arguments: str, infer: Any, torch: Any = None, **more: Any) -> None:
    register(Op(name, Kind.LIBRARY, signature(arguments), infer, torch or f"F.{name}", **more))


# Calls of modules and of lists of them: their results are typed by whoever records them.
_library("call_module", "", lambda b: (), "module")
_library("call_list", "", lambda b: (), "module")

# Products ------------------------------------------------------------------------------------------------------------


def _agree(b: Bound) -> None:
    """A product's operands have one dtype: PyTorch promotes nothing there."""
    dtypes = {t.dtype for t in tensors(b)}
    if len(dtypes) > 1 and not dtypes <= {"float", "f32"}:
        given = " and ".join(map(str, tensors(b)))
        fail("E205", f"dtypes do not match in `{b.op.name}`", b.span, given, help="convert one with `cast(x, dtype)`")


def _linear(b: Bound) -> Types:
    x, weight = b.type(0), b.type(1)
    if not x.shape:
        fail("E203", "`linear` of a tensor without dimensions", b.span, str(x))
    if len(weight.shape) != 2:
        fail("E203", "the weight of `linear` is a matrix [out, in]", b.span, str(weight))
    if not x.is_float:
        fail("E205", "`linear` needs floating-point values", b.span, str(x), help="convert with `.float()`")
    if not same(x.shape[-1], weight.shape[-1]):
        fail(
            "E203",
            "shapes do not match in `linear`",
            b.span,
            f"{x}, whose last size is {x.shape[-1]}, where {weight.shape[-1]} is expected",
        )
    if b.given(2) and not same_shape(b.type(2).shape, weight.shape[:1]):
        fail("E203", f"the bias of `linear` has {weight.shape[0]} numbers here", b.span, str(b.type(2)))
    _agree(b)
    return (TensorType(promote(b.inputs[:1]), (*x.shape[:-1], *weight.shape[:-1])),)


def _matmul(b: Bound) -> Types:
    left, right = b.type(0), b.type(1)
    if not left.shape or not right.shape:
        fail("E203", "`@` of a tensor without dimensions", b.span, f"{left} @ {right}")
    inner = right.shape[-2] if len(right.shape) > 1 else right.shape[0]
    if not same(left.shape[-1], inner):
        fail("E203", "shapes do not match in `@`", b.span, f"{left} @ {right}: {left.shape[-1]} is not {inner}")
    _agree(b)
    if left.dtype == "bool":
        fail("E205", "`@` does not multiply booleans", b.span, f"{left} @ {right}", help="convert with `.float()`")
    batch = broadcast([TensorType("float", t.shape[:-2]) for t in (left, right)], "@", b.span)
    rows = left.shape[-2:-1] if len(left.shape) > 1 else ()
    cols = right.shape[-1:] if len(right.shape) > 1 else ()
    return (TensorType(promote(b.inputs), (*batch, *rows, *cols)),)


_library("linear", "input: tensor, weight: tensor, bias: tensor? = none", _linear)
_library("matmul", "input: tensor, other: tensor", _matmul, "@", aliases=("mm", "bmm"))


def _embedding(b: Bound) -> Types:
    tokens, weight = b.type(0), b.type(1)
    if tokens.is_float:
        fail("E205", "`embedding` looks up integers", b.span, str(tokens))
    if len(weight.shape) != 2:
        fail("E203", "the weight of `embedding` is a matrix [entries, width]", b.span, str(weight))
    return (TensorType(weight.dtype, (*tokens.shape, weight.shape[1])),)


_library("embedding", "input: tensor, weight: tensor, padding_idx: int? = none", _embedding)

# Images --------------------------------------------------------------------------------------------------------------


def _pair(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)


def _window(size: Size, kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> Size:
    return (size + Size.of(padding) * 2 - Size.of(dilation) * (Size.of(kernel) - 1) - 1) // Size.of(stride) + 1


def _image(b: Bound) -> TensorType:
    x = b.type(0)
    if len(x.shape) != 4 or not x.is_float:
        fail("E203", f"`{b.op.name}` needs images float[B, channels, height, width]", b.span, str(x))
    return x


def _conv2d(b: Bound) -> Types:
    x, weight = _image(b), b.type(1)
    a = b.attrs
    groups = a["groups"]
    if not same(x.shape[1], weight.shape[1] * Size.of(groups)):  # type: ignore[arg-type]
        wanted = weight.shape[1] * Size.of(groups)  # type: ignore[arg-type]
        fail("E203", "channels do not match in `conv2d`", b.span, f"{x} has {x.shape[1]} channels, not {wanted}")
    kernel = weight.shape[2:]
    if a["padding"] == "same":
        return (TensorType(x.dtype, (x.shape[0], weight.shape[0], *x.shape[2:])),)
    padding = _pair(0 if a["padding"] == "valid" else a["padding"])
    sizes = zip(x.shape[2:], kernel, _pair(a["stride"]), padding, _pair(a["dilation"]))
    return (TensorType(x.dtype, (x.shape[0], weight.shape[0], *(_window(*s) for s in sizes))),)


def _pool(b: Bound) -> Types:
    x, a = _image(b), b.attrs
    kernel = _pair(a["kernel_size"])
    stride = kernel if a["stride"] is None else _pair(a["stride"])
    sizes = zip(x.shape[2:], kernel, stride, _pair(a["padding"]), _pair(a.get("dilation", 1)))
    return (TensorType(x.dtype, (*x.shape[:2], *(_window(*s) for s in sizes))),)


def _adaptive(b: Bound) -> Types:
    x = _image(b)
    sizes = tuple(s if w is None else Size.of(w) for s, w in zip(x.shape[2:], _pair(b.attrs["output_size"])))
    return (TensorType(x.dtype, (*x.shape[:2], *sizes)),)


_library(
    "conv2d",
    "input: tensor, weight: tensor, bias: tensor? = none, stride: sizes = 1, padding: any = 0, dilation: sizes = 1, "
    "groups: int = 1",
    _conv2d,
)
_library(
    "max_pool2d",
    "input: tensor, kernel_size: sizes, stride: sizes? = none, padding: sizes = 0, dilation: sizes = 1",
    _pool,
)
_library("avg_pool2d", "input: tensor, kernel_size: sizes, stride: sizes? = none, padding: sizes = 0", _pool)
_library("adaptive_avg_pool2d", "input: tensor, output_size: sizes", _adaptive)


def _batch_norm(b: Bound) -> Types:
    x = b.type(0)
    ranks, features = b.attrs["ranks"], b.attrs["features"]
    if len(x.shape) not in ranks or not same(x.shape[1], Size.of(features)):  # type: ignore[operator,arg-type]
        fail("E203", f"batch norm over {features} features of another shape", b.span, str(x))
    return (x,)


_library(
    "batch_norm",
    "input: tensor, weight: tensor? = none, bias: tensor? = none, features: any = none, ranks: any = none",
    _batch_norm,
)
_library("identity", "input: tensor", lambda b: (b.type(0),), lambda texts, attrs: texts[0])

# Attention and position ----------------------------------------------------------------------------------------------


def _attention(b: Bound) -> Types:
    q, k, v = b.type(0), b.type(1), b.type(2)
    for t in (q, k, v):
        if len(t.shape) != 4:
            fail("E203", "`attention` needs [B, heads, T, D]", b.span, str(t))
    if not (same(q.shape[3], k.shape[3]) and same(k.shape[2], v.shape[2]) and same(k.shape[1], v.shape[1])):
        fail("E203", "shapes do not match in `attention`", b.span, f"q {q}, k {k}, v {v}")
    heads, groups = known(q.shape[1]), known(k.shape[1])
    if not same(q.shape[1], k.shape[1]) and (heads is None or groups is None or heads % groups):
        fail("E203", "the heads of q are no multiple of those of k", b.span, f"{q.shape[1]} and {k.shape[1]}")
    return (TensorType(q.dtype, (*q.shape[:3], v.shape[3])),)


def _attention_text(texts: list[str], attrs: dict[str, Any]) -> str:
    q, k, v = texts[:3]
    causal = ", is_causal=True" if attrs["causal"] else ""
    scale = "" if attrs["scale"] is None else f", scale={attrs['scale']}"
    grouped = ", enable_gqa=True" if attrs["grouped"] else ""
    return f"F.scaled_dot_product_attention({q}, {k}, {v}{causal}{scale}{grouped})"


_library(
    "attention",
    "q: tensor, k: tensor, v: tensor, causal: bool = false, scale: float? = none, grouped: bool = false",
    _attention,
    _attention_text,
)


def _rope(b: Bound) -> Types:
    x = b.type(0)
    if len(x.shape) < 2 or not x.is_float:
        fail("E203", "`rope` needs float[..., T, D]", b.span, str(x))
    if (known(x.shape[-1]) or 0) % 2:
        fail("E203", "`rope` turns dimensions in pairs", b.span, f"{x} has an odd last size")
    return (x,)


_library("rope", "input: tensor, base: float = 10000.0, offset: int = 0", _rope, "nn_functions.rope")


def _detach(b: Bound) -> Types:
    return (b.type(0),)


_library("detach", "input: tensor", _detach, ".detach")


def _argmax(b: Bound) -> Types:
    if b.type(0).dtype == "bool":
        fail("E205", f"`{b.op.name}` compares numbers", b.span, str(b.type(0)), help="convert with `.int()`")
    return reduced(b, "i64")


for _name in ("argmax", "argmin"):
    _library(_name, "input: tensor, dim: int? = none, keepdim: bool = false", _argmax, f".{_name}")


def _tensor(b: Bound) -> Types:
    values = b.attrs["data"]
    shape: Shape = ()
    while isinstance(values, tuple):
        shape, values = (*shape, Size.of(len(values))), values[0] if values else 0.0
    dtype = "bool" if isinstance(values, bool) else "i64" if isinstance(values, int) else "float"
    return (TensorType(dtype, shape),)


def _tensor_text(texts: list[str], attrs: dict[str, Any]) -> str:
    where = f", device={attrs['device'].text}" if attrs["device"] is not None else ""
    return f"torch.tensor({_listed(attrs['data'])}{where})"


def _listed(value: Any) -> str:
    return f"[{', '.join(map(_listed, value))}]" if isinstance(value, tuple) else repr(value)


_library("tensor", "data: any, *, device: any = none", _tensor, _tensor_text)
