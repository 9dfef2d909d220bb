"""Files with a few bytes changed, cut off or put in: located errors, or rows on whose number check and run agree."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tdsl.compiler.probe import ProbeError, probe
from tdsl.runtime import sources
from tdsl.runtime.sources import DataError

TRIES = 300


def jsonl(path: Path) -> None:
    path.write_text("".join(f'{{"x": [{i}, {i}.5], "name": "é{i}", "flag": true}}\n' for i in range(20)))


def tensors(path: Path) -> None:
    save_file({"x": torch.arange(40.0).reshape(20, 2), "label": torch.arange(20)}, path)


def numbers(path: Path) -> None:
    with path.open("wb") as opened:
        np.save(opened, np.arange(100, dtype=np.uint16))


def images(path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = path / "a" / "1.png"
    path.parent.mkdir(parents=True)
    image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(path)


def mutated(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    kind = draw.randrange(4)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + draw.randbytes(draw.randrange(1, 5)) + content[at:]
    size = draw.randrange(1, 9)
    return content[:at] + (draw.randbytes(size) if kind == 2 else b"") + content[at + size :]


@pytest.mark.parametrize(
    ("kind", "write", "args"),
    [
        ("jsonl", jsonl, {}),
        ("safetensors", tensors, {}),
        ("tokens", numbers, {"window": 4}),
        ("image_folder", images, {}),
    ],
)
def test_damage_is_told(tmp_path: Path, kind: str, write: Callable[[Path], None], args: dict[str, Any]) -> None:
    write(tmp_path / "a")
    file = tmp_path / "a/a/1.png" if kind == "image_folder" else tmp_path / "a"
    whole, draw, outcomes = file.read_bytes(), random.Random(0), []
    for _ in range(TRIES):
        file.write_bytes(mutated(whole, draw))
        checked = rows(lambda: probe(kind, {"path": "a", **args}, tmp_path).rows)
        outcomes.append((checked, rows(lambda: read(kind, tmp_path, args))))
    told = {file for outcome in outcomes for file in outcome if isinstance(file, str)}
    assert told <= {"a", "a/a/1.png"}
    counted = [outcome for outcome in outcomes if all(isinstance(each, int) for each in outcome)]
    assert [outcome for outcome in counted if outcome[0] != outcome[1]] == []
    assert sum(isinstance(run, str) for _, run in outcomes) > TRIES // 5


def rows(look: Callable[[], int]) -> int | str:
    """How many rows there are, or the file that an error names."""
    try:
        return look()
    except (ProbeError, DataError) as error:
        return error.file


def read(kind: str, folder: Path, args: dict[str, Any]) -> int:
    table = getattr(sources, kind)(folder, "a", **args)
    for name in table.data:
        if name in ("image", "tokens"):
            table.column(name).rows(torch.arange(table.rows))
    return int(table.rows)
