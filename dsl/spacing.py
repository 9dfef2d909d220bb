"""What stands between two tokens of a line: nothing, or a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tdsl.dsl.concrete import OPERANDS, Block, Comment, Element, Entry, Group, Item, Leaf

# Operators with a space on either side, loosest first: where a line is broken, it is at the loosest.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset(["for"]),
    frozenset(["|>"]),
    frozenset(["if", "else"]),
    frozenset(["or"]),
    frozenset(["and"]),
    frozenset(["COMPARE"]),
    frozenset(["SIGN"]),
    frozenset(["TIMES"]),
    frozenset(["**"]),
)
OPERATORS = frozenset().union(*LEVELS)

Placed = tuple[str, Item]


def spaced(items: Sequence[Item], style: str, wider: Mapping[int, int] | None = None) -> list[Placed]:
    """Items, each with the space before it; comments among them count for nothing.

    `style` says what `:` and `=` are; `wider` adds to the space, for columns.
    """
    found: list[Placed] = []
    slices = _slice_gap(items) if style == "index" else " "
    for i, item in enumerate(items):
        gap = "" if isinstance(item, Comment) else _gap(items, i, style, slices)
        found.append((gap + " " * (wider or {}).get(i, 0), item))
    return found


def flat(items: Sequence[Item], style: str, wider: Mapping[int, int] | None = None) -> str:
    """Items on one line."""
    return "".join(gap + flat_item(item) for gap, item in spaced(items, style, wider))


def flat_item(item: Item) -> str:
    if isinstance(item, Leaf):
        return item.text
    if isinstance(item, Group):
        return f"{item.opener}{', '.join(flat_elements(item))}{',' if is_single(item) else ''}{item.closer}"
    if isinstance(item, Block):
        inner = ", ".join(flat_entry(entry) for entry in item.entries)
        return f"{{ {inner} }}" if inner else "{}"
    return item.text


def flat_elements(group: Group) -> list[str]:
    return [flat(element.items, style_of(group, element)) for element in group.elements]


def flat_entry(entry: Entry, wider: Mapping[int, int] | None = None) -> str:
    return flat(entry.items, "statement", wider)


def is_single(group: Group) -> bool:
    """Whether it is a tuple of one, whose comma makes it one."""
    return group.opener == "(" and not group.postfix and len(group.elements) == 1 and group.comma


def style_of(group: Group, element: Element) -> str:
    """`index`, `typed` (`x: float[B] = none`) or `argument` (`x=none`)."""
    if group.opener == "[":
        return "index"
    return "typed" if any(isinstance(item, Leaf) and item.kind == ":" for item in element.items) else "argument"


def _gap(items: Sequence[Item], i: int, style: str, slices: str) -> str:
    item, last = items[i], _before(items, i)
    if last is None:
        return ""
    if isinstance(last, Leaf):
        if last.kind == "." or (last.kind == "=" and style == "argument") or _is_sign(items, i):
            return ""
        if last.kind == ":" and style == "index":
            return "" if isinstance(item, Leaf) and item.kind == ":" else slices
    if isinstance(item, Group):
        return "" if item.postfix else " "
    if isinstance(item, Leaf):
        if item.kind in (",", ".") or (item.kind == "=" and style == "argument"):
            return ""
        if item.kind == ":":
            return slices if style == "index" else " " if isinstance(last, Group) else ""
    return " "


def _before(items: Sequence[Item], i: int) -> Item | None:
    return next((item for item in reversed(items[:i]) if not isinstance(item, Comment)), None)


def _is_sign(items: Sequence[Item], i: int) -> bool:
    """Whether what stands before the item is the sign of a number."""
    at = next(k for k in range(i - 1, -1, -1) if not isinstance(items[k], Comment))
    return is_unary(items, at)


def is_unary(items: Sequence[Item], i: int) -> bool:
    """Whether the item is a sign with nothing to its left."""
    item, last = items[i], _before(items, i)
    if not isinstance(item, Leaf) or item.kind != "SIGN":
        return False
    if last is None:
        return True
    if isinstance(last, Leaf) and last.text == "assume":
        return i == 1
    return isinstance(last, Leaf) and last.kind not in OPERANDS and last.kind != "..."


def _slice_gap(items: Sequence[Item]) -> str:
    """`x[1:n]`, but `x[i + 1 : n]`."""
    return " " if any(is_operator(items, i, OPERATORS) for i in range(len(items))) else ""


def is_operator(items: Sequence[Item], i: int, operators: frozenset[str]) -> bool:
    """Whether the item is one of these operators between two operands."""
    item = items[i]
    return isinstance(item, Leaf) and item.kind in operators and not is_unary(items, i)
