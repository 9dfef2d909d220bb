"""Perceptrons; one is a network of physics, whose loss has its second derivative."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.whole_models.pair import Pair, classes, floats

PERCEPTRON = """
module MLP(hidden: int = 32, classes: int = 5) {
    up   = Linear(16, hidden)
    mid  = Linear(hidden, hidden, bias=false)
    down = Linear(hidden, classes)

    forward(x: float[B, 16]) -> float[B, classes] {
        h = gelu(up(x))
        h = h + tanh(mid(h)) * sigmoid(h)
        return down(h)
    }
}

module Loss() {
    model = MLP(hidden=24)

    forward(x: float[B, 16], y: int[B]) -> float[] {
        return cross_entropy(model(x), y, label_smoothing=0.1)
    }
}
"""


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 24)
        self.mid = nn.Linear(24, 24, bias=False)
        self.down = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.up(x))
        h = h + torch.tanh(self.mid(h)) * torch.sigmoid(h)
        return self.down(h)


class PerceptronLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = MLP()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x), y, label_smoothing=0.1)


PHYSICS = """
module Field(hidden: int) {
    l1 = Linear(2, hidden)
    l2 = Linear(hidden, 1)

    forward(p: float[B, 2]) -> float[B] {
        h = tanh(l1(p))
        return l2(h * sigmoid(h)).squeeze(-1)
    }
}

module Loss() {
    field = Field(16)

    forward(p: float[B, 2], u: float[B]) -> float[] {
        f = field(p)
        df = grad(f.sum(), p)
        d2f = grad(df[:, 0].sum(), p)
        rest = mean((df[:, 1] - 0.1 * d2f[:, 0]) ** 2)
        return mse_loss(f, u) + 0.1 * rest
    }
}
"""


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(2, 16)
        self.l2 = nn.Linear(16, 1)

    def forward(self, p: Tensor) -> Tensor:
        h = torch.tanh(self.l1(p))
        return self.l2(h * torch.sigmoid(h)).squeeze(-1)


class PhysicsLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.field = Field()

    def forward(self, p: Tensor, u: Tensor) -> Tensor:
        p = p.detach().requires_grad_()
        f = self.field(p)
        (df,) = torch.autograd.grad(f.sum(), p, create_graph=True)
        (d2f,) = torch.autograd.grad(df[:, 0].sum(), p, create_graph=True)
        return F.mse_loss(f, u) + 0.1 * (df[:, 1] - 0.1 * d2f[:, 0]).square().mean()


PAIRS = {
    "perceptron": Pair(PERCEPTRON, PerceptronLoss, lambda: (floats(8, 16), classes(5, 8))),
    "physics": Pair(PHYSICS, PhysicsLoss, lambda: (torch.rand(12, 2), floats(12))),
}
