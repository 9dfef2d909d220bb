"""Symbolic sizes: polynomials with integer coefficients over run-time sizes and module parameters.

Canonical, so two sizes that are equal as polynomials are equal objects. Floor division and remainder that do not come
out exactly are atoms of their own. Written here because importing sympy costs more than a whole `tdsl check` may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, lcm
from typing import Union


@dataclass(frozen=True)
class Symbol:
    """A size known by name: of the run (`B`), or an integer parameter of a module (`param` true)."""

    name: str
    param: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Quotient:
    """`numerator // denominator` (or `%`) where it is not a polynomial."""

    operator: str
    numerator: Size
    denominator: Size

    def __str__(self) -> str:
        return f"{_operand(self.numerator)} {self.operator} {_operand(self.denominator)}"


Atom = Union[Symbol, Quotient]  # noqa: UP007
Monomial = tuple[tuple[Atom, int], ...]
Terms = tuple[tuple[Monomial, int], ...]
SizeLike = Union["Size", int]


@dataclass(frozen=True)
class Size:
    """A polynomial: `terms` maps monomials to non-zero coefficients, sorted."""

    terms: Terms

    @staticmethod
    def of(value: SizeLike | Atom) -> Size:
        if isinstance(value, Size):
            return value
        if isinstance(value, int):
            return Size((((), value),)) if value else Size(())
        return Size(((((value, 1),), 1),))

    @property
    def constant(self) -> int | None:
        """The integer, where the size is one."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    def __add__(self, other: SizeLike) -> Size:
        total = dict(self.terms)
        for monomial, coefficient in Size.of(other).terms:
            total[monomial] = total.get(monomial, 0) + coefficient
        return _canonical(total)

    def __mul__(self, other: SizeLike) -> Size:
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in Size.of(other).terms:
                monomial = _times(left, right)
                total[monomial] = total.get(monomial, 0) + a * b
        return _canonical(total)

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: SizeLike) -> Size:
        return self + -Size.of(other)

    def __radd__(self, other: int) -> Size:
        return self + other

    def __rmul__(self, other: int) -> Size:
        return self * other

    def __rsub__(self, other: int) -> Size:
        return Size.of(other) - self

    def __floordiv__(self, other: SizeLike) -> Size:
        divisor = Size.of(other)
        exact = self.exact(divisor)
        if exact is not None:
            return exact
        if divisor.constant is not None and divisor.constant > 0:
            return _floor(self, divisor.constant)
        if self.constant is not None and divisor.constant:
            return Size.of(self.constant // divisor.constant)
        # What divides exactly moves out: (n * T + 1) // n is T + 1 // n.
        whole = _canonical(dict(t for t in self.terms if Size((t,)).exact(divisor) is not None))
        out = whole.exact(divisor)
        assert out is not None
        return out + Size.of(Quotient("//", self - whole, divisor))

    def __mod__(self, other: SizeLike) -> Size:
        divisor = Size.of(other)
        if self.exact(divisor) is not None:
            return Size.of(0)
        if self.constant is not None and divisor.constant:
            return Size.of(self.constant % divisor.constant)
        if divisor.constant is not None and divisor.constant > 0:
            rest = _canonical({m: c % divisor.constant for m, c in self.terms})
            return rest if rest.constant is not None else Size.of(Quotient("%", rest, divisor))
        return Size.of(Quotient("%", self, divisor))

    def exact(self, divisor: SizeLike) -> Size | None:
        """The quotient where `divisor` is a monomial that divides every term, else None."""
        by = Size.of(divisor)
        if not self.terms:
            return self if by.terms else None
        if len(by.terms) != 1:
            return Size.of(1) if self == by and by.terms else None
        monomial, coefficient = by.terms[0]
        found: dict[Monomial, int] = {}
        for left, a in self.terms:
            rest = _over(left, monomial)
            if rest is None or a % coefficient:
                return None
            found[rest] = a // coefficient
        return _canonical(found)

    def substitute(self, known: Mapping[Symbol, SizeLike]) -> Size:
        """Replace symbols; quotients are worked out again."""
        total = Size.of(0)
        for monomial, coefficient in self.terms:
            product = Size.of(coefficient)
            for atom, power in monomial:
                replaced = _replace(atom, known)
                for _ in range(power):
                    product = product * replaced
            total = total + product
        return total

    def symbols(self) -> frozenset[Symbol]:
        found: set[Symbol] = set()
        for monomial, _ in self.terms:
            for atom, _power in monomial:
                if isinstance(atom, Symbol):
                    found.add(atom)
                else:
                    found |= atom.numerator.symbols() | atom.denominator.symbols()
        return frozenset(found)

    def modulus(self) -> int:
        """A number that every constant divides by which something is divided, those within quotients multiplied."""
        return lcm(*(_modulus(atom) for monomial, _ in self.terms for atom, _power in monomial))

    def divided(self) -> frozenset[Symbol]:
        """The symbols that stand within a quotient."""
        atoms = [atom for monomial, _ in self.terms for atom, _power in monomial]
        return frozenset(s for a in atoms if isinstance(a, Quotient) for s in a.numerator.symbols())

    def __str__(self) -> str:
        """As Python (and the language) writes it: what was taken out of a quotient goes back where that is shorter."""
        text, joined = self._sum(), self._joined()
        return joined if joined is not None and len(joined) < len(text) else text

    def _joined(self) -> str | None:
        """`8 * dim // 3` for `2 * dim // 3 + 2 * dim`; None where no quotient stands alone in a sum."""
        alone = [(m[0][0], (m, c)) for m, c in self.terms if c == 1 and len(m) == 1 and m[0][1] == 1]
        found = [(atom, term) for atom, term in alone if isinstance(atom, Quotient) and atom.operator == "//"]
        if len(found) != 1 or len(self.terms) == 1:
            return None
        ((quotient, term),) = found
        rest = _canonical(dict(t for t in self.terms if t != term))
        return str(Quotient("//", quotient.numerator + rest * quotient.denominator, quotient.denominator))

    def _sum(self) -> str:
        if not self.terms:
            return "0"
        text = ""
        for monomial, coefficient in _shown(self):
            sign = "-" if coefficient < 0 else "+"
            # -(H % 2) is not -H % 2.
            body = _term(monomial, abs(coefficient), loose=bool(text) or coefficient > 0)
            text += f" {sign} {body}" if text else (f"-{body}" if coefficient < 0 else body)
        return text


def product(sizes: tuple[Size, ...]) -> Size:
    total = Size.of(1)
    for size in sizes:
        total = total * size
    return total


def _modulus(atom: Atom) -> int:
    if isinstance(atom, Symbol):
        return 1
    return abs(atom.denominator.constant or 1) * atom.numerator.modulus()


def _floor(size: Size, divisor: int) -> Size:
    """`size // divisor` for a positive number, in the one form that equal quotients have.

    Whole multiples move out: (3 * H - 1) // 2 is H + (H + 1) // 2 - 1. Common factors go: (2 * H + 1) // 4 is H // 2.
    A quotient inside is joined: (H // 2 + 1) // 2 is (H + 2) // 4.
    """
    out = _canonical({m: c // divisor for m, c in size.terms})
    rest = _canonical({m: c % divisor for m, c in size.terms})
    common = gcd(divisor, *(c for m, c in rest.terms if m))
    rest, divisor = _canonical({m: c // common for m, c in rest.terms}), divisor // common
    inner = [(m[0][0], c) for m, c in rest.terms if len(m) == 1 and m[0][1] == 1 and isinstance(m[0][0], Quotient)]
    floors = [(a, c) for a, c in inner if isinstance(a, Quotient) and a.operator == "//"]
    if divisor > 1 and len(floors) == 1 and floors[0][1] == 1:
        atom = floors[0][0]
        rest = atom.numerator + (rest - Size.of(atom)) * atom.denominator
        return out + rest // (atom.denominator * divisor)
    if divisor == 1 or rest.constant is not None:
        return out + (rest if divisor == 1 else Size.of((rest.constant or 0) // divisor))
    return out + Size.of(Quotient("//", rest, Size.of(divisor)))


def _times(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: str(item[0])))


def _over(left: Monomial, right: Monomial) -> Monomial | None:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) - power
        if powers[atom] < 0:
            return None
    return tuple((atom, power) for atom, power in powers.items() if power)


def _canonical(terms: Mapping[Monomial, int]) -> Size:
    kept = [(m, c) for m, c in terms.items() if c]
    # Highest degree first, then by name: `2*dim + 1`, as a person writes it.
    kept.sort(key=lambda term: (-sum(p for _, p in term[0]), [str(a) for a, _ in term[0]]))
    return Size(tuple(kept))


def _replace(atom: Atom, known: Mapping[Symbol, SizeLike]) -> Size:
    if isinstance(atom, Symbol):
        return Size.of(known.get(atom, Size.of(atom)))
    numerator, denominator = atom.numerator.substitute(known), atom.denominator.substitute(known)
    return numerator // denominator if atom.operator == "//" else numerator % denominator


def _shown(size: Size) -> Terms:
    """The terms as a person writes them: (H - 1) // 2 rather than (H + 1) // 2 - 1."""
    floors = [m[0][0] for m, c in size.terms if len(m) == 1 and m[0][1] == c == 1 and isinstance(m[0][0], Quotient)]
    rest = dict(size.terms).get((), 0)
    if len(floors) != 1 or rest >= 0 or floors[0].operator != "//" or not dict(floors[0].numerator.terms).get(()):
        return size.terms
    moved = Quotient("//", floors[0].numerator + floors[0].denominator * rest, floors[0].denominator)
    terms = [(((moved, 1),), 1) if m == ((floors[0], 1),) else (m, c) for m, c in size.terms if m]
    return tuple(terms)


def _operand(size: Size) -> str:
    text = str(size)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _term(monomial: Monomial, coefficient: int, loose: bool) -> str:
    """A product; a quotient alone needs no parentheses where what stands before it leaves it `loose`."""
    factors = [str(coefficient)] if coefficient != 1 or not monomial else []
    for atom, power in monomial:
        alone = loose and coefficient == 1 and len(monomial) == 1 and power == 1
        text = str(atom) if isinstance(atom, Symbol) or alone else f"({atom})"
        factors += [text] * power
    return " * ".join(factors)
