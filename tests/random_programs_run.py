"""Random programs compiled, run in both directions, and compared: needs `TRITON_INTERPRET=1`.

Draws are the same everywhere: each draw of the program without groups takes the seed and stream that the draw has in
the program with groups.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.ir import Graph
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.passes.place_casts import place_casts
from tdsl.runtime import launch, random
from tests.helpers import UNFUSED, built, emitted, graph_of, written
from tests.random_programs_data import Program
from tests.random_programs_judge import OffByOne, Results, difference
from tests.random_programs_text import LIBRARY
from tests.running import loaded

SEED = 1 << 40
# How often a program is run with rounding of its own, where it differs.
NEARBY = 4
LOW = {"bf16": torch.bfloat16, "f16": torch.float16}


# Programs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """Programs in one file, as modules of Python, with groups and without."""

    fused: ModuleType
    plain: ModuleType
    units: tuple[Unit, Unit]

    def streams(self, name: str) -> list[int]:
        """The stream within its kernel of each draw, in the order in which the program without groups draws."""
        fused, plain = (graph_of(unit, name) for unit in self.units)
        drawn = {v: i for g in _bodies(fused) for i, v in enumerate(_draws(g))}
        return [drawn.get(v, 0) for v in _draws(plain)]


def _bodies(graph: Graph) -> list[Graph]:
    return [node.group.body for node in graph.nodes if node.group is not None]


def _draws(graph: Graph) -> list[Any]:
    return [node.output for node in graph.nodes if node.op.kind is Kind.RANDOM]


def source(programs: Sequence[Program]) -> str:
    """The file with these programs."""
    return LIBRARY + "".join(p.text() for p in programs)


def compiled(text: str, folder: Path, precision: str = "f32") -> Compiled:
    """A file compiled for a precision, with groups and without."""
    unit = built(text)
    units = (pipeline.run(unit), pipeline.run(unit, UNFUSED))
    low = [pipeline.distinct(place_casts(u, precision)) for u in units]
    made = [loaded(written(emitted(u), folder / name)) for u, name in zip(low, ("fused", "plain"))]
    return Compiled(made[0], made[1], units)


# Numbers -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """What a program is run on: a state, inputs and a way to draw the gradients of its results."""

    state: dict[str, Tensor]
    inputs: list[Tensor]
    draw: int = 0

    def gradient(self, index: int, like: Tensor) -> Tensor:
        """The gradient of a result, as autograd hands them: contiguous, transposed, or one number expanded."""
        generator = torch.Generator().manual_seed(index + 100 * self.draw)
        how = torch.randint(4, (), generator=generator).item()
        if how == 0:
            return torch.randn((), generator=generator).to(like.dtype).expand(like.shape)
        if how == 1 and like.dim() > 1:
            return torch.randn(like.mT.shape, generator=generator).to(like.dtype).mT
        return torch.randn(like.shape, generator=generator).to(like.dtype)


def numbers(program: Program, model: ModuleType, draw: int = 0) -> Numbers:
    """Random numbers for a program."""
    generator = torch.Generator().manual_seed(len(program.statements) + 1000 * draw)
    state = getattr(model, program.name)().state_dict()
    state = {n: torch.randn(t.shape, generator=generator) * 0.5 for n, t in state.items()}
    layouts = program.layouts or ("contiguous",) * len(program.inputs)
    inputs = [_input(t.dtype, _shape(program, t.shape), how, generator) for (_, t), how in zip(program.inputs, layouts)]
    return Numbers(state, inputs, draw)


def _shape(program: Program, shape: Sequence[str]) -> list[int]:
    sizes = dict(program.sizes)
    return [sizes[d] for d in shape]


def _input(dtype: str, shape: list[int], layout: str, generator: torch.Generator) -> Tensor:
    def made(wanted: Sequence[int]) -> Tensor:
        if dtype == "float":
            return torch.randn(wanted, generator=generator)
        return torch.randint(-4, 5, wanted, generator=generator) if dtype == "int" else made_mask(wanted)

    def made_mask(wanted: Sequence[int]) -> Tensor:
        return torch.rand(wanted, generator=generator) < 0.5

    if layout == "transposed":
        return made(shape[::-1]).permute(*reversed(range(len(shape))))
    if layout == "sliced":
        return made([2 * s for s in shape])[tuple(slice(None, None, 2) for _ in shape)]
    if layout == "expanded":
        return made([1, *shape[1:]]).expand(shape)
    return made(shape)


# Running -------------------------------------------------------------------------------------------------------------


@contextmanager
def drawing(streams: Iterator[int]) -> Iterator[None]:
    """Every draw from one seed: kernels and references by their own streams, PyTorch's by those given."""

    def seed() -> int:
        return SEED + next(streams)

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        drawn = seed()
        return random.dropout(x, p, drawn) if training else x

    with (
        mock.patch.object(random, "next_seed", return_value=SEED),
        mock.patch.object(torch.nn.functional, "dropout", dropout),
        mock.patch.object(torch, "rand_like", lambda x: random.rand_like(x, seed())),
        mock.patch.object(torch, "randn_like", lambda x: random.randn_like(x, seed())),
    ):
        yield


@contextmanager
def tiles(small: bool) -> Iterator[None]:
    """Tiles of a few elements, where `small`: each form of a kernel then takes several programs and steps."""
    usual = launch.row_tile

    def row_tile(n_cols: int, live: int, longest: int = 16384) -> launch.Tile:
        return usual(n_cols, live, longest)._replace(rows=2)

    changes: dict[str, Any] = {"CHUNK": 4, "MOST_PROGRAMS": 1, "row_tile": row_tile}
    changes |= {"flat_tile": lambda: launch.Tile(1, 8, 1), "column_tile": lambda n_cols: launch.Tile(2, 4, 1)}
    with mock.patch.multiple(launch, **changes) if small else nullcontext():
        yield


@contextmanager
def computing_in(dtype: torch.dtype) -> Iterator[None]:
    """What is made of integers and numbers is of this dtype, too."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


def run(
    made: Callable[[], Any],
    given: Numbers,
    dtype: torch.dtype = torch.float32,
    streams: Sequence[int] = (),
    program: Program | None = None,
) -> Results:
    """Results, then gradients of inputs and parameters; in a low precision parameters stay in float32."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    small, training = (program.small, program.training) if program is not None else (False, True)
    with computing_in(wide), drawing(itertools.chain(streams, itertools.repeat(0))), tiles(small):
        model = made().train(training)
        model.load_state_dict(given.state)
        model = model.to(wide)
        leaves = [_leaf(x, dtype) for x in given.inputs]
        found = model(*leaves)
        outputs = found if isinstance(found, tuple) else (found,)
        grads = [given.gradient(i, o) for i, o in enumerate(outputs)]
        wanted = [*(x for x in leaves if x.requires_grad), *model.parameters()]
        pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
        # What has no gradient anywhere hands on none, where PyTorch hands on zeros.
        back: Sequence[Tensor | None] = [None] * len(wanted)
        if pairs:
            roots, handed = zip(*pairs, strict=True)
            back = torch.autograd.grad(roots, wanted, handed, allow_unused=True)
    return [_judged(o.detach()) for o in outputs] + [None if g is None else _judged(g) for g in back]


def _leaf(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).detach().requires_grad_() if x.is_floating_point() else x


def _judged(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


# Comparing -----------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What was checked, and what is wrong with each program that is wrong, by its name.

    `once` are those that differed for one draw of numbers and not for two others: a value on the edge of a step.
    """

    programs: int = 0
    ops: int = 0
    groups: int = 0
    low: int = 0
    once: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        for name in ("programs", "ops", "groups", "low", "once"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems |= other.problems


def check(programs: Sequence[Program], folder: Path, low: Sequence[Program] = ()) -> Report:
    """Compare programs fused and unfused, in float32, and those of `low`, which have no corners, in bf16 and f16, too."""
    report = Report()
    try:
        report.add(_checked(programs, folder))
        for precision in LOW if low else ():
            report.add(_checked_low(low, precision, folder))
    except Exception as error:
        every = [*programs, *(p for p in low if p not in programs)]
        if len(every) == 1:
            name = every[0].name
            return Report(1, problems={name: f"{type(error).__name__}: {str(error)[-800:]}"})
        # The compiler itself failed: on which one?
        for program in every:
            alone = (program,) if program in low else ()
            report.add(check([program], Path(tempfile.mkdtemp(dir=folder)), alone))
    return report


def _checked(programs: Sequence[Program], folder: Path) -> Report:
    both = compiled(source(programs), folder)
    graphs = [graph_of(unit, p.name) for p in programs for unit in both.units]
    report = Report(len(programs), sum(len(g.nodes) for g in graphs[1::2]), sum(len(_bodies(g)) for g in graphs[::2]))
    _settle(report, programs, lambda p, draw: compared(p, both, draw))
    return report


def _checked_low(programs: Sequence[Program], precision: str, folder: Path) -> Report:
    text, dtype = source(programs), LOW[precision]
    exact, both = compiled(text, folder / "exact"), compiled(text, folder / precision, precision)
    report = Report(low=len(programs))
    _settle(report, programs, lambda p, draw: _compared_low(p, exact, both, dtype, draw))
    report.problems = {n: f"in {precision}: {problem}" for n, problem in report.problems.items()}
    return report


def _settle(report: Report, programs: Sequence[Program], compare: Callable[[Program, int], str]) -> None:
    for program in programs:
        problem = compare(program, 0)
        if problem and not any(compare(program, draw) for draw in (1, 2)):
            report.once += 1
        elif problem:
            report.problems[program.name] = problem


def compared(program: Program, both: Compiled, draw: int = 0) -> str:
    """What differs between the kernels and PyTorch without groups, against float64."""
    plain, fused, streams = (
        getattr(both.plain, program.name),
        getattr(both.fused, program.name),
        both.streams(program.name),
    )
    given = numbers(program, both.plain, draw)
    try:
        eager, exact = (run(plain, given, t, streams, program) for t in (torch.float32, torch.float64))
        found = run(fused, given, torch.float32, (), program)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[-800:]}"
    told = difference(found, eager, exact, 8, 2e-5)
    if not told:
        return ""
    nearby = []
    for seed in range(NEARBY):
        with OffByOne(seed):
            nearby.append(run(plain, given, torch.float64, streams, program))
    return difference(found, eager, exact, 8, 2e-5, nearby)


def _compared_low(program: Program, exact: Compiled, both: Compiled, dtype: torch.dtype, draw: int) -> str:
    """The references against PyTorch without groups at that precision, and in f16 the kernels against both."""
    streams, given = exact.streams(program.name), numbers(program, exact.plain, draw)
    plain, fused = getattr(both.plain, program.name), getattr(both.fused, program.name)
    units = 8 * torch.finfo(dtype).eps
    try:
        judge = run(getattr(exact.plain, program.name), given, torch.float64, streams, program)
        eager = run(plain, given, dtype, streams, program)
        if not all(bool(r.isfinite().all()) for r in eager if r is not None):
            return ""
        with mock.patch.object(launch, "use_kernels", return_value=False):
            reference = run(fused, given, dtype, (), program)
        kernels = run(fused, given, dtype, (), program)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[-800:]}"
    told = difference(reference, eager, judge, 6, units)
    return told or difference(kernels, reference, judge, 4, units)
