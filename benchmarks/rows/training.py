"""Rows 12 and 15: whole training steps, the batch's way to the device included."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import loops, peers
from benchmarks.bench import Bench, Case, Floor
from benchmarks.gpt2 import GPT2
from benchmarks.loops import Graphed, Length, Loop, Plain, Script
from benchmarks.measure import Candidate, Samples, distance, message, synchronize
from benchmarks.programs import emitted
from benchmarks.rows.optimizer import ARGUMENTS, MAX_NORM, SHAPE, SMALL

ROUNDS = 2
BACKWARD = 3.0
# GPT-2's logits and their gradients in float32 take 40 GB at a batch of 64 for whoever stores them.
MEMORY_OF_64 = 100e9


class Training(Case):
    """All candidates train the same network from the same weights, on rows of the same data."""

    def __init__(self, title: str, bench: Bench, model: nn.Module, data: tuple[Tensor, ...], length: Length) -> None:
        self.title = title
        self.bench = bench
        self.model = model
        self.data = data
        self.length = length
        self.made: dict[str, Callable[[], Loop]] = {}
        self.peaks: dict[int, int] = {}
        self.exact: loops.Gradients = {}
        self.errors: dict[str, float] = {}
        self.check: tuple[Tensor, ...] = tuple(each[:2] for each in data)
        self.unit_of = torch.float32

    def candidates(self) -> Mapping[str, Callable[[], Candidate]]:
        return self.made

    def error(self, name: str, candidate: Candidate) -> float | None:
        """Of the loss and each gradient of the first weights, on two rows, against float64.

        What PyTorch compiles it would compile once more for two rows, a minute of GPT-2: that is not checked.
        """
        assert isinstance(candidate, Loop)
        if name.startswith("torch.compile"):
            return None
        if not self.exact:
            self._judge()
        found = candidate.gradients(self.check)
        unit = torch.finfo(self.unit_of).eps
        ratios = []
        for each, exact in self.exact.items():
            allowed = BACKWARD * self.errors[each] + unit * distance(exact, torch.zeros_like(exact))
            ratio = distance(found[each], exact) / max(allowed, 1e-300)
            ratios.append(ratio if ratio == ratio else float("inf"))
        return max(ratios)

    def _judge(self) -> None:
        doubled = copy.deepcopy(self.model).double()
        given = [each.double() if each.is_floating_point() else each for each in self.check]
        self.exact = loops.gradients(doubled, lambda: doubled(*given))
        plain = self.made["eager"]().gradients(self.check)
        self.errors = {name: distance(plain[name], exact) for name, exact in self.exact.items()}

    def checked(self) -> None:
        self.exact = {}

    def timed(self, candidates: Mapping[str, Any], bench: Bench) -> Mapping[str, Samples]:
        """Rounds of stretches of steps, by the wall, the device waited for at both ends.

        CUDA graphs come after all others: they keep the memory of their activations, which may be most of it.
        """
        found = {name: Samples() for name in candidates}
        graphs = [name for name in found if "graph" in name]
        for names in ([name for name in found if name not in graphs], graphs):
            for _ in range(ROUNDS):
                for name in names:
                    if not found[name].problem:
                        self._round(candidates[name], found[name])
        return found

    def _round(self, loop: Loop, samples: Samples) -> None:
        cuda = self.bench.device.type == "cuda"
        self.bench.free()
        before = torch.cuda.memory_allocated() if cuda else 0
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            samples.device += loop.run()
        except Exception as error:
            samples.problem = message(error)
        synchronize(self.bench.device)
        if cuda:
            # What a loop has made in its first round is there before the next.
            self.peaks.setdefault(id(loop), torch.cuda.max_memory_allocated() - before + loop.held)

    def memory(self, candidate: Candidate, bench: Bench) -> int | None:
        return self.peaks.get(id(candidate))

    def ours(self, name: str, fields: tuple[str, ...], module: Callable[[Any], nn.Module], **constants: int) -> Script:
        """The emitted script, and the emitted model with the same weights."""
        columns = {field: each.cpu().numpy() for field, each in zip(fields, self.data, strict=True)}
        np.savez(self.bench.folder / f"{SOURCES[name]}.npz", **columns)
        program = emitted(name, self.bench, **loops.numbered(constants))
        script = Script(program, name, fields, constants["batch"], self.bench)
        script.length = self.length
        script.initial = module(program.modules["model"]).to(self.bench.device)
        script.initial.load_state_dict(self.model.state_dict())
        return script


# The data that the programs read, and their columns.
SOURCES = {"gpt2": "tokens", "mlp": "images"}


def gpt2(bench: Bench) -> Training:
    """Row 12. The floor counts 6 operations a parameter and token, but for positions, and attention's as if full."""
    shape = SMALL if bench.dry else SHAPE
    large = bench.device.type == "cuda" and torch.cuda.get_device_properties(0).total_memory > MEMORY_OF_64
    batch = bench.size(64 if large else 32, 2)
    window, dim = shape["window"], shape["dim"]
    data = tuple(torch.randint(0, shape["vocab"], (bench.size(256, 8), window), device=bench.device) for _ in range(2))
    model = GPT2(**shape)
    products = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("position"))
    length = Length(bench.size(6, 2), bench.size(3, 1))
    model.to(bench.device)
    case = Training(f"GPT-2 training step, B{batch} T{window}, AdamW, clipping", bench, model, data, length)
    case.per_call, case.unit, case.unit_of = batch * window, "tokens", torch.bfloat16
    case.floor = Floor(flops=(6 * products + 12 * shape["layers"] * window * dim) * batch * window)

    def ours() -> Script:
        return case.ours("gpt2", ("tokens", "targets"), lambda space: space.GPT2(**shape), **shape, batch=batch)

    def plain(mode: str | None = None) -> Plain:
        own = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(own.parameters(), **ARGUMENTS, fused=True)
        batches = loops.resident(data, batch)
        return Plain(own, _wrapped(own, bench, mode), batches, optimizer, length, cast=cast, max_norm=MAX_NORM)

    def cast() -> AbstractContextManager[Any]:
        return torch.autocast(bench.device.type, torch.bfloat16)

    case.made = {
        "tdsl": ours,
        "eager": plain,
        "torch.compile": partial(plain, "default"),
        "torch.compile, CUDA graphs": partial(plain, "reduce-overhead"),
    }
    return case


class MLP(nn.Module):
    """The loss of images [B, 784] and labels int[B]."""

    def __init__(self, hidden: int = 512, classes: int = 10) -> None:
        super().__init__()
        self.up = nn.Linear(784, hidden)
        self.down = nn.Linear(hidden, classes)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.down(F.relu(self.up(image))), label)


def mlp(bench: Bench) -> Training:
    """Row 15, in float32. No floor: it is all launches."""
    batch, rows = bench.size(128, 8), bench.size(12800, 32)
    data = (torch.randn(rows, 784, device=bench.device), torch.randint(0, 10, (rows,), device=bench.device))
    model = MLP().to(bench.device)
    length = Length(bench.size(500, 2), bench.size(3, 1))
    case = Training(f"MLP 784-512-10 step, B{batch}, f32, data loading included", bench, model, data, length)
    case.per_call, case.unit = batch, "rows"
    host = tuple(each.cpu() for each in data)

    def plain(mode: str | None = None, on_device: bool = True, capturable: bool = False) -> Plain:
        own = copy.deepcopy(model)
        optimizer = torch.optim.Adam(own.parameters(), lr=1e-3, fused=True, capturable=capturable)
        batches = loops.resident(data, batch) if on_device else loops.loaded(host, batch, bench.device)
        return Plain(own, _wrapped(own, bench, mode), batches, optimizer, length)

    case.made = {
        "tdsl": lambda: case.ours("mlp", ("image", "label"), lambda space: space.MLP(), batch=batch),
        "eager": partial(plain, on_device=False),
        "eager, data on the device": plain,
        "torch.compile, CUDA graphs": partial(plain, "reduce-overhead"),
        "CUDA graph by hand": lambda: Graphed(plain(capturable=True), data, batch),
    }
    return case


def _wrapped(model: nn.Module, bench: Bench, mode: str | None) -> Callable[..., Tensor]:
    """The model, compiled where a mode is given."""
    return model if mode is None else peers.compiled(model, bench, mode)
