"""The emitted `train.py`: its text, what it trains, and what of a run is refused."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from tdsl.compiler.build.unit import Unit
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.compiler.emit.train import emit_train
from tdsl.compiler.trainable import unsupported
from tests.helpers import ROOT, built, compiled
from tests.running import importable

EXAMPLES = ROOT / "examples"
LOSS = "cross_entropy(model(batch.pixels), batch.label)"


def program(settings: str = "    epochs = 1\n", loss: str = LOSS, optimizer: str = "SGD(lr=0.1)") -> str:
    return f"""
module Net(classes: int = 10) {{
    norm = LayerNorm(64)
    head = Linear(64, classes)
    forward(x: float[B, 64]) -> float[B, classes] {{ return head(norm(x)) }}
}}

data Digits {{
    source = csv("data/digits.csv")
    split  = sequential(train=0.5, val=0.25, test=0.25)
    field pixels: float[64] = columns("p*") / 16
    field label:  int[]     = column("label")
}}

# A run with a comment.
train digits {{
    model = Net()
    data  = Digits
    optimizer = {optimizer}
{settings}
    loss(batch) {{
        {loss}
    }}
}}
"""


def unit_of(settings: str, loss: str = f"return {LOSS}", optimizer: str = "SGD(lr=0.1)") -> Unit:
    return built(program(settings, loss, optimizer), EXAMPLES / "program.model")


def trained(tmp_path: Path, text: str, *options: str) -> dict[str, torch.Tensor]:
    """The weights after the last step."""
    folder = tmp_path / "emitted"
    unit = compiled(text, name=EXAMPLES / "program.model")
    write(emit(unit, Options("digits", root=str(EXAMPLES))), folder)
    command = [sys.executable, str(folder / "train.py"), "--out", str(tmp_path), "--device", "cpu", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    steps = sorted((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    return load_file(steps[-1] / "model.safetensors")


def test_accumulation_gives_what_pytorch_gives_for_the_whole_batch(tmp_path: Path) -> None:
    """PyTorch is the oracle; the parts of the last batch are of different sizes."""
    settings = (
        '    epochs = 2\n    batch_size = 92\n    accumulate = 4\n    clip_grad_norm = 0.5\n    freeze = ["norm.*"]\n'
    )
    settings += f'    scheduler = StepLR(step_size=1, gamma=0.5)\n    init_from = "{tmp_path}/start.safetensors"\n'
    model = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 10))
    start = {"norm.weight": model[0].weight, "norm.bias": model[0].bias, "head.weight": model[1].weight}
    save_file(
        {**{k: v.detach() for k, v in start.items()}, "head.bias": model[1].bias.detach()},
        tmp_path / "start.safetensors",
    )
    found = trained(tmp_path, program(settings, f"return {LOSS}"))
    data = runpy.run_path(str(tmp_path / "emitted" / "data.py"))
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for epoch in range(2):
        for batch in data["batches"]("train", 92, seed=0).epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(batch.pixels), batch.label).backward()
            nn.utils.clip_grad_norm_(model[1].parameters(), 0.5)
            optimizer.step()
        schedule.step()
    torch.testing.assert_close(found["head.weight"], model[1].weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["norm.weight"], model[0].weight.detach(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("metrics", "made"),
    [
        ('Accuracy(average="none"), Accuracy(top_k=2), Accuracy(top_k=3)', "num_classes=10, top_k=2)"),
        ('Accuracy(average="none"), Accuracy(top_k=2), Accuracy()', "num_classes=10)"),
        ('Accuracy(), Accuracy(average="none")', "num_classes=10)"),
    ],
)
def test_the_first_number_of_a_name_is_monitored(metrics: str, made: str, tmp_path: Path) -> None:
    text = program('    epochs = 1\n    checkpoint { best = "val/accuracy" }\n', f"return {LOSS}")
    text += (
        "evaluate digits {\n    compare(batch) { return model(batch.pixels), batch.label }\n"
        f"    metrics = [{metrics}]\n}}\n"
    )
    unit = built(text, EXAMPLES / "program.model")
    assert f'accuracy = metrics.Accuracy(task="multiclass", {made}\n' in emit_train(unit, unit.runs["digits"])
    trained(tmp_path, text)
    (line,) = (each for each in (tmp_path / "log.jsonl").read_text().splitlines() if "val/accuracy" in each)
    assert 0 < json.loads(line)["val/accuracy"] < 1


DISTILLED = (
    "    teacher = Net()\n"
    '    freeze = ["teacher.*"]\n    group "*.bias" { weight_decay = 0 }\n    ema = EMA()\n    steps = 6\n'
    '    scheduler = LinearLR(total_iters=2) |> ReduceLROnPlateau(monitor="train/distance")\n'
    '    checkpoint { best = "val/distance" }\n    early_stopping { patience = 2 }\n'
)
DISTANCE = (
    "distance = mse_loss(model(batch.pixels), teacher(batch.pixels))\n        track distance = distance\n"
    "        return distance"
)


def test_a_run_with_a_teacher_trains_the_other_model_alone(tmp_path: Path) -> None:
    trained(tmp_path, program(DISTILLED, DISTANCE, "AdamW(lr=1e-2)"))
    steps = [load_file(path / "teacher.safetensors") for path in (tmp_path / "checkpoints").iterdir()]
    assert len(steps) > 1
    assert all(torch.equal(each["head.weight"], steps[0]["head.weight"]) for each in steps)
    log = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert "val/distance" in log
    assert "train/distance" in log


@pytest.mark.skipif(shutil.which("ruff", path=str(Path(sys.executable).parent)) is None, reason="ruff is not installed")
@pytest.mark.parametrize(("settings", "loss"), [(DISTILLED, DISTANCE), ("    epochs = 1\n", f"return {LOSS}")])
def test_the_scripts_are_short_clean_and_the_same_each_time(settings: str, loss: str, tmp_path: Path) -> None:
    texts = [emit(unit_of(settings, loss), Options("digits")) for _ in range(2)]
    assert texts[0] == texts[1]
    assert texts[0]["train.py"].count("\n") <= 250
    assert "A run with a comment." in texts[0]["train.py"]
    write({name: texts[0][name] for name in ("train.py", "checkpoint.py", "data.py", "model.py")}, tmp_path)
    ruff = str(Path(sys.executable).parent / "ruff")
    rules = 'lint.isort.known-first-party=["tdsl", "data", "model", "kernels"]'
    for command in (["check", "--select", "E,F,W,I,UP,B,SIM", "--config", rules], ["format", "--check"]):
        options = ["--isolated", "--line-length", "120", "--no-cache", "train.py", "checkpoint.py"]
        done = subprocess.run([ruff, *command, *options], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ('    activation_checkpointing = ["body"]\n', "E336", '"body" matches no module'),
        (
            '    init_from = [weights("a.safetensors", model="teacher")]\n',
            "E313",
            'the run has no model "teacher" that weights could be for',
        ),
        ("    scheduler = StepLR(step_size=3) |> LinearLR()\n", "E333", "`StepLR` has no end"),
    ],
)
def test_what_training_does_not_have_is_refused_where_it_stands(settings: str, code: str, message: str) -> None:
    unit = unit_of(f"    epochs = 1\n{settings}")
    (found,) = unsupported(unit, unit.runs["digits"])
    assert found.code == code
    assert found.message.startswith(message)
    assert found.span is not None


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (LOSS, True),
        (f"0.5 * {LOSS} + mse_loss(model(batch.pixels)[:, 0], batch.label.float()) / 2", True),
        ("mean((model(batch.pixels) - 1) ** 2)", True),
        ("(model(batch.pixels) - 1).abs().mean()", True),
        ("(model(batch.pixels) - model(batch.pixels).mean()).square().mean()", False),
        ("softmax(model(batch.pixels), dim=0).mean()", False),
        ("model(batch.pixels).sum()", False),
        ('cross_entropy(model(batch.pixels), batch.label, reduction="sum")', False),
        ("cross_entropy(model(batch.pixels), batch.label, weight=batch.pixels[0, 0:10])", False),
    ],
)
def test_parts_of_a_batch_add_up_only_for_a_mean_over_rows(loss: str, expected: bool) -> None:
    unit = unit_of("    epochs = 1\n    batch_size = 8\n    accumulate = 2\n", f"return {loss}")
    run = unit.runs["digits"]
    assert run.accumulation.possible is expected
    assert [each.code for each in unsupported(unit, run)] == ([] if expected else ["E332"])
    if expected:
        assert 'settings["accumulate"]' in emit_train(unit, run)


def test_a_loss_may_have_a_name_and_no_name_twice() -> None:
    once = unit_of("    epochs = 1\n", f"loss = {LOSS}\n        return 2 * loss")
    assert once.runs["digits"].accumulation.possible
    again = "a = softmax(model(batch.pixels), dim=0)\n        a = a.mean()\n        return a"
    assert not unit_of("    epochs = 1\n", again).runs["digits"].accumulation.possible


def test_what_is_evaluated_is_what_the_checkpoint_tool_loads(tmp_path: Path) -> None:
    weights = trained(tmp_path, program("    steps = 3\n", f"return {LOSS}"))
    with importable(tmp_path / "emitted"):
        loaded = runpy.run_path(str(tmp_path / "emitted" / "checkpoint.py"))["load"](out=tmp_path)
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
