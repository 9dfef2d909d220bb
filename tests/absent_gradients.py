"""Which parameters have a gradient, of zeros or none, from kernels and without: `python -m` this in the interpreter."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tdsl.runtime import launch
from tests.helpers import UNFUSED, compiled, emitted, written
from tests.running import loaded

# What `s` has in PyTorch beside `w`, which has a gradient.
EXPRESSIONS = {
    "gelu(x * w) + floor(s) * x": "zeros",
    "gelu(x * w) + ceil(s + 0.5) * round(x)": "zeros",
    "gelu(x * w) + trunc(s) + x": "zeros",
    "gelu(x * w) + sign(s * x)": "zeros",
    "gelu(x * w) + x // s": "zeros",
    "gelu(x * w) + s ** 0": "zeros",
    "gelu(x * w) + s * 0.0": "zeros",
    "where(x > 1000, s * x, gelu(x * w))": "zeros",
    "gelu(x * w) + x * s.round().clamp(-1, 1)": "zeros",
    "softmax(x * w, -1) + sign(s) * x": "zeros",
    "gelu(x * w) * (s > 0)": "none",
    "gelu(x * w) + detach(s) * x": "none",
    "gelu(x * w) + s.int().float() * x": "none",
    "softmax(x * w, -1) + (x * s).argmax(-1, keepdim=true).float()": "none",
    "relu(floor(s)) * 2.0 * x + 0.0 * w": "zeros",
}
# A model whose first result alone the loss uses, and a parameter of the second that one kernel, or one product,
# computes with it. PyTorch leaves that without a gradient.
PAIRS = {
    "norm.weight": """
module M(D: int = 8) {
    a    = Linear(D, D)
    norm = RMSNorm(D)
    forward(x: float[B, D]) -> (float[B, D], float[B, D]) {
        h = x + a(x)
        return h, norm(h)
    }
}
""",
    "b.weight": """
module M(D: int = 8) {
    a = Linear(D, D)
    b = Linear(D, D)
    forward(x: float[B, D]) -> (float[B, D], float[B, D]) { return a(x), b(x) }
}
""",
}


def module(expression: str) -> str:
    head = "module M(D: int = 8) {\n    param s: [D] = ones()\n    param w: [D] = ones()\n"
    return f"{head}    forward(x: float[B, D]) -> float[B, D] {{ return {expression} }}\n}}\n"


def has(model: nn.Module, name: str) -> str:
    model.zero_grad()
    found: Any = model(torch.linspace(-2, 2, 32).reshape(4, 8))
    (found[0] if isinstance(found, tuple) else found).sum().backward()
    grad = model.get_parameter(name).grad
    return "none" if grad is None else "some" if grad.any() else "zeros"


def three(text: str, name: str, folder: Path) -> list[str]:
    """What a parameter has by the kernels, by their reference, and by the program as it is written."""
    fused = loaded(written(emitted(compiled(text)), folder / "fused")).M()
    plain = loaded(written(emitted(compiled(text, UNFUSED)), folder / "plain")).M()
    found = [has(fused, name)]
    token = launch._KERNELS.set(False)
    try:
        return [*found, has(fused, name), has(plain, name)]
    finally:
        launch._KERNELS.reset(token)


def main(folder: Path) -> dict[str, list[str]]:
    torch.manual_seed(0)
    texts = [(key, module(key), "s") for key in EXPRESSIONS] + [(name, text, name) for name, text in PAIRS.items()]
    return {key: three(text, name, folder / str(i)) for i, (key, text, name) in enumerate(texts)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]))))
