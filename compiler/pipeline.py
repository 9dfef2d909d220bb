"""The passes, in order, over every graph of a program."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tdsl.compiler.build.unit import Unit
from tdsl.compiler.ir import Graph, Group, Node
from tdsl.compiler.passes.fuse import fuse
from tdsl.compiler.passes.lift_head import lift_head
from tdsl.compiler.passes.place_casts import place_casts
from tdsl.compiler.passes.place_layouts import place_layouts
from tdsl.compiler.passes.recognise import recognise
from tdsl.compiler.passes.structure import structure
from tdsl.compiler.passes.tidy import prune, share

Pass = Callable[[Graph], Graph]
Callback = Callable[[int, Pass, Graph, float], None]

# Order is data. What belongs to one group (lowering, its backward, its schedule) happens as its text is made.
PASSES: tuple[Pass, ...] = (share, prune, recognise, structure, fuse)
# Templates have no gradient of their gradient: a program that asks for one is computed without them.
ONCE: tuple[Pass, ...] = (recognise, structure)


def run(unit: Unit, passes: tuple[Pass, ...] = PASSES, after: Callback | None = None, name: str | None = None) -> Unit:
    """Every pass over every graph; `after` sees each result: to dump, time or verify it.

    Casts are placed for the run of that name; without one for the precision that all runs have, else for f32.
    """
    called = after or _dump_and_verify()
    passes = passes_of(unit, passes)
    if recognise in passes:
        unit = lift_head(unit)
    for number, step in enumerate(passes):

        def apply(graph: Graph, number: int = number, step: Pass = step) -> Graph:
            start = time.perf_counter()
            changed = step(graph)
            called(number, step, changed, time.perf_counter() - start)
            return changed

        unit = unit.map_graphs(apply)
    return distinct(place_layouts(place_casts(unit, _precision(unit, name))))


def passes_of(unit: Unit, passes: tuple[Pass, ...] = PASSES) -> tuple[Pass, ...]:
    """Those of `passes` that a program can have."""
    twice = any(graph.differentiates for graph in unit.graphs())
    return tuple(step for step in passes if step not in ONCE) if twice else passes


def _precision(unit: Unit, name: str | None) -> str:
    runs = unit.runs.values() if name is None else (unit.runs[name],)
    found = {str(each.spec.settings.get("precision") or "f32") for each in runs}
    return found.pop() if len(found) == 1 else "f32"


def _dump_and_verify() -> Callback:
    """The standard callback: with `TDSL_DUMP=dir` the IR after each pass is written there; always it is verified."""
    from tdsl.compiler.verify import InvalidGraph, verify

    folder = os.environ.get("TDSL_DUMP")

    def called(number: int, step: Pass, graph: Graph, seconds: float) -> None:
        if folder:
            from tdsl.compiler.printer import dump

            Path(folder).mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "_", graph.name)
            Path(folder, f"{number:02d}-{step.__name__}-{name}.ir").write_text(dump(graph), encoding="utf-8")
        try:
            verify(graph)
        except InvalidGraph as error:
            raise RuntimeError(f"the pass `{step.__name__}` broke the graph `{graph.name}`") from error

    return called


def distinct(unit: Unit) -> Unit:
    """Name groups apart, and tell them whether the program differentiates gradients.

    Those that compute the same share a name, others of the same name get a number.
    """
    from tdsl.compiler.emit.plan import same_kernel
    from tdsl.compiler.emit.triton import RESERVED

    names: dict[object, str] = {}
    # What `kernels.py` calls otherwise: a module may be called `Launch` or `Math`.
    taken = {*RESERVED, "math", "once_differentiable", "tuple", "int"}
    twice = any(graph.differentiates for graph in unit.graphs())
    inputs = _input_names(unit)

    def named(node: Node) -> Node:
        if node.group is None:
            return node
        key = same_kernel(node.group)
        if key not in names:
            wish, number = node.group.name, 2
            name = wish
            while {name, f"{name}_reference"} & taken:
                name, number = f"{wish}_{number}", number + 1
            taken.update((name, f"{name}_reference"))
            names[key] = name
        return replace(node, group=replace(node.group, name=names[key], names=inputs[key], twice=twice))

    return unit.map_graphs(lambda graph: replace(graph, nodes=tuple(map(named, graph.nodes))))


def _input_names(unit: Unit) -> dict[object, tuple[str, ...]]:
    """What the inputs of each kernel are called, where all that share it agree."""
    from tdsl.compiler.emit.plan import same_kernel

    found: dict[object, tuple[str, ...]] = {}
    for graph in unit.graphs():
        for group in (node.group for node in graph.nodes if node.group is not None):
            key = same_kernel(group)
            before = found.get(key, group.names)
            found[key] = tuple(a if a == b else "" for a, b in zip(before, group.names))
    return found


def groups(unit: Unit) -> list[Group]:
    """Each group of a program once, in the order of its first use."""
    found: dict[str, Group] = {}
    for graph in unit.graphs():
        for node in graph.nodes:
            if node.group is not None:
                found.setdefault(node.group.name, node.group)
    return list(found.values())
