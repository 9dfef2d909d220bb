"""What headers tell, against what the readers of the run time find in the whole files."""

from __future__ import annotations

import contextlib
import gzip
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tdsl.compiler.probe import Probe, ProbeError, probe
from tdsl.runtime import sources

REPOSITORY = Path(__file__).resolve().parents[1]
CONFORMANCE = REPOSITORY.parent / "shared" / "conformance"
needs_conformance = pytest.mark.skipif(not CONFORMANCE.exists(), reason="the conformance programs are not here")
MNIST = {"images": "mnist/train-images-idx3-ubyte.gz", "labels": "mnist/train-labels-idx1-ubyte.gz"}
KINDS = {"f": "float", "i": "int", "u": "int", "b": "bool", "O": "text", "U": "text"}


def check(found: Probe, table: sources.Table) -> None:
    assert found.exists
    assert list(found.columns) == list(table.data)
    assert found.rows == table.rows
    for name, column in found.columns.items():
        assert column.shape == table.data[name].shape[1:]
        assert column.kind == KINDS[table.data[name].dtype.kind]


def test_digits() -> None:
    found = probe("csv", {"path": "data/digits.csv"}, REPOSITORY / "examples")
    check(found, sources.csv(REPOSITORY / "examples", "data/digits.csv"))
    assert found.num_classes("label") == 10


@needs_conformance
@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("csv", {"path": "points.csv"}),
        ("parquet", {"path": "patients.parquet"}),
        ("npz", {"path": "triplets.npz"}),
        ("idx", MNIST),
        ("idx", {"images": MNIST["images"]}),
        ("text", {"path": "tinyshakespeare.txt", "window": 100}),
    ],
)
def test_real_data(kind: str, args: dict[str, object]) -> None:
    check(probe(kind, args, CONFORMANCE), getattr(sources, kind)(CONFORMANCE, **args))


@needs_conformance
def test_counts_of_real_data() -> None:
    assert probe("idx", MNIST, CONFORMANCE).num_classes("label") == 10
    text = probe("text", {"path": "tinyshakespeare.txt"}, CONFORMANCE)
    assert text.vocab_size == len(set((CONFORMANCE / "tinyshakespeare.txt").read_text()))


def test_numpy_files(tmp_path: Path) -> None:
    label = np.array([0, 3, 2], dtype=">i4")
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((3, 2, 2), np.float16), label=label, t=np.array(["a", "b", "c"]))
    np.save(tmp_path / "a.npy", label)
    found = probe("npz", {"path": "a.npz"}, tmp_path)
    check(found, sources.npz(tmp_path, "a.npz"))
    assert found.num_classes("label") == 4
    assert probe("npy", {"path": "a.npy"}, tmp_path).num_classes("data") == 4
    with pytest.raises(ProbeError, match="integers"):
        found.num_classes("x")


def test_parquet_types(tmp_path: Path) -> None:
    columns = {
        "list": pa.array([[1.0, 2.0], [3.0, 4.0]]),
        "point": pa.array([{"x": 1, "y": 2.0}, {"x": 3, "y": 4.0}]),
        "flag": pa.array([True, False]),
        "name": pa.array(["a", "b"]),
        "day": pa.array([1, 2], pa.date32()),
        "label": pa.array([4, 0], pa.int8()),
        "real": pa.array([4, 0], pa.float64()),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = probe("parquet", {"path": "a.parquet"}, tmp_path)
    kinds = {name: column.kind for name, column in found.columns.items()}
    assert kinds == dict(zip(columns, ("float", "other", "bool", "text", "other", "int", "float"), strict=True))
    assert found.columns["list"].shape is None
    assert found.num_classes("label") == 5
    with pytest.raises(ProbeError, match="integers"):
        found.num_classes("real")


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_of_every_make(tmp_path: Path, end: str, quote: str) -> None:
    lines = [f"{quote}a{quote},b,c", "1,0.5,true", "", f"2,,{quote}false{quote}", "7,1e3,true"]
    (tmp_path / "a.csv").write_bytes("\ufeff".encode() + end.join(lines).encode())
    found = probe("csv", {"path": "a.csv"}, tmp_path)
    assert [column.kind for column in found.columns.values()] == ["int", "float", "bool"]
    assert (found.rows, found.num_classes("a")) == (3, 8)


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_csv_with_another_delimiter(tmp_path: Path, delimiter: str, quote: str) -> None:
    lines = [["a", "b", "c"], ["1", "0.5", f"{quote}x{quote}"], ["2", "", "y"], ["7", "1e3", "z"]]
    (tmp_path / "a.csv").write_text("".join(delimiter.join(line) + "\n" for line in lines))
    found = probe("csv", {"path": "a.csv", "delimiter": delimiter}, tmp_path)
    check(found, sources.csv(tmp_path, "a.csv", delimiter=delimiter))
    assert (found.num_classes("a"), found.texts("c")) == (8, ("x", "y", "z"))
    assert list(probe("csv", {"path": "a.csv", "delimiter": "&"}, tmp_path).columns) == [delimiter.join(lines[0])]


def test_a_delimiter_that_is_not_the_files_is_guessed_from_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a;b\n0,5;1\n")
    with pytest.raises(ProbeError, match="2 values for 1 columns") as found:
        probe("csv", {"path": "a.csv"}, tmp_path)
    assert found.value.help == 'its header is one column, "a;b": write `delimiter=";"`'


def test_a_missing_file_is_told_and_not_raised(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(b"")
    found = probe("idx", {"images": "images", "labels": "labels"}, tmp_path)
    assert not found.exists
    assert found.missing == ("labels",)
    with pytest.raises(ProbeError, match="labels: no such file"):
        _ = found.rows


@pytest.mark.parametrize(
    ("content", "row", "told"),
    [
        (b"", None, "empty"),
        (b"a,b\n", None, "no rows"),
        (b"a,b\n1,2\n3\n", 2, "1 values for 2 columns"),
        (b"a,a\n1,2\n", None, "several columns"),
        (b"a,b\n1,\xff\n", 1, "UTF-8"),
    ],
)
def test_a_bad_csv(tmp_path: Path, content: bytes, row: int | None, told: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ProbeError, match=told) as found:
        probe("csv", {"path": "a.csv"}, tmp_path)
    assert (found.value.file, found.value.row) == ("a.csv", row)


@pytest.mark.parametrize(("cell", "told"), [("x", "no label"), ("1.5", "no label"), ("-2", "count from 0")])
def test_bad_labels(tmp_path: Path, cell: str, told: str) -> None:
    (tmp_path / "a.csv").write_text(f"label\n1\n{cell}\n")
    with pytest.raises(ProbeError) as found:
        probe("csv", {"path": "a.csv"}, tmp_path).num_classes("label")
    assert told in f"{found.value} {found.value.help}"


def test_ignored_labels_are_no_class(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label\n1\n-100\n")
    assert probe("csv", {"path": "a.csv"}, tmp_path).num_classes("label") == 2


def test_files_outside_of_the_folder(tmp_path: Path) -> None:
    base = tmp_path / "program"
    base.mkdir()
    (tmp_path / "a.csv").write_text("x\n1\n")
    (base / "link.csv").symlink_to(tmp_path / "a.csv")
    for path in ("../a.csv", str(tmp_path / "a.csv"), "link.csv", "l*.csv"):
        with pytest.raises(ProbeError, match="outside"):
            probe("csv", {"path": path}, base)
        assert probe("csv", {"path": path}, base, allow_outside=True).rows == 1


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="can't be read"):
        probe("python", {"target": "a:B"}, tmp_path)


def write_all(folder: Path) -> list[Path]:
    """A small file of every format."""
    values = np.arange(60, dtype=np.int32).reshape(20, 3)
    np.savez_compressed(folder / "a.npz", x=values, label=values[:, 0])
    np.save(folder / "a.npy", values)
    parquet.write_table(pa.table({"x": values[:, 0], "label": values[:, 1]}), folder / "a.parquet")
    (folder / "a.idx").write_bytes(bytes([0, 0, 12, 2]) + struct.pack(">2I", 20, 3) + values.astype(">i4").tobytes())
    (folder / "b.idx").write_bytes(gzip.compress((folder / "a.idx").read_bytes()))
    (folder / "a.csv").write_text("x,label\n" + "".join(f"{a},{b}\n" for a, b, _ in values))
    (folder / "a.text").write_text("abc äöü " * 30)
    return sorted(folder.iterdir())


def test_damage_is_read_or_told(tmp_path: Path) -> None:
    files, rng = write_all(tmp_path), random.Random(3)
    for file in files:
        whole, kind = file.read_bytes(), file.suffix[1:]
        for _ in range(150):
            damaged = bytearray(whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.4 else whole)
            for _ in range(rng.randrange(4) if damaged else 0):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            file.write_bytes(damaged)
            _look(kind, file)
        file.write_bytes(whole)


def _look(kind: str, file: Path) -> None:
    with contextlib.suppress(ProbeError):
        found = probe(kind, {"images" if kind == "idx" else "path": file.name, "window": 4}, file.parent)
        assert found.rows >= 0
        for column in found.columns:
            found.num_classes(column)
    with contextlib.suppress(sources.DataError):
        table = getattr(sources, kind)(file.parent, file.name)
        for column in table.data:
            table.column(column)


def test_looking_needs_neither_numpy_nor_torch() -> None:
    base = REPOSITORY / "examples"
    code = (
        "import sys; from pathlib import Path; from tdsl.compiler.probe import probe;"
        f"found = probe('csv', {{'path': 'data/digits.csv'}}, Path({str(base)!r}));"
        "assert found.num_classes('label') == 10;"
        "assert not {'numpy', 'torch', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
