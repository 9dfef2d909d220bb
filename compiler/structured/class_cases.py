"""The sizes at which kernels of losses over classes are verified."""

from __future__ import annotations

from collections.abc import Iterator

from tdsl.compiler.ir import Group, Structure, Value
from tdsl.compiler.structured.template import Case

# Rows, and classes: few, around a power of two, primes, more than a program has at once.
ROWS = (0, 1, 7, 8, 9, 601)
CLASSES = (1, 2, 7, 8, 9, 31, 8209)
# Columns of what a linear layer makes scores of.
WIDTH = 8


def cases(group: Group) -> Iterator[Case]:
    """Those of a group with the roles `scores`, or `x` and `weight`."""
    structure = group.structure
    assert structure is not None
    roles = structure.roles
    size = roles["scores"].type.shape[-1] if "scores" in roles else roles["weight"].type.shape[0]
    declared = size.substitute(group.body.known).constant
    yield _case(group, structure, 5, declared if declared is not None else 13)
    yield from (_case(group, structure, rows, 13) for rows in ROWS)
    yield from (_case(group, structure, 2, classes) for classes in CLASSES)


def _case(group: Group, structure: Structure, rows: int, classes: int) -> Case:
    mixed = any(n.op.name in ("upcast", "downcast") for n in group.body.nodes)
    roles = {value: role for role, value in structure.roles.items()}
    shapes, dtypes = [], []
    for value in group.body.inputs:
        role = roles[value]
        shapes.append(_shape(role, len(value.type.shape), rows, classes))
        dtypes.append(_labels(structure, classes) if role == "target" else _float(role, value, mixed))
    return Case(tuple(shapes), tuple(dtypes))


def _shape(role: str, rank: int, rows: int, classes: int) -> tuple[int, ...]:
    if role in ("class_weight", "bias"):
        return (classes,)
    if role == "weight":
        return (classes, WIDTH)
    last = {"scores": (classes,), "x": (WIDTH,)}.get(role, ())
    return ((rows, *(2,) * rank)[: rank - len(last)]) + last


def _float(role: str, value: Value, mixed: bool) -> str:
    dtype = "f32" if value.type.dtype == "f32" and mixed else "float"
    return f"positive {dtype}" if role == "class_weight" else dtype


def _labels(structure: Structure, classes: int) -> str:
    ignored = structure.options["ignore_index"]
    return f"below:{classes}" + (f":{ignored}" if ignored is not None else "")
