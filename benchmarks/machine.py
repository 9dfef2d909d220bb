"""What the figures were found with: the GPU and its ceilings, and the versions of all that is between it and us."""

from __future__ import annotations

import platform
import re
import statistics
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import tdsl

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "triton", "numpy", "liger-kernel", "cut-cross-entropy")
# What is copied (4 GiB) and the sides of the products: the best of several is the ceiling.
COPIED = 1 << 32
PRODUCTS = ((8192, 8192, 8192), (16384, 8192, 4096), (8192, 16384, 8192))


def machine() -> dict[str, Any]:
    """Names and versions; None where one is not there."""
    gpu, driver, memory = _gpu()
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "gpu": gpu,
        "memory": memory,
        "driver": driver,
        **versions,
        "python": platform.python_version(),
        "tdsl": tdsl.__version__,
        "commit": _commit(),
    }


def slug(gpu: str | None) -> str:
    """The GPU in a file's name: `nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", (gpu or "none").lower()).strip("-")


def _gpu() -> tuple[str | None, ...]:
    """The first GPU's name, its driver and its memory."""
    told = _told("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    first = [part.strip() for part in told.splitlines()[0].split(",")] if told else []
    return tuple(first) if len(first) == 3 else (None, None, None)


def _commit() -> str | None:
    """The commit of the checkout, and whether it was changed since; None outside of one."""
    head = _told("git", "rev-parse", "HEAD")
    changed = _told("git", "status", "--porcelain", "--untracked-files=no")
    return head and head.strip() + (" and changes" if changed else "")


def _told(*command: str) -> str | None:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def ceilings(device: Any, dry: bool) -> dict[str, float]:
    """Bytes a second, read and written, of a large copy; operations a second of a bf16 product of random numbers."""
    copied = 1 << 20 if dry else COPIED
    products = ((64, 64, 64),) if dry else PRODUCTS
    return {"copy": _copy(device, copied), "matrix": max(_product(device, *sides) for sides in products)}


def _copy(device: Any, size: int) -> float:
    import torch

    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _seconds(device, lambda: target.copy_(source))


def _product(device: Any, m: int, n: int, k: int) -> float:
    import torch

    a = torch.randn(m, k, device=device).to(torch.bfloat16)
    b = torch.randn(k, n, device=device).to(torch.bfloat16)
    return 2 * m * n * k / _seconds(device, lambda: torch.mm(a, b))


def _seconds(device: Any, call: Any) -> float:
    """The median of twenty, none of which waits for its launch."""
    from benchmarks.measure import clock

    timer = clock(device)
    for _ in range(3):
        call()
    return statistics.median(timer(call).device for _ in range(20))
