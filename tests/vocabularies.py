"""Programs that learn a distribution over many classes, for the losses that never store all scores."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tdsl.compiler import pipeline
from tdsl.compiler.emit.project import Options, emit, write
from tests.helpers import ROOT, compiled
from tests.running import importable

EXAMPLES = ROOT / "examples"

WORDS = """
module Words(vocab: int, dim: int = 16) {
    embed = Embedding(vocab, dim)
    norm  = LayerNorm(dim)
    head  = Linear(dim, vocab, bias=false, weight=embed.weight)

    forward(tokens: int[B, T]) -> float[B, T, vocab] {
        x = embed(tokens)
        return head(norm(x + silu(x)))
    }
}
"""
LOSS = """
        scores = model(batch.tokens)
        return cross_entropy(scores.flatten(0, 1), batch.targets.flatten(0, 1))
"""


def program(
    *, precision: str = "f32", classes: int = 8192, modules: str = WORDS, loss: str = LOSS, settings: str = ""
) -> str:
    """A run named `words`: 64 numbers of 0 to 16 a row, the targets all of their classes."""
    return f"""
{modules}
data Digits {{
    source = csv("data/digits.csv")
    split  = sequential(train=0.5, val=0.02, test=0.48)
    field tokens:  int[64] = columns("p*")
    field targets: int[64] = columns("p*") * 3
}}

train words {{
    model = Words(vocab={classes})
    data  = Digits
    loss(batch) {{{loss}    }}
    optimizer  = SGD(lr=1.0)
    steps      = 3
    batch_size = 4
    precision  = {precision}
{settings}
}}

evaluate words {{
    compare(batch) {{ return model(batch.tokens), batch.targets }}
    metrics = [Perplexity()]
}}
"""


def project(text: str, folder: Path, passes: tuple[pipeline.Pass, ...] = pipeline.PASSES) -> Path:
    """The folder with the whole project in it."""
    unit = compiled(text, passes, name=EXAMPLES / "program.model")
    write(emit(unit, Options("words", root=str(EXAMPLES))), folder)
    return folder


@contextmanager
def imported(folder: Path) -> Iterator[dict[str, Any]]:
    """The names of a project's `train.py`, its modules among them."""
    with importable(folder):
        yield runpy.run_path(str(folder / "train.py"))
