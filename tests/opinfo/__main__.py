"""The command: a table of every name, its samples, how many agree, and why others were skipped."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from tests.opinfo import table

if TYPE_CHECKING:
    from tests.opinfo.run import Report

LEAST = 95.0
# An entry, the name that it is called by, how many of its samples are run, and of what dtype.
Work = tuple[str, str, "int | None", str]


def main(argv: Sequence[str]) -> int:
    """1 where a name is under 95%."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        # Triton reads it as it is imported.
        env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.call([sys.executable, "-W", "ignore", "-m", "tests.opinfo", *argv], env=env)
    options = _options(argv)
    names = table.names()
    wanted = [n for n in names if not options.names or n in options.names or names[n] in options.names]
    unknown = set(options.names) - set(names) - set(names.values())
    if unknown:
        print(f"no such names: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    if options.list:
        return _list(wanted, names)
    work = [(key, name, options.most, options.dtype) for name in wanted for key in table.entries(name)]
    return _table(_reports(work, options.n), options)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.opinfo", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of the language, or of a family: pointwise, shape, nn"
    )
    parser.add_argument("--list", action="store_true", help="print which samples each name has, and which have none")
    parser.add_argument("--failures", action="store_true", help="print each program that fails, and why")
    parser.add_argument("--refused", action="store_true", help="print what is refused where sizes have no numbers")
    parser.add_argument("--most", type=int, metavar="N", help="run N samples of an entry, spread over all")
    parser.add_argument("--dtype", default="float32", help="of the samples, by PyTorch's name")
    parser.add_argument("-n", type=int, default=1, help="processes")
    return parser.parse_args(argv)


def _list(wanted: Iterable[str], names: dict[str, str]) -> int:
    for name in wanted:
        found = ", ".join(table.entries(name)) or f"none: {table.WITHOUT.get(name, '?')}"
        print(f"{names[name]:<10} {name:<34} {found}")
    for key, why in table.LEFT_OUT.items():
        print(f"left out   {key:<34} {why}")
    return 0


def _report(work: Work) -> Report:
    import torch

    from tests.opinfo.run import report

    torch.set_num_threads(1)
    return report(*work)


def _reports(work: list[Work], processes: int) -> Iterator[Report]:
    if processes == 1:
        yield from map(_report, work)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_report, work)


def _table(reports: Iterable[Report], options: argparse.Namespace) -> int:
    start = time.perf_counter()
    print(
        f"{'name':<32} {'samples of':<46} {'all':>5} {'skip':>5} {'pass':>5} {'%':>6} {'kernels':>7} {'sizes':>6}",
        flush=True,
    )
    total: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    low: list[str] = []
    for r in reports:
        skipped = sum(r.skipped.values())
        mark = "" if r.percent >= LEAST else "  <--"
        print(
            f"{r.name:<32} {r.key:<46} {r.samples:>5} {skipped:>5} {r.passed:>5} {r.percent:>6.1f} "
            f"{r.kernels or '':>7} {r.sizes or '':>6}{mark}",
            flush=True,
        )
        total += Counter(samples=r.samples, passed=r.passed, skipped=skipped, kernels=r.kernels, sizes=r.sizes)
        reasons += r.skipped
        low += [f"{r.name} ({r.key})"] if r.percent < LEAST else []
        for text, problem in (r.failures if options.failures else []) + (r.refused if options.refused else []):
            print(f"{text}  {problem}\n", flush=True)
    ran = total["samples"] - total["skipped"]
    print(f"\n{total['samples']} samples, {total['skipped']} skipped, {total['passed']} of {ran} agree", end="")
    print(f" ({100 * total['passed'] / max(ran, 1):.2f}%), {total['kernels']} of them in kernels too, ", end="")
    print(f"{total['sizes']} with sizes known at run time only; {time.perf_counter() - start:.0f} s")
    for reason, count in reasons.most_common():
        print(f"{count:>6} skipped: {reason}")
    for key, why in table.LEFT_OUT.items():
        print(f"left out: {key}, {why}")
    if low:
        print(f"under {LEAST:.0f}%: {', '.join(low)}")
    return 1 if low else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
