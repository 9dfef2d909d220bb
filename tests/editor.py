"""What the tests of the editor's functions need: texts with a cursor in them, and programs to try them on."""

from __future__ import annotations

from pathlib import Path

from tdsl.compiler.editor.analysis import Analysis, analyze
from tests.helpers import ROOT, SHARED

CURSOR = "‸"
PROGRAMS = sorted((*(ROOT / "examples").glob("*.model"), *(SHARED / "conformance").glob("*.model")))
# Where the data of the program below lies.
PATH = str(ROOT / "examples" / "program.model")

PROGRAM = """\
# How wide it is.
const WIDTH = 4 * 8

# Twice its input.
fn twice(x: float[B, D]) -> float[B, D] {
    return x + x
}

# A small network.
module Net(dim: int, act: fn = relu) {
    up   = Linear(_, dim)
    down = Linear(in_features=dim, out_features=10)
    param scale: [dim] = ones()

    forward(x: float[B, 64]) -> float[B, 10] {
        h = act(up(x)) * scale  # höher 𝟙
        BODY
        return h |> down
    }
}

data Digits {
    source = csv("data/digits.csv")
    split  = stratified(train=0.7, val=0.15, test=0.15, by="label")
    field pixels: float[64] = columns("p*") / 16
    field label:  int[]     = column("label")
    DATA
}

train digits {
    model = Net(dim=WIDTH)
    data  = Digits

    loss(batch) {
        scores = model(batch.pixels)
        track spread = scores.std()
        LOSS
        return cross_entropy(scores, batch.label)
    }

    optimizer = AdamW(lr=1e-3)
    epochs    = 2
    checkpoint { best = "val/spread" }
    RUN
}

evaluate digits {
    compare(batch) { return model(batch.pixels), batch.label }
    metrics = [Accuracy()]
}
"""
SLOTS = ("BODY", "DATA", "LOSS", "RUN")


def program(**lines: str) -> str:
    """The program with these lines in their places."""
    text = PROGRAM
    for slot in SLOTS:
        text = text.replace(f"{slot}\n", f"{lines[slot]}\n" if slot in lines else "\n")
    return text


def marked(text: str, path: str = PATH, before: Analysis | None = None) -> tuple[Analysis, int]:
    """The analysis of a text without its cursor, and where the cursor was."""
    assert text.count(CURSOR) == 1
    offset = text.index(CURSOR)
    return analyze(path, text.replace(CURSOR, ""), {}, before), offset


def at(word: str, **lines: str) -> tuple[Analysis, int]:
    """The program analysed, and where the one `word` in it begins."""
    text = program(**lines)
    assert text.count(word) == 1, (word, text.count(word))
    return analyze(PATH, text), text.index(word)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")
