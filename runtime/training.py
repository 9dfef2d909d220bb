"""The state of a training run as one thing: what a checkpoint holds, and what goes on from it."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from tdsl.runtime import checkpoint, optim, ranks, record, sharded_checkpoint, shards, streams, timing
from tdsl.runtime.average import Average
from tdsl.runtime.checkpoint import Categories, Checkpoint
from tdsl.runtime.files import remove_folder, write_text
from tdsl.runtime.fitting import listed as listed_names
from tdsl.runtime.loader import Batch
from tdsl.runtime.logs import Log, Silent
from tdsl.runtime.progress import Meter
from tdsl.runtime.readable import number
from tdsl.runtime.run import Failure, Job, Length, check_finite
from tdsl.runtime.schedule import Schedule
from tdsl.runtime.shards import Piece
from tdsl.runtime.sources import Tokenizer
from tdsl.runtime.statistics import Statistics

# What counts in a batch: what the loss is a mean over, a number for each mean.
Counted = Callable[[Batch], Tensor | tuple[Tensor, ...]]


def shares(
    batch: Batch, parts: int, counted: Counted | None = None, *, rows: bool = False
) -> Iterator[tuple[Batch, float]]:
    """The parts of a batch, each with its share of what counts in all ranks' rows; those without any are left out.

    Without `counted` rows count. Raises `Failure` where the loss is a sum of means over different counts, with `rows`
    one over rows among them, and a part's shares of these differ: no weight of the part is then right for all.
    """
    pieces = batch.chunk(parts)
    if len(pieces) == 1 and ranks.count() == 1:
        yield batch, 1.0
        return
    own = _counts(batch, counted, rows)
    whole = [float(batch.total)] if counted is None else ranks.total(own)
    for part in pieces:
        found = [a / b if b else math.nan for a, b in zip(_counts(part, counted, rows), whole, strict=True)]
        if not math.isnan(found[0]) and any(not math.isclose(found[0], each, rel_tol=1e-6) for each in found):
            raise Failure(
                "parts of a batch have other shares of its labels than of its rows, and the loss has means over both",
                help="train in one process with `accumulate = 1`, or give every row as many labels that count",
            )
        if found[0]:
            yield part, found[0]


def _counts(batch: Batch, counted: Counted | None, rows: bool) -> list[float]:
    if counted is None:
        return [float(batch.size)]
    found = counted(batch)
    return [each.item() for each in (found if isinstance(found, tuple) else (found,))] + [float(batch.size)] * rows


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

    def reason(self, step: int, length: Length) -> str:
        """Why a run ends after `step` steps: `val/loss has not improved for 5 epochs; best 0.1230 at epoch 7`."""
        best = self.best
        if best.step is None:
            return f"{best.monitor} has never been a number"
        each = length.epoch if length.unit == "epoch" else 1
        since, more = (step - best.step) // each, f" by more than {self.min_delta:g}" if self.min_delta else ""
        what = f"{best.monitor} has not improved{more} for {since:,} {length.unit}{'s' * (since != 1)}"
        return f"{what}; best {number(best.value)} at {length.unit} {best.step // each:,}"


@dataclass(frozen=True)
class Own:
    """What each rank has of its own: its random streams, and what its meters have added up."""

    streams: Mapping[str, Tensor]
    random: Mapping[str, Any]
    logged: Mapping[str, Any]
    validated: Mapping[str, Any]

    def values(self) -> dict[str, Any]:
        """All of it that is no tensor."""
        return {"random": self.random, "logged": self.logged, "validated": self.validated}


def _drawn(own: Sequence[Own]) -> dict[str, Tensor]:
    """The random streams of all ranks."""
    return {f"{rank}.{name}": value for rank, each in enumerate(own) for name, value in each.streams.items()}


def _of_rank(rank: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{rank}.")}


@dataclass
class Training:
    """All that changes while a run goes on. `step` counts the optimizer steps that are done."""

    job: Job
    models: Mapping[str, nn.Module]
    optimizer: Optimizer
    schedule: Schedule
    scaler: GradScaler | None = None
    ema: AveragedModel | Average | None = None
    best: Best | None = None
    early_stopping: EarlyStopping | None = None
    tokenizer: Tokenizer | None = None
    categories: Categories = field(default_factory=dict)
    statistics: Statistics | None = None
    step: int = 0
    ended: bool = False
    # Since the last line of the log, and since the last validation.
    logged: Meter = field(default_factory=Meter)
    validated: Meter = field(default_factory=Meter)
    _told: float = field(default_factory=time.perf_counter, init=False)

    def start(self) -> Log:
        """Go on from the checkpoint that `--resume` asks for, or start anew; the log, as far as it belongs to the run.

        Raises `Failure` where that checkpoint is not there, is damaged, or is of a run with other settings.
        """
        found = ranks.first(self._found)
        if found is not None:
            self.restore(found)
        ranks.first(self._clear)
        ranks.first(lambda: record.begin(self))
        asked = {name: bool(self.job.settings.get(f"logging.{name}")) for name in ("csv", "tensorboard")}
        return Silent() if ranks.rank() else Log(self.job.out, self.step, **asked)

    def _found(self) -> Checkpoint | None:
        folder = self.job.out / "checkpoints"
        checkpoint.clean(folder)
        if self.job.resume == "auto":
            return checkpoint.latest_good(folder)
        return None if self.job.resume == "none" else checkpoint.at(Path(self.job.resume))

    def _clear(self) -> None:
        self._set_aside()
        self._prune()  # which a kill may have left undone
        write_text(self.job.out / "program.model", self.job.program)

    def _set_aside(self) -> None:
        """Keep what an earlier run has left of later steps, and its log, in `previous`."""
        out, previous = self.job.out, self.job.out / "previous"
        later = [each for each in checkpoint.listed(out / "checkpoints") if each.step > self.step]
        if not later:
            return
        (previous / "checkpoints").mkdir(parents=True, exist_ok=True)
        if (out / "log.jsonl").exists():
            shutil.copyfile(out / "log.jsonl", previous / "log.jsonl")
        for each in later:
            remove_folder(previous / "checkpoints" / each.path.name)
            each.path.rename(previous / "checkpoints" / each.path.name)

    @property
    def is_told(self) -> bool:
        """Whether the log is to tell of the step that is under way."""
        step, settings = self.step + 1, self.job.settings
        return step % settings["logging.every"] == 0 or self.schedule.length.due(step, settings["validate.every"])

    def add(self, values: Mapping[str, Tensor], rows: float) -> None:
        """Take note of the loss and the tracked values over `rows` rows."""
        terms = {name: value.detach().to(torch.float64) * rows for name, value in values.items()}
        self.logged.add_sums(terms, rows)
        self.validated.add_sums(terms, rows)

    def line(self, grad_norm: Tensor) -> dict[str, Any]:
        """What is logged of this step: the means since the last line."""
        means = self.logged.means()
        check_finite(means["loss"], self.step)
        found = {"step": self.step, "epoch": round(self.step / self.schedule.length.epoch, 4), **means}
        found |= {**self.schedule.rates, "grad_norm": grad_norm.item()}
        found["rows_per_second"] = self.logged.rows_per_second()
        self.logged.reset()
        self._told = time.perf_counter()
        return found

    def results(self, values: Mapping[str, float]) -> dict[str, float]:
        """What may be monitored: `values` of a validation, and the means of training since the last one."""
        timing.add("validation", time.perf_counter() - self._told)  # which a line of the log comes before
        means = {f"train/{name}": value for name, value in self.validated.means().items()}
        self.validated.reset()
        return {**means, **values}

    def save(self, log: Log) -> Checkpoint:
        """Write a checkpoint of the step. Raises `Failure`, and leaves the others, where a weight is not finite."""
        with timing.spent("checkpoints"):
            return self._save(log)

    def _save(self, log: Log) -> Checkpoint:
        log.sync()
        own = ranks.gathered(Own(*streams.capture(), self.logged.state_dict(), self.validated.state_dict()))
        if not shards.any_divided(self.models.values()):
            return ranks.first(lambda: self._write(own))
        written = self._write_shards(own)
        ranks.first(self._prune)
        return written

    def _write(self, own: Sequence[Own]) -> Checkpoint:
        optimizer, rest = checkpoint.flat_optimizer(self.optimizer)
        averaged = {checkpoint.EMA: self.ema.module} if isinstance(self.ema, AveragedModel) else {}
        written = checkpoint.write(
            self.job.out / "checkpoints",
            self.step,
            models={**self.models, **averaged},
            tensors={checkpoint.OPTIMIZER: optimizer, checkpoint.RANDOM: _drawn(own)},
            state=self._state(own, rest),
            program=self.job.program,
            tokenizer=self._vocabulary,
        )
        self._prune()
        return written

    def _write_shards(self, own: Sequence[Own]) -> Checkpoint:
        optimizer, rest = checkpoint.flat_optimizer(self.optimizer)
        models = {**self.models, **({checkpoint.EMA: self.ema} if self.ema is not None else {})}
        rows = dict(optim.named_pieces(self.models))
        tensors = {name: shards.pieces(model.state_dict(keep_vars=True)) for name, model in models.items()}
        tensors[checkpoint.OPTIMIZER] = {
            key: owner.like(value) if isinstance(owner := rows[key.rpartition(".")[0]], Piece) else value
            for key, value in optimizer.items()
        }
        return sharded_checkpoint.write(
            self.job.out / "checkpoints",
            self.step,
            tensors={**tensors, checkpoint.RANDOM: _drawn(own)},
            state=self._state(own, rest),
            program=self.job.program,
            tokenizer=self._vocabulary,
        )

    def _state(self, own: Sequence[Own], optimizer: Mapping[str, Any]) -> dict[str, Any]:
        """All that is no tensor."""
        return {
            "ended": self.ended,
            "run": self._run(),
            "categories": dict(self.categories),
            "statistics": {} if self.statistics is None else self.statistics.record(),
            "optimizer": optimizer,
            "schedule": self.schedule.state_dict(),
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            "averaged": 0 if self.ema is None else int(self.ema.n_averaged),
            "best": {} if self.best is None else vars(self.best),
            "early_stopping": self._patience(),
            "ranks": [each.values() for each in own],
        }

    def _prune(self) -> None:
        best = None if self.best is None else self.best.step
        checkpoint.prune(self.job.out / "checkpoints", self.job.settings["checkpoint.keep"], best)

    def restore(self, found: Checkpoint) -> None:
        """Be as the run was when it wrote this checkpoint."""
        state = found.state
        self._check_run(found, state["run"])
        self._check_tokenizer(found)
        checkpoint.check_categories(found, self.categories)
        self._check_statistics(found)
        for name, model in self.models.items():
            checkpoint.load(found, name, model)
        if self.ema is not None:
            averaged = self.ema.module if isinstance(self.ema, AveragedModel) else self.ema
            checkpoint.load(found, checkpoint.EMA, averaged)
            self.ema.n_averaged.fill_(state["averaged"])
        # The optimizer last: its groups hold the rates that the schedule has set.
        self.schedule.load_state_dict(state["schedule"])
        rows = dict(optim.named_pieces(self.models))
        optimizer = shards.read(found.path, checkpoint.OPTIMIZER, shards.beside(rows))
        checkpoint.restore_optimizer(self.optimizer, optimizer, state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self._restore_best(state)
        self._restore_own(found, state["ranks"])
        self.step, self.ended = found.step, state["ended"]
        done = self.ended or self.step >= self.schedule.length.steps
        ranks.say(f"{'the run has ended: ' if done else 'going on from '}{found.path}")

    @property
    def _vocabulary(self) -> str | None:
        return None if self.tokenizer is None else self.tokenizer.record()

    def _check_tokenizer(self, found: Checkpoint) -> None:
        """Raise `Failure` where the data number their texts otherwise than those that the checkpoint was trained on."""
        if self.tokenizer is not None and found.tokenizer not in (None, self._vocabulary):
            what = f"the texts have another vocabulary than those that {found.path} was trained on"
            raise Failure(what, "bring the texts back, or start anew with `--resume none`")

    def _check_statistics(self, found: Checkpoint) -> None:
        """Raise `Failure` where the train split has other statistics than that which the checkpoint was trained on."""
        changed = (self.statistics or Statistics()).changed(found.state.get("statistics", {}))
        if changed is not None:
            what = f"`{changed}` has other statistics in the train split than when {found.path} was trained"
            raise Failure(what, "bring the data and their split back, or start anew with `--resume none`")

    def _restore_own(self, found: Checkpoint, own: Sequence[Mapping[str, Any]]) -> None:
        """What each rank has of its own; of a run of another number of ranks, its sums are rank 0's now."""
        same, rank = len(own) == ranks.count(), ranks.rank()
        for meter, name in ((self.logged, "logged"), (self.validated, "validated")):
            states = [each[name] for each in own]
            meter.load_state_dict(states[rank] if same else Meter.joined(states if rank == 0 else ()))
        if same or rank == 0:
            streams.restore(_of_rank(rank, found.tensors(checkpoint.RANDOM)), own[rank]["random"])
        else:
            streams.seed_all(streams.mixed(self.job.settings["seed"], rank, found.step))

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

    def _run(self) -> dict[str, Any]:
        """What a run must keep to be the same run, as JSON brings it back."""
        kinds = {
            "optimizer": type(self.optimizer).__name__,
            "scheduler": [stage.kind.__name__ for stage in self.schedule.stages],
            "parameters": [group["param_names"] for group in self.optimizer.param_groups],
        }
        found: dict[str, Any] = json.loads(json.dumps({**kinds, **self.job.settings.fixed()}))
        return found

    def _check_run(self, found: Checkpoint, before: Mapping[str, Any]) -> None:
        """Going on with other settings would be a run that no single start could repeat."""
        now = self._run()
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if changed:
            listed = ", ".join(_change(key, before.get(key), now.get(key)) for key in changed)
            help = "give the same, start anew with `--resume none`, or elsewhere with `--out`"
            raise Failure(f"{found.path} is of a run with other settings: {listed}", help)


def _change(key: str, before: Any, now: Any) -> str:
    """How a setting differs: of parameters, of which there may be thousands, those that came and went."""
    if key != "parameters" or before is None:
        return f"`{key}` was {before}, is {now}"
    old, new = ([name for group in each for name in group] for each in (before, now))
    gone, come = ([name for name in some if name not in others] for some, others in ((old, {*new}), (new, {*old})))
    if not gone and not come:
        return "the groups of parameters are others"
    told = [f"{what} {listed_names(names)}" for what, names in (("lacks", gone), ("has also", come)) if names]
    return f"what is trained {' and '.join(told)}"
