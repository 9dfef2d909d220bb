"""Rows as people look at them: where they are from, pictures that Pillow reads, texts, and what classes are called."""

from __future__ import annotations

import base64
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tdsl.runtime import examples, sources
from tdsl.runtime.loader import Batches, Split

Image = pytest.importorskip("PIL.Image")


def split_of(table: sources.Table, **fields: Tensor) -> Split:
    return Split.whole(sources.Fields(table, fields))


def decoded(url: str) -> np.ndarray:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label, name in enumerate(("cat", "<dog>")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((5, 6, 3), 40 * label + 10 * number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path


def image_split(folder: Path) -> Split:
    table = sources.image_folder(folder, "images")
    image = table.field("image", table.column("image") / 255, torch.float32, (3, 5, 6))
    label = table.field("label", table.column("label"), torch.int64, (), classes=2)
    return Split(sources.Fields(table, {"image": image, "label": label}), torch.tensor([5, 2, 0]))


def test_a_row_of_a_folder_is_told_by_its_file(folder: Path) -> None:
    split = image_split(folder)
    found = examples.describe(split, 1, examples.field_names(split))
    # Sorted, `<dog>` is the first class.
    assert (found["file"], found["row"]) == ("images/<dog>/2.png", None)
    assert found["fields"]["label"] == {"text": "0 (<dog>)"}
    assert (decoded(found["fields"]["image"]["image"]) == 60).all()
    assert decoded(found["fields"]["image"]["image"]).shape == (5, 6, 3)


def test_what_can_not_be_read_again_is_left_out(folder: Path) -> None:
    split = image_split(folder)
    (folder / "images/cat/2.png").unlink()
    assert list(examples.describe(split, 0)["fields"]) == ["label"]


def test_classes_have_the_names_of_the_source(folder: Path) -> None:
    split = image_split(folder)
    assert examples.field_names(split) == {"label": ["<dog>", "cat"]}
    # Labels that a program numbers anew are others, though some of their rows are like the source's.
    labels = split.fields["label"]
    assert isinstance(labels, Tensor)
    table = examples.table_of(split)
    assert table is not None
    assert examples.field_names(split_of(table, label=1 - labels, other=torch.zeros_like(labels))) == {}


def test_a_copy_on_a_device_tells_of_the_rows_that_it_is_a_copy_of(folder: Path) -> None:
    split = image_split(folder)
    taken = Batches(split, 2, device="meta", resident=False).split
    assert taken is split
    held = split_of(sources.synthetic(rows=4), x=torch.arange(4.0))
    held = Split(held.fields, torch.tensor([3, 1]))
    moved = Batches(held, 2, device="meta", resident=True).split
    assert moved.origin is held
    assert examples.describe(moved, 0) == {"file": "synthetic", "row": 4, "fields": {"x": {"text": "3"}}}


def test_rows_are_counted_in_their_file(tmp_path: Path) -> None:
    for name, rows in (("a.csv", "1\n2\n"), ("b.csv", "3\n4\n5\n")):
        (tmp_path / name).write_text(f"x\n{rows}")
    table = sources.csv(tmp_path, "*.csv")
    split = split_of(table, x=table.field("x", table.column("x"), torch.float32, ()))
    found = examples.describe(split, 3)
    assert (found["file"], found["row"], found["fields"]["x"]["text"]) == ("b.csv", 2, "4")


def test_texts_are_told_by_their_letters(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("to be or\nnot to be")
    table = sources.text(tmp_path, "text.txt", window=8)
    fields = {name: table.field(name, table.column(name), torch.int64, (8,)) for name in ("tokens", "targets")}
    split = split_of(table, **fields)
    found = examples.describe(split, 1, examples.field_names(split))["fields"]
    assert [found["tokens"]["text"], found["targets"]["text"]] == ["↵not to ", "not to b"]
    assert len(examples.excerpt(["ab"] * 500)) == examples.MOST_LETTERS + 1


def test_other_values_are_told_by_the_first_of_them() -> None:
    table = sources.synthetic(rows=2)
    found = examples.describe(split_of(table, x=torch.arange(40.0).reshape(2, 4, 5), y=torch.tensor([7, 8])), 1)
    assert found["fields"]["x"]["text"] == "20, 21, 22, 23, 24, 25, … (4 × 5 numbers)"
    assert found["fields"]["y"]["text"] == "8"


def test_fields_that_have_no_table_are_told_by_their_place() -> None:
    found = examples.describe(Split.whole({"x": torch.zeros(3)}), 2)
    assert (found["file"], found["row"]) == ("the data", 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_what_pillow_reads(channels: int) -> None:
    pixels = torch.randint(256, (channels, 9, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = decoded(examples.picture(pixels))
    assert np.array_equal(found.reshape(9, 12, channels), pixels.permute(1, 2, 0))


def test_pictures_are_small_and_span_what_values_span() -> None:
    large = torch.linspace(-3, 5, 300 * 200).reshape(1, 300, 200)
    found = decoded(examples.picture(large))
    assert found.shape == (72, 48)
    assert (found.min(), found.max()) == (2, 253)
    assert (decoded(examples.picture(torch.full((1, 8, 8), 0.5))) == 128).all()
    assert (decoded(examples.picture(torch.full((1, 8, 8), torch.nan))) == 0).all()


def test_fields_leave_their_table_behind_when_they_are_sent(folder: Path) -> None:
    fields = image_split(folder).fields
    sent = pickle.loads(pickle.dumps(fields))
    assert type(sent) is dict
    assert sent.keys() == fields.keys()
