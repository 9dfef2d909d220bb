"""All parameters of an optimizer in one launch: the tables that its kernels read, kept up to date from step to step.

One table has the addresses of each parameter, its gradient, its copy in low precision and its state, another the
hyperparameters of each group. They are uploaded where they have changed: gradients mostly come back to the addresses
that they had, so a step uploads the learning rate, and often nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

from tdsl.runtime import launch, low_precision
from tdsl.runtime.device_table import DeviceTable
from tdsl.runtime.slots import (
    Group,
    Launch,
    Rule,
    Slot,
    chunks_of,
    copy_of,
    launches_of,
    layout_of,
    signature,
    slots_of,
    takes,
    triton_dtype,
)

BLOCK = 1024
# What is told of a parameter, and of a group, whose last number is the learning rate.
COLUMNS, NUMBERS = 9, 9
# Stands for the address of a gradient without elements.
NOWHERE = 16


class Tables:
    """The tables of an optimizer. They hold for its parameters as they lie, and for its groups' flags."""

    def __init__(self, optimizer: Optimizer, rule: Rule) -> None:
        self.optimizer, self.rule = optimizer, rule
        self.signature = signature(optimizer, rule)
        self.slots, self.chunk = slots_of(optimizer, rule)
        self.device = self.slots[0].parameter.device
        self.chunks = torch.tensor(list(chunks_of(self.slots)), dtype=torch.int32).to(self.device)
        # In float32, as PyTorch's optimizers keep counts on a GPU: the state's `step` are views of these.
        self.counts = torch.zeros(len(self.chunks), dtype=torch.float32, device=self.device)
        self.partials = torch.zeros_like(self.counts)
        self.written = self.counts._version
        self.tensors = DeviceTable((len(self.slots), COLUMNS), torch.int64, self.device, replayed=True)
        self.numbers = DeviceTable((len(optimizer.param_groups), NUMBERS), torch.float32, self.device)
        self.launches = list(launches_of(self.slots))
        # What the rows were last made from, the parameters with a gradient among them, and those with a copy.
        self.seen: list[tuple[object, ...] | None] = []
        self.trained: list[Tensor] = []
        self.copies: list[tuple[Tensor, low_precision.Copy]] = []
        # Gradients that lie in another order than their parameters, laid out anew for the next launches.
        self.turned: list[Tensor] = []

    @classmethod
    def of(cls, optimizer: Optimizer, rule: Rule) -> Tables | None:
        """The tables, up to date; None where the kernels can't update all of the optimizer's parameters."""
        if not takes(optimizer):
            return None
        made = cls(optimizer, rule)
        return made if made.refresh() else None

    # Keeping up ------------------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Bring the tables up to date; whether that can be: else they are to be made anew."""
        if signature(self.optimizer, self.rule) != self.signature:
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

    def _seen(self, slot: Slot, places: tuple[int, int]) -> tuple[object, ...] | None:
        """All that a row depends on, at little cost: it is looked at in each step. None where that does not tell."""
        parameter, gradient = slot.parameter, slot.parameter.grad
        if gradient is None:
            return (*places, *layout_of(parameter))
        if gradient.layout is not torch.strided:
            return None
        state = self.optimizer.state.get(parameter, {})
        return (
            *places, *layout_of(parameter), *layout_of(gradient),
            low_precision.find(parameter), *map(id, state.values()),
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

    def _row(self, slot: Slot, numbers: int, rate: int) -> tuple[int, ...] | None:
        """A parameter's row of `optim_kernels`' table; None where the tables do not hold for it any more."""
        parameter, gradient = slot.parameter, slot.parameter.grad
        if layout_of(parameter) != slot.layout:
            return None
        start = (parameter.numel(), numbers, rate, parameter.data_ptr())
        if gradient is None:
            return (*start, 0, 0, 0, 0, 0)
        if gradient.dtype is not slot.kind.gradient or gradient.layout is not torch.strided:
            return None
        copy = copy_of(parameter)
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

    def _gradient(self, slot: Slot, gradient: Tensor) -> int:
        if not _alike(gradient, slot.parameter):
            gradient = torch.empty_like(slot.parameter, dtype=gradient.dtype).copy_(gradient)
            self.turned.append(gradient)
        return gradient.data_ptr() or NOWHERE

    def _held(self, slot: Slot) -> dict[str, Tensor]:
        """The state of a parameter as the kernels need it: made where it is not there, laid out anew where it is."""
        state = self.optimizer.state.get(slot.parameter, {})
        if not all(state.get(name) is each for name, each in slot.held.items()) or not slot.held:
            slot.held = dict(self._hold(slot))
        return slot.held

    def _hold(self, slot: Slot) -> Iterator[tuple[str, Tensor]]:
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
            elif layout_of(given)[1:] != slot.layout[1:] or given.device != self.device:
                state[name] = torch.empty_like(parameter, requires_grad=False).copy_(given)
            yield name, state[name]

    def _moved(self, launched: Launch, update: bool) -> int:
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
                    GRADIENT=triton_dtype(each.kind.gradient), CHUNK=self.chunk, BLOCK=BLOCK, num_warps=4,
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


def _alike(x: Tensor, parameter: Tensor) -> bool:
    """Whether elements lie in the same order."""
    return x.stride() == parameter.stride() or (x.is_contiguous() and parameter.is_contiguous())
