"""From the tree of what is written to lines of at most 120 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tdsl.dsl.columns import columns
from tdsl.dsl.concrete import Block, Comment, Element, Entry, Group, Item, Leaf
from tdsl.dsl.spacing import (
    LEVELS,
    Placed,
    flat_elements,
    flat_entry,
    flat_item,
    is_operator,
    is_single,
    spaced,
    style_of,
)

WIDTH = 120
STEP = 4
# Declarations of one line, which may stand together.
SHORT = frozenset(["import", "const", "extern"])


@dataclass(frozen=True)
class Line:
    """`comment` stands beside `text`; `blank` asks for a blank line before it."""

    indent: int
    text: str
    comment: str = ""
    blank: bool = False


def text_of(lines: Sequence[Line]) -> str:
    """Lines as text; comments beside consecutive lines stand in one column."""
    out: list[str] = []
    columns = _comment_columns(lines)
    for line, column in zip(lines, columns):
        if line.blank:
            out.append("\n")
        text = " " * line.indent + line.text
        out.append(f"{text.ljust(column)}{line.comment}".rstrip() + "\n")
    return "".join(out)


def _comment_columns(lines: Sequence[Line]) -> list[int]:
    found = [line.indent + len(line.text) + 2 for line in lines]
    start = 0
    while start < len(lines):
        end = start + 1
        while end < len(lines) and _beside(lines[end - 1], lines[end]):
            end += 1
        column = max(found[start:end])
        if column + max(len(line.comment) for line in lines[start:end]) <= WIDTH:
            found[start:end] = [column] * (end - start)
        start = end
    return found


def _beside(above: Line, below: Line) -> bool:
    return bool(above.comment and below.comment) and above.indent == below.indent and not below.blank


# Blocks --------------------------------------------------------------------------------------------------------------


def file_lines(block: Block) -> list[Line]:
    """All lines of a file: a blank one between declarations, but for imports, constants and the like."""
    lines: list[Line] = []
    last: Entry | None = None
    for entry, found in zip(block.entries, _entries(block, 0)):
        if last is not None and not (_short(last) and _short(last) == _short(entry)):
            found[0] = replace(found[0], blank=True)
        lines += found
        last = entry
    below = _comments(block.below, 0)
    if below and last is not None and not _short(last):
        below[0] = replace(below[0], blank=True)
    lines += below
    return [replace(line, blank=False) if i == 0 else line for i, line in enumerate(lines)]


def _short(entry: Entry) -> str:
    first = entry.items[0]
    return first.text if isinstance(first, Leaf) and first.text in SHORT else ""


def block_lines(block: Block, indent: int) -> list[Line]:
    """What stands within braces."""
    lines = [line for found in _entries(block, indent) for line in found] + _comments(block.below, indent)
    return [replace(line, blank=False) if i == 0 else line for i, line in enumerate(lines)]


def _entries(block: Block, indent: int) -> Iterator[list[Line]]:
    short = [(text := _compact(entry)) is not None and indent + len(text) <= WIDTH for entry in block.entries]
    wider = columns(block, short, WIDTH - indent)
    for entry, extra in zip(block.entries, wider):
        yield _entry(entry, indent, extra)


def _comments(comments: Sequence[Comment], indent: int) -> list[Line]:
    return [Line(indent, comment.text, blank=comment.blank) for comment in comments]


def _entry(entry: Entry, indent: int, wider: Mapping[int, int]) -> list[Line]:
    compact = _compact(entry, wider)
    short = compact is not None and indent + len(compact) <= WIDTH
    lines = [Line(indent, compact)] if compact is not None and short else _expanded(entry, indent)
    lines[0] = replace(lines[0], blank=entry.blank)
    if entry.beside:
        lines[-1] = replace(lines[-1], comment=entry.beside.text)
    return _comments(entry.above, indent) + lines


def _compact(entry: Entry, wider: Mapping[int, int] | None = None) -> str | None:
    """An entry on one line, if it may stand on one: nothing in it asks for more."""
    if any(is_forced(item) or _is_break(item) for item in entry.items):
        return None
    return flat_entry(entry, wider)


def is_forced(item: Item) -> bool:
    """Whether an item takes several lines: it has comments, a comma at its end, or a block that was not on one line."""
    if isinstance(item, Group):
        if item.beside or item.below or (item.comma and not is_single(item)):
            return True
        return any(e.above or e.beside or any(map(is_forced, e.items)) for e in item.elements)
    if isinstance(item, Block):
        return not item.empty and not _is_short(item)
    return isinstance(item, Comment)


def _is_short(block: Block) -> bool:
    """Whether a block was written on one line, and holds no more than may stand there."""
    if block.beside or block.below or not block.one_line or (len(block.entries) > 1 and block.kind != "section"):
        return False
    return not any(e.above or e.beside or e.blocks or any(map(is_forced, e.items)) for e in block.entries)


def _is_break(item: Item) -> bool:
    return isinstance(item, Leaf) and item.text == "|>" and item.begins


# Entries that take several lines -------------------------------------------------------------------------------------


def _expanded(entry: Entry, indent: int) -> list[Line]:
    """An entry with each of its blocks, and of its chain of `|>`, on lines of their own."""
    lines: list[Line] = []
    head: list[Item] = []
    lead = ""
    for item in entry.items:
        if not isinstance(item, Block) or item.empty:
            head.append(item)
            continue
        lines += _statement(head, indent, lead, " {")
        if item.beside:
            lines[-1] = replace(lines[-1], comment=item.beside.text)
        lines += block_lines(item, indent + STEP)
        head, lead = [], "} "
    if not head:
        return [*lines, Line(indent, "}")]
    return lines + _statement(head, indent, lead, "")


def _statement(items: Sequence[Item], indent: int, lead: str, tail: str) -> list[Line]:
    """The part of a statement before a block: newlines may stand within brackets and before `|>` alone.

    (Before `else` too; but nothing is broken there unless a comment asks for it.)
    """
    starts = [i for i, item in enumerate(items) if i and _is_link(item, items[i - 1])]
    chained = any(isinstance(item, Comment) or _is_break(item) for item in items)
    placed = spaced(items, "statement")
    if not chained:
        lines = spread(placed, indent, lead, tail)
        asked = len(lines) == 1 or any(map(is_forced, items))
        if not starts or (asked and all(map(fits, lines))):
            return lines
    return _stacked(placed, starts, indent, STEP, lead, tail)


def _is_link(item: Item, last: Item) -> bool:
    """Whether a line may begin with the item."""
    return isinstance(item, Leaf) and (item.kind == "|>" or (item.kind == "else" and isinstance(last, Comment)))


def _stacked(
    placed: Sequence[Placed], starts: Sequence[int], indent: int, step: int, lead: str = "", tail: str = ""
) -> list[Line]:
    """Pieces on lines of their own, each with its comments: those at its end beside or below it, others before it."""
    lines: list[Line] = []
    for start, end in zip([0, *starts], [*starts, len(placed)]):
        own = [(gap, item) for gap, item in placed[start:end] if not isinstance(item, Comment)]
        last = max(i for i in range(start, end) if not isinstance(placed[i][1], Comment))
        before, after = (_comments_of(placed[start:last]), _comments_of(placed[last:end]))
        lines += _comments_after(lines, before, indent + step)
        inner = indent + step if start else indent
        first = lead if not start else ""
        lines += spread([("", own[0][1]), *own[1:]], inner, first, tail if end == len(placed) else "")
        lines += _comments_after(lines, after, indent + step)
    return lines


def _comments_of(placed: Sequence[Placed]) -> list[Comment]:
    return [item for _, item in placed if isinstance(item, Comment)]


def _comments_after(lines: list[Line], comments: Sequence[Comment], indent: int) -> list[Line]:
    """The first comment goes beside the last line, if it stood beside something and may; the others become lines."""
    rest = list(comments)
    if rest and not rest[0].own and lines and not lines[-1].comment and not lines[-1].text.startswith("#"):
        lines[-1] = replace(lines[-1], comment=rest.pop(0).text)
    return _comments([replace(comment, blank=False) for comment in rest], indent)


# Brackets ------------------------------------------------------------------------------------------------------------


def fits(line: Line) -> bool:
    return line.indent + len(line.text) <= WIDTH


def spread(placed: Sequence[Placed], indent: int, lead: str = "", tail: str = "") -> list[Line]:
    """Items with as few brackets opened as their width needs: of a line too long, the widest first."""
    opened = {id(item) for _, item in placed if isinstance(item, Group) and is_forced(item)}
    while (widest := _widest(placed, opened, indent, lead, tail)) is not None:
        opened.add(id(widest))
    lines = [Line(indent, lead)]
    for gap, item in placed:
        if isinstance(item, Group) and id(item) in opened:
            comment = item.beside.text if item.beside else ""
            lines[-1] = replace(lines[-1], text=lines[-1].text + gap + item.opener, comment=comment)
            lines += [*_inside(item, indent + STEP), Line(indent, item.closer)]
        else:
            lines[-1] = replace(lines[-1], text=lines[-1].text + gap + flat_item(item))
    lines[-1] = replace(lines[-1], text=lines[-1].text + tail)
    return lines


def _widest(placed: Sequence[Placed], opened: set[int], indent: int, lead: str, tail: str) -> Group | None:
    """The widest closed bracket of the first line that is too long; None where none is, or nothing can be opened."""
    length, closed = indent + len(lead), list[Group]()
    for gap, item in [*placed, (tail, None)]:
        ends = item is None or id(item) in opened
        length += len(gap) + (1 if item is not None and ends else len(flat_item(item)) if item is not None else 0)
        if isinstance(item, Group) and not ends and item.elements:
            closed.append(item)
        if ends:
            if length > WIDTH and closed:
                return max(closed, key=lambda group: len(flat_item(group)))
            length, closed = indent + 1, []
    return None


def _inside(group: Group, indent: int) -> list[Line]:
    """The lines between the brackets of a group that is opened: all elements on one, or each on its own."""
    together = Line(indent, ", ".join(flat_elements(group)))
    if not is_forced(group) and group.elements and fits(together) and not is_single(group):
        return [together]
    lines: list[Line] = []
    for i, element in enumerate(map(_lifted, group.elements)):
        last = i == len(group.elements) - 1
        comma = "," if not last or group.comma or len(group.elements) > 1 else ""
        lines += _comments(element.above, indent)
        lines += _element(group, element, indent, comma)
        if element.beside:
            lines[-1] = replace(lines[-1], comment=element.beside.text)
    lines += _comments(group.below, indent)
    return [replace(line, blank=False) for line in lines]


def _lifted(element: Element) -> Element:
    """The element with those comments above it that stand within its first operand: no break keeps them in place."""
    first = element.items[: next(iter(_starts(element)), None)]
    while isinstance(first[-1], Comment):
        first.pop()
    inner = [item for item in first if isinstance(item, Comment)]
    rest = [item for item in element.items if not any(item is each for each in inner)]
    return Element(rest, [*element.above, *inner], element.beside)


def _starts(element: Element) -> list[int]:
    """Where an element is broken, if it has to be: before its loosest operators."""
    places = range(1, len(element.items))
    found = ([i for i in places if is_operator(element.items, i, level)] for level in LEVELS)
    return next(filter(None, found), [])


def _element(group: Group, element: Element, indent: int, tail: str) -> list[Line]:
    placed = spaced(element.items, style_of(group, element))
    plain = [(gap, item) for gap, item in placed if not isinstance(item, Comment)]
    lines = spread(plain, indent, "", tail)
    starts = _starts(element)
    asked = len(lines) == 1 or any(is_forced(item) for _, item in plain)
    if not starts or (len(plain) == len(placed) and asked and all(map(fits, lines))):
        return lines
    return _stacked(placed, starts, indent, STEP if len(group.elements) > 1 else 0, "", tail)
