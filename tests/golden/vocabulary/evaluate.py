"""Evaluate the run `words` of vocabulary.model: its loss, its metrics and a report.

Started as `python evaluate.py --checkpoint best --split test`; `--help` tells the options.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import Tensor, nn

import data
from model import Words
from tdsl.runtime import metrics
from tdsl.runtime.evaluation import Job, main
from tdsl.runtime.loader import Batch
from tdsl.runtime.results import Results
from train import loss

BATCH_SIZE = 32


def make_metrics() -> list[metrics.Metric]:
    """What compares predictions with targets."""
    return [
        metrics.Perplexity(task="multiclass", num_classes=8192),
    ]


def compare(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The prediction f32[B, 64, 8192] and the target int[B, 64]."""
    return model(batch.tokens).float(), batch.targets


@torch.no_grad()
def evaluate(job: Job) -> None:
    """One pass over the split, in which every row counts once."""
    model = Words(vocab=8192)
    job.load(model=model)
    batches = replace(data.batches(job.split, BATCH_SIZE, device=job.device), shuffle=False, drop_last=False)
    results = Results(make_metrics())
    for batch in job.progress(batches):
        results.add_loss(loss(model, batch), rows=batch.size)
        results.add(*compare(model, batch))
    job.report(results)


if __name__ == "__main__":
    sys.exit(
        main(
            "words",
            evaluate,
            out=data.ROOT / "runs" / "words",
            split="test",
            splits=data.SPLITS,
            seed=0,
        )
    )
