"""Every derived backward against finite differences, in float64: `python -m tests.gradcheck [NAME ...]`.

Each operation that kernels compute is taken with PyTorch's own samples of it, and in the programs of `kernel_cases`.
What is checked is the IR of the backward, run by the reference interpreter; for pointwise operations the second
derivative of the reference too, which is what a gradient of a gradient goes through.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tdsl.compiler.ir import Group
from tdsl.compiler.kernel import Kernel
from tdsl.compiler.ops import OPS, Kind
from tdsl.compiler.passes.differentiate import differentiate
from tdsl.compiler.passes.lower import lower
from tests.helpers import compiled, graph_of, group_of
from tests.interpret import evaluate, reference
from tests.kernel_cases import BATCHES, SPLIT
from tests.opinfo import table
from tests.opinfo.check import mistake
from tests.opinfo.run import expect, has_kernel
from tests.opinfo.samples import Case, cases

# More elements than this take seconds to perturb one by one.
MOST_ELEMENTS = 400
# They jump: only very near neighbours are on the same side.
JUMPS = {"remainder", "fmod", "floor_divide", "div", "round", "floor", "ceil", "trunc", "frac", "sign"}
# Of which PyTorch has no second derivative.
ONCE = {"hardsigmoid"}
PROGRAMS = {n: t for f, b in BATCHES.items() if f != "random" for n, t in b.items() if n not in SPLIT}
# What only backwards have: an operation that a kernel has in the place of another, and a program with that one.
BACKWARDS = {
    "scan_back": (
        "scan_sum",
        "module Kernel(D: int = 5) {\n    forward(x: float[B, D]) -> float[B, D] { return cumsum(tanh(x), -1) * x }\n}\n",
    )
}
SIZES = {"B": 2, "T": 2, "D": 5, "...": 2}


@dataclass(frozen=True)
class Outcome:
    """What was found of one program: the primitives of its kernel, and the problem, empty where there is none."""

    text: str
    primitives: frozenset[str]
    problem: str


class Derived(torch.autograd.Function):
    """A kernel whose backward is the derived one."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, like: Sequence[Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.kernel = kernel
        ctx.save_for_backward(*inputs)
        results, _ = evaluate(kernel, inputs, [torch.zeros_like(t) for t in like])
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [t.detach().requires_grad_(t.is_floating_point()) for t in ctx.saved_tensors]
        _, found = evaluate(ctx.kernel, inputs, grads)
        by_input = iter(found)
        return None, None, *(next(by_input) if t.requires_grad else None for t in inputs)


def names() -> list[str]:
    """The operations that kernels compute."""
    return [name for name in table.names() if has_kernel(name)]


def samples(name: str, most: int | None = None) -> Iterator[Outcome]:
    """Check the samples of an operation that a kernel can take, `most` of them at the most."""
    found = 0
    for key in table.entries(name):
        for case in cases(key, name):
            if found == most:
                return
            grouped = _grouped(case)
            if grouped is not None:
                found += 1
                group, inputs = grouped
                once = name in ONCE | JUMPS
                yield _outcome(case.text("Kernel"), lower(group), inputs, jumps=name in JUMPS, once=once)


def program(name: str) -> Outcome:
    """Check a program of `kernel_cases`."""
    group = group_of(compiled(PROGRAMS[name]), name)
    return _outcome(PROGRAMS[name], lower(group), _inputs(group), once=True)


def backward(name: str) -> Outcome:
    """Check an operation of `BACKWARDS`, which no program has in its forward."""
    instead, text = BACKWARDS[name]
    group = group_of(compiled(text), "Kernel")
    kernel = lower(group)
    nodes = tuple(replace(n, op=OPS[name]) if n.op.name == instead else n for n in kernel.forward.nodes)
    return _outcome(text, replace(kernel, forward=replace(kernel.forward, nodes=nodes)), _inputs(group), once=True)


def _inputs(group: Group) -> list[Tensor]:
    torch.manual_seed(1)
    inputs = []
    for value in group.body.inputs:
        sizes = {symbol: SIZES[symbol.name] for size in value.type.shape for symbol in size.symbols()}
        inputs.append(_drawn(value.type.dtype, [size.substitute(sizes).constant for size in value.type.shape]))
    return inputs


def _drawn(dtype: str, shape: Sequence[int | None]) -> Tensor:
    if dtype == "bool":
        return torch.rand(shape) < 0.5
    if dtype == "i64":
        return torch.randint(1, 8, shape)
    # Between the bounds and bends that the programs have, all of them at tenths.
    return (torch.randint(-20, 20, shape) / 10 + 0.02 + 0.06 * torch.rand(shape)).double().requires_grad_()


def _grouped(case: Case) -> tuple[Group, list[Tensor]] | None:
    """The sample as a group and its inputs in float64; None where it has no derivative or no kernel takes it."""
    if case.skipped or sum(t.numel() for t in case.inputs) > MOST_ELEMENTS or expect(case) or len(case.expected) != 1:
        return None
    (result,) = case.expected
    smooth = result.is_floating_point() and result.numel() and bool(result.isfinite().all())
    if not smooth or any(t.dtype == torch.float64 for t in (*case.inputs, result)) or mistake(case.text("Kernel")):
        return None
    graph = graph_of(compiled(case.text("Kernel")), f"{case.module}Kernel")
    if len(graph.nodes) != 1 or graph.nodes[0].group is None:
        return None
    group = graph.nodes[0].group
    given = dict(zip(graph.inputs, case.inputs, strict=True))
    return group, [_double(given[v]) for v in group.body.inputs]


def _double(t: Tensor) -> Tensor:
    return t.detach().double().requires_grad_() if t.is_floating_point() else t


def _outcome(text: str, kernel: Kernel, inputs: Sequence[Tensor], jumps: bool = False, once: bool = False) -> Outcome:
    group, kernel = kernel.group, differentiate(kernel)
    like = [r.detach() for r in reference(group, inputs)]
    pointwise = all(n.op.kind is Kind.POINTWISE for n in group.body.nodes)
    problem = ""
    try:
        gradcheck(
            lambda *given: Derived.apply(kernel, like, *given), tuple(inputs), eps=1e-9 if jumps else 1e-6, atol=2e-5
        )
        if pointwise and not once and reference(group, inputs)[0].requires_grad:
            gradgradcheck(lambda *given: reference(group, given)[0], tuple(inputs), fast_mode=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:400]
    return Outcome(text, frozenset(n.op.name for n in kernel.forward.nodes), problem)


def with_vjp() -> set[str]:
    """The primitives that have a gradient, but for those that draw numbers and those that only backwards have."""
    return {op.name for op in OPS.values() if op.vjp is not None and op.kind is not Kind.RANDOM} - {"spread"}


def _found(name: str) -> list[Outcome]:
    if name in BACKWARDS:
        return [backward(name)]
    return list(samples(name)) if name in OPS else [program(name)]


def main(argv: Sequence[str]) -> int:
    """1 where a backward is wrong, or none has been checked."""
    torch.set_num_threads(1)
    wanted = argv or [*names(), *PROGRAMS, *BACKWARDS]
    outcomes: list[Outcome] = []
    for name in wanted:
        found = _found(name)
        bad = [o for o in found if o.problem]
        print(f"{name:<34} {len(found) - len(bad):>4} of {len(found)}", flush=True)
        for outcome in bad:
            print(f"{outcome.text}  {outcome.problem}\n")
        outcomes += found
    wrong = sum(bool(o.problem) for o in outcomes)
    left = with_vjp() - {name for o in outcomes for name in o.primitives} if not argv else set()
    print(f"\n{len(outcomes)} programs, {wrong} wrong")
    if left:
        print(f"not checked: {', '.join(sorted(left))}")
    return 1 if wrong or left else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
