"""The data of residual_images.model: how they are read, divided among splits and cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from tdsl.runtime import sources, splits
from tdsl.runtime.loader import Batches, Split

# The folder that the paths below are relative to.
ROOT = (Path(__file__).resolve().parent / "..").resolve()
SPLITS = ("train", "val", "test")


def fields(table: sources.Table) -> sources.Fields:
    """The fields of every row of a table.

    pixels: float[64]
    label: int[]
    """
    found = {
        # residual_images.model:29
        "pixels": table.field("pixels", table.columns("p*") / 16, torch.float32, (64,)),
        # residual_images.model:30
        "label": table.field("label", table.column("label"), torch.int64, (), classes=10),
    }
    return sources.Fields(table, found)


@sources.once
def load(root: Path = ROOT) -> Mapping[str, Split]:
    """The splits, read from the files once."""
    table = sources.csv(root, "data/digits.csv", allow_outside=True)
    source = fields(table)
    rows = splits.random(table.rows, train=0.7, val=0.15, test=0.15, seed=0)
    return {
        "train": Split(source, rows["train"]),
        "val": Split(source, rows["val"]),
        "test": Split(source, rows["test"]),
    }


def batches(
    split: str,
    batch_size: int,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
    prefetch: int = 2,
    root: Path = ROOT,
) -> Batches:
    """Batches of a split, of `batch_size` rows over all ranks; what is random in them is drawn from `seed`.

    `workers` processes read each `prefetch` batches ahead.
    """
    return Batches(
        load(root)[split],
        batch_size,
        shuffle=split == "train",
        seed=seed,
        device=device,
        rank=rank,
        ranks=ranks,
        workers=workers,
        prefetch=prefetch,
    )
