"""Dropout of whole channels, left to PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.ops.spatial import floating
from tdsl.dsl.diagnostics import fail


def _dropped(ranks: tuple[int, ...]) -> Callable[[Bound], Types]:
    def infer(b: Bound) -> Types:
        floating(b)
        if len(b.type(0).shape) not in ranks:
            wanted = " or ".join(map(str, ranks))
            fail("E203", f"`{b.op.name}` needs {wanted} dimensions", b.span, f"this is {b.type(0)}")
        return (b.type(0),)

    return infer


def _rate(text: str) -> tuple[str, str]:
    """A rate and the truth that it holds, from `0.1 if self.training else 0.0`."""
    p, conditional, rest = text.partition(" if ")
    return p, rest.removesuffix(" else 0.0") if conditional else "True"


def _text(name: str) -> Callable[[list[str], dict[str, Any]], str]:
    def text(texts: list[str], attrs: dict[str, Any]) -> str:
        return f"F.{name}({texts[0]}, {', '.join(_rate(texts[1]))})"

    return text


for _name, _ranks in (("dropout1d", (2, 3)), ("dropout2d", (3, 4)), ("dropout3d", (4, 5))):
    library(_name, "input: tensor, p: operand = 0.5", _dropped(_ranks), _text(_name), effects=True)
