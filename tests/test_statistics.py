"""`standardized` and `missing`: what fields take from the train split's rows, against scikit-learn, and what keeps it."""

from __future__ import annotations

import csv
import json
import runpy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pyarrow import csv as pyarrow_csv
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from tdsl.compiler import pipeline
from tdsl.compiler.driver import read
from tdsl.compiler.emit.data import emit_data
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.compiler.headers import MISSING
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.runtime import sources, splits
from tdsl.runtime.columns import Field, Held
from tdsl.runtime.data_error import DataError
from tdsl.runtime.statistics import Statistics
from tdsl.runtime.table import Table
from tests import rank_runs
from tests.helpers import built, python, tdsl

Numbers = npt.NDArray[np.float64]
PROGRAM = """
module Net() {
    up   = Linear(4, 8)
    head = Linear(8, 2)
    forward(x: float[B, 3], age: float[B]) -> float[B, 2] {
        return cat([x, age.unsqueeze(1)], dim=1) |> up |> gelu |> head
    }
}

data People {
    source = csv("people.csv")
    split  = stratified(train=0.6, val=0.2, test=0.2, by="label")
    field x: float[3]  = standardized(columns("a", "b", "c", missing="mean"))
    field age: float[] = column("age", missing=-1)
    field label: int[] = categories("label", ["yes", "no"])
}

train people {
    model = Net()
    data  = People
    loss(batch) { return cross_entropy(model(batch.x, batch.age / 90), batch.label) }
    optimizer  = AdamW(lr=1e-2)
    epochs     = 3
    batch_size = 16
}

evaluate people {
    compare(batch) { return model(batch.x, batch.age / 90), batch.label }
    predict(batch) { return model(batch.x, batch.age / 90), batch.x, batch.age }
    metrics = [Accuracy()]
}
"""
# Its data alone.
DATA = PROGRAM[PROGRAM.index("data People") : PROGRAM.index("train people")]
NAMES = ("a", "b", "c", "age", "label")


def people(rows: int = 120) -> list[list[object]]:
    """Rows with missing values in two columns, a constant column, and a label by the first."""
    rng = np.random.default_rng(0)
    a, b, age = rng.normal(50, 9, rows), rng.normal(-3, 0.01, rows), rng.integers(0, 90, rows)
    return [
        [a[i], "" if i % 7 == 3 else b[i], 7.1, "" if i % 11 == 5 else int(age[i]), "yes" if a[i] > 50 else "no"]
        for i in range(rows)
    ]


def save(rows: Sequence[Sequence[object]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows(rows)


def program(folder: Path, text: str = PROGRAM) -> Path:
    save(people(), folder / "people.csv")
    path = folder / "people.model"
    path.write_text(text, encoding="utf-8")
    return path


def told(folder: Path, old: str, new: str) -> list[Diagnostic]:
    assert old in PROGRAM
    return read(program(folder, PROGRAM.replace(old, new)))[1]


def split_of(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The field `x` of each split of the data of the program in a folder, and the numbers of its rows."""
    spec = read(folder / "people.model")[0].program.data["People"]
    (folder / "data.py").write_text(emit_data(spec, {}, root="."), encoding="utf-8")
    found = runpy.run_path(str(folder / "data.py"))["load"]()
    return {name: (split.fields["x"][split.indices], split.indices) for name, split in found.items()}


def matrix(rows: Sequence[Sequence[object]]) -> Numbers:
    return np.asarray([[np.nan if value == "" else value for value in row[:3]] for row in rows], np.float64)


# The numbers ----------------------------------------------------------------------------------------------------------


def test_fields_are_those_of_scikit_learn_fitted_to_the_train_split(tmp_path: Path) -> None:
    program(tmp_path)
    found, rows = split_of(tmp_path), matrix(people())
    oracle = make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()).fit(rows[found["train"][1].numpy()])
    assert {name: len(indices) for name, (_, indices) in found.items()} == {"train": 72, "val": 24, "test": 24}
    for values, indices in found.values():
        expected = oracle.transform(rows[indices.numpy()])
        torch.testing.assert_close(values, torch.from_numpy(expected).float(), rtol=1e-6, atol=1e-6)


def test_other_splits_leak_nothing(tmp_path: Path) -> None:
    program(tmp_path)
    before, rows = split_of(tmp_path), people()
    for split in ("val", "test"):
        for row in before[split][1].tolist():
            rows[row][:3] = [1e6, "", -5.0]
    save(rows, tmp_path / "people.csv")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "people.model").write_text(PROGRAM, encoding="utf-8")
    save(rows, tmp_path / "again" / "people.csv")
    after = split_of(tmp_path / "again")
    assert torch.equal(after["train"][1], before["train"][1])
    assert torch.equal(after["train"][0], before["train"][0])
    assert not torch.equal(after["val"][0], before["val"][0])


def table(values: Numbers, **more: npt.NDArray[np.float64]) -> Table:
    names = [f"a{i}" for i in range(values.shape[1])]
    return Table({**dict(zip(names, values.T, strict=True)), **more}, (("a.csv", len(values)),))


@pytest.mark.parametrize(
    "column",
    [[5.0] * 8, [1e9 + i for i in range(8)], [0.1] * 8, [1e-30 * i for i in range(8)], [1e12, *[1e12 + 1e-4] * 7], [0.0] * 8],
)  # fmt: skip
def test_scales_are_those_of_scikit_learn(column: list[float]) -> None:
    values = np.asarray(column)[:, None]
    oracle = StandardScaler().fit(values)
    found = Statistics(torch.arange(8)).scale("x", torch.from_numpy(values))
    assert found is not None
    np.testing.assert_allclose(found[0].numpy(), oracle.mean_, rtol=1e-12)
    np.testing.assert_allclose(found[1].numpy(), oracle.scale_, rtol=1e-9)


def test_values_that_are_missing_count_for_nothing_and_stay() -> None:
    values = np.random.default_rng(1).normal(3, 2, (40, 3))
    values[::3, 1] = np.nan
    rows = torch.arange(5, 30)
    oracle = StandardScaler().fit(values[5:30])
    data = table(values)
    found = data.standardized("x", data.columns("a*"), Statistics(rows))
    assert isinstance(found, Tensor)
    torch.testing.assert_close(
        found, torch.from_numpy(oracle.transform(values)), rtol=1e-12, atol=1e-12, equal_nan=True
    )
    with pytest.raises(DataError, match=r"row 1, `x`: is NaN or missing"):
        data.field("x", found, torch.float32, (3,))


def test_rows_with_dimensions_have_statistics_of_each_element() -> None:
    values = np.random.default_rng(2).normal(3, 2, (20, 4))
    data = Table({"v": values.reshape(20, 2, 2)}, (("a.npz", 20),))
    found = data.standardized("x", data.column("v"), Statistics(torch.arange(20)))
    expected = StandardScaler().fit_transform(values).reshape(20, 2, 2)
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_a_record_keeps_every_bit() -> None:
    values = np.random.default_rng(3).normal(1e-3, 1e5, (50, 3))
    data, fitted = table(values), Statistics(torch.arange(40))
    first = data.standardized("x", data.columns("a*", missing=fitted.mean), fitted)
    known = Statistics.of(json.loads(json.dumps(fitted.record())))
    again = data.standardized("x", data.columns("a*", missing=known.mean), known)
    assert isinstance(first, Tensor)
    assert isinstance(again, Tensor)
    assert torch.equal(first, again)
    assert known.changed(fitted.record()) is None


def test_what_changed_is_named() -> None:
    values = np.random.default_rng(4).normal(0, 1, (50, 2))
    fitted, other = Statistics(torch.arange(40)), Statistics(torch.arange(41))
    for each in (fitted, other):
        each.mean("a0", torch.from_numpy(values[:, 0]))
    assert fitted.changed(other.record()) == "a0"
    assert fitted.changed({}) == "a0"
    assert Statistics().changed(fitted.record()) == "a0"
    fitted.scale("x", torch.from_numpy(values))
    other.means.update(fitted.means)
    other.scale("x", torch.from_numpy(values))
    assert fitted.changed(other.record()) == "x"


def test_whole_numbers_and_columns_that_are_read_row_by_row_are_filled_and_scaled_alike() -> None:
    whole = Table({"a": np.arange(6)}, (("a.csv", 6),))
    assert torch.equal(whole.column("a", missing=9), torch.arange(6))  # type: ignore[arg-type]
    values = torch.tensor([[1.0, 4.0], [torch.nan, 6.0], [2.0, 9.0]])
    files = (("a.bin", 3),)
    known = Statistics(torch.arange(3))
    held = Table({"v": values.numpy()}, files)
    expected = held.standardized("x", held.column("v", missing=0.5), known)
    lazy = Table({"v": Held(values, files)}, files)
    field = lazy.field("x", lazy.standardized("x", lazy.column("v", missing=0.5), known), torch.float64, (2,))
    assert isinstance(field, Field)
    assert isinstance(expected, Tensor)
    assert torch.equal(field.take(torch.tensor([2, 1])), expected[[2, 1]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.nan, np.nan, 3.0, 4.0], r"a.csv, `x`: has no value in the train split"),
        ([1.0, np.inf, 3.0, 4.0], r"a.csv, `x`: has values that are too large"),
        ([1e300, -1e300, 3.0, 4.0], r"a.csv, `x`: has values that are too large"),
    ],
)
def test_statistics_that_are_no_numbers_are_told(values: list[float], message: str) -> None:
    data = table(np.asarray(values)[:, None])
    with pytest.raises(DataError, match=message):
        data.standardized("x", data.columns("a*"), Statistics(torch.arange(2)))


def test_a_mean_of_nothing_is_told() -> None:
    data = table(np.asarray([[np.nan], [np.nan], [3.0]]))
    with pytest.raises(DataError, match=r"a.csv, `a0`: has no value in the train split, and so no mean\n.*missing=0"):
        data.column("a0", missing=Statistics(torch.arange(2)).mean)


def test_what_a_checkpoint_does_not_know_is_told() -> None:
    data = table(np.ones((3, 1)))
    for ask in (
        lambda: data.column("a0", missing=Statistics().mean),
        lambda: data.standardized("x", data.column("a0"), Statistics()),
    ):
        with pytest.raises(DataError, match=r"the checkpoint has no statistics of it\n.*train anew"):
            ask()
    known = Statistics(torch.arange(3))
    known.scale("x", torch.ones(3, 2))
    with pytest.raises(DataError, match=r"has rows of shape \[1\], and those that it was trained on \[2\]"):
        data.standardized("x", data.columns("a*"), known)


def test_synthetic_rows_need_no_statistics() -> None:
    data = sources.synthetic(rows=5)
    statistics = Statistics(splits.random(5, train=0.6)["train"])
    value = data.standardized("x", data.columns("a*", missing=statistics.mean), statistics)
    found = data.field("x", value, torch.float32, (3,))
    assert found.shape == (5, 3)  # type: ignore[union-attr]
    assert statistics.record() == {"means": {}, "scales": {}}


# A whole run ----------------------------------------------------------------------------------------------------------


def run(command: str, path: Path, *options: str | Path) -> str:
    ran = tdsl(command, path, "--device", "cpu", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def predictions(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8") as file:
        return [row[1:] for row in csv.reader(file)]


def test_new_rows_are_scaled_and_filled_as_in_training(tmp_path: Path) -> None:
    """Predictions of the rows of a split, given as new ones, are those of its evaluation to the last digit."""
    path = program(tmp_path)
    run("train", path)
    run("evaluate", path, "--predict", tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(encoding="utf-8") as file:
        rows = [int(row["row"]) - 1 for row in csv.DictReader(file)]
    save([people()[row] for row in rows], tmp_path / "new.csv")
    run("predict", path, "--input", tmp_path / "new.csv", "--output", tmp_path / "new_out.csv")
    assert len(rows) == 24
    assert predictions(tmp_path / "new_out.csv") == predictions(tmp_path / "split.csv")


def test_an_evaluation_takes_the_numbers_of_the_checkpoint(tmp_path: Path) -> None:
    """Though the rows of the train split are others now."""
    path = program(tmp_path)
    run("train", path)
    run("evaluate", path, "--predict", tmp_path / "before.csv")
    with (tmp_path / "before.csv").open(encoding="utf-8") as file:
        tested = {int(row["row"]) - 1 for row in csv.DictReader(file)}
    save(
        [row if i in tested else [row[0], 1000.0, *row[2:]] for i, row in enumerate(people())], tmp_path / "people.csv"
    )
    run("evaluate", path, "--predict", tmp_path / "after.csv")
    assert predictions(tmp_path / "after.csv") == predictions(tmp_path / "before.csv")
    ran = tdsl("train", path, "--device", "cpu", "--epochs", "4")
    assert ran.returncode == 1
    assert "`b` has other statistics in the train split than when" in ran.stderr
    assert "--resume none" in ran.stderr


def test_a_run_that_is_resumed_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    path = program(tmp_path)
    run("train", path, "--out", tmp_path / "whole")
    run("train", path, "--out", tmp_path / "parts", "--epochs", "1")
    run("train", path, "--out", tmp_path / "parts", "--epochs", "3")
    for name in ("model", "optimizer"):
        file = Path("checkpoints") / "step-15" / f"{name}.safetensors"
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_two_ranks_have_the_statistics_of_one(tmp_path: Path) -> None:
    path = program(tmp_path, PROGRAM.replace("epochs     = 3", "epochs     = 3\n    distributed = ddp()"))
    unit = pipeline.run(built(path.read_text(encoding="utf-8"), path))
    project = tmp_path / "project"
    write(emit(unit, Options("people", root=str(tmp_path))), project)
    kept = []
    for count in (1, 2):
        out = tmp_path / f"runs{count}"
        rank_runs.finish(project, out, count=count)
        rank_runs.finish(project, out, count=count, name="evaluate.py")
        kept.append(json.loads((out / "checkpoints" / "step-15" / "state.json").read_text())["statistics"])
    assert kept[0]["scales"]["x"]
    assert kept[0] == kept[1]


def test_neither_the_training_data_nor_the_package_is_needed(tmp_path: Path) -> None:
    path = program(tmp_path)
    run("train", path)
    save(people()[:6], tmp_path / "new.csv")
    run("predict", path, "--input", tmp_path / "new.csv", "--output", tmp_path / "own.csv")
    ran = tdsl("compile", path, "-o", tmp_path / "alone", "--standalone")
    assert ran.returncode == 0, ran.stderr
    (tmp_path / "people.csv").unlink()
    refuse = "import sys; sys.modules['tdsl'] = None; sys.path.insert(0, 'alone'); sys.argv[0] = 'alone/predict.py'; "
    start = "import runpy; runpy.run_path('alone/predict.py', run_name='__main__')"
    options = ["--out", "runs/people", "--input", "new.csv", "--output", "alone.csv", "--device", "cpu"]
    ran = python("-c", refuse + start, *options, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert predictions(tmp_path / "alone.csv") == predictions(tmp_path / "own.csv")


# What is told ---------------------------------------------------------------------------------------------------------

X = 'standardized(columns("a", "b", "c", missing="mean"))'
AGE = 'field age: float[] = column("age", missing=-1)'


def test_the_program_is_right(tmp_path: Path) -> None:
    assert not told(tmp_path, X, X)


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        (AGE, 'field age: float[] = column("age", missing="median")', "E409", "missing values become a number"),
        (AGE, 'field age: float[] = column("age", missing=true)', "E409", "missing values become a number"),
        (AGE, 'field age: float[] = column("age", fill=0)', "E302", "`column` takes the name of a column"),
        (AGE, 'field age: float[] = standardized("age")', "E409", "only columns have statistics"),
        (AGE, "field age: float[] = standardized()", "E302", "takes one expression over columns"),
        (AGE, 'field age: float[] = standardized(column("age"), missing=0)', "E302", "has no argument `missing`"),
        (AGE, 'field age: float[] = standardized(column("agee"))', "E402", "no column `agee`"),
        (AGE, 'field age: float[] = standardized(columns("a", "b"))', "E406", "its columns give [2] a row"),
        (AGE, 'field age: float[] = standardized(standardized(column("age")))', "E409", "is standardized once"),
        (AGE, 'field age: int[] = standardized(column("age"))', "E409", "a mean is no whole number"),
        (AGE, 'field age: float[] = column("age").fillna(0)', "E455", "`fillna` can't be used in a field"),
        (AGE, 'field age: float[] = StandardScaler(column("age"))', "E455", "`StandardScaler` can't be used"),
        ('by="label"', 'by="x"', "E409", "rows are divided by `x`"),
        ("stratified(train=0.6, val=0.2, test=0.2, by=\"label\")", "random(test=1.0)", "E409", "which has no rows"),
        ('csv("people.csv")', 'huggingface("people")', "E409", "the rows of `huggingface` are read one by one"),
        ('csv("people.csv")', 'python("people:People")', "E409", "the rows of `python` are read one by one"),
    ],
)  # fmt: skip
def test_what_has_no_statistics_is_told_with_its_place(
    tmp_path: Path, old: str, new: str, code: str, message: str
) -> None:
    found = [each for each in told(tmp_path, old, new) if each.code == code]
    assert found
    assert message in found[0].message
    assert found[0].help


def test_whole_numbers_are_filled_with_a_number(tmp_path: Path) -> None:
    """A fraction is told with its row, as anywhere."""
    path = program(tmp_path, PROGRAM.replace(AGE, 'field age: int[] = column("age", missing=-1)'))
    assert not [each for each in read(path)[1] if each.code.startswith("E4")]


def test_a_missing_value_that_nothing_fills_is_told_with_its_row_and_a_cure(tmp_path: Path) -> None:
    path = program(tmp_path, PROGRAM.replace(', missing="mean"', ""))
    ran = tdsl("train", path, "--device", "cpu")
    assert ran.returncode == 1
    assert "people.csv, row 4, `x`: is NaN or missing" in ran.stderr
    assert "missing=0" in ran.stderr


def test_all_that_arrow_takes_for_missing_is_missing_to_the_check(tmp_path: Path) -> None:
    assert {*pyarrow_csv.ConvertOptions().null_values} == MISSING | {""}
    path = program(tmp_path)
    rows = people()
    for row, text in zip(rows[::2], sorted(MISSING), strict=False):
        row[1] = text
    save(rows, tmp_path / "people.csv")
    assert not read(path)[1]
    found = split_of(tmp_path)
    assert all(torch.isfinite(values).all() for values, _ in found.values())


def test_a_program_is_tried_with_synthetic_rows(tmp_path: Path) -> None:
    path = program(tmp_path, PROGRAM.replace('csv("people.csv")', "synthetic(rows=40, classes=2)"))
    run("train", path)
    run("evaluate", path)


def test_rows_are_divided_as_without_statistics(tmp_path: Path) -> None:
    program(tmp_path, DATA)
    found = split_of(tmp_path)
    program(tmp_path, DATA.replace('standardized(columns("a", "b", "c", missing="mean"))', 'columns("a", "a", "a")'))
    for name, (_, indices) in split_of(tmp_path).items():
        assert torch.equal(indices, found[name][1])


def test_a_dataset_without_a_split_is_all_train(tmp_path: Path) -> None:
    program(tmp_path, DATA.replace('    split  = stratified(train=0.6, val=0.2, test=0.2, by="label")\n', ""))
    (found, indices), rows = split_of(tmp_path)["train"], matrix(people())
    oracle = make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()).fit_transform(rows)
    assert len(indices) == len(rows)
    torch.testing.assert_close(found, torch.from_numpy(oracle).float(), rtol=1e-6, atol=1e-6)


def test_a_split_with_a_file_of_its_own_is_scaled_by_the_train_split(tmp_path: Path) -> None:
    save([[60.0, "", 7.1, 30, "yes"]], tmp_path / "val.csv")
    split = 'split  = stratified(train=0.6, val=0.2, test=0.2, by="label")'
    program(tmp_path, DATA.replace(split, 'val = csv("val.csv")'))
    found, rows = split_of(tmp_path), matrix(people())
    oracle = make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()).fit(rows)
    expected = torch.from_numpy(oracle.transform([[60.0, np.nan, 7.1]])).float()
    torch.testing.assert_close(found["val"][0], expected, rtol=1e-6, atol=1e-6)
