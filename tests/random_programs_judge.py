"""What results of a random program may differ by: a few times what eager PyTorch errs, and what rounding may do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

Results = list[Tensor | None]
# A greater share of the results is no rounding: a comparison, or the place of a maximum, has turned.
ROUNDING = 1e-3


class OffByOne(TorchDispatchMode):
    """Each operation, backwards too, reads its numbers changed by up to a unit in the last place of float32."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = any(a.alias_info is not None for a in (*func._schema.arguments, *func._schema.returns))
        if not aliases:
            args = tree_map(self._changed, args)
        return func(*args, **(kwargs or {}))

    def _changed(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        change = torch.rand(x.shape, generator=self.generator, dtype=x.dtype) * 2 - 1
        return x * (1 + torch.finfo(torch.float32).eps * change)


def difference(
    found: Results, eager: Results, exact: Results, times: float, units: float, nearby: Results | None = None
) -> str:
    """What differs beyond a few times what eager PyTorch errs, or `units` of the greatest number; "" where nothing.

    Where eager happens to be exact, as a mean of equal numbers is, the results `nearby` tell what rounding may do.
    """
    if nearby is not None:
        eager = [_further(b, near, c) for b, near, c in zip(eager, nearby, exact, strict=True)]
    if not len(found) == len(eager) == len(exact):
        return f"{len(found)} results and gradients instead of {len(eager)}"
    for number, (a, b, c) in enumerate(zip(found, eager, exact)):
        if a is None and b is not None and bool(b.any()):
            return f"result {number}: a gradient is missing"
        if b is None and a is not None and bool(a.any()):
            return f"result {number}: a gradient where there is none"
        # A kernel hands on zeros where PyTorch, which sees each operation, knows that nothing comes.
        if a is not None and b is not None and c is not None and not _close(a, b, c, times, units):
            return f"result {number}: {_told(a, b, c)}"
    return ""


def _further(b: Tensor | None, near: Tensor | None, c: Tensor | None) -> Tensor | None:
    """Of two results the one that errs more, as long as that is by rounding and not by a step taken elsewhere."""
    if b is None or near is None or c is None or not b.numel() or not b.is_floating_point():
        return b
    error = (near - c).abs().max()
    return near if (b - c).abs().max() < error <= ROUNDING * c.abs().max().clamp(min=1.0) else b


def _close(a: Tensor, b: Tensor, c: Tensor, times: float, units: float) -> bool:
    if a.shape != c.shape or a.dtype != c.dtype:
        return False
    if not a.numel() or not a.is_floating_point():
        return torch.equal(a, b)
    finite = b.isfinite() & c.isfinite()
    if not bool((finite == (a.isfinite() & c.isfinite())).all()):
        return False
    a, b, c = (torch.where(finite, t, 0.0) for t in (a, b, c))
    allowed = times * (b - c).abs().max() + units * c.abs().max().clamp(min=1.0)
    return bool(((a - c).abs() <= allowed).all())


def _told(a: Tensor, b: Tensor, c: Tensor) -> str:
    if a.shape != c.shape or a.dtype != c.dtype:
        return f"{a.dtype} {list(a.shape)} instead of {c.dtype} {list(c.shape)}"
    if not a.is_floating_point():
        return f"{int((a != b).sum())} of {a.numel()} elements"
    return f"{float((a - c).abs().max()):.3g}, eager {float((b - c).abs().max()):.3g}"
