"""Which modules FSDP gathers by themselves: those that are only called."""

from __future__ import annotations

import pytest

from tdsl.compiler import pipeline
from tdsl.compiler.emit.blocks import blocks
from tests.helpers import built
from tests.test_distributed import DEEP, EXAMPLES, LEARNS, NET, NORMED, program

# Lists within modules, modules of one layer and of few parameters, and one whose body its caller's kernel computes.
NESTED = """
module Part(dim: int) {
    up   = Linear(dim, dim)
    down = Linear(dim, dim)
    forward(x: [B, dim]) -> [B, dim] { return down(relu(up(x))) }
}
module Small() {
    one = Linear(64, 1)
    two = Linear(1, 64)
    forward(x: [B, 64]) -> [B, 64] { return two(tanh(one(x))) }
}
module Gate(dim: int) {
    param scale: [dim, 20] = ones()
    forward(x: [B, dim]) -> [B, dim] { return x * sigmoid(x * scale.mean(-1)) }
}
module Pair() {
    inner = [Part(64) for i in range(2)]
    outer = Linear(64, 64)
    forward(x: [B, 64]) -> [B, 64] { return outer(x |> inner) }
}
module Net() {
    alone = Part(64)
    small = Small()
    pair  = Pair()
    gate  = Gate(64)
    list  = [Part(64), Small()]
    head  = Linear(64, 10)
    forward(x: float[B, 64]) -> float[B, 10] {
        return x |> alone |> small |> pair |> gate |> list |> head
    }
}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (program(NET), ()),
        (program(NORMED), ()),
        (program(NESTED), ("alone", "pair.inner.*", "list.0", "list.1")),
        (program(DEEP, settings=LEARNS).replace("= 69", "= 66"),
         ("blocks.*", "last", "teacher.blocks.*", "teacher.last")),
    ],
    ids=("layers alone", "norms", "lists within modules", "two models"),
)  # fmt: skip
def test_blocks_are_what_is_only_called(text: str, expected: tuple[str, ...]) -> None:
    unit = pipeline.run(built(text, EXAMPLES / "program.model"))
    assert blocks(unit, unit.runs["digits"]) == expected
