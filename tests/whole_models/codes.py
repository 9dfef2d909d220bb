"""Models of what they read as short vectors: autoencoders, embeddings, two towers contrasted."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.whole_models.pair import Pair, classes, floats

VAE = """
fn kl_normal(mu: float[..., D], logvar: float[..., D]) -> float[...] {
    return -0.5 * sum(1 + logvar - mu ** 2 - exp(logvar), dim=-1)
}

module Loss(latent: int = 4) {
    enc    = Linear(30, 20)
    mu     = Linear(20, latent)
    logvar = Linear(20, latent)
    dec1   = Linear(latent, 20)
    dec2   = Linear(20, 30)

    forward(x: float[B, 30], noise: float[B, latent]) -> float[] {
        h = softplus(enc(x))
        m = mu(h)
        v = logvar(h)
        z = m + exp(0.5 * v) * noise
        logits = dec2(elu(dec1(z)))
        fit = binary_cross_entropy_with_logits(logits, x, reduction="sum") / size(x, 0)
        return fit + 0.5 * kl_normal(m, v).mean()
    }
}
"""


class VAELoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(30, 20)
        self.mu = nn.Linear(20, 4)
        self.logvar = nn.Linear(20, 4)
        self.dec1 = nn.Linear(4, 20)
        self.dec2 = nn.Linear(20, 30)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        h = F.softplus(self.enc(x))
        m, v = self.mu(h), self.logvar(h)
        logits = self.dec2(F.elu(self.dec1(m + (0.5 * v).exp() * noise)))
        fit = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        return fit + 0.5 * (-0.5 * (1 + v - m.square() - v.exp()).sum(-1)).mean()


AUTOENCODER = """
module Loss() {
    down1 = Conv2d(1, 4, 3, stride=2, padding=1)
    down2 = Conv2d(4, 6, 3, stride=2, padding=1)
    up1   = ConvTranspose2d(6, 4, 2, stride=2)
    up2   = ConvTranspose2d(4, 1, 2, stride=2)

    forward(clean: float[B, 1, 8, 8], noise: float[B, 1, 8, 8]) -> float[] {
        h = leaky_relu(down1(clean + 0.3 * noise), 0.2)
        h = mish(down2(h))
        h = hardswish(up1(h))
        return huber_loss(sigmoid(up2(h)), sigmoid(clean), delta=0.5)
    }
}
"""


class AutoencoderLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.up2 = nn.ConvTranspose2d(4, 1, 2, stride=2)

    def forward(self, clean: Tensor, noise: Tensor) -> Tensor:
        h = F.leaky_relu(self.down1(clean + 0.3 * noise), 0.2)
        h = F.hardswish(self.up1(F.mish(self.down2(h))))
        return F.huber_loss(self.up2(h).sigmoid(), clean.sigmoid(), delta=0.5)


TRIPLET = """
module Encoder(dim: int) {
    l1 = Linear(14, 24)
    l2 = Linear(24, dim)

    forward(x: float[B, 14]) -> float[B, dim] {
        h = l2(selu(l1(x)))
        return h / clamp(norm(h, dim=-1, keepdim=true), min=1e-6)
    }
}

module Loss() {
    encoder = Encoder(8)

    forward(a: float[B, 14], p: float[B, 14], n: float[B, 14]) -> float[] {
        return triplet_margin_loss(encoder(a), encoder(p), encoder(n), margin=0.5, swap=true)
    }
}
"""


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(14, 24)
        self.l2 = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.l2(F.selu(self.l1(x)))
        return h / h.norm(dim=-1, keepdim=True).clamp(min=1e-6)


class TripletLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def forward(self, a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        return F.triplet_margin_loss(*map(self.encoder, (a, p, n)), margin=0.5, swap=True)


FACTORS = """
module Loss(users: int = 11, items: int = 13, dim: int = 6) {
    user      = Embedding(users, dim)
    item      = Embedding(items, dim)
    user_bias = Embedding(users, 1)
    item_bias = Embedding(items, 1)
    param base: [] = zeros()

    forward(u: int[B], i: int[B], rating: float[B]) -> float[] {
        score = sum(user(u) * item(i), dim=-1) + user_bias(u).squeeze(-1) + item_bias(i).squeeze(-1) + base
        decay = mean(user(u) ** 2) + mean(item(i) ** 2)
        return mse_loss(score, rating) + 0.01 * decay
    }
}
"""


class FactorsLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.zeros(()))
        self.user = nn.Embedding(11, 6)
        self.item = nn.Embedding(13, 6)
        self.user_bias = nn.Embedding(11, 1)
        self.item_bias = nn.Embedding(13, 1)

    def forward(self, u: Tensor, i: Tensor, rating: Tensor) -> Tensor:
        score = (self.user(u) * self.item(i)).sum(-1) + self.user_bias(u)[:, 0] + self.item_bias(i)[:, 0] + self.base
        return F.mse_loss(score, rating) + 0.01 * (self.user(u).square().mean() + self.item(i).square().mean())


TOWERS = """
module Tower(inputs: int, dim: int = 8, act: fn = silu) {
    l1 = Linear(inputs, 16)
    l2 = Linear(16, dim)

    forward(x: float[B, inputs]) -> float[B, dim] {
        h = l2(act(l1(x)))
        return h * rsqrt(sum(h * h, dim=-1, keepdim=true) + 1e-6)
    }
}

module Loss() {
    image = Tower(10)
    text  = Tower(7, act=relu)
    param scale: [] = constant(1.0)

    forward(x: float[B, 10], t: float[B, 7]) -> float[] {
        logits = exp(scale) * einsum("b d, c d -> b c", image(x), text(t))
        own = -diagonal_mean(log_softmax(logits, dim=1)) - diagonal_mean(log_softmax(logits.T, dim=1))
        return own / 2
    }
}

fn diagonal_mean(m: float[B, B]) -> float[] {
    return sum(m * eye(size(m, 0))) / size(m, 0)
}
"""


class Tower(nn.Module):
    def __init__(self, inputs: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.l1 = nn.Linear(inputs, 16)
        self.l2 = nn.Linear(16, 8)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        h = self.l2(self.act(self.l1(x)))
        return h * torch.rsqrt((h * h).sum(-1, keepdim=True) + 1e-6)


class TowersLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.image = Tower(10, F.silu)
        self.text = Tower(7, F.relu)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        logits = self.scale.exp() * self.image(x) @ self.text(t).T
        own = torch.arange(len(x))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


PAIRS = {
    "vae": Pair(VAE, VAELoss, lambda: (torch.rand(6, 30), floats(6, 4))),
    "autoencoder": Pair(AUTOENCODER, AutoencoderLoss, lambda: (floats(3, 1, 8, 8), floats(3, 1, 8, 8))),
    "triplet": Pair(TRIPLET, TripletLoss, lambda: (floats(8, 14), floats(8, 14), floats(8, 14))),
    "factors": Pair(FACTORS, FactorsLoss, lambda: (classes(11, 16), classes(13, 16), floats(16)), lr=0.05),
    "towers": Pair(TOWERS, TowersLoss, lambda: (floats(6, 10), floats(6, 7))),
}
