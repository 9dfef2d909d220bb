"""What numbers that are indices may be: what a program tells of it, and what is told of data that have others."""

from __future__ import annotations

import importlib
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import Limit
from tdsl.compiler.driver import read
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.compiler.limits import INDICES
from tdsl.runtime.conversion import Limit as Indices
from tdsl.runtime.data_error import DataError
from tests.helpers import built, python
from tests.rank_runs import Ranks
from tests.running import importable

NET = """module Net(classes: int = 5, vocab: int = 65) {
    up = Linear(3, classes)
    embed = Embedding(vocab, 4)
    head = Linear(4, vocab)
    body = Sequential(Embedding(vocab, 4), ReLU())
    forward(x: float[B, 3]) -> float[B, classes] { return up(x) }
}
module Words(vocab: int = 65) {
    embed = Embedding(vocab, 4)
    head = Linear(4, vocab)
    forward(tokens: int[B, T]) -> float[B, T, vocab] { return head(embed(tokens)) }
}
module Listed(vocab: int = 30) {
    body = Sequential(Embedding(vocab, 4), ReLU())
    forward(tokens: int[B, T]) -> float[B, T, 4] { return body(tokens) }
}
module Own(classes: int = 7) {
    up = Linear(3, classes)
    forward(x: float[B, 3], label: int[B]) -> float[] { return cross_entropy(up(x), label.long()) }
}
module Sometimes() {
    up = Linear(3, 5)
    forward(x: float[B, 3], label: int[B]) -> float[B, 5] {
        return up(x) + (one_hot(label, 5).float() if training else 0.0 * up(x))
    }
}
"""
DATA = """data D {
    source = csv("rows.csv")
    field x: float[3] = columns("x*")
    field y: float[] = column("y")
    field label: int[] = column("label")
    field tokens: int[8] = columns("t*")
    field pair: int[2] = columns("p*")
    field small: u8[] = column("s")
    MORE
}
"""
RUN = """train r {
    model = MODEL()
    data = D
    loss(batch) {
        BODY
    }
    optimizer = SGD(lr=0.1)
    epochs = 1
    batch_size = 4
}
"""


def told(body: str, model: str = "Net", more: str = "") -> dict[str, Limit]:
    """The limits of the fields that a loss has."""
    text = NET + DATA.replace("MORE", more) + RUN.replace("MODEL", model).replace("BODY", body)
    return dict(built(text).runs["r"].limits)


def classes(count: int, ignored: int | None = -100) -> Limit:
    return Limit(count, ignored, looked_up=False)


def entries(count: int) -> Limit:
    return Limit(count, None, looked_up=True)


SCORES = "scores = model(batch.x)\n        "


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return cross_entropy(scores, batch.label)", classes(5)),
        ("return cross_entropy(scores, batch.label, ignore_index=255)", classes(5, 255)),
        ("return cross_entropy(scores, batch.label, ignore_index=2)", classes(5, 2)),
        ('return (cross_entropy(scores, batch.label, reduction="none") * (batch.y > 0).float()).mean()', classes(5)),
        ("return nll_loss(log_softmax(scores, dim=-1), batch.label)", classes(5)),
        ("return multi_margin_loss(scores, batch.label)", classes(5, None)),
        ("return mse_loss(scores, one_hot(batch.label, 5).float())", classes(5, None)),
        ("return -gather(log_softmax(scores, dim=-1), 1, batch.label.unsqueeze(1)).mean()", entries(5)),
        ("return scores.t().index_select(0, batch.label).mean()", entries(5)),
        ("return cross_entropy(scores, batch.label.unsqueeze(1).squeeze(1))", classes(5)),
        # Each use holds: -100 is no row of the table that one of them has.
        ("return cross_entropy(scores, batch.label) + one_hot(batch.label, 9).float().mean()", classes(5, None)),
        (
            "return cross_entropy(scores, batch.label) + cross_entropy(scores, batch.label, ignore_index=9)",
            classes(5, None),
        ),
        # What is 255 for the loss may be looked up.
        (
            "return cross_entropy(scores, batch.label, ignore_index=255) + one_hot(batch.label, 300).float().mean()",
            classes(5, 255),
        ),
    ],
)
def test_a_label_is_a_class(body: str, expected: Limit) -> None:
    assert told(SCORES + body) == {"label": expected}


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        ("Words", "return model(batch.tokens).mean()", {"tokens": entries(65)}),
        ("Net", f"{SCORES}return cross_entropy(scores, batch.small.long())", {"small": classes(5)}),
        ("Net", f"{SCORES}return cross_entropy(scores, batch.label.int().long())", {"label": classes(5)}),
        ("Listed", "return model(batch.tokens).mean()", {"tokens": entries(30)}),
        ("Own", "return model(batch.x, batch.label)", {"label": classes(7)}),
        # Of the next token, -100 would be left out; of all others it is none of the table.
        (
            "Words",
            "return cross_entropy(model(batch.tokens[:, :-1]).flatten(0, 1), batch.tokens[:, 1:].flatten())",
            {"tokens": classes(65)},
        ),
        ("Net", f"{SCORES}return cross_entropy(scores.repeat(2, 1), batch.pair.flatten())", {"pair": classes(5)}),
        (
            "Net",
            f"{SCORES}return cross_entropy(scores, batch.pair[:, 0]) + "
            "cross_entropy(scores.repeat(1, 2), batch.pair[..., 1])",
            {"pair": classes(10)},
        ),
    ],
)
def test_fields_are_followed_into_modules_and_pieces(model: str, body: str, expected: dict[str, Limit]) -> None:
    assert told(body, model) == expected


@pytest.mark.parametrize(
    "body",
    [
        "return cross_entropy(scores, batch.label - 1)",
        "return cross_entropy(scores, batch.label % 5)",
        "return cross_entropy(scores, batch.label.clamp(0, 4))",
        "return cross_entropy(scores, where(batch.label < 0, 0, batch.label))",
        "return cross_entropy(scores, batch.label[0:])",
        "return cross_entropy(scores, batch.pair[:, 0])",
        "return mse_loss(scores[:, 0], batch.y)",
        "return mse_loss(scores[:, 0], batch.label.float())",
        "unused = one_hot(batch.label, 3)\n        return scores.mean()",
        "return scores.mean()",
    ],
)
def test_nothing_is_said_of_other_numbers(body: str) -> None:
    assert told(SCORES + body) == {}


def test_nothing_is_said_of_what_is_transformed_or_only_trained_with() -> None:
    assert told("return model(batch.x, batch.label).mean()", "Sometimes") == {}
    mask = 'field mask: int[1, 4, 4] = column("mask")'
    loss = f"{SCORES}return scores.mean() + one_hot(batch.mask, 3).float().mean()"
    assert told(loss, more=mask) == {"mask": classes(3, None)}
    assert told(loss, more=f"{mask}\n    transform mask = [RandomCrop(4, padding=1)]") == {}


# Pieces of a row of six, and which of its numbers they have; the first two have all.
PIECES = {"": range(6), "[:, :]": range(6), "[:, 1:]": range(1, 6), "[:, :-1]": range(5), "[:, 2:5]": range(2, 5),
          "[:, -1]": range(5, 6), "[:, ::2]": range(0, 6, 2)}  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_a_limit_refuses_nothing_that_each_use_takes(seed: int) -> None:
    """Where each use has the whole row, it takes nothing else, either."""
    draw, whole = random.Random(seed), seed % 2 == 1
    pieces = list(PIECES)[: 2 if whole else None]
    uses = [(draw.choice(pieces), draw.randint(2, 9), draw.choice([-100, -1, 3, 7])) for _ in range(draw.randint(1, 4))]
    terms = []
    for piece, count, ignored in uses:
        scores = f"zeros(batch.row.shape[0] * {len(PIECES[piece])}, {count})"
        terms.append(f"cross_entropy({scores}, batch.row{piece}.flatten(), ignore_index={ignored})")
    body = f"{SCORES}return scores.mean() + {' + '.join(terms)}"
    limit = told(body, more='field row: int[6] = column("row")').get("row")
    for place, value in itertools.product(range(6), range(-101, 12)):
        holds = all(0 <= value < n or value == ignored for piece, n, ignored in uses if place in PIECES[piece])
        taken = limit is None or 0 <= value < limit.count or value == limit.ignored
        assert taken or not holds
        assert not (whole and taken) or holds


X, LOGS = torch.zeros(1, 5), torch.zeros(1, 5).log_softmax(-1)
TABLE = torch.zeros(5, 2)
# What takes indices, with one that may be 0 to 4.
TAKES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": lambda i: F.cross_entropy(X, i),
    "nll_loss": lambda i: F.nll_loss(LOGS, i),
    "multi_margin_loss": lambda i: F.multi_margin_loss(X, i),
    "one_hot": lambda i: F.one_hot(i, 5),
    "embedding": lambda i: F.embedding(i, TABLE),
    "embedding_bag": lambda i: F.embedding_bag(i[None], TABLE),
    "gather": lambda i: X.gather(1, i[None]),
    "index_select": lambda i: X.index_select(1, i),
}


@pytest.mark.parametrize("name", INDICES)
def test_pytorch_takes_what_is_within_and_nothing_else(name: str) -> None:
    takes = TAKES[name]
    for index in (0, 4):
        takes(torch.tensor([index]))
    for index in (-1, 5, 255):
        with pytest.raises((IndexError, RuntimeError)):
            takes(torch.tensor([index]))
    if name in ("cross_entropy", "nll_loss"):
        takes(torch.tensor([-100]))
    else:
        with pytest.raises((IndexError, RuntimeError)):
            takes(torch.tensor([-100]))


# What is emitted, and what it tells of data ----------------------------------------------------------------------------

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
    for limit in (Indices(101), Indices(300), Indices(101, 255), Indices(45, None)):
        wrong = limit.beyond(values.to(dtype))
        expected = [not (0 <= each < limit.count or each == limit.ignored) for each in values.tolist()]
        assert (wrong.tolist() if wrong is not None else [False] * len(values)) == expected
    assert Indices(1).beyond(torch.empty(0, dtype=dtype)) is None


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
