"""What a prediction script does around its model: options, the new rows, the checkpoint, and the file of results."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from tdsl.runtime import checkpoint, prediction_files, sources
from tdsl.runtime.checkpoint import Categories, Checkpoint
from tdsl.runtime.columns import Values
from tdsl.runtime.evaluation import status_of, tokenizer_of
from tdsl.runtime.loader import Batch, Batches, Split
from tdsl.runtime.run import choose_device
from tdsl.runtime.settings import WORDS, UsageError
from tdsl.runtime.sources import Tokenizer
from tdsl.runtime.sources.images import Images
from tdsl.runtime.table import DataError, Table
from tdsl.runtime.transforms import Transform

# The source that reads a file of this ending, where the program's own does not number tokens.
KINDS = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".npz": "npz", ".npy": "npy",
         ".safetensors": "safetensors"}  # fmt: skip
READERS = (
    "csv", "huggingface", "idx", "image_folder", "jsonl", "npy", "npz", "parquet", "python", "safetensors", "text",
    "tokens", "torchvision",
)  # fmt: skip
# What images often are in, and a folder of them is not.
ARRAYS = ("idx", "npy", "npz")
WILD = re.compile(r"[*?[]")
HERE = Path()


@dataclass(frozen=True)
class Job:
    """One prediction: with which checkpoint of the run, for the rows of which table, into which file, and where.

    `categories` are the lists that number columns.
    """

    name: str
    checkpoint: Checkpoint
    table: Table
    output: Path
    device: torch.device
    categories: Categories = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def load(self, **models: nn.Module) -> None:
        """Puts the checkpoint's weights into the models of the run, by name, and them on the device, to evaluate."""
        checkpoint.check_categories(self.checkpoint, self.categories)
        for name, model in models.items():
            checkpoint.load_model_weights(self.checkpoint, model, name)
            model.to(self.device).eval()

    @property
    def statistics(self) -> sources.Statistics:
        """What fields took from the rows of the train split."""
        return self.checkpoint.statistics

    def batches(
        self,
        fields: Callable[[Table], Mapping[str, Values]],
        batch_size: int,
        transforms: Mapping[str, Sequence[Transform]] | None = None,
    ) -> Iterator[Batch]:
        """The rows of the table in order, with a bar in a terminal. Raises `DataError` for rows that do not fit."""
        rows = Split.whole(fields(self.table))
        found = Batches(rows, batch_size, transforms=transforms or {}, device=self.device)
        console = Console(stderr=True)
        yield from track(found, self.name, len(found), console=console, disable=not console.is_terminal)

    def write(self, results: Iterable[Mapping[str, Tensor]]) -> None:
        """Writes what `predict` returned for each batch, tensors [B, ...] by name, a row for each row of the table."""
        rows = prediction_files.write(self.output, results, files=_files(self.table))
        seconds = time.perf_counter() - self.began
        print(f"predictions: {rows} rows of step {self.checkpoint.step} in {seconds:.1f} s: {self.output}")


def main(
    name: str,
    predict: Callable[[Job], None],
    *,
    out: Path,
    source: str,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    categories: Categories | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a prediction script; the exit status: 0, 1 where it failed, 2 where the options are wrong.

    `out` is the run's folder unless `--out` names another, `source` the kind of source that the program reads and
    `options` what it gives it beside paths, `seed` that of what is random in the model, `categories` the lists that
    number columns.
    """

    def start() -> None:
        torch.manual_seed(seed)
        job = _job(name, _parser(name, out).parse_args(argv), source, options or {})
        predict(replace(job, categories=categories or {}))

    return status_of(name, "predict", start)


def _parser(name: str, out: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Predict new rows with the run `{name}`.", allow_abbrev=False)
    parser.add_argument(
        "--input", required=True, metavar="FILE|SOURCE", help='new rows: a file, or as in `csv("a.csv")`'
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help=f"{', '.join(prediction_files.WRITERS)}"
    )
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="the run's folder (default: %(default)s)")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|PATH", help="which one (default: best)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    return parser


def _job(name: str, given: argparse.Namespace, source: str, options: Mapping[str, Any]) -> Job:
    prediction_files.check(given.output)
    device = choose_device(given.device)
    found = checkpoint.find(given.out / "checkpoints", given.checkpoint)
    table = read(given.input, source, options, tokenizer_of(found))
    return Job(name, found, table, given.output, device)


def read(text: str, source: str, options: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> Table:
    """The rows of `text`: a file, a glob or a folder, or a source as a program writes it.

    What reads a file is told by its ending, else it is the program's own `source`, with its `options`. `tokenizer` is
    what numbered the texts of the training.
    Raises `UsageError` where it is none of these, `DataError` where it can't be read.
    """
    written = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*\(.*\)\s*", text, re.DOTALL)
    if written and not Path(text).exists():
        args, named = _arguments(text)
        # What a csv file has as text, the program knows.
        named = {**options, **named} if written[1] == source == "csv" else named
        return _called(written[1], args, named, tokenizer=tokenizer)
    base, path = _placed(text)
    if (base / path).is_dir() and source in ARRAYS:
        mode = ', mode="L"' if source == "idx" else ""
        help = f"of images: `--input 'image_folder({json.dumps(text, ensure_ascii=False)}{mode})'`"
        raise UsageError(f"`{text}` is a folder, and `{source}` reads files", help)
    kind = KINDS.get(Path(text).suffix, source) if source not in ("text", "tokens") else source
    return _called(kind, [path], dict(options) if kind == source else {}, base, tokenizer)


def _placed(text: str) -> tuple[Path, str]:
    """A folder, and what is read in it. Raises `DataError` where there is nothing of that name."""
    path = Path(text)
    if path.exists():
        return HERE, text
    folders = [each for each in path.parents if not WILD.search(str(each)) and each.is_dir()]
    if not WILD.search(text) or not folders:
        raise DataError("no such file", file=text, help="paths are relative to the folder that you are in")
    return folders[0], path.relative_to(folders[0]).as_posix()


def _called(
    kind: str,
    args: Sequence[Any],
    named: Mapping[str, Any],
    base: Path = HERE,
    tokenizer: Tokenizer | None = None,
) -> Table:
    if kind not in READERS:
        raise UsageError(f"there is no source `{kind}`", f"the sources are {', '.join(READERS)}")
    # New images need no classes.
    plain = kind == "image_folder" and args and not _has_folders(base / str(args[0]))
    reader = getattr(sources, "image_files" if plain else kind)
    more: dict[str, Any] = {} if kind == "python" else {"allow_outside": True}
    if kind == "text":
        more |= {"tokenizer": _known(tokenizer)}
    try:
        inspect.signature(reader).bind(base, *args, **more, **named)
    except TypeError as error:
        raise UsageError(f"`{kind}`: {error}", "write the source as a program does") from None
    table: Table = reader(base, *args, **more, **named)
    return table


def _files(table: Table) -> list[str]:
    """The file of each row, of a table of images in files: from the folder that we are in, where it lies in that."""
    images = next((column for column in table.data.values() if isinstance(column, Images)), None)
    if images is None:
        return []
    root, here = images.root.resolve(), Path.cwd().resolve()
    root = root.relative_to(here) if root.is_relative_to(here) else root
    return [(root / name).as_posix() for name in images.files]


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(each.is_dir() and not each.name.startswith(".") for each in path.iterdir())


def _known(tokenizer: Tokenizer | None) -> Tokenizer:
    """What numbers a text as in training."""
    if tokenizer is None:
        help = 'write the numbers of its tokens into a file, and give `tokens("new.bin", window=...)`'
        raise UsageError("a text would not be numbered as in training: the checkpoint has no vocabulary", help)
    return tokenizer


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """The values in the parentheses of `csv("a.csv")`."""
    if re.search(r"\btokenizer\s*=", text):
        raise UsageError("a new text has the tokenizer of the checkpoint", "leave `tokenizer` out")
    try:
        (statement,) = ast.parse(text.strip()).body
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not isinstance(call, ast.Call):
            raise ValueError
        return [_value(each) for each in call.args], {str(each.arg): _value(each.value) for each in call.keywords}
    except (SyntaxError, ValueError):
        raise UsageError(f"`{text}` is no source", 'write it as a program does: `csv("new.csv")`') from None


def _value(node: ast.expr) -> Any:
    return WORDS[node.id] if isinstance(node, ast.Name) and node.id in WORDS else ast.literal_eval(node)
