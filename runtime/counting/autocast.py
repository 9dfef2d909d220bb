"""`torch.autocast("cuda")` for fake tensors: which operations it runs in low precision, which in float32.

The lists are those of `ATen/autocast_mode.h`. PyTorch's own wrappers ask the tensors' device in C++, to which fake
tensors are not on a GPU (`tdsl.runtime.counting.gpu`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from tdsl.runtime.counting.gpu import AUTOCAST, on_gpu, registered
from tdsl.runtime.counting.operators import Kernel


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LOW = _names("""
    _convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d.input
    conv_transpose3d.input convolution prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear addbmm baddbmm
    bmm chain_matmul linalg_multi_dot _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell
    rnn_relu_cell _scaled_dot_product_flash_attention scaled_dot_product_attention
""")
# Recurrent layers: PyTorch casts within its wrapper of cuDNN.
LOW_RECURRENT = ("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")
FLOAT32 = _names("""
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor
    pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim nuclear_norm
    nuclear_norm.dim cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss
    kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
    triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp
    upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d upsample_nearest3d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d
    upsample_bicubic2d _upsample_bicubic2d_aa
""")
# Refused by PyTorch: whoever needs it casts by hand.
FLOAT32_BY_HAND = ("binary_cross_entropy",)
# Told by an argument to yield float32.
FLOAT32_RESULT = _names("""
    prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm
    linalg_matrix_norm.str_ord sum sum.dim_IntList
""")
# The overloads that take a dtype after the arguments.
FLOAT32_APPENDED = {"norm.Scalar": "norm.ScalarOpt_dtype", "norm.ScalarOpt_dim": "norm.ScalarOpt_dim_dtype"}
WIDEST = _names("addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add")


@contextmanager
def autocast(low: torch.dtype) -> Iterator[None]:
    """Within, what `torch.autocast("cuda", low)` does happens to fake tensors; a weight is cast once."""
    with registered(dict(_Casts(low).kernels()), "AutocastCUDA"):
        torch.set_autocast_dtype("cuda", low)
        torch.set_autocast_enabled("cuda", True)
        try:
            # No tensor on `meta` asks for it.
            with torch._C._IncludeDispatchKeyGuard(torch._C.DispatchKey.AutocastCUDA):
                yield
        finally:
            torch.set_autocast_enabled("cuda", False)


class _Casts:
    """The kernels of one pass, and the low-precision copies of weights that it has made."""

    def __init__(self, low: torch.dtype) -> None:
        self.low = low
        self.copies: dict[int, tuple[Tensor, Tensor]] = {}

    def kernels(self) -> Iterator[tuple[str, Kernel]]:
        """Each operator that this version of PyTorch casts for, and what runs in its place."""
        yield from ((name, self._low(name)) for name in LOW_RECURRENT)
        for names, make in (
            (LOW, self._low),
            ((*FLOAT32, *FLOAT32_BY_HAND), self._float32),
            (FLOAT32_RESULT, self._float32_result),
            (FLOAT32_APPENDED, self._float32_appended),
            (WIDEST, self._widest),
        ):
            yield from ((name, make(name)) for name in names if has_wrapper(name))

    def _low(self, name: str) -> Kernel:
        return self._casting(name, lambda args: self.low)

    def _float32(self, name: str) -> Kernel:
        return self._casting(name, lambda args: torch.float32)

    def _widest(self, name: str) -> Kernel:
        def widest(args: Any) -> torch.dtype:
            found = {t.dtype for t in args if _is_cast(t)}
            return torch.float32 if torch.float32 in found else self.low

        return self._casting(name, widest)

    def _casting(self, name: str, wanted: Callable[[Any], torch.dtype]) -> Kernel:
        op = operator(name)

        def kernel(*args: Any, **kwargs: Any) -> Any:
            dtype = wanted(args)
            with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
                return op(*tree_map(lambda each: self.cast(each, dtype), args), **kwargs)

        return kernel

    def _float32_result(self, name: str) -> Kernel:
        op = operator(name)
        position = [arg.name for arg in op._schema.arguments].index("dtype")
        positional = not op._schema.arguments[position].kwarg_only

        def kernel(*args: Any, **kwargs: Any) -> Any:
            given = args[position] if positional and len(args) > position else kwargs.get("dtype")
            if given is None and _is_cast(args[0]):
                args = args[:position]
                kwargs = {**kwargs, "dtype": torch.float32}
            with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
                return op(*args, **kwargs)

        return kernel

    def _float32_appended(self, name: str) -> Kernel:
        op = operator(FLOAT32_APPENDED[name])
        default = tuple(arg.default_value for arg in operator(name)._schema.arguments)

        def kernel(*args: Any) -> Any:
            given = (*args, *default[len(args) :])
            with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
                return op(*given, dtype=torch.float32 if _is_cast(args[0]) else args[0].dtype)

        return kernel

    def cast(self, value: Any, dtype: torch.dtype) -> Any:
        """A tensor on the GPU as `dtype`; that of a weight is kept for its next use."""
        if not _is_cast(value) or value.dtype == dtype:
            return value
        weight = value.requires_grad and value.is_leaf and value.dtype == torch.float32 and dtype == self.low
        if not weight:
            return value.to(dtype)
        if id(value) not in self.copies:
            self.copies[id(value)] = (value, value.to(dtype))
        return self.copies[id(value)][1]


def has_wrapper(name: str) -> bool:
    """Whether PyTorch wraps this operator where autocast is on."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "AutocastCUDA"))


def operator(name: str) -> Any:
    """An operator of `aten` by name and overload."""
    base, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, base), overload or "default")


def _is_cast(value: Any) -> bool:
    return on_gpu(value) and value.is_floating_point() and value.dtype != torch.float64
