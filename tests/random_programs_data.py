"""Random programs as data: types, statements, helpers, and the text that they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests import random_programs_text as texts

Shape = tuple[str, ...]


@dataclass(frozen=True)
class Type:
    """A dtype (`float`, `int` or `bool`) and dimensions by name."""

    dtype: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(self.shape)}]"


@dataclass(frozen=True)
class Statement:
    """`text` with `{name}` for the result and `{0}`, `{1}` for the operands."""

    name: str
    text: str
    operands: tuple[str, ...]
    type: Type

    def lines(self) -> list[str]:
        filled = self.text.replace("{name}", self.name)
        for number, operand in enumerate(self.operands):
            filled = filled.replace(f"{{{number}}}", operand)
        return filled.split("\n")


@dataclass(frozen=True)
class Helper:
    """A function or module of its own, of two tensors `float[..., D]`."""

    name: str
    is_module: bool
    statements: tuple[Statement, ...]
    result: str

    def text(self) -> str:
        body = [line for s in self.statements for line in s.lines()] + [f"return {self.result}"]
        types = "(a: float[..., D], b: float[..., D]) -> float[..., D] {"
        if not self.is_module:
            return "\n".join([f"fn {self.name}{types}", *(f"    {line}" for line in body), "}\n\n"])
        head = [f"module {self.name}(D: int) {{", "    param w: [D] = ones()", f"    forward{types}"]
        return "\n".join([*head, *(f"        {line}" for line in body), "    }", "}\n\n"])


@dataclass(frozen=True)
class Program:
    """A module: inputs and parameters with their types, helpers, statements, what it returns, and how it is run.

    `sizes` are those of the run, `layouts` how the inputs lie in memory. With `small` tiles even few rows and columns
    take several programs, and walks over rows several steps.
    """

    name: str
    inputs: tuple[tuple[str, Type], ...]
    params: tuple[tuple[str, Shape], ...]
    statements: tuple[Statement, ...]
    outputs: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...] = (("B", 4), ("T", 3), ("D", 5), ("K", 2), ("1", 1))
    layouts: tuple[str, ...] = ()
    deep: bool = True
    training: bool = True
    helpers: tuple[Helper, ...] = ()
    small: bool = False

    @property
    def types(self) -> dict[str, Type]:
        params = {name: Type("float", shape) for name, shape in self.params}
        return dict(self.inputs) | params | {s.name: s.type for s in self.statements}

    def text(self) -> str:
        types = self.types
        body = [f"        {line}" for s in self.statements for line in s.lines()]
        inputs = ", ".join(f"{n}: {t}" for n, t in self.inputs)
        results = ", ".join(str(types[n]) for n in self.outputs)
        results = f"({results})" if len(self.outputs) > 1 else results
        sizes = dict(self.sizes)
        head = f"module {self.name}(D: int = {sizes['D']}, K: int = {sizes['K']}, deep: bool = {str(self.deep).lower()}) {{"
        lines = [head, *self._members(body), f"    forward({inputs}) -> {results} {{", *body]
        lines += [f"        return {', '.join(self.outputs)}", "    }", "}\n\n"]
        return "".join(h.text() for h in self._used(body)) + "\n".join(lines)

    def _used(self, body: Iterable[str]) -> list[Helper]:
        whole = "\n".join(body)
        return [h for h in self.helpers if f"{h.name}(" in whole or f"{h.name.lower()}(" in whole]

    def _members(self, body: Sequence[str]) -> list[str]:
        whole = " ".join(body).replace("(", " ").replace("[", " ").split()
        params = [f"    param {n}: [{', '.join(s)}] = ones()" for n, s in self.params]
        layers = [f"    {n} = {made}" for n, made in texts.LAYERS.items() if n in whole]
        return params + layers + [f"    {h.name.lower()} = {h.name}(D)" for h in self._used(body) if h.is_module]


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The common shape, or None."""
    found: list[str] = []
    for i in range(1, max(len(a), len(b)) + 1):
        x, y = (s[-i] if i <= len(s) else "1" for s in (a, b))
        if x != y and "1" not in (x, y):
            return None
        found.insert(0, y if x == "1" else x)
    return tuple(found)
