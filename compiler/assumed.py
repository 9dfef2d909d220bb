"""What a program states of its sizes (`assume`), in a form that proofs can use.

An equality, or that something divides, becomes a replacement of one symbol: after `assume T % 4 == 0`, `T` is four
times a whole number without a name, so `T // 2` and `T // 4 * 2` come out the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import gcd

from tdsl.compiler.ir import Assumption
from tdsl.compiler.size import Quotient, Size, Symbol


@dataclass
class Assumptions:
    """`replaced` are symbols in terms of others, `zero` sizes that are 0, `natural` those that are 0 or more."""

    replaced: dict[Symbol, Size] = field(default_factory=dict)
    zero: list[Size] = field(default_factory=list)
    natural: list[Size] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.replaced or self.zero or self.natural)

    def copy(self) -> Assumptions:
        return Assumptions(dict(self.replaced), list(self.zero), list(self.natural))

    def clear(self) -> None:
        self.replaced.clear()
        self.zero.clear()
        self.natural.clear()

    def add(self, others: Iterable[Assumption]) -> None:
        for each in others:
            self.state(each)

    def become(self, other: Assumptions) -> None:
        self.clear()
        self.replaced.update(other.replaced)
        self.zero += other.zero
        self.natural += other.natural

    def state(self, fact: Assumption) -> None:
        """Know one more fact."""
        difference = fact.left - fact.right
        if fact.op == "==":
            remainder = _remainder(fact.left)
            if remainder is not None and fact.right.constant is not None:
                self._divides(remainder.numerator - fact.right, remainder.denominator)
            else:
                self._equal(self.resolve(difference), fact.right)
        elif fact.op in ("<=", "<"):
            self.natural.append(self.resolve(-difference - int(fact.op == "<")))
        elif fact.op in (">=", ">"):
            self.natural.append(self.resolve(difference - int(fact.op == ">")))

    def resolve(self, size: Size) -> Size:
        """A size with every symbol in terms of those that are left."""
        return size.substitute(self.replaced) if self.replaced else size

    def is_zero(self, size: Size) -> bool:
        found = self.resolve(size)
        return found.constant == 0 or any(_is_multiple(found, zero) for zero in self.zero)

    def divides(self, size: Size, by: Size) -> bool:
        """Whether what is stated makes `size / by` come out whole."""
        size, by = self.resolve(size), self.resolve(by)
        return size.exact(by) is not None or self.is_zero(size // by * by - size)

    def _equal(self, difference: Size, right: Size) -> None:
        symbol = _lone(difference, right.symbols())
        if symbol is None:
            self.zero += [] if difference.constant is not None else [difference]
            return
        coefficient = _coefficient(difference, symbol)
        self._replace(symbol, (difference - coefficient * Size.of(symbol)) * -coefficient)

    def _divides(self, numerator: Size, denominator: Size) -> None:
        numerator, by = self.resolve(numerator), self.resolve(denominator)
        if by.constant is not None:
            numerator, by = _reduced(numerator, by.constant)
        symbol = _lone(numerator, numerator.symbols() - by.symbols())
        if numerator.exact(by) is not None:
            return
        if symbol is None or symbol in by.symbols():
            self.zero.append(numerator // by * by - numerator)
            return
        coefficient = _coefficient(numerator, symbol)
        rest = numerator - coefficient * Size.of(symbol)
        whole = Size.of(Symbol(f"({numerator}) / ({by})", param=symbol.param))
        self._replace(symbol, (whole * by - rest) * coefficient)

    def _replace(self, symbol: Symbol, by: Size) -> None:
        known = {symbol: by}
        self.replaced = {s: size.substitute(known) for s, size in self.replaced.items()} | known
        self.zero = [size.substitute(known) for size in self.zero]
        self.natural = [size.substitute(known) for size in self.natural]


def _remainder(size: Size) -> Quotient | None:
    """`a % b`, where a size is that alone."""
    if len(size.terms) != 1 or size.terms[0][1] != 1 or len(size.terms[0][0]) != 1:
        return None
    atom, power = size.terms[0][0][0]
    return atom if isinstance(atom, Quotient) and atom.operator == "%" and power == 1 else None


def _reduced(numerator: Size, by: int) -> tuple[Size, Size]:
    """What is to divide what, without factors that both have, or that can't matter."""
    content = gcd(*(c for _, c in numerator.terms)) if numerator.terms else 1
    common = gcd(content, by)
    while common > 1:
        content, by = content // common, by // common
        numerator = numerator.exact(common) or numerator
        common = gcd(content, by)
    return (numerator.exact(content) or numerator if content > 1 else numerator), Size.of(by)


def _lone(size: Size, wanted: Iterable[Symbol]) -> Symbol | None:
    """A symbol that a size is linear in, with coefficient 1 or -1, and that stands nowhere else in it."""
    preferred = sorted(size.symbols() & set(wanted), key=lambda s: (s.param, s.name))
    for symbol in (*preferred, *sorted(size.symbols() - set(preferred), key=lambda s: (s.param, s.name))):
        coefficient = _coefficient(size, symbol)
        if abs(coefficient) == 1 and symbol not in (size - coefficient * Size.of(symbol)).symbols():
            return symbol
    return None


def _is_multiple(size: Size, of: Size) -> bool:
    """Whether a size is another times a product of sizes."""
    first = Size(of.terms[:1])
    factors = (Size((term,)).exact(first) for term in size.terms)
    return any(factor is not None and factor * of == size for factor in factors)


def _coefficient(size: Size, symbol: Symbol) -> int:
    return next((c for monomial, c in size.terms if monomial == ((symbol, 1),)), 0)
