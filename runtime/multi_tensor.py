"""All parameters of an optimizer in one launch: the tables that its kernels read, kept up to date from step to step.

One table has the addresses of each parameter, its gradient, its copy in low precision and its state, another the
hyperparameters of each group. They are uploaded where they have changed: gradients mostly come back to the addresses
that they had, so a step uploads the learning rate, and often nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

from tdsl.runtime import launch, low_precision
from tdsl.runtime.device_table import DeviceTable

BLOCK = 1024
# A program's share of a tensor: some 2,000 programs, but none so small that finding its addresses takes long. Sizes
# alone decide, so that sums of squares are the same on every GPU.
SMALLEST, LARGEST, PROGRAMS = 1024, 16384, 2048
# What is told of a parameter, and of a group, whose last number is the learning rate.
COLUMNS, NUMBERS = 9, 9
# Options that ask for a step of PyTorch's.
OTHER_WAYS = ("foreach", "fused", "differentiable")
# Stands for the address of a gradient without elements.
NOWHERE = 16

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
class _Slot:
    """A parameter, its group, and which programs update it. `held` is what the optimizer's state had of it."""

    parameter: Tensor
    group: int
    kind: Kind
    layout: tuple[object, ...]
    programs: slice
    copy: torch.dtype | None = None
    held: dict[str, Tensor] = field(default_factory=dict)


class Tables:
    """The tables of an optimizer. They hold for its parameters as they lie, and for its groups' flags."""

    def __init__(self, optimizer: Optimizer, rule: Rule) -> None:
        self.optimizer, self.rule = optimizer, rule
        self.signature = _signature(optimizer, rule)
        self.slots, self.chunk = _slots(optimizer, rule)
        self.device = self.slots[0].parameter.device
        self.chunks = torch.tensor(list(_chunks(self.slots)), dtype=torch.int32).to(self.device)
        # In float32, as PyTorch's optimizers keep counts on a GPU: the state's `step` are views of these.
        self.counts = torch.zeros(len(self.chunks), dtype=torch.float32, device=self.device)
        self.partials = torch.zeros_like(self.counts)
        self.written = self.counts._version
        self.tensors = DeviceTable((len(self.slots), COLUMNS), torch.int64, self.device, replayed=True)
        self.numbers = DeviceTable((len(optimizer.param_groups), NUMBERS), torch.float32, self.device)
        self.launches = list(_launches(self.slots))
        # What the rows were last made from, the parameters with a gradient among them, and those with a copy.
        self.seen: list[tuple[object, ...] | None] = []
        self.trained: list[Tensor] = []
        self.copies: list[tuple[Tensor, low_precision.Copy]] = []
        # Gradients that lie in another order than their parameters, laid out anew for the next launches.
        self.turned: list[Tensor] = []

    @classmethod
    def of(cls, optimizer: Optimizer, rule: Rule) -> Tables | None:
        """The tables, up to date; None where the kernels can't update all of the optimizer's parameters."""
        if not _takes(optimizer):
            return None
        made = cls(optimizer, rule)
        return made if made.refresh() else None

    # Keeping up ------------------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Bring the tables up to date; whether that can be: else they are to be made anew."""
        if _signature(self.optimizer, self.rule) != self.signature:
            return False
        if self.counts._version != self.written:
            self._spread()
        places = list(self._places())
        seen = [self._seen(slot, places[slot.group]) for slot in self.slots]
        if seen != self.seen or self.turned or None in seen:
            self.trained, self.copies, self.turned = [], [], []
            rows = [self._row(slot, *places[slot.group]) for slot in self.slots]
            if None in rows:
                return False
            self.tensors.update(rows)
            self.seen = [self._seen(slot, places[slot.group]) for slot in self.slots]
        else:
            self.tensors.update(self.tensors.rows)
        self.written = self.counts._version
        self.numbers.update([self._numbers(group) for group in self.optimizer.param_groups])
        return True

    def _seen(self, slot: _Slot, places: tuple[int, int]) -> tuple[object, ...] | None:
        """All that a row depends on, at little cost: it is looked at in each step. None where that does not tell."""
        parameter, gradient = slot.parameter, slot.parameter.grad
        if gradient is None:
            return (*places, *_layout(parameter))
        if gradient.layout is not torch.strided:
            return None
        state = self.optimizer.state.get(parameter, {})
        return (
            *places, *_layout(parameter), *_layout(gradient), low_precision.find(parameter), *map(id, state.values()),
        )  # fmt: skip

    def _spread(self) -> None:
        """Somebody wrote a count, which is that of a tensor's first program: the others have to agree."""
        for slot in self.slots:
            self.counts[slot.programs] = self.counts[slot.programs.start]

    def _places(self) -> Iterator[tuple[int, int]]:
        """Where each group's numbers and its rate are."""
        for i, group in enumerate(self.optimizer.param_groups):
            numbers = self.numbers.tensor.data_ptr() + 4 * NUMBERS * i
            own = self._rate(group)
            yield numbers, numbers + 4 * (NUMBERS - 1) if own is None else own.data_ptr()

    def _rate(self, group: Group) -> Tensor | None:
        """A group's learning rate, where it is a tensor that the kernel can read."""
        rate = group["lr"]
        there = isinstance(rate, Tensor) and rate.device == self.device and rate.dtype is torch.float32
        return rate if there else None

    def _numbers(self, group: Group) -> tuple[float, ...]:
        found = [float(each) for each in self.rule.numbers(group)]
        rate = 0.0 if self._rate(group) is not None else float(group["lr"])
        return (*found, *(0.0 for _ in range(NUMBERS - 1 - len(found))), rate)

    def _row(self, slot: _Slot, numbers: int, rate: int) -> tuple[int, ...] | None:
        """A parameter's row of `optim_kernels`' table; None where the tables do not hold for it any more."""
        parameter, gradient = slot.parameter, slot.parameter.grad
        if _layout(parameter) != slot.layout:
            return None
        start = (parameter.numel(), numbers, rate, parameter.data_ptr())
        if gradient is None:
            return (*start, 0, 0, 0, 0, 0)
        if gradient.dtype is not slot.kind.gradient or gradient.layout is not torch.strided:
            return None
        copy = _copy(parameter)
        if copy is not None and slot.copy is None:
            return None
        if copy is not None and copy.tensor.dtype is slot.copy:
            self.copies.append((parameter, copy))
        else:
            copy = None
        self.trained.append(parameter)
        held = self._held(slot)
        states = [held[name].data_ptr() if name is not None else 0 for name in slot.kind.states]
        return (*start, self._gradient(slot, gradient), 0 if copy is None else copy.tensor.data_ptr(), *states)

    def _gradient(self, slot: _Slot, gradient: Tensor) -> int:
        if not _alike(gradient, slot.parameter):
            gradient = torch.empty_like(slot.parameter, dtype=gradient.dtype).copy_(gradient)
            self.turned.append(gradient)
        return gradient.data_ptr() or NOWHERE

    def _held(self, slot: _Slot) -> dict[str, Tensor]:
        """The state of a parameter as the kernels need it: made where it is not there, laid out anew where it is."""
        state = self.optimizer.state.get(slot.parameter, {})
        if not all(state.get(name) is each for name, each in slot.held.items()) or not slot.held:
            slot.held = dict(self._hold(slot))
        return slot.held

    def _hold(self, slot: _Slot) -> Iterator[tuple[str, Tensor]]:
        parameter, names = slot.parameter, [name for name in slot.kind.states if name is not None]
        if not names and not self.rule.counts:
            return
        state = self.optimizer.state[parameter]
        counts = self.counts[slot.programs]
        if self.rule.counts:
            counts.copy_(torch.as_tensor(state.get("step", 0.0)))
            state["step"] = counts[0]
            yield "step", state["step"]
        else:
            counts.fill_(float(any(state.get(name) is not None for name in names)))
        for name in names:
            given = state.get(name)
            if given is None:
                state[name] = torch.zeros_like(parameter, requires_grad=False)
            elif _layout(given)[1:] != slot.layout[1:] or given.device != self.device:
                state[name] = torch.empty_like(parameter, requires_grad=False).copy_(given)
            yield name, state[name]

    def _moved(self, launched: _Launch, update: bool) -> int:
        """Bytes that a launch moves: of all gradients, and where it updates of parameters, states and copies."""
        total = 0
        for slot in self.slots[:]:
            parameter, gradient = slot.parameter, slot.parameter.grad
            if slot.kind != launched.kind or gradient is None:
                continue
            written = parameter.element_size() + 4 * sum(name is not None for name in slot.kind.states)
            copy = 0 if slot.copy is None else slot.copy.itemsize
            total += parameter.numel() * (gradient.element_size() + (2 * written + copy if update else 0))
        return total

    # Launching -------------------------------------------------------------------------------------------------------

    def norm(self, most: float | None, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The norm of all gradients, and what to multiply these by so that it is `most` at most: numbers on the device.

        `factor` is what they are to be multiplied by already. Reads 4 bytes an element, of float32 gradients, in two
        launches. The second adds the sums of the first in an order that depends on the parameters' sizes alone.
        """
        from tdsl.runtime import optim_kernels as kernels

        found = torch.empty(2, dtype=torch.float32, device=self.device)
        with torch.cuda.device_of(found):  # type: ignore[no-untyped-call]
            for each in self.launches:
                launch.note_bytes(partial(self._moved, each, update=False))
                kernels._squares[each.grid](
                    self.tensors.tensor, self.chunks[each.programs], self.partials[each.programs],
                    GRADIENT=_triton(each.kind.gradient), CHUNK=self.chunk, BLOCK=BLOCK, num_warps=4,
                )  # fmt: skip
            kernels._clip[(1,)](
                self.partials, len(self.partials), math.inf if most is None else float(most),
                found if factor is None else factor, found, CLIPPED=factor is not None, BLOCK=BLOCK, num_warps=4,
            )  # fmt: skip
        return found[0], factor if most is None else found[1]

    def step(self, factor: Tensor | None, scale: Tensor | None, overflow: Tensor | None) -> None:
        """Update all parameters that have a gradient, with their states and copies.

        Gradients are multiplied by `factor` and divided by `scale`; nothing is changed where `overflow` is not 0: all
        of them are numbers in float32 on the device. AdamW on parameters and gradients in float32 moves 30 bytes an
        element: it reads the gradient, the parameter and two moments, 4 bytes each, and writes the latter three and 2
        bytes of the copy.
        """
        if not self.trained:
            return
        from tdsl.runtime import optim_kernels as kernels

        fresh = [(parameter, copy) for parameter, copy in self.copies if copy.fresh(parameter)]
        with torch.cuda.device_of(self.counts):  # type: ignore[no-untyped-call]
            for each in self.launches:
                launch.note_bytes(partial(self._moved, each, update=True))
                kernels._update[each.grid](
                    self.tensors.tensor, self.chunks[each.programs], self.counts[each.programs],
                    *(self.partials if given is None else given for given in (factor, scale, overflow)),
                    **each.constants(self.rule), CLIPPED=factor is not None, SCALED=scale is not None,
                    CHECKED=overflow is not None, CHUNK=self.chunk, BLOCK=BLOCK, num_warps=4,
                )  # fmt: skip
        self.tensors.ahead = False
        # The kernel writes past autograd, which is to know of it.
        increment_version([*self.trained, *(copy.tensor for _, copy in self.copies)])
        for parameter, copy in fresh:
            copy.note(parameter)


@dataclass(frozen=True)
class _Launch:
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
            "DTYPE": _triton(self.kind.dtype),
            "GRADIENT": _triton(self.kind.gradient),
            "COPY": None if self.copy is None else _triton(self.copy),
        }


# Taking an optimizer apart -------------------------------------------------------------------------------------------


def _takes(optimizer: Optimizer) -> bool:
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


def _signature(optimizer: Optimizer, rule: Rule) -> list[Any]:
    """What the tables are made for: options and parameters of each group."""
    return [
        (rule.flags(group), rule.states(group), *map(group.get, OTHER_WAYS), *map(id, group["params"]))
        for group in optimizer.param_groups
    ]


def _slots(optimizer: Optimizer, rule: Rule) -> tuple[list[_Slot], int]:
    """The parameters, those of a kind behind one another, and how many elements a program takes."""
    found: dict[Kind, list[tuple[int, Tensor]]] = {}
    for i, group in enumerate(optimizer.param_groups):
        flags, states = rule.flags(group), rule.states(group)
        for each in group["params"]:
            gradient = each.dtype if each.grad is None else each.grad.dtype
            found.setdefault(Kind(flags, states, each.dtype, gradient), []).append((i, each))
    elements = sum(each.numel() for members in found.values() for _, each in members)
    chunk = max(SMALLEST, min(launch.power_of_two(elements // PROGRAMS), LARGEST))
    slots: list[_Slot] = []
    for kind, members in found.items():
        copy = next((copy.tensor.dtype for _, each in members if (copy := _copy(each)) is not None), None)
        for i, each in members:
            begin = slots[-1].programs.stop if slots else 0
            programs = slice(begin, begin + max(1, -(-each.numel() // chunk)))
            slots.append(_Slot(each, i, kind, _layout(each), programs, copy))
    return slots, chunk


def _chunks(slots: list[_Slot]) -> Iterator[tuple[int, int]]:
    """For each program the row of its tensor, and which chunk of it is its own."""
    for row, slot in enumerate(slots):
        yield from ((row, number) for number in range(slot.programs.stop - slot.programs.start))


def _launches(slots: list[_Slot]) -> Iterator[_Launch]:
    for kind, members in groupby(slots, lambda slot: slot.kind):
        first, *others = members
        last = others[-1] if others else first
        yield _Launch(kind, slice(first.programs.start, last.programs.stop), first.copy)


def _copy(parameter: Tensor) -> low_precision.Copy | None:
    """A parameter's copy, where the kernels can write it: the interpreter does not round to bfloat16."""
    found = low_precision.find(parameter)
    if found is None or not found.fits(parameter):
        return None
    return None if launch.interpreted() and found.tensor.dtype is torch.bfloat16 else found


def _layout(x: Tensor) -> tuple[object, ...]:
    return x.data_ptr(), x.dtype, x.shape, x.stride()


def _alike(x: Tensor, parameter: Tensor) -> bool:
    """Whether elements lie in the same order."""
    return x.stride() == parameter.stride() or (x.is_contiguous() and parameter.is_contiguous())


def _triton(dtype: torch.dtype) -> Any:
    from triton import language

    return getattr(language, str(dtype).removeprefix("torch."))
