"""Batches: order, position, ranks, transforms."""

from __future__ import annotations

import copy
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tdsl.runtime.columns import Column, Field
from tdsl.runtime.data_error import DataError
from tdsl.runtime.loader import Batch, Batches, Split
from tdsl.runtime.transforms import Images, Normalize, RandomCrop, RandomHorizontalFlip
from tests.helpers import environment


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


# Columns whose rows are read when they are asked for ------------------------------------------------------------------


class Squares(Column):
    """Images of several sizes: row i is [1, i % 3 + 4, 6], and row `bad` can't be read."""

    uniform = False

    def __init__(self, rows: int = 30, bad: int | None = None, kill: int | None = None) -> None:
        self.count, self.bad, self.kill = rows, bad, kill
        self.home = os.getpid()

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Tensor) -> Tensor:
        return torch.stack(self.rows(indices))

    def rows(self, indices: Tensor) -> list[Tensor]:
        return [self.row(index) for index in indices.tolist()]

    def row(self, index: int) -> Tensor:
        if index == self.bad:
            raise self.error(index, "can't be decoded", field="image")
        if index == self.kill and os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((1, index % 3 + 4, 6), float(index))

    def where(self, row: int) -> tuple[str, int | None]:
        return f"{row}.png", None


def squares(**options: Any) -> Split:
    image = Field("image", Squares(**options), torch.float32, (1, 4, 5), resized=True)
    return Split.whole({"image": image, "row": torch.arange(len(image))})


CROPPED: dict[str, Any] = {"shuffle": True, "transforms": {"image": [RandomCrop((4, 5)), RandomHorizontalFlip()]}}


def equal(mine: Iterable[Batch], theirs: Iterable[Batch]) -> bool:
    return all(
        a.total == b.total
        and a.fields.keys() == b.fields.keys()
        and all(map(torch.equal, a.fields.values(), b.fields.values()))
        for a, b in zip(mine, theirs, strict=True)
    )


def test_images_of_several_sizes_are_one_tensor_behind_their_transforms() -> None:
    for batch in Batches(squares(), 8, **CROPPED):
        assert batch.image.shape == (batch.size, 1, 4, 5)
        assert torch.equal(batch.image[:, 0, 0, 0], batch.row.float())


def test_images_that_stay_of_several_sizes_are_an_error_that_names_one() -> None:
    with pytest.raises(DataError, match=r"1\.png, `image`: has the shape \[1, 5, 5\], and is declared as"):
        list(Batches(squares(), 8, transforms={"image": [Narrow()]}))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_can_not_be_read_or_transformed_is_named(workers: int) -> None:
    with pytest.raises(DataError, match=r"11\.png, `image`: can't be decoded"):
        list(Batches(squares(bad=11), 8, workers=workers, **CROPPED))
    large = {"image": [RandomCrop((5, 5))]}
    with pytest.raises(DataError, match=r"0\.png, `image`: RandomCrop of 5 x 5 from 4 x 6"):
        list(Batches(squares(), 8, workers=workers, transforms=large))
    images = Split.whole({"image": torch.rand(9, 1, 4, 4)})
    with pytest.raises(DataError, match="row 9, `image`: RandomCrop"):
        list(Batches(images, 8, workers=workers, transforms={"image": [ThinRow(), RandomCrop(4)]}))


class Narrow:
    """Every image as wide as declared, and as high as before."""

    def draw(self, rows: int, generator: torch.Generator) -> None:
        return None

    def __call__(self, x: Images, drawn: Tensor | None) -> Images:
        return [image[..., :5] for image in x]


class ThinRow:
    """The ninth row loses its last column."""

    def draw(self, rows: int, generator: torch.Generator) -> None:
        return None

    def __call__(self, x: Tensor, drawn: Tensor | None) -> Tensor:
        return x if len(x) > 1 else x[..., :3]


@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_ranks_together_see_the_same_images_of_several_sizes(ranks: int) -> None:
    one = Batches(squares(), 7, **CROPPED)
    many = [Batches(squares(), 7, rank=rank, ranks=ranks, **CROPPED) for rank in range(ranks)]
    for whole, *parts in zip(one, *many, strict=True):
        assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
        assert {part.image.shape[1:] for part in parts} == {whole.image.shape[1:]}


# Workers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_read_the_same_batches_in_the_same_order_from_any_position(workers: int) -> None:
    state = torch.get_rng_state()
    options = {**CROPPED, "seed": 3}
    alone, many = Batches(squares(), 8, **options), Batches(squares(), 8, workers=workers, prefetch=3, **options)
    for epoch in range(3):
        for start in range(len(alone) + 1):
            assert equal(many.epoch(epoch, start), alone.epoch(epoch, start))
    for start, end in ((0, 9), (3, 5), (6, 30), (4, 4)):
        assert equal(many.steps(start, end), alone.steps(start, end))
    assert torch.equal(state, torch.get_rng_state())


def test_steps_are_counted_through_the_epochs() -> None:
    batches = Batches(squares(), 8, **CROPPED)
    every = [batch for epoch in range(3) for batch in batches.epoch(epoch)]
    assert equal(batches.steps(0, 12), every)
    assert equal(batches.steps(5, 11), every[5:11])


def test_iterators_of_the_same_workers_do_not_disturb_each_other() -> None:
    alone, many = Batches(squares(), 8, **CROPPED), Batches(squares(), 8, workers=2, **CROPPED)
    first = many.epoch(0)
    next(first)
    assert equal(many.epoch(1), alone.epoch(1))
    assert equal(first, alone.epoch(0, 1))
    given_up = many.epoch(0)
    next(given_up)
    given_up.close()  # type: ignore[attr-defined]
    assert equal(many.epoch(2), alone.epoch(2))


def test_a_split_in_memory_is_read_by_workers_as_without_them() -> None:
    images = Split.whole({"image": torch.rand(50, 1, 4, 4), "row": torch.arange(50)})
    assert equal(Batches(images, 8, workers=2, **CROPPED_SMALL).epoch(1), Batches(images, 8, **CROPPED_SMALL).epoch(1))
    changed = replace(Batches(images, 8, workers=2, **CROPPED_SMALL), shuffle=False)
    assert [row for batch in changed for row in batch.row.tolist()] == list(range(50))


CROPPED_SMALL: dict[str, Any] = {"shuffle": True, "transforms": {"image": [RandomCrop(4, padding=1)]}}


def test_a_worker_that_is_killed_is_a_clear_error() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(DataError, match=r"worker process \d+: was killed by a signal \(Killed\)") as found:
        list(Batches(squares(kill=17), 8, workers=2, **CROPPED))
    assert found.value.help is not None
    assert "workers" in found.value.help
    # What PyTorch would set raises anywhere, within a lock of a queue, too.
    assert signal.getsignal(signal.SIGCHLD) is before


def test_a_worker_whose_end_is_not_yet_told_is_waited_for() -> None:
    """What it held is closed a little before the system tells of its end."""

    class Late:
        pid, exitcode, joined = 7, -9, False

        def join(self, timeout: float) -> None:
            self.joined = True

        def is_alive(self) -> bool:
            return not self.joined

    workers = Batches(squares(), 8, workers=2, **CROPPED)
    list(workers)
    made = workers._started[0]
    kept, made.iterator = made.iterator, SimpleNamespace(_workers=[Late()])
    found = made._lost()
    made.iterator = kept
    assert str(found).startswith("worker process 7: was killed by a signal (Killed)")


def children(pid: int) -> list[int]:
    """The processes that a process has started; what has ended and was waited for is none of them."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_end_with_the_batches() -> None:
    before = set(children(os.getpid()))
    batches = Batches(squares(), 8, workers=2, **CROPPED)
    list(batches)
    assert len(set(children(os.getpid())) - before) == 2
    del batches
    gc.collect()
    assert set(children(os.getpid())) <= before


SCRIPT = """
import os, signal, sys, time, torch
from tdsl.runtime.loader import Batches, Split
batches = Batches(Split.whole({"x": torch.arange(100)}), 2, workers=2)
print(*(worker.pid for _ in [next(iter(batches))] for worker in batches._started[0].iterator._workers), flush=True)
kept = batches.epoch(0)
print(len(next(kept).x), flush=True)
ends = sys.argv[1]
if ends == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if ends == "raises":
    raise ValueError
if ends == "terminates":
    for worker in batches._started[0].iterator._workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    print(sum(len(batch.x) for batch in kept))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("ends", ["returns", "raises", "killed", "terminates"])
def test_workers_end_with_their_process(ends: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, ends], env=environment(), capture_output=True, text=True, timeout=300
    )
    first, second, *more = ran.stdout.splitlines()
    assert second == "2"
    assert more == (["98"] if ends == "terminates" else [])
    assert ran.returncode == {"returns": 0, "terminates": 0, "raises": 1, "killed": -signal.SIGKILL}[ends]
    for pid in map(int, first.split()):
        # Those of a process that was killed notice it within five seconds.
        for _ in range(200):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"worker {pid} is still there")


BEGINS = """
import multiprocessing, sys, torch
from tdsl.runtime.loader import Batches, Split
if sys.argv[1:]:
    multiprocessing.set_start_method(sys.argv[1])
batches = Batches(Split.whole({"x": torch.arange(10)}), 4, workers=1)
rows = [batch.x.tolist() for batch in batches.epoch(0)]
print(rows == [batch.x.tolist() for batch in Batches(Split.whole({"x": torch.arange(10)}), 4).epoch(0)])
print(batches._started[0].iterator._workers[0]._popen.method)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="how processes begin there")
@pytest.mark.parametrize(("chosen", "method"), [([], "fork"), (["spawn"], "spawn"), (["forkserver"], "forkserver")])
def test_workers_begin_by_fork_or_as_the_program_chooses(chosen: list[str], method: str) -> None:
    command = [sys.executable, "-c", BEGINS, *chosen]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert ran.stdout.split() == ["True", method], ran.stderr
