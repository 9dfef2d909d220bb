"""Labels that no score stands for and tokens that a table lacks: told as data are loaded or read, and when checked."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tdsl.compiler import pipeline
from tdsl.compiler.driver import read
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.runtime.conversion import Limit
from tdsl.runtime.data_error import DataError
from tests.helpers import built, python
from tests.rank_runs import Ranks
from tests.running import importable

PROGRAM = """module Net(outputs: int = 3) {
    up = Linear(2, outputs)
    forward(x: float[B, 2]) -> float[B, outputs] { return up(x) }
}
data Points {
    source = csv("points.csv")
    test   = csv("test.csv")
    field x: float[2]  = columns("x*")
    field label: int[] = column("label")
}
train points {
    model = Net()
    data  = Points
    loss(batch) { return cross_entropy(model(batch.x), batch.label) }
    optimizer  = SGD(lr=0.1)
    steps      = 3
    batch_size = 4
}
"""
STORY = """module Words(vocab: int = 20) {
    embed = Embedding(vocab, 4)
    head  = Linear(4, vocab)
    forward(tokens: int[B, T]) -> float[B, T, vocab] { return head(embed(tokens)) }
}
data Story {
    source = tokens("story.bin", window=4)
    field tokens: int[4]  = column("tokens")
    field targets: int[4] = column("targets")
    shuffle = false
}
train story {
    model = Words()
    data  = Story
    loss(batch) { return cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten()) }
    optimizer  = SGD(lr=0.1)
    epochs     = 1
    batch_size = 4
}
evaluate story {
    split = "train"
    predict(batch) { return model(batch.tokens)[:, -1].argmax(-1) }
}
"""


def table_of(labels: list[int]) -> str:
    return "x0,x1,label\n" + "".join(f"{i},{-i},{label}\n" for i, label in enumerate(labels))


def project(folder: Path, text: str, name: str) -> Path:
    """The emitted project of a program, and its source beside the data."""
    (folder / f"{name}.model").write_text(text, encoding="utf-8")
    unit = pipeline.run(built(text, folder / f"{name}.model"))
    write(emit(unit, Options(name, root=str(folder))), folder / "emitted")
    return folder / "emitted"


def load_error(emitted: Path) -> DataError:
    """What is told as the data are loaded."""
    with importable(emitted), pytest.raises(DataError) as found:
        importlib.import_module("data").load()
    return found.value


GOOD = [0, 1, 2, -100, 0, 1]


@pytest.mark.parametrize(
    ("labels", "row", "value", "cure"),
    [
        ([0, 1, 2, 3, 0, 7], 4, 3, "correct it, or give the model 8 outputs: they count from 0"),
        ([0, 1, -1, 2], 3, -1, "correct it: labels count from 0, and -100 is left out of the loss"),
        ([1, 2, 3, -100, 1], 3, 3, "labels count from 0: where the file's count from 1, write `column(...) - 1`"),
    ],
)
def test_a_label_beyond_the_scores_is_told_as_data_are_loaded(
    labels: list[int], row: int, value: int, cure: str, tmp_path: Path
) -> None:
    (tmp_path / "points.csv").write_text(table_of(GOOD))
    (tmp_path / "test.csv").write_text(table_of(labels))
    found = load_error(project(tmp_path, PROGRAM, "points"))
    assert (found.file, found.row, found.field) == ("test.csv", row, "label")
    assert (found.message, found.help) == (f"{value} is not one of the classes 0 to 2", cure)


def test_a_run_with_labels_beyond_the_scores_ends_before_its_first_step(tmp_path: Path) -> None:
    """And so does an evaluation, whose data came later."""
    emitted = project(tmp_path, PROGRAM, "points")
    (tmp_path / "points.csv").write_text(table_of([0, 1, 2, 9]))
    (tmp_path / "test.csv").write_text(table_of(GOOD))
    ran = python(emitted / "train.py", "--out", tmp_path / "run", "--device", "cpu")
    assert ran.returncode == 1
    assert "error: points.csv, row 4, `label`: 9 is not one of the classes 0 to 2\n" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "run" / "log.jsonl").exists()
    (tmp_path / "points.csv").write_text(table_of(GOOD))
    ran = python(emitted / "train.py", "--out", tmp_path / "run", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    (tmp_path / "test.csv").write_text(table_of([0, 5]))
    ran = python(emitted / "evaluate.py", "--out", tmp_path / "run", "--device", "cpu")
    assert ran.returncode == 1
    assert "error: test.csv, row 2, `label`: 5 is not one of the classes 0 to 2\n" in ran.stderr


@pytest.mark.parametrize(
    ("loss", "given", "wrong"),
    [
        ("cross_entropy(model(batch.x), batch.label, ignore_index=255)", "classes=3, ignored=255", -100),
        ("mse_loss(model(batch.x), one_hot(batch.label, 3).float())", "classes=3, ignored=None", -100),
        ("cross_entropy(model(batch.x), batch.label - 1)", "", None),
    ],
)
def test_what_is_ignored_is_the_loss_s(loss: str, given: str, wrong: int | None, tmp_path: Path) -> None:
    text = PROGRAM.replace("cross_entropy(model(batch.x), batch.label)", loss)
    emitted = project(tmp_path, text, "points")
    expected = f'table.field("label", table.column("label"), torch.int64, (){f", {given}" if given else ""}),'
    assert expected in (emitted / "data.py").read_text(encoding="utf-8")
    good = [0, 1, 2, 255] if "255" in given else [0, 1, 2] if given else [1, 2, 3]
    (tmp_path / "points.csv").write_text(table_of(good))
    (tmp_path / "test.csv").write_text(table_of(good))
    ran = python(emitted / "train.py", "--out", tmp_path / "run", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    if wrong is not None:
        (tmp_path / "test.csv").write_text(table_of([0, wrong]))
        assert load_error(emitted).row == 2


def story(folder: Path, last: int) -> Path:
    """A project whose file of tokens has `last` at its end, behind 40 windows."""
    numbers = np.arange(161) % 20
    numbers[-1] = last
    numbers.astype("<u2").tofile(folder / "story.bin")
    return project(folder, STORY, "story")


def test_tokens_are_held_against_the_table_as_they_are_read(tmp_path: Path) -> None:
    emitted = story(tmp_path, 300)
    text = (emitted / "data.py").read_text(encoding="utf-8")
    assert 'table.field("tokens", table.column("tokens"), torch.int64, (4,), entries=20)' in text
    assert 'table.field("targets", table.column("targets"), torch.int64, (4,), classes=20)' in text
    for workers in ("0", "2"):
        ran = python(
            emitted / "train.py", "--out", tmp_path / workers, "--device", "cpu", "--set", f"data.workers={workers}"
        )
        assert ran.returncode == 1
        assert "error: story.bin, row 40, `targets`: 300 is not one of the classes 0 to 19\n" in ran.stderr
        assert "help: correct it, or give the model 301 outputs: they count from 0" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_vocabulary_that_the_source_checks_is_not_checked_twice(tmp_path: Path) -> None:
    text = STORY.replace("window=4)", "window=4, vocab_size=20)")
    (tmp_path / "story.bin").write_bytes(bytes(400))
    data = (project(tmp_path, text, "story") / "data.py").read_text(encoding="utf-8")
    assert "vocab_size=20" in data
    assert "entries=" not in data
    # A vocabulary that is larger than the table says nothing of it.
    data = (project(tmp_path, text.replace("size=20)", "size=21)"), "story") / "data.py").read_text(encoding="utf-8")
    assert "entries=20" in data


def test_new_rows_are_held_against_the_table(tmp_path: Path) -> None:
    """Whether or not the program's own source has a vocabulary: that is not the new file's."""
    for vocabulary in ("", ", vocab_size=20"):
        text = STORY.replace("window=4)", f"window=4{vocabulary})")
        (np.arange(161) % 20).astype("<u2").tofile(tmp_path / "story.bin")
        emitted = project(tmp_path, text, "story")
        assert "entries=20" in (emitted / "predict.py").read_text(encoding="utf-8")
    out = ("--out", tmp_path / "run", "--device", "cpu")
    assert python(emitted / "train.py", *out).returncode == 0
    emitted, new = project(tmp_path, STORY, "story"), tmp_path / "new.bin"
    for last, status in ((20, 1), (19, 0)):
        np.asarray([*range(8), 0, 1, last, 3, 4], dtype="<u2").tofile(new)
        ran = python(emitted / "predict.py", "--input", new, "--output", tmp_path / "found.csv", *out)
        assert ran.returncode == status, ran.stderr
        if status:
            assert "row 3, `tokens`: 20 is not one of the entries 0 to 19 of the table" in ran.stderr
            assert "help: correct it, or give the table 21 entries: they count from 0" in ran.stderr


def test_a_folder_of_images_has_no_more_classes_than_scores(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    text = PROGRAM.replace('csv("points.csv")', 'image_folder("flowers")').replace('    test   = csv("test.csv")\n', "")
    text = text.replace('x: float[2]  = columns("x*")', 'x: float[3, 1, 2] = column("image") / 255')
    text = text.replace("model(batch.x)", "model(batch.x[:, 0, 0])")
    for name in "abcd":
        (tmp_path / "flowers" / name).mkdir(parents=True)
        image.fromarray(np.zeros((1, 2, 3), dtype=np.uint8)).save(tmp_path / "flowers" / name / "0.png")
    found = load_error(project(tmp_path, text, "points"))
    assert (found.field, found.message) == ("label", "3 is not one of the classes 0 to 2")
    assert found.help == "correct it, or give the model 4 outputs: they count from 0"


def test_rows_of_python_are_checked_as_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "own_rows.py").write_text(
        "import torch\n\n\nclass Rows:\n    def __len__(self):\n        return 6\n\n"
        "    def __getitem__(self, i):\n        return {'x': torch.ones(2) * i, 'label': i}\n"
    )
    text = PROGRAM.replace('csv("points.csv")', 'python("own_rows:Rows")').replace('    test   = csv("test.csv")\n', "")
    text = text.replace('columns("x*")', 'column("x")')
    with importable(project(tmp_path, text, "points")):
        labels = importlib.import_module("data").load()["train"].fields["label"]
        assert labels.take(torch.tensor([2, 0])).tolist() == [2, 0]
        with pytest.raises(DataError, match="row 5, `label`: 4 is not one of the classes 0 to 2"):
            labels.take(torch.tensor([1, 4]))


@pytest.mark.parametrize("late", [False, True])
def test_several_processes_tell_it_once(late: bool, tmp_path: Path) -> None:
    """Where all of them load the data, and where one of them reads the row."""
    if late:
        emitted = story(tmp_path, 300)
        unit = built(STORY.replace("epochs     = 1", "epochs = 1\n    distributed = ddp()"), tmp_path / "story.model")
        write(emit(pipeline.run(unit), Options("story", root=str(tmp_path))), emitted)
    else:
        emitted = project(tmp_path, PROGRAM.replace("steps      = 3", "steps = 3\n    distributed = ddp()"), "points")
        (tmp_path / "points.csv").write_text(table_of([0, 1, 2, 9]))
        (tmp_path / "test.csv").write_text(table_of(GOOD))
    run = Ranks(emitted, tmp_path / "run")
    assert run.wait() == [1, 1], run.text
    assert run.text.count("error: ") == 1
    assert "300 is not one of the classes" in run.text if late else "9 is not one of the classes" in run.text
    assert "Traceback" not in run.text


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int64])
def test_narrow_numbers_do_not_wrap_around(dtype: torch.dtype) -> None:
    """As bytes, -100 is 156, and 300 is 44."""
    info = torch.iinfo(dtype)
    values = torch.tensor([each for each in (0, 44, 100, 127, 156, -100, 255) if info.min <= each <= info.max])
    for limit in (Limit(101), Limit(300), Limit(101, 255), Limit(45, None)):
        wrong = limit.beyond(values.to(dtype))
        expected = [not (0 <= each < limit.count or each == limit.ignored) for each in values.tolist()]
        assert (wrong.tolist() if wrong is not None else [False] * len(values)) == expected
    assert Limit(1).beyond(torch.empty(0, dtype=dtype)) is None


# What is told before anything runs ---------------------------------------------------------------------------------------


def checked(folder: Path, text: str) -> list[tuple[str, str, str | None]]:
    (folder / "program.model").write_text(text, encoding="utf-8")
    return [(each.code, each.message, each.help) for each in read(folder / "program.model")[1]]


def test_small_files_are_looked_at_when_a_program_is_checked(tmp_path: Path) -> None:
    np.asarray([*range(25), 0], dtype="<u2").tofile(tmp_path / "story.bin")
    table = "the table has 20 entries, and the numbers of `batch.tokens` go up to 24"
    scores = "there are 20 scores a row, and the labels of `batch.targets` go up to 24"
    assert checked(tmp_path, STORY) == [
        ("W204", table, "give it 25 entries, such as by `Story.vocab_size`"),
        ("W204", scores, "give the model 25 outputs, such as by `Story.num_classes`"),
    ]


@pytest.mark.parametrize(("ignored", "labels"), [(255, [0, 1, 255]), (-1, [0, 2, -1])])
def test_what_is_ignored_is_no_class_in_a_file(ignored: int, labels: list[int], tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(table_of(labels))
    (tmp_path / "test.csv").write_text(table_of(labels))
    assert checked(tmp_path, PROGRAM.replace("batch.label)", f"batch.label, ignore_index={ignored})")) == []
    assert [code for code, *_ in checked(tmp_path, PROGRAM)] == ["W204"]
