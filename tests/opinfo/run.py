"""Checks, compiles and runs the programs of an entry, and compares them with PyTorch."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from tdsl.compiler.ops import OPS, Kind
from tests.helpers import compiled, emitted, written
from tests.opinfo.check import infer_sizes, mistake
from tests.opinfo.compare import computed, disagreement
from tests.opinfo.samples import Case, cases
from tests.running import loaded

# Triton has to be told before it is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass
class Report:
    """What became of the samples of one entry.

    `kernels` and `sizes` count those that also ran in kernels, and with sizes known at run time only.
    """

    key: str
    name: str
    samples: int = 0
    passed: int = 0
    kernels: int = 0
    sizes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """Passed of those that are not skipped."""
        ran = self.samples - sum(self.skipped.values())
        return 100.0 * self.passed / ran if ran else 100.0

    def add(self, case: Case) -> None:
        """Count a sample that has run or could not."""
        if case.skipped:
            self.skipped[case.skipped] += 1
        elif case.problem:
            self.failures.append((case.text() if case.expected else case.expression, case.problem))
        else:
            self.passed += 1
            self.kernels += case.in_kernel
            self.sizes += not case.refused
        if case.refused:
            self.refused.append((case.text("Sizes"), case.refused))


def report(key: str, name: str, most: int | None = None, dtype: str = "float32") -> Report:
    """Run the samples of an entry as calls of `name`; `most` of them, evenly spread, where that is given."""
    found = list(cases(key, name, dtype))
    if most is not None and len(found) > most:
        found = [found[i * len(found) // most] for i in range(most)]
    return judged(found, key, name)


def judged(found: Sequence[Case], key: str, name: str) -> Report:
    """Run these cases of an entry."""
    for case in found:
        if not case.skipped:
            case.problem = expect(case) or mistake(case.text()) or infer_sizes(case)
    ready = [c for c in found if not c.skipped and not c.problem]
    for case in ready:
        wanted = INTERPRETED and has_kernel(name) and len(case.expected) == 1
        case.in_kernel = wanted and not mistake(case.text("Kernel"))
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        _run(ready, Path(folder))
    made = Report(key, name, len(found))
    for case in found:
        made.add(case)
    return made


def has_kernel(name: str) -> bool:
    """Whether a kernel of the compiler's own can compute it."""
    op = OPS.get(name)
    return op is not None and op.fusible and op.kind in (Kind.POINTWISE, Kind.REDUCTION, Kind.ROW)


def expect(case: Case) -> str:
    """Work out PyTorch's own result and gradients; what is wrong with that."""
    try:
        case.expected, case.gradients = computed(case.reference, case)
    except Exception as error:
        return f"PyTorch itself: {type(error).__name__}: {error}"
    return "" if case.expected else "no tensor comes out"


def _run(ready: Sequence[Case], folder: Path) -> None:
    """All in one file, or each in its own where that does not compile."""
    if not ready:
        return
    try:
        module = _module(ready, folder / "all")
    except Exception as error:
        if len(ready) == 1:
            ready[0].problem = f"compiling: {type(error).__name__}: {str(error)[-300:]}"
            return
        for case in ready:
            _run([case], folder / case.module)
        return
    for case in ready:
        case.problem = _problem(case, module)


def _module(ready: Sequence[Case], folder: Path) -> ModuleType:
    texts = [c.text() for c in ready]
    texts += [c.text("Sizes") for c in ready if not c.refused]
    texts += [c.text("Kernel") for c in ready if c.in_kernel]
    unit = compiled("\n".join(texts))
    fused = {m.class_name for m in unit.modules if any(n.group is not None for n in m.graph.nodes)}
    for case in ready:
        case.in_kernel = f"{case.module}Kernel" in fused
    return loaded(written(emitted(unit), folder))


def _problem(case: Case, module: ModuleType) -> str:
    """What differs in one of the ways in which the sample can run."""
    found = disagreement(case, getattr(module, case.module)(), "plain")
    if not found and not case.refused:
        found = disagreement(case, getattr(module, f"{case.module}Sizes")(), "sizes")
    for how, interpreted in (("reference", "0"), ("kernel", "1")):
        if not found and case.in_kernel:
            with _triton(interpreted):
                found = disagreement(case, getattr(module, f"{case.module}Kernel")(), how)
    return found


@contextmanager
def _triton(interpreted: str) -> Iterator[None]:
    """Run kernels in Triton's interpreter, or else their references."""
    before = os.environ.get("TRITON_INTERPRET", "0")
    os.environ["TRITON_INTERPRET"] = interpreted
    try:
        yield
    finally:
        os.environ["TRITON_INTERPRET"] = before
