"""Datasets that Python makes row by row, and those of torchvision and Hugging Face, against the libraries themselves."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tdsl.compiler.probe import ProbeError, probe
from tdsl.runtime import sources
from tdsl.runtime.columns import Column
from tdsl.runtime.sources import DataError, Table, extras

CONFORMANCE = Path(__file__).resolve().parents[2] / "shared" / "conformance"

OWN = """
from typing import NamedTuple
import numpy as np
import torch

class Row(NamedTuple):
    x: object
    label: int

class Rows:
    calls = []

    def __init__(self, kind="dict", rows=6, bad=None):
        self.kind, self.rows, self.bad = kind, rows, bad

    def __len__(self):
        return self.rows

    def __getitem__(self, i):
        self.calls.append(i)
        if self.bad == i:
            return {"x": "text", "label": i} if self.kind == "text" else {"label": 1 // 0}
        x = torch.full((2, 3), float(i))
        if self.kind == "dict":
            return {"x": x, "label": np.int32(i), "flag": bool(i % 2), "list": [i, i + 1]}
        if self.kind == "lacks":
            return {"x": x} if i else {"x": x, "label": i}
        return {"tuple": (x.numpy(), i), "named": Row(x, i), "one": x, "text": {"x": x, "label": i}}[self.kind]

class Stream:
    def __iter__(self):
        return iter(())

def broken():
    raise OSError("no disk")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "rows_of_a_test").mkdir()
    (tmp_path / "rows_of_a_test/own.py").write_text(OWN)
    yield tmp_path
    sys.path[:] = [each for each in sys.path if each != str(tmp_path.resolve())]
    for name in ("rows_of_a_test", "rows_of_a_test.own"):
        sys.modules.pop(name, None)


def own(folder: Path, name: str = "Rows", **arguments: object) -> Table:
    return sources.python(folder, f"rows_of_a_test.own:{name}", **arguments)


def take(table: Table, name: str, *rows: int) -> list[object]:
    column = table.column(name)
    assert isinstance(column, Column)
    return column.take(torch.tensor(rows)).tolist()


@pytest.mark.parametrize(
    ("kind", "columns"),
    [("dict", ["x", "label", "flag", "list"]), ("tuple", ["0", "1"]), ("named", ["x", "label"]), ("one", ["data"])],
)
def test_columns_are_named_by_the_rows(folder: Path, kind: str, columns: list[str]) -> None:
    table = own(folder, kind=kind)
    assert (list(table.data), table.rows) == (columns, 6)
    assert take(table, columns[0], 5, 2) == [[[5.0] * 3] * 2, [[2.0] * 3] * 2]
    if kind != "one":
        assert take(table, columns[1], 5, 2) == [5, 2]
    if kind == "dict":
        assert take(table, "flag", 1, 2) == [True, False]
        assert take(table, "list", 3) == [[3, 4]]


def test_a_row_is_made_once_for_all_columns(folder: Path) -> None:
    table = own(folder)
    fields = [
        table.field("x", table.column("x") / 2, torch.float32, (2, 3)),
        table.field("label", table.column("label"), torch.int64, (), classes=6),
    ]
    calls = sys.modules["rows_of_a_test.own"].Rows.calls
    calls.clear()
    for field in fields:
        field.take(torch.tensor([4, 1]))
    assert calls == [4, 1]
    again = pickle.loads(pickle.dumps(fields[0]))
    assert torch.equal(again.take(torch.tensor([4])), torch.full((1, 2, 3), 2.0))


@pytest.mark.parametrize(
    ("arguments", "row", "field", "told"),
    [
        ({"bad": 3}, 4, "label", r"can't be read: ZeroDivisionError: .* \(own.py:\d+\)"),
        ({"kind": "text", "bad": 3}, 4, "x", "is str, which is no number, array or tensor"),
        ({"kind": "lacks"}, 2, "label", "has no `label`, and the first row has: it has x"),
    ],
)
def test_rows_that_fail_are_located(folder: Path, arguments: dict, row: int, field: str, told: str) -> None:
    table = own(folder, **arguments)
    value = table.field(field, table.column(field), torch.float32, () if field == "label" else (2, 3))
    with pytest.raises(DataError, match=told) as found:
        value.take(torch.tensor([0, row - 1]))
    assert (found.value.file, found.value.row, found.value.field) == ("rows_of_a_test.own:Rows", row, field)


def test_classes_that_are_none(folder: Path) -> None:
    for name, told in (
        ("No", "has no `No`"),
        ("Stream", "no map-style dataset"),
        ("broken", "can't be made: OSError: no disk"),
    ):
        with pytest.raises(DataError, match=told):
            own(folder, name)
    with pytest.raises(DataError, match="can't be made: TypeError"):
        own(folder, nothing=1)
    with pytest.raises(DataError, match="holds no rows"):
        own(folder, rows=0)
    with pytest.raises(DataError, match="no module `not_here`"):
        sources.python(folder, "not_here:Rows")
    (folder / "bad_rows_of_a_test.py").write_text("1 / 0")
    with pytest.raises(DataError, match=r"can't be imported: ZeroDivisionError: .*bad_rows_of_a_test.py:1"):
        sources.python(folder, "bad_rows_of_a_test:Rows")


def test_a_missing_extra_tells_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torchvision", "datasets", "tokenizers"):
        monkeypatch.setitem(sys.modules, package, None)
    for act in (
        lambda: sources.torchvision(folder, "MNIST"),
        lambda: sources.huggingface(folder, "mnist"),
        lambda: sources.hf(folder, "tokenizer.json"),
    ):
        with pytest.raises(DataError, match=r"which is not installed\n  help: pip install \w+, or .*tdsl\[datasets\]"):
            act()


def test_a_package_that_fails_as_it_is_imported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_extra.py").write_text("raise RuntimeError('built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="can't be imported: RuntimeError: built for another torch"):
        extras.extra("broken_extra", "a dataset")


# torchvision ---------------------------------------------------------------------------------------------------------


def test_mnist_of_torchvision(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part, rows in (("train", 7), ("t10k", 3)):
        images = draw.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        header = np.array([0x803, rows, 28, 28], dtype=">u4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.array([0x801, rows], dtype=">u4").tobytes() + bytes(range(rows))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(b""))
    for train in (True, False):
        theirs = datasets.MNIST(tmp_path / "data", train=train)
        table = sources.torchvision(tmp_path, "MNIST", train=train)
        image = table.field("image", table.column("image"), torch.uint8, (1, 28, 28))
        assert isinstance(image, torch.Tensor)
        assert table.column("label").tolist() == [label for _, label in theirs]
        for mine, (pixels, _) in zip(image, theirs):
            assert np.array_equal(mine[0], np.asarray(pixels))
    with pytest.raises(DataError, match=r"(?s)data/KMNIST: .*help: fetch it with `download=true`"):
        sources.torchvision(tmp_path, "KMNIST")


def test_images_of_other_datasets_are_read_as_needed(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    arguments = {"size": 5, "image_size": [3, 8, 6], "num_classes": 4}
    theirs = datasets.FakeData(**arguments)
    table = sources.torchvision(tmp_path, "FakeData", **arguments)
    assert list(table.data) == ["image", "label"]
    image = table.field("image", table.column("image") / 255, torch.float32, (3, 8, 6))
    assert isinstance(image, Column)
    for i, (pixels, label) in enumerate(theirs):
        found = image.take(torch.tensor([i]))[0] * 255
        assert np.array_equal(found.round().byte().permute(1, 2, 0), np.asarray(pixels))
        assert take(table, "label", i) == [int(label)]


def test_one_process_at_a_time_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    held = []

    class Fetched(datasets.FakeData):
        def __init__(self, root: str, download: bool = False) -> None:
            super().__init__(size=2)
            held.append(taken(Path(root) / ".download") if download else None)

    monkeypatch.setattr(datasets, "Fetched", Fetched, raising=False)
    sources.torchvision(tmp_path, "Fetched", download=True)
    sources.torchvision(tmp_path, "Fetched")
    assert held == [True, None]
    assert not taken(tmp_path / "data/.download")


def taken(lock: Path) -> bool:
    """Whether another process holds a lock, as a process of its own sees it."""
    code = "import fcntl, sys\nfcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", code, str(lock)], capture_output=True).returncode != 0


def test_what_torchvision_does_not_have(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match="torchvision has no dataset `Nothing`"):
        sources.torchvision(tmp_path, "Nothing")
    with pytest.raises(DataError, match="can't be made: TypeError"):
        sources.torchvision(tmp_path, "FakeData", nothing=1)
    with pytest.raises(DataError, match="lies outside of"):
        sources.torchvision(tmp_path, "MNIST", root="../data")


# Hugging Face --------------------------------------------------------------------------------------------------------


def test_a_saved_dataset_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (4, 5 + i, 3), dtype=np.uint8) for i in range(6)]
    rows = {
        "image": images,
        "label": [0, 1, 2, 0, 1, 2],
        "x": [[float(i), 1.0] for i in range(6)],
        "name": list("abcdef"),
        "grid": [[[i, 1, 2], [3, 4, 5]] for i in range(6)],
    }
    features = datasets.Features({
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["ant", "bee", "cat"]),
        "x": datasets.Sequence(datasets.Value("float32"), length=2),
        "name": datasets.Value("string"),
        "grid": datasets.Array2D((2, 3), "int16"),
    })  # fmt: skip
    whole = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": whole.select([5, 3, 0]), "test": whole}).save_to_disk(tmp_path / "saved")
    table = sources.huggingface(tmp_path, "saved")
    assert (list(table.data), table.rows) == (["image", "label", "x", "name", "grid"], 3)
    assert table.column("label").tolist() == [2, 0, 0]
    assert table.column("x").tolist() == [[5, 1], [3, 1], [0, 1]]
    assert table.column("grid").tolist() == [rows["grid"][i] for i in (5, 3, 0)]
    column = table.column("image")
    assert isinstance(column, Column)
    for mine, row in zip(column.rows(torch.arange(3)), (5, 3, 0), strict=True):
        assert np.array_equal(mine.permute(1, 2, 0), images[row])
    assert sources.huggingface(tmp_path, "saved", split="test").rows == 6
    with pytest.raises(DataError, match="can't be loaded: no split `nothing`"):
        sources.huggingface(tmp_path, "saved", split="nothing")
    with pytest.raises(DataError, match="saved, row 1, `name`: "):
        table.column("name")
    found = probe("huggingface", {"name": "saved"}, tmp_path)
    kinds = {name: (column.kind, column.shape) for name, column in found.columns.items()}
    told = {"image": ("int", None), "label": ("int", ()), "x": ("float", (2,)), "name": ("text", ())}
    assert kinds == {**told, "grid": ("int", (2, 3))}
    assert found.num_classes("label") == 3
    with pytest.raises(ProbeError, match="not counted before they are read"):
        _ = found.rows
    with pytest.raises(ProbeError, match="has no split `nothing`") as split:
        probe("huggingface", {"name": "saved", "split": "nothing"}, tmp_path)
    assert split.value.help == "its splits are test, train"
    (tmp_path / "saved/train/dataset_info.json").write_text('{"features": 3}')
    with pytest.raises(ProbeError, match="can't be read"):
        probe("huggingface", {"name": "saved"}, tmp_path)


def test_a_dataset_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "folder").mkdir()
    for name in ("folder", "no_such/dataset_of_anyone"):
        with pytest.raises(DataError, match=f"^{name}: can't be loaded: "):
            sources.huggingface(tmp_path, name)
