"""The usual slips of syntax, each recognised where the parser stops, with a code and a cure of its own."""

from __future__ import annotations

import keyword

from tdsl.dsl import habits
from tdsl.dsl.diagnostics import Diagnostic, Span
from tdsl.dsl.lexer import KEYWORDS, Token
from tdsl.dsl.signatures import EVALUATE_BLOCKS, TRAIN_BLOCKS
from tdsl.dsl.syntax_error import Failure, found

PREFIXES = frozenset(["f", "r", "b", "u", "fr", "rf", "rb", "br"])
OPENERS, CLOSERS = "([{", ")]}"


def _told(failure: Failure, code: str, message: str, help: str, first: Token | None = None) -> Diagnostic:
    """A slip from `first` to the token that could not be taken."""
    span = failure.span
    return Diagnostic(code, message, Span(span.source, first.start, span.end) if first else span, help=help)


# Comments, strings, imports ------------------------------------------------------------------------------------------


def _comment(failure: Failure) -> Diagnostic | None:
    """`// text` and `/* text */`."""
    slashes = [each for each in (*failure.line, failure.token) if each.text == "//"]
    if failure.token.text == "/" and (after := failure.after()) and after.text in ("*", "**"):
        return _told(failure, "E005", "a comment begins with `#`", "write `# ...`, on each line of it")
    if not slashes or failure.token.kind in ("NEWLINE", "}"):
        return None
    span = Span(failure.source, slashes[-1].start, slashes[-1].end)
    return Diagnostic("E005", "a comment begins with `#`", span, help="write `# ...`; `//` divides and rounds down")


def _string(failure: Failure) -> Diagnostic | None:
    """`f"..."`."""
    token, before = failure.token, failure.before
    if token.kind != "STRING" or before is None or before.text.lower() not in PREFIXES or before.end != token.start:
        return None
    return _told(failure, "E019", f'there are no `{before.text}"..."` strings', 'write `"..."`', before)


def _import(failure: Failure) -> Diagnostic | None:
    """`import torch`."""
    before, token = failure.before, failure.token
    if before is None or before.kind != "import" or token.kind != "NAME":
        return None
    help = 'leave it out: PyTorch\'s names are built in; another file of yours is `import "file.model"`'
    return _told(failure, "E019", f"`import {token.text}` is Python, not tdsl", help, before)


# Words of other languages --------------------------------------------------------------------------------------------


def _python(failure: Failure) -> Diagnostic | None:
    """Python's own words, and those that declare a variable elsewhere."""
    token, before = failure.token, failure.before
    if "in" in (token.kind, getattr(failure.after(), "kind", "")) and token.kind in ("in", "not"):
        return _membership(failure) if failure.accepts("and") else None
    for each in (token, before):
        if each is not None and each.kind == "NAME" and keyword.iskeyword(each.text):
            span = Span(failure.source, each.start, each.end)
            return Diagnostic("E019", f"`{each.text}` is Python, not tdsl", span, help=habits.WORDS.get(each.text))
    if before is not None and before.text in habits.OTHER_WORDS and token.kind == "NAME":
        span = Span(failure.source, before.start, before.end)
        return Diagnostic("E019", f"no `{before.text}` is needed", span, help=f"write `{token.text} = ...`")
    return None


def _membership(failure: Failure) -> Diagnostic:
    """`a in (b, c)` and `a not in (b, c)`."""
    if failure.token.kind == "in":
        return _told(failure, "E019", "`in` is Python, not tdsl", "compare with each: `a == b or a == c`")
    end = failure.after()
    span = Span(failure.source, failure.token.start, end.end if end else failure.token.end)
    help = "compare with each: `a != b and a != c`"
    return Diagnostic("E019", "`not in` is Python, not tdsl", span, help=help)


def _decorator(failure: Failure) -> Diagnostic | None:
    if failure.token.text != "@" or failure.line:
        return None
    return _told(failure, "E019", "there are no decorators", "leave it out: the compiler fuses and compiles by itself")


def _splat(failure: Failure) -> Diagnostic | None:
    """`*args` and `**options`."""
    before = failure.before
    if failure.token.text not in ("*", "**") or before is None or before.text not in ("(", ","):
        return None
    return _told(failure, "E019", f"`{failure.token.text}` spreads no arguments", "write the arguments out")


# Blocks and types ----------------------------------------------------------------------------------------------------


def _colon(failure: Failure) -> Diagnostic | None:
    """`if x:`, `epochs: 10`, `x: int = 3`."""
    if failure.token.text != ":":
        return None
    after = failure.after()
    if failure.accepts("{") and (after is None or after.kind == "NEWLINE"):
        return _told(failure, "E019", "a block does not begin with `:`", "write `{ ... }`, indented as you like")
    if not failure.accepts("=") or failure.before is None:
        return None
    name, second = failure.before.text, failure.after(2)
    if second is not None and second.text in ("=", "["):
        help = f"write `{name} = ...`: types stand in signatures, `param`, `buffer` and `field` alone"
        return _told(failure, "E019", "a local name has no written type", help)
    return _told(failure, "E012", "expected `=`, found `:`", f"a value is given with `=`: `{name} = ...`")


def _signature(failure: Failure) -> Diagnostic | None:
    """`forward(self, x)`, `module Net(dim)`: what lacks a type or a kind; `forward(x: [B]) {`."""
    token, before = failure.token, failure.before
    if before is None:
        return None
    if token.kind == "{" and before.text == ")" and failure.accepts("->"):
        help = "write what is returned: `-> float[B, 10] {`"
        return _told(failure, "E012", "expected `->` and the type of the result, found `{`", help)
    if token.kind == "." and before.text in habits.RESERVED and failure.accepts("["):
        help = "a type is a dtype and sizes: `float[B, 64]`"
        return _told(failure, "E013", f"there is no `{before.text}`", help, before)
    if token.kind not in (",", ")", "=") or before.kind != "NAME" or not failure.accepts(":"):
        return None
    span = Span(failure.source, before.start, before.end)
    if before.text == "self":
        return Diagnostic("E019", "there is no `self`", span, help="leave it out: members are named as they are")
    if _opener(failure) == "module":
        help = f"write its kind: `{before.text}: int`, or float, bool, str, fn, module"
        return Diagnostic("E012", f"the parameter `{before.text}` has no kind", span, help=help)
    help = f"write its type: `{before.text}: float[B, 64]`"
    return Diagnostic("E012", f"the input `{before.text}` has no type", span, help=help)


def _named_block(failure: Failure) -> Diagnostic | None:
    """`loss generator(batch) {`."""
    before, after = failure.before, failure.after()
    if failure.token.kind != "NAME" or before is None or after is None or after.kind != "(":
        return None
    if before.text not in (*TRAIN_BLOCKS, *EVALUATE_BLOCKS) or not failure.accepts("(") or not failure.accepts("{"):
        return None
    help = habits.ONE_LOSS if before.text == "loss" else f"write `{before.text}(batch) {{`"
    return _told(failure, "E012", f"a `{before.text}` takes no name", help)


def _parameters(failure: Failure) -> Diagnostic | None:
    """`module Net {`."""
    before = failure.before
    if failure.token.kind != "{" or before is None or before.kind != "NAME" or not failure.accepts("("):
        return None
    help = f"parameters stand in `( )`, also where there are none: `{before.text}() {{`"
    return _told(failure, "E012", "expected `(`, found `{`", help)


def _unfinished(failure: Failure) -> Diagnostic | None:
    """A line that ends with an operator."""
    before = failure.before
    if failure.token.kind != "NEWLINE" or before is None or before.kind not in ("SIGN", "TIMES", "**", "COMPARE"):
        return None
    help = "bring the rest onto this line, or put the whole in `( )`"
    return _told(failure, "E012", "expected an expression, found the end of the line", help)


def _opener(failure: Failure) -> str:
    """The word that begins the declaration whose `(` is open."""
    depth = 0
    for i in range(failure.number - 1, 0, -1):
        text = failure.tokens[i].text
        depth += (text in CLOSERS) - (text in OPENERS)
        if depth < 0:
            return failure.tokens[i - 2].text if i > 1 else ""
    return ""


def _brace(failure: Failure) -> Diagnostic | None:
    """`{` on the next line."""
    after = failure.after()
    if failure.token.kind != "NEWLINE" or not failure.accepts("{") or after is None or after.kind != "{":
        return None
    help = "put it at the end of this line: `... {`"
    return Diagnostic("E027", "the `{` belongs on the line before", failure.span, "expected `{` here", help=help)


# Assignments ---------------------------------------------------------------------------------------------------------


def _equals(failure: Failure) -> Diagnostic | None:
    """`a == 1` where a value is given, `if a = 1` where values are compared, `a = b = 1`."""
    token = failure.token
    if token.text == "==" and failure.accepts("="):
        return _told(failure, "E021", "`==` compares; a value is given with `=`", "write `=`")
    if token.kind != "=" or not failure.accepts("COMPARE"):
        return None
    if failure.line and failure.line[0].kind == "NAME" and any(each.kind == "=" for each in failure.line):
        return _told(failure, "E021", "a second `=` in one statement", "give one value after the other, a line each")
    return _told(failure, "E021", "`=` gives a value; comparing is `==`", "write `==`")


def _update(failure: Failure) -> Diagnostic | None:
    """`a += 1`, noticed at the operator or behind it."""
    signs = ("SIGN", "TIMES", "**")
    after, before = failure.after(), failure.before
    if failure.token.kind in signs and after is not None and after.kind == "=" and after.start == failure.token.end:
        operator, name = failure.token, before.text if before else "a"
    elif failure.token.kind == "=" and before is not None and before.kind in signs and failure.number > 1:
        operator, name = before, failure.tokens[failure.number - 2].text
    else:
        return None
    span = Span(failure.source, operator.start, operator.end + 1)
    rest = failure.source.line(span.line)[failure.source.position(span.end)[1] - 1 :].split("#")[0].strip()
    name = name if name.isidentifier() else "a"
    help = f"write `{name} = {name} {operator.text} {rest if 0 < len(rest) < 60 else '...'}`"
    return Diagnostic("E022", f"there is no `{operator.text}=`", span, help=help)


def _statement(failure: Failure) -> Diagnostic | None:
    """A call that stands alone, where only its result could matter; `x[0] = 1`, `self.x = 1`."""
    token, before = failure.token, failure.before
    if before is None or not (failure.accepts("=") and failure.accepts(",") and token.kind in ("(", ".", "|>", "[")):
        return None
    given = any(each.kind == "=" for each in _rest(failure))
    if given and before.text == "self":
        help = f"write `{getattr(failure.after(), 'text', 'x')} = ...`, in the module's body"
        return _told(failure, "E019", "there is no `self`", help, before)
    if given and token.kind == "[":
        help = "make a new one: `where(mask, a, b)`, `cat([a, b], dim=0)`, `scatter(...)`"
        return _told(failure, "E026", "a tensor is not changed in place", help, before)
    help = habits.unknown_name(before.text) or "name what it gives: `y = ...`, or `return` it"
    span = Span(failure.source, before.start, token.end)
    return Diagnostic("E026", "a value that nothing uses", span, "only `NAME = ...` can stand here", help=help)


def _member(failure: Failure) -> Diagnostic | None:
    """`self.up = ...`, `head.weight = ...` and `encode(x: [B]) {` where a module has its members."""
    token, before = failure.token, failure.before
    if before is None or before.kind != "NAME" or failure.accepts(",") or not failure.accepts("="):
        return None
    after = failure.after()
    if token.kind == "(" and any(each.kind == "->" for each in _rest(failure)):
        help = "write `fn NAME(...) -> ... { }` outside of the module, or a module of its own for this part"
        return _told(failure, "E012", "a module computes by `forward` alone", help, before)
    if token.kind != "." or after is None:
        return None
    if before.text == "self":
        help = f"members are named as they are: write `{after.text} = ...`"
        return _told(failure, "E019", "there is no `self`", help, before)
    help = f"hand it over where the layer is made: `{before.text} = Linear(..., {after.text}=embed.{after.text})`"
    return _told(failure, "E012", f"nothing is given to `{before.text}.{after.text}`", help, before)


def _rest(failure: Failure) -> list[Token]:
    """The tokens behind it on its line, less those within brackets."""
    rest: list[Token] = []
    depth = 0
    for each in failure.tokens[failure.number :]:
        if each.kind == "NEWLINE" and not depth:
            break
        depth += (each.text in OPENERS) - (each.text in CLOSERS)
        rest += [] if depth else [each]
    return rest


# Expressions ---------------------------------------------------------------------------------------------------------


def _keyword(failure: Failure) -> Diagnostic | None:
    token = failure.token
    if token.kind not in KEYWORDS or not failure.accepts("NAME") or failure.accepts("NUMBER"):
        return None
    help = f"choose another, such as `{token.text}_`"
    return _told(failure, "E023", f"`{token.text}` is a keyword and cannot be a name", help)


def _chain(failure: Failure) -> Diagnostic | None:
    """`a < b < c`."""
    if failure.token.kind != "COMPARE" or failure.accepts("="):
        return None
    inside = any(token.kind == "COMPARE" for token in failure.tokens[: failure.number])
    if not inside or not failure.accepts("and"):
        return None
    return _told(failure, "E024", "comparisons do not chain", "write `a < b and b < c`")


def _comma(failure: Failure) -> Diagnostic | None:
    """Two values side by side where a comma could separate them."""
    token, before = failure.token, failure.before
    starts = token.kind in ("NAME", "NUMBER", "STRING", "true", "false", "none")
    if not starts or not failure.accepts(",") or before is None:
        return None
    where = Span(failure.source, before.end, before.end + 1)
    help = f"write `{before.text}, {token.text}`" if len(before.text + token.text) < 60 else "separate them with `, `"
    return Diagnostic("E025", f"expected a `,` before {found(token)}", where, help=help)


SLIPS = (
    _import, _comment, _string, _decorator, _splat, _equals, _update, _colon, _signature, _named_block, _parameters,
    _unfinished, _python, _keyword, _chain, _statement, _member, _comma, _brace,
)  # fmt: skip
