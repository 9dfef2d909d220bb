"""Train the run `words` of vocabulary.model.

Started as `python train.py --set batch_size=32`; `--help` tells the options.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import data
import kernels
from model import Words
from tdsl.runtime import optim, report, run, streams
from tdsl.runtime.loader import Batch, Batches
from tdsl.runtime.progress import Meter, bar
from tdsl.runtime.schedule import Schedule
from tdsl.runtime.training import Training, shares

# What the program says, and `--set KEY=VALUE` changes. Periods are in the run's unit, those of the log in steps.
SETTINGS = {
    "epochs": 1,
    "steps": None,
    "batch_size": 32,
    "accumulate": 1,
    "clip_grad_norm": None,
    "seed": 0,
    "tf32": False,
    "deterministic": False,
    "optimizer.lr": 0.001,
    "optimizer.weight_decay": 0.01,
    "checkpoint.every": None,
    "checkpoint.keep": 3,
    "checkpoint.resume": "auto",
    "validate.every": None,
    "logging.every": 10,
    "logging.tensorboard": False,
    "logging.csv": False,
    "data.workers": 0,
    "data.prefetch": 2,
}


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a batch."""
    hidden = model(batch.tokens, head=False)  # [B, 64, 32]
    return kernels.linear_cross_entropy(hidden.flatten(0, 1), model.head.weight, batch.targets.flatten(0, 1))


def counted(batch: Batch) -> Tensor:
    """What counts in a batch: what the loss is a mean over."""
    return (batch.targets.flatten(0, 1) != -100).sum()


@torch.no_grad()
def validate(model: nn.Module, batches: Batches, seed: int) -> dict[str, float]:
    """The values of the split `val`, in which every row counts once."""
    meter = Meter()
    model.eval()
    # A random stream of its own: training does not depend on how often it is validated.
    with streams.isolated(seed):
        for batch in batches:
            meter.add({"loss": loss(model, batch)}, batch.size)
    return {f"val/{name}": value for name, value in meter.means().items()}


def train(job: run.Job) -> None:
    """The run, from its newest checkpoint on or from the start."""
    settings, device = job.settings, job.device
    run.set_up(seed=settings["seed"], tf32=settings["tf32"], deterministic=settings["deterministic"])

    loading = {"device": device, **settings.under("data")}
    batches = data.batches("train", settings["batch_size"], seed=settings["seed"], **loading)
    held_out = data.batches("val", settings["batch_size"], **loading)
    length = run.Length.of(settings, epoch=len(batches))

    model = Words(vocab=8192).to(device)
    models = {"model": model}
    groups = optim.groups(models)
    optimizer = optim.make(optim.AdamW, groups, **settings.under("optimizer"))
    schedule = Schedule(optimizer, length)
    state = Training(job, models, optimizer, schedule)
    log = state.start()

    run.train_mode(model)
    with bar(state) as progress:
        for batch in run.stream(batches, state.step, 0 if state.ended else length.steps):
            # Weighted by what counts in them, the parts add up to the whole batch's gradient.
            for part, share in shares(batch, settings["accumulate"], counted):
                value = loss(model, part)
                state.add({"loss": value}, share * batch.size)
                (value * share).backward()
            grad_norm = optim.clip_gradients(optimizer, settings["clip_grad_norm"], told=state.is_told)
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1
            progress.advance()

            # What is logged, and what is found on held-out rows.
            validates = length.due(state.step, settings["validate.every"])
            if validates or state.step % settings["logging.every"] == 0:
                line = state.line(grad_norm)
                if validates:
                    results = state.results(validate(model, held_out, settings["seed"]))
                    run.train_mode(model)
                    line |= results
                    progress.tell(results)
                log.write(line)
                progress.show(line)
            schedule.step(state.step)

            ends = state.ended or job.stopping
            if ends or length.due(state.step, settings["checkpoint.every"]):
                state.save(log)
            if ends:
                break
    report.trained(state, data.load())


if __name__ == "__main__":
    sys.exit(
        run.main(
            "words",
            SETTINGS,
            train,
            out=data.ROOT / "runs" / "words",
            program=Path(__file__).with_name("program.model"),
        )
    )
