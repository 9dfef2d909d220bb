"""What an operator of PyTorch launches and moves: one launch each, and each memory that it reads or writes once.

In doubt the count is low, which favours programs of many operators. An operator is one launch also where PyTorch makes
several (a sort, a gradient of a table, a list of tensors), and its buffers between them are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import prod
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from tdsl.runtime.counting.gpu import on_gpu

PRODUCTS, ATTENTION, OTHER = "matrix products", "attention", "everything else"
_PRODUCTS = (
    *("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "addr", "_trilinear"),
    *("linalg_vecdot", "convolution", "convolution_backward", "cudnn_convolution", "_convolution"),
    *("_cudnn_rnn", "_cudnn_rnn_backward", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"),
)
_ATTENTION = ("_scaled_dot_product_", "_flash_attention_", "_efficient_attention_", "_cudnn_attention_")
# Launches nothing, though no view.
_NOTHING = (
    *("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "_unsafe_view", "_reshape_alias"),
    *("lift", "lift_fresh", "set_", "resize_", "is_same_size", "is_pinned", "record_stream", "_version", "device"),
    *("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "is_contiguous", "is_non_overlapping_and_dense"),
)
# Write over what they are given without reading it.
_OVERWRITES = (
    *("fill_", "zero_", "copy_", "normal_", "uniform_", "bernoulli_", "random_", "exponential_"),
    *("_foreach_zero_", "_foreach_copy_"),
)
# Arguments of which an operator needs the shape alone.
_SHAPES: Mapping[str, tuple[str, ...]] = {
    "nll_loss_backward": ("self",),
    "native_layer_norm_backward": ("bias",),
    "avg_pool2d_backward": ("self",),
    "avg_pool3d_backward": ("self",),
    "_adaptive_avg_pool2d_backward": ("self",),
    "_adaptive_avg_pool3d_backward": ("self",),
    "max_pool2d_with_indices_backward": ("self",),
    "max_pool3d_with_indices_backward": ("self",),
    "adaptive_max_pool2d_backward": ("self",),
    "adaptive_max_pool3d_backward": ("self",),
    **{f"{kind}_like": ("self",) for kind in ("zeros", "ones", "full", "rand", "randn", "randint")},
    **{f"new_{kind}": ("self",) for kind in ("zeros", "ones", "full")},
}
# Read as many elements of this argument as they yield.
_LOOKUPS: Mapping[str, str] = {
    "embedding": "weight",
    "_embedding_bag": "weight",
    "gather": "self",
    "index_select": "self",
    "index": "self",
    "take": "self",
    "nll_loss_forward": "self",
}


def category(name: str) -> str:
    """What an operator belongs to, by its name without namespace and overload."""
    if name.startswith(_ATTENTION):
        return ATTENTION
    return PRODUCTS if name in _PRODUCTS else OTHER


def launches(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any) -> bool:
    """Whether an operator computes or moves something on the GPU: views, allocations and questions do not."""
    if func.namespace == "prim" or name_of(func) in _NOTHING or _is_view(func):
        return False
    touched = [t for t in tree_leaves((args, kwargs, found)) if on_gpu(t)]
    return any(t.numel() for t in touched)


def name_of(func: Any) -> str:
    """An operator's name without namespace and overload."""
    return str(func._schema.name.partition("::")[2])


@cache
def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def moved(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any) -> int:
    """Bytes that an operator reads and writes on the GPU; what it changes in place it does both with."""
    name = name_of(func)
    read: list[Tensor] = []
    written = tensors(found)
    looked_up = 0
    for arg, value in _arguments(func, args, kwargs):
        given = tensors(value)
        if arg.alias_info is not None and arg.alias_info.is_write:
            written += given
            if name in _OVERWRITES or arg.kwarg_only:
                continue
        if arg.name in _SHAPES.get(name, ()):
            continue
        if given and arg.name == _LOOKUPS.get(name):
            looked_up += min(_size(given[0]), _looked_up(name, given[0], args, found))
            continue
        read += given
    return looked_up + size(read) + size(written)


def _looked_up(name: str, table: Tensor, args: Sequence[Any], found: Any) -> int:
    """Of a table as much as is yielded; of a loss over classes one score a row."""
    (first, *_) = tensors(found) or [table]
    return table.element_size() * (args[1].numel() if name == "nll_loss_forward" else first.numel())


def _arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    for position, arg in enumerate(func._schema.arguments):
        if position < len(args) and not arg.kwarg_only:
            yield arg, args[position]
        elif arg.name in kwargs:
            yield arg, kwargs[arg.name]


def tensors(value: Any) -> list[Tensor]:
    """The tensors on the GPU in a value."""
    return [t for t in tree_leaves(value) if on_gpu(t)]


def size(found: Iterable[Tensor]) -> int:
    """Bytes of the distinct memory of tensors: what is expanded has that of one copy."""
    return sum({_place(t): _size(t) for t in found}.values())


def _place(tensor: Tensor) -> object:
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _size(tensor: Tensor) -> int:
    held = prod(n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not n)
    return held * tensor.element_size()
