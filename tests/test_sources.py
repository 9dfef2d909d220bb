"""Readers of data files, against scikit-learn's data, NumPy and Arrow."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer, load_digits

from tdsl.runtime import sources
from tdsl.runtime.sources import DataError, Table

REPOSITORY = Path(__file__).resolve().parents[1]
CONFORMANCE = REPOSITORY.parent / "shared" / "conformance"
needs_conformance = pytest.mark.skipif(not CONFORMANCE.exists(), reason="the conformance programs are not here")


def write_idx(path: Path, array: np.ndarray, code: int) -> None:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(array.dtype.newbyteorder(">")).tobytes())


def csv(folder: Path, text: str | bytes) -> Table:
    (folder / "a.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return sources.csv(folder, "a.csv")


def error(act: Callable[[], object]) -> DataError:
    with pytest.raises(DataError) as found:
        act()
    return found.value


def test_digits_are_those_of_scikit_learn() -> None:
    table = sources.csv(REPOSITORY / "examples", "data/digits.csv")
    digits = load_digits()
    pixels = table.field("pixels", table.columns("p*") / 16, torch.float32, (64,))
    label = table.field("label", table.column("label"), torch.int64, (), classes=10)
    assert torch.equal(pixels, torch.from_numpy(digits.data / 16).float())
    assert torch.equal(label, torch.from_numpy(digits.target))


@needs_conformance
def test_patients_are_those_of_scikit_learn() -> None:
    table = sources.parquet(CONFORMANCE, "patients.parquet")
    x = table.field("x", table.columns("f*"), torch.float32, (30,))
    malignant = table.field("malignant", table.column("malignant"), torch.float32, ())
    cancer = load_breast_cancer()
    assert torch.equal(x, torch.from_numpy(cancer.data).float())
    assert torch.equal(malignant, torch.from_numpy(1 - cancer.target).float())


@needs_conformance
def test_mnist() -> None:
    table = sources.idx(CONFORMANCE, "mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz")
    image = table.field("image", table.column("image") / 255, torch.float32, (1, 28, 28))
    raw = gzip.decompress((CONFORMANCE / "mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    assert torch.equal(image.flatten(), torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).float() / 255)
    # The classes of MNIST's test set, as published with it.
    counts = torch.bincount(table.column("label").long()).tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_conformance
def test_text_in_windows() -> None:
    table = sources.text(CONFORMANCE, "tinyshakespeare.txt", window=100)
    tokens, targets = table.column("tokens"), table.column("targets")
    text = (CONFORMANCE / "tinyshakespeare.txt").read_text()
    letters = sorted(set(text))
    assert "".join(letters[i] for i in tokens.flatten().tolist()) == text[: table.rows * 100]
    assert torch.equal(targets.flatten()[:-1], tokens.flatten()[1:])
    assert letters[targets[-1, -1]] == text[table.rows * 100]


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
def test_idx_types(tmp_path: Path, code: int, dtype: str) -> None:
    values = np.arange(24).reshape(4, 3, 2).astype(dtype)
    write_idx(tmp_path / "images", values, code)
    image = sources.idx(tmp_path, "images").column("image")
    assert torch.equal(image, torch.from_numpy(values)[:, None])


def test_numpy_files_round_trip(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(x), big=x.astype(">f4"), u=np.arange(5, dtype=np.uint16))
    np.save(tmp_path / "a.npy", x)
    table = sources.npz(tmp_path, "a.npz")
    assert torch.equal(table.column("x"), torch.from_numpy(x))
    assert torch.equal(table.column("big"), torch.from_numpy(x.astype(np.float32)))
    assert table.column("u").tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(sources.npy(tmp_path, "a.npy").column("data"), torch.from_numpy(x))


def test_parquet_types(tmp_path: Path) -> None:
    columns = {
        "list": pa.array([[1.0, 2.0], [3.0, 4.0]]),
        "fixed": pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.int16(), 3)),
        "flag": pa.array([True, False]),
        "dictionary": pa.array([7, 8]).dictionary_encode(),
        "name": pa.array(["a", "b"]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    table = sources.parquet(tmp_path, "a.parquet")
    assert table.column("list").tolist() == [[1, 2], [3, 4]]
    assert table.column("fixed").tolist() == [[1, 2, 3], [4, 5, 6]]
    assert table.column("flag").dtype == torch.bool
    assert table.column("dictionary").tolist() == [7, 8]
    assert table.values("name").tolist() == ["a", "b"]


def test_a_glob_reads_files_in_sorted_order_and_locates_rows_in_each(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("x,y\n3,1\n4.5,1\n")
    (tmp_path / "a.csv").write_text("y,x\n1,1\n1,2\n")
    table = sources.csv(tmp_path, "*.csv")
    assert table.column("x").tolist() == [1, 2, 3, 4.5]
    found = error(lambda: table.field("x", table.column("x"), torch.int64, ()))
    assert (found.file, found.row, found.field) == ("b.csv", 2, "x")


def test_text_in_one_of_several_files_is_located(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    (tmp_path / "b.csv").write_text("x\n3\nfour\n")
    found = error(lambda: sources.csv(tmp_path, "*.csv").column("x"))
    assert (found.file, found.row, found.field) == ("b.csv", 2, "x")
    assert "four" in found.message


def test_columns_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    table = csv(tmp_path, "b1,a,b0\n1,2,3\n")
    assert table.columns("b*").tolist() == [[1, 3]]
    assert table.columns("a", "b0").tolist() == [[2, 3]]


# Types ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0.5], torch.int64),
        ([2.0**63], torch.int64),
        ([-(2.0**63) * 1.1], torch.int64),
        ([float("inf")], torch.int64),
        ([float("nan")], torch.int64),
        ([float("nan")], torch.float32),
        ([128], torch.int8),
        ([-1], torch.uint8),
        ([256.0], torch.uint8),
        ([2], torch.bool),
        ([1e39], torch.float32),
        ([70000], torch.float16),
    ],
)
def test_what_a_type_can_not_hold_is_an_error(values: list[float], dtype: torch.dtype) -> None:
    table = Table({}, (("a.csv", 3),))
    value = torch.tensor([1, *values, 1], dtype=torch.float64 if isinstance(values[0], float) else torch.int64)
    found = error(lambda: table.field("x", value, dtype, ()))
    assert (found.file, found.row, found.field) == ("a.csv", 2, "x")
    assert found.help


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([-(2.0**63), 3.0], torch.int64),
        ([2**63 - 1, -(2**63)], torch.int64),
        ([127, -128], torch.int8),
        ([255.0, 0.0], torch.uint8),
        ([0.0, 1.0], torch.bool),
        ([float("inf"), 0.1], torch.float32),
        ([65504, -3], torch.float16),
        ([0.1, 1e-300], torch.float32),
    ],
)
def test_what_a_type_can_hold_is_pytorchs_conversion(values: list[float], dtype: torch.dtype) -> None:
    table = Table({}, (("a.csv", 2),))
    value = torch.tensor(values, dtype=torch.float64 if isinstance(values[0], float) else torch.int64)
    assert torch.equal(table.field("x", value, dtype, ()), value.to(dtype))


def test_labels_out_of_range(tmp_path: Path) -> None:
    table = csv(tmp_path, "label\n0\n2\n-100\n3\n-1\n")
    field = lambda n: table.field("label", table.column("label"), torch.int64, (), classes=n)  # noqa: E731
    assert error(lambda: field(3)).row == 4
    assert error(lambda: field(4)).row == 5


def test_a_declared_shape_must_be_the_files(tmp_path: Path) -> None:
    table = csv(tmp_path, "a,b\n1,2\n3,4\n")
    found = error(lambda: table.field("x", table.columns("*"), torch.float32, (3,)))
    assert "float[3]" in found.message
    assert "float[2]" in str(found.help)


# Bad files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "row", "told"),
    [
        (b"", None, "empty"),
        (b"a,b\n", None, "no rows"),
        (b"a,b\n1,2\n3\n", 2, "expected 2 columns, got 1"),
        (b"a,b\n1,2\n3,4,5\n", 2, "expected 2 columns, got 3"),
        (b"a\xff,b\n1,2\n", None, "UTF-8"),
        (b"a,a\n1,2\n", None, "several columns"),
        (b"a,b\n1,x\n", 1, '"x" is not a number'),
        (b"a,b\n1,2\n1,\xff\n", 2, "not UTF-8"),
        (b"a,b\n1,2020-01-01\n", 1, "not a number"),
        (b"a,b\n1,2\n1,\n", 2, "missing"),
        (b"a,b\n1,2\n1,nan\n", 2, "NaN"),
        (b"\xff\xfea\x00,\x00b\x00\n\x001\x00,\x002\x00\n\x00", None, ""),
    ],
)
def test_a_bad_csv(tmp_path: Path, content: bytes, row: int | None, told: str) -> None:
    def read() -> object:
        table = csv(tmp_path, content)
        return table.field("b", table.column("b"), torch.int64, ())

    found = error(read)
    assert found.file == "a.csv"
    assert found.row == row or not told
    assert told in found.message


@pytest.mark.parametrize("cut", [0, 1, 3, 10, 200, -1])
@pytest.mark.parametrize("kind", ["npz", "npy", "parquet", "idx", "gz"])
def test_a_file_that_is_cut_off(tmp_path: Path, kind: str, cut: int) -> None:
    values = np.arange(300, dtype=np.int32).reshape(100, 3)
    path = tmp_path / "a"
    if kind == "npz":
        np.savez_compressed(path.open("wb"), x=values)
    elif kind == "npy":
        np.save(path.open("wb"), values)
    elif kind == "parquet":
        parquet.write_table(pa.table({"x": values[:, 0]}), path)
    else:
        write_idx(path, values, 0x0C)
        if kind == "gz":
            path.write_bytes(gzip.compress(path.read_bytes()))
    path.write_bytes(path.read_bytes()[:cut])
    assert error(lambda: getattr(sources, "idx" if kind == "gz" else kind)(tmp_path, "a")).file == "a"


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}, {}], dtype=object))
    assert "objects" in error(lambda: sources.npz(tmp_path, "a.npz")).message


def test_arrays_with_different_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.zeros(3))
    assert "`y` has 3 rows" in error(lambda: sources.npz(tmp_path, "a.npz")).message


def test_labels_of_other_images(tmp_path: Path) -> None:
    write_idx(tmp_path / "images", np.zeros((4, 2, 2), np.uint8), 0x08)
    write_idx(tmp_path / "labels", np.zeros(3, np.uint8), 0x08)
    found = error(lambda: sources.idx(tmp_path, "images", "labels"))
    assert "3 labels for the 4 images" in found.message


def test_labels_beside_images_are_told_by_their_own_file(tmp_path: Path) -> None:
    write_idx(tmp_path / "images", np.full((4, 2, 2), 300, np.int32), 0x0C)
    for name, values in (("a.labels", [0, 7]), ("b.labels", [1, -4])):
        write_idx(tmp_path / name, np.array(values, np.int32), 0x0C)
    table = sources.idx(tmp_path, "images", "*.labels")
    found = error(lambda: table.field("image", table.column("image"), torch.uint8, (1, 2, 2)))
    assert (found.file, found.row, found.field) == ("images", 1, "image")
    for value in (lambda: table.column("label"), lambda: table.column("label") * 1):
        found = error(lambda value=value: table.field("digit", value(), torch.int64, (), classes=5))  # type: ignore[misc]
        assert (found.file, found.row, found.field) == ("a.labels", 2, "digit")
    found = error(lambda: table.field("digit", table.column("label"), torch.uint8, ()))
    assert (found.file, found.row) == ("b.labels", 2)
    found = error(lambda: table.field("digit", table.column("label"), torch.int64, (3,)))
    assert found.file == "a.labels"
    found = error(lambda: table.numbered("label", [0, 1, 7]))
    assert (found.file, found.row, found.field) == ("b.labels", 2, "label")
    both = error(lambda: table.field("x", table.column("image")[:, 0, 0, 0] * table.column("label"), torch.uint8, ()))
    assert both.file == "images"


@pytest.mark.parametrize("delimiter", ["", ";;", "é", '"', "\n"])
def test_a_delimiter_is_one_character(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    found = error(lambda: sources.csv(tmp_path, "a.csv", delimiter=delimiter))
    assert (found.file, found.message[:26]) == ("a.csv", "`delimiter` is one charact")


def test_a_missing_column_is_guessed(tmp_path: Path) -> None:
    table = csv(tmp_path, "label,x\n1,2\n")
    assert error(lambda: table.column("lable")).help == "did you mean `label`?"
    assert "label, x" in str(error(lambda: table.columns("p*")).help)


# Paths ---------------------------------------------------------------------------------------------------------------


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in ("nothing.csv", "*.csv", "folder"):
        assert error(lambda path=path: sources.csv(tmp_path, path)).file == path  # type: ignore[misc]


def test_a_path_stays_in_its_folder(tmp_path: Path) -> None:
    base = tmp_path / "program"
    base.mkdir()
    (tmp_path / "a.csv").write_text("x\n1\n")
    (base / "link.csv").symlink_to(tmp_path / "a.csv")
    for path in ("../a.csv", str(tmp_path / "a.csv"), "link.csv", "l*.csv", "../*.csv"):
        assert "outside" in error(lambda path=path: sources.csv(base, path)).message  # type: ignore[misc]
        assert sources.csv(base, path, allow_outside=True).rows == 1
