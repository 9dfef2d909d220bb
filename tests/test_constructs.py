"""Constructs of the language, emitted and run beside the same model written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers import ROOT, compiled, emitted, python, tdsl, written
from tests.running import executed, loaded, source
from tests.test_build import built, mistakes, module


class Case(NamedTuple):
    """A program, and what its module `M` returns for `x` [2, width], in the words of PyTorch."""

    text: str
    oracle: Callable[[Any, Tensor], Tensor]
    width: int = 4


def run(modules: Any, x: Tensor) -> Tensor:
    for each in modules:
        x = each(x)
    return x


CASES: Mapping[str, Case] = {
    "sizes are taken from the call": Case(
        """module M() {
            first = Linear(_, 8)
            inner = Sequential(Linear(_, 4), ReLU(), Linear(_, 2))
            mixed = [Linear(_, 4), Linear(_, 6)]
            same  = [Linear(_, 6) for i in range(3)]
            norm  = LayerNorm(_)
            forward(x: float[B, 5]) -> float[B, 6] {
                y = first(x) + first(x * 2)
                return norm(inner(y) |> mixed |> same)
            }
        }""",
        lambda m, x: m.norm(run([m.inner, *m.mixed, *m.same], m.first(x) + m.first(x * 2))),
        5,
    ),
    "constant conditions choose": Case(
        """module M(d: int = 4, mode: str = "a" + "b", deep: bool = true) {
            l = Linear(d, d)
            n = LayerNorm(d) if deep else Identity()
            forward(x: float[B, d]) -> float[B, d] {
                if mode == "b" { return x }
                else if mode == "ab" and d > 3 { x = l(x) }
                else { x = x * 2 }
                return n(x) if not (mode != "ab") or false else 2 * x
            }
        }""",
        lambda m, x: m.n(m.l(x)),
    ),
    "loops are written out": Case(
        """module M(n: int = 3, d: int = 4) {
            a = [Linear(d, d) for i in range(n)]
            b = [[Linear(d, d) for j in range(2)] for i in range(n)]
            forward(x: float[B, d]) -> float[B, d] {
                for i in range(n) { x = a[i](x) * (i + 1) }
                for i in range(0, len(a), 2) { x = x + a[i](x) }
                for i in range(n - 1, -1, -1) { x = x - a[i](x) }
                for row in b { for f in row { x = f(x) } }
                for row in b { x = x |> row }
                for scale in [1, 0.5] { x = x * scale }
                return b[0][1](x) + b[-1][0](x)
            }
        }""",
        lambda m, x: _loops(m, x),
    ),
    "lists over ranges and values": Case(
        """module Block(d: int, k: int) {
            l = Linear(d, 2 * k)
            forward(x: float[B, d]) -> float[B, 2 * k] { return l(x) }
        }
        const WIDTHS = [8, 6, 3]
        module M(n: int = 3) {
            a = [Block(2 * (i + 1), i + 2) for i in range(n)]
            b = [Linear(WIDTHS[i - 1], WIDTHS[i]) for i in range(1, len(WIDTHS))]
            c = [Linear(w, 3) for w in [3, 3]]
            forward(x: float[B, 2]) -> float[B, 3] { return x |> a |> b |> c }
        }""",
        lambda m, x: run([*m.a, *m.b, *m.c], x),
        2,
    ),
    "functions are arguments": Case(
        """fn squared(x: float[...]) -> float[...] { return x * x }
        fn scaled(x: float[..., D], k: float[D]) -> float[..., D] { return x * k }
        fn pair(x: float[B, D], y: float[B, D]) -> float[B, D] { return x + 2 * y }
        module Inner(act: fn = relu, d: int = 4) {
            l = Linear(d, d)
            param k: [d] = normal()
            forward(x: float[B, d]) -> float[B, d] { return act(l(x)) |> scaled(k) }
        }
        module Outer(act: fn, d: int = 4) {
            inner = Inner(act, d)
            forward(x: float[B, d]) -> float[B, d] { return inner(x) }
        }
        module With(act: fn = leaky_relu, both: fn = pair) {
            forward(x: float[B, D]) -> float[B, D] { return both(x |> act(0.2), x) }
        }
        module M() {
            a = Outer(squared)
            b = Outer(gelu)
            c = Inner()
            w = With()
            forward(x: float[B, 4]) -> float[B, 4] { return w(a(x) + b(x) + c(x)) }
        }""",
        lambda m, x: _functions(m, x),
    ),
    "modules are arguments": Case(
        """module RMS(dim: int) {
            param w: [dim] = normal()
            forward(x: [..., dim]) -> [..., dim] { return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true)) * w }
        }
        module Block(dim: int, norm: module = RMS) {
            n = norm(dim)
            l = Linear(dim, dim)
            forward(x: float[B, dim]) -> float[B, dim] { return l(n(x)) }
        }
        module Net(dim: int = 4, norm: module = LayerNorm) {
            a = [Block(dim, norm=norm) for i in range(2)]
            b = Block(dim)
            forward(x: float[B, dim]) -> float[B, dim] { return b(x |> a) }
        }
        module M() {
            m = Net()
            n = Net(norm=RMS)
            forward(x: float[B, 4]) -> float[B, 4] { return n(m(x)) }
        }""",
        lambda m, x: _modules(m, x),
    ),
    "modules and parameters are shared": Case(
        """module Head(d: int) {
            param b: [d] = normal()
            forward(x: [B, d], w: [C, d]) -> [B, C] { return (x + b) @ w.T }
        }
        module M() {
            l = Linear(4, 4)
            k = l
            heads = [Linear(4, 4, weight=l.weight), Linear(4, 4, bias=false, weight=l.weight)]
            blocks = [l, k, Linear(4, 4)]
            head = Head(4)
            forward(x: float[B, 4]) -> float[B, 4] {
                x = l(x) + k(x * 2)
                return head(x |> blocks |> heads, l.weight)
            }
        }""",
        lambda m, x: (
            (run([*m.blocks, *m.heads], m.l(x) + m.l(x * 2)) + m.head.b) @ m.l.weight.T
            if m.k is m.l and m.blocks[1] is m.l and m.heads[0].weight is m.l.weight is m.heads[1].weight
            else x * float("nan")
        ),
    ),
    "constants are computed": Case(
        """const K = 3
        const NAMES = ["a", "b"]
        const FLAG = true
        const WIDTHS = [4, 8, K + 1]
        const TWO = WIDTHS[0] / 2
        module M(on: bool = FLAG, name: str = "b", dim: int = 4) {
            q = K * 2
            weights = [1, 2.5]
            scale = 0.5
            hidden = max(int(dim * 1.6), 2)
            layers = [Linear(WIDTHS[i], WIDTHS[i + 1]) for i in range(2)]
            wide = Linear(dim, hidden)
            forward(x: float[B, dim]) -> float[B, 6] {
                y = x |> layers
                if on and name == NAMES[1] { y = y * scale + q }
                for w in weights { y = y + w }
                a = TWO
                return wide(y) / a / min(hidden, 100) - floor(2.5)
            }
        }""",
        lambda m, x: m.wide(run(m.layers, x) * 0.5 + 6 + 1 + 2.5) / 2 / 6 - 2,
    ),
    "names are shadowed": Case(
        """module M(relu: int = 2) {
            gelu = Linear(4, 4)
            forward(x: float[B, 4], data: float[B, 4] ) -> float[B, 4] {
                h = gelu(x) * relu
                exp = h.relu().gelu()
                train = exp + data
                x = train
                x = x * x
                return x.mean(dim=-1, keepdim=true) + exp
            }
        }""".replace(", data: float[B, 4] ", "").replace("+ data", "+ x"),
        lambda m, x: _shadowed(m, x),
    ),
    "results are tuples": Case(
        """module Enc() {
            a = Linear(4, 2)
            forward(x: float[B, 4]) -> (float[B, 2], float[B, 2]) { return a(x), a(x) * 2 }
        }
        fn both(x: float[B, D]) -> (float[B, D], float[]) { return x + 1, x.sum() }
        module M() {
            e = Enc()
            forward(x: float[B, 4]) -> float[B, 2] {
                m, v = e(x)
                z = e(x)
                p, s = both(m + z[1])
                v, m = m, v
                return p * s + v
            }
        }""",
        lambda m, x: (m.e.a(x) * 3 + 1) * (m.e.a(x) * 3).sum() + m.e.a(x),
    ),
    "pipes go into everything": Case(
        """fn shifted(x: float[B, D], by: float[D]) -> float[B, D] { return x + by }
        module M() {
            l = Linear(4, 4)
            param p: [4] = normal()
            more = [Linear(4, 4), ReLU()]
            forward(x: float[B, 4]) -> float[B, 4] {
                return x |> l |> relu
                    |> more
                    |> more[0]
                    |> shifted(p)
                    |> clamp(min=0.1)
                    |> softmax(dim=-1)
            }
        }""",
        lambda m, x: torch.softmax((m.more[0](run(m.more, F.relu(m.l(x)))) + m.p).clamp(min=0.1), -1),
    ),
    "functions are methods": Case(
        """fn gap(mu: float[B, D], other: float[B, D]) -> float[B] { return ((mu - other) ** 2).sum(dim=-1) }
        module M(act: fn = gelu) {
            l = Linear(4, 4)
            forward(x: float[B, 4]) -> float[B] { return x.act().gap(l(x)).exp() }
        }""",
        lambda m, x: (F.gelu(x) - m.l(x)).square().sum(-1).exp(),
    ),
    "what is inlined reads its own numbers": Case(
        """module Gate(dim: int, eps: float = 0.1) {
            param w: [dim] = normal()
            part = dim / 2
            forward(x: [..., dim]) -> [..., dim] {
                assume dim % 2 == 0
                return x * sigmoid(x * w + eps) + part
            }
        }
        module M(dim: int = 4) {
            g = Gate(dim)
            gs = [Gate(dim, 0.5), Gate(dim)]
            deep = [[Gate(dim, 0.25)]]
            forward(x: float[B, dim]) -> float[B, dim] {
                y = g(x) |> gs
                return gs[0](y) + deep[0][0](x)
            }
        }""",
        lambda m, x: _gated(m.gs[0], _run_gates([m.g, *m.gs], x)) + _gated(m.deep[0][0], x),
    ),
    "an operation that changes nothing": Case(
        """module M() {
            l = Linear(4, 4)
            forward(x: float[B, 4]) -> float[B, 4] {
                y = l(x) + x
                p = y * 1
                q = p + 0
                return p * y.sum() + q
            }
        }""",
        lambda m, x: (m.l(x) + x) * (m.l(x) + x).sum() + m.l(x) + x,
    ),
    "sizes are values": Case(
        """module M() {
            forward(x: float[B, D]) -> float[D, B] {
                n = size(x, 1)
                y = x.T.reshape(n, size(x, 0)) * n
                return y / size(y, -1) + x.T
            }
        }""",
        lambda m, x: x.T * 4 / 2 + x.T,
    ),
    "leading dimensions differ from call to call": Case(
        """module P(d: int = 4) {
            l = Linear(d, d)
            forward(x: [..., d]) -> [..., d] { return l(x) }
        }
        module M() {
            p = P()
            forward(x: float[B, 4]) -> float[B, 4] {
                return p(x) + p(x[0]) + p(x.unsqueeze(0)).squeeze(0)
            }
        }""",
        lambda m, x: m.p.l(x) * 2 + m.p.l(x[0]),
    ),
    "parameters and buffers have dtypes": Case(
        """module M() {
            param w: [3, 4] = xavier_uniform()
            param s: float[] = constant(2.0)
            param u: [2, 3] = trunc_normal(std=0.02)
            buffer m: bool[4] = ones()
            buffer n: int[] = constant(3)
            buffer i: i32[3] = constant(2)
            param h: f64[3] = ones()
            forward(x: float[B, 4]) -> float[B, 3] {
                return where(m, x, 0.0) @ w.T * s + n + i + u.sum() + h.float()
            }
        }""",
        lambda m, x: x @ m.w.T * 2.0 + 3 + 2 + m.u.sum() + m.h.to(x.dtype),
    ),
}


def _gated(m: Any, x: Tensor) -> Tensor:
    found: Tensor = x * torch.sigmoid(x * m.w + m.eps) + 2
    return found


def _run_gates(gates: Any, x: Tensor) -> Tensor:
    for each in gates:
        x = _gated(each, x)
    return x


def _loops(m: Any, x: Tensor) -> Tensor:
    for i in range(3):
        x = m.a[i](x) * (i + 1)
    for i in (0, 2):
        x = x + m.a[i](x)
    for i in (2, 1, 0):
        x = x - m.a[i](x)
    for _ in range(2):
        for row in m.b:
            x = run(row, x)
    x = x * 0.5
    found: Tensor = m.b[0][1](x) + m.b[2][0](x)
    return found


def _functions(m: Any, x: Tensor) -> Tensor:
    a, b = m.a.inner, m.b.inner
    y = a.l(x).square() * a.k + F.gelu(b.l(x)) * b.k + F.relu(m.c.l(x)) * m.c.k
    return F.leaky_relu(y, 0.2) + 2 * y


def _modules(m: Any, x: Tensor) -> Tensor:
    def rms(n: Any, x: Tensor) -> Tensor:
        found: Tensor = x * torch.rsqrt(x.square().mean(-1, keepdim=True)) * n.w
        return found

    for block in m.m.a:
        x = block.l(block.n(x))
    for block in (m.m.b, *m.n.a, m.n.b):
        x = block.l(rms(block.n, x))
    return x


def _shadowed(m: Any, x: Tensor) -> Tensor:
    activated = F.gelu(F.relu(m.gelu(x) * 2))
    return (activated + x).square().mean(-1, keepdim=True) + activated


@pytest.mark.parametrize("name", CASES)
def test_constructs(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    model = executed(case.text, tmp_path).M()
    x = torch.randn(2, case.width)
    torch.testing.assert_close(model(x), case.oracle(model, x))


def test_modules_may_be_called_what_kernels_need(tmp_path: Path) -> None:
    names = ("Launch", "Triton", "Math", "With", "Random", "Tl", "A", "AReference", "Max", "Torch", "Self")
    members = "".join(f"    m{i} = {name}()\n" for i, name in enumerate(names))
    calls = "".join(f" |> m{i}" for i in range(len(names)))
    text = "".join(
        f"module {name}() {{\n    forward(x: float[B, D]) -> float[B, D] {{ return tanh(x) * {i} + x * {i} }}\n}}\n"
        for i, name in enumerate(names, 2)
    )
    text += f"module M() {{\n{members}    l = Linear(3, 3)\n"
    text += f"    forward(x: float[B, 3]) -> float[B, 3] {{ return x{calls} }}\n}}\n"
    x = torch.randn(2, 3, dtype=torch.float64)
    wanted = x
    for i in range(2, 2 + len(names)):
        wanted = torch.tanh(wanted) * i + wanted * i
    folder = written(emitted(compiled(text)), tmp_path)
    torch.testing.assert_close(loaded(folder).M()(x), wanted)
    check = "import torch, model; torch.manual_seed(0); model.Launch()(torch.randn(2, 3)); print(model.M()(torch.ones(2, 3)))"
    assert python("-c", check, interpret=True, cwd=folder).returncode == 0


def test_numbers_that_a_class_depends_on_make_classes() -> None:
    """A loop that is written out is written for each count."""
    text = """
module Deep(n: int) {
    l = Linear(4, 4)
    forward(x: float[B, 4]) -> float[B, 4] {
        for i in range(n) { x = l(x) * (i + 1) }
        return x
    }
}
module M() {
    a = Deep(1)
    b = Deep(2)
    c = Deep(2)
    forward(x: float[B, 4]) -> float[B, 4] { return x |> a |> b |> c }
}
"""
    unit = built(text)
    assert [m.class_name for m in unit.modules] == ["Deep", "Deep2", "M"]
    assert len(module(unit, "Deep2").graph.nodes) == 4


def test_imports_of_folders_and_diamonds(tmp_path: Path) -> None:
    files = {
        "net.model": 'import "parts/left.model"\nimport "parts/deep/right.model"\n'
        "module M() {\n    a = Left(N)\n    b = Right(N)\n"
        "    forward(x: float[B, N]) -> float[B, N] { return b(a(x)) }\n}\n",
        "parts/left.model": 'import "base.model"\nmodule Left(d: int) {\n    l = Base(d)\n'
        "    forward(x: float[B, d]) -> float[B, d] { return twice(l(x)) }\n}\n",
        "parts/deep/right.model": 'import "../base.model"\nmodule Right(d: int) {\n    l = Base(d)\n'
        "    forward(x: float[B, d]) -> float[B, d] { return l(x).twice() }\n}\n",
        "parts/base.model": "const N = 6 / 2\nfn twice(x: float[...]) -> float[...] { return 2 * x }\n"
        "module Base(d: int) {\n    l = Linear(d, d)\n    forward(x: float[B, d]) -> float[B, d] { return l(x) }\n}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = tdsl("compile", "net.model", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = loaded(tmp_path / "out").M()
    x = torch.randn(2, 3)
    torch.testing.assert_close(model(x), 2 * model.b.l.l(2 * model.a.l.l(x)))


TRACKING = """
module Block(dim: int) {
    l = Linear(dim, dim)
    forward(x: float[B, dim]) -> float[B, dim] {
        y = l(x)
        track norm = (y ** 2).mean()
        return y
    }
}
module Net() {
    blocks = [Block(64) for i in range(2)]
    head   = Linear(64, 10)
    forward(x: float[B, 64]) -> float[B, 10] {
        h = x |> blocks
        no_grad { spread = h.std() }
        track spread = spread
        return head(h)
    }
}
data Digits {
    source = csv("DATA")
    split  = sequential(train=0.5, val=0.25, test=0.25)
    field pixels: float[64] = columns("p*") / 16
    field label:  int[]     = column("label")
}
train digits {
    model = Net()
    data  = Digits
    optimizer = SGD(lr=0.1)
    steps = 3
    loss(batch) {
        scores = model(batch.pixels)
        track top = scores.amax()
        return cross_entropy(scores, batch.label)
    }
    logging { every = 1 }
    checkpoint { best = "val/norm" }
}
evaluate digits {
    compare(batch) { return model(batch.pixels), batch.label }
    metrics = [Accuracy()]
}
"""


def test_modules_track_values(tmp_path: Path) -> None:
    data = ROOT / "examples" / "data" / "digits.csv"
    (tmp_path / "digits.csv").write_text(data.read_text())
    (tmp_path / "net.model").write_text(TRACKING.replace("DATA", "digits.csv"))
    done = tdsl("train", "net.model", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "runs/digits/log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 3
    assert all({"norm", "spread", "top"} <= line.keys() for line in steps)
    assert any("val/norm" in line for line in lines)
    done = tdsl("evaluate", "net.model", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "runs/digits/metrics.json").read_text())
    assert set(found["tracked"]) == {"norm", "spread", "top"}


def test_the_text_of_tracking() -> None:
    module_text = TRACKING.partition("data Digits")[0]
    assert source(module_text, "Block") == (
        'y = self.l(x)  # [B, dim]\nmean = kernels.pow_mean(y)\ntracking.add("norm", mean)\nreturn y\n'
    )
    assert "from tdsl.runtime import tracking\n" in emitted(compiled(module_text))["model.py"]


MEMBERS = "module M(d: int = 4) {\n%s\n    forward(x: float[B, d]) -> float[B, d] {\n%s\n    }\n}\n"


@pytest.mark.parametrize(
    ("members", "body", "code", "message", "caret", "help"),
    [
        ("l = Linear(_, 8)", "return x", "E208", "the size `_` of `l` is not known", "l = Linear(_, 8)", "call it"),
        ("l = Linear(_, 8)", "return l(l(x))[:, :4]", "E203", "shapes do not match in `l`", "l(l(x))", ""),
        ("param n: int[3] = zeros()", "return x", "E205", "a parameter holds floating-point", "int[3]", "buffer n"),
        ("buffer n: int[3] = normal()", "return x", "E205", "`normal` makes no i64", "normal()", "zeros"),
        ("buffer n: int[3] = constant(0.5)", "return x", "E205", "`constant` makes no i64", "constant(0.5)", "whole"),
        ("l = [Linear(4, 4) for i in x]", "return x", "E110", "unknown name `x`", "x", ""),
        ("l = [i for i in range(3)]", "return x", "E201", "the number 0 in a list of modules", "i", ""),
        ("", "for i in range(0, 9, 0) { x = x + i }\nreturn x", "E202", "the step of a range is not 0", "0", ""),
        (
            "",
            "for i in range(B) { x = x + i }\nreturn x",
            "E208",
            "the range of a loop is known",
            "range(B)",
            "unrolled",
        ),
        ("", "for i in range(20000) { x = x + i }\nreturn x", "E209", "a loop of 20,000 turns", "range(20000)", "most"),
        ("", "for i in x { x = x + 1 }\nreturn x", "E201", "a loop goes over a list or a range", "x", ""),
        ("", "y = x.nosuch()\nreturn y", "E110", "a tensor has no method `nosuch`", "nosuch", ""),
        ("h = int(d * e)", "return x", "E110", "unknown name `e`", "e", ""),
        (
            "h = Linear(4, 4, weight=l.weight)\nl = Linear(4, 4)",
            "return h(l(x))",
            "E110",
            "`l` is not yet made",
            "l",
            "declared above it",
        ),
        ("h = len(d)", "return x", "E202", "`len` counts the values of a list", "len(d)", ""),
        ("", "return x * B if B > 2 else x", "E208", "`B > 2` is not known", "B > 2", ""),
    ],
)
def test_mistakes(members: str, body: str, code: str, message: str, caret: str, help: str) -> None:
    found = mistakes(MEMBERS % (members, body))[0]
    assert found.code == code
    assert found.message.startswith(message)
    assert found.span is not None
    assert found.span.text == caret
    assert help in (found.help or "")


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("module A() { b = B1() }\nmodule B1() { a = A() }\n", "A -> B1 -> A"),
        ("fn f(x: [B]) -> [B] { return g(x) }\nfn g(x: [B]) -> [B] { return f(x) }\n", "f -> g -> f"),
    ],
)
def test_recursion_is_told(text: str, chain: str) -> None:
    (found,) = mistakes(text)
    assert found.code == "E210"
    assert chain in found.notes


ORIGINS = """module Res(d: int = 64) {
    pool = MaxPool2d(2)
    conv = Conv2d(d, 32, 3, padding=1)
    up   = Linear(64, 32)
    forward(x: float[B, d, H, W], z: float[B, T, 64]) -> float[B, d, H, W] {
        %s
    }
}
"""


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("return x + pool(x)", "`pool` halves the last two dimensions (net.model:2:12)"),
        ("return x + relu(pool(x) * 2)", "`pool` halves the last two dimensions (net.model:2:12)"),
        ("return x - conv(x)", "`conv` turns dimension 1 from d into 32 (net.model:3:12)"),
        ("w = z + gelu(up(z))\n        return x", "`up` turns the last dimension from 64 into 32 (net.model:4:12)"),
        (
            "w = cat([z, up(z)], dim=1)\n        return x",
            "`up` turns the last dimension from 64 into 32 (net.model:4:12)",
        ),
        ("w = z + z.T\n        return x", "`.T` turns the last two dimensions from T, 64 into 64, T (net.model:6:17)"),
        ("w = z + z.sum(dim=1)\n        return x", "`sum` makes float[B, 64] of float[B, T, 64] (net.model:6:17)"),
        ("return pool(x)", "`pool` halves the last two dimensions (net.model:2:12)"),
    ],
)
def test_a_mismatch_tells_what_made_it(body: str, note: str) -> None:
    (found,) = mistakes(ORIGINS % body)
    assert found.code in ("E203", "E207")
    assert note in found.notes


@pytest.mark.parametrize("body", ["x @ x", "x + x.T", "cat([x, x.T], dim=0)"])
def test_sizes_that_may_be_equal_can_be_stated_so(body: str) -> None:
    """And with that the program is right."""
    text = "module M() {\n    forward(x: float[B, H, W]) -> float[B, H, W] {\n%s        y = " + body
    text += "\n        return x\n    }\n}\n"
    (found,) = mistakes(text % "")
    assert (found.code, found.help) == ("E203", "where they are equal, state it: `assume H == W`")
    built(text % "        assume H == W\n")


def test_a_call_tells_which_input_bound_a_size() -> None:
    text = """fn f(x: float[B, C], y: float[B, C]) -> float[B, C] { return x + y }
module M() {
    l = Linear(4, 8)
    forward(x: float[B, 4]) -> float[B, 4] { return f(x, l(x)) }
}
"""
    (found,) = mistakes(text)
    assert found.label == "float[B, 8] where float[B, 4] is expected"
    assert found.notes == (
        "`y` of `f` is declared float[B, C]",
        "`C` is 4 there, as `x` has it",
        "`l` turns the last dimension from 4 into 8 (net.model:3:9)",
    )
