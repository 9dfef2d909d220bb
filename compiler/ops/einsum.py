"""`einsum`: its equation read and checked, its axes named in errors.

Axes are letters, as PyTorch has them (`"bij,bjk->bik"`); where a term has spaces, they are words
(`"batch time d, batch s d -> batch time s"`), which become letters in what is emitted.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from tdsl.compiler.ir import Shape, TensorType, Value
from tdsl.compiler.ops.cost import Call
from tdsl.compiler.ops.infer import REST, agree, broadcast, known, promote, same
from tdsl.compiler.ops.op import OPS, Bound, Types, library
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail

DOTS = "..."
Term = tuple[str, ...]


def parse(text: str, b: Bound) -> tuple[tuple[Term, ...], Term]:
    """The axes of each operand, and those of the result; without `->` those that occur once, in alphabetical order."""
    before, arrow, after = text.partition("->")
    terms = [term.strip() for term in before.split(",")]
    words = any(re.search(r"\s", term) for term in (*terms, after.strip()))
    inputs = tuple(_axes(term, words, b) for term in terms)
    output = _axes(after.strip(), words, b) if arrow else _implied(inputs)
    twice = next((axis for axis, count in Counter(output).items() if count > 1), None)
    if twice is not None:
        fail("E202", f"axis `{twice}` is twice in the result of `einsum`", b.span, text)
    lost = next((axis for axis in output if axis != DOTS and not any(axis in term for term in inputs)), None)
    if lost is not None:
        fail("E202", f"axis `{lost}` of the result of `einsum` is in no operand", b.span, text)
    return inputs, output


def _axes(term: str, words: bool, b: Bound) -> Term:
    found = tuple(re.findall(r"\.\.\.|[A-Za-z_]\w*|\S" if words else r"\.\.\.|\S", term))
    wrong = next((axis for axis in found if axis != DOTS and not re.fullmatch(r"[A-Za-z]\w*", axis)), None)
    if wrong is not None:
        fail("E202", f"`{wrong}` is no axis of `einsum`", b.span, term)
    if found.count(DOTS) > 1:
        fail("E202", "`...` stands once in a term of `einsum`", b.span, term)
    return found


def _implied(inputs: Iterable[Term]) -> Term:
    counts = Counter(axis for term in inputs for axis in term)
    dots = (DOTS,) if DOTS in counts else ()
    return (*dots, *sorted(axis for axis, count in counts.items() if count == 1 and axis != DOTS))


def _einsum(b: Bound) -> Types:
    text = b.attrs["equation"]
    assert isinstance(text, str)
    inputs, output = parse(text, b)
    types = [v.type for v in b.inputs if isinstance(v, Value)]
    if len(types) != len(inputs):
        fail("E202", f"`einsum` has {len(inputs)} terms for {len(types)} tensors", b.span, text)
    if len(types) > 1:
        agree(b)
        if types[0].dtype == "bool":
            fail("E205", "`einsum` does not multiply booleans", b.span, help="convert with `.float()`")
    lengths: dict[str, tuple[Size, int]] = {}
    rests: list[TensorType] = []
    for i, (term, type) in enumerate(zip(inputs, types)):
        rests.append(TensorType(type.dtype, _measured(b, term, type, i, lengths)))
    rest = broadcast(rests, "einsum", b.span)
    shape = [size for axis in output for size in (rest if axis == DOTS else (lengths[axis][0],))]
    return (TensorType(promote(b.inputs), tuple(shape)),)


def _measured(b: Bound, term: Term, type: TensorType, index: int, lengths: dict[str, tuple[Size, int]]) -> Shape:
    """Enter the lengths of a term's axes; the dimensions that its `...` stands for."""
    extra = len(type.shape) - len([axis for axis in term if axis != DOTS])
    if extra < 0 or (extra and DOTS not in term):
        named = " ".join(term) or "no axes"
        fail("E203", f"`einsum` names {named} of a tensor with {len(type.shape)} dimensions", b.span, str(type))
    at = term.index(DOTS) if DOTS in term else len(term)
    names = [*term[:at], *[""] * extra, *term[at + 1 :]]
    mine: dict[str, Size] = {}
    for axis, size in zip(names, type.shape):
        if axis and axis in mine and not same(mine[axis], size):
            label = f"{mine[axis]} and {size} in {type}"
            fail("E203", f"axis `{axis}` of `einsum` has two lengths in one tensor", b.span, label)
        if axis and size == REST:
            told = f"{type}: `...` stands for any number of dimensions"
            fail("E208", f"axis `{axis}` of `einsum` is not known", b.span, told, help="write `...` for it as well")
        if axis:
            mine[axis] = size
            _enter(b, axis, size, index, lengths)
    return tuple(size for axis, size in zip(names, type.shape) if not axis)


def _enter(b: Bound, axis: str, size: Size, index: int, lengths: dict[str, tuple[Size, int]]) -> None:
    """A length of 1 is repeated, as PyTorch does."""
    if axis not in lengths or known(lengths[axis][0]) == 1:
        lengths[axis] = (size, index)
        return
    have, first = lengths[axis]
    if known(size) != 1 and not same(have, size):
        told = [f"{have} in {b.type(first)}", f"{size} in {b.type(index)}"]
        fail("E203", f"axis `{axis}` of `einsum` has two lengths", b.span, " and ".join(told))


def _text(texts: list[str], attrs: dict[str, Any]) -> str:
    return f"torch.einsum({', '.join([_emitted(attrs['equation']), *texts])})"


def _emitted(text: str) -> str:
    """The equation as PyTorch reads it: words become letters, each its own first one where that is free."""
    parts = re.split(r"(->|,)", text)
    terms = [part.strip() for part in parts[::2]]
    signs = [", " if sign == "," else " -> " for sign in parts[1::2]]
    if any(re.search(r"\s", term) for term in terms):
        words = [re.findall(r"\.\.\.|\w+", term) for term in terms]
        letters = _letters([word for term in words for word in term if word != DOTS])
        terms = [" ".join(letters.get(word, word) for word in term) for term in words]
    else:
        signs = [sign.strip() for sign in signs]
    return f'"{"".join(a + b for a, b in zip(terms, [*signs, ""]))}"'


def _letters(words: Sequence[str]) -> dict[str, str]:
    free = list(string.ascii_letters)
    found: dict[str, str] = {}
    for word in sorted(dict.fromkeys(words), key=len):
        wishes = [c for c in (word[0], word[0].lower(), word[0].upper(), *free) if c in free]
        found[word] = wishes[0]
        free.remove(wishes[0])
    return found


def _flops(call: Call) -> int:
    """As if all of it were computed at once: an upper bound for more than two operands."""
    terms, _ = parse(str(call.attrs["equation"]), Bound(OPS["einsum"], (), call.attrs, None))
    axes: dict[object, int] = {}
    for term, tensor in zip(terms, call.tensors):
        names: list[object] = []
        for axis in term:
            many = len(tensor.shape) - len(term) + 1
            names += [(DOTS, many - i) for i in range(many)] if axis == DOTS else [axis]
        for name, size in zip(names, tensor.shape):
            axes[name] = max(size, axes.get(name, 1))
    return max(len(terms), 1) * prod(axes.values())


library("einsum", "equation: str, *operands: tensors", _einsum, _text, product=_flops)
