"""Templates filled in: strings reach them as Python text, or through the filter `literal`."""

from __future__ import annotations

import ast as python
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tdsl.compiler.emit.expression import constant

if TYPE_CHECKING:
    from jinja2 import Environment

# The longest line of emitted code.
WIDTH = 120
# Operators, and how tightly they bind.
_SIGNS: Mapping[type[python.operator], str] = {
    python.Add: "+",
    python.Sub: "-",
    python.Mult: "*",
    python.Div: "/",
    python.FloorDiv: "//",
    python.Mod: "%",
    python.MatMult: "@",
    python.Pow: "**",
    python.BitAnd: "&",
    python.BitOr: "|",
}
_BINDS = {
    kind: 0 if sign in "+-" else 1 if sign in ("*", "/", "//", "%", "@") else sign for kind, sign in _SIGNS.items()
}


def render(template: str, **values: Any) -> str:
    """The text of `templates/TEMPLATE` for the values given; a value that it lacks is an error."""
    return _environment().get_template(template).render(values)


def docstring(text: str) -> str:
    """Text from outside, such as a comment of the program, as it may stand between the quotes of a docstring."""
    shown = "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
    return re.sub(r'"{3,}|"+\Z', lambda quotes: '\\"' * len(quotes[0]), shown.replace("\\", "\\\\"))


def plain(text: str) -> str:
    """Text from outside, such as a file's name, on one line: as it may stand in a comment."""
    return "".join(char if char.isprintable() else "?" for char in text)


def layout(head: str, arguments: Sequence[str], tail: str, indent: int, brackets: str = "()") -> str:
    """`head(arguments)tail` on one line at that indentation, or with an argument a line where it would be too long."""
    opening, closing = brackets[0], brackets[1]
    line = f"{head}{opening}{', '.join(arguments)}{closing}{tail}"
    if indent + len(line) <= WIDTH:
        return line
    inner = " " * (indent + 4)
    lines = (f"{inner}{argument}," for argument in arguments)
    return "\n".join([f"{head}{opening}", *lines, f"{' ' * indent}{closing}{tail}"])


def broken(text: str, indent: int) -> str:
    """An argument of a call, at that indentation: where it is too long, its outermost operators begin lines."""
    if indent + len(text) < WIDTH:
        return text
    raw, found = text.encode(), python.parse(text, mode="eval").body
    ends, starts = [len(raw)], []
    while isinstance(found, python.BinOp):
        # Behind the operator there may be parentheses, which are no part of the operand.
        operator = _SIGNS[type(found.op)].encode()
        starts.append(raw.rindex(operator, 0, found.right.col_offset))
        ends.append(starts[-1])
        same = isinstance(found.left, python.BinOp) and _BINDS[type(found.left.op)] == _BINDS[type(found.op)]
        found = found.left if same else python.Constant(None)
    parts = [raw[start:end].decode().rstrip() for start, end in zip([*starts, 0], ends, strict=True)]
    return f"\n{' ' * indent}".join(reversed(parts))


def import_from(module: str, names: Iterable[str]) -> str:
    """`from module import A, B` in the order that isort has: constants, then classes, each as people count."""
    ordered = sorted(set(names), key=lambda name: (not (name.isupper() and name[1:]), _natural(name)))
    line = f"from {module} import {', '.join(ordered)}"
    return line if len(line) <= WIDTH else layout(f"from {module} import ", ordered, "", 0)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name.lower())]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("tdsl.templates", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    found.filters |= {"literal": constant, "docstring": docstring}
    return found
