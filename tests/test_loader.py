"""Batches: order, position, ranks, transforms."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tdsl.runtime.loader import Batches, Split
from tdsl.runtime.transforms import Normalize, RandomCrop, RandomHorizontalFlip


def split(rows: int = 103, start: int = 0) -> Split:
    x = torch.arange(2 * (rows + start), dtype=torch.float32).reshape(-1, 2)
    return Split({"x": x, "row": torch.arange(rows + start)}, torch.arange(start, rows + start))


def rows(batches: Batches, epoch: int = 0) -> list[int]:
    return torch.cat([batch.row for batch in batches.epoch(epoch)]).tolist()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 32, 103, 200])
def test_an_unshuffled_epoch_is_that_of_pytorchs_data_loader(batch_size: int, drop_last: bool) -> None:
    data = split()
    mine = Batches(data, batch_size, drop_last=drop_last)
    theirs = DataLoader(TensorDataset(data.fields["x"]), batch_size, drop_last=drop_last)
    assert len(mine) == len(theirs)
    assert mine.rows == sum(len(x) for (x,) in theirs)
    for batch, (x,) in zip(mine, theirs, strict=True):
        assert torch.equal(batch.x, x)
        assert batch.size == batch.total == len(x)


def test_a_shuffled_epoch_has_every_row_of_the_split_once() -> None:
    data = split(start=5)
    batches = Batches(data, 16, shuffle=True, seed=1)
    epochs = [rows(batches, e) for e in range(3)]
    assert all(sorted(each) == data.indices.tolist() for each in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] == rows(Batches(data, 16, shuffle=True, seed=1))
    assert epochs[0] != rows(Batches(data, 16, shuffle=True, seed=2))


def test_an_epoch_goes_on_from_any_position() -> None:
    crop = {"image": [RandomCrop(4, padding=1)]}
    images = Split.whole({"image": torch.rand(50, 1, 4, 4)})
    batches = Batches(images, 8, shuffle=True, transforms=crop)
    whole = [batch.image for batch in batches.epoch(2)]
    for start in range(len(batches) + 1):
        rest = [batch.image for batch in batches.epoch(2, start)]
        assert len(rest) == len(whole) - start
        assert all(map(torch.equal, rest, whole[start:]))


def test_no_draw_touches_the_global_random_state() -> None:
    state = torch.get_rng_state()
    images = Split.whole({"image": torch.zeros(9, 1, 4, 4)})
    list(Batches(images, 4, shuffle=True, transforms={"image": [RandomHorizontalFlip()]}))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_ranks_together_see_what_one_process_sees(ranks: int, size: int) -> None:
    images = Split.whole({"image": torch.rand(30, 1, 4, 4), "row": torch.arange(30)})
    options = {"shuffle": True, "transforms": {"image": [RandomCrop(4, padding=2), RandomHorizontalFlip()]}}
    one = Batches(images, size, **options)
    many = [Batches(images, size, rank=rank, ranks=ranks, **options) for rank in range(ranks)]
    assert {len(each) for each in many} == {len(one)}
    for whole, *parts in zip(one.epoch(1), *(each.epoch(1) for each in many), strict=True):
        assert torch.equal(torch.cat([part.row for part in parts]), whole.row)
        assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
        assert {part.total for part in parts} == {whole.size}
        assert max(part.size for part in parts) - min(part.size for part in parts) <= 1


def test_a_batch_in_pieces() -> None:
    (batch,) = Batches(split(10), 10)
    for parts in (1, 3, 10, 20):
        pieces = batch.chunk(parts)
        assert len(pieces) == min(parts, 10)
        assert torch.equal(torch.cat([piece.x for piece in pieces]), batch.x)
        assert all(piece.size and piece.total == 10 for piece in pieces)


def test_a_batch_tells_its_fields_when_asked_for_another() -> None:
    (batch,) = Batches(split(10), 10)
    with pytest.raises(AttributeError, match="x, row"):
        _ = batch.pixels
    assert torch.equal(copy.deepcopy(batch).to("cpu").x, batch.x)


def test_bad_sizes() -> None:
    for bad in ({"batch_size": 0}, {"batch_size": 4, "rank": 2, "ranks": 2}):
        with pytest.raises(ValueError, match="rank"):
            Batches(split(), **bad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [True, False, "auto"])
def test_batches_on_a_gpu_are_those_on_the_cpu(resident: bool | str) -> None:
    images = Split({"image": torch.rand(50, 1, 4, 4), "row": torch.arange(50)}, torch.arange(3, 47))
    options = {"shuffle": True, "transforms": {"image": [Normalize([0.5], [0.2]), RandomCrop(4, padding=1)]}}
    theirs = Batches(images, 8, **options).epoch(1)
    for mine, other in zip(
        Batches(images, 8, device="cuda", resident=resident, **options).epoch(1), theirs, strict=True
    ):
        assert mine.image.is_cuda
        assert torch.equal(mine.row.cpu(), other.row)
        torch.testing.assert_close(mine.image.cpu(), other.image)


# Transforms ----------------------------------------------------------------------------------------------------------


def test_normalize() -> None:
    x = torch.rand(5, 3, 4, 4)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    # What torchvision documents: output[channel] = (input[channel] - mean[channel]) / std[channel].
    expected = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(Normalize(mean, std)(x, None), expected)
    with pytest.raises(ValueError, match="std"):
        Normalize([0.1], [0.0])


@pytest.mark.parametrize(("size", "padding"), [(6, 2), (4, 0), ((3, 5), 1), ([6], None)])
def test_every_random_crop_is_a_window_of_its_own_padded_image(size: int | Sequence[int], padding: int | None) -> None:
    x = torch.rand(200, 2, 6, 6) + 1
    crop = RandomCrop(size, padding)
    drawn = crop.draw(len(x), torch.Generator().manual_seed(0))
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    padding = padding or 0
    places = set()
    for image, out in zip(x, crop(x, drawn), strict=True):
        windows = F.pad(image, [padding] * 4).unfold(1, height, 1).unfold(2, width, 1)
        same = (windows == out[:, None, None]).all(-1).all(-1).all(0)
        assert same.sum() == 1
        places.add(tuple(same.nonzero()[0].tolist()))
    assert len(places) == (6 + 2 * padding - height + 1) * (6 + 2 * padding - width + 1)


@pytest.mark.parametrize(
    ("padding", "sides"), [([1], [1, 1, 1, 1]), ([1, 2], [1, 1, 2, 2]), ([1, 2, 3, 4], [1, 3, 2, 4])]
)
def test_padding_of_each_side_is_torchvisions(padding: list[int], sides: list[int]) -> None:
    # torchvision: two numbers are left/right and top/bottom, four are left, top, right and bottom.
    x = torch.rand(1, 1, 6, 6)
    padded = F.pad(x, sides)
    assert torch.equal(RandomCrop(padded.shape[-2:], padding)(x, torch.rand(1, 2)), padded)


def test_a_crop_larger_than_its_image() -> None:
    crop = RandomCrop(9)
    with pytest.raises(ValueError, match="9 x 9 from 6 x 6"):
        crop(torch.zeros(1, 1, 6, 6), torch.zeros(1, 2))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_flips(p: float) -> None:
    x = torch.rand(2000, 1, 2, 3)
    flip = RandomHorizontalFlip(p)
    out = flip(x, flip.draw(len(x), torch.Generator().manual_seed(0)))
    flipped = torch.tensor([_is_flip(a, b) for a, b in zip(x, out, strict=True)])
    assert abs(flipped.float().mean() - p) < 0.05


def _is_flip(before: Tensor, after: Tensor) -> bool:
    same = torch.equal(before, after)
    assert same or torch.equal(before.flip(-1), after)
    return not same
