"""Checkpoints that are damaged: `python -m tests.damages 200 [SEED]`.

Each time the files of a run are damaged in one way, and the run is asked for its newest good checkpoint: it is the one
before, with a warning, or an error where none is good. Every tenth run goes on, to the end of the run without damage.
Where the disk is full, the write of a checkpoint fails as a message, and those before it are there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tdsl.runtime import checkpoint
from tdsl.runtime.run import Failure
from tests.training_runs import STEPS, Run, contents, finish, project_in

# What the run says fits, and no file of weights, which are of some ten thousand bytes.
FEWEST_BYTES, MOST_BYTES = 1_000, 10_000
KEPT = ("--set", "checkpoint.keep=3")


def truncated(file: Path, draw: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])


def flipped(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def zeroed(file: Path, draw: random.Random) -> None:
    """As a file system leaves a block that never reached the disk."""
    content = bytearray(file.read_bytes())
    start = draw.randrange(len(content))
    content[start:] = bytes(len(content) - start)
    file.write_bytes(content if bytes(content) != file.read_bytes() else content + b"\0")


def lengthened(file: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes() + draw.randbytes(draw.randint(1, 100)))


def missing(file: Path, draw: random.Random) -> None:
    file.unlink()


def replaced(file: Path, draw: random.Random) -> None:
    """By that file of another checkpoint; by a folder, where all have the same."""
    content = file.read_bytes()
    others = [each for each in sorted(file.parent.parent.glob(f"*/{file.name}")) if each.is_file()]
    different = [each for each in others if each.read_bytes() != content]
    file.unlink()
    shutil.copyfile(draw.choice(different), file) if different else file.mkdir()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    truncated, flipped, zeroed, lengthened, missing, replaced,
)  # fmt: skip


def damage(folder: Path, draw: random.Random) -> tuple[str, checkpoint.Checkpoint | None]:
    """Damage some of the newest checkpoints of a run; in which way, and the one that is then the newest good one."""
    there = checkpoint.listed(folder / "checkpoints")
    how, bad = draw.choice(DAMAGES), draw.randint(1, len(there))
    for each in there[:bad]:
        how(draw.choice(sorted(each.path.iterdir())), draw)
    return how.__name__, there[bad] if bad < len(there) else None


def noticed(folder: Path, expected: checkpoint.Checkpoint | None) -> bool:
    """Whether the newest good checkpoint is the one expected, with a warning; or there is an error, where none is."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        try:
            found = checkpoint.latest_good(folder / "checkpoints")
        except Failure as error:
            return expected is None and "damaged" in str(error)
    return found == expected and "warning" in told.getvalue()


def goes_on(project: Path, folder: Path, whole: Path, expected: checkpoint.Checkpoint | None) -> bool:
    """Whether a run with damaged checkpoints comes to the same end as one without; or says that none is good."""
    if expected is None:
        run = Run(project, folder, *KEPT)
        return run.wait() == 1 and "every checkpoint" in run.text and "Traceback" not in run.text
    told = finish(project, folder, *KEPT)
    name = f"checkpoints/step-{STEPS}/model.safetensors"
    return f"step-{expected.step}" in told and contents(folder)[name] == contents(whole)[name]


def full_disk(project: Path, folder: Path, draw: random.Random) -> bool:
    """Whether a run that can't write its next checkpoint ends with a message, and what there was is as it was."""
    out = folder / "full"
    finish(project, out, *KEPT, "--steps", "20")
    before = contents(out)
    run = Run(project, out, *KEPT, most_bytes=draw.randrange(FEWEST_BYTES, MOST_BYTES))
    ended = run.wait()
    after = contents(out)
    shutil.rmtree(out)
    return ended == 1 and "error: " in run.text and "Traceback" not in run.text and before == after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("times", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told, wrong = damaged(Path(folder), options.times, options.seed)
    for each in wrong:
        print(each)
    listed = ", ".join(f"{number} {how}" for how, number in sorted(told.items()))
    print(f"{told.total()} damages ({listed}), {len(wrong)} not noticed; {time.perf_counter() - start:.0f} s")
    return 1 if wrong else 0


def damaged(folder: Path, times: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damage a run so many times; how often in each way, and what went wrong."""
    project, whole = project_in(folder / "project"), folder / "whole"
    finish(project, whole, *KEPT)
    draw, told, wrong = random.Random(seed), Counter[str](), []
    for number in range(times):
        if number % 20 == 19:
            how, right = "full disk", full_disk(project, folder, draw)
        else:
            out = folder / "damaged"
            shutil.copytree(whole, out)
            how, expected = damage(out, draw)
            right = noticed(out, expected) and (number % 10 or goes_on(project, out, whole, expected))
            shutil.rmtree(out)
        told[how] += 1
        wrong += [] if right else [f"seed {seed}, number {number}: {how}"]
    return told, wrong


if __name__ == "__main__":
    sys.exit(main())
