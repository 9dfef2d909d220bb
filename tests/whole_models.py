"""Small models written twice, in the language and by hand in PyTorch: each as a module whose result is the loss.

Parameters have the same names in both, so that one state serves either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Pair:
    """A program whose module `Loss` is `by_hand`'s twin, and a batch for both."""

    program: str
    by_hand: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    lr: float = 0.02


def floats(*shape: int) -> Tensor:
    return torch.randn(shape)


def classes(n: int, *shape: int) -> Tensor:
    return torch.randint(0, n, shape)


# A perceptron ----------------------------------------------------------------------------------------------------------

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


# A convolutional network with batch norm -----------------------------------------------------------------------------

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


# A residual network --------------------------------------------------------------------------------------------------

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


# Recurrent networks --------------------------------------------------------------------------------------------------

GRU = """
module Loss(vocab: int = 20, dim: int = 12) {
    embed = Embedding(vocab, dim)
    rnn   = GRU(dim, 10, batch_first=true, bidirectional=true)
    head  = Linear(20, 3)

    forward(tokens: int[B, T], y: int[B]) -> float[] {
        states, last = rnn(embed(tokens))
        return cross_entropy(head(states.mean(dim=1)), y)
    }
}
"""


class GRULoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.rnn = nn.GRU(12, 10, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 3)

    def forward(self, tokens: Tensor, y: Tensor) -> Tensor:
        states, _ = self.rnn(self.embed(tokens))
        return F.cross_entropy(self.head(states.mean(dim=1)), y)


LSTM = """
module Loss(vocab: int = 15, dim: int = 10) {
    embed = Embedding(vocab, dim)
    rnn   = LSTM(dim, 12, num_layers=2, batch_first=true)
    head  = Linear(12, vocab)

    forward(tokens: int[B, T], targets: int[B, T]) -> float[] {
        states, state = rnn(embed(tokens))
        logits = head(tanh(states) * states)
        return cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))
    }
}
"""


class LSTMLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(15, 10)
        self.rnn = nn.LSTM(10, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, 15)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        states, _ = self.rnn(self.embed(tokens))
        logits = self.head(torch.tanh(states) * states)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))


# A transformer -------------------------------------------------------------------------------------------------------

TRANSFORMER = """
module RMSNorm(dim: int, eps: float = 1e-6) {
    param weight: [dim] = ones()

    forward(x: [..., dim]) -> [..., dim] {
        return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + eps) * weight
    }
}

module Attention(dim: int, heads: int) {
    qkv  = Linear(dim, 3 * dim, bias=false)
    proj = Linear(dim, dim, bias=false)

    forward(x: float[B, T, dim]) -> float[B, T, dim] {
        q, k, v = qkv(x).chunk(3, dim=-1)
        q = rope(rearrange(q, "b t (h d) -> b h t d", h=heads))
        k = rope(rearrange(k, "b t (h d) -> b h t d", h=heads))
        v = rearrange(v, "b t (h d) -> b h t d", h=heads)
        y = attention(q, k, v, causal=true)
        return proj(rearrange(y, "b h t d -> b t (h d)"))
    }
}

module Block(dim: int, heads: int) {
    norm1 = RMSNorm(dim)
    attn  = Attention(dim, heads)
    norm2 = RMSNorm(dim)
    gate  = Linear(dim, 2 * dim, bias=false)
    up    = Linear(dim, 2 * dim, bias=false)
    down  = Linear(2 * dim, dim, bias=false)

    forward(x: float[B, T, dim]) -> float[B, T, dim] {
        h = x + attn(norm1(x))
        n = norm2(h)
        return h + down(silu(gate(n)) * up(n))
    }
}

module Loss(vocab: int = 17, dim: int = 16, heads: int = 2) {
    embed  = Embedding(vocab, dim)
    blocks = [Block(dim, heads) for i in range(2)]
    norm   = RMSNorm(dim)
    head   = Linear(dim, vocab, bias=false, weight=embed.weight)

    forward(tokens: int[B, T], targets: int[B, T]) -> float[] {
        logits = embed(tokens) |> blocks |> norm |> head
        return cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))
    }
}
"""


class Norm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def turned(x: Tensor) -> Tensor:
    """Rotary positions: the two halves of the last dimension turned by angles that grow with the position."""
    steps, half = x.shape[-2], x.shape[-1] // 2
    angles = torch.arange(steps)[:, None] * 10000.0 ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, dim = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(x).chunk(3, dim=-1))
        q, k = turned(q), turned(k)
        scores = q @ k.mT / math.sqrt(dim // self.heads)
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -math.inf)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, dim))


class TransformerBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = Norm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = Norm(dim)
        self.gate = nn.Linear(dim, 2 * dim, bias=False)
        self.up = nn.Linear(dim, 2 * dim, bias=False)
        self.down = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.attn(self.norm1(x))
        n = self.norm2(h)
        return h + self.down(F.silu(self.gate(n)) * self.up(n))


class TransformerLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 16)
        self.blocks = nn.ModuleList(TransformerBlock(16, 2) for _ in range(2))
        self.norm = Norm(16)
        self.head = nn.Linear(16, 17, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


# Autoencoders --------------------------------------------------------------------------------------------------------

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


# Embeddings ----------------------------------------------------------------------------------------------------------

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


# A network of physics: the loss has the model's second derivative ----------------------------------------------------

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


# A mixer of patches --------------------------------------------------------------------------------------------------

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


# Two towers, contrasted ----------------------------------------------------------------------------------------------

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
    "perceptron": Pair(PERCEPTRON, PerceptronLoss, lambda: (floats(8, 16), classes(5, 8))),
    "convolution": Pair(CONVOLUTION, ConvolutionLoss, lambda: (floats(6, 1, 12, 12), classes(4, 6))),
    "residual": Pair(RESIDUAL, ResidualLoss, lambda: (floats(4, 3, 8, 8), classes(5, 4))),
    "gru": Pair(GRU, GRULoss, lambda: (classes(20, 6, 5), classes(3, 6))),
    "lstm": Pair(LSTM, LSTMLoss, lambda: (classes(15, 4, 6), classes(15, 4, 6))),
    "transformer": Pair(TRANSFORMER, TransformerLoss, lambda: (classes(17, 3, 7), classes(17, 3, 7))),
    "vae": Pair(VAE, VAELoss, lambda: (torch.rand(6, 30), floats(6, 4))),
    "autoencoder": Pair(AUTOENCODER, AutoencoderLoss, lambda: (floats(3, 1, 8, 8), floats(3, 1, 8, 8))),
    "triplet": Pair(TRIPLET, TripletLoss, lambda: (floats(8, 14), floats(8, 14), floats(8, 14))),
    "factors": Pair(FACTORS, FactorsLoss, lambda: (classes(11, 16), classes(13, 16), floats(16)), lr=0.05),
    "physics": Pair(PHYSICS, PhysicsLoss, lambda: (torch.rand(12, 2), floats(12))),
    "mixer": Pair(MIXER, MixerLoss, lambda: (floats(4, 1, 8, 8), classes(3, 4))),
    "towers": Pair(TOWERS, TowersLoss, lambda: (floats(6, 10), floats(6, 7))),
}
