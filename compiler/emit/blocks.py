"""Which modules of a run FSDP gathers one after another: those whose parameters nothing reads but a call of theirs.

What one kernel computes with a module's parameters, what is tied to others', what a loss reads (`model.head.weight`):
all that is read beside the module's own call has to be there for the whole of a forward, and stays with the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tdsl.compiler.build.unit import (
    ListMember,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    RunIR,
    SequentialMember,
    SharedMember,
    Unit,
)
from tdsl.compiler.emit.headed import headed_lines
from tdsl.compiler.emit.python import block_lines, graph_lines
from tdsl.compiler.inspect import parameters
from tdsl.compiler.reach import module_of
from tdsl.dsl import ast

# A module that is no element of a list is a block where it has such a share of the model's parameters.
SHARE = 0.05
# `self.blocks[0].up.weight`, as emitted code reads what a module has.
READ = re.compile(r"\b(\w+)((?:\.\w+|\[\d+\])+)")


def blocks(unit: Unit, run: RunIR) -> tuple[str, ...]:
    """The paths of the blocks of a run's models, `*` standing for every element of a list; those of `model` without it.

    The elements of lists are blocks, and otherwise modules that have no such lists and a good share of the parameters.
    """
    evaluation = unit.evaluations.get(run.spec.name)
    graphs = (run.loss, evaluation.compare if evaluation is not None else None)
    lines = [line for graph in graphs if graph is not None for line in block_lines(graph)]
    found: list[str] = []
    for name, member in run.models.items():
        outside = [path for owner, path in _reads(lines) if owner == name]
        lead = "" if name == "model" else f"{name}."
        large = [
            path for path in _within(unit, member, "", outside) if _is_listed(path) or _is_large(unit, member, path)
        ]
        found += [f"{lead}{path}" for path in large]
    return tuple(found)


def _reads(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What lines read of what has parts: `self` and `blocks.0.up.weight`."""
    for line in lines:
        for owner, path in READ.findall(line.partition("  # ")[0]):
            yield owner, path.replace("[", ".").replace("]", "")[1:]


def _within(unit: Unit, member: ModuleMember, path: str, outside: Sequence[str]) -> Iterator[str]:
    """The blocks of a module at `path`; `outside` are the paths that those around it read."""
    module = module_of(unit, member)
    if module is None or isinstance(module.source, ast.ExternModule):
        return
    read = [*outside, *(_joined(path, each) for each in _own(module))]
    for name, each in module.members.items():
        yield from _blocks(unit, each, _joined(path, name), read, listed=False)


def _blocks(unit: Unit, member: object, path: str, outside: Sequence[str], *, listed: bool) -> Iterator[str]:
    if isinstance(member, RepeatMember):
        yield from _blocks(unit, member.element, f"{path}.*", outside, listed=True)
    elif isinstance(member, (ListMember, SequentialMember)):
        for i, element in enumerate(member.elements):
            yield from _blocks(unit, element, f"{path}.{i}", outside, listed=True)
    elif isinstance(member, ModuleMember):
        module = module_of(unit, member)
        free = not any(_is_below(each, path) for each in outside)
        able = free and module is not None and not isinstance(module.source, ast.ExternModule)
        below = [] if able and listed else list(_within(unit, member, path, outside))
        if able and not any(_is_listed(each.removeprefix(path)) for each in below):
            yield path
        else:
            yield from below


def _own(module: ModuleIR) -> Iterator[str]:
    """The paths that a module's `forward` reads, and those that it has under other names."""
    lines = headed_lines(module.graph, module.head) if module.head else graph_lines(module.graph)
    yield from (path for owner, path in _reads(lines) if owner == "self")
    yield from (path for tie in module.ties for path in tie)
    yield from (each.path for each in module.members.values() if isinstance(each, SharedMember))


def _is_listed(path: str) -> bool:
    return any(part == "*" or part.isdigit() for part in path.split("."))


def _is_large(unit: Unit, member: ModuleMember, path: str) -> bool:
    counts = {each.path: each.count for each in parameters(unit, member)}
    own = sum(count for name, count in counts.items() if _is_below(name, path))
    return own >= SHARE * sum(counts.values())


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_below(path: str, block: str) -> bool:
    """Whether a path leads into a block."""
    parts, own = path.split("."), block.split(".")
    return len(parts) > len(own) and all(b in ("*", a) or a == "*" for a, b in zip(parts, own, strict=False))
