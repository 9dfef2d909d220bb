"""Arithmetic, functions, reductions, order and activations as PyTorch has them: the same calls in both languages.

A call is written once. As Python it runs on PyTorch; as a program it is checked, and its emitted text run. Both accept
it, with equal results of equal types, or both refuse it: for every dtype, and for the forms that PyTorch overloads.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tdsl.compiler.build.program import build
from tdsl.compiler.emit.python import graph_lines
from tdsl.compiler.ir import Graph, Value
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.resolve import load
from tests.helpers import compiled, graph_of

DTYPES = {
    "bool": torch.bool,
    "u8": torch.uint8,
    "i16": torch.int16,
    "i32": torch.int32,
    "int": torch.int64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "float": torch.float32,
    "f64": torch.float64,
}
INPUTS = {
    "x": "{0}[4, 6]",
    "y": "{0}[6]",
    "z": "{0}[]",
    "f": "float[4, 6]",
    "n": "int[4, 6]",
    "m": "bool[4, 6]",
    "d": "f64[]",
    "k": "int[]",
    "t": "float[3, 4, 6]",
}


def checked(text: str, dtype: str) -> tuple[Graph | None, list[Diagnostic]]:
    """The graph of a module that returns what `text` says, or its mistakes; the results have the types they have."""
    inputs = ", ".join(f"{name}: {type.format(dtype)}" for name, type in INPUTS.items())
    source = f"module M() {{\n  forward({inputs}) -> int[] {{\n    r = {text}\n    return k\n  }}\n}}\n"
    program, reporter = load("net.model", text=source)
    assert program is not None, reporter.diagnostics
    unit = build(program, reporter)
    return (unit.modules[0].graph if unit else None), reporter.diagnostics


class PyTorch(dict[str, Any]):
    """Names of a call, as PyTorch calls them."""

    def __missing__(self, name: str) -> Any:
        for owner in (torch, F):
            if hasattr(owner, name):
                return getattr(owner, name)
        raise NameError(name)


def tensors(dtype: str, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: _tensor(type.format(dtype), generator) for name, type in INPUTS.items()}


def _tensor(type: str, generator: torch.Generator) -> torch.Tensor:
    dtype, _, dims = type.partition("[")
    shape = [int(d) for d in dims.rstrip("]").split(",") if d.strip()]
    if dtype == "bool":
        return torch.rand(shape, generator=generator) < 0.5
    if DTYPES[dtype].is_floating_point:
        return (torch.rand(shape, generator=generator) * 2 + 0.1).to(DTYPES[dtype])
    return torch.randint(1, 5, shape, generator=generator).to(DTYPES[dtype])


def in_python(text: str) -> str:
    words = {"true": "True", "false": "False", "none": "None", "inf": "math.inf"}
    words |= {
        name: f"torch.{dtype}".replace("torch.torch", "torch") for name, dtype in DTYPES.items() if name != "bool"
    }
    words |= {"f32": "torch.float32"}
    return re.sub(r"(?<![\w.\"])[a-z]\w*\b(?!\()", lambda w: words.get(w[0], w[0]), text)


def by_pytorch(text: str, given: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = eval(in_python(text), PyTorch({"torch": torch, "math": math, "cast": torch.Tensor.to, **given}))
    return tuple(found) if isinstance(found, tuple) else (found,)


def yielded(graph: Graph) -> tuple[Value, ...]:
    """What the call is: the one result that the program names, or all of them."""
    made = graph.nodes[-1].outputs
    return tuple(v for v in made if v.name == "r") or made


def by_us(graph: Graph, given: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Run the emitted text, what the call yields in place of the module's own result."""
    shown = replace(graph, outputs=yielded(graph))
    body = "\n".join(f"    {line}" for line in graph_lines(shown))
    names: dict[str, Any] = {"torch": torch, "F": F}
    exec(f"def run({', '.join(given)}):\n{body}\n", names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = names["run"](**given)
    return tuple(found) if isinstance(found, tuple) else (found,)


def agree(text: str, dtype: str) -> str:
    """What differs between PyTorch and the language; nothing where they agree."""
    given = tensors(dtype)
    graph, diagnostics = checked(text, dtype)
    try:
        expected = by_pytorch(text, given)
    except (TypeError, RuntimeError, ValueError, IndexError, NotImplementedError) as error:
        if "ZeroDivisionError" in str(error):  # of the values, not of the types
            return ""
        return "" if graph is None else f"PyTorch refuses it: {str(error)[:100]}"
    if graph is None:
        return f"PyTorch yields {[(r.dtype, tuple(r.shape)) for r in expected]}, we: {diagnostics[0].message}"
    types = [v.type for v in yielded(graph)]
    want = [(str(r.dtype), list(r.shape)) for r in expected]
    have = [
        (str(DTYPES[{"i64": "int", "f32": "float"}.get(t.dtype, t.dtype)]), [s.constant for s in t.shape])
        for t in types
    ]
    if want != have:
        return f"PyTorch yields {want}, we say {have}"
    for right, found in zip(expected, by_us(graph, given), strict=True):
        if right.dtype != found.dtype or not torch.equal(right.nan_to_num(7), found.nan_to_num(7)):
            return "other values"
    return ""


def calls(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(";") if part.strip()]


UNARY = """abs neg sign exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos atan sinh
    cosh tanh erf floor ceil round trunc frac sigmoid isnan isinf isfinite logical_not""".split()
ACTIVATIONS = """relu relu6 leaky_relu elu selu celu gelu silu mish hardsigmoid hardswish hardtanh softplus softsign
    glu logsigmoid""".split()
BINARY = "add sub mul div floor_divide remainder fmod pow maximum minimum atan2 logical_and logical_or eq lt".split()
SIGNS = "+ - * / // % ** == != < <= > >=".split()
OTHERS = "x y z f n m d k 2 2.5 true".split()
REDUCTIONS = "sum mean prod max min amax amin argmax argmin var std norm all any median".split()
OF_REDUCTIONS = ["", "dim=0", "-1", "1, true", "dim=1, keepdim=true", "dim=2", "dim=(0, 1)", "dim=(0, 0)", "dim=none"]

FORMS = [
    *(f"{name}({x})" for name in UNARY + ACTIVATIONS for x in "xz"),
    *(f"x.{name}({other})" for name in BINARY for other in OTHERS),
    *(f"{name}(z, {other})" for name in BINARY for other in "xfkd"),
    *(f"x {sign} {other}" for sign in SIGNS for other in OTHERS),
    *(f"{number} {sign} {x}" for sign in SIGNS for number in ("2", "2.5") for x in "xz"),
    *(
        f"x.{name}({arguments})"
        for name in REDUCTIONS
        for arguments in OF_REDUCTIONS
        if name != "norm" or "=" in arguments
    ),
    *calls("""
    add(x, x, alpha=2); add(x, f, alpha=0.5); sub(x, x, alpha=2); x.sub(2, alpha=3); x.add(x, alpha=2.5); add(2, x);
    div(x, x, rounding_mode="floor"); x.div(f, rounding_mode="trunc"); x.div(2.5, rounding_mode="floor");
    div(x, 2, rounding_mode=none); x.div(2, rounding_mode="up"); x.div(y, rounding_mode="trunc"); x ** -1; x ** 0.5;
    clamp(x, 0, 1); clamp(x, 0.5); x.clamp(max=2); clamp(x); x.clamp(min=y); clamp(x, y, x); clamp(x, 0, y);
    clamp(x, min=none, max=1.5); x.clamp(z, d); where(m, x, 2); where(m, x, f); where(x, 1.0, 2.0); where(m, 1, 2.5);
    where(m, z, n); where(m, d, y); where(f, x, x); masked_fill(x, m, 2); x.masked_fill(m, 2.5); y.masked_fill(m, 1);
    x.masked_fill(m, z); x.masked_fill(m, d); x.masked_fill(m, y); f.masked_fill(x, 1.0); f.masked_fill(m, -inf);
    lerp(x, x, 0.5); lerp(x, f, 0.5); lerp(x, x, x); lerp(x, y, 0.25); lerp(x, x, d); lerp(f, f, x); lerp(x, x, z);
    round(x, decimals=2); round(x, decimals=0); round(x, decimals=-1); hardtanh(x, -0.5, 0.5); hardtanh(x, 1, -1);
    gelu(x, approximate="tanh"); gelu(x, approximate="x"); celu(x, alpha=0.0); leaky_relu(x, 0.2); elu(x, alpha=0.5);
    softplus(x, beta=2.0, threshold=1.0); threshold(x, 1, 0); threshold(x, 0.5, 20.0); prelu(x, y); prelu(x, z);
    prelu(f, x); prelu(x, x); prelu(t, y[0:4]); glu(x, dim=0); glu(y); glu(t, 0); glu(x, dim=2); softmax(x, dim=1);
    log_softmax(x, dim=0); softmax(x, dim=-1, dtype=f32); log_softmax(x, -1, dtype=f64); x.softmax(dim=2);
    x.sum(dim=1, dtype=f64); x.sum(dtype=f32); x.mean(dim=0, dtype=f64); x.mean(dtype=f32); x.prod(1, dtype=f64);
    x.cumsum(0); cumsum(x, dim=-1); x.cumsum(1, dtype=f64); x.cumprod(1); x.cumprod(2); x.cumsum(dim=0, dtype=f16);
    max(x, x); max(x, f); x.min(y); max(x, 2); x.max(x, 1); min(x, dim=1, keepdim=true); x.max(dim=(0, 1));
    x.amax(); x.amax(()); x.amin((0, 1)); x.argmax(keepdim=true); argmin(x, 1, true); argmax(x, dim=none);
    x.var(1, false); x.std(false); x.std(unbiased=false); x.var(1, true, true); x.std(dim=0, correction=0);
    x.var(correction=2); x.var(dim=(0, 1), unbiased=false); x.std(1, keepdim=true); x.var(none, true);
    x.norm(2); x.norm(1, 0); x.norm(p=inf); norm(x, inf, -1); x.norm(p=-inf, dim=0, keepdim=true); x.norm(0, 1);
    x.norm("fro"); x.norm(3, (0, 1)); x.norm(dim=1); x.norm("nuc", 1); norm(x, 2.5, dim=(0, 1), keepdim=true);
    logsumexp(x, 1); logsumexp(x, (0, 1), true); x.logsumexp(dim=-1, keepdim=true); logsumexp(x, 2); logsumexp(x);
    x.all((0, 1)); x.any(dim=(0,), keepdim=true); all(x, 1); any(x); x.all(2);
    x.topk(2); x.topk(2, 0); topk(x, k=3, dim=1, largest=false); x.topk(7); x.topk(2, dim=0, sorted=false); x.topk(-1);
    y.topk(6); z.topk(1); x.sort(); sort(x, 0); x.sort(dim=1, descending=true); x.sort(stable=true);
    x.sort(stable=true, dim=0, descending=true); x.sort(2); x.argsort(); argsort(x, dim=0, descending=true);
    x.argsort(stable=true, dim=0); z.sort(); x.median(); x.median(0); x.median(dim=1, keepdim=true); median(x, 2);
    cast(x, f16); x.to(bf16); x.to(f); x.to(f64); x.to(n); x.type_as(f); x.type_as(n); x.float(); x.half();
    x.bfloat16(); x.double(); x.long(); x.bool(); x.neg(); x.square(); x.pow(2); x.pow(0.5); pow(2, x); pow(2.5, z);
    pow(x, y); pow(2, 3); fmod(2, x); remainder(2, x); floor_divide(2, x); maximum(2, x); atan2(2.0, x); eq(x, 2);
    logical_and(x, 1); x.ne(y); x.le(2); x.gt(z); x.ge(f); logical_not(true); add(x, t); x * t; mul(y, t); x.add();
    x.sub(x, x); x.exp(2); exp(); exp(2.0); x.isnan(1); minimum(y, x); minimum(x, t[0]); atan2(y, x);
    x.max(1).values; x.min(0).indices; x.sort().values; x.max(dim=1)[1]; x.median(0)[0]
    """),
]

# Where the language goes its own way, with the reason.
OWN_WAY = {
    ("x ** true", "bool"): "a power of truth values, which PyTorch has for this exponent alone",
    ("x.pow(true)", "bool"): "a power of truth values, which PyTorch has for this exponent alone",
    **{("round(x, decimals=0)", dtype): "its default, which integers take" for dtype in ("u8", "i16", "i32", "int")},
    ("exp(2.0)", "any"): "a number at compile time",
    ("pow(2, 3)", "any"): "two numbers: the program writes `2 ** 3`",
}


@pytest.mark.parametrize("text", FORMS)
def test_what_pytorch_accepts_and_yields(text: str) -> None:
    told = {dtype: agree(text, dtype) for dtype in DTYPES if not {(text, dtype), (text, "any")} & OWN_WAY.keys()}
    assert not {dtype: what for dtype, what in told.items() if what}


@pytest.mark.parametrize(
    ("text", "code", "told", "help"),
    [
        ("maximum(x, 2)", "E202", "this is the number 2", "beside a number: `clamp(x, min=...)`"),
        ("clamp(x)", "E202", "needs `min` or `max`", "`clamp(x, min=0)`"),
        ("x.max(dims=1)", "E202", "no argument `dims`", "did you mean `dim`?"),
        ("x.sort(decending=true)", "E202", "no argument `decending`", "did you mean `descending`?"),
        ("x - m", "E205", "float[4, 6] and bool[4, 6]", "convert with `.float()`"),
        ("n ** -1", "E205", "a negative power of integers is no integer", "convert with `.float()`"),
        ('gelu(x, approximate="x")', "E202", "this is 'x'", None),
        ("hardtanh(x, 2, 1)", "E202", "2 and 1", None),
        ("add(2, 3)", "E201", "these are only numbers", None),
        ("x.sum(dim=(0, -2))", "E204", "names a dimension twice", None),
        ("x.topk(7)", "E203", "`topk` of 7 where there are 6", None),
        ("where(f, x, x)", "E205", "the condition of `where` is boolean", "compare: `where(x > 0, a, b)`"),
        ('norm(x, "nuc")', "E202", "`p` of `norm` is a number", "the greatest element: `p=inf`"),
    ],
)
def test_a_refusal_says_what_and_how_to_go_on(text: str, code: str, told: str, help: str | None) -> None:
    graph, diagnostics = checked(text, "float")
    assert graph is None
    (found,) = diagnostics
    assert (found.code, found.help) == (code, help)
    assert told in f"{found.message} {found.label}"
    assert found.span is not None
    assert found.span.text in (text, text.partition("(")[2].rstrip(")"))


SIZED = """
module M(dim: int = 8) {{
    forward(x: float[B, T, dim]) -> float[] {{
        {}
    }}
}}
"""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return x.topk(3, dim=1).values.sum()", "E208"),
        ("assume T >= 3\n        return x.topk(3, dim=1).values.sum()", ""),
        ("return glu(x, dim=1).sum()", "E208"),
        ("assume T % 2 == 0\n        return glu(x, dim=1).sum()", ""),
        ("return glu(x).sum()", ""),
    ],
)
def test_sizes_are_proved_or_refused(body: str, code: str) -> None:
    program, reporter = load("net.model", text=SIZED.format(body))
    assert program is not None
    unit = build(program, reporter)
    assert (unit is not None) == (not code)
    assert [d.code for d in reporter.diagnostics if d.severity == "error"] == ([code] if code else [])


def emitted_body(text: str) -> list[str]:
    """The body of `forward` as it is emitted, without comments."""
    program, reporter = load("net.model", text=text)
    assert program is not None
    unit = build(program, reporter)
    assert unit is not None, reporter.diagnostics
    return [line.partition("  #")[0] for line in graph_lines(unit.modules[0].graph)]


def test_results_are_named_as_pytorch_names_them() -> None:
    program = """
module M(dim: int = 8) {
    forward(x: float[B, dim]) -> (float[B, dim], int[B, dim], float[B], float[B, 2]) {
        values, indices = x.sort(dim=0)
        top = x.max(dim=1).values
        return values, indices, top + x.min(dim=-1)[0], x.topk(2)[0]
    }
}
"""
    assert emitted_body(program) == [
        "values, indices = x.sort(dim=0)",
        "top, _ = x.max(dim=1)",
        "values_2, _ = x.min(dim=-1)",
        "values_3, _ = x.topk(2)",
        "return values, indices, top + values_2, values_3",
    ]


def test_arithmetic_reads_as_a_person_writes_it() -> None:
    program = """
module M(dim: int = 8) {
    forward(x: float[B, dim], n: int[B]) -> (float[B, dim], int[B], float[B, dim]) {
        a = x % 2 - (x + 1) % 3 * 2
        b = n // 2 % 3
        c = masked_fill(x, x > 0, -inf).maximum(x.clamp(min=0.5)).norm(p=inf, dim=-1, keepdim=true) * x
        return a, b, c
    }
}
"""
    assert emitted_body(program) == [
        "a = x % 2 - (x + 1) % 3 * 2",
        'b = torch.div(n, 2, rounding_mode="floor") % 3',
        'maximum = torch.maximum(x.masked_fill(x > 0, float("-inf")), torch.clamp(x, min=0.5))',
        'c = torch.linalg.vector_norm(maximum, float("inf"), dim=-1, keepdim=True) * x',
        "return a, b, c",
    ]


def test_integers_alone_need_no_kernel() -> None:
    text = "module M() {\n  forward(n: int[B]) -> int[B] { return (n + 1) * 2 - n }\n}\n"
    graph = graph_of(compiled(text), "M")
    assert [node.op.name for node in graph.nodes] == ["add", "mul", "sub"]
