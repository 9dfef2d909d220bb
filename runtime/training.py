"""The state of a training run as one thing: what a checkpoint holds, and what goes on from it."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from tdsl.runtime import checkpoint
from tdsl.runtime.checkpoint import Checkpoint
from tdsl.runtime.files import remove_folder, write_text
from tdsl.runtime.progress import JsonLog, Meter
from tdsl.runtime.run import Failure, Job
from tdsl.runtime.schedule import Schedule


@dataclass
class Best:
    """The best value so far of what the run monitors, `mode` being "min" or "max", and the step that gave it."""

    monitor: str
    mode: str
    value: float | None = None
    step: int | None = None

    def update(self, values: Mapping[str, float], step: int, min_delta: float = 0.0) -> bool:
        """Whether this is better, by more than `min_delta`."""
        sign = 1 if self.mode == "max" else -1
        value = values[self.monitor]
        if math.isnan(value) or (self.value is not None and sign * (value - self.value) <= min_delta):
            return False
        self.value, self.step = value, step
        return True


@dataclass
class EarlyStopping:
    """Ends a run when `patience` validations in a row have not improved the best value by more than `min_delta`."""

    best: Best
    patience: int
    min_delta: float = 0.0
    waited: int = 0

    def update(self, values: Mapping[str, float], step: int) -> bool:
        """Whether the run is to end."""
        self.waited = 0 if self.best.update(values, step, self.min_delta) else self.waited + 1
        return self.waited >= max(self.patience, 1)


@dataclass
class Training:
    """All that changes while a run goes on. `step` counts the optimizer steps that are done."""

    job: Job
    models: Mapping[str, nn.Module]
    optimizer: Optimizer
    schedule: Schedule
    ema: AveragedModel | None = None
    best: Best | None = None
    early_stopping: EarlyStopping | None = None
    step: int = 0
    ended: bool = False
    # Since the last line of the log, and since the last validation.
    logged: Meter = field(default_factory=Meter)
    validated: Meter = field(default_factory=Meter)

    def start(self) -> JsonLog:
        """Go on from the checkpoint that `--resume` asks for, or start anew; the log, as far as it belongs to the run.

        Raises `Failure` where that checkpoint is not there, is damaged, or is of a run with other settings.
        """
        out = self.job.out
        checkpoint.clean(out / "checkpoints")
        found = None
        if self.job.resume == "none":
            self._set_aside()
        elif self.job.resume == "auto":
            found = checkpoint.latest_good(out / "checkpoints")
        else:
            found = checkpoint.at(self._path())
        if found is not None:
            self.restore(found)
        for later in checkpoint.listed(out / "checkpoints"):
            if later.step > self.step:
                remove_folder(later.path)
        write_text(out / "program.model", self.job.program)
        return JsonLog(out / "log.jsonl", self.step)

    def _path(self) -> Any:
        from pathlib import Path

        return Path(self.job.resume)

    def _set_aside(self) -> None:
        """Keep what an earlier run has left in this folder, in place of any older, in `previous`."""
        out, previous = self.job.out, self.job.out / "previous"
        if not checkpoint.listed(out / "checkpoints"):
            return
        remove_folder(previous)
        previous.mkdir()
        for name in ("checkpoints", "log.jsonl"):
            if (out / name).exists():
                (out / name).rename(previous / name)
        checkpoint.clean(out / "checkpoints")

    def save(self, log: JsonLog) -> Checkpoint:
        """Write a checkpoint of the step. Raises `Failure`, and leaves those there are, where a weight is not finite."""
        log.sync()
        optimizer, rest = checkpoint.flat_optimizer(self.optimizer)
        streams, words = random_state()
        averaged = {checkpoint.EMA: self.ema.module} if self.ema is not None else {}
        state = {
            "ended": self.ended,
            "settings": self.job.settings.fixed(),
            "optimizer": rest,
            "schedule": self.schedule.state_dict(),
            "averaged": 0 if self.ema is None else int(self.ema.n_averaged),
            "best": {} if self.best is None else vars(self.best),
            "early_stopping": self._patience(),
            "logged": self.logged.state_dict(),
            "validated": self.validated.state_dict(),
            "random": words,
        }
        folder = self.job.out / "checkpoints"
        written = checkpoint.write(
            folder,
            self.step,
            models={**self.models, **averaged},
            tensors={"optimizer": optimizer, "random": streams},
            state=state,
            program=self.job.program,
        )
        best = None if self.best is None else self.best.step
        checkpoint.prune(folder, self.job.settings["checkpoint.keep"], best)
        return written

    def restore(self, found: Checkpoint) -> None:
        """Be as the run was when it wrote this checkpoint."""
        state = found.state
        self._check_settings(found, state["settings"])
        for name, model in self.models.items():
            checkpoint.load_weights(found.path / f"{name}.safetensors", model)
        if self.ema is not None:
            checkpoint.load_weights(found.path / f"{checkpoint.EMA}.safetensors", self.ema.module)
            self.ema.n_averaged.fill_(state["averaged"])
        # The optimizer last: its groups hold the rates that the schedule has set.
        self.schedule.load_state_dict(state["schedule"])
        checkpoint.restore_optimizer(self.optimizer, found.tensors("optimizer"), state["optimizer"])
        self._restore_best(state)
        self.logged.load_state_dict(state["logged"])
        self.validated.load_state_dict(state["validated"])
        set_random_state(found.tensors("random"), state["random"])
        self.step, self.ended = found.step, state["ended"]
        print(f"going on from {found.path}", file=sys.stderr)

    def _restore_best(self, state: Mapping[str, Any]) -> None:
        if self.best is not None and state["best"].get("monitor") == self.best.monitor:
            self.best = Best(**state["best"])
        before = state["early_stopping"]
        if self.early_stopping is not None and before and before["best"]["monitor"] == self.early_stopping.best.monitor:
            self.early_stopping.best = Best(**before["best"])
            self.early_stopping.waited = before["waited"]

    def _patience(self) -> dict[str, Any]:
        if self.early_stopping is None:
            return {}
        return {"best": vars(self.early_stopping.best), "waited": self.early_stopping.waited}

    def _check_settings(self, found: Checkpoint, before: Mapping[str, Any]) -> None:
        """Going on with other settings would be a run that no single start could repeat."""
        import json

        now = json.loads(json.dumps(self.job.settings.fixed()))
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if changed:
            listed = ", ".join(f"`{key}` was {before.get(key)}, is {now.get(key)}" for key in changed)
            help = "give the same, start anew with `--resume none`, or elsewhere with `--out`"
            raise Failure(f"{found.path} is of a run with other settings: {listed}", help)


# Random streams -----------------------------------------------------------------------------------------------------


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The global streams of Python, NumPy and PyTorch: their tensors, and what else they hold."""
    version, words, gauss = random.getstate()
    kind, key, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(key).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    rest = {"python": [version, gauss], "numpy": [kind, int(position), int(has_gauss), float(cached)]}
    return tensors, rest


def set_random_state(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    """Undo `random_state`. Streams of GPUs that are not there are left out."""
    version, gauss = rest["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    kind, position, has_gauss, cached = rest["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    for i in range(torch.cuda.device_count()):
        if f"cuda.{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{i}"], i)
