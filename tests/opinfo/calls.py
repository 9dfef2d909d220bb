"""How the language writes a call that PyTorch's samples write otherwise: an order of arguments, a word of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tests.opinfo.table import Skip


@dataclass(frozen=True)
class Call:
    """A call: of `name`, with these arguments, in a module in training or not; as an operator where that is wanted."""

    name: str
    args: list[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    training: bool = True
    operator: bool = False

    def plain(self) -> Call:
        """Without what the compiler decides: where a tensor lies, and whether it has a gradient."""
        kwargs = {k: v for k, v in self.kwargs.items() if k not in ("device", "requires_grad", "layout", "pin_memory")}
        for name in ("out", "generator"):
            if kwargs.get(name) is not None:
                raise Skip(name)
            kwargs.pop(name, None)
        if kwargs.pop("inplace", False):
            raise Skip("in place")
        if kwargs.pop("memory_format", torch.preserve_format) not in (torch.preserve_format, torch.contiguous_format):
            raise Skip("memory")
        if "size_average" in kwargs or ("reduce" in kwargs and self.name.endswith("_loss")):
            raise Skip("legacy")
        return replace(self, kwargs=kwargs)

    def without(self, *names: str) -> Call:
        return replace(self, kwargs={k: v for k, v in self.kwargs.items() if k not in names})


Adapt = Callable[[Call], Call]


def _reversed(call: Call) -> Call:
    """`x.__rsub__(y)` is `y - x`."""
    return replace(call, args=[call.args[1], call.args[0]], operator=True)


def _where(call: Call) -> Call:
    x, condition, *rest = call.args
    return replace(call, args=[condition, x, *rest])


def _einsum(call: Call) -> Call:
    tensors, equation = call.args
    return replace(call, args=[equation, *tensors])


def _to(call: Call) -> Call:
    """The dtype of `x.to(...)`: of another tensor, after a device, or by name."""
    x, *rest = call.args
    dtypes = [a.dtype if isinstance(a, Tensor) else a for a in rest if isinstance(a, (Tensor, torch.dtype))]
    return replace(call, args=[x, *dtypes]).without("non_blocking", "copy", "device")


def _embedding(call: Call) -> Call:
    weight, indices, *rest = call.args
    if call.kwargs.get("max_norm") is not None:
        raise Skip("renorm")
    if call.kwargs.get("sparse"):
        raise Skip("sparse")
    return replace(call, args=[indices, weight, *rest])


def _one_hot(call: Call) -> Call:
    classes = [*call.args[1:], *call.kwargs.values()]
    if not classes or classes[0] == -1:
        raise Skip("classes")
    return call


def _attention(call: Call) -> Call:
    """`is_causal` is `causal`, and a mask is a bias."""
    if any(t.dim() != 4 for t in call.args[:3]):
        raise Skip("rank")
    kwargs = dict(call.kwargs)
    if kwargs.get("dropout_p"):
        raise Skip("random")
    words = {"is_causal": "causal", "attn_mask": "bias"}
    kwargs.pop("enable_gqa", None)
    return replace(call, kwargs={words.get(k, k): v for k, v in kwargs.items()})


def _dropout(call: Call) -> Call:
    """Whether numbers are dropped is the module's to say."""
    return replace(call, training=call.kwargs.get("training", True)).without("training")


def _repeat_interleave(call: Call) -> Call:
    if isinstance(call.args[1] if len(call.args) > 1 else call.kwargs.get("repeats"), Tensor):
        raise Skip("counts")
    return call.without("output_size")


ADAPTED: Mapping[str, Adapt] = {
    **{f"__r{name}__": _reversed for name in ("add", "sub", "mul", "div", "pow", "mod", "matmul")},
    "where": _where,
    "einsum": _einsum,
    "to": _to,
    "embedding": _embedding,
    "embedding_bag": _embedding,
    "one_hot": _one_hot,
    "attention": _attention,
    "dropout": _dropout,
    "dropout2d": _dropout,
    "dropout3d": _dropout,
    "repeat_interleave": _repeat_interleave,
}
