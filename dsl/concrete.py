"""What is written, as a tree: entries in blocks, elements in brackets, with every comment where it stands.

The syntax tree of `ast` keeps neither comments nor line breaks; `format` works on this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Union

from tdsl.dsl.diagnostics import Reporter, Source
from tdsl.dsl.lexer import CLOSERS, Token, tokenize

# What an operand can end with: a bracket after it is a call, an index or a signature.
OPERANDS = frozenset(["NAME", "NUMBER", "STRING", "true", "false", "none"])
SECTIONS = frozenset(["data", "train", "evaluate"])


@dataclass(frozen=True)
class Leaf:
    """A token; `begins` where it is the first of its line."""

    kind: str
    text: str
    begins: bool = False


@dataclass(frozen=True)
class Comment:
    """`own` where it has a line to itself, `blank` where a blank line stands before it."""

    text: str
    own: bool
    blank: bool = False


@dataclass
class Element:
    """What stands between two commas of a bracket: comments on lines above it, one beside it."""

    items: list[Item]
    above: list[Comment] = field(default_factory=list)
    beside: Comment | None = None


@dataclass
class Group:
    """`( )` or `[ ]`; `postfix` where it follows an operand, `comma` where a comma ends it.

    `beside` is the comment after the opening bracket, `below` those before the closing one.
    """

    opener: str
    postfix: bool
    elements: list[Element] = field(default_factory=list)
    comma: bool = False
    beside: Comment | None = None
    below: list[Comment] = field(default_factory=list)

    @property
    def closer(self) -> str:
        return CLOSERS[self.opener]


@dataclass
class Entry:
    """A declaration, a member, a setting or a statement; `blank` where a blank line stands directly before it."""

    items: list[Item]
    above: list[Comment]
    blank: bool
    beside: Comment | None = None

    @property
    def blocks(self) -> list[Block]:
        return [item for item in self.items if isinstance(item, Block)]


@dataclass
class Block:
    """`{ }`; `kind` is `file` (without braces), `module`, `section` or `body`."""

    kind: str
    start: int
    one_line: bool = True
    entries: list[Entry] = field(default_factory=list)
    beside: Comment | None = None
    below: list[Comment] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.entries or self.beside or self.below)


Item = Union[Leaf, Comment, Group, Block]  # noqa: UP007


def read(source: Source) -> Block:
    """The tree of a file that has no syntax errors."""
    comments: list[Token] = []
    chunks = tokenize(source, Reporter(), comments=comments)
    tokens = [token for chunk in chunks for token in chunk.tokens]
    return _Reader(source.text, sorted([*tokens, *comments], key=lambda token: token.start)).file()


class _Reader:
    def __init__(self, text: str, tokens: Sequence[Token]) -> None:
        self.text = text
        self.tokens = tokens
        self.position = 0
        self.end = 0  # of the last token taken

    def file(self) -> Block:
        block = Block("file", 0)
        self.entries(block)
        return block

    def peek(self) -> Token | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self) -> Token:
        token = self.tokens[self.position]
        self.position += 1
        if token.kind != "NEWLINE":
            self.end = token.end
        return token

    def begins(self, token: Token) -> bool:
        line = self.text.rfind("\n", 0, token.start) + 1
        return not self.text[line : token.start].strip(" \t\r\ufeff")

    def blank(self, token: Token) -> bool:
        """Whether a blank line stands between the last token taken and this one."""
        return self.text.count("\n", self.end, token.start) > 1

    def comment(self) -> Comment:
        token = self.tokens[self.position]
        found = Comment(_tidy(token.text), self.begins(token), self.blank(token))
        self.take()
        return found

    def entries(self, block: Block) -> None:
        """Fill a block with what comes before its `}`."""
        above: list[Comment] = []
        while (token := self.peek()) is not None and token.kind != "}":
            if token.kind == "NEWLINE" or (token.kind == "," and block.kind == "section"):
                self.take()
            elif token.kind != "COMMENT":
                block.entries.append(self.entry(block.kind, above))
                above = []
            elif (comment := self.comment()).own:
                above.append(comment)
            elif block.entries:
                block.entries[-1].beside = comment
            else:
                block.beside = comment
        block.below = above

    def entry(self, kind: str, above: list[Comment]) -> Entry:
        token = self.peek()
        assert token is not None
        entry = Entry([], above, self.blank(token))
        between: list[Comment] = []  # comments between a `}` and the `else` after it
        while (token := self.peek()) is not None and token.kind not in ("NEWLINE", "}"):
            if token.kind == "," and kind == "section":
                break
            if token.kind == "else" and entry.blocks:
                between = _pop_comments(entry.items)
            item = self.item(entry.items, kind)
            if isinstance(item, Block):
                before = item.entries[0].above if item.entries else item.below
                before[:0] = [Comment(comment.text, True) for comment in between]
                between = []
            entry.items.append(item)
        last = _pop_comments(entry.items)
        entry.beside = last[0] if last else None
        return entry

    def item(self, before: list[Item], kind: str) -> Item:
        token = self.peek()
        assert token is not None
        if token.kind == "COMMENT":
            return self.comment()
        if token.kind in ("(", "["):
            return self.group(_is_operand(before, kind))
        if token.kind == "{":
            return self.block(before, kind)
        return Leaf(token.kind, self.take().text, self.begins(token))

    def block(self, before: list[Item], kind: str) -> Block:
        token = self.take()
        block = Block(_kind(before, kind), token.start)
        self.entries(block)
        block.one_line = "\n" not in self.text[block.start : self.take().end]
        return block

    def group(self, postfix: bool) -> Group:
        group = Group(self.take().text, postfix)
        element = Element([])
        while (token := self.peek()) is not None and token.kind != group.closer:
            if token.kind == ",":
                self.take()
                element = self.finish(group, element)
                group.comma = True
            elif token.kind != "COMMENT" or element.items:
                element.items.append(self.item(element.items, ""))
                group.comma = False
            else:
                _place(self.comment(), group, element)
        if element.items:
            element = self.finish(group, element)
        group.below = element.above
        self.take()
        return group

    def finish(self, group: Group, element: Element) -> Element:
        """Add an element that is complete; the next one, with the comments that belong above it."""
        rest = _pop_comments(element.items)
        if rest and not rest[0].own:
            element.beside = rest.pop(0)
        group.elements.append(element)
        return Element([], rest)


def _place(comment: Comment, group: Group, element: Element) -> None:
    """A comment where no element has begun: beside what it shares a line with, else above what comes."""
    if comment.own:
        element.above.append(comment)
    elif not group.elements and not element.above:
        group.beside = comment
    elif group.elements and group.elements[-1].beside is None and not element.above:
        group.elements[-1].beside = comment
    else:
        element.above.append(comment)


def _pop_comments(items: list[Item]) -> list[Comment]:
    found: list[Comment] = []
    while items and isinstance(last := items[-1], Comment):
        found.insert(0, last)
        items.pop()
    return found


def _is_operand(before: list[Item], kind: str) -> bool:
    """Whether a bracket after these items is a call or an index of what they end with."""
    last = next((item for item in reversed(before) if not isinstance(item, Comment)), None)
    if isinstance(last, Group):
        return True
    if not isinstance(last, Leaf) or last.kind not in OPERANDS:
        return False
    return not (kind == "body" and len(before) == 1 and last.text == "assume")


def _kind(before: list[Item], kind: str) -> str:
    """What the block after these items holds, where they stand in a block of that kind."""
    first = before[0]
    if kind == "file" and isinstance(first, Leaf):
        return "section" if first.text in SECTIONS else "module" if first.text == "module" else "body"
    if kind == "section" and not any(isinstance(item, Group) for item in before):
        return "section"
    return "body"


def _tidy(text: str) -> str:
    """A comment with a space after its `#`."""
    text = text.rstrip()
    return f"# {text[1:]}" if text[1:2] and text[1] not in "#!: \t" else text
