"""Every code of types and shapes: what it says, a program that raises it, the cure. `dsl/codes.py` has the others."""

from __future__ import annotations

from tdsl.dsl.codes import Code


def _forward(body: str, members: str = "") -> str:
    """A module of which `forward` has this body."""
    return (
        f"module M(dim: int = 8) {{\n{members}    forward(x: float[B, dim], n: int[B]) -> float[B, dim] {{\n"
        f"        {body}\n    }}\n}}\n"
    )


_ALL = (
    Code("E201", "a value of another sort is needed", _forward("return x + relu"), "the message tells which"),
    Code("E202", "an argument does not fit", _forward("return dropout(x, rate=0.1)"), "correct its name or value"),
    Code("E203", "shapes do not match", _forward("return x + x.sum(dim=-1)"), "keep the dimension: `keepdim=true`"),
    Code("E204", "no such dimension or index", _forward("return softmax(x, dim=2)"), "count from 0, or back from -1"),
    Code("E205", "values of another dtype are needed", _forward("return softmax(n, dim=0)"), "convert with `.float()`"),
    Code("E206", "not supported by this version", _forward("return flip(x, 0)"), "write it with what there is"),
    Code("E207", "not what is declared", _forward("return x.sum()"), "correct the declaration or the result"),
    Code(
        "E208",
        "not known, or not proved, at compile time",
        _forward("return x.reshape(-1, 3).sum()"),
        "make the size a constant or a parameter",
    ),
    Code("E209", "too large", _forward("return x", "    l = [ReLU() for i in range(100000)]\n"), "make it smaller"),
    Code("E210", "something contains itself", _forward("return m(x, n)", "    m = M(dim)\n"), "take the circle apart"),
)
CODES = {each.code: each for each in _ALL}
