"""`tdsl predict`: results of new rows, in every format and of every source, and what is told of rows that do not fit."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file
from torch import Tensor

from tdsl.compiler.emit.project import Options, emit, write
from tdsl.runtime import prediction, prediction_files, sources
from tdsl.runtime.settings import UsageError
from tdsl.runtime.sources.texts import recorded
from tests.helpers import ROOT, compiled, python, tdsl
from tests.running import importable

PROGRAM = """module MLP(hidden: int = 16) {
    up   = Linear(8, hidden)
    down = Linear(hidden, 3)
    forward(x: float[B, 8]) -> float[B, 3] { return down(dropout(gelu(up(x)), 0.5)) }
}

data Points {
    source = csv("points.csv")
    split  = random(train=0.8, test=0.2)
    field x: float[8]   = columns("p*") / 16
    field label: int[]  = column("label")
    field weight: float[] = column("weight")
}

train points {
    model = MLP()
    data  = Points
    loss(batch) { return cross_entropy(model(batch.x), batch.label) + 0 * batch.weight.mean() }
    optimizer  = AdamW(lr=1e-3)
    steps      = 4
    batch_size = 16
}

evaluate points {
    predict(batch) {
        scores = softmax(model(batch.x), dim=-1)
        label = scores.argmax(-1)
        return label, scores, label > 0
    }
}
"""
ROWS = 41
NAMES = [f"p{i}" for i in range(8)]


def points(rows: int = ROWS, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).integers(0, 17, (rows, 8)).astype(np.float64)


def write_csv(path: Path, values: npt.NDArray[np.float64], labels: bool = False) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES + ["label", "weight"] * labels)
        writer.writerows([*row, *([i % 3, 1.0] if labels else [])] for i, row in enumerate(values))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program, and its run of a few steps."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "points.model").write_text(PROGRAM)
    write_csv(folder / "points.csv", points(60, seed=1), labels=True)
    ran = tdsl("train", "points.model", "--device", "cpu", cwd=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ran = tdsl("predict", "points.model", "--input", "points.csv", "--output", "first.csv", cwd=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def predicted(trained: Path, *options: str | Path, status: int = 0) -> str:
    """What the emitted script says, run where the program lies."""
    ran = python(trained / "runs/points/emitted/predict.py", "--device", "cpu", *options, cwd=trained)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout if status == 0 else ran.stderr


def test_new_rows_have_the_delimiter_of_the_program(tmp_path: Path) -> None:
    text = PROGRAM.replace('csv("points.csv")', 'csv("points.csv", delimiter="\\t")').replace(
        "steps      = 4", "steps = 1"
    )
    (tmp_path / "points.model").write_text(text)
    write_csv(tmp_path / "points.csv", points(20), labels=True)
    commas = (tmp_path / "points.csv").read_text()
    (tmp_path / "points.csv").write_text(commas.replace(",", "\t"))
    ran = tdsl("train", "points.model", "--device", "cpu", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert 'options={"delimiter": "\\t"}' in (tmp_path / "runs/points/emitted/predict.py").read_text()
    (tmp_path / "other.csv").write_text(commas)
    given = ("points.csv", 'csv("points.csv")', 'csv("other.csv", delimiter=",")')
    for number, new in enumerate(given):
        predicted(tmp_path, "--input", new, "--output", f"{number}.csv")
    first, *others = (columns(tmp_path / f"{number}.csv") for number in range(len(given)))
    assert len(first[0]) == 20
    for other in others:
        assert torch.equal(first[2], other[2])
    assert "one character" in predicted(
        tmp_path, "--input", 'csv("other.csv", delimiter=";;")', "--output", "3.csv", status=1
    )


def expected(trained: Path, values: npt.NDArray[np.float64]) -> Tensor:
    """The probabilities, by PyTorch from the checkpoint's weights alone."""
    from safetensors.torch import load_file

    weights = load_file(trained / "runs/points/checkpoints/step-4/model.safetensors")
    h = torch.nn.functional.linear(
        torch.tensor(values, dtype=torch.float32) / 16, weights["up.weight"], weights["up.bias"]
    )
    scores = torch.nn.functional.linear(torch.nn.functional.gelu(h), weights["down.weight"], weights["down.bias"])
    return scores.softmax(-1)


def columns(path: Path) -> tuple[list[int], Tensor, Tensor, list[bool]]:
    """The rows' numbers, `label`, `scores` and the last result, of a file of any format."""
    if path.suffix == ".npz":
        with np.load(path) as found:
            label, scores, row = (found[name] for name in ("label", "scores", "row"))
            return row.tolist(), torch.tensor(label), torch.tensor(scores), found["prediction"].tolist()
    rows: list[dict[str, Any]]
    if path.suffix == ".csv":
        with path.open() as file:
            rows = [
                {
                    "row": int(row["row"]),
                    "label": int(row["label"]),
                    "scores": [float(row[f"scores.{i}"]) for i in range(3)],
                    "prediction": row["prediction"] == "True",
                }
                for row in csv.DictReader(file)
            ]
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = parquet.read_table(path).to_pylist()
    assert list(rows[0]) == ["row", "label", "scores", "prediction"]
    found = [[row[name] for row in rows] for name in rows[0]]
    return found[0], torch.tensor(found[1]), torch.tensor(found[2], dtype=torch.float32), found[3]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "npz"])
def test_every_row_once_in_order(ending: str, trained: Path, tmp_path: Path) -> None:
    """41 rows in batches of 16, from a file without the labels: the numbers of PyTorch, to the last digit written."""
    values = points()
    write_csv(tmp_path / "new.csv", values)
    out = tmp_path / f"out.{ending}"
    told = predicted(trained, "--input", tmp_path / "new.csv", "--output", out)
    assert told.startswith(f"predictions: {ROWS} rows of step 4 in ")
    rows, label, scores, last = columns(out)
    assert rows == list(range(1, ROWS + 1))
    torch.testing.assert_close(scores, expected(trained, values), rtol=1e-5, atol=1e-6)
    assert torch.equal(label, scores.argmax(-1))
    assert last == (label > 0).tolist()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_files_of_other_kinds_and_sources_as_programs_write_them(trained: Path, tmp_path: Path) -> None:
    values = points()
    parquet.write_table(pa.table(dict(zip(NAMES, values.T, strict=True))), tmp_path / "new.parquet")
    np.savez(tmp_path / "new.npz", **dict(zip(NAMES, values.T, strict=True)))
    for i, part in enumerate(np.split(values, [20])):
        write_csv(tmp_path / f"part{i}.csv", part)
    write_csv(tmp_path / "new.data", values)
    told = []
    for given in ("new.parquet", "new.npz", "part*.csv", "new.data"):
        predicted(trained, "--input", tmp_path / given, "--output", tmp_path / "a.npz")
        told.append(columns(tmp_path / "a.npz"))
    predicted(trained, "--input", f'parquet("{tmp_path}/new.parquet")', "--output", tmp_path / "a.npz")
    told.append(columns(tmp_path / "a.npz"))
    for rows, _, scores, _ in told:
        assert rows == list(range(1, ROWS + 1))
        assert torch.equal(scores, told[0][2])


def test_the_command_compiles_first(trained: Path) -> None:
    rows, _, scores, _ = columns(trained / "first.csv")
    assert len(rows) == 60
    torch.testing.assert_close(scores, expected(trained, points(60, seed=1)), rtol=1e-5, atol=1e-6)


def test_neither_the_training_data_nor_the_package_is_needed(trained: Path, tmp_path: Path) -> None:
    ran = tdsl("compile", "points.model", "-o", tmp_path / "alone", "--standalone", cwd=trained)
    assert ran.returncode == 0, ran.stderr
    write_csv(tmp_path / "new.csv", points())
    step = shutil.copytree(trained / "runs/points/checkpoints/step-4", tmp_path / "step-4")
    refuse = "import sys; sys.modules['tdsl'] = None; sys.path.insert(0, 'alone'); sys.argv[0] = 'alone/predict.py'; "
    run = "import runpy; runpy.run_path('alone/predict.py', run_name='__main__')"
    options = ["--checkpoint", step, "--input", "new.csv", "--output", "out.npz", "--device", "cpu"]
    ran = python("-c", refuse + run, *options, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    torch.testing.assert_close(columns(tmp_path / "out.npz")[2], expected(trained, points()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("p0,p1\n1,2\n", "new.csv, `x`: has rows of shape [2], and is declared as float[8]"),
        ("a,b\n1,2\n", "new.csv: has no column that matches `p*`"),
        (",".join(NAMES) + "\n1,2,3,4,5,6,7,8\n1,2,3,oak,5,6,7,8\n", 'new.csv, row 2, `p3`: "oak" is not a number'),
        (",".join(NAMES) + "\n1,2,3,4,5,6,7,8\n1,2,3,,5,6,7,8\n", "new.csv, row 2, `x`: is NaN or missing"),
        ("", "new.csv: is empty"),
    ],
)
def test_rows_that_do_not_fit_are_told(content: str, told: str, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(content)
    out = tmp_path / "out.csv"
    error = predicted(trained, "--input", tmp_path / "new.csv", "--output", out, status=1)
    assert "Traceback" not in error
    assert told in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--input", "points.csv", "--output", "a.txt"], 2, "`a.txt` names no format"),
        (["--input", "points.csv", "--output", "nowhere/a.csv"], 2, "there is no folder `nowhere`"),
        (["--input", "points.csv", "--output", "a.csv/b.csv"], 2, "there is no folder `a.csv`"),
        (["--input", "none.csv", "--output", "a.csv"], 1, "none.csv: no such file"),
        (["--input", 'cvs("points.csv")', "--output", "a.csv"], 2, "there is no source `cvs`"),
        (["--input", 'csv("points.csv", comma=1)', "--output", "a.csv"], 2, "`csv`: "),
        (["--input", "csv(points)", "--output", "a.csv"], 2, "is no source"),
        (["--input", "points.csv", "--output", "a.csv", "--checkpoint", "step-9"], 1, "is no checkpoint"),
        (["--input", "points.csv", "--output", "a.csv", "--device", "abacus"], 2, "abacus"),
    ],
)
def test_wrong_options_are_told(options: list[str], status: int, told: str, trained: Path) -> None:
    error = predicted(trained, *options, status=status)
    assert told in error
    assert "Traceback" not in error


def test_a_run_that_predicts_nothing(trained: Path, tmp_path: Path) -> None:
    (trained / "silent.model").write_text(PROGRAM[: PROGRAM.index("evaluate")])
    ran = tdsl("predict", "silent.model", "--input", "points.csv", "--output", "a.csv", cwd=trained)
    assert ran.returncode == 2
    assert ran.stderr.startswith("tdsl: `points` does not say what to predict")
    out = tmp_path / "project"
    assert tdsl("compile", "silent.model", "-o", out, cwd=trained).returncode == 0
    assert not (out / "predict.py").exists()


def test_a_result_for_the_whole_batch_is_refused(trained: Path) -> None:
    (trained / "mean.model").write_text(PROGRAM.replace("return label, scores, label > 0", "return scores.mean(0)"))
    ran = tdsl("check", "mean.model", "--format", "json", cwd=trained)
    (found,) = [each for each in json.loads(ran.stdout) if each["severity"] == "error"]
    assert (found["code"], found["line"]) == ("E335", PROGRAM[: PROGRAM.index("predict(")].count("\n") + 1)


IMAGES = """module Net() {
    head = Linear(16, 2)
    forward(x: float[B, 1, 4, 4]) -> float[B, 2] { return head(x.flatten(1)) }
}
data Images {
    source = npz("images.npz")
    split  = sequential(train=0.5, test=0.5)
    field image: float[1, 4, 4] = column("image")
    field label: int[]          = column("label")
    transform image       = [Normalize(mean=[2.0], std=[4.0])]
    transform train image = [RandomCrop(4, padding=2)]
}
train net {
    model = Net()
    data  = Images
    loss(batch) { return cross_entropy(model(batch.image), batch.label) }
    optimizer = SGD(lr=0.1)
    steps = 1
}
evaluate net {
    predict(batch) { return batch.image.mean(dim=(1, 2, 3)) + 0 * model(batch.image)[:, 0] }
}
"""


def test_transforms_are_those_of_the_evaluation(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(6, 1, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "images.npz", image=images, label=np.arange(6) % 2)
    np.savez(tmp_path / "new.npz", image=images)
    (tmp_path / "net.model").write_text(IMAGES)
    assert tdsl("train", "net.model", "--device", "cpu", cwd=tmp_path).returncode == 0
    ran = tdsl("predict", "net.model", "--input", "new.npz", "--output", "out.npz", "--device", "cpu", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["prediction"], (images.mean((1, 2, 3)) - 2) / 4, rtol=1e-5, atol=1e-6)


NUMBERS = {
    "f": torch.tensor([[0.1, float("nan")], [float("inf"), -3.0]]),
    "h": torch.tensor([0.1, 2.0], dtype=torch.bfloat16),
    "i": torch.tensor([[[1], [2]], [[3], [2**62 + 1]]]),
}


def test_numbers_are_written_as_they_are(tmp_path: Path) -> None:
    for ending in prediction_files.WRITERS:
        assert prediction_files.write(tmp_path / f"a{ending}", [NUMBERS, NUMBERS]) == 4
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[:3] == ["row,f.0,f.1,h,i.0,i.1", "1,0.1,nan,0.100097656,1,2", f"2,inf,-3.0,2.0,3,{2**62 + 1}"]
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert first == {"row": 1, "f": [0.1, None], "h": 0.100097656, "i": [[1], [2]]}
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table["i"].to_pylist()[1] == [[3], [2**62 + 1]]
    assert str(table.schema.field("f").type) == "fixed_size_list<element: float>[2]"
    with np.load(tmp_path / "a.npz") as found:
        assert torch.equal(torch.tensor(found["i"][2:]), NUMBERS["i"])
        assert found["row"].tolist() == [1, 2, 3, 4]


def test_rows_of_a_split_have_their_numbers_in_the_source(tmp_path: Path) -> None:
    prediction_files.write(tmp_path / "a.npz", [NUMBERS, NUMBERS], torch.tensor([6, 0, 3, 9]))
    with np.load(tmp_path / "a.npz") as found:
        assert found["row"].tolist() == [7, 1, 4, 10]


def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def batches() -> Any:
        yield NUMBERS
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        prediction_files.write(path, batches())
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_text() == "old"


def test_tokens_are_read_with_the_programs_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.bin").write_bytes(bytes(range(50)))
    table = prediction.read("a.bin", "tokens", {"window": 8, "dtype": "u8"})
    assert table.field("x", table.column("tokens"), torch.int64, (8,)).take(torch.tensor([1])).tolist() == [
        list(range(8, 16))
    ]
    with pytest.raises(UsageError, match="there is no source"):
        prediction.read('resolve("a.csv")', "csv", {})


def test_the_emitted_script_can_be_imported(trained: Path) -> None:
    with importable(trained / "runs/points/emitted"):
        import predict  # type: ignore[import-not-found]

        assert predict.BATCH_SIZE == 16


# Texts ----------------------------------------------------------------------------------------------------------------

TEXT = """module Net(vocab: int) {
    embed = Embedding(vocab, 8)
    head  = Linear(8, vocab)
    forward(x: int[B, T]) -> float[B, T, vocab] { return head(embed(x)) }
}
data Story {
    source = text("story.txt", window=16)
    split  = sequential(train=0.9, test=0.1)
    field tokens: int[16]  = column("tokens")
    field targets: int[16] = column("targets")
}
train story {
    model = Net(vocab=Story.vocab_size)
    data  = Story
    loss(batch) { return cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten(0, 1)) }
    optimizer = AdamW(lr=0.05)
    steps = 4
}
evaluate story {
    predict(batch) { return batch.tokens, model(batch.tokens) }
}
"""
STORY = (ROOT / "README.md").read_text(encoding="utf-8")[:4000]


def story(folder: Path) -> Path:
    """The emitted project of a run over a text."""
    (folder / "story.txt").write_text(STORY, encoding="utf-8")
    unit = compiled(TEXT, name=folder / "story.model")
    write(emit(unit, Options("story", root=str(folder))), folder / "emitted")
    return folder / "emitted"


def ran(project: Path, script: str, *options: str | Path) -> int:
    """The exit status of an emitted script, in this process."""
    argv = [script, "--out", project.parent, "--device", "cpu", *options]
    with importable(project), mock.patch.object(sys, "argv", list(map(str, argv))), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(project / script), run_name="__main__")
    return int(ended.value.code or 0)


def test_a_new_text_is_numbered_as_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = story(tmp_path)
    assert ran(project, "train.py") == 0
    monkeypatch.chdir(tmp_path)
    letters = sorted(set(STORY))
    # Other characters than those of the story, so that numbered anew it would have other numbers.
    new = "".join(letter for letter in STORY[1000:1400] if letter > "d")
    assert len(set(new)) < len(letters) // 2
    Path("new.txt").write_text(new, encoding="utf-8")
    Path("story.txt").unlink()
    assert ran(project, "predict.py", "--input", "new.txt", "--output", "out.npz") == 0
    weights = load_file(tmp_path / "checkpoints/step-4/model.safetensors")
    with np.load("out.npz") as found:
        told = torch.tensor([letters.index(letter) for letter in new[: found["tokens"].size]])
        assert len(told) >= len(new) - 16
        assert torch.equal(torch.tensor(found["tokens"]).flatten(), told)
        scores = torch.nn.functional.linear(weights["embed.weight"][told], weights["head.weight"], weights["head.bias"])
        torch.testing.assert_close(torch.tensor(found["prediction"]).flatten(0, 1), scores)
    capsys.readouterr()
    Path("new.txt").write_text(f"{new}\n\u0416", encoding="utf-8")
    for given in ("new.txt", 'text("new.txt", window=16)'):
        assert ran(project, "predict.py", "--input", given, "--output", "out.npz") == 1
        assert "new.txt: the character 'Ж' in line 2 is not in the vocabulary" in capsys.readouterr().err
    # What the data were may have changed, too: the run is evaluated, and goes on, with its own vocabulary.
    Path("story.txt").write_text(STORY.replace("e", "Ж"), encoding="utf-8")
    assert ran(project, "evaluate.py") == 1
    assert "story.txt: the character 'Ж'" in capsys.readouterr().err
    assert ran(project, "train.py", "--steps", "8") == 1
    assert "the texts have another vocabulary than those that" in capsys.readouterr().err
    Path("story.txt").write_text(STORY, encoding="utf-8")
    assert ran(project, "evaluate.py") == 0
    assert ran(project, "train.py", "--steps", "5") == 0


def test_a_tokenizer_is_kept_as_its_library_writes_it(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "cat": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    found = recorded(sources.hf(tmp_path, "tokenizer.json").record(), "tokenizer.json")
    assert found.encode("the cat sat", "a.txt").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("a.txt", "the checkpoint has no vocabulary"),
        ('text("a.txt", tokenizer=characters(), window=8)', "a new text has the tokenizer of the checkpoint"),
    ],
)
def test_a_text_without_a_vocabulary_is_refused(
    given: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("0123456789" * 5)
    with pytest.raises(UsageError, match=told):
        prediction.read(given, "text", {"window": 8})


# Tables and images ------------------------------------------------------------------------------------------------------

LABELS = """module Net(classes: int) {
    head = Linear(SIZE, classes)
    forward(x: float[B, ...]) -> float[B, classes] { return head(x.flatten(1)) }
}
data Rows {
    source = SOURCE
    split  = random(train=0.5, test=0.5)
    field x: float[SHAPE] = COLUMNS
    field label: int[] = column("label")
}
train story {
    model = Net(classes=Rows.num_classes)
    data  = Rows
    loss(batch) { return cross_entropy(model(batch.x), batch.label) }
    optimizer = SGD(lr=0.1)
    steps = 1
}
evaluate story {
    predict(batch) { return RESULT }
}
"""


def rows_project(folder: Path, **parts: str) -> Path:
    text = LABELS.replace("x: float[B, ...]", f"x: float[B, {parts['SHAPE']}]")
    for name, part in parts.items():
        text = text.replace(name, part)
    unit = compiled(text, name=folder / "rows.model")
    write(emit(unit, Options("story", root=str(folder))), folder / "emitted")
    return folder / "emitted"


def test_new_rows_with_labels_are_held_against_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("a,b,label\n" + "1,2,0\n2,3,1\n2,1,2\n" * 4)
    project = rows_project(
        tmp_path,
        SIZE="2",
        SHAPE="2",
        SOURCE='csv("a.csv")',
        COLUMNS='columns("a", "b")',
        RESULT="batch.label + 0 * batch.x[:, 0].int()",
    )
    assert ran(project, "train.py") == 0
    for content, told in (
        ("a,b,label\n1,2,0\n1,2,7\n", "new.csv, row 2, `label`: 7 is not one of the classes 0 to 2"),
        ("a,b,label\n1,2,cat\n", 'new.csv, row 1, `label`: "cat" is not a number'),
        ("a,label\n1,2\n", "new.csv: has no column"),
        ("a,b,label\n1,2,0\n1\n", "new.csv, row 2: expected 3 columns, got 1"),
    ):
        Path("new.csv").write_text(content)
        capsys.readouterr()
        assert ran(project, "predict.py", "--input", "new.csv", "--output", "out.csv") == 1
        assert told in capsys.readouterr().err
    Path("new.csv").write_text("more,label,b,a\nx,2,1,1\n")
    assert ran(project, "predict.py", "--input", "new.csv", "--output", "out.csv") == 0
    assert Path("out.csv").read_text().splitlines() == ["row,prediction", "1,2"]


def test_a_folder_for_a_program_of_arrays_is_told_how_to_be_read(tmp_path: Path) -> None:
    for kind, mode in (("idx", ', mode="L"'), ("npz", "")):
        with pytest.raises(UsageError) as told:
            prediction.read(str(tmp_path), kind, {})
        assert f"of images: `--input 'image_folder(\"{tmp_path}\"{mode})'`" in str(told.value)


def test_new_images_need_no_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("all/cat/0", "all/cat/1", "all/dog/0", "all/dog/1", "new/a", "new/b", "bad/a")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((2, 2, 3), 10 * i, dtype=np.uint8)).save(f"{name}.png")
    project = rows_project(
        tmp_path, SIZE="12", SHAPE="3, 2, 2", SOURCE='image_folder("all")', COLUMNS='column("image")',
        RESULT="batch.x.amax(dim=(1, 2, 3)) + 0 * model(batch.x)[:, 0]",
    )  # fmt: skip
    assert ran(project, "train.py") == 0
    two, four = ["new/a.png", "new/b.png"], [f"all/{name}.png" for name in ("cat/0", "cat/1", "dog/0", "dog/1")]
    for given, expected, files in (
        ("new", [40, 50], two),
        ("new/b.png", [50], two[1:]),
        ("new/*.png", [40, 50], two),
        ("all", [0, 10, 20, 30], four),
    ):
        assert ran(project, "predict.py", "--input", given, "--output", "out.npz") == 0
        with np.load("out.npz") as found:
            assert found["prediction"].tolist() == expected
            assert found["file"].tolist() == files
    for output in ("out.csv", "out.jsonl"):
        assert ran(project, "predict.py", "--input", "new", "--output", output) == 0
        assert all(name in line for name, line in zip(two, Path(output).read_text().splitlines()[-2:], strict=True))
    capsys.readouterr()
    Path("bad/a.png").write_bytes(b"none")
    assert ran(project, "predict.py", "--input", "bad", "--output", "out.npz") == 1
    assert "bad/a.png, `x`: can't be read: it is no image, or is damaged" in capsys.readouterr().err
    Path("empty").mkdir()
    assert ran(project, "predict.py", "--input", "empty", "--output", "out.npz") == 1
    assert "empty: has no image" in capsys.readouterr().err
