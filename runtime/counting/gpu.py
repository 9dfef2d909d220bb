"""A GPU that need not be there: fake CUDA tensors, with shapes, dtypes and strides, for any build of PyTorch.

Python sees tensors on `cuda:0`, so code takes the ways that it takes on a GPU. PyTorch's C++ would ask that device for
streams and guards, which a build without CUDA lacks: it is told that tensors are on `meta`, and what it makes there
comes back on the GPU. Where PyTorch does something else on a GPU than on `meta`, it is done here as on a GPU: dropout
and softmax in one kernel, attention by the back end that a GPU would choose, recurrent layers by cuDNN, lists of
tensors (`foreach`) in optimizers. So what is counted does not depend on the machine.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import optimizer
from torch.utils import _foreach_utils

GPU, META = torch.device("cuda", 0), torch.device("meta")
HALVES = (torch.float16, torch.bfloat16)
# cuDNN's numbers of the kinds of recurrent layers.
RNN_KINDS = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
# The widest head that flash attention takes, and the bytes that a row of memory-efficient attention is aligned to.
FLASH_HEAD, EFFICIENT_ALIGNMENT = 256, 16
# Fake tensors' addresses have room for one of so many bytes.
LARGEST = 1 << 44
aten: Any = torch.ops.aten
Kernel = Callable[..., Any]


def on_gpu(value: object) -> bool:
    """Whether it is a tensor on a GPU, fake or not."""
    return isinstance(value, Tensor) and value.device.type == "cuda"


# Comparisons of a number with a constant, and what they come to if the number is 1.
COMPARISONS = {getattr(aten, name).Scalar: getattr(operator, name) for name in ("eq", "ne", "gt", "ge", "lt", "le")}


class FakeGpu(FakeTensorMode):
    """Within, tensors are fake. A number that is read from one is 1, or a half; a truth value that of 1, or false."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.ops.prim.device.default and on_gpu(args[0]):
            return META
        if func is aten._local_scalar_dense.default:
            return _number(args[0])
        if func in FAKES:
            return FAKES[func](*args)
        if given.get("device") == META:
            given["device"] = GPU
        found: Any = super().__torch_dispatch__(func, types, args, given)  # type: ignore[no-untyped-call]
        if func in COMPARISONS:
            found.truth = COMPARISONS[func](1, args[1])
        return found


def _number(tensor: Tensor) -> float:
    if tensor.dtype == torch.bool:
        return bool(getattr(tensor, "truth", False))
    return 0.5 if tensor.is_floating_point() else 1


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Within, tensors are fake, and `GPU` is a device that they can be on; models move there with `.to(GPU)`."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    with ExitStack() as stack:
        stack.enter_context(registered(KERNELS, "AutogradCUDA"))
        stack.enter_context(registered({n: _never for n in WHOLE if not has(f"aten::{n}", "CUDA")}, "CUDA"))
        for owner, name, value in _replacements():
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        yield stack.enter_context(FakeGpu())


@contextmanager
def registered(kernels: Mapping[str, Kernel], key: str) -> Iterator[None]:
    """Within, operators of `aten` run these kernels at a dispatch key."""
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are other kernels in their places
        for name, kernel in kernels.items():
            library.impl(name, kernel, key)
    try:
        yield
    finally:
        library._destroy()


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    """What PyTorch's Python asks of devices, and of types of tensors, as it is on a GPU."""
    grouped = torch._C._group_tensors_by_device_and_dtype

    def group(tensors: Any, with_indices: bool = False) -> Any:
        found = grouped(tensors, with_indices)
        return {(GPU if device == META else device, dtype): members for (device, dtype), members in found.items()}

    yield torch._C, "_group_tensors_by_device_and_dtype", group
    for module in (optimizer, _foreach_utils):
        yield module, "_foreach_supported_types", [*module._foreach_supported_types, FakeTensor]
    yield torch.cuda.amp.common, "amp_definitely_not_available", lambda: False
    yield torch.amp.GradScaler, "_maybe_opt_step", lambda self, optimizer, *_, **more: optimizer.step(**more)
    yield FakeTensor, "is_cuda", property(lambda tensor: tensor.fake_device.type == "cuda")
    yield FakeTensor, "data_ptr", _address
    yield FakeTensor, "__deepcopy__", _deep_copy
    yield nn.Module, "to", _moved
    yield nn.RNNBase, "flatten_parameters", lambda module: None


def _address(tensor: FakeTensor) -> int:
    """A number that two tensors share where they share memory and begin at the same place."""
    storage: int = tensor.untyped_storage()._cdata
    return storage * LARGEST + int(tensor.storage_offset()) * tensor.element_size()


def _deep_copy(tensor: FakeTensor, memo: dict[int, Any]) -> Any:
    if id(tensor) not in memo:
        memo[id(tensor)] = _held_as(tensor, tensor.detach().clone())
    return memo[id(tensor)]


def _moved(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on another device, what it shares still shared: PyTorch's own way swaps what fake tensors can't."""
    moved: dict[int, Tensor] = {}
    for each in module.modules():
        parameters: dict[str, Any] = each._parameters
        for held in (parameters, each._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = moved.setdefault(id(tensor), _held_as(tensor, tensor.detach().to(device)))
    return module


def _held_as(tensor: Tensor, value: Tensor) -> Tensor:
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


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
    device = GPU if there else device
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


def _never(*args: Any) -> Any:
    raise AssertionError("fake tensors are on no GPU")


# Without a kernel for GPUs these would fall into several operators.
WHOLE = ("silu_backward", "mish_backward", "native_channel_shuffle", "_fused_rms_norm")
KERNELS: Mapping[str, Kernel] = {
    "to.dtype_layout": _to,
    "dropout": _dropout,
    "softmax.int": _softmax(aten._softmax),
    "log_softmax.int": _softmax(aten._log_softmax),
    "scaled_dot_product_attention": _attention,
    **{f"{kind}.input": _recurrent(kind) for kind in RNN_KINDS},
}


# What PyTorch knows no fake of ----------------------------------------------------------------------------------------


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


FAKES: Mapping[Any, Kernel] = {
    aten._cudnn_rnn_backward.default: _rnn_backward,
    aten._ctc_loss.default: _ctc_loss,
    aten._ctc_loss.Tensor: _ctc_loss,
    aten._ctc_loss_backward.default: lambda grad, log_probs, *_: torch.empty_like(log_probs),
    aten._ctc_loss_backward.Tensor: lambda grad, log_probs, *_: torch.empty_like(log_probs),
    aten.multi_margin_loss_backward.default: lambda grad, scores, *_: torch.empty_like(scores),
}
