"""A GPU that need not be there: tensors without contents that code takes for some on `cuda:0`, in any build.

They are plain tensors on `meta`, with shapes, dtypes and strides. Python is told that they are on the GPU, so that code
takes the ways that it takes there; PyTorch's C++, which would ask a GPU for streams and guards, sees `meta`. What is
made on the GPU, or copied there, comes to `meta`. Where PyTorch does something else on a GPU than on `meta`, it is done
here as on a GPU: dropout and softmax in one kernel, attention by the back end that a GPU would choose, recurrent layers
by cuDNN, lists of tensors (`foreach`) in optimizers. So what is counted does not depend on the machine. Tensors on the
CPU are as they always are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

GPU, META = torch.device("cuda", 0), torch.device("meta")
HALVES = (torch.float16, torch.bfloat16)
# cuDNN's numbers of the kinds of recurrent layers.
RNN_KINDS = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
# The widest head that flash attention takes, and the bytes that a row of memory-efficient attention is aligned to.
FLASH_HEAD, EFFICIENT_ALIGNMENT = 256, 16
# What it is asked for where code asks a GPU what it can do: an H100's.
CAPABILITY = (9, 0)
# Addresses have room for a tensor of so many bytes.
LARGEST = 1 << 40
aten: Any = torch.ops.aten
Kernel = Callable[..., Any]
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)

_device_of: Callable[[Tensor], torch.device] = torch._C.TensorBase.device.__get__
_address_of: Callable[[Tensor], int] = torch._C.TensorBase.data_ptr


def on_gpu(value: object) -> bool:
    """Whether it is a tensor on a GPU, there or not."""
    return isinstance(value, Tensor) and value.device.type == "cuda"


class Gpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, `GPU` is a device. A number that is read from it is 1, and a truth value false.

    `inside` while PyTorch computes shapes, which is to see the tensors' own device.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # In this place of its modes PyTorch takes a device without looking for it.
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        self.inside = False
        self.storages: dict[int, int] = {}

    def __enter__(self) -> Gpu:
        # `torch.tensor(..., device=GPU)` is to bring its tensor there by an operator.
        self.lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self.lifts)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def device(self, tensor: Tensor) -> torch.device:
        """Where Python is told that a tensor is."""
        device = _device_of(tensor)
        return GPU if device.type == "meta" and not self.inside else device

    def address(self, tensor: Tensor) -> int:
        """A number that two tensors on the GPU share where they share memory and begin at the same place."""
        if not on_gpu(tensor):
            return _address_of(tensor)
        storage = tensor.untyped_storage()._cdata
        number = self.storages.setdefault(storage, len(self.storages) + 1)
        return number * LARGEST + int(tensor.storage_offset()) * tensor.element_size()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in FROM_GPU and FROM_GPU[func](args, given):
            return READ[func](args, given)
        if given.get("device") is not None and given["device"].type == "cuda":
            given["device"] = META
        if "pin_memory" in given:
            given["pin_memory"] = False
        self.inside = True
        try:
            with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
                return FAKES.get(func, func)(*args, **given)
        finally:
            self.inside = False


@contextmanager
def fake_gpu() -> Iterator[Gpu]:
    """Within, `GPU` is a device that tensors can be on; models move there with `.to(GPU)`."""
    gpu = Gpu()
    with ExitStack() as stack:
        stack.enter_context(registered(KERNELS, "AutogradMeta"))
        for owner, name, value in _replacements(gpu):
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        yield stack.enter_context(gpu)


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


def _replacements(gpu: Gpu) -> Iterator[tuple[Any, str, Any]]:
    """What PyTorch's Python asks of tensors and devices, as it is on a GPU."""
    grouped = torch._C._group_tensors_by_device_and_dtype

    def group(tensors: Any, with_indices: bool = False) -> Any:
        found = grouped(tensors, with_indices)
        return {(GPU if device == META else device, dtype): members for (device, dtype), members in found.items()}

    yield Tensor, "device", property(gpu.device)
    yield Tensor, "is_cuda", property(on_gpu)
    yield Tensor, "is_meta", property(lambda tensor: tensor.device.type == "meta")
    yield Tensor, "get_device", lambda tensor: -1 if tensor.device.index is None else tensor.device.index
    yield Tensor, "data_ptr", lambda tensor: gpu.address(tensor)
    yield Tensor, "pin_memory", lambda tensor, *_: tensor
    yield torch._C, "_group_tensors_by_device_and_dtype", group
    yield torch.cuda.amp.common, "amp_definitely_not_available", lambda: False
    yield torch.amp.GradScaler, "_maybe_opt_step", _step
    yield nn.Module, "to", _moved
    yield nn.RNNBase, "flatten_parameters", lambda module: None
    yield torch.cuda, "synchronize", lambda *_: None
    yield torch.cuda, "is_current_stream_capturing", lambda: False
    yield torch.cuda, "get_device_capability", lambda *_: CAPABILITY
    yield torch.cuda, "device", nullcontext
    yield torch.cuda, "device_of", nullcontext


def _step(scaler: Any, optimizer: Any, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """A step is taken where no gradient is found to overflow, which is read from the GPU."""
    for overflows in state["found_inf_per_device"].values():
        overflows.item()
    return optimizer.step(*args, **kwargs)


def _moved(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on another device, what it shares still shared, as PyTorch has it between CPUs and GPUs alone."""
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


# What comes from the GPU: ones ----------------------------------------------------------------------------------------


def _number(args: Sequence[Any], given: Mapping[str, Any]) -> float:
    return args[0].dtype != torch.bool and 1


def _ones(args: Sequence[Any], given: Mapping[str, Any]) -> Tensor:
    return torch.ones(args[0].shape, dtype=given.get("dtype") or args[0].dtype)


FROM_GPU: Mapping[Any, Callable[[Sequence[Any], Mapping[str, Any]], bool]] = {
    aten._local_scalar_dense.default: lambda args, given: on_gpu(args[0]),
    aten._to_copy.default: lambda args, given: on_gpu(args[0]) and given.get("device") == torch.device("cpu"),
    aten.copy_.default: lambda args, given: on_gpu(args[1]) and not on_gpu(args[0]),
}
READ: Mapping[Any, Callable[[Sequence[Any], Mapping[str, Any]], Any]] = {
    aten._local_scalar_dense.default: _number,
    aten._to_copy.default: _ones,
    aten.copy_.default: lambda args, given: args[0].fill_(1),
}


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
