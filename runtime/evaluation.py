"""What an evaluation script does around its pass over a split: options, the checkpoint, and what is written."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from tdsl.runtime import checkpoint, examples, headlines, prediction_files, ranks, record, report, sources
from tdsl.runtime.checkpoint import Categories, Checkpoint
from tdsl.runtime.files import MANIFEST, sha256
from tdsl.runtime.loader import Batch, Batches
from tdsl.runtime.results import Results
from tdsl.runtime.run import check_processes, choose_device, reported
from tdsl.runtime.settings import UsageError
from tdsl.runtime.sources.texts import recorded


@dataclass(frozen=True)
class Job:
    """One evaluation: of which run (`out` is its folder), with which checkpoint, over which split, and where.

    `categories` are the lists that number columns of the data, and `target` is the field that predictions are compared
    with, where it is one. `parameters` counts those of each model that is loaded.
    """

    name: str
    out: Path
    checkpoint: Checkpoint
    split: str
    device: torch.device
    predictions: Path | None
    categories: Categories = field(default_factory=dict)
    target: str | None = None
    began: float = field(default_factory=time.perf_counter)
    parameters: dict[str, int] = field(default_factory=dict)
    _seen: list[Batches] = field(default_factory=list, init=False)

    def load(self, **models: nn.Module) -> None:
        """Puts the checkpoint's weights into the models of the run, by name, and them on the device, to evaluate."""
        checkpoint.check_categories(self.checkpoint, self.categories)
        for name, model in models.items():
            checkpoint.load_model_weights(self.checkpoint, model, name)
            model.to(self.device).eval()
            self.parameters[name] = sum(p.numel() for p in model.parameters())

    @property
    def tokenizer(self) -> sources.Tokenizer | None:
        """What numbered the texts of the training; None where the data are none."""
        return tokenizer_of(self.checkpoint)

    @property
    def statistics(self) -> sources.Statistics:
        """What fields took from the rows of the train split."""
        return self.checkpoint.statistics

    @property
    def part(self) -> ranks.Part:
        """Which rows of each batch are this process's, for `data.batches`."""
        return ranks.part()

    def progress(self, batches: Batches) -> Iterator[Batch]:
        """The batches, with a bar in a terminal."""
        self._seen[:] = [batches]
        console = Console(stderr=True, quiet=ranks.rank() != 0)
        yield from track(
            batches, f"{self.name}, {self.split}", len(batches), console=console, disable=not console.is_terminal
        )

    def report(self, results: Results) -> None:
        """Prints the results, and writes `metrics.json` and `report.html` into the run's folder."""
        results.gather()
        ranks.first(lambda: self._report(results))

    def _report(self, results: Results) -> None:
        found = {"run": self.name, "split": self.split} | results.summary()
        for batches in self._seen:
            _look_up(found, batches, self.target)
        found["checkpoint"] = {
            "path": _relative(self.checkpoint.path, self.out),
            "step": self.checkpoint.step,
            "sha256": sha256(self.checkpoint.path / MANIFEST),
        }
        found["environment"] = record.environment(self.device)
        found["parameters"] = self.parameters.get(checkpoint.MODEL, 0)
        found["evaluated"] = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        found["seconds"] = round(time.perf_counter() - self.began, 3)
        report.write(self.out, found)
        headlines.show(found)
        print(f"report: {self.out.resolve() / 'report.html'}")

    def write_predictions(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Writes what `predict` returned for each batch, tensors [B, ...] by name, to the file that was asked for.

        Rows have their numbers in the source that the split is of. Of several processes one writes.
        """
        if ranks.rank():
            return
        assert self.predictions is not None
        indices = next(((seen.split.origin or seen.split).indices.cpu() for seen in self._seen), None)
        prediction_files.write(self.predictions, batches, indices)
        print(f"predictions: {self.predictions}")


def _look_up(found: dict[str, Any], batches: Batches, target: str | None) -> None:
    """Puts in what the data tell: which rows those with the highest loss are, and what the classes are called."""
    names = examples.field_names(batches.split)
    for row in found["worst"]:
        first = row["batch"] * batches.batch_size
        rows = min(batches.batch_size, len(batches.split) - first)
        position = first + rows * row.pop("rank") // batches.ranks + row.pop("offset")
        del row["batch"]
        row |= examples.describe(batches.split, position, names)
    classes = (found["task"] or {}).get("classes", 0)
    named = names.get(target or "", ())
    found["class_names"] = list(named) if named and len(named) == classes else None


def tokenizer_of(found: Checkpoint) -> sources.Tokenizer | None:
    """What numbered the texts that a checkpoint was trained on; None where the data were none."""
    kept = found.tokenizer
    return None if kept is None else recorded(kept, str(found.path / checkpoint.TOKENIZER))


def _relative(path: Path, folder: Path) -> str:
    """A path as it may be told to others: below the folder where it lies there, else its name alone."""
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if folder in path.parents else path.name


def main(
    name: str,
    evaluate: Callable[[Job], None],
    *,
    out: Path,
    split: str,
    splits: Sequence[str],
    seed: int = 0,
    predicts: bool = False,
    distributed: bool = False,
    categories: Categories | None = None,
    target: str | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run an evaluation script; the exit status: 0, 1 where the evaluation failed, 2 where the options are wrong.

    `out` is the run's folder unless `--out` names another, `splits` those that the data have, `seed` that of what is
    random in the model, `predicts` whether there is a `predict` to write predictions with, `distributed` whether
    `torchrun` may start it in several processes; see `Job` for `categories` and `target`.
    """

    def start() -> None:
        check_processes(name, distributed)
        torch.manual_seed(seed)
        job = _job(name, _parser(name, out, split, predicts).parse_args(argv), splits)
        job = replace(job, categories=categories or {}, target=target)
        with ranks.group(job.device):
            evaluate(job)

    return status_of(name, "evaluate", start)


def status_of(name: str, verb: str, action: Callable[[], None]) -> int:
    """The exit status of a script that does this: what went wrong is told, and what to `verb` otherwise."""

    def start() -> int:
        action()
        return 0

    return reported(name, start, memory=f"{verb} on another device with `--device`")


def _parser(name: str, out: Path, split: str, predicts: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Evaluate `{name}`.", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="the run's folder (default: %(default)s)")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|PATH", help="which one (default: best)")
    parser.add_argument("--split", default=split, help="the split to evaluate on (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    if predicts:
        parser.add_argument("--predict", type=Path, metavar="FILE", help="write the predictions of the split, too")
    return parser


def _job(name: str, given: argparse.Namespace, splits: Sequence[str]) -> Job:
    if given.split not in splits:
        raise UsageError(f"there is no split `{given.split}`", f"the data have {', '.join(splits)}")
    device = choose_device(given.device)
    found = checkpoint.find(given.out / "checkpoints", given.checkpoint)
    predictions: Path | None = vars(given).get("predict")
    if predictions is not None:
        prediction_files.check(predictions)
    return Job(name, given.out, found, given.split, device, predictions)
