"""`rearrange`, `reduce`, `repeat` and `einsum`: patterns, resolved at compile time to plain operations."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.values import Semantic
from tdsl.compiler.ir import Scalar, Value
from tdsl.compiler.ops.infer import known, same
from tdsl.compiler.size import Size, product
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span, fail

EINOPS = ("rearrange",)
Axes = tuple[tuple[str, ...], ...]


def rearranged(name: str, expr: ast.Call, frame: Frame) -> Value:
    """`rearrange(x, "b t (h d) -> b h t d", h=heads)`: split, permute, join."""
    from tdsl.compiler.build.expr import evaluate, tensor

    if len(expr.args) < 2 or expr.args[0].name or expr.args[1].name:
        fail("E202", f"`{name}` takes a tensor and a pattern", expr.span)
    x = tensor(expr.args[0].value, frame)
    pattern = evaluate(expr.args[1].value, frame)
    at = expr.args[1].span
    if not isinstance(pattern, str):
        fail("E202", f"the pattern of `{name}` is a string", at)
    sizes = {a.name: _given(evaluate(a.value, frame), a.span) for a in expr.args[2:] if a.name}
    before, after = _pattern(pattern, at)
    lengths = _lengths(x, before, sizes, at)
    flat = [n for group in before for n in group]
    order = [n for group in after for n in group]
    if sorted(flat) != sorted(order):
        fail("E202", "both sides of the pattern name the same axes, each once", at)
    return _emit(x, before, after, flat, order, lengths, expr.span, frame)


def _given(value: Semantic, span: Span) -> Size:
    if not isinstance(value, Scalar) or not arithmetic.is_integer(value):
        fail("E202", "the length of an axis is an integer", span)
    return Size.of(value.value)  # type: ignore[arg-type]


def _pattern(text: str, span: Span) -> tuple[Axes, Axes]:
    sides = text.split("->")
    if len(sides) != 2:
        fail("E202", 'a pattern is "before -> after"', span)
    return _axes(sides[0], span), _axes(sides[1], span)


def _axes(text: str, span: Span) -> Axes:
    tokens = re.findall(r"\([^()]*\)|[A-Za-z_]\w*|\S", text)
    found: list[tuple[str, ...]] = []
    for token in tokens:
        names = tuple(token.strip("()").split()) if token.startswith("(") else (token,)
        if not all(re.fullmatch(r"[A-Za-z_]\w*", n) for n in names):
            fail("E202", f"`{token}` is no axis", span)
        found.append(names)
    return tuple(found)


def _lengths(x: Value, before: Axes, given: Mapping[str, Size], span: Span) -> dict[str, Size]:
    shape = x.type.shape
    if len(before) != len(shape):
        fail("E203", f"the pattern has {len(before)} axes", span, f"{x.type} has {len(shape)} dimensions")
    found = dict(given)
    for group, size in zip(before, shape):
        unknown = [n for n in group if n not in found]
        have = product(tuple(found[n] for n in group if n in found))
        if len(unknown) > 1:
            fail("E208", f"the lengths of {', '.join(unknown)} are not given", span)
        if unknown:
            found[unknown[0]] = _divided(size, have, span)
        elif not same(have, size):
            fail("E203", f"axis {' '.join(group)} is {have}", span, f"{x.type} has {size} there")
    return found


def _divided(size: Size, by: Size, span: Span) -> Size:
    exact = size.exact(by)
    if exact is not None:
        return exact
    a, b = known(size), known(by)
    if a is None or not b or a % b:
        fail("E208", f"can't prove that {size} divides by {by}", span)
    return size // by


def _emit(
    x: Value,
    before: Axes,
    after: Axes,
    flat: list[str],
    order: list[str],
    lengths: Mapping[str, Size],
    span: Span,
    frame: Frame,
) -> Value:
    if any(len(g) != 1 for g in before):
        split = tuple(_attr(lengths[n]) for n in flat)
        x = frame.record("reshape", (x,), {"shape": split}, span)[0]
    places = tuple(flat.index(n) for n in order)
    moved = [i for i, p in enumerate(places) if p != i]
    if len(moved) == 2:
        x = frame.record("transpose", (x,), {"dim0": moved[0], "dim1": moved[1]}, span)[0]
    elif moved:
        x = frame.record("permute", (x,), {"dims": places}, span)[0]
    if any(len(g) != 1 for g in after):
        joined = tuple(_attr(product(tuple(lengths[n] for n in g))) for g in after)
        x = frame.record("reshape", (x,), {"shape": joined}, span)[0]
    return x


def _attr(size: Size) -> Size | int:
    return size if size.constant is None else size.constant
