"""Types, arguments and counts as the picture writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tdsl.compiler.build.unit import LayerMember, ModuleMember
from tdsl.compiler.ir import Attr, Node, Parameter, Scalar, TensorType, Value

MOST_CHARACTERS = 52
# How arithmetic is written, and what programs call by another name; all else has its own.
SIGNS = {"add": "+", "sub": "\u2212", "mul": "\u00d7", "div": "\u00f7", "matmul": "@"}
NAMES = {"swap_last": ".T"}


def shape(type: TensorType) -> str:
    """`[B, dim]`; a type that is not floating-point says so: `int[B]`."""
    text = str(type)
    return text.removeprefix("float") if type.dtype == "float" else text


def arrow(inputs: Iterable[TensorType], outputs: Iterable[TensorType]) -> str:
    return f"{', '.join(map(shape, inputs))} \u2192 {', '.join(map(shape, outputs))}"


def count(number: int) -> str:
    return f"{number:,} parameter{'s' if number != 1 else ''}"


def short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}\u2026"


def arguments(member: LayerMember | ModuleMember) -> str:
    """The arguments that a layer or module is made with, as the program has them."""
    given = (f"{name}={attr(value)}" if name else attr(value) for name, value in member.args)
    return short(", ".join(given))


def attr(value: Attr) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(attr, value))})"
    if isinstance(value, Scalar):
        return value.text.replace("self.", "") if value.value is None and value.text else attr(value.value)
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def call_title(node: Node) -> str:
    """An operation; arithmetic with its number: `× 0.5`, `1 −`."""
    sign = SIGNS.get(node.op.name)
    parts = [_operand(each) for each in node.inputs] if sign else []
    if sign and len(parts) == 2 and any(parts):
        return f"{parts[0]} {sign} {parts[1]}".strip()
    return sign or NAMES.get(node.op.name, node.op.name)


def _operand(operand: Value | Scalar) -> str:
    return attr(operand) if isinstance(operand, Scalar) else ""


def call_arguments(node: Node) -> str:
    """The numbers and attributes that are not at their defaults: `dim=-1, keepdim=true`."""
    return short(", ".join(_attributes(node)))


def _attributes(node: Node) -> Iterator[str]:
    defaults = {arg.name: arg.default for arg in node.op.signature if not arg.required}
    names = (arg.name for arg in node.op.signature if arg.is_operand)
    numbers = {name: value for name, value in zip(names, node.inputs) if isinstance(value, Scalar)}
    for name, value in {**({} if node.op.name in SIGNS else numbers), **node.attrs}.items():
        hidden = isinstance(value, Scalar) and value.text
        if not hidden and (name not in defaults or attr(value) != attr(defaults[name])):
            yield f"{name}={attr(value)}"


def held(parameter: Parameter) -> str:
    """A parameter that an operation reads itself."""
    return f"{parameter.path} {shape(parameter.value.type)}"
