"""Faults planted in the compiler: `python -m tests.mutants [NAME ...]` prints which are caught, and by what.

Each changes one thing in one place. It is caught by the project's ordinary checks: the compiler's own (it stops), rules
of the emitted text (what the interpreter can't show), the kernels of `KERNELS` by `tdsl verify`'s comparison with
float64, and random programs of one seed. Checks that pass without a fault and that no fault passes are worth something.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tdsl.compiler.emit import function, groups, kernel_writer, kernels, triton
from tdsl.compiler.ir import Scalar
from tdsl.compiler.kernel import Layout, Space
from tdsl.compiler.ops import trace
from tdsl.compiler.ops.rows import COLS
from tdsl.compiler.passes import cast_bodies, differentiate, fuse, lower
from tests import helpers, mutants_structured
from tests.lax import lax
from tests.mutants_plant import Check, Plant, changed, op, text
from tests.random_programs import batch, interpreted

KERNELS = """module M(D: int = 13) {
    param weight: [D] = ones()
    param scale: [] = ones()
    forward(x: float[B, D], y: float[B, D], s: float[B, 1]) -> (float[B, D], float[B, D]) {
        h = x * tanh(y) - x / (abs(y) + 1)
        p = softmax(h * scale, dim=-1)
        z = maximum(p, x) * weight + s
        z = z + maximum(y, y)
        return p, z - mean(z * z, dim=-1, keepdim=true) - amax(z, dim=-1, keepdim=true)
    }
}
module Drop(D: int = 13) {
    forward(x: float[B, D]) -> float[B, D] { return dropout(x * x, 0.4) }
}
module Long() {
    forward(x: float[B, T], w: float[T]) -> float[B, T] { return softmax(x * w, dim=-1) - 0.1 * w }
}
module Part(D: int = 6) {
    forward(x: float[B, T, D], m: float[B, 1, D]) -> (float[B, T, D], bool[B, T, D]) {
        h = tanh(x * m) + m
        return h, abs(x) > 0.5
    }
}
module Sums(D: int = 13) {
    forward(x: float[B, D], y: float[B, D]) -> (float[], float[D]) {
        d = exp(0.1 * (x - y) ** 2)
        return d.mean(), (d * x).mean(0)
    }
}
module Flat() {
    forward(x: float[N], y: float[N]) -> float[] { return cos(x * y).mean() }
}
module Pieces(D: int = 7) {
    forward(h: float[B, 2 * D], z: float[B, 3 * D]) -> (float[B, D], float[B, D]) {
        a, b = h.chunk(2, -1)
        p, q, r = z.chunk(3, -1)
        return silu(a) * b, tanh(q) * q
    }
}
module Moved(D: int = 6) {
    forward(x: float[B, T, D], y: float[T, B, D]) -> float[T, B, D] { return tanh(x.transpose(0, 1)) * y + y }
}
module Picked() {
    forward(x: float[B, 9], n: int[B, 1]) -> float[B, 9] { return x * x.gather(1, n) + softmax(x, -1).cumsum(-1) }
}
module Channels(C: int = 3) {
    param scale: [C, 1, 1] = ones()
    forward(x: float[B, C, H, W], m: float[B, 1, H, W]) -> float[B, C, H, W] { return tanh(x * scale) * m + x }
}
module Zero(D: int = 13) {
    forward(x: float[B, D], y: float[B, D]) -> float[B, D] { return x * 0 + tanh(y) }
}
"""
SEED, COUNT = 7, 40
# More of the processor's time than compiling these programs takes, also where others use the other half of a core: what
# waits for itself never ends.
PATIENCE = 90
# Seconds in which a process that does anything is given some of the processor's time.
STILL = 20.0


class OutOfPatience(BaseException):
    """No mistake of the compiler's, which the checks tell, but the end of waiting for it."""


# Planting ------------------------------------------------------------------------------------------------------------


def _misplaced(place: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, t: (f"{t.name}_ptr + cols", "col_mask") if t.layout is Layout.ROW else place(self, t)


def _reseeded(flat: Callable[..., Any]) -> Callable[..., Any]:
    def changed(self: Any) -> list[str]:
        backward = any(t.name.startswith("d_") for t in self.writes)
        return [x.replace("uniform(seed", "uniform(seed + 1") if backward else x for x in flat(self)]

    return changed


def _one_stream(node_: Callable[..., Any]) -> Callable[..., Any]:
    def changed(self: Any, node: Any) -> None:
        node_(self, node)
        self.draws = min(self.draws, 1) and 0 if len(self.group.body.nodes) > 1 else self.draws

    return changed


def _without_runs(aligned: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args: replace(found, runs=()) if (found := aligned(self, *args)) is not None else None


def _undivided(kernel: Any) -> Any:
    return replace(kernel, outputs=tuple(replace(p, count=None) for p in kernel.outputs))


def _zero_folded(fold: Callable[..., Any]) -> Callable[..., Any]:
    def changed(name: str, args: Any) -> Any:
        zero = name == "mul" and any(isinstance(a.operand, Scalar) and a.operand.value == 0 for a in args)
        return 0 if zero else fold(name, args)

    return changed


def _loose(same: Callable[..., Any]) -> Callable[..., Any]:
    return lambda group: tuple(n.op.name for n in group.body.nodes)


def _swapped(names: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: names(self)[::-1]


def _handed_back_turned(save: Callable[..., Any]) -> Callable[..., Any]:
    def changed(self: Any) -> list[str]:
        head, *rest = save(self)
        inside = re.fullmatch(r"ctx.save_for_backward\((.*)\)", head)
        return [f"ctx.save_for_backward({', '.join(inside[1].split(', ')[::-1])})" if inside else head, *rest]

    return changed


MUTANTS: dict[str, Plant] = {
    "the gradient of a product forgets a factor": lambda: op("mul", vjp=lambda t, g, y, a, b: (g, g * a)),
    "the gradient of a difference has the wrong sign": lambda: op("sub", vjp=lambda t, g, y, a, b: (g, g)),
    "the gradient of tanh is that of its argument": lambda: op("tanh", vjp=lambda t, g, y, x: (g * (1.0 - x * x),)),
    "the gradient of a quotient lacks the second part": lambda: op("div", vjp=lambda t, g, y, a, b: (g / b, None)),
    "ties of a maximum go to both": lambda: op(
        "maximum", vjp=lambda t, g, y, a, b: (t.where(a >= b, g, 0.0), t.where(b >= a, g, 0.0))
    ),
    "the gradient of a choice goes to what was not chosen": lambda: op(
        "where", vjp=lambda t, g, y, c, a, b: (None, t.where(c, 0.0, g), t.where(c, g, 0.0))
    ),
    "a sum over a row counts what lies outside": lambda: changed(
        triton.Body, "masked", lambda kept: lambda self, node, text: text
    ),
    "a maximum over a row starts from 0": lambda: changed(
        triton.Body, "masked", lambda kept: lambda self, *args: kept(self, *args).replace('float("-inf")', "0.0")
    ),
    "a mean is taken of one column fewer": lambda: op(
        "mean", lower=lambda t, x, **_: t.row_sum(x) / t.wrap(Scalar(COLS - 1))
    ),
    "a result is stored unmasked": lambda: changed(
        kernel_writer.KernelWriter, "_store", lambda kept: lambda self, t: re.sub(r", mask=\S+\)", ")", kept(self, t))
    ),
    "masked loads have no other": lambda: changed(
        kernel_writer.KernelWriter, "_load", lambda kept: lambda self, t: re.sub(r", other=\S+?\)", ")", kept(self, t))
    ),
    "a number a row is read along the columns": lambda: changed(kernel_writer.KernelWriter, "_place", _misplaced),
    "rows lie as far apart as blocks are wide": text(r"rows \* N_COLS \+ cols", "rows * BLOCK_COLS + cols"),
    "places of elements are counted in 32 bits": text(r"\.to\(tl\.int64\) \* BLOCK", " * BLOCK"),
    "what is loaded is not widened": text(r"other=0\.0\)\.to\(tl\.float32\)", "other=0.0)"),
    "sums over rows forget the rows before": text(r"^( +\w+_sum) \+= ", r"\1 = "),
    "partial sums do not start from zero": text(r"new_zeros\((programs, n_cols)", r"new_ones(\1"),
    "what is broadcast along some rows is read as if along none": text(r"rows // \w+_inner", "rows"),
    "what begins anew after some rows does not": text(r"(rows|cols|offsets) % \w+_count", r"\1"),
    "pieces are as far apart as they are wide": text(r"rows \* \w+_stride \+ cols", "rows * N_COLS + cols"),
    "the gradient of a piece is not zero elsewhere": text(r"new_zeros\((ctx\.\w+_shape)", r"new_full(\1, 0.5"),
    "the gradients of pieces change places": text(r"d_(\w+), d_(\w+) = (d_\w+)\.chunk", r"d_\2, d_\1 = \3.chunk"),
    "dimensions in another order are read in the order of memory": text(r"\.stride\(-2\)", ".stride(-3)"),
    "a mean of all is not divided": text(r"\((\w+_sums\.sum\(0\)) / shape\.numel\(\)\)", r"\1"),
    "the gradient of a mean is not divided": lambda: changed(
        differentiate._Reverse,
        "__init__",
        lambda kept: lambda self, kernel, grads: kept(self, _undivided(kernel), grads),
    ),
    "sums in flat kernels count what lies outside": text(r"(_sum \+= )tl\.where\(mask, (.*), 0\.0\)$", r"\1\2"),
    "the gradient of a running sum runs the same way": lambda: op("scan_sum", vjp=lambda t, g, y, x: (t.scan_sum(g),)),
    "an index picks its neighbour": text(r"cols == (\w+)", r"cols == \1 + 1"),
    "the gradient of what was expanded is of its first place": text(
        r"(\w+)\.sum_to_size\((\S+)\)", r"\1.flatten()[: \2.numel()].view(\2)"
    ),
    "results are of the dtype of their neighbours": lambda: changed(
        function.FunctionWriter, "_dtype_beside", lambda kept: lambda self, *args: ""
    ),
    "several results change places": lambda: changed(function.FunctionWriter, "_result_names", _swapped),
    "the dimensions that a reduction keeps are lost": lambda: changed(
        function.FunctionWriter, "_row_shape", lambda kept: lambda self, port: f"shape[:-{self.cols}]"
    ),
    "what was saved is handed back in another order": lambda: changed(
        function.FunctionWriter, "_save", _handed_back_turned
    ),
    "contributions to a gradient replace one another": lambda: changed(
        differentiate._Reverse, "_add", lambda kept: lambda self, value, grad: self.found.update({value: grad})
    ),
    "a gradient is not summed over what was broadcast": lambda: changed(
        differentiate._Reverse, "_reduced", lambda kept: lambda self, grad, result, operand: grad
    ),
    "the backward draws from another seed": lambda: changed(kernels._Flat, "lines", _reseeded),
    "all draws of a kernel are the same": lambda: changed(lower._Lowering, "_node", _one_stream),
    "one kernel serves groups that differ": lambda: changed(_home_of_same_kernel(), "same_kernel", _loose),
    "a group may wait for itself": lambda: changed(fuse._Fuser, "_detour", lambda kept: lambda self, a, b: False),
    "a part of the rows is taken for all": lambda: changed(Space, "_aligned", _without_runs),
    "zero times anything is folded": lambda: changed(trace, "_fold", _zero_folded),
    "a parameter is not cast where it is read": lambda: changed(
        cast_bodies.Casts, "narrowed", lambda kept: lambda self, value, node: value
    ),
}


def _home_of_same_kernel() -> Any:
    from tdsl.compiler.emit import plan

    return plan if hasattr(plan, "same_kernel") else groups


# Catching ------------------------------------------------------------------------------------------------------------


def by_kernels(folder: Path) -> str:
    """What the compiler, the rules of the text and the comparison with float64 tell of `KERNELS`."""
    from tests.random_programs_run import tiles

    files = helpers.emitted(helpers.compiled(KERNELS))
    told = lax(files)
    for small in (False, True):
        # Long rows take small tiles a long time.
        few = [
            c
            for c in json.loads(files["cases.json"])
            if not small or all(n < 20 for shape in c["shapes"] for n in shape)
        ]
        files["cases.json"] = json.dumps(few)
        with tiles(small):
            precisions = ["float32"] if small else ["float32", "float16"]
            told = told or helpers._disagreements(helpers.written(files, folder), precisions)
    return told[0] if told else ""


def by_random_programs(folder: Path) -> str:
    """What random programs tell."""
    from tests.random_programs_run import check

    programs, smooth = batch(COUNT, SEED)
    found = check(programs, folder, smooth).problems
    return f"{len(found)} of {len(programs)}: {next(iter(found.values()))}" if found else ""


CHECKS: dict[str, Check] = {
    "kernels": by_kernels,
    "random programs": by_random_programs,
    **mutants_structured.CHECKS,
}
# What is planted elsewhere than in fusion is looked for where it can be.
GENERAL = ("kernels", "random programs")
PLANTED: dict[str, tuple[Plant, Sequence[str]]] = {
    **{name: (plant, GENERAL) for name, plant in MUTANTS.items()},
    **{name: (plant, (check,)) for check, each in mutants_structured.MUTANTS.items() for name, plant in each.items()},
}


def _tell(mutant: str | None, check: str, told: Connection) -> None:
    """Plant the fault and check, in a process of its own: what writes out of bounds takes it down."""

    def stop(*_: object) -> None:
        raise OutOfPatience(f"nothing after {PATIENCE} s")

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder, PLANTED[mutant][0]() if mutant else nullcontext():
        try:
            told.send(CHECKS[check](Path(folder)))
        except (Exception, OutOfPatience) as error:
            told.send(f"{type(error).__name__}: {str(error)[:200]}")


def _outcome(mutant: str | None, check: str) -> str:
    """What a check tells of the compiler with a fault, "" where nothing."""
    fork = get_context("fork")
    read, write = fork.Pipe(duplex=False)
    child = fork.Process(target=_tell, args=(mutant, check, write))
    child.start()
    write.close()
    assert child.pid is not None
    spent = -1
    try:
        # What writes out of bounds may also write over a lock, and then wait for it without end.
        while not read.poll(STILL):
            if (now := _spent(child.pid)) == spent:
                child.kill()
                return "the process waits for ever"
            spent = now
        return str(read.recv())
    except EOFError:
        child.join()
        return f"the process died with {child.exitcode}"
    finally:
        child.join()


def _spent(process: int) -> int:
    """The processor's time that a process has taken, in ticks: fields 14 and 15 of `/proc/PID/stat`."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def caught_by(mutant: str, every: bool = True) -> dict[str, str]:
    """What each check tells of a mutant; without `every`, the first that tells something."""
    found: dict[str, str] = {}
    for check in PLANTED[mutant][1]:
        told = _outcome(mutant, check)
        found |= {check: told} if told else {}
        if told and not every:
            break
    return found


def main(argv: Sequence[str]) -> int:
    """Plant each mutant, or those named, or one in so many. 1 where one is not caught, or the compiler as it is is."""
    parser = argparse.ArgumentParser(prog="tests.mutants")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--every", type=int, default=1, help="one in so many")
    parser.add_argument("--first", action="store_true", help="only the first check that catches it")
    args = parser.parse_args(argv)
    code = interpreted("tests.mutants", argv)
    if code is not None:
        return code
    import torch

    torch.set_num_threads(1)
    wanted = [m for m in PLANTED if not args.names or any(n in m for n in args.names)][:: args.every]
    checks = dict.fromkeys(check for mutant in wanted for check in PLANTED[mutant][1])
    clean = {check: told for check in checks if (told := _outcome(None, check))}
    print(f"as it is: {clean or 'nothing to tell'}", flush=True)
    caught = 0
    for mutant in wanted:
        found = caught_by(mutant, not args.first)
        caught += bool(found)
        told = "".join(f"\n    {name}: {problem[:160]}" for name, problem in found.items())
        print(f"{mutant}: {', '.join(found) or 'NOT CAUGHT'}{'' if args.first else told}", flush=True)
    print(f"caught {caught} of {len(wanted)}")
    return 0 if caught == len(wanted) and not clean else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
