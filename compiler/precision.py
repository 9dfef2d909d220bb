"""The precision that a group computes in."""

from __future__ import annotations

from tdsl.compiler.ir import Group, Scalar


def low_precision(group: Group) -> Scalar | None:
    """What PyTorch calls the precision between which and float32 a group's body casts; None where it does not."""
    found = (n.attrs["dtype"] for n in group.body.nodes if n.op.name in ("upcast", "downcast"))
    low = next(found, None)
    return low if isinstance(low, Scalar) else None
