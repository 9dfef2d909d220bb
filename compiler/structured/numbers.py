"""Numbers and sizes of structured groups: as text, and as they are while a group is verified."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.ir import Attr, Group, Scalar
from tdsl.compiler.size import Size
from tdsl.compiler.structured.template import Naming


def number_text(number: Attr, naming: Naming) -> str:
    """A number of a group as its text has it: a literal, or the name of an argument."""
    return naming.scalars[number] if isinstance(number, Scalar) and number.text else repr(number)


def declared(number: Attr, group: Group, otherwise: int) -> int:
    """A whole number as the program has it, `otherwise` where it does not tell it."""
    value = number.value if isinstance(number, Scalar) else number
    if isinstance(value, Size):
        value = value.substitute(group.body.known).constant
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def given(group: Group, numbers: Mapping[str, float]) -> tuple[float, ...]:
    """The arguments after a group's tensors, where its options have these numbers."""
    assert group.structure is not None
    options = {number: name for name, number in group.structure.options.items() if isinstance(number, Scalar)}
    return tuple(numbers[options[scalar]] for scalar in group.scalars)
