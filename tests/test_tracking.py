"""Values that modules and losses track: in the log, in an evaluation, and the text that hands them over."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers import ROOT, compiled, emitted, tdsl
from tests.running import source

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
