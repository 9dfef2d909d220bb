"""Which weights of a checkpoint a program would load: by names and shapes, without the tensors and without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from tdsl.compiler.build.unit import ModuleMember, Unit
from tdsl.compiler.inspect import ParameterInfo, states
from tdsl.dsl import ast

# What is before the tensors of a safetensors file may be this large: as the format has it.
LARGEST_HEADER = 100_000_000
SHARDS = "shards.json"
# How alike two names are, from 0 to 1, for one to be taken for the other's old name.
LIKELY = 0.5

Shape = tuple[int, ...]


class Unreadable(Exception):
    """A file that has no weights; the message says why."""


@dataclass(frozen=True)
class Entry:
    """A tensor's shape, and the same as the program has it: (`2 * dim`, `dim`)."""

    shape: Shape
    dims: tuple[str, ...] = ()

    def __str__(self) -> str:
        if len(self.dims) != len(self.shape):
            return " x ".join(map(str, self.shape)) or "scalar"
        sides = (str(n) if dim == str(n) else f"{dim} = {n}" for n, dim in zip(self.shape, self.dims, strict=True))
        return " x ".join(sides) or "scalar"


@dataclass(frozen=True)
class Row:
    """A name of the checkpoint or the program, and what of it: `loads`, `renamed`, `shape`, `missing` or `extra`.

    `was` is the name that it likely had in the checkpoint.
    """

    name: str
    what: str
    old: Entry | None = None
    new: Entry | None = None
    was: str = ""


@dataclass(frozen=True)
class Difference:
    """Rows in the program's order, then what only the checkpoint has; `unknown` are modules of Python."""

    checkpoint: str
    program: str
    model: str
    rows: tuple[Row, ...]
    unknown: tuple[str, ...] = ()

    @property
    def loads(self) -> bool:
        """Whether the weights load as they are."""
        return all(row.what == "loads" for row in self.rows)


def header(path: Path) -> dict[str, Shape]:
    """The shapes of a safetensors file's tensors by name. Raises `Unreadable`."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LARGEST_HEADER:
                raise ValueError
            tensors = {k: v for k, v in json.loads(file.read(length)).items() if k != "__metadata__"}
            whole = 8 + length + max((each["data_offsets"][1] for each in tensors.values()), default=0)
            if path.stat().st_size < whole:
                raise Unreadable(f"`{path}` is cut short: it has {path.stat().st_size} bytes of {whole}")
            return {name: tuple(each["shape"]) for name, each in tensors.items()}
    except OSError as error:
        raise Unreadable(f"can't read {path}: {error.strerror}") from None
    except (ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError):
        raise Unreadable(f"`{path}` is no safetensors file") from None


def sharded(folder: Path, name: str) -> dict[str, Shape] | None:
    """The shapes of tensors of which several files have rows (`runtime/shards.py`); None where one has them whole.

    Raises `Unreadable`.
    """
    path = folder / SHARDS
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get(name)
        if found is None:
            return None
        shapes = {key: tuple(each["shape"]) for key, each in found["tensors"].items()}
        return header(folder / f"{name}-1-of-{found['files']}.safetensors") | shapes
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"can't read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unreadable(f"`{path}` is damaged") from None


def difference(
    unit: Unit, member: ModuleMember, given: Mapping[str, Shape], old: Mapping[str, Entry]
) -> tuple[Row, ...]:
    """What loading weights of these shapes into a model would do; `old` are the shapes as their program has them."""
    there = {name: Entry(shape, _dims(shape, old.get(name))) for name, shape in given.items()}
    own = states(unit, member)
    new = {each.path: Entry(each.shape, each.dims) for each in own}
    same = {tie: each.path for each in own for tie in each.ties}
    found: list[Row] = []
    missing: dict[str, Entry] = {}
    used = {name for name in there if same.get(name) in new}
    for name, entry in new.items():
        known = next((each for each in (name, *(a for a, p in same.items() if p == name)) if each in there), None)
        if known is None:
            missing[name] = entry
            continue
        used.add(known)
        what = "loads" if there[known].shape == entry.shape else "shape"
        found.append(Row(name, what, there[known], entry))
    extra = {name: entry for name, entry in there.items() if name not in used and not _hidden(unit, member, name)}
    found += _unmatched(missing, extra)
    order = {name: i for i, name in enumerate(new)}
    return tuple(sorted(found, key=lambda row: order.get(row.name, len(order))))


def _dims(shape: Shape, old: Entry | None) -> tuple[str, ...]:
    return old.dims if old is not None and old.shape == shape else ()


def _unmatched(missing: Mapping[str, Entry], extra: Mapping[str, Entry]) -> Iterator[Row]:
    """What the checkpoint lacks, with its likely old name where something of its shape is left over; and the rest."""
    pairs = dict(_renamed(missing, extra))
    for name, entry in missing.items():
        was = pairs.get(name, "")
        yield Row(name, "renamed" if was else "missing", extra.get(was), entry, was)
    for name, entry in extra.items():
        if name not in pairs.values():
            yield Row(name, "extra", entry)


def _renamed(missing: Mapping[str, Entry], extra: Mapping[str, Entry]) -> Iterator[tuple[str, str]]:
    """Pairs of new and old names of one shape, the likeliest first, each name once."""
    likely = sorted(
        (
            (-likeness(new, old), i, j, new, old)
            for i, (new, entry) in enumerate(missing.items())
            for j, (old, other) in enumerate(extra.items())
            if entry.shape == other.shape and likeness(new, old) >= LIKELY
        )
    )
    taken: set[tuple[str, str]] = set()
    for *_, new, old in likely:
        if ("new", new) not in taken and ("old", old) not in taken:
            taken |= {("new", new), ("old", old)}
            yield new, old


def likeness(new: str, old: str) -> float:
    """How alike two paths are, from 0 to 1: by their letters, and by how many of their parts are the same."""
    a, b = new.split("."), old.split(".")
    parts = sum(x == y for x, y in zip(reversed(a), reversed(b), strict=False)) / max(len(a), len(b))
    return (SequenceMatcher(None, new, old, autojunk=False).ratio() + parts) / 2


def hidden(unit: Unit, member: ModuleMember, prefix: str = "") -> Sequence[str]:
    """The paths of modules that are Python's: what is in them is not known."""
    ir = next(each for each in unit.modules if each.class_name == member.class_name)
    if isinstance(ir.source, ast.ExternModule):
        return [prefix]
    return [path for name, each in ir.members.items() if isinstance(each, ModuleMember)
            for path in hidden(unit, each, f"{prefix}{name}.")]  # fmt: skip


def _hidden(unit: Unit, member: ModuleMember, name: str) -> bool:
    return any(name.startswith(path) for path in hidden(unit, member))


def entries(unit: Unit, member: ModuleMember) -> dict[str, Entry]:
    """The shapes of a model's weights by name."""

    def entry(each: ParameterInfo) -> Entry:
        return Entry(each.shape, each.dims)

    return {each.path: entry(each) for each in states(unit, member)}
