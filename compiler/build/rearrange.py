"""`rearrange`, `reduce` and `repeat` of einops: patterns, resolved at compile time to plain operations.

A pattern is read to groups of axes, one a dimension: `"b t (h d)"` is `((b,), (t,), (h, d))`. The tensor is split into
its axes, those that go are reduced, the others put in order, new ones expanded, and all joined into the groups wanted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.bind import Given
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.values import Semantic, describe
from tdsl.compiler.ir import Attr, Scalar, Shape, Value
from tdsl.compiler.ops.infer import REST, known, quotient, same, stated
from tdsl.compiler.ops.op import OPS, Op, bind_plain
from tdsl.compiler.ops.shape import whole
from tdsl.compiler.size import Size, product
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span, fail
from tdsl.dsl.names import did_you_mean

EINOPS = ("rearrange", "reduce", "repeat")
REDUCTIONS = {"mean": "mean", "sum": "sum", "max": "amax", "min": "amin", "prod": "prod", "any": "any", "all": "all"}
DOTS = "..."
# `...` outside of parentheses: so many dimensions of their own.
BARE = ("*",)
ALL = ("slice", None, None, None)

Group = tuple[str, ...]
Groups = tuple[Group, ...]
Evaluate = Callable[[ast.Expr], Semantic]


@dataclass(frozen=True)
class Pattern:
    """What stands before and after the arrow; numbers in it are axes of that length, `fixed`."""

    text: str
    before: Groups
    after: Groups
    fixed: Mapping[str, Size]
    span: Span

    @property
    def old(self) -> list[str]:
        return [axis for group in self.before for axis in group]

    @property
    def new(self) -> list[str]:
        return [axis for group in self.after for axis in group]


def is_pattern(op: Op, args: Sequence[ast.Argument], evaluate: Evaluate) -> bool:
    """Whether a call is one of einops: `repeat` is also a method of tensors, with numbers."""
    if op.name != "repeat":
        return op.name in EINOPS
    return any(isinstance(evaluate(a.value), str) for a in args)


def rearranged(
    name: str, args: Sequence[ast.Argument], evaluate: Evaluate, span: Span, frame: Frame, first: Given | None = None
) -> Value:
    """`rearrange(x, "b t (h d) -> b h t d", h=heads)`, recorded as plain operations."""
    given, lengths = _given(name, args, evaluate, span, first)
    x = _tensor(name, given, span, frame)
    text, at = given["pattern"]
    if not isinstance(text, str):
        fail("E202", f"the pattern of `{name}` is a string", at, f"this is {describe(text)}")
    pattern = _with_dots(_read(text, at), x)
    _check_axes(name, pattern, lengths)
    work = _Work(x, pattern, _lengths(x, pattern, lengths), span, frame)
    work.split()
    if name == "reduce":
        work.reduce(*given["reduction"])
    work.order()
    work.expand()
    work.join()
    return work.x


def _given(
    name: str, args: Sequence[ast.Argument], evaluate: Evaluate, span: Span, first: Given | None
) -> tuple[dict[str, Given], dict[str, Given]]:
    """The arguments of a call, and the lengths of axes."""
    wanted = ["tensor", "pattern", "reduction"] if name == "reduce" else ["tensor", "pattern"]
    found: dict[str, Given] = {}
    lengths: dict[str, Given] = {}
    positional = [*([first] if first else []), *((evaluate(a.value), a.span) for a in args if a.name is None)]
    if len(positional) > len(wanted):
        help = "the length of an axis has its name: `h=8`"
        fail("E202", f"too many arguments of `{name}`", positional[len(wanted)][1], help=help)
    found.update(zip(wanted, positional))
    for argument in args:
        if argument.name is not None:
            into = found if argument.name in wanted else lengths
            if argument.name in into:
                fail("E202", f"argument `{argument.name}` of `{name}` is given twice", argument.span)
            into[argument.name] = (evaluate(argument.value), argument.value.span)
    missing = next((each for each in wanted if each not in found), None)
    if missing is not None:
        fail("E202", f"`{name}` needs `{missing}`", span, help=f"it takes {', '.join(wanted)}, and lengths of axes")
    return found, lengths


def _tensor(name: str, given: Mapping[str, Given], span: Span, frame: Frame) -> Value:
    """The tensor; a list of them is stacked, as in einops."""
    value, at = given["tensor"]
    if isinstance(value, tuple) and value and all(isinstance(v, Value) for v in value):
        value = frame.record("stack", value, {}, span)[0]  # type: ignore[arg-type]
    if not isinstance(value, Value):
        fail("E202", f"`{name}` takes a tensor and a pattern", at, f"this is {describe(value)}")
    return value


# Reading -------------------------------------------------------------------------------------------------------------


def _read(text: str, span: Span) -> Pattern:
    sides = text.split("->")
    if len(sides) != 2:
        fail("E202", 'a pattern is "before -> after"', span, text)
    fixed: dict[str, Size] = {}
    before, after = (_groups(side, fixed, span) for side in sides)
    for side in (before, after):
        twice = next((a for a, n in Counter(a for group in side for a in group).items() if n > 1), None)
        if twice is not None:
            fail("E202", f"axis `{twice}` is twice on one side of the pattern", span, text)
    return Pattern(text, before, after, fixed, span)


def _groups(text: str, fixed: dict[str, Size], span: Span) -> Groups:
    found: list[Group] = []
    for token in re.findall(r"\([^()]*\)|\.\.\.|\w+|\S", text):
        if token == DOTS:
            found.append(BARE)
            continue
        names = re.findall(r"\.\.\.|\w+|[^\s()]", token) if token[0] == "(" else [token]
        found.append(tuple(axis for name in names for axis in _axis(name, fixed, span)))
    return tuple(found)


def _axis(name: str, fixed: dict[str, Size], span: Span) -> Group:
    """An axis; 1 is none at all, another number one of that length."""
    if name.isdecimal():
        if int(name) < 1:
            fail("E202", "the length of an axis is a positive number", span, name)
        if int(name) == 1:
            return ()
        unique = f"{name}.{len(fixed)}"
        fixed[unique] = Size.of(int(name))
        return (unique,)
    if name != DOTS and not re.fullmatch(r"[A-Za-z_]\w*", name):
        fail("E202", f"`{name}` is no axis", span, help='axes are words, as in "b t (h d) -> b h t d"')
    return (name,)


def _with_dots(pattern: Pattern, x: Value) -> Pattern:
    """The pattern with `...` written out for the dimensions that `x` has there."""
    extra = len(x.type.shape) - len(pattern.before)
    if {DOTS, *BARE} & {*pattern.new} and BARE not in pattern.before:
        fail("E202", "`...` stands before the arrow as well, outside of parentheses", pattern.span, pattern.text)
    if REST in x.type.shape and not _covers(pattern.before, x.type.shape):
        told = f"{x.type}: `...` stands for any number of dimensions"
        fail("E208", "a pattern names dimensions that are not known", pattern.span, told, help="write `...` for them")
    if REST in x.type.shape and DOTS in pattern.new:
        fail("E208", "`...` can't be joined", pattern.span, f"{x.type}: it stands for any number of dimensions")
    if DOTS in pattern.old:
        fail("E202", "`...` before the arrow stands outside of parentheses", pattern.span, pattern.text)
    if BARE not in pattern.before:
        if extra:
            count = len(pattern.before)
            told = f"{x.type} has {len(x.type.shape)} dimensions"
            fail("E203", f"the pattern has {count} {'axis' if count == 1 else 'axes'}", pattern.span, told)
        return pattern
    if extra < -1:
        told = f"{x.type} has {len(x.type.shape)} dimensions"
        fail("E203", f"the pattern has {len(pattern.before) - 1} axes and `...`", pattern.span, told)
    names = tuple(f"{DOTS}{i}" for i in range(extra + 1))
    before, after = (
        tuple(_spread(g, names) for group in side for g in ([(n,) for n in names] if group == BARE else [group]))
        for side in (pattern.before, pattern.after)
    )
    return Pattern(pattern.text, before, after, pattern.fixed, pattern.span)


def _spread(group: Group, names: Group) -> Group:
    """A group with `names` in the place of `...`."""
    return tuple(axis for each in group for axis in (names if each == DOTS else (each,)))


def _covers(groups: Groups, shape: Shape) -> bool:
    """Whether the pattern's `...` stands for the type's."""
    return BARE in groups and groups.index(BARE) <= shape.index(REST) <= groups.index(BARE) + len(shape) - len(groups)


def _check_axes(name: str, pattern: Pattern, lengths: Mapping[str, Given]) -> None:
    """`rearrange` keeps all axes, `reduce` adds none, `repeat` drops none; lengths are of axes that there are."""
    old, new = set(pattern.old), set(pattern.new)
    lost, added = [a for a in pattern.old if a not in new], [a for a in pattern.new if a not in old]
    if lost and name != "reduce":
        help = "`reduce` takes axes away" if name == "rearrange" else None
        fail("E202", f"axis `{_told(lost[0])}` is missing after the arrow", pattern.span, pattern.text, help=help)
    if added and name != "repeat":
        help = "`repeat` adds axes" if name == "rearrange" else None
        fail("E202", f"axis `{_told(added[0])}` is missing before the arrow", pattern.span, pattern.text, help=help)
    for axis, (_, at) in lengths.items():
        if axis not in old | new:
            fail("E202", f"the pattern has no axis `{axis}`", at, pattern.text, help=did_you_mean(axis, old | new))


def _told(axis: str) -> str:
    return axis.partition(".")[0] or DOTS


# Lengths -------------------------------------------------------------------------------------------------------------


def _length(axis: str, given: Given) -> Size:
    value, span = given
    if not isinstance(value, Scalar) or not arithmetic.is_integer(value):
        fail("E202", f"the length of axis `{axis}` is an integer", span, f"this is {describe(value)}")
    size = Size.of(value.value)  # type: ignore[arg-type]
    if (known(size) or 1) < 1 or known(size) == 0:
        fail("E202", f"the length of axis `{axis}` is positive", span, f"this is {size}")
    return size


def _lengths(x: Value, pattern: Pattern, given: Mapping[str, Given]) -> dict[str, Size]:
    """Of every axis: given, or what the others leave of their dimension."""
    found = {**pattern.fixed, **{axis: _length(axis, value) for axis, value in given.items()}}
    for group, size in zip(pattern.before, x.type.shape):
        unknown = [axis for axis in group if axis not in found]
        have = product(tuple(found[axis] for axis in group if axis in found))
        if len(unknown) > 1:
            names = " and ".join(f"`{axis}`" for axis in unknown)
            help = f"give all but one: `{unknown[0]}=...`"
            fail("E208", f"the lengths of axes {names} are not given", pattern.span, f"{size} is theirs", help=help)
        if unknown:
            found[unknown[0]] = _divided(group, size, have, pattern)
        elif not same(have, size):
            names = f"axis `{' '.join(map(_told, group))}`" if group else "`1` in the pattern"
            fail("E203", f"{names} is {have}", pattern.span, f"{x.type} has {size} there")
    missing = next((axis for axis in pattern.new if axis not in found), None)
    if missing is not None:
        fail("E208", f"the length of axis `{missing}` is not given", pattern.span, help=f"give it: `{missing}=...`")
    return found


def _divided(group: Group, size: Size, by: Size, pattern: Pattern) -> Size:
    exact = quotient(size, by)
    if exact is not None:
        return exact
    names = " ".join(map(_told, group))
    a, b = known(size), known(by)
    if a is not None and b:
        fail("E203", f"`({names})` does not come out: {a} / {b} leaves a remainder", pattern.span, pattern.text)
    fail("E208", f"can't prove that `({names})` comes out: {size} / {by}", pattern.span, help=stated(size, by))


# Operations ----------------------------------------------------------------------------------------------------------


class _Work:
    """A tensor on its way: `axes` are those of its dimensions as they are now."""

    def __init__(self, x: Value, pattern: Pattern, lengths: Mapping[str, Size], span: Span, frame: Frame) -> None:
        self.x, self.pattern, self.lengths, self.span, self.frame = x, pattern, lengths, span, frame
        self.axes = pattern.old
        # Where it is not known how many dimensions there are, they are counted from the end.
        self.open = REST in x.type.shape

    def _at(self, index: int) -> int:
        """An axis as a dimension."""
        return index - len(self.axes) if self.open else index

    def _need_counted(self, indices: Iterable[int]) -> None:
        """Refuse to move, reduce or join dimensions that are not known one by one."""
        if any(self.lengths[self.axes[i]] == REST for i in indices):
            told = f"{self.x.type}: `...` stands for any number of dimensions"
            help = "declare the dimensions, as in `x: float[B, T, dim]`"
            fail("E208", "the dimensions of `...` stay as they are", self.pattern.span, told, help=help)

    def _do(self, name: str, **attrs: Attr) -> None:
        """Record the form of an op that takes these attributes."""
        forms = (OPS[name], *OPS[name].overloads)
        op = next(form for form in forms if attrs.keys() <= {arg.name for arg in form.signature})
        bound = bind_plain(op, (self.x,), attrs, self.span)
        self.x = self.frame.builder.add(bound, op.infer(bound), origin=self.frame.origin)[0]

    def _sizes(self, groups: Iterable[Group]) -> tuple[Attr, ...]:
        return tuple(_attr(whole(product(tuple(self.lengths[axis] for axis in group)))) for group in groups)

    def split(self) -> None:
        """One dimension an axis."""
        groups = self.pattern.before
        if self.open:
            self._split_open()
        elif all(len(group) < 2 for group in groups):
            gone = tuple(i for i, group in enumerate(groups) if not group)
            if gone:
                self._do("squeeze", dim=gone[0] if len(gone) == 1 else gone)
        elif any(len(group) != 1 for group in groups):
            self._do("reshape", shape=self._sizes((axis,) for axis in self.axes))

    def _split_open(self) -> None:
        behind = 0
        for group in reversed(self.pattern.before):
            if not group:
                self._do("squeeze", dim=-1 - behind)
            elif len(group) > 1:
                self._do("unflatten", dim=-1 - behind, sizes=self._sizes((axis,) for axis in group))
            behind += len(group)

    def reduce(self, reduction: Semantic, span: Span) -> None:
        """Take the axes away that are not wanted; as ones stay where the pattern has a 1 for each."""
        if not isinstance(reduction, str) or reduction not in REDUCTIONS:
            names = ", ".join(f'"{name}"' for name in REDUCTIONS)
            help = did_you_mean(reduction, REDUCTIONS) if isinstance(reduction, str) else None
            fail("E202", f"the reduction is one of {names}", span, help=help)
        gone = [i for i, axis in enumerate(self.axes) if axis not in self.pattern.new]
        self._need_counted(gone)
        dims = tuple(self._at(i) for i in gone)
        if not dims:
            return
        keep = self.pattern.after == tuple((a,) if a in self.pattern.new else () for a in self.axes)
        op = REDUCTIONS[reduction]
        # `prod` takes one dimension at a time.
        for each in reversed(dims) if op == "prod" else [dims[0] if len(dims) == 1 else dims]:
            self._do(op, dim=each, keepdim=keep)
        self.axes = [a for a in self.axes if a in self.pattern.new]
        if keep:
            self.pattern = Pattern("", self.pattern.before, tuple((a,) for a in self.axes), {}, self.span)

    def order(self) -> None:
        """Put the axes in the order in which they are wanted."""
        wanted = [axis for axis in self.pattern.new if axis in self.axes]
        places = tuple(self.axes.index(axis) for axis in wanted)
        moved = [i for i, place in enumerate(places) if place != i]
        self._need_counted(moved)
        if len(moved) == 2:
            self._do("transpose", dim0=self._at(moved[0]), dim1=self._at(moved[1]))
        elif moved:
            self._need_counted(range(len(self.axes)))
            self._do("permute", dims=places)
        self.axes = wanted

    def expand(self) -> None:
        """Add the axes that are new."""
        wanted = self.pattern.new
        if wanted == self.axes:
            return
        self._need_counted(range(len(self.axes)))
        self._ones([axis not in self.axes for axis in wanted])
        self._do("expand", size=tuple(-1 if a in self.axes else _attr(self.lengths[a]) for a in wanted))
        self.axes = wanted

    def join(self) -> None:
        """The dimensions that are wanted, of one axis, several or none each."""
        groups = self.pattern.after
        if self.open:
            self._join_open()
        elif any(len(group) > 1 for group in groups):
            self._do("reshape", shape=self._sizes(groups))
        elif not all(groups):
            self._ones([not group for group in groups])

    def _join_open(self) -> None:
        for behind, group in enumerate(reversed(self.pattern.after)):
            self._need_counted(self.axes.index(axis) for axis in group if len(group) > 1)
            if not group:
                self._do("unsqueeze", dim=-1 - behind)
            elif len(group) > 1:
                self._do("flatten", start_dim=-len(group) - behind, end_dim=-1 - behind)

    def _ones(self, new: Sequence[bool]) -> None:
        """New dimensions of one element, where `new`."""
        if sum(new) == 1:
            self._do("unsqueeze", dim=new.index(True))
            return
        last = max(i for i, one in enumerate(new) if one)
        items: tuple[Attr, ...] = tuple(None if one else ALL for one in new[: last + 1])
        self._do("index", items=items)


def _attr(size: Size) -> Size | int:
    return size if size.constant is None else size.constant
