"""The command line of `checkpoint.py`: list a run's checkpoints, verify them, take the weights out of one."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from tdsl.runtime import checkpoint, shards
from tdsl.runtime.checkpoint import Damaged
from tdsl.runtime.run import Failure


def main(name: str, out: Path, argv: Sequence[str] | None = None) -> int:
    """Run the tool; the exit status is 1 where a checkpoint is damaged or not there."""
    given = _parser(name, out).parse_args(argv)
    folder = given.out / "checkpoints"
    try:
        if given.command == "convert":
            return _convert(folder, given.checkpoint, given.file)
        return _list(folder) if given.command == "list" else _verify(folder)
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser(name: str, out: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"The checkpoints of the run `{name}`.", allow_abbrev=False)
    help = f"the run's folder (default: {str(out).replace('%', '%%')})"
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=help)
    # Behind the command, too; what is not given there leaves what stands before it.
    behind = argparse.ArgumentParser(add_help=False)
    behind.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=help)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[behind], help="the checkpoints, the newest first")
    commands.add_parser("verify", parents=[behind], help="whether every file is as it was written")
    convert = commands.add_parser(
        "convert", parents=[behind], help="the model's weights alone, as one safetensors file"
    )
    convert.add_argument("file", type=Path, metavar="FILE")
    convert.add_argument("--checkpoint", default="best", metavar="best|last|PATH", help="which (default: best)")
    return parser


def _list(folder: Path) -> int:
    table = Table("checkpoint", "size", "", box=None)
    there = checkpoint.listed(folder)
    newest = checkpoint.latest_good(folder)
    best = newest.state["best"].get("step") if newest else None
    for each in there:
        size = sum(file.stat().st_size for file in each.path.iterdir()) / 2**20
        table.add_row(each.path.name, f"{size:.1f} MiB", "best" if each.step == best else "")
    Console().print(table)
    return 0


def _verify(folder: Path) -> int:
    bad = 0
    for each in checkpoint.listed(folder):
        try:
            each.verify()
            print(f"{each.path.name}: good")
        except Damaged as error:
            bad += 1
            print(error)
    return 1 if bad else 0


def _convert(folder: Path, which: str, file: Path) -> int:
    found = checkpoint.find(folder, which)
    one = shards.whole(found.path, found.stem())
    if one is None:
        save_file(found.weights(), file)
    else:
        shutil.copyfile(one, file)
    print(f"weights: {file}")
    return 0
