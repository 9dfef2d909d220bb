"""An optimizer taken apart for its kernels: its parameters by kind, and the programs that update each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tdsl.runtime import launch, low_precision

# A program's share of a tensor: some 2,000 programs, but none so small that finding its addresses takes long. Sizes
# alone decide, so that sums of squares are the same on every GPU.
SMALLEST, LARGEST, PROGRAMS = 1024, 16384, 2048
# Options that ask for a step of PyTorch's.
OTHER_WAYS = ("foreach", "fused", "differentiable")

Group = Mapping[str, Any]
States = tuple[str | None, str | None, str | None]


@dataclass(frozen=True)
class Rule:
    """An optimizer as the kernels compute it.

    `kernel` is its name in `optim_kernels`. Of a group's options, `flags` change the formula, `numbers` are its
    hyperparameters in the kernel's order, without the rate; `states` names the up to three tensors of its state.
    `counts` tells whether the state has PyTorch's count of steps, `step`.
    """

    kernel: str
    states: Callable[[Group], States]
    flags: Callable[[Group], tuple[bool, ...]]
    numbers: Callable[[Group], tuple[float, ...]]
    counts: bool = False


@dataclass(frozen=True)
class Kind:
    """What parameters have in common that one launch can update."""

    flags: tuple[bool, ...]
    states: States
    dtype: torch.dtype
    gradient: torch.dtype


@dataclass(eq=False)
class Slot:
    """A parameter, its group, and which programs update it. `held` is what the optimizer's state had of it."""

    parameter: Tensor
    group: int
    kind: Kind
    layout: tuple[object, ...]
    programs: slice
    copy: torch.dtype | None = None
    held: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Launch:
    """The programs of a kind of parameters; `copy` is the dtype of the copies that some of them have."""

    kind: Kind
    programs: slice
    copy: torch.dtype | None

    @property
    def grid(self) -> tuple[int]:
        return (self.programs.stop - self.programs.start,)

    def constants(self, rule: Rule) -> dict[str, Any]:
        """What the kernel is compiled for."""
        from tdsl.runtime import optim_kernels as kernels

        return {
            "NUMBERS": getattr(kernels, f"{rule.kernel}_numbers"),
            "RULE": getattr(kernels, rule.kernel),
            "FLAGS": self.kind.flags,
            "STATES": tuple(name is not None for name in self.kind.states),
            "DTYPE": triton_dtype(self.kind.dtype),
            "GRADIENT": triton_dtype(self.kind.gradient),
            "COPY": None if self.copy is None else triton_dtype(self.copy),
        }


def takes(optimizer: Optimizer) -> bool:
    """Whether the kernels can update all parameters of an optimizer: those that lie in one GPU's memory, each once."""
    if any(group.get(name) for group in optimizer.param_groups for name in OTHER_WAYS):
        return False
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not parameters or not all(map(_usable, parameters)) or find_spec("triton") is None:
        return False
    full = [parameter.data_ptr() for parameter in parameters if parameter.numel()]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    known = all(each.layout is torch.strided and each.dtype in launch.KERNEL_DTYPES for each in gradients)
    if launch.interpreted():
        known = known and all(each.dtype is not torch.bfloat16 for each in gradients)
    return known and len({each.device for each in (*parameters, *gradients)}) == 1 and len(set(full)) == len(full)


def _usable(parameter: Tensor) -> bool:
    """Whether the kernels can update this: a plain tensor on a GPU, of a dtype they know, dense in whatever order."""
    plain = type(parameter) in (Tensor, nn.Parameter) and parameter.layout is torch.strided
    return plain and launch.use_kernels(parameter) and _dense(parameter)


def _dense(x: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, each once."""
    if x.is_contiguous():
        return True
    filled = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride != filled:
            return False
        filled *= size
    return True


def signature(optimizer: Optimizer, rule: Rule) -> list[Any]:
    """What the tables are made for: options and parameters of each group."""
    return [
        (rule.flags(group), rule.states(group), *map(group.get, OTHER_WAYS), *map(id, group["params"]))
        for group in optimizer.param_groups
    ]


def slots_of(optimizer: Optimizer, rule: Rule) -> tuple[list[Slot], int]:
    """The parameters, those of a kind behind one another, and how many elements a program takes."""
    found: dict[Kind, list[tuple[int, Tensor]]] = {}
    for i, group in enumerate(optimizer.param_groups):
        flags, states = rule.flags(group), rule.states(group)
        for each in group["params"]:
            gradient = each.dtype if each.grad is None else each.grad.dtype
            found.setdefault(Kind(flags, states, each.dtype, gradient), []).append((i, each))
    elements = sum(each.numel() for members in found.values() for _, each in members)
    chunk = max(SMALLEST, min(launch.power_of_two(elements // PROGRAMS), LARGEST))
    slots: list[Slot] = []
    for kind, members in found.items():
        copy = next((copy.tensor.dtype for _, each in members if (copy := copy_of(each)) is not None), None)
        for i, each in members:
            begin = slots[-1].programs.stop if slots else 0
            programs = slice(begin, begin + max(1, -(-each.numel() // chunk)))
            slots.append(Slot(each, i, kind, layout_of(each), programs, copy))
    return slots, chunk


def chunks_of(slots: list[Slot]) -> Iterator[tuple[int, int]]:
    """For each program the row of its tensor, and which chunk of it is its own."""
    for row, slot in enumerate(slots):
        yield from ((row, number) for number in range(slot.programs.stop - slot.programs.start))


def launches_of(slots: list[Slot]) -> Iterator[Launch]:
    for kind, members in groupby(slots, lambda slot: slot.kind):
        first, *others = members
        last = others[-1] if others else first
        yield Launch(kind, slice(first.programs.start, last.programs.stop), first.copy)


def copy_of(parameter: Tensor) -> low_precision.Copy | None:
    """A parameter's copy, where the kernels can write it: the interpreter does not round to bfloat16."""
    found = low_precision.find(parameter)
    if found is None or not found.fits(parameter):
        return None
    return None if launch.interpreted() and found.tensor.dtype is torch.bfloat16 else found


def layout_of(x: Tensor) -> tuple[object, ...]:
    return x.data_ptr(), x.dtype, x.shape, x.stride()


def triton_dtype(dtype: torch.dtype) -> Any:
    from triton import language

    return getattr(language, str(dtype).removeprefix("torch."))
