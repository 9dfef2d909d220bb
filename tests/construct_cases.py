"""Programs with each construct of the language, and what they compute in the words of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


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
