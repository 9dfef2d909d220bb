"""Every kernel of every program of the repository on the GPU, against float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.driver import read
from tests.helpers import ROOT, SHARED, emitted, python, written

FOLDERS = ("examples", "tests/golden", "tests/programs", "benchmarks/programs")


def _programs() -> Iterator[Path]:
    for folder in (*(ROOT / each for each in FOLDERS), SHARED / "conformance"):
        yield from sorted(folder.glob("*.model"))


def _units() -> Iterator[tuple[str, Unit]]:
    """Each program; one with a run in bf16 too, where parameters are in float32 beside lower activations."""
    for path in _programs():
        text = path.read_text(encoding="utf-8")
        # The goldens read the examples' data.
        name = ROOT / "examples" / path.name if path.parent.name in ("golden", "programs") else path
        for precision in ("f32", "bf16") if "precision" not in text and "\ntrain " in text else (None,):
            unit, diagnostics = read(name, text=text, overrides={"precision": precision} if precision else None)
            assert unit is not None, diagnostics
            yield f"{path.parent.name}-{path.stem}-{precision or 'own'}", pipeline.run(unit)


def test_every_kernel_in_float32_and_bfloat16(tmp_path: Path) -> None:
    folders = [written(emitted(unit), tmp_path / name) for name, unit in _units() if pipeline.groups(unit)]
    assert len(folders) > 15
    precisions = [f"--precision={name}" for name in ("float32", "bfloat16")]
    ran = python("-m", "tdsl.runtime.verify_folders", *folders, *precisions)
    assert ran.returncode == 0, ran.stdout[-12000:] + ran.stderr[-4000:]
