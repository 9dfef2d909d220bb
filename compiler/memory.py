"""The memory that a training step takes on a GPU: parameters, optimizer, activations, and the peak. Without torch.

What is kept for the backward is what `tdsl explain` tells line by line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tdsl.compiler import higher_gradients, patterns
from tdsl.compiler.build.unit import RunIR, Unit
from tdsl.compiler.explain.explain import explain
from tdsl.compiler.explain.model import Explanation, PartKind
from tdsl.compiler.explain.sizes import WIDTHS
from tdsl.compiler.inspect import ParameterInfo, states
from tdsl.compiler.passes.place_casts import LOW
from tdsl.dsl.program import Call, Constant

# Tensors of a parameter's size that an optimizer keeps beside it, and further ones by the argument that asks for each.
STATES: Mapping[str, int] = {
    "SGD": 0,
    "Adam": 2,
    "AdamW": 2,
    "RMSprop": 1,
    "Adagrad": 1,
    "Adadelta": 2,
    "Adamax": 2,
    "NAdam": 2,
    "RAdam": 2,
    "Lion": 1,
    "Muon": 1,
}
MORE: Mapping[str, tuple[str, ...]] = {
    "SGD": ("momentum",),
    "Adam": ("amsgrad",),
    "AdamW": ("amsgrad",),
    "RMSprop": ("momentum", "centered"),
}
# What the driver, cuBLAS and cuDNN take on a GPU before the first tensor, and what lies unused between tensors.
RESERVED = 768 * 2**20
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Memory:
    """Bytes that a step of `rows` rows takes, where `accumulate` of them make an optimizer step.

    `copies` are parameters in a lower precision, `averages` those of an EMA, `activations` what the forward keeps for
    the backward, `recomputed` the most that a module keeps which computes again for it, `working` the most that one
    kernel or call reads and writes; `assumed` are sizes that a run knows.
    `differentiated` is what a `grad` of the program itself keeps, at most: an estimate.
    """

    rows: int
    accumulate: int
    precision: str
    parameters: int
    copies: int
    gradients: int
    optimizer: int
    averages: int
    batch: int
    activations: int
    working: int
    assumed: tuple[str, ...] = ()
    differentiated: int = 0
    recomputed: int = 0

    @property
    def lasting(self) -> int:
        """What is there from step to step."""
        return self.parameters + self.copies + self.optimizer + self.averages

    @property
    def peak(self) -> int:
        """As if all of it were there at once, though gradients come while activations go."""
        kept = self.activations + self.differentiated + self.recomputed
        return self.lasting + self.gradients + self.batch + kept + self.working


def memory(unit: Unit, name: str) -> Memory:
    """The memory of a run of a program before its passes."""
    run = unit.runs[name]
    found = [each for member in run.models.values() for each in states(unit, member)]
    trained = _bytes([each for _, each in patterns.trained(unit, run)])
    told = explain(unit, name)
    accumulate = told.passes
    rows = max(_batch_size(run) // accumulate, 1)
    activations = told.cost.kept - told.cost.copies
    return Memory(
        rows=rows,
        accumulate=accumulate,
        precision=told.precision,
        parameters=_bytes(found),
        copies=_copies(found) if told.precision in LOW else 0,
        gradients=trained,
        optimizer=_states(run.spec.optimizer) * trained,
        averages=_bytes(found) if run.spec.settings.get("ema") is not None else 0,
        batch=rows * sum(_row(field.dtype, field.shape) for field in run.spec.data.fields),
        activations=activations,
        working=_working(told),
        assumed=told.assumed,
        differentiated=higher_gradients.kept(unit, run, activations),
        recomputed=told.recomputed,
    )


def _batch_size(run: RunIR) -> int:
    found = run.spec.settings.get("batch_size")
    return found if isinstance(found, int) else 1


def _bytes(found: list[ParameterInfo]) -> int:
    """Of parameters and buffers, which are float32; a number of batches has 64 bits."""
    return sum(4 * each.count if each.shape or not each.statistic else 8 for each in found)


def _copies(found: list[ParameterInfo]) -> int:
    return sum(2 * each.count for each in found if each.copied)


def _states(optimizer: Call) -> int:
    """Tensors of a parameter's size that an optimizer keeps."""
    asked = (optimizer.args.get(name) for name in MORE.get(optimizer.name, ()))
    return STATES.get(optimizer.name, 2) + sum(bool(value) for value in asked)


def _row(dtype: str, shape: tuple[int, ...]) -> int:
    size = 4 if dtype == "float" else WIDTHS.get({"int": "i64"}.get(dtype, dtype), 4)
    for n in shape:
        size *= n
    return size


def _working(told: Explanation) -> int:
    parts = [p for table in told.tables for p in table.parts if p.kind is not PartKind.MODULE]
    return max((max(p.cost.forward, p.cost.backward) for p in parts), default=0)


# Whether it fits ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Whether a run fits into so many bytes, and with which `accumulate` it would; None where with none.

    `possible` says whether the batch can be computed in parts.
    """

    limit: int
    fits: bool
    accumulate: int | None
    possible: bool


def fit(unit: Unit, name: str, found: Memory, limit: int) -> Fit:
    """Compare a run's memory with a GPU's, less what is never a tensor's."""
    possible = unit.runs[name].accumulation.possible
    if found.peak + RESERVED <= limit:
        return Fit(limit, True, found.accumulate, possible)
    parts, rows = found.accumulate, found.rows
    while possible and rows > 1:
        parts, rows = parts * 2, max(rows // 2, 1)
        if memory(_accumulating(unit, name, parts), name).peak + RESERVED <= limit:
            return Fit(limit, False, parts, possible)
    return Fit(limit, False, None, possible)


def _accumulating(unit: Unit, name: str, parts: int) -> Unit:
    run = unit.runs[name]
    settings: dict[str, Constant] = {**run.spec.settings, "accumulate": parts}
    changed = replace(run, spec=replace(run.spec, settings=settings))
    return replace(unit, runs={**unit.runs, name: changed})


def size_of(text: str) -> int | None:
    """Bytes, of `24GiB`, `24 GB`, `512MiB`; None for what is no size."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B)", text.strip(), re.IGNORECASE)
    return int(float(found[1]) * UNITS[found[2].upper()]) if found else None
