"""What the compiler knows of transforms: the shape that comes out of each, and what it refuses, with its place."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tdsl.compiler.probe import probe
from tdsl.dsl.diagnostics import ProgramError, Reporter, Source, Span
from tdsl.dsl.program import Call, DataSpec, FieldSpec
from tdsl.dsl.resolve import load
from tdsl.dsl.transforms import UNKNOWN, VARIES, Image, transformed
from tests import stub_torchvision
from tests.helpers import python, tdsl
from tests.test_transforms import EVERY, drawn, made

SPAN = Span(Source("net.model", "x"), 0, 1)
SIZES = ((20, 26), (26, 20), (31, 31), (48, 23))


def call(name: str, /, **args: Any) -> Call:
    listed = {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
    return Call(name, listed, SPAN)


@pytest.mark.parametrize(("name", "args"), EVERY, ids=lambda value: str(value))
def test_the_shape_is_what_comes_out_of_the_transform(name: str, args: dict[str, Any]) -> None:
    stub_torchvision.transforms()
    for height, width in SIZES:
        x = torch.rand(2, 3, height, width)
        transform = made(name, args)
        found = transform(x, drawn(transform, 2))
        assert transformed(call(name, **args), Image((3, height, width), "float")).shape == tuple(found[0].shape)
        # Of what is not known, nothing is told that is not so.
        for known in itertools.product((True, False), repeat=3):
            shape = tuple(size if told else None for size, told in zip((3, height, width), known, strict=True))
            told = transformed(call(name, **args), Image(shape, "float")).shape
            assert all(a in (None, b) for a, b in zip(told, found[0].shape, strict=True))


def test_a_size_that_varies_stays_so_until_a_size_is_given() -> None:
    turned = transformed(call("RandomRotation", degrees=9, expand=True), Image((3, 8, 9), "float"))
    assert turned.shape == (3, VARIES, VARIES)
    assert transformed(call("Resize", size=7), turned).shape == (3, VARIES, VARIES)
    assert transformed(call("Pad", padding=1), turned).shape == (3, VARIES, VARIES)
    assert transformed(call("Resize", size=(7, 8)), turned).shape == (3, 7, 8)


@pytest.mark.parametrize(
    ("shape", "found"), [((8, 9), (1, 8, 9)), ((8, 9, 3), (3, 8, 9)), ((3, 8, 9), (3, 8, 9)), ((3, 9, 3), (3, 9, 3))]
)
def test_to_tensor(shape: tuple[int, ...], found: tuple[int, ...]) -> None:
    assert transformed(call("ToTensor"), Image(shape, "u8")) == Image(found, "float")
    assert transformed(call("ToTensor"), Image(shape, "f64")) == Image(found, "f64")
    x = torch.zeros(2, *shape, dtype=torch.uint8)
    assert tuple(made("ToTensor", {})(x, None)[0].shape) == found


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("Resize", {"size": (1, 2, 3)}, "`size` is 1 or 2 numbers, not 3"),
        ("Resize", {"size": 9, "max_size": 9}, "greater than the 9"),
        ("Resize", {"size": (9, 9), "max_size": 12}, "goes with one number"),
        ("RandomCrop", {"size": 9}, "9 x 9 from images of 8 x 10"),
        ("RandomCrop", {"size": (12, 13), "padding": (1, 2)}, "12 x 13 from images of 12 x 12"),
        ("Pad", {"padding": (1, 2, 3)}, "1, 2 or 4 numbers"),
        ("Pad", {"padding": 8, "padding_mode": "reflect"}, "a border of 8"),
        ("Pad", {"padding": (11, 1), "padding_mode": "symmetric"}, "a border of 11"),
        ("Pad", {"padding": 1, "fill": (1, 2)}, "2 values for 3 channels"),
        ("Pad", {"padding": 1, "fill": (1, 2, 3), "padding_mode": "edge"}, "no effect"),
        ("RandomErasing", {"scale": (0.5, 1.5)}, "within 0 and 1"),
        ("RandomErasing", {"value": (1, 2)}, "2 numbers"),
        ("RandomResizedCrop", {"size": 4, "ratio": (2, 1)}, "is a range within"),
        ("RandomRotation", {"degrees": (30, -30)}, "is a range within"),
        ("ColorJitter", {"hue": 0.6}, "at most 0.5"),
        ("ColorJitter", {"brightness": (-1, 1)}, "within 0 and more"),
        ("Grayscale", {"num_output_channels": 2}, "1 or 3"),
        ("GaussianBlur", {"kernel_size": 4}, "odd"),
        ("GaussianBlur", {"kernel_size": 17}, "too large"),
        ("RandAugment", {"magnitude": 31}, "magnitude of 31 of 31 bins"),
        ("Normalize", {"mean": (0.5, 0.5), "std": (1, 1)}, "2 means for images of 3 channels"),
        ("Normalize", {"mean": (0.5,), "std": (1, 1)}, "1 means and 2 deviations"),
    ],
)
def test_what_torchvision_would_refuse_is_refused(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgramError) as found:
        transformed(call(name, **args), Image((3, 8, 10), "float"))
    assert found.value.diagnostic.code == "E454"
    assert found.value.diagnostic.span == SPAN
    assert message in found.value.diagnostic.message
    assert found.value.diagnostic.help


@pytest.mark.parametrize("name", ["ColorJitter", "RandAugment", "Grayscale"])
def test_colours_are_of_one_or_three_channels(name: str) -> None:
    transformed(call(name), Image(UNKNOWN, "float"))
    with pytest.raises(ProgramError, match="1 or 3 channels"):
        transformed(call(name), Image((4, 8, 8), "float"))


def test_bytes_are_not_normalised() -> None:
    with pytest.raises(ProgramError, match="needs floats"):
        transformed(call("Normalize", mean=(0.5,), std=(1,)), Image((3, 8, 8), "u8"))


# In a program --------------------------------------------------------------------------------------------------------

DATA = """
data Images {{
    source = idx("images.idx", "labels.idx")
    split  = random(train=0.5, val=0.5)
    field image: {type} = {value}
    field label: int[] = column("label")
    {transforms}
}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where 8 grey images of 6 x 8 are, with their labels."""
    pixels = bytes(range(250))[: 6 * 8] * 8
    (tmp_path / "images.idx").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 8, 6, 8) + pixels)
    (tmp_path / "labels.idx").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 8) + bytes([0, 1] * 4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolved(type: str, *transforms: str, value: str = 'column("image") / 255') -> tuple[DataSpec, Reporter]:
    text = DATA.format(type=type, value=value, transforms="\n    ".join(transforms))
    program, reporter = load("net.model", text=text, probe=probe)
    assert program is not None
    return program.data["Images"], reporter


def field(type: str, *transforms: str, **more: str) -> FieldSpec:
    data, reporter = resolved(type, *transforms, **more)
    assert not reporter.diagnostics, [each.message for each in reporter.diagnostics]
    return data.fields[0]


def test_a_field_has_the_shape_that_comes_out_of_its_transforms(folder: Path) -> None:
    assert field("float[1, 12, 16]", "transform image = [Resize([12, 16])]").resized
    assert field("float[1, 12, 16]", "transform image = [Resize(12)]").resized
    assert field("float[3, 6, 8]", "transform image = [Grayscale(3)]").resized
    assert not field("float[1, 6, 8]", "transform image = [RandomCrop([6, 8], padding=2)]").resized
    both = ("transform image = [CenterCrop(4)]", "transform train image = [RandomCrop(4), RandomErasing()]")
    assert field("float[1, 4, 4]", *both).resized
    assert field("float[1, 4, 4]", "transform image = [RandomRotation(30, expand=true), Resize([4, 4])]").resized


@pytest.mark.parametrize(
    ("type", "transforms", "message", "under"),
    [
        ("float[1, 6, 8]", ["transform image = [Resize([12, 16])]"], "is [1, 12, 16] in the split `train`", "Resize([12, 16])"),
        ("float[1, 12, 16]", ["transform image = [Resize(12), CenterCrop(5)]"], "is [1, 5, 5]", "CenterCrop(5)"),
        ("float[1, 4, 4]", ["transform train image = [RandomCrop(4)]"], "is [1, 6, 8] in the split `val`", "field image"),
        ("float[1, 4, 4]", ["transform image = [RandomRotation(9, expand=true)]"], "several sizes", "RandomRotation"),
        ("float[3, 6, 8]", ["transform image = [RandomHorizontalFlip()]"], "is [1, 6, 8]", "field image"),
        ("float[1, 6, 8]", ["transform image = [Normalize([0.1, 0.2], [1, 1])]"], "2 means", "Normalize"),
        ("u8[1, 6, 8]", ["transform image = [Normalize([0.1], [1])]"], "needs floats", "Normalize"),
    ],
)  # fmt: skip
def test_another_shape_is_refused_with_its_place(
    folder: Path, type: str, transforms: list[str], message: str, under: str
) -> None:
    _, reporter = resolved(type, *transforms)
    (found,) = reporter.diagnostics
    assert found.code == "E454"
    assert message in found.message
    assert found.span is not None
    assert found.span.source.text[found.span.start :].startswith(under)


def test_to_tensor_reads_bytes(folder: Path) -> None:
    scaled, stored = ["transform image = [ToTensor()]"], {"value": 'column("image")'}
    assert field("float[1, 6, 8]", *scaled, **stored).bytes
    assert not field("float[1, 6, 8]", *scaled).bytes
    assert not field("float[1, 6, 8]", **stored).bytes
    for type, *transforms in (("u8[1, 6, 8]", *scaled), ("float[1, 6, 8]", "transform train image = [ToTensor()]")):
        _, reporter = resolved(type, *transforms, **stored)
        assert [each.code for each in reporter.diagnostics] == ["E454"]
        assert "ToTensor" in str(reporter.diagnostics[0].help)


def test_a_missing_file_leaves_open_what_only_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for type, transform, codes in (
        ("float[3, 4, 4]", "Resize([4, 4])", []),
        ("float[3, 4, 4]", "Resize(4)", []),
        ("float[3, 4, 4]", "Resize([4, 5])", ["E454"]),
        ("float[3, 4, 4]", "Grayscale()", ["E454"]),
        ("float[3, 4, 4]", "Normalize([0.1, 0.2], [1, 1])", ["E454"]),
        ("float[64]", "Resize([4, 4])", ["E454"]),
    ):
        _, reporter = resolved(type, f"transform image = [{transform}]")
        assert [each.code for each in reporter.diagnostics if each.code != "W401"] == codes, transform


RUN = """
import sys
from tests import stub_torchvision
stub_torchvision.transforms()
sys.path.insert(0, sys.argv[1])
import data
for split in data.SPLITS:
    for batch in data.batches(split, 3):
        print(split, tuple(batch.image.shape), batch.image.dtype, float(batch.image.max()) <= 1)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_emitted_resizes_and_scales(folder: Path, workers: int) -> None:
    stub_torchvision.transforms()
    transforms = ["transform image = [Resize(12), ToTensor(), CenterCrop(10)]",
                  "transform train image = [RandomResizedCrop(10), ToTensor(), Normalize([0.5], [0.5])]"]  # fmt: skip
    text = DATA.format(type="float[1, 10, 10]", value='column("image")', transforms="\n    ".join(transforms))
    text = text.replace("split ", f"workers = {workers}\n    split ")
    (folder / "net.model").write_text(f"{text}{NET}")
    made = tdsl("compile", "net.model", "-o", "out", cwd=folder)
    assert made.returncode == 0, made.stderr
    ran = python("-c", RUN, folder / "out", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    told = ran.stdout.splitlines()
    assert told == [f"{split} ({rows}, 1, 10, 10) torch.float32 True" for split in ("train", "val") for rows in (3, 1)]


NET = """
module Net() {
    l = Linear(100, 2)
    forward(x: float[B, 1, 10, 10]) -> float[B, 2] { return l(x.flatten(1)) }
}

train net {
    model = Net()
    data = Images
    loss(batch) { return cross_entropy(model(batch.image), batch.label) }
    optimizer = SGD()
    epochs = 1
}
"""
