"""Inequalities of sizes: what is proved to be at least, or at most, another.

A run-time size is taken to be at least one, a module's parameter at least zero. Quotients are bounded by their
numerators: `H // 2` lies between `(H - 1) / 2` and `H / 2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tdsl.compiler.ops.infer import ASSUMED, KNOWN
from tdsl.compiler.size import Quotient, Size, SizeLike, Symbol

# How many quotients, and how many stated bounds, one proof may use.
MOST_STEPS = 6


def at_most(left: SizeLike, right: SizeLike) -> bool:
    """Whether `left <= right` is proved."""
    size = Size.of(right) - left
    facts = [fact.substitute(KNOWN) for fact in ASSUMED.natural]
    return any(_not_negative(each.substitute(KNOWN), facts, MOST_STEPS) for each in (size, ASSUMED.resolve(size)))


def at_least(left: SizeLike, right: SizeLike) -> bool:
    """Whether `left >= right` is proved."""
    return at_most(right, left)


def _not_negative(size: Size, facts: Sequence[Size], steps: int) -> bool:
    if size.constant is not None:
        return size.constant >= 0
    if steps == 0:
        return False
    if any(_not_negative(lower, facts, steps - 1) for lower in _without_quotient(size)):
        return True
    if _natural_terms(size):
        return True
    rests = [size - fact for fact in facts]
    return any(len(rest.terms) <= len(size.terms) and _not_negative(rest, facts, steps - 1) for rest in rests)


def _natural_terms(size: Size) -> bool:
    """Whether no coefficient is negative once each size of the run is one and what it has beyond that."""
    if any(isinstance(atom, Quotient) for monomial, _ in size.terms for atom, _ in monomial):
        return False
    at_least_one = (symbol for symbol in size.symbols() if not symbol.param and symbol.name.isidentifier())
    shifted = size.substitute({symbol: Size.of(symbol) + 1 for symbol in at_least_one})
    return all(coefficient > 0 for _, coefficient in shifted.terms)


def _without_quotient(size: Size) -> Iterator[Size]:
    """Sizes that are negative wherever `size` is, each with one quotient less."""
    atom = next((a for monomial, _ in size.terms for a, _ in monomial if isinstance(a, Quotient)), None)
    if atom is None:
        return
    factor, rest = _split(size, atom)
    if factor is None:
        return
    n, d = atom.numerator, atom.denominator
    natural = _natural_terms(n)
    if _natural_terms(factor):
        if natural or atom.operator == "%":
            yield rest
        if atom.operator == "//":
            yield rest * d + factor * (n - d + 1)
    elif _natural_terms(-factor):
        yield rest * d + factor * n if atom.operator == "//" else rest + factor * (d - 1)
        if natural:
            yield rest + factor * n


def _split(size: Size, atom: Quotient | Symbol) -> tuple[Size | None, Size]:
    """`(factor, rest)` of `factor * atom + rest`; no factor where the atom has a power."""
    factor, rest = Size.of(0), Size.of(0)
    for monomial, coefficient in size.terms:
        powers = dict(monomial)
        if powers.get(atom, 0) > 1:
            return None, size
        if atom in powers:
            del powers[atom]
            factor = factor + Size(((tuple(powers.items()), coefficient),))
        else:
            rest = rest + Size(((monomial, coefficient),))
    return factor, rest
