"""A case that is one function: forward, and backward where there is one, on the same tensors for all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench import Case, Floor
from benchmarks.measure import Candidate, distance

Function = Callable[..., Any]
# As in `tdsl verify`: how much more than plain PyTorch a result and a gradient may err, in the same precision.
FORWARD, BACKWARD = 2.0, 3.0


@dataclass
class Results:
    """What a call gave: its results, and the gradients of the tensors that have one."""

    outputs: list[Tensor]
    grads: list[Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return iter([*self.outputs, *self.grads])

    def __len__(self) -> int:
        return len(self.outputs) + len(self.grads)


@dataclass
class Problem(Case):
    """`eager` computes from `tensors`, in their order; `ours` and `peers` make functions that do the same.

    Tensors that require a gradient get one, from `grads`: unless given random ones of the results' shapes, 1 for a
    number. `in_place`: some candidate writes over tensors or gradients, so they are restored before each call.

    The judge is `eager` in float64, or what `reference` makes of a candidate's own results (which units it has
    dropped). Where that would not fit it is computed in `pieces` of the first dimension of the tensors named in
    `rows`: there a result has rows itself, or is a mean over them.
    """

    title: str
    tensors: dict[str, Tensor]
    eager: Function
    ours: Callable[[], Function]
    peers: Mapping[str, Callable[[], Function]] = field(default_factory=dict)
    floor: Floor = field(default_factory=Floor)
    grads: list[Tensor] | None = None
    in_place: bool = False
    reference: Callable[[Results], Function] | None = None
    rows: tuple[str, ...] = ()
    pieces: int = 1

    def __post_init__(self) -> None:
        self.leaves = [tensor for tensor in self.tensors.values() if tensor.requires_grad]
        self._copies: list[tuple[Tensor, Tensor]] = []
        self._errors: list[float] = []
        self._exact: Results | None = None
        if self.rows:
            self.pieces = min(self.pieces, len(self.tensors[self.rows[0]]))

    def candidates(self) -> Mapping[str, Callable[[], Candidate]]:
        made = {"tdsl": self.ours, "eager": lambda: self.eager, **self.peers}
        return {name: lambda make=make: Call(self, make()) for name, make in made.items()}

    def error(self, name: str, candidate: Candidate) -> float:
        """Plain PyTorch's own errors are what others' are measured by."""
        assert isinstance(candidate, Call)
        if not self._errors:
            found = Call(self, self.eager).results()
            self._errors = [distance(a, b) for a, b in zip(found, self._judge(found), strict=True)]
        found = candidate.results()
        unit = torch.finfo(next(t.dtype for t in self.tensors.values() if t.is_floating_point())).eps
        ratios = []
        for index, (one, exact) in enumerate(zip(found, self._judge(found), strict=True)):
            factor = FORWARD if index < len(found.outputs) else BACKWARD
            allowed = factor * self._errors[index] + unit * distance(exact, torch.zeros_like(exact))
            ratio = distance(one, exact) / max(allowed, 1e-300)
            ratios.append(ratio if ratio == ratio else float("inf"))
        return max(ratios)

    def checked(self) -> None:
        self._exact = None

    def gradients(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of results, the same for every candidate, each in its result's dtype."""
        if self.grads is None:
            self.grads = [torch.randn_like(each) if each.ndim else torch.ones_like(each) for each in outputs]
        return [grad.to(output.dtype) for grad, output in zip(self.grads, outputs, strict=True)]

    @torch.no_grad()
    def restore(self) -> None:
        """Tensors and gradients as they were."""
        if not self.in_place:
            return
        if not self._copies:
            floats = [each for each in self.tensors.values() if each.is_floating_point()]
            self._copies = [(each, each.detach().clone()) for each in (*floats, *(self.grads or ()))]
        for tensor, copy in self._copies:
            tensor.copy_(copy)

    def _judge(self, found: Results) -> Results:
        if self.reference is not None:
            return self._in_float64(self.reference(found))
        if self._exact is None:
            self._exact = self._in_float64(self.eager)
        return self._exact

    def _in_float64(self, function: Function) -> Results:
        self.restore()
        if self.pieces == 1:
            return self._piece(function, slice(None), 1.0)
        count = len(self.tensors[self.rows[0]])
        cuts = [count * number // self.pieces for number in range(self.pieces + 1)]
        parts = [self._piece(function, slice(a, b), (b - a) / count) for a, b in itertools.pairwise(cuts)]
        return self._together(parts)

    def _piece(self, function: Function, rows: slice, share: float) -> Results:
        """Results and gradients of some rows; a mean over them counts for their `share` of all."""
        given = [_double(t, rows if name in self.rows else slice(None)) for name, t in self.tensors.items()]
        outputs = several(function(*given))
        leaves = [each for each in given if each.requires_grad]
        if not leaves:
            return Results(outputs, [])
        assert self.grads is not None
        grads = [g[rows].double() if g.ndim else g.double() * share for g in self.grads]
        found = torch.autograd.grad(outputs, leaves, grads)
        return Results([o.detach() if o.ndim else o.detach() * share for o in outputs], list(found))

    def _together(self, parts: Sequence[Results]) -> Results:
        """What has rows put together, means and other gradients added."""
        names = [name for name, tensor in self.tensors.items() if tensor.requires_grad]
        outputs = [torch.cat(each) if each[0].ndim else sum(each) for each in zip(*(p.outputs for p in parts))]
        grads = [
            torch.cat(each) if name in self.rows else sum(each)
            for name, each in zip(names, zip(*(p.grads for p in parts)), strict=False)
        ]
        return Results(outputs, grads)


class Call:
    """One call of a candidate: its results, and gradients where there are tensors to differentiate by."""

    def __init__(self, problem: Problem, function: Function) -> None:
        self.problem = problem
        self.function = function
        self.grads: list[Tensor] | None = None

    def prepare(self) -> None:
        self.problem.restore()

    def __call__(self) -> tuple[list[Tensor], Sequence[Tensor]]:
        outputs = several(self.function(*self.problem.tensors.values()))
        if not self.problem.leaves:
            return outputs, []
        if self.grads is None:
            self.grads = self.problem.gradients(outputs)
        return outputs, torch.autograd.grad(outputs, self.problem.leaves, self.grads)

    def results(self) -> Results:
        """Of a call on the tensors as they were; copies, where a later call would write over them."""
        self.prepare()
        outputs, grads = self()
        kept = (lambda t: t.detach().clone()) if self.problem.in_place else Tensor.detach
        return Results([kept(each) for each in outputs], [kept(each) for each in grads])


def several(found: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _double(tensor: Tensor, rows: slice) -> Tensor:
    """In float64, a leaf where the tensor is one; integers as they are."""
    if not tensor.is_floating_point():
        return tensor[rows]
    return tensor.detach()[rows].double().requires_grad_(tensor.requires_grad)
