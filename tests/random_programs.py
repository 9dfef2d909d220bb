"""Random programs, compiled fused and unfused and compared: `python -m tests.random_programs 5000 [SEED] [-n JOBS]`.

A program is a module of statements over tensors of a few shapes: arithmetic with broadcasts, reductions, row operations,
masks and integers, draws, views, branches, loops, layers, calls of functions and of nested modules. Each runs in both
directions; every fifth has no corners and runs in bf16 and f16, too (the interpreter computes bf16 wrongly: there it is
the references that are compared). A failure is shrunk by dropping statements and by writing simpler ones.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.random_programs_data import Program, Statement
from tests.random_programs_make import Taste, generate

if TYPE_CHECKING:
    from tests.random_programs_run import Report

BATCH = 50
# One in so many has no corners, and runs in lower precision.
SMOOTH = 5


def batch(count: int, seed: int) -> tuple[list[Program], list[Program]]:
    """Programs, and those among them without corners."""
    drawn = generate(count, seed)
    smooth = {p.name: p for p in generate(count, seed, Taste(smooth=True))[::SMOOTH]}
    programs = [smooth.get(p.name, p) for p in drawn]
    return programs, [p for p in programs if p.name in smooth]


# Shrinking -----------------------------------------------------------------------------------------------------------


def without(program: Program, index: int) -> Program | None:
    """The program less one statement, what read it reading a value of the same type made before instead."""
    gone = program.statements[index]
    types = program.types
    before = [n for n in types if n not in {s.name for s in program.statements[index:]}]
    instead = next((n for n in reversed(before) if types[n] == gone.type), None)
    rest = [s for i, s in enumerate(program.statements) if i != index]
    if instead is None and any(gone.name in s.operands for s in rest):
        return None
    rest = [replace(s, operands=tuple(instead or o if o == gone.name else o for o in s.operands)) for s in rest]
    made = {s.name for s in rest}
    outputs = tuple(o for o in program.outputs if o in made) or tuple(s.name for s in rest[-1:])
    return replace(program, statements=tuple(rest), outputs=outputs) if outputs else None


def simpler(program: Program) -> Iterator[Program]:
    """What is a little less: a statement fewer, a result fewer, a statement that says less, inputs as they come."""
    for i in reversed(range(len(program.statements))):
        less = without(program, i)
        if less is not None:
            yield less
    for i in range(len(program.outputs) if len(program.outputs) > 1 else 0):
        yield replace(program, outputs=(*program.outputs[:i], *program.outputs[i + 1 :]))
    for i, statement in enumerate(program.statements):
        for text in _plainer(statement):
            said = replace(statement, text=text)
            yield replace(program, statements=(*program.statements[:i], said, *program.statements[i + 1 :]))
    if any(layout != "contiguous" for layout in program.layouts):
        yield replace(program, layouts=("contiguous",) * len(program.inputs))


def _plainer(statement: Statement) -> Iterator[str]:
    """The statement's text with one operation less, where it is made of assignments: a call is its first argument."""
    lines = statement.text.split("\n")
    for i, line in enumerate(lines):
        try:
            tree = ast.parse(line.replace("{", "P_").replace("}", "_P"))
        except SyntaxError:
            continue
        if tree.body and isinstance(tree.body[0], ast.Assign):
            for less in _less(tree.body[0]):
                text = ast.unparse(less).replace("P_", "{").replace("_P", "}").replace("'", '"')
                yield "\n".join([*lines[:i], text, *lines[i + 1 :]])
        if i < len(lines) - 1:
            yield "\n".join([*lines[:i], *lines[i + 1 :]])


def _less(tree: ast.stmt) -> Iterator[ast.AST]:
    """The tree with one operation replaced by one of its operands."""
    operations = [
        n for n in ast.walk(tree) if isinstance(n, (ast.Call, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Subscript))
    ]
    for number, operation in enumerate(operations):
        for choice in range(len(_operands(operation))):
            copied = deepcopy(tree)
            found = [n for n in ast.walk(copied) if isinstance(n, type(operation))]
            same = [n for n in operations[:number] if isinstance(n, type(operation))]
            yield _Instead(found[len(same)], choice).visit(copied)


def _operands(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.Call(args=args):
            return args[:2]
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.UnaryOp(operand=operand):
            return [operand]
        case ast.IfExp(body=body, orelse=other):
            return [body, other]
        case ast.Subscript(value=value):
            return [value]
    return []


class _Instead(ast.NodeTransformer):
    def __init__(self, gone: ast.AST, choice: int) -> None:
        self.gone, self.choice = gone, choice

    def visit(self, node: ast.AST) -> Any:
        return _operands(node)[self.choice] if node is self.gone else self.generic_visit(node)


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """The smallest program found that still fails; `fails` is asked of programs that may be wrong, too."""
    smaller: Program | None = program
    while smaller is not None:
        program = smaller
        smaller = next((p for p in simpler(program) if fails(p)), None)
    return program


# The command ---------------------------------------------------------------------------------------------------------


def checked(count: int, seed: int) -> tuple[Report, list[str]]:
    """A batch of programs checked, and what to tell of those that fail."""
    import torch

    from tests.random_programs_run import check

    torch.set_num_threads(1)
    programs, smooth = batch(count, seed)
    low = {p.name for p in smooth}
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        report = check(programs, Path(folder), smooth)
        told = []
        for name, problem in report.problems.items():
            whole = next(p for p in programs if p.name == name)
            small = shrunk(whole, partial(fails, folder=Path(folder), is_low=name in low))
            told.append(f"seed {seed}, {name}: {problem}\n{dict(small.sizes)} {small.layouts}\n{small.text()}")
    return report, told


def fails(program: Program, folder: Path, is_low: bool) -> bool:
    """Whether a program that is right computes something else fused."""
    from tests.helpers import built
    from tests.random_programs_run import check, source

    try:
        built(source([program]))
    except AssertionError:
        return False
    return bool(check([program], Path(tempfile.mkdtemp(dir=folder)), [program] if is_low else ()).problems)


def interpreted(module: str, argv: Sequence[str]) -> int | None:
    """Run a module of the tests again, in Triton's interpreter, where it is not; None where it is."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    return subprocess.call([sys.executable, "-W", "ignore", "-m", module, *argv], env=env)


def main(argv: Sequence[str]) -> int:
    """Check that many programs; prints each failure shrunk, and the counts. 1 where there are any."""
    parser = argparse.ArgumentParser(prog="tests.random_programs")
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("-n", "--jobs", type=int, default=1)
    args = parser.parse_args(argv)
    code = interpreted("tests.random_programs", argv)
    if code is not None:
        return code
    from tests.random_programs_run import Report

    start, total = time.perf_counter(), Report()
    work = [(min(BATCH, args.count - done), args.seed + done) for done in range(0, args.count, BATCH)]
    with ProcessPoolExecutor(args.jobs, get_context("fork")) as pool:
        for report, told in pool.map(checked, *zip(*work)):
            total.add(replace(report, problems={f"{total.programs} {n}": p for n, p in report.problems.items()}))
            print(*told, sep="\n", end="\n" if told else "", flush=True)
    low = f"{total.low} runs in bf16 and f16, {total.once} that differed for one draw of numbers alone"
    print(f"{total.programs} programs, {len(total.problems)} mismatches")
    print(f"{total.ops} operations, {total.groups} groups, {low}; {time.perf_counter() - start:.0f} s")
    return 1 if total.problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
