"""Statements of emitted functions, and how they are laid out in lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Union

from tdsl.compiler.emit.render import WIDTH, layout
from tdsl.compiler.emit.text import Text
from tdsl.compiler.ir import Assumption
from tdsl.compiler.size import Size

OPPOSITES = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


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


@dataclass(frozen=True)
class Block:
    """`head: body`, and `else: otherwise` where there is any."""

    head: str
    body: tuple[Line, ...]
    otherwise: tuple[Line, ...] = ()

    def lines(self, indent: int) -> list[str]:
        found = [f"{self.head}:", *_indented(self.body, indent)]
        return [*found, "else:", *_indented(self.otherwise, indent)] if self.otherwise else found


@dataclass(frozen=True)
class Check:
    """`if` what is assumed does not hold, an error that tells the sizes."""

    wrong: str
    message: str

    def lines(self, indent: int) -> list[str]:
        return [f"if {self.wrong}:", f"    raise ValueError({self.message})"]


Line = Union[Statement, Return, Loop, Block, Check]  # noqa: UP007


def _indented(body: Sequence[Line], indent: int) -> list[str]:
    return [f"    {line}" for each in body for line in each.lines(indent + 4)]


def checked_sizes(fact: Assumption) -> Iterator[Size]:
    """The sizes that the check of an assumption writes."""
    yield from (fact.left, fact.right)
    yield from map(Size.of, sorted(fact.left.symbols() | fact.right.symbols(), key=lambda s: s.name))


def checks(assumed: Sequence[Assumption], text: Callable[[Size], str]) -> list[Line]:
    """A check of each assumption; `text` is how a size is read."""
    found: list[Line] = []
    for fact in assumed:
        left, right, *symbols = checked_sizes(fact)
        told = ", ".join(f"{size} is {{{text(size)}}}" for size in symbols)
        wrong = f"{text(left)} {OPPOSITES[fact.op]} {text(right)}"
        found.append(Check(wrong, f'f"assumed {fact}: {told}"'))
    return found


def _fitted(head: str, text: Text, indent: int) -> list[str]:
    """`head text` as one line, or as several where it is too long for one."""
    if indent + len(head) + len(text.text) <= WIDTH or text.call is None:
        return [head + text.text]
    first, *others = layout(head + text.call[0], text.call[1], "", indent).split("\n")
    return [first, *(line[indent:] for line in others)]
