"""Another data set is another path: a program runs on it as it is, or is told before it runs what to change.

The other data are pieces of the two photographs that scikit-learn has.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tdsl.compiler import pipeline
from tdsl.compiler.driver import read, write
from tdsl.dsl.diagnostics import Diagnostic
from tests.helpers import ROOT, SHARED, tdsl

STARTER = ROOT / "templates" / "new" / "image"
CNN = SHARED / "conformance" / "cnn.model"


def pieces(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey squares, [N, 1, size, size] from 0 to 255, and which of the photographs each is of, in random order."""
    pytest.importorskip("PIL")
    from sklearn.datasets import load_sample_images

    squares, labels = [], []
    for label, photograph in enumerate(load_sample_images().images):
        grey = (photograph @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
        rows, columns = (n // size for n in grey.shape)
        cut = grey[: rows * size, : columns * size].reshape(rows, size, columns, size).swapaxes(1, 2)
        squares.append(cut.reshape(-1, 1, size, size))
        labels += [label] * (rows * columns)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.concatenate(squares)[order], np.array(labels)[order]


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes(), compresslevel=1))


# The image starter: one path ------------------------------------------------------------------------------------------


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    """The image starter's program, its data aside."""
    return Path(shutil.copyfile(STARTER / "starter.model", tmp_path / "starter.model"))


def told(program: Path, **overrides: str) -> list[Diagnostic]:
    return read(program, overrides={f"data.{name}": value for name, value in overrides.items()})[1]


def test_the_starter_learns_other_images(starter: Path) -> None:
    images, labels = pieces(16)
    np.savez(starter.parent / "photographs.npz", image=images, label=labels)
    other = ("--set", 'data.source=npz("photographs.npz")', "--device", "cpu")
    for command, more in (("train", ("--epochs", "3")), ("evaluate", ())):
        ran = tdsl(command, starter, *other, *more)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((starter.parent / "runs" / "classify" / "metrics.json").read_text(encoding="utf-8"))
    assert found["metrics"]["accuracy"] > 0.85
    assert found["rows"] == round(0.15 * len(labels))


@pytest.mark.parametrize("size", [8, 28])
def test_images_of_another_size_are_told_with_the_cure(size: int, starter: Path) -> None:
    images, labels = pieces(size)
    np.savez(starter.parent / "photographs.npz", image=images, label=labels)
    (error,) = told(starter, source='npz("photographs.npz")')
    assert error.code == "E454"
    assert f"declared as float[1, 16, 16], and is [1, {size}, {size}] in the split `val`" in error.message
    assert error.span is not None
    assert error.span.text.startswith("field image")
    assert error.help is not None
    assert error.help.startswith(f"write `float[1, {size}, {size}]`, or `Resize([16, 16])` first among its transforms")
    text = starter.read_text(encoding="utf-8")
    declared = text.replace("float[1, 16, 16]", f"float[1, {size}, {size}]").replace("Crop(16", f"Crop({size}")
    resized = text.replace("[Norm", "[Resize([16, 16]), Norm").replace("Random", "Resize([16, 16]),\n        Random", 1)
    for cured in (declared, resized):
        starter.write_text(cured, encoding="utf-8")
        assert told(starter, source='npz("photographs.npz")') == []


def test_more_classes_than_scores_are_told_with_the_cure(starter: Path) -> None:
    images, _ = pieces(16)
    np.savez(starter.parent / "photographs.npz", image=images[:52], label=np.arange(52) % 26)
    assert told(starter, source='npz("photographs.npz")') == []
    text = starter.read_text(encoding="utf-8")
    starter.write_text(text.replace("classes=Shapes.num_classes", "classes=4"), encoding="utf-8")
    (warning,) = told(starter, source='npz("photographs.npz")')
    assert (warning.code, warning.help) == ("W204", "give the model 26 outputs, such as by `Shapes.num_classes`")


# A program with data of its own for the test: two paths ----------------------------------------------------------------


@pytest.mark.skipif(not CNN.exists(), reason="the conformance programs are not here")
def test_a_program_for_mnist_takes_other_images(tmp_path: Path) -> None:
    program = Path(shutil.copyfile(CNN, tmp_path / "cnn.model"))
    images, labels = pieces(28)
    for name, rows in (("train", slice(500)), ("test", slice(500, None))):
        write_idx(tmp_path / f"{name}-images.gz", images[rows, 0])
        write_idx(tmp_path / f"{name}-labels.gz", labels[rows])
    paths = {
        "data.source": 'idx("train-images.gz", "train-labels.gz")',
        "data.test": 'idx("test-images.gz", "test-labels.gz")',
    }
    unit, found = read(program, overrides=paths)
    assert found == []
    assert unit is not None
    write(pipeline.run(unit, name="cnn"), "cnn", tmp_path / "emitted", program)
    emitted = {name: (tmp_path / "emitted" / name).read_text(encoding="utf-8") for name in ("train.py", "data.py")}
    assert "model = CNN(classes=2)" in emitted["train.py"]
    assert emitted["data.py"].count("train-images.gz") == emitted["data.py"].count("test-images.gz") == 1
