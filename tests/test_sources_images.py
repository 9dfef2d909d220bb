"""Folders of images, against Pillow and torchvision's ImageFolder."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tdsl.compiler.image_folders import image_size
from tdsl.compiler.probe import ProbeError, probe
from tdsl.runtime import sources
from tdsl.runtime.columns import Column, Field
from tdsl.runtime.sources import DataError

Image = pytest.importorskip("PIL.Image")
NAMES = ("cat/b.png", "cat/a.jpg", "cat/more/c.png", "dog/d.PNG", "ant/e.bmp", "ant/f.webp")


def draw(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], *((3,) if mode == "RGB" else ()))
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        draw(tmp_path / "images" / name, (6 + seed, 4), seed=seed)
    (tmp_path / "images/cat/notes.txt").write_text("none")
    (tmp_path / "images/cat/._b.png").write_bytes(b"of an operating system")
    (tmp_path / "images/.hidden").mkdir()
    return tmp_path


def image(table: sources.Table) -> Column:
    column = table.column("image")
    assert isinstance(column, Column)
    return column


def test_images_are_those_of_torchvision(folder: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    shutil.rmtree(folder / "images/.hidden")
    theirs = datasets.ImageFolder(
        folder / "images", is_valid_file=lambda path: "._" not in path and "notes" not in path
    )
    table = sources.image_folder(folder, "images")
    assert sources.class_names(folder, "images") == theirs.classes
    assert table.values("label").tolist() == theirs.targets
    for mine, (pixels, _) in zip(image(table).rows(torch.arange(6)), theirs):
        assert np.array_equal(mine.permute(1, 2, 0), np.asarray(pixels))


def test_images_are_those_of_pillow(folder: Path) -> None:
    table = sources.image_folder(folder, "images")
    assert table.values("label").tolist() == [0, 0, 1, 1, 1, 2]
    order = ["ant/e.bmp", "ant/f.webp", "cat/a.jpg", "cat/b.png", "cat/more/c.png", "dog/d.PNG"]
    column = pickle.loads(pickle.dumps(image(table)))
    for name, row in zip(order, column.rows(torch.arange(6)), strict=True):
        assert np.array_equal(row.permute(1, 2, 0), np.asarray(Image.open(folder / "images" / name).convert("RGB")))
    grey = image(sources.image_folder(folder, "images", mode="L")).rows(torch.tensor([3]))[0]
    assert np.array_equal(grey[0], np.asarray(Image.open(folder / "images/cat/b.png").convert("L")))


def test_a_field_is_scaled_row_by_row_and_its_size_checked(folder: Path) -> None:
    table = sources.image_folder(folder, "images")
    resized = table.field("image", image(table) / 255, torch.float32, (3, 8, 8), resized=True)
    assert isinstance(resized, Field)
    raw = image(table).rows(torch.tensor([4, 1]))
    assert all(torch.equal(mine, row / 255) for mine, row in zip(resized.rows(torch.tensor([4, 1])), raw))
    with pytest.raises(DataError, match=r"images/dog/d\.PNG, `image`: has the shape \[3, 4, 9\]"):
        resized.check(5, (3, 4, 9))
    fixed = table.field("image", image(table), torch.uint8, (3, 4, 10))
    assert fixed.take(torch.tensor([0, 0])).shape == (2, 3, 4, 10)
    with pytest.raises(
        DataError, match=r"images/cat/b\.png, `image`: has the shape \[3, 4, 6\], and is declared as u8"
    ) as found:
        fixed.take(torch.tensor([0, 3]))
    assert "Resize([4, 10])" in str(found.value)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: b"", "it is no image, or is damaged"),
        (lambda content: b"not an image at all", "it is no image, or is damaged"),
        (lambda content: content[: len(content) // 2], "can't be"),
        (lambda content: content[:-40] + b"\0" * 40, "can't be"),
    ],
)
def test_images_that_do_not_decode_are_named(folder: Path, damage, told: str) -> None:
    file = folder / "images/cat/b.png"
    file.write_bytes(damage(file.read_bytes()))
    table = sources.image_folder(folder, "images")
    field = table.field("image", image(table) / 255, torch.float32, (3, 4, 6), resized=True)
    field.rows(torch.tensor([2, 4]))
    with pytest.raises(DataError, match=told) as found:
        field.rows(torch.tensor([2, 3]))
    assert (found.value.file, found.value.row, found.value.field) == ("images/cat/b.png", None, "image")


def test_more_than_8_bits_are_not_cut_off_in_silence(tmp_path: Path) -> None:
    (tmp_path / "images/a").mkdir(parents=True)
    Image.fromarray(np.full((2, 2), 4000, dtype=np.uint16)).save(tmp_path / "images/a/1.png")
    with pytest.raises(DataError, match=r"images/a/1\.png: has more than 8 bits"):
        image(sources.image_folder(tmp_path, "images")).rows(torch.tensor([0]))


def test_classes_of_several_folders_are_those_of_the_first(folder: Path) -> None:
    draw(folder / "test/dog/1.png")
    classes = sources.class_names(folder, "images")
    assert sources.image_folder(folder, "test", classes=classes).values("label").tolist() == [2]
    draw(folder / "test/eel/1.png")
    with pytest.raises(DataError, match="its class `eel` is none of the other folder's") as found:
        sources.image_folder(folder, "test", classes=classes)
    assert found.value.help == "the classes are ant, cat, dog"


def test_folders_that_are_none(folder: Path) -> None:
    for path, told in (
        ("images/cat/more", "no folders of classes"),
        ("no", "no such folder"),
        ("images/cat/b.png", "is a file"),
    ):
        with pytest.raises(DataError, match=told):
            sources.image_folder(folder, path)
    for path, told in (("images/cat/more", "no folders of classes"), ("images/cat/b.png", "is a file")):
        with pytest.raises(ProbeError, match=told):
            probe("image_folder", {"path": path}, folder)
    assert probe("image_folder", {"path": "no"}, folder).missing == ("no",)
    (folder / "images/empty").mkdir()
    with pytest.raises(DataError, match="images/empty: has no image"):
        sources.image_folder(folder, "images")
    with pytest.raises(ProbeError, match="its class `empty` has no image"):
        _ = probe("image_folder", {"path": "images"}, folder).rows


def test_links_do_not_lead_outside(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "images").rename(inner / "images")
    draw(folder / "secret/1.png")
    (inner / "images/cat/link.png").symlink_to(folder / "secret/1.png")
    with pytest.raises(DataError, match=r"link\.png: lies outside of"):
        sources.image_folder(inner, "images")
    assert sources.image_folder(inner, "images", allow_outside=True).rows == 7
    with pytest.raises(DataError, match="lies outside of"):
        sources.image_folder(inner, "../secret")
    with pytest.raises(ProbeError, match="lies outside of"):
        probe("image_folder", {"path": "../secret"}, inner)


def test_the_probe_counts_what_the_run_reads(folder: Path) -> None:
    found = probe("image_folder", {"path": "images"}, folder)
    assert (found.rows, found.num_classes("label"), found.columns["image"].shape) == (6, 3, (3, 4, 10))
    draw(folder / "images/eel/1.png")
    found = probe("image_folder", {"path": "images"}, folder)
    assert (found.rows, found.num_classes("label")) == (7, 4)


def test_without_pillow_the_error_tells_how_to_get_it(folder: Path) -> None:
    code = "import sys; sys.modules['PIL'] = None\nfrom tdsl.runtime import sources\nsources.image_folder(sys.argv[1], 'images')"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=ENVIRONMENT)
    assert "DataError: images: needs the package `pillow`" in done.stderr
    assert "pip install pillow" in done.stderr


ENVIRONMENT = {
    "PYTHONPATH": f"{Path(__file__).resolve().parents[1] / 'src'}:{Path(torch.__file__).parents[1]}",
    "PATH": "",
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_probe_reads_the_size_of_the_first_image(tmp_path: Path, suffix: str, mode: str) -> None:
    draw(tmp_path / f"images/a/1.{suffix}", (300, 200), "L")
    found = probe("image_folder", {"path": "images", "mode": mode}, tmp_path).columns["image"]
    read = image(sources.image_folder(tmp_path, "images", mode=mode)).rows(torch.tensor([0]))[0]
    assert found.shape == (None if suffix == "webp" else tuple(read.shape))


def test_headers_that_are_cut_off_have_no_size(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "bmp"):
        file = tmp_path / f"images/a/1.{suffix}"
        draw(file, (300, 200))
        whole = file.read_bytes()
        for end in range(0, min(len(whole), 700), 3):
            file.write_bytes(whole[:end])
            assert image_size(file) in (None, (200, 300))
