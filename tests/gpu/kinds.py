"""A program for each kind of kernel that is emitted, with inputs that a test runs it on.

    python -m tests.gpu.kinds FOLDER

runs each once, both directions, in float32 and bfloat16: what compute-sanitizer watches.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tests.running import executed

Shape = tuple[int, ...]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Kind:
    """A program whose module is `M`; its arguments and the shapes of its inputs, large and small; labels come last."""

    text: str
    large: tuple[Shape, ...]
    small: tuple[Shape, ...]
    labels: int = 0
    args: tuple[int, ...] = ()
    small_args: tuple[int, ...] = ()

    def module(self, folder: Path, dtype: torch.dtype, small: bool = False) -> torch.nn.Module:
        """The module, its kernels in `folder`."""
        torch.manual_seed(0)
        made: torch.nn.Module = executed(self.text, folder).M(*(self.small_args if small else self.args))
        return made.to(DEVICE, dtype)

    def inputs(self, dtype: torch.dtype, small: bool = False) -> list[Tensor]:
        """Drawn on the host: nothing but the kernels is to run on the GPU."""
        generator = torch.Generator().manual_seed(0)
        shapes = self.small if small else self.large
        found = [torch.randn(s, generator=generator).to(dtype).to(DEVICE).requires_grad_() for s in shapes]
        if self.labels:
            found.append(torch.randint(0, self.labels, shapes[0][:1], generator=generator).to(DEVICE))
        return found


def run(module: torch.nn.Module, inputs: list[Tensor], grads: list[Tensor] | None = None) -> list[Tensor]:
    """Results, and gradients of all that has one, with the same random numbers each time."""
    torch.manual_seed(0)
    found = module(*inputs)
    outputs = list(found) if isinstance(found, tuple) else [found]
    leaves = [*(x for x in inputs if x.requires_grad), *module.parameters()]
    given = grads or gradients(outputs)
    return [*(o.detach() for o in outputs), *torch.autograd.grad(outputs, leaves, given)]


def gradients(outputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(o.shape, generator=generator).to(o.dtype).to(DEVICE) for o in outputs]


LONG, WIDE = (300, 1000), (17, 37)
KINDS = {
    "flat": Kind(
        "module M() { forward(x: float[N, D], y: float[N, D]) -> float[N, D] { return silu(x) * y } }",
        (LONG, LONG),
        (WIDE, WIDE),
    ),
    "tiles": Kind(
        """module M(dim: int) {
    param weight: [dim] = normal(std=1.0)
    param bias:   [dim] = normal(std=1.0)
    forward(x: float[N, dim]) -> float[N, dim] { return gelu(x * weight + bias) }
}""",
        (LONG,),
        (WIDE,),
        args=(1000,),
        small_args=(37,),
    ),
    "rows": Kind(
        """module M(dim: int) {
    norm = LayerNorm(dim)
    forward(x: float[N, dim], a: float[N, dim]) -> (float[N, dim], float[N, dim]) {
        h = x + a
        return h, norm(h)
    }
}""",
        (LONG, LONG),
        (WIDE, WIDE),
        args=(1000,),
        small_args=(37,),
    ),
    "looped": Kind(
        """module M(dim: int) {
    param weight: [dim] = normal(std=1.0)
    forward(x: float[N, dim]) -> float[N, dim] { return softmax(x * weight, dim=-1) }
}""",
        ((40, 40000),),
        ((3, 40000),),
        args=(40000,),
        small_args=(40000,),
    ),
    "random": Kind(
        """module M(dim: int, p: float = 0.2) {
    norm = RMSNorm(dim, eps=1e-6)
    forward(x: float[N, dim], a: float[N, dim]) -> float[N, dim] { return norm(x + dropout(a, p)) }
}""",
        (LONG, LONG),
        (WIDE, WIDE),
        args=(1000,),
        small_args=(37,),
    ),
    "row results": Kind(
        """module M() {
    forward(x: float[N, D]) -> (float[N, D], float[N]) {
        p = softmax(x, dim=-1)
        return p, -sum(p * log(p + 1e-9), dim=-1)
    }
}""",
        (LONG,),
        (WIDE,),
    ),
    "channels": Kind(
        """module M(channels: int) {
    param gamma: [channels, 1, 1] = normal(std=1.0)
    param beta:  [channels, 1, 1] = normal(std=1.0)
    forward(x: float[B, channels, H, W]) -> float[B, channels, H, W] { return relu(x * gamma + beta) }
}""",
        ((8, 16, 32, 32),),
        ((2, 16, 5, 7),),
        args=(16,),
        small_args=(16,),
    ),
    "loss": Kind(
        "module M() { forward(x: float[N, V], y: int[N]) -> float[] { return cross_entropy(x, y) } }",
        ((256, 50304),),
        ((7, 37),),
        labels=37,
    ),
    "rope": Kind(
        "module M() { forward(x: float[B, H, T, 64]) -> float[B, H, T, 64] { return rope(x) } }",
        ((2, 4, 256, 64),),
        ((1, 2, 9, 64),),
    ),
    "attention": Kind(
        """module M() {
    forward(q: float[B, 4, T, 64], k: float[B, 2, T, 64], v: float[B, 2, T, 64]) -> float[B, 4, T, 64] {
        return attention(q, k, v, causal=true, window=40, softcap=20.0)
    }
}""",
        ((2, 4, 256, 64), (2, 2, 256, 64), (2, 2, 256, 64)),
        ((1, 4, 33, 64), (1, 2, 33, 64), (1, 2, 33, 64)),
    ),
}


def main(folder: Path) -> None:
    for name, kind in KINDS.items():
        for dtype in (torch.float32, torch.bfloat16):
            found = run(kind.module(folder / name, dtype, small=True), kind.inputs(dtype, small=True))
            if not all(each.cpu().isfinite().all() for each in found):
                raise SystemExit(f"{name}: not finite")
    print(f"ran {len(KINDS)} kinds on {DEVICE}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
