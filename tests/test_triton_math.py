"""The functions that kernels compute with, over their whole range, against float64: a few units in the last place.

Run in Triton's interpreter, in a process of its own.
"""

from __future__ import annotations

import json
from functools import cache

import pytest

from tests.helpers import ROOT, python

# Units in the last place that each may err, where its result is not smaller than the numbers it comes from.
UNARY = {
    "asin": 4, "acos": 4, "atan": 4, "sinh": 8, "cosh": 8, "tanh": 4, "log1p": 4, "expm1": 6, "log10": 6,
    "trunc": 0, "whole": 0, "sign": 0,
}  # fmt: skip
BINARY = {"atan2": 4, "power": 6, "fmod": 0}
RUN = '''
import json
import torch, triton, triton.language as tl
from tdsl.runtime import triton_math as tm

SOURCE = """
@triton.jit
def {0}(a_ptr, b_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    a = tl.load(a_ptr + offsets, mask=mask, other=1.0)
    b = tl.load(b_ptr + offsets, mask=mask, other=1.0)
    tl.store(y_ptr + offsets, tm.{0}({1}), mask=mask)
"""

def compute(name, a, b, arguments):
    import linecache
    text = SOURCE.format(name, arguments)
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    space = {"triton": triton, "tl": tl, "tm": tm}
    exec(compile(text, name, "exec"), space)
    y = torch.empty_like(a)
    space[name][(triton.cdiv(a.numel(), 4096),)](a, b, y, a.numel(), BLOCK=4096)
    return y

def exact(name, a, b):
    a, b = a.double(), b.double()
    other = {"whole": torch.round, "power": torch.pow}
    if name in ("atan2", "fmod", "power"):
        return other.get(name, getattr(torch, name, None))(a, b)
    return other.get(name, getattr(torch, name, None))(a)

def points(name):
    g = torch.Generator().manual_seed(0)
    n = 20000
    sign = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    wide = sign * torch.exp(torch.rand(n, generator=g) * 40 - 20)
    if name in ("asin", "acos"):
        a = torch.rand(n, generator=g) * 2 - 1
    elif name in ("sinh", "cosh", "expm1"):
        a = torch.rand(n, generator=g) * 170 - 85
        a[::2] /= 100
    elif name == "log1p":
        a = wide.abs()
        a[::2] = torch.rand(n // 2, generator=g) * 1.5 - 0.75
    elif name == "log10":
        a = wide.abs()
    elif name in ("trunc", "whole"):
        a = sign * torch.rand(n, generator=g) * 100
        a[::3] = torch.round(a[::3]) + 0.5
    elif name == "power":
        a = torch.exp(torch.rand(n, generator=g) * 8 - 4)
    else:
        a = wide
    b = torch.rand(n, generator=g) * 12 - 6 if name == "power" else wide[torch.randperm(n, generator=g)]
    return a, b

def special():
    one = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 3.0, float("inf"), float("-inf"), float("nan"), 1e-30])
    a, b = torch.meshgrid(one, one, indexing="ij")
    return a.reshape(-1).clone(), b.reshape(-1).clone()

import sys
found = {}
for name, arguments in json.loads(sys.argv[1]).items():
    a, b = points(name)
    y, right = compute(name, a, b, arguments), exact(name, a, b)
    spacing = torch.finfo(torch.float32).eps * right.abs()
    # Near a zero of the function that is no zero of its argument (acos(1), log10(1)) what rounds is of order 1.
    floor = {"acos": 1.0, "log10": 1.0}.get(name, 1e-38)
    ulps = float(((y.double() - right).abs() / spacing.clamp(min=floor * 6e-8)).max())
    sa, sb = special()
    ys, rs = compute(name, sa, sb, arguments), exact(name, sa, sb).float()
    if name == "power":  # a negative zero counts as zero there
        ys, rs = ys.where(sa != 0, ys.abs()), rs.where(sa != 0, rs.abs())
    wrong = ~(torch.isclose(ys, rs, rtol=1e-6, atol=1e-37) | (ys.isnan() & rs.isnan()))
    found[name] = [ulps, [f"{name}({p}, {q}) = {r}, not {s}" for p, q, r, s in
        zip(sa[wrong].tolist(), sb[wrong].tolist(), ys[wrong].tolist(), rs[wrong].tolist())]]
print(json.dumps(found))
'''


@cache
def found() -> dict[str, tuple[float, list[str]]]:
    # A process for all of them: it takes seconds to import what they need.
    arguments = dict.fromkeys(UNARY, "a") | dict.fromkeys(BINARY, "a, b")
    ran = python("-c", RUN, json.dumps(arguments), interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]
    result: dict[str, tuple[float, list[str]]] = json.loads(ran.stdout)
    return result


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_the_error_is_a_few_units_in_the_last_place(name: str) -> None:
    ulps, wrong = found()[name]
    assert ulps <= (UNARY | BINARY)[name]
    assert not wrong
