"""Columns of text, numbered by the lists that programs give: iris by the names of its species, and cars by their makers."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tdsl.compiler.driver import read
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.runtime.columns import Column
from tdsl.runtime.data_error import DataError
from tdsl.runtime.sources import synthetic
from tdsl.runtime.table import Table
from tests.helpers import tdsl

SPECIES = ["setosa", "versicolor", "virginica"]
IRIS = """
module Net(classes: int) {
    norm = BatchNorm1d(4)
    up   = Linear(4, 32)
    head = Linear(32, classes)
    forward(x: float[B, 4]) -> float[B, classes] { return x |> norm |> up |> gelu |> head }
}

data Iris {
    source = csv("iris.csv")
    split  = stratified(train=0.6, val=0.2, test=0.2, by="species")
    field x: float[4]  = columns("sepal*", "petal*")
    field label: int[] = LABEL
}

train iris {
    model = Net(classes=Iris.num_classes)
    data  = Iris
    loss(batch) { return cross_entropy(model(batch.x), batch.label) }
    optimizer  = AdamW(lr=1e-2)
    epochs     = 15
    batch_size = 16
}

evaluate iris {
    compare(batch) { return model(batch.x), batch.label }
    predict(batch) { return argmax(model(batch.x), dim=-1) }
    metrics = [Accuracy(), ConfusionMatrix()]
}
"""
LISTED = 'categories("species", ["setosa", "versicolor", "virginica"])'


def write_iris(folder: Path) -> Path:
    from sklearn.datasets import load_iris

    found = load_iris()
    names = [f"{part}_{size}" for part in ("sepal", "petal") for size in ("length", "width")]
    with (folder / "iris.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "species"])
        writer.writerows([*row, SPECIES[label]] for row, label in zip(found.data, found.target, strict=True))
    return folder


def program(folder: Path, label: str = LISTED) -> Path:
    path = write_iris(folder) / "iris.model"
    path.write_text(IRIS.replace("LABEL", label), encoding="utf-8")
    return path


def told(path: Path) -> list[Diagnostic]:
    return read(path)[1]


# A whole run ----------------------------------------------------------------------------------------------------------


def test_a_run_learns_labels_that_are_text_and_tells_them_by_name(tmp_path: Path) -> None:
    path = program(tmp_path)
    for command in ("train", "evaluate"):
        ran = tdsl(command, path, "--device", "cpu")
        assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "runs" / "iris" / "metrics.json").read_text(encoding="utf-8"))
    assert found["metrics"]["accuracy"] > 0.85
    assert found["class_names"] == SPECIES
    report = (tmp_path / "runs" / "iris" / "report.html").read_text(encoding="utf-8")
    assert all(name in report for name in SPECIES)
    (tmp_path / "new.csv").write_text("petal_length,petal_width,sepal_length,sepal_width\n1.4,0.2,5.1,3.5\n")
    ran = tdsl("predict", path, "--input", tmp_path / "new.csv", "--output", tmp_path / "out.csv", "--device", "cpu")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


def test_names_are_those_of_the_column_that_a_field_is_made_of(tmp_path: Path) -> None:
    """Though the rows that are shown, those with the highest loss, have the same numbers in another column."""
    rows = [("male" if i % 3 else "female", i % 7 == 0 and i % 3 > 0) for i in range(400)]
    (tmp_path / "people.csv").write_text("sex,alive\n" + "".join(f"{sex},{int(alive)}\n" for sex, alive in rows))
    path = tmp_path / "people.model"
    path.write_text(
        'data People {\n    source = csv("people.csv")\n    split = random(train=0.5, test=0.5)\n'
        '    field sex: int[] = categories("sex", ["female", "male"])\n    field y: int[] = column("alive")\n}\n'
        "module Net() {\n    up = Embedding(2, 2)\n    forward(x: int[B]) -> float[B, 2] { return up(x) }\n}\n"
        "train people {\n    model = Net()\n    data = People\n    epochs = 2\n    optimizer = Adam(lr=0.1)\n"
        "    loss(batch) { return cross_entropy(model(batch.sex), batch.y) }\n}\n"
        "evaluate people {\n    compare(batch) { return model(batch.sex), batch.y }\n    metrics = [Accuracy()]\n}\n"
    )
    for command in ("train", "evaluate"):
        ran = tdsl(command, path, "--device", "cpu")
        assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "runs" / "people" / "metrics.json").read_text(encoding="utf-8"))
    assert found["class_names"] is None
    assert found["worst"]
    assert all(row["fields"]["sex"]["text"] in ("0 (female)", "1 (male)") for row in found["worst"])
    assert all(row["fields"]["y"]["text"] in ("0", "1") for row in found["worst"])


def test_a_run_does_not_go_on_with_another_list(tmp_path: Path) -> None:
    path = program(tmp_path)
    assert tdsl("train", path, "--device", "cpu").returncode == 0
    path.write_text(path.read_text().replace('["setosa", "versicolor"', '["versicolor", "setosa"'))
    (tmp_path / "new.csv").write_text("petal_length,petal_width,sepal_length,sepal_width\n1.4,0.2,5.1,3.5\n")
    for command in (("train", "--epochs", "20"), ("evaluate",)):
        ran = tdsl(command[0], path, "--device", "cpu", *command[1:])
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert "column `species` has other categories than when" in ran.stderr
        assert 'give it the list ["setosa", "versicolor", "virginica"]' in ran.stderr


def test_texts_that_look_like_numbers_are_texts_in_every_file(tmp_path: Path) -> None:
    """What a csv file's column holds is else guessed, from its own rows."""
    for name, cabins in (("part1", "01 1 2 crew 2 1"), ("part2", "1 2 1 2"), ("new", "2 01")):
        (tmp_path / f"{name}.csv").write_text("cabin,y\n" + "".join(f"{each},1\n" for each in cabins.split()))
    path = tmp_path / "ship.model"
    path.write_text(
        'data Ship {\n    source = csv("part*.csv")\n    val = csv("part2.csv")\n'
        '    field cabin: int[] = categories("cabin", ["01", "1", "2", "crew"])\n    field y: float[] = column("y")\n}\n'
        "module Net() {\n    up = Embedding(4, 1)\n    forward(x: int[B]) -> float[B] { return up(x)[:, 0] }\n}\n"
        "train ship {\n    model = Net()\n    data = Ship\n    epochs = 1\n    optimizer = SGD()\n"
        "    loss(batch) { return mse_loss(model(batch.cabin), batch.y) }\n}\n"
        'evaluate ship {\n    predict(batch) { return batch.cabin }\n    split = "val"\n}\n'
    )
    assert told(path) == []
    assert tdsl("train", path, "--device", "cpu").returncode == 0
    for source in (str(tmp_path / "new.csv"), f'csv("{tmp_path}/new.csv")'):
        ran = tdsl("predict", path, "--input", source, "--output", tmp_path / "out.csv", "--device", "cpu")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert [line.split(",")[1] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]] == ["2", "0"]


def test_a_list_that_needs_its_own_length_is_told(tmp_path: Path) -> None:
    (found,) = [
        each for each in told(program(tmp_path, 'categories("species", [Iris.num_classes])')) if each.code == "E111"
    ]
    assert found.notes == ("Iris.num_classes -> Iris.num_classes",)


def test_a_text_that_is_in_no_list_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    path = program(tmp_path, LISTED.replace("virginica", "virginca"))
    ran = tdsl("train", path, "--device", "cpu")
    assert ran.returncode == 1
    assert "iris.csv, row 101, `species`: 'virginica' is not among the categories" in ran.stderr
    assert "`virginca` is" in ran.stderr
    assert not (tmp_path / "runs" / "iris" / "log.jsonl").exists()


@pytest.mark.skipif(shutil.which("ruff", path=str(Path(sys.executable).parent)) is None, reason="ruff is not installed")
@pytest.mark.parametrize(
    "more", ["", ', "one more"', "".join(f', "a name as long as names are, number {i}"' for i in range(9))]
)
def test_the_scripts_are_laid_out_as_others(more: str, tmp_path: Path) -> None:
    path = program(tmp_path, LISTED.replace("]", f"{more}]"))
    assert tdsl("compile", path, "-o", tmp_path / "out").returncode == 0
    ruff = Path(sys.executable).parent / "ruff"
    options = ["--isolated", "--line-length", "120", "--no-cache", str(tmp_path / "out")]
    done = subprocess.run([ruff, "format", "--check", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# What is told of a program --------------------------------------------------------------------------------------------


def test_a_column_of_text_is_told_with_its_list(tmp_path: Path) -> None:
    (found,) = told(program(tmp_path, 'column("species")'))
    assert found.code == "E407"
    assert found.help == f"number its values: `{LISTED}`"
    assert told(program(tmp_path, found.help.split("`")[1])) == []


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_the_list_is_told_of_other_files_too(ending: str, tmp_path: Path) -> None:
    rows = [{"x": float(i), "kind": kind} for i, kind in enumerate(["b", "a", 'say "c"', "a"])]
    if ending == "jsonl":
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    path = tmp_path / "rows.model"
    text = f'data Rows {{\n    source = {ending}("rows.{ending}")\n    field kind: int[] = KIND\n}}\n'
    path.write_text(text.replace("KIND", 'column("kind")'))
    (found,) = told(path)
    listed = r'categories("kind", ["a", "b", "say \"c\""])'
    assert found.help == f"number its values: `{listed}`"
    path.write_text(text.replace("KIND", listed))
    assert told(path) == []


def test_many_texts_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,kind\n" + "".join(f"{i},k{i}\n" for i in range(40)))
    path = tmp_path / "rows.model"
    path.write_text('data Rows {\n    source = csv("rows.csv")\n    field kind: int[] = column("kind")\n}\n')
    (found,) = told(path)
    assert found.help == "columns of numbers are x"


@pytest.mark.parametrize(
    ("label", "code", "message"),
    [
        ('categories("species")', "E302", "takes the name of a column and the list"),
        ('categories("species", values=["a"])', "E302", "takes the name of a column and the list"),
        ('categories(["a"], ["b"])', "E302", "a column is named by a string"),
        ('categories("species", [])', "E408", "a list of one or more"),
        ('categories("species", "setosa")', "E408", "a list of one or more"),
        ('categories("species", ["a", 1])', "E408", "strings, or whole numbers"),
        ('categories("species", [0.5])', "E408", "strings, or whole numbers"),
        ('categories("species", [true, false])', "E408", "strings, or whole numbers"),
        ('categories("species", ["a", "b", "a"])', "E408", 'the category "a" is there twice'),
        ('categories("species", [0, 1])', "E408", "holds text, and its categories are whole numbers"),
        ('categories("specie", ["a"])', "E402", "the file has no column `specie`"),
    ],
)
def test_a_list_that_can_not_be_is_told(label: str, code: str, message: str, tmp_path: Path) -> None:
    found = [each for each in told(program(tmp_path, label)) if each.severity == "error"]
    assert [each.code for each in found] == [code]
    assert message in found[0].message
    assert found[0].help


@pytest.mark.parametrize("other", ["column", "columns"])
def test_a_column_is_read_in_one_way(other: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,kind\n0.5,1\n1.5,-1\n")
    path = tmp_path / "rows.model"
    path.write_text(
        'data Rows {\n    source = csv("rows.csv")\n    field label: int[] = categories("kind", [-1, 1])\n'
        f'    field k: int[{"" if other == "column" else "1"}] = {other}("{"kind" if other == "column" else "k*"}")\n}}\n'
    )
    (found,) = told(path)
    assert (found.code, found.message) == ("E408", "column `kind` has categories, and is read as it stands here")


def test_one_column_has_one_list(tmp_path: Path) -> None:
    path = program(tmp_path)
    field = '    field other: int[1] = categories("species", ["virginica", "versicolor", "setosa"])[:, none]\n'
    path.write_text(path.read_text().replace("    field label", f"{field}    field label"))
    found = [each for each in told(path) if each.severity == "error"]
    assert [each.code for each in found] == ["E408"]
    assert "other categories" in found[0].message


def test_a_model_with_fewer_scores_is_told(tmp_path: Path) -> None:
    path = program(tmp_path)
    path.write_text(path.read_text().replace("Net(classes=Iris.num_classes)", "Net(classes=2)"))
    assert [each.code for each in told(path)] == ["W204"]


def test_labels_below_0_are_told_with_the_way_to_number_them(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n1,-1\n2,1\n")
    path = tmp_path / "rows.model"
    path.write_text(
        'data D {\n    source = csv("rows.csv")\n    field x: float[1] = columns("x")\n    field y: int[] = column("y")\n}\n'
        "module Net() {\n    l = Linear(1, 2)\n    forward(x: float[B, 1]) -> float[B, 2] { return l(x) }\n}\n"
        "train d {\n    model = Net()\n    data = D\n    epochs = 1\n    optimizer = SGD()\n"
        "    loss(batch) { return cross_entropy(model(batch.x), batch.y) }\n}\n"
    )
    (found,) = told(path)
    assert (found.code, found.severity) == ("W204", "warning")
    assert found.help is not None
    listed = found.help.split("`")[1]
    path.write_text(path.read_text().replace('column("y")', listed))
    assert told(path) == []


# Tables ---------------------------------------------------------------------------------------------------------------


def table(**columns: np.ndarray) -> Table:
    rows = len(next(iter(columns.values())))
    return Table(columns, (("first.csv", 2), ("second.csv", rows - 2)))


def test_values_are_numbered_by_their_places() -> None:
    made = np.array(["vw", "fiat", "vw", "bmw"], object)
    found = table(make=made, year=np.array([70, 71, 72, 73])).numbered("make", ["bmw", "fiat", "vw"])
    assert found.field("make", found.column("make"), torch.int64, (), classes=3).tolist() == [2, 1, 2, 0]  # type: ignore[union-attr]
    assert found.column("year").tolist() == [70, 71, 72, 73]
    assert found.names == {"make": ["bmw", "fiat", "vw"]}


def test_text_in_bytes_is_numbered_as_other_text() -> None:
    found = table(kind=np.array([b"b", b"a", "ä".encode()])).numbered("kind", ["a", "b", "ä"])
    assert found.column("kind").tolist() == [1, 0, 2]


def test_numbers_that_do_not_count_from_0() -> None:
    found = table(y=np.array([-1, 1, 1, -1])).numbered("y", [-1, 1])
    assert found.column("y").tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array(["a", "b", "c", "a"], object), "second.csv, row 1, `x`: 'c' is not among the categories"),
        (np.array(["a", None, "b", "a"], object), "first.csv, row 2, `x`: is missing"),
        (np.array([["a", "b"], ["a", "b"], ["b", "a"], ["b", ""]]), "second.csv, row 2, `x`: '' is not among"),
        (np.array(["a", "b", "a", "b "]), "`a` is|`b` is"),
    ],
)
def test_a_value_without_a_number_is_told_by_its_row(values: np.ndarray, message: str) -> None:
    with pytest.raises(DataError) as raised:
        table(x=values).numbered("x", ["a", "b"])
    assert any(each in str(raised.value) for each in message.split("|"))


def test_a_column_that_is_not_there_is_told() -> None:
    with pytest.raises(DataError, match=r"has no column `maker`(.|\n)*did you mean `make`"):
        table(make=np.array(["a", "b", "a"])).numbered("maker", ["a", "b"])


class Years(Column):
    """Read when they are asked for."""

    def __len__(self) -> int:
        return 4

    def take(self, indices: Tensor) -> Tensor:
        return torch.tensor([70, 72, 70, 75])[indices]

    def where(self, row: int) -> tuple[str, int | None]:
        return "cars", row + 1


def test_rows_that_are_read_later_are_numbered_then() -> None:
    found = Table({"year": Years()}, (("cars", 4),)).numbered("year", [72, 70])
    field = found.field("year", found.column("year"), torch.int64, ())
    assert not isinstance(field, Tensor)
    assert field.take(torch.tensor([2, 1, 0])).tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="cars, row 4, `year`: 75 is not among the categories"):
        field.take(torch.tensor([1, 3]))


def test_texts_of_rows_that_are_read_later_are_refused() -> None:
    with pytest.raises(DataError, match="is read row by row, as numbers"):
        Table({"year": Years()}, (("cars", 4),)).numbered("year", ["70"])


def test_synthetic_rows_need_no_numbering() -> None:
    made = synthetic(rows=50).numbered("kind", ["a", "b", "c"])
    assert set(made.field("kind", made.column("kind"), torch.int64, (), classes=3).tolist()) == {0, 1, 2}  # type: ignore[union-attr]
