"""Programs written in another way that mean the same, compared: `python -m tests.metamorphic 500 [SEED] [-n JOBS]`.

- *fusion*: with groups and without;
- *names*: values, parameters, sizes and modules called otherwise: bit for bit the same;
- *declarations*: in another order, members of modules too;
- *order*: statements that do not wait for each other in another order;
- *identities*: operations put in that change nothing;
- *split*: a batch in two, where rows of the batch are apart.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.random_programs import interpreted
from tests.random_programs_data import Program, Statement
from tests.random_programs_make import Taste, generate

if TYPE_CHECKING:
    from torch import Tensor

    from tests.random_programs_judge import Results
    from tests.random_programs_run import Compiled, Numbers

BATCH = 20
IDENTITIES = ("{0} * 1", "{0} + 0", "0 + {0}", "{0} / 1", "-(-{0})", "{0} ** 1", "where({0} == {0}, {0}, {0})",
              "maximum({0}, {0})", "unsqueeze({0}, 0).squeeze(0)", "clamp({0}, min=-inf)", "lerp({0}, {0}, 0.3)")  # fmt: skip
# For a tensor with dimensions.
MOVES = (
    "flip(flip({0}, [0]), [0])",
    "cat([{0}], dim=0)",
    "roll(roll({0}, 1, -1), -1, -1)",
    "stack([{0}, {0}], dim=0)[1]",
)
# Names as they are, and otherwise.
RENAMED = {"B": "Rows", "T": "Steps", "D": "Width", "K": "Count", "deep": "flag", "n": "index", "m": "chosen"}


# Other ways to write it ----------------------------------------------------------------------------------------------


def renamed(text: str) -> str:
    """Every name of a program's own called otherwise; strings keep their letters."""
    parts = re.split(r'("[^"]*")', text)
    return "".join(p if p.startswith('"') else re.sub(r"\b[A-Za-z]\w*\b", _other_name, p) for p in parts)


def _other_name(match: re.Match[str]) -> str:
    name = match[0]
    if name in RENAMED:
        return RENAMED[name]
    own = re.fullmatch(r"([vxwP])(\d+)(\w*)", name)
    kinds = {"v": "step", "x": "given", "w": "learned", "P": "Program"}
    return f"{kinds[own[1]]}{own[2]}{own[3]}" if own else name


def redeclared(text: str, draw: random.Random) -> str:
    """Declarations from the last to the first, members of modules shuffled."""
    found = re.findall(r"^(?:fn|module) .*?^}\n", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(_shuffled_members(d, draw) for d in reversed(found))


def _shuffled_members(declaration: str, draw: random.Random) -> str:
    if not declaration.startswith("module"):
        return declaration
    head, *lines = declaration.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("    forward"))
    return "\n".join([head, *draw.sample(lines[:at], at), *lines[at:]])


def moved(program: Program, draw: random.Random) -> Program:
    """Statements in another order, each after those whose results it reads."""
    left, done = list(program.statements), []
    while left:
        waiting = {s.name for s in left}
        chosen = draw.choice([s for s in left if not waiting & set(s.operands)])
        left.remove(chosen)
        done.append(chosen)
    return replace(program, statements=tuple(done))


def with_identities(program: Program, draw: random.Random) -> Program:
    """Operations that change nothing after some statements."""
    return replace(program, statements=tuple(_and_nothing_more(s, draw) for s in program.statements))


def _and_nothing_more(statement: Statement, draw: random.Random) -> Statement:
    if statement.type.dtype != "float" or draw.random() < 0.4:
        return statement
    shape = statement.type.shape
    choices = [*IDENTITIES, *(MOVES if shape else ()), *([f"reshape({{0}}, {', '.join(shape)})"] if shape else [])]
    choices += ["transpose(transpose({0}, -1, -2), -1, -2)"] if len(shape) > 1 else []
    lines = [f"{{name}} = {text.replace('{0}', '{name}')}" for text in draw.sample(choices, draw.randint(1, 2))]
    return replace(statement, text="\n".join([statement.text, *lines]))


# Comparing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A program as it is: its numbers, and its results by kernels, by PyTorch, and in float64."""

    program: Program
    given: Numbers
    found: Results
    eager: Results
    exact: Results

    def differs(self, found: Results) -> str:
        from tests.random_programs_judge import difference

        return difference(found, self.eager, self.exact, 8, 2e-5)

    def differs_at_all(self, found: Results) -> str:
        from tests.random_programs_judge import difference

        return difference(found, self.found, self.found, 0, 0)


def _base(program: Program, both: Compiled, draw: int) -> Base:
    import torch

    from tests.random_programs_run import numbers, run

    fused, plain = (getattr(m, program.name) for m in (both.fused, both.plain))
    given = numbers(program, both.plain, draw)
    eager, exact = (run(plain, given, t, (), program) for t in (torch.float32, torch.float64))
    return Base(program, given, run(fused, given, torch.float32, (), program), eager, exact)


Comparison = Callable[[Base], str]


def _fusion(base: Base) -> str:
    return base.differs(base.found)


def _renamed(made: Any) -> Comparison:
    def compare(base: Base) -> str:
        from tests.random_programs_run import run

        names = dict(zip(base.given.state, made().state_dict(), strict=True))
        given = replace(base.given, state={names[n]: t for n, t in base.given.state.items()})
        return base.differs_at_all(run(made, given, program=base.program))

    return compare


def _redeclared(made: Any, like: Any) -> Comparison:
    def compare(base: Base) -> str:
        from tests.random_programs_run import run

        found = run(made, base.given, program=base.program)
        mine, theirs = ([n for n, _ in each().named_parameters()] for each in (made, like))
        before = len(found) - len(mine)
        by_name = dict(zip(mine, found[before:], strict=True))
        return base.differs([*found[:before], *(by_name[n] for n in theirs)])

    return compare


def _rewritten(made: Any) -> Comparison:
    def compare(base: Base) -> str:
        from tests.random_programs_run import run

        return base.differs(run(made, base.given, program=base.program))

    return compare


def _split(made: Any) -> Comparison:
    def compare(base: Base) -> str:
        import torch

        program = base.program
        rows = dict(program.sizes)["B"]
        parts = [_part(base, made, torch.arange(rows) < rows // 2), _part(base, made, torch.arange(rows) >= rows // 2)]
        return base.differs([_joined(base, i, parts) for i in range(len(base.found))])

    return compare


def _part(base: Base, made: Any, rows: Tensor) -> Results:
    """Results and gradients for some rows of the batch."""
    from tests.random_programs_run import Numbers, run

    whole, types = base.given, [base.program.types[n] for n in base.program.outputs]
    is_first = bool(rows[0])

    class Part(Numbers):
        def gradient(self, index: int, like: Tensor) -> Tensor:
            if types[index].shape[:1] == ("B",):
                return whole.gradient(index, like.new_empty(len(rows), *like.shape[1:]))[rows]
            # What is made of parameters alone is the same in both parts: its gradient counts once.
            return whole.gradient(index, like) * is_first

    given = Part(whole.state, [x[rows] for x in whole.inputs], whole.draw)
    return run(made, given, program=base.program)


def _joined(base: Base, index: int, parts: Sequence[Results]) -> Tensor | None:
    """A result of the whole batch from those of its parts: one after another, or their sum."""
    import torch

    outputs = [base.program.types[n].shape[:1] == ("B",) for n in base.program.outputs]
    inputs = [True for x in base.given.inputs if x.is_floating_point()]
    by_rows = [*outputs, *inputs]
    a, b = (part[index] for part in parts)
    if a is None or b is None:
        return a if b is None else b
    if index < len(by_rows) and by_rows[index]:
        return torch.cat([a, b])
    return a if index < len(outputs) else a + b


# The command ---------------------------------------------------------------------------------------------------------


def comparisons(
    programs: Sequence[Program], both: Compiled, seed: int, folder: Path
) -> list[tuple[str, str, Comparison]]:
    """What to compare: the name of a relation and of a program, and the comparison."""
    from tests.helpers import compiled, emitted, written
    from tests.random_programs_run import source
    from tests.running import loaded

    def fused(name: str, text: str) -> Any:
        return loaded(written(emitted(compiled(text)), folder / name))

    draw = random.Random(seed)
    text = source(programs)
    names, declared = fused("names", renamed(text)), fused("declarations", redeclared(text, draw))
    order = fused("order", source([moved(p, draw) for p in programs]))
    more = fused("identities", source([with_identities(p, draw) for p in programs]))
    found: list[tuple[str, str, Comparison]] = []
    for p in programs:
        made = getattr(both.fused, p.name)
        found += [("fusion", p.name, _fusion), ("names", p.name, _renamed(getattr(names, f"Program{p.name[1:]}")))]
        found.append(("declarations", p.name, _redeclared(getattr(declared, p.name), made)))
        found += [(n, p.name, _rewritten(getattr(m, p.name))) for n, m in (("order", order), ("identities", more))]
        found += [("split", p.name, _split(made))] if _is_rowwise(p) else []
    return found


def _is_rowwise(program: Program) -> bool:
    return program.name.startswith("P1")


def drawn(count: int, seed: int) -> list[Program]:
    """Programs without draws; those whose rows are apart are called `P1...`, the others `P2...`."""
    half = (count + 1) // 2
    rows = generate(half, seed, Taste(rowwise=True, drawing=False))
    others = generate(count - half, seed, Taste(drawing=False))
    return [_called(p, f"P1{p.name[1:]}") for p in rows] + [_called(p, f"P2{p.name[1:]}") for p in others]


def _called(program: Program, name: str) -> Program:
    """The program, and its helpers, under another name."""
    old = program.name

    def said(text: str) -> str:
        return re.sub(rf"\b({old}|{old.lower()})(?=Part|part)", lambda m: name if m[0] == old else name.lower(), text)

    statements = tuple(replace(s, text=said(s.text)) for s in program.statements)
    helpers = tuple(replace(h, name=said(h.name)) for h in program.helpers)
    return replace(program, name=name, statements=statements, helpers=helpers)


def checked(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How many comparisons of each kind a batch had, and what to tell of those that failed."""
    import torch

    from tests.random_programs_run import compiled, source

    torch.set_num_threads(1)
    programs = drawn(count, seed)
    by_name = {p.name: p for p in programs}
    counts: Counter[str] = Counter()
    told = []
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        both = compiled(source(programs), Path(folder))
        bases = {p.name: _base(p, both, 0) for p in programs}
        for relation, name, compare in comparisons(programs, both, seed, Path(folder)):
            counts[relation] += 1
            problem = compare(bases[name])
            # A value on the edge of a step differs for one draw of numbers, a fault for others as well.
            if problem and any(compare(_base(by_name[name], both, draw)) for draw in (1, 2)):
                told.append(f"{relation}, seed {seed}, {name}: {problem}\n{by_name[name].text()}")
    return counts, told


def main(argv: Sequence[str]) -> int:
    """Compare that many programs; prints what differs, and the counts. 1 where anything does."""
    parser = argparse.ArgumentParser(prog="tests.metamorphic")
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("-n", "--jobs", type=int, default=1)
    args = parser.parse_args(argv)
    code = interpreted("tests.metamorphic", argv)
    if code is not None:
        return code
    start, counts, mismatches = time.perf_counter(), Counter[str](), 0
    work = [(min(BATCH, args.count - done), args.seed + done) for done in range(0, args.count, BATCH)]
    with ProcessPoolExecutor(args.jobs, get_context("fork")) as pool:
        for found, told in pool.map(checked, *zip(*work)):
            counts += found
            mismatches += len(told)
            print(*told, sep="\n", end="\n" if told else "", flush=True)
    each = ", ".join(f"{name} {n}" for name, n in counts.items())
    print(f"{counts['fusion']} programs, {counts.total()} comparisons, {mismatches} mismatches")
    print(f"{each}; {time.perf_counter() - start:.0f} s")
    return 1 if mismatches else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
