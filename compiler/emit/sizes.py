"""Sizes as Python reads them while a function runs: module parameters from the module, the others from its inputs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from tdsl.compiler.ir import Value
from tdsl.compiler.size import Size, Symbol

# The leading dimensions that a signature writes `...`.
DOTS = Size.of(Symbol("..."))
# How many times a size may be found in a dimension.
MOST_TIMES = 9


class Sizes:
    """The texts of the sizes that a function writes.

    A size read once is read in place (`x.shape[0]`), one read more often gets its name in the first line
    (`B, T, _ = x.shape`), as does one of an input whose name is bound again. `names` are those names; `read` tells the
    last place where each input's shape is read otherwise.
    """

    def __init__(
        self,
        written: Iterable[tuple[int, Size]],
        inputs: Mapping[Value, str],
        taken: Collection[str],
        owner: str | None,
        given: Mapping[Size, str] | None = None,
    ) -> None:
        """`owner` is how a module parameter is reached, None where it too is read from the inputs.

        `taken` are the names that the function binds or needs otherwise, `given` the sizes among its arguments.
        """
        self.inputs, self.owner, self.given = inputs, owner, given or {}
        sizes = [(i, size) for i, size in written if size not in self.given]
        counts = Counter(symbol for _, size in sizes for symbol in self._run_time(size))
        self.sources = {symbol: self._source(symbol) for symbol in counts}
        used = {*taken, *inputs.values()}
        self.names: dict[Symbol, str] = {}
        for symbol, at in sorted(self.sources.items(), key=lambda item: item[0].name):
            if at is not None and (counts[symbol] > 1 or inputs[at[0]] in taken):
                self.names[symbol] = f"{symbol}_" if symbol.name in used else symbol.name
        self.read = {at[0]: i for i, size in sizes for at in self._read(size)}

    def _run_time(self, size: Size) -> frozenset[Symbol]:
        return frozenset(s for s in size.symbols() if self.owner is None or not s.param)

    def _read(self, size: Size) -> list[tuple[Value, int]]:
        found = [self.sources[s] for s in self._run_time(size) if s not in self.names]
        return [at for at in found if at is not None]

    def _source(self, symbol: Symbol) -> tuple[Value, int] | None:
        """The input and dimension that is the symbol."""
        return self._dimension(Size.of(symbol))

    def _dimension(self, size: Size) -> tuple[Value, int] | None:
        for value in self.inputs:
            if size in value.type.shape:
                return value, value.type.shape.index(size)
        return None

    def text(self, size: Size) -> str:
        """A size; ValueError where no input tells it."""
        if size in self.given:
            return self.given[size]
        if any(self.sources.get(s) is None for s in self._run_time(size)):
            at = self._dimension(size)
            text = self._shape(*at) if at is not None else self._solved(size)
            if text is None:
                raise ValueError(f"no input has the size {size}")
            return text
        text = str(size)
        for symbol in sorted(size.symbols(), key=lambda s: s.name):
            text = re.sub(rf"(?<![\w.]){symbol.name}\b(?!\.)", self._symbol(symbol), text)
        return text

    def _solved(self, size: Size) -> str | None:
        """The text of a size of which a dimension of an input is a multiple, or more by a number: a piece's."""
        for value in self.inputs:
            for index, dimension in enumerate(value.type.shape):
                for times in range(1, MOST_TIMES):
                    more = (dimension - size * Size.of(times)).constant
                    if more is None:
                        continue
                    text = self._shape(value, index)
                    text = f"{text} - {more}" if more > 0 else f"{text} + {-more}" if more else text
                    return text if times == 1 else f"({text}) // {times}" if more else f"{text} // {times}"
        return None

    def _symbol(self, symbol: Symbol) -> str:
        if self.owner is not None and symbol.param:
            return f"{self.owner}{symbol.name}"
        if symbol in self.names:
            return self.names[symbol]
        at = self.sources[symbol]
        assert at is not None
        return self._shape(*at)

    def _shape(self, value: Value, index: int) -> str:
        """One dimension, counted from the end where it is the last or follows leading ones that have no number."""
        shape = value.type.shape
        from_end = DOTS in shape[:index] or 0 < index == len(shape) - 1
        return f"{self.inputs[value]}.shape[{index - len(shape) if from_end else index}]"

    def header(self) -> list[str]:
        """The statements that name sizes: `B, T, _ = x.shape`."""
        wanted: dict[Value, set[Symbol]] = {}
        for symbol in self.names:
            at = self.sources[symbol]
            assert at is not None
            wanted.setdefault(at[0], set()).add(symbol)
        return [self._unpacked(value, wanted[value]) for value in self.inputs if value in wanted]

    def _unpacked(self, value: Value, symbols: set[Symbol]) -> str:
        if len(symbols) == 1:
            (symbol,) = symbols
            return f"{self.names[symbol]} = {self._shape(value, value.type.shape.index(Size.of(symbol)))}"
        left = {Size.of(symbol): self.names[symbol] for symbol in symbols}
        names = ["*_" if size == DOTS else left.pop(size, "_") for size in value.type.shape]
        return f"{', '.join(names)} = {self.inputs[value]}.shape"
