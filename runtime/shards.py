"""Tensors of a checkpoint in one file, or with the rows of each in several: one file a process that had them.

    NAME.safetensors           all tensors whole, or
    NAME-1-of-2.safetensors    the first rows of each, and what is not divided, whole
    NAME-2-of-2.safetensors    the rows after these
    shards.json                by NAME how many files there are, and of each divided tensor its `shape` and at which row
                               of it each file's `starts`

Rows are those of a tensor's first dimension. Files that several processes wrote can be read by any number of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tdsl.runtime import ranks
from tdsl.runtime.files import sync

SHARDS = "shards.json"
# Which rows of a tensor are wanted, by its name and shape; None where it is wanted whole.
Wanted = Callable[[str, tuple[int, ...]], slice | None]


@dataclass(frozen=True)
class Piece:
    """Rows of a tensor of `shape`: `tensor` has those from `start` on."""

    tensor: Tensor
    shape: tuple[int, ...]
    start: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + len(self.tensor))

    def like(self, tensor: Tensor) -> Tensor | Piece:
        """What belongs to this piece: the same rows of something of the same shape, or something else, whole."""
        return Piece(tensor, self.shape, self.start) if tensor.shape == self.tensor.shape else tensor


def piece(value: Tensor) -> Tensor | Piece:
    """What this process has of a tensor: all of it, or where FSDP has divided it among processes, its rows."""
    if not divided(value):
        return value
    local: Tensor = value.to_local()  # type: ignore[attr-defined]
    rows = -(-len(value) // ranks.count())
    return Piece(local.detach(), tuple(value.shape), min(rows * ranks.rank(), len(value)))


def divided(value: object) -> bool:
    """Whether a tensor is divided among processes. PyTorch's module for these takes a second to import."""
    tensor = sys.modules.get("torch.distributed.tensor")
    return tensor is not None and isinstance(value, tensor.DTensor)


def any_divided(models: Iterable[nn.Module]) -> bool:
    """Whether the parameters of models are divided among processes."""
    return any(divided(parameter) for model in models for parameter in model.parameters())


def pieces(state: Mapping[str, Any]) -> dict[str, Tensor | Piece]:
    """A state as it is written here: of each tensor's several names the first, and of all what this process has."""
    names = {id(value): name for name, value in reversed(list(state.items()))}
    return {name: piece(value) for name, value in state.items() if names[id(value)] == name}


# Writing ------------------------------------------------------------------------------------------------------------


def write(folder: Path, name: str, tensors: Mapping[str, Tensor | Piece]) -> Path | None:
    """Write what this process has of the tensors, if anything; what is not divided is rank 0's to write."""
    own = {key: each.tensor for key, each in tensors.items() if isinstance(each, Piece)}
    if not own and ranks.rank():
        return None
    path = folder / (_file(name, ranks.rank(), ranks.count()) if own else f"{name}.safetensors")
    if ranks.rank() == 0:
        own |= {key: each for key, each in tensors.items() if isinstance(each, Tensor)}
    save_file({key: each.detach().cpu().contiguous().clone() for key, each in own.items()}, path)
    sync(path)
    return path


def _file(name: str, number: int, count: int) -> str:
    return f"{name}-{number + 1}-of-{count}.safetensors"


def starts(tensors: Mapping[str, Tensor | Piece]) -> dict[str, Any]:
    """Where the rows of this process begin, and the shapes that they are of."""
    return {key: (each.shape, each.start) for key, each in tensors.items() if isinstance(each, Piece)}


def index(found: list[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """`shards.json` of what `starts` told of each collection, rank by rank."""
    return {
        name: {
            "files": len(found),
            "tensors": {
                key: {"shape": shape, "starts": [each[name][key][1] for each in found]}
                for key, (shape, _) in tensors.items()
            },
        }
        for name, tensors in found[0].items()
        if tensors
    }


# Reading ------------------------------------------------------------------------------------------------------------


def exists(folder: Path, name: str) -> bool:
    """Whether a checkpoint has tensors of this name."""
    return (folder / f"{name}.safetensors").exists() or name in _index(folder)


def whole(folder: Path, name: str) -> Path | None:
    """The file that has all tensors of this name; None where they are divided among several."""
    return None if name in _index(folder) else folder / f"{name}.safetensors"


def read(folder: Path, name: str, wanted: Wanted = lambda name, shape: None) -> dict[str, Tensor]:
    """The tensors of a name, on the CPU, of each the rows that are `wanted`. No other rows are read."""
    given = _index(folder).get(name)
    if given is None:
        return _read(folder / f"{name}.safetensors", {}, 0, wanted)
    found: dict[str, list[Tensor]] = {}
    for number in range(given["files"]):
        path = folder / _file(name, number, given["files"])
        for key, tensor in _read(path, given["tensors"], number, wanted).items():
            found.setdefault(key, []).append(tensor)
    return {key: torch.cat(parts) if len(parts) > 1 else parts[0] for key, parts in found.items()}


def _read(path: Path, table: Mapping[str, Any], number: int, wanted: Wanted) -> dict[str, Tensor]:
    found = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (what is opened is no mapping)
            rows = file.get_slice(key)
            shape = tuple(table[key]["shape"]) if key in table else tuple(rows.get_shape())
            start = table[key]["starts"][number] if key in table else 0
            part = wanted(key, shape)
            if part is None:
                found[key] = file.get_tensor(key)
            else:
                count = rows.get_shape()[0]
                first, last = (min(max(row - start, 0), count) for row in (part.start, part.stop))
                found[key] = rows[first:last]
    return found


def _index(folder: Path) -> dict[str, Any]:
    path = folder / SHARDS
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def put(given: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Copy tensors into those of a state, of divided ones this process's rows. Raises `RuntimeError` for others."""
    lacking, more = sorted(state.keys() - given.keys()), sorted(given.keys() - state.keys())
    if lacking or more:
        raise RuntimeError(f"missing: {', '.join(lacking) or 'nothing'}; not known: {', '.join(more) or 'nothing'}")
    for name, value in state.items():
        own = piece(value)
        tensor = own.tensor if isinstance(own, Piece) else own
        if tensor.shape != given[name].shape:
            raise RuntimeError(f"size mismatch for {name}: {tuple(given[name].shape)} instead of {tuple(value.shape)}")
        with torch.no_grad():
            tensor.copy_(given[name])


def wanted(state: Mapping[str, Any]) -> Wanted:
    """Of tensors that are divided in a state the rows that this process has."""

    def rows(name: str, shape: tuple[int, ...]) -> slice | None:
        own = piece(state[name]) if name in state else None
        return own.rows if isinstance(own, Piece) and own.shape == shape else None

    return rows


def beside(owners: Mapping[str, Tensor | Piece]) -> Wanted:
    """Of what belongs to tensors, `OWNER.KEY`, the rows that this process has of them."""

    def rows(name: str, shape: tuple[int, ...]) -> slice | None:
        own = owners.get(name.rpartition(".")[0])
        return own.rows if isinstance(own, Piece) and own.shape == shape else None

    return rows
