"""The conformance program `cnn.model` beside the same network written by hand: `python -m` this in the interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers import SHARED, compiled, emitted, written
from tests.running import loaded

PROGRAM = SHARED / "conformance" / "cnn.model"


class ConvBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(1, 32)
        self.deep = ConvBlock(32, 64)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Dropout(0.25), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.deep(self.stem(x)))
        return found


def losses(model: nn.Module, steps: int) -> list[float]:
    """Those of training, and one in evaluation."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    found = []
    for step in range(steps + 1):
        if step == steps:
            model.eval()
        images = torch.randn(6, 1, 28, 28).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(images), torch.randint(0, 10, (6,)), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def disagreement(folder: Path, tolerance: float) -> str:
    """Of the program's model and of that by hand, from the same weights; empty where they agree."""
    torch.manual_seed(1)
    ours = loaded(written(emitted(compiled(PROGRAM.read_text(encoding="utf-8"), name=PROGRAM)), folder)).CNN()
    by_hand = CNN()
    by_hand.load_state_dict(ours.state_dict())
    models = [each.to(memory_format=torch.channels_last) for each in (ours, by_hand)]
    found, wanted = (losses(model, steps=2) for model in models)
    if any(abs(a - b) > tolerance * abs(b) for a, b in zip(found, wanted, strict=True)):
        return f"{found}\n{wanted}"
    for (name, a), b in zip(ours.state_dict().items(), by_hand.state_dict().values(), strict=True):
        if not torch.allclose(a, b, rtol=20 * tolerance, atol=2 * tolerance):
            return f"{name}: {(a - b).abs().max()}"
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    told = disagreement(Path(sys.argv[1]), 1e-4)
    print(told)
    raise SystemExit(bool(told))
