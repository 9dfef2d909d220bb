"""Channels last: which models and images are laid out so, and that they compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tdsl.compiler import pipeline
from tdsl.compiler.emit.evaluate import evaluate_text
from tdsl.compiler.emit.train import train_text
from tdsl.runtime import checkpoint
from tests.helpers import ROOT, built

PROGRAM = (ROOT / "tests" / "golden" / "residual_images.model").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples"
IMAGE = "batch.pixels.unflatten(1, (1, 8, 8))"


def texts(settings: str, program: str = PROGRAM) -> tuple[str, str, str, str]:
    """Of a run with these settings: its loss, how its model is made, and both of its evaluation."""
    text = program.replace("tf32       = true", settings)
    unit = pipeline.run(built(text, EXAMPLES / "program.model"))
    run = unit.runs["digits"]
    train, evaluate = train_text(unit, run), evaluate_text(unit, run, unit.evaluations["digits"])
    assert evaluate.compare is not None
    return "\n".join(train.loss), train.models["model"], "\n".join(evaluate.compare.lines), evaluate.models["model"]


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        ("tf32 = true", f"{IMAGE}.contiguous(memory_format=torch.channels_last)"),
        ("precision = bf16", f"{IMAGE}.to(torch.bfloat16, memory_format=torch.channels_last)"),
        ("precision = f16", f"{IMAGE}.to(torch.float16, memory_format=torch.channels_last)"),
    ],
)
def test_images_and_models_have_channels_last(settings: str, image: str) -> None:
    loss, model, compare, evaluated = texts(settings)
    assert f"model({image})" in loss.replace("\n", "").replace("    ", "")
    assert f"model({image})" in compare
    assert model.endswith(".to(device, memory_format=torch.channels_last)")
    assert evaluated.endswith(".to(memory_format=torch.channels_last)")


@pytest.mark.parametrize("settings", ["tf32 = false", "precision = f32"])
def test_full_float32_stays_as_it_is(settings: str) -> None:
    assert "channels_last" not in "".join(texts(settings))


def test_models_without_convolutions_of_images_stay_as_they_are() -> None:
    program = PROGRAM.replace(
        "Conv2d(1, width, 3, padding=1, bias=false), BatchNorm2d(width), ReLU()", "Conv1d(1, 1, 1)"
    )
    program = program[program.index("module Net") :].replace("blocks = [Residual(width) for i in range(2)]", "")
    program = program.replace("head   = Linear(width, classes)", "head   = Linear(64, classes)")
    program = program.replace("head((image |> stem |> blocks).mean(dim=(2, 3)))", "head(image.flatten(1))")
    program = program.replace("image: float[B, 1, H, W]", "image: float[B, 1, 8, 8]")
    assert "channels_last" not in "".join(texts("precision = bf16", program))


def test_a_value_that_others_read_is_laid_out_for_the_model_alone() -> None:
    program = PROGRAM.replace(
        "loss(batch) { return cross_entropy(",
        f"loss(batch) {{\n        image = {IMAGE}\n        return image.mean() + cross_entropy(",
    ).replace(f"model({IMAGE}), batch.label) }}", "model(image) + model(image), batch.label)\n    }", 1)
    loss, *_ = texts("tf32 = true", program)
    assert loss.count("channels_last") == 1
    assert "image_2 = image.contiguous(memory_format=torch.channels_last)" in loss
    assert "image.mean() + kernels.cross_entropy(model(image_2) + model(image_2), batch.label)" in loss


def test_what_else_a_model_takes_stays_as_it_is() -> None:
    program = PROGRAM.replace(
        "forward(image: float[B, 1, H, W])", "forward(image: float[B, 1, H, W], more: float[B, 1])"
    )
    program = program.replace(".mean(dim=(2, 3)))", ".mean(dim=(2, 3)) + more)").replace(
        f"model({IMAGE})", f"model({IMAGE}, batch.pixels[:, :1])"
    )
    loss, *_ = texts("tf32 = true", program)
    assert loss.count("torch.channels_last") == 1
    assert "batch.pixels[:, :1]" in loss
    assert "batch.pixels[:, :1].contiguous" not in loss


def test_state_of_an_optimizer_is_laid_out_as_its_parameters() -> None:
    """Kernels that walk through memory find the numbers of a parameter at its places after a resume, too."""
    layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam([{"params": [*layer.named_parameters()]}])
    for parameter in layer.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    tensors, rest = checkpoint.flat_optimizer(optimizer)
    before = {key: value.clone() for key, value in tensors.items()}
    checkpoint.restore_optimizer(optimizer, {key: value.contiguous() for key, value in tensors.items()}, rest)
    after, _ = checkpoint.flat_optimizer(optimizer)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert after["weight.exp_avg"].stride() == layer.weight.stride()
