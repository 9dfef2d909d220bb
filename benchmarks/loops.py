"""Training loops that the rows of whole steps compare: the emitted script, and plain PyTorch in several ways."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.bench import Bench
from benchmarks.measure import synchronize
from benchmarks.programs import Emitted
from tdsl.runtime import run
from tdsl.runtime.loader import Batch

Gradients = dict[str, Tensor]
Batches = Iterator[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Length:
    """A stretch of a loop, in steps, each one sample; and how many of them a round has."""

    steps: int
    stretches: int


class Loop:
    """What a row of whole steps times: `run` is a round, seconds a step of each stretch.

    `held` are the bytes of parameters that it holds between rounds.
    """

    held = 0

    def prepare(self) -> None: ...

    def __call__(self) -> object:
        return self.run()

    def run(self) -> list[float]:
        raise NotImplementedError

    def gradients(self, batch: tuple[Tensor, ...]) -> Gradients:
        """The loss of a batch as `loss`, and the gradients of the initial weights by name."""
        raise NotImplementedError


class Script(Loop):
    """The emitted `train.py`, run in this process. Its own log tells how fast it was, after a first stretch."""

    def __init__(self, program: Emitted, name: str, fields: tuple[str, ...], batch_size: int, bench: Bench) -> None:
        self.program = program
        self.name = name
        self.fields = fields
        self.batch_size = batch_size
        self.bench = bench
        self.length = Length(1, 1)
        self.initial: nn.Module | None = None

    def run(self) -> list[float]:
        out, steps = self.program.folder / "run", self.length.steps * (self.length.stretches + 1)
        shutil.rmtree(out, ignore_errors=True)
        every = {"logging": self.length.steps, "validate": steps, "checkpoint": steps}
        options = [f"--set={section}.every={period}" for section, period in every.items()]
        argv = [f"--out={out}", f"--steps={steps}", f"--device={self.bench.device.type}", *options]
        train, told = self.program.modules["train"], io.StringIO()
        with contextlib.redirect_stderr(told):
            status = run.main(
                self.name,
                train.SETTINGS,
                train.train,
                out=out,
                program=self.program.folder / "program.model",
                argv=argv,
            )
        if status:
            raise RuntimeError(f"the script ended with status {status}: {told.getvalue()}")
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        return [self.batch_size / line["rows_per_second"] for line in lines[1:]]

    def gradients(self, batch: tuple[Tensor, ...]) -> Gradients:
        assert self.initial is not None
        given = Batch(dict(zip(self.fields, batch, strict=True)), len(batch[0]))
        return gradients(self.initial, lambda: self.program.modules["train"].loss(self.initial, given))


class Plain(Loop):
    """A loop as one writes it by hand. `loss` takes a batch; what is autocast is said by `cast`."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        batches: Batches,
        optimizer: Optimizer,
        length: Length,
        *,
        cast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
        max_norm: float | None = None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.batches = batches
        self.optimizer = optimizer
        self.length = length
        self.cast = cast
        self.max_norm = max_norm
        self.device = next(model.parameters()).device
        self.held = sum(parameter.nbytes for parameter in model.parameters())

    def step(self) -> None:
        batch = next(self.batches)
        with self.cast():
            loss = self.loss(*batch)
        loss.backward()
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def run(self) -> list[float]:
        found = []
        # As the script, whose first stretch is left out too.
        for number in range(self.length.stretches + 1):
            synchronize(self.device)
            start = time.perf_counter()
            for _ in range(self.length.steps):
                self.step()
            synchronize(self.device)
            if number:
                found.append((time.perf_counter() - start) / self.length.steps)
        return found

    def gradients(self, batch: tuple[Tensor, ...]) -> Gradients:
        def loss() -> Tensor:
            with self.cast():
                return self.loss(*batch)

        return gradients(self.model, loss)


class Graphed(Plain):
    """The whole step as one CUDA graph, made by hand: a batch is gathered on the device by the rows copied in."""

    def __init__(self, plain: Plain, data: tuple[Tensor, ...], batch_size: int) -> None:
        super().__init__(plain.model, plain.loss, plain.batches, plain.optimizer, plain.length)
        self.rows = torch.arange(batch_size, device=self.device)
        self.order = shuffled(len(data[0]), batch_size, self.device)
        initial = [parameter.detach().clone() for parameter in self.model.parameters()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._whole(data)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self._whole(data)
        # What was trained to warm up is not to be seen.
        with torch.no_grad():
            torch._foreach_copy_(list(self.model.parameters()), initial)

    def _whole(self, data: tuple[Tensor, ...]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(*(each[self.rows] for each in data)).backward()
        self.optimizer.step()

    def step(self) -> None:
        self.rows.copy_(next(self.order))
        self.graph.replay()


def gradients(model: nn.Module, loss: Callable[[], Tensor]) -> Gradients:
    """The loss and each parameter's gradient; the parameters are left without one."""
    model.zero_grad(set_to_none=True)
    value = loss()
    value.backward()
    found = {"loss": value.detach().clone()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    model.zero_grad(set_to_none=True)
    return found


def shuffled(rows: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """The rows of each batch, without end; every epoch in another order."""
    while True:
        for rows_of_batch in torch.randperm(rows, device=device).split(batch_size):
            if len(rows_of_batch) == batch_size:
                yield rows_of_batch


def resident(data: tuple[Tensor, ...], batch_size: int) -> Batches:
    """Batches gathered on the device where the data are."""
    for rows in shuffled(len(data[0]), batch_size, data[0].device):
        yield tuple(each[rows] for each in data)


def loaded(data: tuple[Tensor, ...], batch_size: int, device: torch.device) -> Batches:
    """Batches from a `DataLoader` over data in the host's memory."""
    loader = DataLoader(
        TensorDataset(*data), batch_size, shuffle=True, drop_last=True, pin_memory=device.type == "cuda"
    )
    while True:
        for batch in loader:
            yield tuple(each.to(device, non_blocking=True) for each in batch)


def numbered(constants: Mapping[str, int]) -> dict[str, int]:
    """Sizes by the names of a program's constants."""
    return {name.upper(): value for name, value in constants.items()}
