"""The launches of what runs within a counter: operators of PyTorch and Triton kernels, by phase and category."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from tdsl.runtime.counting import traffic, triton_launches

FORWARD, BACKWARD, UPDATE = "forward", "backward", "clipping and optimizer"


@dataclass(frozen=True)
class Kind:
    """Launches that count together: `name` is an operator of PyTorch or a Triton kernel."""

    phase: str
    category: str
    name: str


@dataclass
class Tally:
    """How many launches, and the bytes that they move together."""

    launches: int = 0
    bytes: int = 0


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is on; what it counts belongs to its phase."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = FORWARD
        self.on = True
        self.found: dict[Kind, Tally] = {}

    def add(self, name: str, category: str, size: int) -> None:
        """One launch."""
        if self.on:
            tally = self.found.setdefault(Kind(self.phase, category, name), Tally())
            tally.launches += 1
            tally.bytes += size

    @contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """What is launched within belongs to this phase."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        found = func(*args, **given)
        if self.on and traffic.launches(func, args, given, found):
            name = traffic.name_of(func)
            self.add(name, traffic.category(name), traffic.moved(func, args, given, found))
        return found


@contextmanager
def counting(real: bool = False) -> Iterator[Counter]:
    """A counter of what runs within. Triton kernels are counted, and run where tensors are `real`."""
    with Counter() as counter, triton_launches.noted(counter.add, real):
        yield counter
