"""Ops as PyTorch expressions: precedence, arguments, literals. `python.py` makes statements of them."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tdsl.compiler.emit.data import DTYPES
from tdsl.compiler.emit.expression import ATOM, PRECEDENCE, UNARY, constant
from tdsl.compiler.ir import Attr, Node, Scalar
from tdsl.compiler.ops.op import Arg, Kind
from tdsl.compiler.size import Size

COMPARISON = PRECEDENCE["=="]
LOOSEST = 0


@dataclass(frozen=True)
class Text:
    """An expression.

    `level` is how tightly its outermost operator binds, `call` its head and arguments where it is a call. Where
    `ordered`, evaluating it may draw random numbers or change a module: it keeps its place among others like it.
    """

    text: str
    level: int = ATOM
    call: tuple[str, tuple[str, ...]] | None = None
    ordered: bool = False

    def at(self, level: int) -> str:
        """As an operand that must bind at least as tightly as `level`."""
        return self.text if self.level >= level else f"({self.text})"

    def mentions(self, name: str) -> bool:
        return mentions(self.text, name)


def mentions(text: str, name: str) -> bool:
    """Whether a name is read in the text of an expression."""
    return name in text and re.search(rf"(?<![\w.]){re.escape(name)}\b", text) is not None


def identifier(name: str) -> str:
    """A name from outside as it may stand in emitted code; ValueError for any other text."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} can't be a name in emitted code")
    return name


def path_text(owner: str, path: str) -> str:
    """`blocks.0.weight` as `self.blocks[0].weight`."""
    parts = [f"[{part}]" if part.isdecimal() else f".{identifier(part)}" for part in path.split(".")]
    return owner + "".join(parts).removeprefix(".")


def call(head: str, arguments: Sequence[str], ordered: bool = False) -> Text:
    return Text(f"{head}({', '.join(arguments)})", ATOM, (head, tuple(arguments)), ordered)


def literal(value: object) -> str:
    """A constant, a size or a scalar as Python writes it."""
    if isinstance(value, tuple):
        inner = ", ".join(map(literal, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, Scalar):
        return value.text or literal(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, float):
        return re.sub(r"e([+-])0", r"e\1", repr(value))
    return constant(value) if isinstance(value, str) else str(value) if isinstance(value, Size) else repr(value)


def scalar_text(text: str) -> Text:
    """The text of a scalar: an attribute or a call as it is, anything else to be parenthesised within operators."""
    return Text(text, ATOM if re.fullmatch(r"[\w.]+(\[-?\d+\])?", text) else LOOSEST)


def arguments(args: Sequence[tuple[str, Attr]]) -> list[str]:
    """Arguments of a constructor: positional ones have no name."""
    return [f"{identifier(name)}={literal(value)}" if name else literal(value) for name, value in args]


def number_text(value: object) -> Text:
    negative = isinstance(value, (int, float)) and value < 0
    return Text(literal(value), UNARY if negative else ATOM)


def op_text(node: Node, operands: Sequence[Text], attrs: Mapping[str, Attr]) -> Text:
    """One call of an op in PyTorch, over its operands' texts; sizes among `attrs` are scalars with text."""
    torch = node.op.torch
    ordered = node.op.kind is Kind.RANDOM or node.op.effects or any(o.ordered for o in operands)
    if callable(torch):
        return _called(torch(*_plain(operands, attrs)), torch, operands, attrs, ordered)
    if torch in PRECEDENCE:
        return Text(_infix(torch, operands[0], operands[1]), PRECEDENCE[torch], None, ordered)
    if torch == "-x":
        return Text(f"-{operands[0].at(UNARY)}", UNARY, None, ordered)
    given = _arguments(node, operands, attrs)
    if torch.startswith("."):
        return call(f"{operands[0].at(ATOM)}{torch}", given[1:], ordered)
    return call(torch, given, ordered)


def _plain(operands: Sequence[Text], attrs: Mapping[str, Attr]) -> tuple[list[str], dict[str, Attr]]:
    return [o.text for o in operands], dict(attrs)


def _called(text: str, torch: object, operands: Sequence[Text], attrs: Mapping[str, Attr], ordered: bool) -> Text:
    """What an op's own function has written; an operand that it takes an attribute of is parenthesised."""
    assert callable(torch)
    first = operands[0] if operands else Text("")
    if first.text and text == first.text:
        return first
    if first.level < ATOM and text.startswith((f"{first.text}.", f"{first.text}[")):
        first = Text(first.at(ATOM))
        text = torch(*_plain([first, *operands[1:]], attrs))
    return Text(text, ATOM, _parts(text), ordered)


def _parts(text: str) -> tuple[str, tuple[str, ...]] | None:
    """The head and the arguments of a text that is one call, so that it may go over several lines."""
    head = re.match(r"[\w.]+\(", text)
    if head is None:
        return None
    depth, start, found = 0, head.end(), list[str]()
    for word in re.finditer(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[()\[\]{},]""", text):
        depth += (word[0] in ("(", "[", "{")) - (word[0] in (")", "]", "}"))
        if depth == 0 and word.end() < len(text):
            return None
        if depth == 0 or (depth == 1 and word[0] == ","):
            found.append(text[start : word.start()].strip())
            start = word.end()
    return head[0][:-1], tuple(filter(None, found))


def _infix(sign: str, left: Text, right: Text) -> str:
    """Power groups from the right and is written without spaces between simple operands, as formatters have it."""
    level = PRECEDENCE[sign]
    if sign == "**":
        base, exponent = left.at(level + 1), right.at(UNARY)
        simple = all(re.fullmatch(r"-?[\w.]+", text) for text in (base, exponent))
        return f"{base}**{exponent}" if simple else f"{base} ** {exponent}"
    return f"{left.at(level + (level == COMPARISON))} {sign} {right.at(level + 1)}"


def _arguments(node: Node, operands: Sequence[Text], attrs: Mapping[str, Attr]) -> list[str]:
    """The arguments as a person gives them: those at their defaults left out, options by name."""
    texts: list[str] = []
    left = list(operands)
    named = False
    for i, arg in enumerate(node.op.signature):
        if arg.variadic:
            texts += [literal(each) for each in _flat(attrs[arg.name])] or ["()"]
            continue
        text = _argument(arg, left, attrs)
        if not arg.required and text == literal(arg.default):
            named = named or not _counted(node, arg)
            continue
        if _counted(node, arg) and not named:
            texts += [literal(attrs[a.name]) for a in node.op.signature[len(texts) : i]]
        by_name = named or _by_name(node, arg)
        texts.append(f"{arg.name}={text}" if by_name else text)
        named = by_name
    return texts


def _argument(arg: Arg, left: list[Text], attrs: Mapping[str, Attr]) -> str:
    """The text of one argument, its operand taken from those left."""
    if arg.is_operand:
        return left.pop(0).text if left else "None"
    value = attrs[arg.name]
    if arg.kind == "dtype" and isinstance(value, str):
        return DTYPES[value]
    if arg.kind == "shape" and not isinstance(value, tuple):
        value = (value,)
    return literal(value)


def _counted(node: Node, arg: Arg) -> bool:
    """Whether an option goes by its place, as dimensions of views do: `x.flatten(0, 1)`, but `x.chunk(3, dim=-1)`."""
    signature = node.op.signature
    return node.op.kind is Kind.VIEW and not arg.is_operand and (arg.name != "dim" or signature[1] is arg)


def _by_name(node: Node, arg: Arg) -> bool:
    if _counted(node, arg):
        return False
    if arg.is_operand:
        return arg.keyword_only or (arg.kind == "operand" and not arg.required)
    last = not any(each.required for each in node.op.signature[node.op.signature.index(arg) + 1 :])
    return not arg.required or arg.keyword_only or (arg.name == "dim" and last)


def _flat(attr: Attr) -> tuple[Attr, ...]:
    given = attr if isinstance(attr, tuple) else (attr,)
    return given[0] if len(given) == 1 and isinstance(given[0], tuple) else given
