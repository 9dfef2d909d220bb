"""Models of images: convolutions, residual blocks, a mixer of patches."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tests.whole_models.pair import Pair, classes, floats

CONVOLUTION = """
module Loss() {
    conv1 = Conv2d(1, 6, 3, padding=1, bias=false)
    norm1 = BatchNorm2d(6)
    conv2 = Conv2d(6, 8, 3, stride=2)
    norm2 = BatchNorm2d(8)
    head  = Linear(8 * 2 * 2, 4)

    forward(x: float[B, 1, 12, 12], y: int[B]) -> float[] {
        h = max_pool2d(relu(norm1(conv1(x))), 2)
        h = relu(norm2(conv2(h)))
        return cross_entropy(head(h.flatten(1)), y)
    }
}
"""


class ConvolutionLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        h = F.relu(self.norm2(self.conv2(h)))
        return F.cross_entropy(self.head(h.flatten(1)), y)


RESIDUAL = """
module Block(channels: int) {
    conv1 = Conv2d(channels, channels, 3, padding="same")
    norm1 = GroupNorm(2, channels)
    conv2 = Conv2d(channels, channels, 3, padding=1)
    norm2 = GroupNorm(2, channels)

    forward(x: float[B, channels, H, W]) -> float[B, channels, H, W] {
        h = silu(norm1(conv1(x)))
        return relu(x + norm2(conv2(h)))
    }
}

module Loss(depth: int = 3) {
    stem   = Conv2d(3, 8, 3, stride=2, padding=1)
    blocks = [Block(8) for i in range(depth)]
    head   = Sequential(AdaptiveAvgPool2d(1), Flatten(), Linear(8, 5))

    forward(x: float[B, 3, 8, 8], y: int[B]) -> float[] {
        return cross_entropy(stem(x) |> blocks |> head, y)
    }
}
"""


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding="same")
        self.norm1 = nn.GroupNorm(2, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.silu(self.norm1(self.conv1(x))))))


class ResidualLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(8) for _ in range(3))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        return F.cross_entropy(self.head(h), y)


MIXER = """
module FeedForward(dim: int, hidden: int) {
    up   = Linear(dim, hidden)
    down = Linear(hidden, dim)

    forward(x: [..., dim]) -> [..., dim] {
        return down(gelu(up(x), approximate="tanh"))
    }
}

module Mixer(patches: int, dim: int) {
    norm1    = LayerNorm(dim)
    tokens   = FeedForward(patches, 2 * patches)
    norm2    = LayerNorm(dim)
    channels = FeedForward(dim, 2 * dim)

    forward(x: float[B, patches, dim]) -> float[B, patches, dim] {
        h = x + tokens(norm1(x).T).T
        return h + channels(norm2(h))
    }
}

module Loss(dim: int = 12) {
    embed = Linear(16, dim)
    mixer = [Mixer(4, dim), Mixer(4, dim)]
    norm  = LayerNorm(dim)
    head  = Linear(dim, 3)

    forward(image: float[B, 1, 8, 8], y: int[B]) -> float[] {
        x = embed(rearrange(image, "b c (h p) (w q) -> b (h w) (c p q)", p=4, q=4))
        for mix in mixer {
            x = mix(x)
        }
        return cross_entropy(head(norm(x).mean(dim=1)), y)
    }
}
"""


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Mixer(nn.Module):
    def __init__(self, patches: int, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.tokens = FeedForward(patches, 2 * patches)
        self.norm2 = nn.LayerNorm(dim)
        self.channels = FeedForward(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.tokens(self.norm1(x).mT).mT
        return h + self.channels(self.norm2(h))


class MixerLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 12)
        self.mixer = nn.ModuleList([Mixer(4, 12), Mixer(4, 12)])
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 3)

    def forward(self, image: Tensor, y: Tensor) -> Tensor:
        patches = image.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).flatten(1, 3)
        x = self.embed(patches)
        for mix in self.mixer:
            x = mix(x)
        return F.cross_entropy(self.head(self.norm(x).mean(dim=1)), y)


PAIRS = {
    "convolution": Pair(CONVOLUTION, ConvolutionLoss, lambda: (floats(6, 1, 12, 12), classes(4, 6))),
    "residual": Pair(RESIDUAL, ResidualLoss, lambda: (floats(4, 3, 8, 8), classes(5, 4))),
    "mixer": Pair(MIXER, MixerLoss, lambda: (floats(4, 1, 8, 8), classes(3, 4))),
}
