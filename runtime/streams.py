"""The random streams of a process: Python's, NumPy's and PyTorch's, kept, brought back and set apart."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdsl.runtime import ranks


def seed_all(seed: int) -> None:
    """Seed every stream."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def depart(rank: int) -> None:
    """Let the streams of rank 0 be as they are, and those of other ranks be others."""
    if rank:
        seed_all(mixed(torch.initial_seed(), rank))


def mixed(*key: int) -> int:
    """A seed of its own for each key, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "little")


def _devices() -> list[int]:
    """The GPUs whose streams are kept: of a process among others its own alone."""
    if not torch.cuda.is_available():
        return []
    return list(range(torch.cuda.device_count())) if ranks.count() == 1 else [torch.cuda.current_device()]


def capture() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of every stream: tensors by name, and plain values for JSON."""
    version, words, python_gauss = random.getstate()
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    tensors |= {f"cuda.{i}": torch.cuda.get_rng_state(device) for i, device in enumerate(_devices())}
    python = {"version": version, "gauss": python_gauss}
    return tensors, {"python": python, "numpy": {"position": position, "has_gauss": has_gauss, "gauss": gauss}}


def restore(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Bring back what `capture` told. GPUs that are not here any more are left out."""
    python, numpy = values["python"], values["numpy"]
    random.setstate((python["version"], tuple(tensors["python"].tolist()), python["gauss"]))
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    torch.set_rng_state(tensors["torch"])
    for i, device in enumerate(_devices()):
        if f"cuda.{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{i}"], device)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Within, streams that start from `seed`; behind it, those of before go on as if nothing had been drawn."""
    before = capture()
    seed_all(seed)
    try:
        yield
    finally:
        restore(*before)
