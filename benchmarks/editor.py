"""How long an edit takes to be answered: from the text of a file to its mistakes and hints, in process.

    python benchmarks/editor.py [FILE...]

Each edit puts a space, a newline, a word that means nothing, or an open bracket somewhere into the program: some leave
it whole, some break it. What is timed is what the language server does between reading an edit and writing its answer,
in milliseconds of processor time, which other processes do not change, and by the clock.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tdsl.compiler.editor.analysis import Analysis, analyze
from tdsl.compiler.editor.hints import hints

ROOT = Path(__file__).resolve().parent.parent
EDITS = 100
WARM_UP = 5
PIECES = (" ", "\n", "x.", "(", "nonsense ", "1")
MILLISECONDS = 1e3


def main(files: Sequence[str]) -> None:
    paths = [Path(file) for file in files] or sorted(
        [*(ROOT / "examples").glob("*.model"), *(ROOT.parent / "shared" / "conformance").glob("*.model")]
    )
    gc.freeze()  # as the server does
    print(f"{'ms from an edit to its mistakes and hints':42}   {'processor time':^23}   {'clock':^23}")
    print(f"{'file':36} {'lines':>5}   {'median':>8} {'p95':>6} {'worst':>7}   {'median':>8} {'p95':>6} {'worst':>7}")
    for path in paths:
        text = path.read_text(encoding="utf-8")
        times = list(answers(path, text))
        first, second = ([each[i] for each in times] for i in (0, 1))
        name = f"{path.parent.name}/{path.name}"
        print(f"{name:36} {len(text.splitlines()):5}   {spread(first)}   {spread(second)}")


def answers(path: Path, text: str) -> Iterator[tuple[float, float]]:
    """Seconds of the processor and by the clock, for each edit: its mistakes, and the hints that are asked for then."""
    rng = random.Random(0)
    analysis: Analysis | None = None
    for number in range(EDITS + WARM_UP):
        place = rng.randrange(len(text) + 1)
        edited = text[:place] + rng.choice(PIECES) + text[place:]
        used, start = time.process_time(), time.perf_counter()
        analysis = analyze(str(path), edited, {}, analysis)
        hints(analysis)
        if number >= WARM_UP:
            yield time.process_time() - used, time.perf_counter() - start


def spread(seconds: list[float]) -> str:
    found = sorted(each * MILLISECONDS for each in seconds)
    tail = found[int(0.95 * len(found))]
    return f"{statistics.median(found):8.1f} {tail:6.1f} {found[-1]:7.1f}"


if __name__ == "__main__":
    main(sys.argv[1:])
