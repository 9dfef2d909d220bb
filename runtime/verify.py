"""How a fused kernel of an emitted `kernels.py` is checked against its reference in float64.

`tdsl.runtime.verify_folders` runs the cases of whole folders.

A result may err twice as much as plain PyTorch at the same precision (a gradient three times), plus a few units in the
last place, plus what it changes by when its inputs do by about one: `t / t.sum()` is as exact as its sum is far from 0.
The gradients that a backward is given are inputs, too.
Inputs come contiguous, transposed, sliced and expanded; NaN and infinity must come out where the reference has them.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.overrides import TorchFunctionMode

from tdsl.runtime import random
from tdsl.runtime.verify_inputs import Case, Input, leaf, learns, output_grad, random_input, shaken, shaken_tensor

# What a kernel may add to the error of eager PyTorch, in units in the last place of the greatest result.
FLOOR = 4.0
# The greatest of fewer errors than this tells little of how much PyTorch errs: the floor is higher there.
FEW, FLOOR_OF_FEW = 16, 16.0
# Nor, where terms cancel, that of one small tensor, which may happen to be computed exactly: others are asked too.
SMALLEST, NEIGHBOURS = 128, 8
# Inputs and gradients are of order 1: a result that cancels to less than this is measured against this.
SMALL = 1e-2
FORWARD, BACKWARD = 2.0, 3.0


@dataclass(frozen=True)
class Outcome:
    """Greatest errors over the bound allowed, of results and of gradients; `problem` where something else is wrong."""

    case: Case
    precision: str
    forward: float
    backward: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and self.forward <= 1.0 and self.backward <= 1.0


def load(path: Path) -> ModuleType:
    """The module at a path, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"_verified_{abs(hash(str(path)))}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verify(kernels: ModuleType, case: Case, dtype: torch.dtype, device: str) -> Outcome:
    """Run one case in both directions."""
    generator = torch.Generator().manual_seed(len(case.group) + sum(map(sum, case.shapes)))
    inputs = [random_input(s, d, dtype, case, generator, device) for s, d in zip(case.shapes, case.dtypes)]
    function, reference = getattr(kernels, case.group), getattr(kernels, f"{case.group}_reference")
    seeds = _seeds(reference)
    seed = generator.initial_seed()
    fused = _run(lambda *a: _seeded(function, a, seed), inputs, case, dtype)
    with _same_seed(seed):
        drawn = [random.next_seed()] if seeds else []
    eager = _run(lambda *a: reference(*a, *drawn), inputs, case, dtype)
    with _Exact():
        exact = _exact(lambda *a: reference(*a, *drawn), inputs, case, dtype)
        moved = [shaken(each, dtype, generator) for each in inputs]
        nearby = _run(lambda *a: reference(*a, *drawn), moved, case, dtype, torch.float64, generator)
    pairs = [(eager, exact)]
    if max(t.numel() for t in inputs if isinstance(t, Tensor)) < SMALLEST:
        pairs += [
            _neighbour(lambda *a: reference(*a, *drawn), inputs, case, dtype, generator) for _ in range(NEIGHBOURS)
        ]
    return _judged(case, dtype, inputs, fused, pairs, nearby)


Results = tuple[list[Tensor], list[Tensor | None]]


def _exact(reference: Callable[..., Any], inputs: Sequence[Input], case: Case, dtype: torch.dtype) -> Results:
    """In float64; of what is not finite, on the CPU.

    There PyTorch follows its formulas. On a GPU its norm of rows finds a mean square by Welford's way, where an
    infinite number leaves NaN, unless rows are of whole vectors: so what infinity becomes depends on a row's length.
    """
    if not case.special:
        return _run(reference, inputs, case, dtype, torch.float64)
    # A layer would be moved itself, where a tensor is copied.
    held = [copy.deepcopy(each).cpu() if isinstance(each, Module) else each.cpu() for each in inputs]
    results, grads = _run(reference, held, case, dtype, torch.float64)
    device = next(each.device for each in inputs if isinstance(each, Tensor))
    return [t.to(device) for t in results], [None if t is None else t.to(device) for t in grads]


def _neighbour(
    reference: Callable[..., Any],
    inputs: Sequence[Input],
    case: Case,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> tuple[Results, Results]:
    """Plain PyTorch in `dtype` and in float64 on inputs that differ from these in their last place."""
    full = torch.float32  # of layers, which keep it
    moved = [shaken(each, dtype, generator).to(getattr(each, "dtype", full)) for each in inputs]
    with _Exact():
        exact = _run(reference, moved, case, dtype, torch.float64)
    return _run(reference, moved, case, dtype), exact


def _run(
    function: Callable[..., Any],
    inputs: Sequence[Input],
    case: Case,
    dtype: torch.dtype,
    computed: torch.dtype | None = None,
    shaking: torch.Generator | None = None,
) -> Results:
    """Results and gradients of inputs of `dtype`, `computed` in it or another one; what layers keep is a result, too.

    The gradients of the results are the same numbers whatever they are computed in, or changed in their last place.
    """
    given = [leaf(each, kind, computed) for each, kind in zip(inputs, case.dtypes, strict=True)]
    found = function(*given, *case.scalars)
    outputs = list(found) if isinstance(found, tuple) else [found]
    floats = [o for o in outputs if o.is_floating_point() and o.requires_grad]
    leaves = [t for t in _differentiable(given, case) if t.requires_grad]
    results = [o.detach() for o in (*outputs, *_states(given, case))]
    if not floats or not leaves:
        return results, []
    grads = [output_grad(o, case, dtype) for o in floats]
    if shaking is not None:
        grads = [shaken_tensor(grad, dtype, shaking) for grad in grads]
    return results, list(torch.autograd.grad(floats, leaves, grads, allow_unused=True))


def _differentiable(inputs: Sequence[Input], case: Case) -> Iterator[Tensor]:
    """The tensors, and the parameters of layers."""
    for each, kind in zip(inputs, case.dtypes, strict=True):
        if isinstance(each, Module):
            yield from each.parameters()
        elif learns(kind):
            yield each


def _states(inputs: Sequence[Input], case: Case) -> Iterator[Tensor]:
    """What a call may have changed. PyTorch's code for the CPU and for GPUs keep other things of what is not finite."""
    for each, kind in zip(inputs, () if case.special else case.dtypes):
        if isinstance(each, Module):
            yield from each.buffers()
        elif kind == "state":
            yield each


def _seeds(reference: Callable[..., Any]) -> bool:
    return "seed" in reference.__annotations__


class _Exact(TorchFunctionMode):
    """Within, `x.float()` leaves float64 as it is: a reference that computes in float32 computes in float64."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is Tensor.float and args[0].dtype is torch.float64:
            return args[0]
        return function(*args, **(kwargs or {}))


class _same_seed:
    """PyTorch's generator at a seed, and as it was afterwards."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.state = torch.get_rng_state()
        torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.state)


def _seeded(function: Callable[..., Any], args: Sequence[Any], seed: int) -> Any:
    with _same_seed(seed):
        return function(*args)


def _judged(
    case: Case,
    dtype: torch.dtype,
    inputs: Sequence[Input],
    fused: Results,
    pairs: Sequence[tuple[Results, Results]],
    nearby: Results,
) -> Outcome:
    """By plain PyTorch's error, the greatest of `pairs` of its results with exact ones, of which the first is at the
    same inputs.
    """
    precision = str(dtype).removeprefix("torch.")
    anything: list[Tensor | None] = [None] * len(fused[0])
    # Where an input is itself NaN or infinite, the gradient is what PyTorch's code happens to do, its vectorised one
    # at times something else than its scalar one.
    finite = [t.isfinite() for t in _differentiable(inputs, case)]
    worst = [0.0, 0.0]
    (eager, exact), *others = pairs
    for index, factor, where in ((0, FORWARD, anything), (1, BACKWARD, finite)):
        each = zip(fused[index], eager[index], exact[index], nearby[index], where)
        for number, (a, b, c, d, at) in enumerate(each):
            known = next((t for t in (a, b, c, d) if t is not None), None)
            if known is None:
                continue
            # Autograd takes no gradient for zeros, which is what PyTorch yields of `sign` and the like.
            a, b, c, d = (torch.zeros_like(known) if t is None else t for t in (a, b, c, d))
            beside = max((_error(e[index][number], x[index][number], at) for e, x in others), default=0.0)
            problem, ratio = _ratio(a, b, c, d, factor, dtype, at, beside)
            if problem:
                return Outcome(case, precision, ratio, ratio, problem)
            worst[index] = max(worst[index], ratio)
    return Outcome(case, precision, worst[0], worst[1])


def _error(eager: Tensor | None, exact: Tensor | None, at: Tensor | None) -> float:
    """The greatest difference of what is finite in both, among the elements `at`."""
    if eager is None or exact is None or not eager.is_floating_point():
        return 0.0
    difference = (eager.double() - exact.double()).abs()
    found = (difference if at is None else difference[at]).nan_to_num(0.0, 0.0)
    return float(found.max()) if found.numel() else 0.0


def _ratio(
    fused: Tensor,
    eager: Tensor,
    exact: Tensor,
    nearby: Tensor,
    factor: float,
    dtype: torch.dtype,
    at: Tensor | None,
    beside: float = 0.0,
) -> tuple[str, float]:
    """The kernel's error over what it may err; of a gradient, only the elements `at` count.

    `beside` is how much plain PyTorch errs at other inputs, where that is known.
    """
    if fused.shape != exact.shape:
        return f"shape {tuple(fused.shape)}, not {tuple(exact.shape)}", 0.0
    if at is not None:
        fused, eager, exact, nearby = fused[at], eager[at], exact[at], nearby[at]
    if not fused.numel():
        return "", 0.0
    if not fused.is_floating_point():
        # What a comparison tells may depend on rounding: either precision's answer will do.
        return ("" if bool(((fused == eager) | (fused == exact)).all()) else "other values"), 0.0
    if _misplaced(fused, eager, exact, gradient=at is not None):
        return "NaN or infinity in other places", 0.0
    finite = torch.isfinite(eager) & torch.isfinite(exact)
    a, b, c, d = (t[finite].double() for t in (fused, eager, exact, nearby))
    if not c.numel():
        return "", 0.0
    floor = FLOOR if c.numel() >= FEW else FLOOR_OF_FEW
    allowed = factor * (b - c).abs().max().clamp(min=beside) + floor * torch.finfo(dtype).eps * c.abs().max().clamp(
        min=SMALL
    )
    allowed = allowed + (d - c).abs().nan_to_num(0.0, 0.0).max()
    return "", float((a - c).abs().max() / allowed)


def _misplaced(fused: Tensor, eager: Tensor, exact: Tensor, gradient: bool) -> bool:
    """Whether NaN (in a gradient: what is not finite) stands where PyTorch has something else.

    Where PyTorch's own precisions, or devices, disagree (inf * 0 in one formula, not in another) either will do.
    """
    marked: Callable[[Tensor], Tensor] = (lambda t: ~t.isfinite()) if gradient else torch.isnan
    settled = marked(eager) == marked(exact)
    if not torch.equal(marked(fused[settled]), marked(eager[settled])):
        return True
    return not bool(fused[torch.isfinite(eager) & torch.isfinite(exact)].isfinite().all())


def cases(path: Path) -> list[Case]:
    """The cases that the compiler wrote, each in every layout."""
    found = []
    for each in json.loads(path.read_text(encoding="utf-8")):
        shapes = tuple(map(tuple, each["shapes"]))
        for layout, special in _variants(shapes):
            if special and each.get("finite"):
                continue
            case = Case(each["group"], shapes, tuple(each["dtypes"]), tuple(each["scalars"]), layout, special)
            found.append(case)
    return found


def _variants(shapes: Sequence[Sequence[int]]) -> Iterator[tuple[str, bool]]:
    yield "contiguous", False
    if all(0 < n <= 64 for shape in shapes for n in shape):
        yield from (("transposed", False), ("sliced", False), ("expanded", False), ("contiguous", True))
        yield from (("channels_last", False) for _ in range(any(len(shape) > 3 for shape in shapes)))


def dtypes(device: str) -> list[torch.dtype]:
    """What is checked there: the interpreter computes bfloat16 wrongly."""
    low = [torch.bfloat16, torch.float16] if device == "cuda" else [torch.float16]
    return [torch.float32, *low]
