"""Say when the first training step of GPT-2, compiled by `torch.compile`, is done: a process of its own for row 16.

    python -m benchmarks.first_step TOKENS.npz BATCH SHAPE

`SHAPE` is JSON. What is emitted logs its step; this prints a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.gpt2 import GPT2
from benchmarks.rows.optimizer import ARGUMENTS, MAX_NORM


def main(argv: Sequence[str]) -> None:
    path, batch, shape = argv[0], int(argv[1]), json.loads(argv[2])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with np.load(path) as held:
        tokens, targets = (torch.from_numpy(held[name])[:batch].to(device) for name in ("tokens", "targets"))
    model = GPT2(**shape).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), **ARGUMENTS, fused=True)
    compiled = torch.compile(model, dynamic=False, backend="inductor" if device.type == "cuda" else "aot_eager")
    with torch.autocast(device.type, torch.bfloat16):
        loss = compiled(tokens, targets)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()
    print(f"the loss was {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
