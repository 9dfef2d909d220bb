"""The text of `kernels.py`."""

from __future__ import annotations

from collections.abc import Sequence

from tdsl import __version__
from tdsl.compiler.emit.groups import group_text
from tdsl.compiler.emit.render import plain, render
from tdsl.compiler.emit.text import mentions
from tdsl.compiler.ir import Group

# The run-time modules that functions of `kernels.py` may name.
OWN = ("attention_tiles", "batch_norm", "chunks", "launch", "mixed_precision", "nn_functions", "random", "rotary")


def emit_kernels(groups: Sequence[Group], source: str) -> str:
    """All groups of a program, in order."""
    texts = [group_text(group) for group in groups]
    shared = tuple(dict.fromkeys(g.shared for g in texts if g.shared))
    parts = [part for g in texts for part in (*g.reference, g.kernels, g.public_head, *g.prepared, g.condition)]
    code = "\n".join([*parts, *shared, *(["random."] if any(g.draws for g in texts) else [])])
    others = ["import torch", *(["import torch.nn.functional as F"] if mentions(code, "F") else [])]
    others += ["import triton", "import triton.language as tl"]
    others += ["from torch import Tensor, nn" if mentions(code, "nn") else "from torch import Tensor"]
    once = mentions(code, "once_differentiable")
    others += ["from torch.autograd.function import once_differentiable"] if once else []
    own = [f"from tdsl.runtime import {', '.join(name for name in OWN if mentions(code, name))}"]
    own += ["from tdsl.runtime import triton_math as tm"] if mentions(code, "tm") else []
    return render(
        "triton/kernels.py.jinja",
        source=plain(source),
        version=__version__,
        standard=["import math"] if mentions(code, "math") else [],
        others=others,
        own=own,
        shared=shared,
        groups=texts,
    )
