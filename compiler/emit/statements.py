"""Statements of emitted functions, and how they are laid out in lines."""

from __future__ import annotations

from dataclasses import dataclass

from tdsl.compiler.emit.render import WIDTH, layout
from tdsl.compiler.emit.text import Text


@dataclass(frozen=True)
class Statement:
    """`targets = text`; `comment` tells the shapes. Without targets it is evaluated for its effect."""

    targets: tuple[str, ...]
    text: Text
    comment: str = ""

    def lines(self, indent: int) -> list[str]:
        head = f"{', '.join(self.targets)} = " if self.targets else ""
        found = _fitted(head, self.text, indent)
        if self.comment and len(found) == 1 and indent + len(found[0]) + 4 + len(self.comment) <= WIDTH:
            found[0] += f"  # {self.comment}"
        return found


@dataclass(frozen=True)
class Return:
    """`return text`; `results` are the parts of a tuple."""

    text: Text
    results: tuple[str, ...] = ()

    def lines(self, indent: int) -> list[str]:
        broken = Text(self.text.text, call=("", self.results)) if len(self.results) > 1 else self.text
        return _fitted("return ", broken, indent)


@dataclass(frozen=True)
class Loop:
    """`for variable in modules: statement`."""

    variable: str
    modules: str
    statement: Statement

    def lines(self, indent: int) -> list[str]:
        inner = [f"    {line}" for line in self.statement.lines(indent + 4)]
        return [f"for {self.variable} in {self.modules}:", *inner]


def _fitted(head: str, text: Text, indent: int) -> list[str]:
    """`head text` as one line, or as several where it is too long for one."""
    if indent + len(head) + len(text.text) <= WIDTH or text.call is None:
        return [head + text.text]
    first, *others = layout(head + text.call[0], text.call[1], "", indent).split("\n")
    return [first, *(line[indent:] for line in others)]
