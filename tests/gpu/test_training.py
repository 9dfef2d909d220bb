"""`examples/gpt.model` trained on the GPU in bf16 by the emitted script, and resumed exactly."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

import tdsl
from tests.helpers import ROOT, python

RUN = """import "gpt.model"

data Words {
    source = text("words.txt", tokenizer=characters(), window=128)
    split  = sequential(train=0.9, val=0.1)

    field tokens:  int[128] = column("tokens")
    field targets: int[128] = column("targets")
}

train words {
    model = GPT(vocab=Words.vocab_size, dim=256, heads=4, layers=4, p=0.1)
    data  = Words

    loss(batch) {
        logits = model(batch.tokens)
        return cross_entropy(logits.flatten(0, 1), batch.targets.flatten(0, 1))
    }

    optimizer      = AdamW(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    steps          = 20
    batch_size     = 16
    precision      = bf16
    clip_grad_norm = 1.0
    deterministic  = true
    checkpoint { every = 10 }
    logging { every = 5 }
}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emitted program."""
    folder = tmp_path_factory.mktemp("gpt")
    shutil.copy(ROOT / "examples" / "gpt.model", folder)
    (folder / "run.model").write_text(RUN, encoding="utf-8")
    words = random.Random(0).choices(["kernel", "gradient", "the", "a", "row", "sum", "of"], k=20000)
    (folder / "words.txt").write_text(" ".join(words), encoding="utf-8")
    tdsl.compile(folder / "run.model", folder / "emitted")
    return folder / "emitted"


def _train(project: Path, out: Path, *options: str, device: str = "cuda") -> list[dict[str, float]]:
    """Run the script; what it logged."""
    ran = python(project / "train.py", "--out", out, "--device", device, *options, cwd=project)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_that_is_resumed_is_the_run_that_was_not(project: Path, tmp_path: Path) -> None:
    logged = _train(project, tmp_path / "whole")
    assert [line["step"] for line in logged] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    assert logged[-1]["loss"] < logged[0]["loss"]
    _train(project, tmp_path / "parts", "--steps", "10")
    _train(project, tmp_path / "parts")
    names = sorted(path.name for path in (tmp_path / "whole" / "checkpoints" / "step-20").glob("*.safetensors"))
    assert "model.safetensors" in names
    for name in names:
        first, second = (tmp_path / run / "checkpoints" / "step-20" / name for run in ("whole", "parts"))
        assert first.read_bytes() == second.read_bytes(), name
