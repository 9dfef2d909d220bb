"""What results of a random program may differ by: a few times what eager PyTorch errs, and what rounding may do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Results = list[Tensor | None]
# What moves further, in units of the greatest number, is no rounding: a comparison, or a remainder, has turned.
ROUNDING = 1e-3


class OffByOne(TorchDispatchMode):
    """Each operation, backwards too, reads its numbers changed by up to a unit in the last place of float32."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = any(a.alias_info is not None for a in (*func._schema.arguments, *func._schema.returns))
        if not aliases:
            # What an operation reads twice is the same each time.
            tensors = {id(x): x for x in tree_leaves(args) if isinstance(x, Tensor) and x.is_floating_point()}
            changed = {key: self._changed(x) for key, x in tensors.items()}
            args = tree_map(lambda x: changed.get(id(x), x), args)
        return func(*args, **(kwargs or {}))

    def _changed(self, x: Tensor) -> Tensor:
        change = torch.rand(x.shape, generator=self.generator, dtype=x.dtype) * 2 - 1
        return x * (1 + torch.finfo(torch.float32).eps * change)


def difference(
    found: Results, eager: Results, exact: Results, times: float, units: float, nearby: Sequence[Results] = ()
) -> str:
    """What differs beyond a few times what eager PyTorch errs, or `units` of the greatest number; "" where nothing.

    Where eager happens to be exact, as a mean of equal numbers is, the results `nearby` tell what rounding may do.
    """
    if not len(found) == len(eager) == len(exact):
        return f"{len(found)} results and gradients instead of {len(eager)}"
    for number, (a, b, c, *near) in enumerate(zip(found, eager, exact, *nearby)):
        if a is None and b is not None and bool(b.any()):
            return f"result {number}: a gradient is missing"
        if b is None and a is not None and bool(a.any()):
            return f"result {number}: a gradient where there is none"
        # A kernel hands on zeros where PyTorch, which sees each operation, knows that nothing comes.
        if a is None or b is None or c is None:
            continue
        if not _close(a, b, c, times, units) and not (near and _close(*_eased(a, b, c, near), times, units)):
            return f"result {number}: {_told(a, b, c)}"
    return ""


def _eased(a: Tensor, b: Tensor, c: Tensor, near: Sequence[Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
    """The same with eager's errors as great as those nearby, and without the elements that step there."""
    if a.shape != c.shape or not c.is_floating_point() or not c.numel():
        return a, b, c
    errors = torch.stack([(b - c).abs(), *((each - c).abs() for each in near if each is not None)])
    steps = ~(errors <= ROUNDING * c.abs().max().clamp(min=1.0)).all(0)
    return torch.where(steps, c, a), torch.where(steps, c, c + errors.amax(0)), c


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
