"""Which of PyTorch's kernels `F.scaled_dot_product_attention` takes.

PyTorch walks over its back ends in an order that is set once, and takes the first that a call suits: so a preference
costs a call nothing, and what suits none of the fast ones still goes to plain products. From Hopper on, cuDNN's is the
fastest in 16 bits; PyTorch itself puts it first only with some versions of cuDNN.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tdsl.runtime import launch

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# What is first where nothing else is asked for, by what kernels are compiled for; elsewhere the order is PyTorch's.
FIRST = {"sm_90": "cudnn", "sm_100": "cudnn"}
# Names the back end to prefer, or `default` for PyTorch's own order.
VARIABLE = "TDSL_ATTENTION"

# What `prefer` has entered, for the rest of the process.
_preferred = ExitStack()


def prefer(name: str | None = None) -> None:
    """Put a back end first for the rest of the process: the one named, that of `TDSL_ATTENTION`, or the fastest.

    Those that a call does not suit are passed over, the plain one never. ValueError for an unknown name.
    """
    wanted = name or os.environ.get(VARIABLE) or FIRST.get(launch.architecture(), "default")
    if wanted not in (*BACKENDS, "default"):
        raise ValueError(f"no attention is called {wanted!r}: {', '.join((*BACKENDS, 'default'))}")
    _preferred.close()
    if wanted != "default":
        _preferred.enter_context(sdpa_kernel(_order(wanted), set_priority=True))


def only(name: str) -> AbstractContextManager[object]:
    """Within, no other back end is taken: RuntimeError for calls that it does not suit."""
    found: AbstractContextManager[object] = sdpa_kernel(BACKENDS[name])
    return found


@contextmanager
def preferring(name: str) -> Iterator[None]:
    """Within, a back end comes first."""
    with sdpa_kernel(_order(name), set_priority=True):
        yield


def _order(first: str) -> list[SDPBackend]:
    """All that are allowed, one of them first, the others as PyTorch has them by default, the plain one last."""
    cuda: Any = torch.backends.cuda
    allowed = {
        "cudnn": cuda.cudnn_sdp_enabled(),
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": True,
    }
    names = [first, *(name for name in ("flash", "cudnn", "efficient", "math") if name != first)]
    return [BACKENDS[name] for name in names if allowed[name]]
