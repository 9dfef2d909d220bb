"""Fields of images in arrays: their means, and channels that lie behind."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from tdsl.compiler.emit.project import Options, emit, write
from tests.helpers import compiled, tdsl
from tests.running import importable

TEXT = """data D {
    source = npz("images.npz")
    field x: FIELD
    field label: int[] = column("label")
}
module Net() {
    l = Linear(1, 2)
    forward(x: float[B]) -> float[B, 2] { return l(x.unsqueeze(-1)) }
}
train t {
    model = Net()
    data  = D
    loss(batch) { return cross_entropy(model(batch.x), batch.label) }
    optimizer = SGD(lr=0.1)
    epochs = 1
}
"""


def images(folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    found = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", image=found, label=np.arange(10) % 2)
    return found


@pytest.mark.parametrize("dim", ["(-3, -2, -1)", "[-1, -2, -3]"])
def test_a_mean_over_several_dimensions_of_a_row(dim: str, tmp_path: Path) -> None:
    given = images(tmp_path)
    text = TEXT.replace("FIELD", f'float[] = column("image").float().mean(dim={dim}) / 255')
    unit = compiled(text, name=tmp_path / "d.model")
    write(emit(unit, Options("t", root=str(tmp_path))), tmp_path / "emitted")
    with importable(tmp_path / "emitted"):
        data = runpy.run_path(str(tmp_path / "emitted" / "data.py"))
    found = data["load"]()["train"].fields["x"]
    np.testing.assert_allclose(np.asarray(found), given.mean((1, 2, 3)) / 255, rtol=1e-5)


@pytest.mark.parametrize("dim", ["(0, -1)", "(-1, 0)", "0"])
def test_a_mean_over_the_rows_is_refused(dim: str, tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "d.model").write_text(TEXT.replace("FIELD", f'float[] = column("image").float().mean(dim={dim}) / 255'))
    ran = tdsl("check", "d.model", cwd=tmp_path)
    assert (ran.returncode, "E455" in ran.stderr) == (2, True)


def test_channels_that_lie_behind_are_brought_to_the_front(tmp_path: Path) -> None:
    images(tmp_path)
    text = TEXT.partition("module")[0]
    (tmp_path / "d.model").write_text(text.replace("FIELD", 'float[3, 6, 8] = column("image")'))
    ran = tdsl("check", "d.model", cwd=tmp_path)
    assert ran.returncode == 2
    assert "`transform x = [ToTensor()]` brings channels of bytes to the front" in ran.stderr
    cured = text.replace("FIELD", 'float[3, 6, 8] = column("image")\n    transform x = [ToTensor()]')
    (tmp_path / "d.model").write_text(cured)
    assert tdsl("check", "d.model", cwd=tmp_path).returncode == 0


def test_a_transform_has_its_own_place(tmp_path: Path) -> None:
    images(tmp_path)
    text = TEXT.replace("FIELD", 'float[] = Normalize(column("image"), mean=[0.5])')
    (tmp_path / "d.model").write_text(text)
    ran = tdsl("check", "d.model", cwd=tmp_path)
    assert ran.returncode == 2
    assert "write it in `transform FIELD = [Normalize(...)]`" in ran.stderr
