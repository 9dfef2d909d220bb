"""Faults in kernels that have templates of their own, in the passes that find work for them, and in the optimizers'.

Each is looked for by one check: the kernels of a program against float64, or tests of the project.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tdsl.compiler.passes import lift_head, place_layouts, recognise, structure, windows
from tdsl.compiler.passes.patterns import attention, gelu, matching, ropes
from tests import helpers
from tests.lax import lax
from tests.mutants_plant import Check, Plant, changed, source, text

LOSSES = """module Few() {
    forward(x: float[B, 13], t: int[B], w: float[13]) -> float[] {
        return cross_entropy(x, t, weight=w, label_smoothing=0.1, ignore_index=3)
    }
}
module Each() {
    forward(x: float[B, 13], t: int[B]) -> float[B] { return cross_entropy(x, t, reduction="none") }
}
module Many() {
    forward(x: float[B, 5000], t: int[B]) -> float[] { return cross_entropy(x, t, ignore_index=3) }
}
"""
HEADS = """module Head() {
    head = Linear(16, 8192)
    forward(x: float[B, 16], t: int[B]) -> float[] { return cross_entropy(head(x), t, ignore_index=3) }
}
"""
NORMS = """module Images(c: int = 3) {
    n1 = BatchNorm2d(c)
    n2 = BatchNorm2d(c)
    forward(x: float[B, c, H, W]) -> float[B, c, H, W] {
        h = relu(n1(x))
        return gelu(n2(h) + x)
    }
}
"""
ATTENTION = """module M() {
    forward(q: float[B, 4, T, 8], k: float[B, 2, S, 8], v: float[B, 2, S, 8], bias: float[1, 4, T, S]) -> float[B, 4, T, 8] {
        return attention(q, k, v, causal=true, window=5, softcap=2.0, bias=bias)
    }
}
"""
ROPE = """module M() {
    forward(q: float[B, 4, T, 8], k: float[B, 2, T, 8]) -> (float[B, 4, T, 8], float[B, 2, T, 8]) {
        return rope(q, 100.0, offset=3), rope(k, 100.0, 3)
    }
}
"""
SPLIT = """module M(dim: int = 24, heads: int = 4, groups: int = 2) {
    u = Linear(dim, dim + 2 * groups * (dim / heads), bias=false)
    forward(x: float[B, T, dim]) -> float[B, T, dim] {
        small = groups * (dim / heads)
        q, k, v = u(x).split([dim, small, small], dim=-1)
        q = rearrange(q, "b t (h d) -> b h t d", h=heads)
        k, v = rearrange(k, "b t (h d) -> b h t d", h=groups), rearrange(v, "b t (h d) -> b h t d", h=groups)
        q, k = rope(q), rope(k)
        return rearrange(attention(q, k, v, causal=true), "b h t d -> b t (h d)")
    }
}
"""
TABLES = """module M(dim: int = 12) {
    param table: [9, dim] = normal()
    forward(x: int[B, T]) -> float[B, T, dim] { return embedding(x, table, padding_idx=2) }
}
"""
PIECES = """module Pieces(D: int = 7) {
    forward(h: float[B, 2 * D], z: float[B, 3 * D]) -> (float[B, D], float[B, D]) {
        a, b = h.chunk(2, -1)
        p, q, r = z.chunk(3, -1)
        return silu(a) * b, tanh(q) * q
    }
}
module Planes(C: int = 3) {
    forward(h: float[B, 2 * C, T]) -> float[B, C, T] {
        a, b = h.chunk(2, 1)
        return softmax(a, -1) * b
    }
}
module Moved(D: int = 6) {
    forward(x: float[B, T, D], y: float[T, B, D]) -> float[T, B, D] { return tanh(x.transpose(0, 1)) * y + y }
}
"""


# Checks --------------------------------------------------------------------------------------------------------------


def by_float64(program: str, folder: Path) -> str:
    """What the comparison with float64 tells of a program's kernels, a few rows or elements of them at a time."""
    from tdsl.runtime import attention_tiles, chunks, launch

    files = helpers.emitted(helpers.compiled(program))
    told = lax(files)
    few = [c for c in json.loads(files["cases.json"]) if all(n < 9000 for shape in c["shapes"] for n in shape)]
    files["cases.json"] = json.dumps(few)
    # So that a channel has parts enough for several blocks of them.
    files["kernels.py"] = files["kernels.py"].replace("BLOCK_ROWS=256", "BLOCK_ROWS=2")
    usual = launch.class_tile
    with ExitStack() as stack:
        for owner, name, instead in (
            (attention_tiles, "tile", partial(_small_tile, attention_tiles.tile)),
            (chunks, "rows_at_once", lambda *_: 3),
            (launch, "class_tile", lambda *args, **named: usual(*args, **named)._replace(rows=2)),
            (launch, "runs", partial(_short_runs, launch.runs)),
        ):
            stack.enter_context(mock.patch.object(owner, name, instead))
        told = told or helpers._disagreements(helpers.written(files, folder), ["float32"])
    return told[0] if told else ""


def _small_tile(usual: Callable[..., Any], *args: Any) -> Any:
    found = usual(*args)
    return found._replace(queries=16, keys=16, options={**found.options, "BLOCK_T": 16, "BLOCK_S": 16})


def _short_runs(usual: Callable[..., Any], n_rows: int, n_cols: int) -> Any:
    return usual(n_rows, n_cols)._replace(length=4, programs=-(-n_rows // 4))


def by_tests(*names: str) -> Check:
    """Which of these tests of the project fail."""

    def check(folder: Path) -> str:
        options = (
            "-q",
            "-x",
            "--no-header",
            "--no-summary",
            "-p",
            "no:cacheprovider",
            f"--basetemp={folder / 'tests'}",
        )
        found = _Failures()
        code = pytest.main([*options, *(str(helpers.ROOT / "tests" / name) for name in names)], plugins=[found])
        return "" if code == 0 else f"{', '.join(found.names) or code} failed"

    return check


class _Failures:
    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.names.append(report.nodeid)


def by_unfused(folder: Path) -> str:
    """How models of `SPLIT` and `ROPE` differ from the same ones as PyTorch would run them, in float64."""
    import torch

    from tests.running import loaded

    sizes = ((SPLIT, [(2, 5, 24)]), (ROPE, [(2, 4, 5, 8), (2, 2, 5, 8)]))
    for number, (program, shapes) in enumerate(sizes):
        units = (helpers.compiled(program), helpers.compiled(program, helpers.UNFUSED))
        folders = [helpers.written(helpers.emitted(u), folder / f"{number}{i}") for i, u in enumerate(units)]
        found = []
        for each in folders:
            torch.manual_seed(0)
            model = loaded(each).M().double()
            leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
            results = model(*leaves)
            results = results if isinstance(results, tuple) else (results,)
            loss = sum((i + 1) * (r * r).sum() for i, r in enumerate(results))
            found.append([*results, *torch.autograd.grad(loss, leaves)])
        for one, other in zip(*found, strict=True):
            if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-9):
                return f"{program.split('(')[0]} computes something else than unfused"
    return ""


def by_steps(folder: Path) -> str:
    """What the checks of the optimizers' kernels tell."""
    from tests import one_launch

    for name in STEPS:
        try:
            one_launch.CHECKS[name]()
        except AssertionError as error:
            return f"{name}: {error}"
    return ""


STEPS = ("options_SGD", "options_AdamW", "options_RMSprop", "options_Lion", "clipping_is_pytorchs",
         "copies_are_written_in_the_same_pass", "half_precision_with_a_scaler",
         "blocks_chunks_and_addresses_that_are_not_aligned")  # fmt: skip


CHECKS: dict[str, Check] = {
    "losses": partial(by_float64, LOSSES),
    "heads": partial(by_float64, HEADS),
    "batch norms": partial(by_float64, NORMS),
    "attention": partial(by_float64, ATTENTION),
    "rope": partial(by_float64, ROPE),
    "split rope": partial(by_float64, SPLIT),
    "embedding": partial(by_float64, TABLES),
    "pieces": partial(by_float64, PIECES),
    "what is recognised": by_tests("test_recognise.py"),
    "structures": by_tests(
        *(
            f"test_ropes.py::test_{name}"
            for name in ("ropes_of_the_same_positions_are_one_kernel", "others_are_a_kernel_each")
        )
    ),
    "structures in models": by_unfused,
    "lifted heads": by_tests(
        *(f"test_lift_head.py::test_{name}" for name in ("what_is_emitted", "where_the_head_stays"))
    ),
    "layouts": by_tests("test_layouts.py"),
    "steps": by_steps,
}


# Faults --------------------------------------------------------------------------------------------------------------


def _always(answer: Any) -> Callable[[Any], Any]:
    return lambda kept: lambda *args: answer


def _wider(view: windows.View | None, by: int) -> windows.View | None:
    return None if view is None else replace(view, columns=view.columns + by)


def _loose(view: windows.View | None) -> windows.View | None:
    return None if view is None else replace(view, fixed=False)


def _any_model(kept: Callable[..., Any]) -> Callable[..., Any]:
    return lambda unit, run: frozenset(run.models)


def _step(right: str, wrong: str) -> Plant:
    """A fault in the optimizers' kernels."""

    def planted() -> Any:
        from tdsl.runtime import optim_kernels

        return source(optim_kernels, right, wrong)()

    return planted


MUTANTS: dict[str, dict[str, Plant]] = {
    "losses": {
        "labels that are ignored count": text(r"counted = row_mask & \(label != 3\)", "counted = row_mask"),
        "a loss over classes is a sum, not a mean": text(r"(loss\)|loss) / count", r"\1"),
        "a loss is divided by the rows, ignored ones too": text(r"\(counted, 1\.0, 0\.0\)", "(row_mask, 1.0, 0.0)"),
        "a maximum of scores is not taken out of the earlier sums": text(
            r"sums \* tl\.exp\(tops - higher\) \+", "sums +"
        ),
        "the label's own score does not count in the gradient": text(r"\(found - wanted\)", "found"),
        "smoothing is left out of the gradient": text(r" \+ 0\.1 / N_COLS \* weight$", ""),
        "a class's weight is not in the loss": text(r"0\.9 \* share \* ", "0.9 * "),
        "the gradient of a loss is that of 1": text(r"if by != 1\.0:", "if by == 1.0:"),
        "scores beyond the classes are zeros": text(r'other=float\("-inf"\)', "other=0.0"),
    },
    "heads": {
        "only the last chunk adds to the gradient of the weights": text(r"first=first == 0", "first=True"),
        "the bias's gradient is that of the last chunk": text(r"d_bias \+= scores", "d_bias = scores"),
        "a chunk reads the labels of the first one": text(r"labels\[part\]", "labels[: part.stop - part.start]"),
        "ignored rows have a gradient": text(r"scale = tl\.where\(counted, (.*), 0\.0\)$", r"scale = \1"),
        "the gradient of a head is not scaled": text(r"return _?\w*d_x, d_weight", "return d_x, d_x"),
    },
    "batch norms": {
        "the variance of a batch is unbiased": text(r"m2 / count, mask", "m2 / (count - 1.0), mask"),
        "the running variance is biased": text(r"m2 / \(count - 1\.0\) - running_var", "m2 / count - running_var"),
        "running statistics forget nothing": text(
            r"running_mean \+= momentum \* \(mean - running_mean\)", "running_mean += momentum * mean"
        ),
        "parts of a channel are joined without their distance": text(
            r"part_m2 \+ distance \* distance \* count \* \(more / \(count \+ more\)\)", "part_m2"
        ),
        "the mean of a batch is taken for a constant": text(
            r"\(total \+ normalised \* projected\)", "(normalised * projected)"
        ),
        "the gradient of a batch norm lacks the weight": text(r"\(weight \* inverse\)", "inverse"),
        "a residual is added before the norm": text(r"z \+= tl\.load\(residual_ptr", "z -= tl.load(residual_ptr"),
        "the channel of a plane is the next one's": text(r"cols % CHANNELS", "(cols + 1) % CHANNELS"),
    },
    "attention": {
        "a window is off by one": text(r"keys > queries - 5", "keys >= queries - 5"),
        "a query does not see itself": text(r"keys <= queries", "keys < queries"),
        "the first block of keys in a window is left out": text(
            r"max\(first - 4, 0\) // BLOCK_S \* BLOCK_S", "first // BLOCK_S * BLOCK_S"
        ),
        "what was summed before a greater score is not scaled down": text(r"total \* rescale \+", "total +"),
        "the gradient of queries is not scaled": text(r"^ +d_q \*= scale\n", ""),
        "the gradient of keys is not scaled": text(r"^ +d_k \*= scale\n", ""),
        "a softcap has no derivative": text(r"^ +d_scores \*= 1\.0 - bent \* bent\n", ""),
        "a softmax's gradient lacks its sum": text(r"\(d_weights - delta\)", "d_weights"),
        "heads that share keys share their first head's": text(r"head // \(n_heads // n_groups\)", "head % n_groups"),
        "keys get the gradient of one head alone": text(r"\(group \+ 1\) \* n_sharing", "group * n_sharing + 1"),
        "a bias is added in another base": text(r"bias \* tm\.LOG2E", "bias"),
    },
    "rope": {
        "the second half turns the other way": text(r"first \* sin \+ second \* cos", "second * cos - first * sin"),
        "the gradient is turned on, not back": text(r"ctx\.table, -1\)", "ctx.table, 1)"),
        "halves are half as far apart": text(r"_head \+ HALF", "_head + HALF // 2"),
        "positions begin at none": text(r"100\.0, 3,", "100.0, 0,"),
        "every head is the first": text(r"head \* (\w+)_head", r"0 * \1_head"),
    },
    "split rope": {
        "keys lie where queries do": text(r"\(HEADS \+ head\) \* DIM", "head * DIM"),
        "the gradient of values lies where that of keys does": text(r"HEADS \+ GROUPS \+ head", "HEADS + head"),
        "gradients of heads are turned on, not back": text(r"cos, -sin,", "cos, sin,"),
        "positions run on through the batch": text(r"rows % length \* DIM", "rows * DIM"),
    },
    "embedding": {
        "the entry for padding learns": text(r"^( +known = ).*entry != .*$", r"\1entry >= 0"),
        "the last row of a run is left out": text(
            r"^( +)total \+= (\w+)\.to\(tl\.float32\)$", r"\1total += tl.where(done, 0.0, \2.to(tl.float32))"
        ),
        "a run is summed on into the next": text(r"tl\.where\(done, 0\.0, total\)", "total"),
        "what goes on in the next program is forgotten": text(r"if runs\.programs > 1:", "if runs.programs > 1 << 20:"),
        "the first part of a run that goes on is lost": text(
            r"total = tl\.load\(trailing_ptr.*$", "total = tl.zeros([BLOCK_COLS], tl.float32)"
        ),
        "entries are looked up in another order": text(r"places_ptr \+ i \+ 1", "places_ptr + i"),
    },
    "pieces": {
        "a group may have fewer columns than the pieces that it cuts": lambda: changed(
            windows, "view_of", lambda kept: lambda node: _loose(kept(node))
        ),
        "pieces lie apart in the first of their columns": lambda: changed(
            windows, "view_of", lambda kept: lambda node: _wider(kept(node), -1)
        ),
        "columns that are moved are taken for columns": lambda: changed(
            windows, "view_of", lambda kept: lambda node: _wider(kept(node), 1)
        ),
    },
    "what is recognised": {
        "any factor makes a gelu": lambda: changed(gelu, "close", _always(True)),
        "what others read is taken for nobody's": lambda: changed(matching.Matcher, "is_inner", _always(True)),
        "a factor of the scores divides them": lambda: changed(
            attention, "_factor", lambda kept: lambda by, divides: kept(by, not divides)
        ),
        "any mask is causal": lambda: changed(attention, "_is_ahead", _always(True)),
        "a softmax over any dimension makes attention": lambda: changed(attention, "_dim", _always(-1)),
        "patterns are not looked for": lambda: changed(recognise, "PATTERNS", lambda kept: ()),
    },
    "structures": {
        "ropes are not turned together": lambda: changed(ropes, "_alike", _always(False)),
        "ropes by any angles are turned together": lambda: changed(ropes, "_alike", _always(True)),
        "no operation gets its structure": lambda: changed(structure, "_computable", _always(False)),
    },
    "structures in models": {
        "the results of a structure change places": lambda: changed(
            ropes,
            "structured_node",
            lambda kept: lambda name, nodes, outputs, *rest: kept(name, nodes, outputs[::-1], *rest),
        ),
        "what a structure replaces is read on": lambda: changed(ropes, "reading", lambda kept: lambda graph, _: graph),
        "the numbers of a structure are not handed to it": lambda: changed(structure, "_numbers", _always(())),
    },
    "lifted heads": {
        "a head is left out for everybody": lambda: changed(
            lift_head, "_with_keyword", lambda kept: lambda ir, head: ir
        ),
        "heads are never lifted": lambda: changed(lift_head, "pays", _always(False)),
        "a head is lifted though its scores are stored": lambda: changed(lift_head, "_stores_no_scores", _always(True)),
        "the keyword is a name in use": lambda: changed(lift_head, "_keyword", _always("tokens")),
    },
    "layouts": {
        "models are laid out in full float32": lambda: changed(place_layouts, "channels_last", _any_model),
        "whatever is read by a model is an image": lambda: changed(place_layouts, "_is_image", _always(True)),
        "models without convolutions are laid out": lambda: changed(place_layouts, "_convolves", _always(True)),
        "what others read is laid out, too": lambda: changed(place_layouts._Images, "_takes", _always(True)),
    },
    "steps": {
        "a decoupled decay is of the gradient": _step("        p *= decay\n", "        g += (1.0 - decay) * p\n"),
        "the second moment is not corrected": _step(
            "tl.div_rn(tl.sqrt_rn(size), root) + eps", "tl.sqrt_rn(size) + eps"
        ),
        "epsilon is under the root": _step("tl.sqrt_rn(size), root) + eps", "tl.sqrt_rn(size + eps), root)"),
        "steps are counted from 0": _step("tl.load(counts + program) + 1", "tl.load(counts + program)"),
        "the largest second moment is the last": _step("tm.maximum(largest, square)", "square"),
        "Nesterov's momentum is the plain one": _step("g += momentum * velocity", "g = velocity"),
        "the first velocity is damped": _step(
            "tl.where(first, g, momentum * velocity", "tl.where(False, g, momentum * velocity"
        ),
        "a copy has the number from before the step": _step(
            "_write(copy, at, inside, p,", "_write(copy, at, inside, a,"
        ),
        "clipping forgets the factor": _step("g = factor * _read", "g = _read"),
        "the last block of a chunk is left out": _step(
            "range(start + whole * BLOCK, end, BLOCK // 4)",
            "range(start + whole * BLOCK, end - BLOCK // 4, BLOCK // 4)",
        ),
        "the sum of squares is that of the last block": _step(
            "        total += g * g\n    tl.store", "        total = g * g\n    tl.store"
        ),
        "a mean is centred twice": _step("size = square - mean * mean", "size = square - 2 * mean * mean"),
    },
}
