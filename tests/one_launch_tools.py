"""What checks of the optimizers' kernels have in common: tensors, gradients, the judge, and what is launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tdsl.runtime import multi_tensor, optim

CHECKS: dict[str, Callable[[], None]] = {}
SIZES = ((0,), (1,), (1025,), (7, 11), (5000,), (4, 3, 2))


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


def parameters(dtype: torch.dtype = torch.float32, sizes: Sequence[tuple[int, ...]] = SIZES) -> list[nn.Parameter]:
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(size).to(dtype)) for size in sizes]


def gradients(like: Sequence[Tensor], step: int, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
    """Those of a step: of the last parameter none ever, of the second none in the third step."""
    torch.manual_seed(100 + step)
    found: list[Tensor | None] = [(torch.randn(p.shape) * (1 + step)).to(dtype) for p in like]
    found[-1] = None
    if step == 2:
        found[1] = None
    return found


def give(members: Sequence[Tensor], given: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(members, given, strict=True):
        parameter.grad = None if gradient is None else gradient.to(parameter.dtype, copy=True)


def groups(members: Sequence[Tensor], decays: bool = True) -> list[dict[str, Any]]:
    """Two groups with numbers of their own."""
    return [{"params": members[:3]}, {"params": members[3:], "lr": 0.003, **({"weight_decay": 0.2} if decays else {})}]


def run(kind: Callable[..., Optimizer], members: Sequence[Tensor], steps: int = 6, **options: Any) -> Optimizer:
    made = kind(groups(members), lr=0.01, **options)
    for step in range(steps):
        give(members, gradients(members, step))
        made.step()
    return made


def doubled(members: Sequence[Tensor]) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().double()) for p in members]


def judge(found: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor], what: str = "") -> None:
    """Not twice as far from what is exact as PyTorch is."""
    for i, (mine, theirs, right) in enumerate(zip(found, plain, exact, strict=True)):
        if not right.numel():
            continue
        eps = torch.finfo(mine.dtype).eps
        allowed = 2 * (theirs.double() - right).abs() + 4 * eps * (right.abs() + right.abs().max())
        over = (mine.double() - right).abs() - allowed
        assert not bool((over > 0).any()), f"{what} tensor {i}: {float(over.max())} too far"


def judge_sums(found: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor], what: str = "") -> None:
    """The same of what hundreds of roundings have added up to.

    Single elements then err by chance, each way of computing them otherwise (a GPU multiplies and adds at once): what is
    compared is the greatest error of all.
    """
    errors = [max(float((t.double() - e).detach().abs().max()) for t, e in zip(ts, exact)) for ts in (found, plain)]
    scale = max(float(e.detach().abs().max()) for e in exact)
    allowed = 2 * errors[1] + 4 * torch.finfo(found[0].dtype).eps * scale
    assert errors[0] <= allowed, f"{what}: errs by {errors[0]}, and PyTorch by {errors[1]}"


def together(optimizer: Optimizer) -> multi_tensor.Tables:
    """The tables of an optimizer that took its steps in one launch."""
    assert isinstance(optimizer, optim._OneLaunch)
    assert optimizer._tables is not None, "PyTorch took the step"
    return optimizer._tables


@contextmanager
def launches() -> Iterator[list[str]]:
    """The names of the kernels that are launched within."""
    from tdsl.runtime import optim_kernels as kernels

    found: list[str] = []

    class Counted:
        def __init__(self, kernel: Any, name: str) -> None:
            self.kernel, self.name = kernel, name

        def __getitem__(self, grid: tuple[int]) -> Any:
            found.append(self.name)
            return self.kernel[grid]

    names = ("_update", "_squares", "_clip")
    with patch.multiple(kernels, **{name: Counted(getattr(kernels, name), name) for name in names}):
        yield found
