"""At which sizes `tdsl verify` runs each kernel: as declared, and at awkward ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from tdsl.compiler.ir import Group, Scalar
from tdsl.compiler.precision import low_precision
from tdsl.compiler.size import Size, Symbol
from tdsl.compiler.structured.template import template_of

# Empty, one, around a power of two, a prime; and one long row.
AWKWARD = (0, 1, 7, 8, 9, 13)
LONG = 2049
# What stands for the batch and other sizes of the run.
USUAL = 5
MOST_ELEMENTS = 1 << 15


def cases(groups: Sequence[Group]) -> str:
    """All cases as JSON: group, shapes and dtypes of its tensors, its scalars."""
    found = [case for group in groups for case in _cases(group)]
    return json.dumps(found, indent=1) + "\n"


def case(group: Group, shapes: Sequence[Sequence[int]]) -> dict[str, object]:
    """A case of tensors of these shapes."""
    made = template_of(group).case if group.structure is not None else None
    if made is not None:
        return {"group": group.name, **asdict(made(group, shapes))}
    mixed = low_precision(group) is not None
    return {
        "group": group.name,
        "shapes": shapes,
        "dtypes": [_dtype(v.type.dtype, mixed) for v in group.body.inputs],
        "scalars": [_value(s) for s in group.scalars],
    }


def _cases(group: Group) -> Iterator[dict[str, object]]:
    return _generated(group) if group.structure is None else _structured(group)


def _structured(group: Group) -> Iterator[dict[str, object]]:
    for case in template_of(group).cases(group):
        yield {"group": group.name, **asdict(case)}


def _generated(group: Group) -> Iterator[dict[str, object]]:
    seen = set()
    for sizes in _assignments(group):
        shapes = tuple(tuple(_number(s, sizes) for s in v.type.shape) for v in group.body.inputs)
        if shapes in seen or any(_elements(s) > MOST_ELEMENTS for s in shapes):
            continue
        seen.add(shapes)
        yield case(group, shapes)


def _dtype(dtype: str, mixed: bool) -> str:
    """`float` is each precision in turn, and so is `f32` where there is nothing beside it."""
    return "float" if dtype == "f32" and not mixed else dtype


def _assignments(group: Group) -> Iterator[Mapping[Symbol, int]]:
    known = group.body.known
    every = {s for v in group.body.inputs for size in v.type.shape for s in size.symbols()}
    declared = {s: known.get(s, USUAL) for s in every}
    yield declared
    # What is known to be one number is read as one.
    symbols = [s for s in every if known.get(s) != 1]
    run = [s for s in symbols if not s.param]
    for n in AWKWARD:
        yield {**declared, **dict.fromkeys(run, n)}
    for n in AWKWARD[1:]:
        yield {**declared, **dict.fromkeys(symbols, n), **dict.fromkeys(run, USUAL)}
    yield {**declared, **dict.fromkeys(symbols, LONG), **dict.fromkeys(run, 2)}


def _number(size: Size, sizes: Mapping[Symbol, int]) -> int:
    found = size.substitute(sizes).constant
    assert found is not None, size
    return found


def _elements(shape: Sequence[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _value(scalar: Scalar) -> float:
    """What is known of it, or a tenth: a rate of dropout."""
    value = scalar.value
    if isinstance(value, Size):
        return float(value.constant or USUAL)
    return float(value) if isinstance(value, (int, float)) else 0.1
