"""Small tables that kernels read, uploaded where they change, also under CUDA graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class DeviceTable:
    """A table on the device, uploaded where it is to change.

    What a CUDA graph uploads as it is captured, it uploads again each time it is replayed. A table that is `replayed`
    comes with each graph; another can be changed between two replays.
    """

    def __init__(
        self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device, replayed: bool = False
    ) -> None:
        self.tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.rows: list[Any] = []
        self.replayed = replayed
        # Memory that graphs upload from; what the next will: a capture may not allocate it; and whether it has.
        self.captured: list[Tensor] = []
        self.ready = self._pinned() if self.tensor.is_cuda else None
        self.ahead = False

    def _pinned(self) -> Tensor:
        return torch.empty(self.tensor.shape, dtype=self.tensor.dtype, pin_memory=True)

    def update(self, rows: list[Any]) -> None:
        """Let the table have these rows."""
        capturing = self.tensor.is_cuda and torch.cuda.is_current_stream_capturing()
        # A replay may have put back other rows than those that were uploaded last.
        lost = self.replayed and not self.ahead if capturing else bool(self.captured)
        if rows == self.rows and not lost:
            return
        self.rows, self.ahead = rows, capturing
        host = torch.tensor(rows, dtype=self.tensor.dtype)
        if capturing:
            self.captured.append(host := (self._pinned() if self.ready is None else self.ready).copy_(host))
            self.ready = None
        elif self.tensor.is_cuda:
            self.ready = self._pinned() if self.ready is None else self.ready
            host = host.pin_memory()
        self.tensor.copy_(host, non_blocking=True)
