"""Operators as PyTorch has them on a GPU, for tensors on `meta` that stand for some there.

Dropout and softmax are one kernel, and so are norms and gradients that PyTorch would take apart; attention has the back
end that a GPU would choose, recurrent layers are cuDNN's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

META = torch.device("meta")
HALVES = (torch.float16, torch.bfloat16)
# cuDNN's numbers of the kinds of recurrent layers.
RNN_KINDS = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
# The widest head that flash attention takes, and the bytes that a row of memory-efficient attention is aligned to.
FLASH_HEAD, EFFICIENT_ALIGNMENT = 256, 16
aten: Any = torch.ops.aten
Kernel = Callable[..., Any]


# What PyTorch does on GPUs alone --------------------------------------------------------------------------------------


def _dropout(input: Tensor, p: float, train: bool) -> Tensor:
    if not train or p == 0 or not input.numel():
        return input
    found: Tensor = aten.native_dropout(input, p, True)[0] if p < 1 else input * input.new_zeros(())
    return found


def _to(
    input: Tensor,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """C++ would compare the GPU with `meta`, and copy what is there already."""
    there = device is None or device.type in ("cuda", "meta")
    laid_out = memory_format in (None, torch.preserve_format) or input.is_contiguous(memory_format=memory_format)
    if there and laid_out and not copy and dtype in (None, input.dtype):
        return input
    device = META if there else device
    found: Tensor = aten._to_copy(
        input, dtype=dtype, device=device, non_blocking=non_blocking, memory_format=memory_format
    )
    return found


def _softmax(op: Any) -> Callable[..., Tensor]:
    """float16 is widened within the kernel, other dtypes before it."""

    def kernel(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        within = input.dtype == torch.float16 and dtype == torch.float32
        given = input if within or dtype is None else input.to(dtype)
        found: Tensor = op(given, dim, within)
        return found

    return kernel


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Flash attention for halves without a mask, memory-efficient for what it takes, else products and a softmax."""
    shapes = [t.shape for t in (query, key, value)]
    widths, lengths = {shape[-1] for shape in shapes}, {shape[-2] for shape in shapes}
    four = all(len(shape) == 4 for shape in shapes)
    flash = four and query.dtype in HALVES and attn_mask is None and len(widths) == 1 and max(widths) <= FLASH_HEAD
    if flash and (not is_causal or len(lengths) == 1):
        return _flash(query, key, value, dropout_p, is_causal, scale)
    aligned = all(width * query.element_size() % EFFICIENT_ALIGNMENT == 0 for width in widths)
    if four and aligned and query.shape[1] == key.shape[1] and query.dtype != torch.float64:
        bias = None if attn_mask is None else _bias(attn_mask, query, key)
        keep = any(t.requires_grad for t in (query, key, value))
        found = aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, keep, dropout_p, is_causal, scale=scale
        )
    else:
        found = aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )
    result: Tensor = found[0]
    return result


def _bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A mask as what is added to scores [B, H, T, S]."""
    added = torch.where(mask, 0.0, -torch.inf).to(query.dtype) if mask.dtype == torch.bool else mask
    return added.expand(*query.shape[:-1], key.shape[-2])


def _flash(query: Tensor, key: Tensor, value: Tensor, dropout_p: float, is_causal: bool, scale: float | None) -> Tensor:
    """Heads are padded to a multiple of 8 columns."""
    width = query.shape[-1]
    padded = [nn.functional.pad(t, (0, -width % 8)) if width % 8 else t for t in (query, key, value)]
    scale = width**-0.5 if scale is None else scale
    found: Tensor = aten._scaled_dot_product_flash_attention(*padded, dropout_p, is_causal, False, scale=scale)[0]
    return found[..., :width] if width % 8 else found


def _recurrent(kind: str) -> Callable[..., tuple[Tensor, ...]]:
    def kernel(
        input: Tensor,
        hx: Any,
        params: list[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        h, c = hx if kind == "lstm" else (hx, None)
        stride = 4 if has_biases else 2
        buffer = input.new_empty(sum(p.numel() for p in params))
        more: tuple[Any, ...] = (
            RNN_KINDS[kind],
            h.shape[-1],
            0,
            num_layers,
            batch_first,
            dropout,
            train,
            bidirectional,
            [],
            None,
        )
        output, h, c, *_ = aten._cudnn_rnn(input, params, stride, buffer, h, c, *more)
        return (output, h, c) if kind == "lstm" else (output, h)

    return kernel


class _RmsNorm(torch.autograd.Function):
    """`rms_norm` and its gradients in one launch each; those that are differentiated themselves are written out."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, normalized_shape: list[int], weight: Tensor | None, eps: float | None) -> Any:
        y, rstd = _whole(aten._fused_rms_norm.default, input, normalized_shape, weight, eps)
        ctx.save_for_backward(input, weight, rstd)
        ctx.normalized_shape = normalized_shape
        ctx.mark_non_differentiable(rstd)
        ctx.set_materialize_grads(False)
        return y, rstd

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        input, weight, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_rms_gradients(grad, input, weight, rstd, len(ctx.normalized_shape)), None
        mask = [ctx.needs_input_grad[0], ctx.needs_input_grad[2]]
        op = aten._fused_rms_norm_backward.default
        d_input, d_weight = _whole(op, grad, input, ctx.normalized_shape, rstd, weight, mask)
        return d_input, None, d_weight, None


def _rms_gradients(grad: Tensor, input: Tensor, weight: Tensor | None, rstd: Tensor, dims: int) -> Any:
    trailing, leading = tuple(range(-dims, 0)), tuple(range(input.dim() - dims))
    normal, scaled = input * rstd, grad if weight is None else grad * weight
    d_input = (scaled - normal * (scaled * normal).mean(trailing, keepdim=True)) * rstd
    return d_input, None, None if weight is None else (grad * normal).sum(leading)


def _mish_backward(grad: Tensor, input: Tensor) -> Any:
    op = aten.mish_backward.default
    return op.decompose(grad, input) if torch.is_grad_enabled() else _whole(op, grad, input)


def _whole(op: Any, *args: Any) -> Any:
    """An operator that PyTorch would take apart for what has no kernel of its own."""
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradMeta)):
        return op(*args)


KERNELS: Mapping[str, Kernel] = {
    "to.dtype_layout": _to,
    "dropout": _dropout,
    "mish_backward": _mish_backward,
    "_fused_rms_norm": lambda *args: _RmsNorm.apply(*args),  # type: ignore[no-untyped-call]
    "softmax.int": _softmax(aten._softmax),
    "log_softmax.int": _softmax(aten._log_softmax),
    "scaled_dot_product_attention": _attention,
    **{f"{kind}.input": _recurrent(kind) for kind in RNN_KINDS},
}


# What PyTorch has no shapes of ----------------------------------------------------------------------------------------


def _rnn_backward(
    input: Tensor, weight: Sequence[Tensor], stride: int, buffer: Tensor, hx: Tensor, cx: Any, *_: Any
) -> Any:
    """The gradients of what goes in, of the states and of the weights."""
    states = torch.empty_like(hx), None if cx is None else torch.empty_like(cx)
    return torch.empty_like(input), *states, [torch.empty_like(w) for w in weight]


def _ctc_loss(log_probs: Tensor, targets: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """The loss of each sequence, and its paths: one before, between and after the labels."""
    length, rows = log_probs.shape[:2]
    labels = targets.shape[1] if targets.dim() == 2 else targets.numel() // max(rows, 1)
    return log_probs.new_empty(rows), log_probs.new_empty(rows, length, 2 * labels + 1)


def _fused_rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> tuple[Tensor, Tensor]:
    """And one over the root of the mean square of each row."""
    rows = input.shape[: input.dim() - len(normalized_shape)]
    return torch.empty_like(input), input.new_empty((*rows, *(1 for _ in normalized_shape)), dtype=torch.float32)


def _fused_rms_norm_backward(
    grad: Tensor, input: Tensor, normalized_shape: Any, rstd: Tensor, weight: Tensor | None, mask: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    wanted = zip((input, weight), mask, strict=True)
    first, second = (torch.empty_like(each) if each is not None and needed else None for each, needed in wanted)
    return first, second


FAKES: Mapping[Any, Kernel] = {
    aten.mish_backward.default: lambda grad, input: torch.empty_like(input),
    aten._fused_rms_norm.default: _fused_rms_norm,
    aten._fused_rms_norm_backward.default: _fused_rms_norm_backward,
    aten._cudnn_rnn_backward.default: _rnn_backward,
    aten._ctc_loss.default: _ctc_loss,
    aten._ctc_loss.Tensor: _ctc_loss,
    aten._ctc_loss_backward.default: lambda grad, log_probs, *_: torch.empty_like(log_probs),
    aten._ctc_loss_backward.Tensor: lambda grad, log_probs, *_: torch.empty_like(log_probs),
    aten.multi_margin_loss_backward.default: lambda grad, scores, *_: torch.empty_like(scores),
}
