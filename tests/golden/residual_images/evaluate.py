"""Evaluate the run `digits` of residual_images.model: its loss, its metrics and a report.

Started as `python evaluate.py --checkpoint best --split test`; `--help` tells the options.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import Tensor, nn

import data
from model import Net, Residual
from tdsl.runtime import metrics
from tdsl.runtime.evaluation import Job, main
from tdsl.runtime.folding import fold
from tdsl.runtime.loader import Batch
from tdsl.runtime.results import Results
from train import loss

BATCH_SIZE = 64
# Convolutions that compute what the batch norms after them would, by class: the paths of both.
FOLDED = {
    Residual: [("conv1", "norm1"), ("conv2", "norm2")],
    Net: [("stem.0", "stem.1")],
}


def make_metrics() -> list[metrics.Metric]:
    """What compares predictions with targets."""
    return [
        metrics.Accuracy(task="multiclass", num_classes=10),
    ]


def compare(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The prediction [B, 10] and the target int[B]."""
    return model(batch.pixels.unflatten(1, (1, 8, 8)).contiguous(memory_format=torch.channels_last)), batch.label


@torch.no_grad()
def evaluate(job: Job) -> None:
    """One pass over the split, in which every row counts once."""
    model = Net().to(memory_format=torch.channels_last)
    job.load(model=model)
    fold(FOLDED, model)
    batches = replace(data.batches(job.split, BATCH_SIZE, device=job.device), shuffle=False, drop_last=False)
    results = Results(make_metrics())
    for batch in job.progress(batches):
        results.add_loss(loss(model, batch), rows=batch.size)
        results.add(*compare(model, batch))
    job.report(results)


if __name__ == "__main__":
    sys.exit(
        main(
            "digits",
            evaluate,
            out=data.ROOT / "runs" / "digits",
            split="test",
            splits=data.SPLITS,
            seed=0,
        )
    )
