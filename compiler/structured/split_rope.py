"""A joint projection split into heads, some of which are turned by rotary positions.

The forward reads those that are turned once and writes them turned; the others are handed on as they lie. The backward
writes the gradients of all into that of the projection, side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tdsl.compiler.emit.render import layout
from tdsl.compiler.emit.triton import Names
from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Group, Structure, Value
from tdsl.compiler.ops.op import OPS
from tdsl.compiler.structured.numbers import declared, given, number_text
from tdsl.compiler.structured.rope import angles
from tdsl.compiler.structured.template import Case, Naming, Template, register

TILE = ("BLOCK_ROWS: tl.constexpr", "BLOCK_COLS: tl.constexpr")
TILED = ("BLOCK_ROWS=tile.rows", "BLOCK_COLS=tile.cols", "num_warps=tile.warps")
NAMES = ("batch", "length", "width", "time", "dim", "table", "angles", "parts", "cos", "sin", "head", "d")


@dataclass(frozen=True)
class Part:
    """A part of the heads: its result `name`, the gradient `grad` of that, and the number of its heads by name.

    `slot` is where a head of it lies among all in the kernel, `slice` where they all lie for the host.
    """

    name: str
    grad: str
    count: str
    turned: bool
    slot: str
    slice: str


# Text ----------------------------------------------------------------------------------------------------------------


def _variables(group: Group, naming: Naming) -> Mapping[str, object]:
    return _Text(group, naming).variables()


class _Text:
    def __init__(self, group: Group, naming: Naming) -> None:
        assert group.structure is not None
        self.options, self.naming = group.structure.options, naming
        (self.x,) = naming.inputs.values()
        names = Names({*naming.arguments, *naming.outputs.values(), *NAMES})
        self.d_x = names.new(f"d_{self.x}")
        self.dim = number_text(self.options["head_dim"], naming) if "head_dim" in self.options else "dim"
        told = _parts(group.structure)
        self.counts = dict.fromkeys(count for count, _ in told)
        grads = [names.new(f"d_{name}") for name in naming.outputs.values()]
        slots, slices = zip(*(self._places(told, i) for i in range(len(told))))
        self.parts = [
            Part(name, grad, count, turned, slot, slice)
            for name, grad, (count, turned), slot, slice in zip(naming.outputs.values(), grads, told, slots, slices)
        ]
        self.turned = [part for part in self.parts if part.turned]

    def variables(self) -> Mapping[str, object]:
        in_all = total([self._heads(part.count) for part in self.parts])
        return {
            "x": self.x,
            "d_x": self.d_x,
            "parts": self.parts,
            "turned": [(part, self._heads(part.count)) for part in self.turned],
            "plain": [part for part in self.parts if not part.turned],
            "total": factor(total([part.count.upper() for part in self.parts])),
            "heads_in_all": in_all,
            "in_all": factor(in_all, "*+"),
            "width": f"{factor(in_all)} * {self.dim}",
            "dim": self.dim,
            "base": number_text(self.options["base"], self.naming),
            "offset": number_text(self.options["offset"], self.naming),
            "arguments": ", ".join(self.naming.arguments),
            "most": self._heads("heads"),
            "results": ", ".join(f"{part.name}.transpose(1, 2)" for part in self.parts),
            "grads": ", ".join(part.grad for part in self.parts),
            "unpacked": list(self._unpacked()),
            "handed": ", ".join([self.d_x, *("None" for _ in self.naming.scalars)]),
            **self._forward(),
            **self._backward(),
        }

    def _heads(self, count: str) -> str:
        """How many heads there are, in the host's words."""
        return number_text(self.options[count], self.naming)

    def _places(self, parts: Sequence[tuple[str, bool]], index: int) -> tuple[str, str]:
        """The slot and the slice of a part."""
        if self.options["mixed"]:
            number = len(parts)
            return (f"({number} * head + {index})" if index else f"{number} * head"), f"{index}::{number}"
        before, until = ([count for count, _ in parts[:n]] for n in (index, index + 1))
        slot = f"({total([count.upper() for count in before])} + head)" if before else "head"
        bounds = [total(list(map(self._heads, counts))) if counts else "" for counts in (before, until)]
        return slot, part_of(bounds[0], bounds[1] if len(until) < len(parts) else "")

    def _constants(self) -> list[str]:
        return [f"{count.upper()}: tl.constexpr" for count in self.counts] + ["DIM: tl.constexpr", *TILE]

    def _given(self) -> list[str]:
        return [f"{count.upper()}={self._heads(count)}" for count in self.counts] + [f"DIM={self.dim}", *TILED]

    def _forward(self) -> Mapping[str, object]:
        name, outputs = self.naming.name, [part.name for part in self.turned]
        pointers = [f"{each}_ptr" for each in (self.x, "table", *outputs)]
        given = [self.x, "table", *outputs, "batch * length", "length", *self._given()]
        return {
            "forward_head": layout(f"def _{name}_forward", [*pointers, "n_rows", "length", *self._constants()], ":", 0),
            "forward_loops": self._loops(self.turned, self._turn_forward),
            "forward_launch": layout(f"_{name}_forward[tile.grid]", given, "", 12),
        }

    def _backward(self) -> Mapping[str, object]:
        name, grads = self.naming.name, [part.grad for part in self.parts]
        pointers = [f"{each}_ptr" for each in (*grads, "table", self.d_x)]
        strides = [f"{grad}_{dim}" for grad in grads for dim in ("batch", "head", "time")]
        head = [*pointers, "n_rows", "length", *strides, *self._constants()]
        lie = [f"*{grad}.stride()[:3]" for grad in grads]
        given = [*grads, "ctx.table", self.d_x, "batch * length", "length", *lie, *self._given()]
        return {
            "backward_head": layout(f"def _{name}_backward", head, ":", 0),
            "backward_loops": self._loops(self.parts, self._turn_back),
            "backward_launch": layout(f"_{name}_backward[tile.grid]", given, "", 12),
        }

    def _loops(self, parts: Sequence[Part], statement: object) -> list[tuple[str, list[str]]]:
        """For each number of heads, what is done with one head of each part that has so many."""
        assert callable(statement)
        counts = dict.fromkeys(part.count for part in parts)
        return [(count.upper(), [statement(p) for p in parts if p.count == count]) for count in counts]

    def _turn_forward(self, part: Part) -> str:
        places = [f"{self.x} + {part.slot} * DIM", f"{part.name} + head * DIM"]
        return layout(f"_{self.naming.name}_turn", [*places, "cos", "sin", "mask", "HALF"], "", 8)

    def _turn_back(self, part: Part) -> str:
        places = [f"{part.grad} + head * {part.grad}_head", f"{self.d_x} + {part.slot} * DIM"]
        if not part.turned:
            return layout(f"_{self.naming.name}_copy", [*places, "mask", "HALF"], "", 8)
        return layout(f"_{self.naming.name}_turn", [*places, "cos", "-sin", "mask", "HALF"], "", 8)

    def _unpacked(self) -> Iterator[str]:
        """The sizes of the backward, read from the gradients."""
        for i, count in enumerate(self.counts):
            grad = next(part.grad for part in self.parts if part.count == count)
            heads = self._heads(count)
            if i == 0:
                sizes = ["batch", heads, "length", self.dim]
                yield f"{', '.join('_' if size.isdecimal() else size for size in sizes)} = {grad}.shape"
            elif not heads.isdecimal():
                yield f"{heads} = {grad}.shape[1]"


def total(counts: Sequence[str]) -> str:
    """A sum, equal terms as a product: `heads + 2 * groups`."""
    number = sum(int(count) for count in counts if count.isdecimal())
    named = Counter(count for count in counts if not count.isdecimal())
    terms = [name if times == 1 else f"{times} * {name}" for name, times in named.items()]
    return " + ".join([*terms, *([str(number)] if number or not terms else [])])


def factor(text: str, loose: str = "+") -> str:
    """A text as a factor: in parentheses where it holds one of the `loose` signs."""
    return f"({text})" if any(f" {sign} " in text for sign in loose) else text


def part_of(first: str, end: str) -> str:
    """A slice, spaced as formatters have it."""
    simple = all(not bound or bound.isidentifier() or bound.isdecimal() for bound in (first, end))
    return f"{first}:{end}" if simple else f"{first} : {end}".strip()


def _parts(structure: Structure) -> list[tuple[str, bool]]:
    """The parts in order: what the number of their heads is called, and whether they are turned."""
    told = structure.options["parts"]
    assert isinstance(told, tuple)
    found: list[tuple[str, bool]] = []
    for each in told:
        assert isinstance(each, tuple)
        found.append((str(each[0]), bool(each[1])))
    return found


# Sizes ---------------------------------------------------------------------------------------------------------------


def _cases(group: Group) -> Iterator[Case]:
    """As declared, then at awkward lengths and widths, with few heads."""
    assert group.structure is not None
    options = group.structure.options
    names = list(dict.fromkeys(count for count, _ in _parts(group.structure)))
    most = {name: declared(options[name], group, 2 - (i > 0)) for i, name in enumerate(names)}
    few = {name: most[name] if isinstance(options[name], int) else 2 + i for i, name in enumerate(names)}
    width = declared(group.body.inputs[0].type.shape[-1].substitute(group.body.known).constant, group, 0)
    in_all = sum(most[count] for count, _ in _parts(group.structure))
    fixed = options.get("head_dim")
    sizes = [(2, 5, fixed if isinstance(fixed, int) else width // in_all or 16, most)]
    for batch, length in ((0, 3), (2, 0), (1, 1), (2, 7), (1, 8), (3, 9), (2, 13), (1, 129)):
        sizes.append((batch, length, fixed if isinstance(fixed, int) else 6, few))
    sizes += [(2, 3, dim, few) for dim in (2, 16, 34, 128) if not isinstance(fixed, int)]
    for batch, length, dim, counts in sizes:
        heads = sum(counts[count] for count, _ in _parts(group.structure))
        yield Case(((batch, length, heads * dim),), ("float",), given(group, {**counts, **_numbers(group, dim)}))


def _numbers(group: Group, dim: int) -> Mapping[str, float]:
    return {"head_dim": dim, "base": 10000.0, "offset": 3}


# What it costs -------------------------------------------------------------------------------------------------------


def _moved(group: Group) -> str:
    assert group.structure is not None
    told = list(zip(group.body.outputs, _parts(group.structure)))
    names = [value.name or "the parts" for value, _ in told]
    turned = [value.name or "what is turned" for value, (_, is_turned) in told if is_turned]
    return f"Moves 8 bytes (f32) an element of {_listed(turned)} forward, of {_listed(names)} backward."


def _listed(names: Sequence[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last


def _cost(group: Group, measure: Measure) -> Cost:
    """What is turned is read and written once; backward, all is, and nothing has to be joined."""
    assert group.structure is not None
    results = dict(zip(group.body.outputs, _parts(group.structure)))
    turned = [value for value, (_, is_turned) in results.items() if is_turned]
    table = angles(turned[0], measure)
    some = 2 * sum(map(measure.bytes, turned))
    every = 2 * sum(map(measure.bytes, group.body.outputs))
    flops = int(OPS["rope"].flops * sum(map(measure.elements, turned)))
    return Cost(some + table, every + table, flops=flops, flops_backward=flops)


def _handed(group: Group) -> tuple[Value, ...]:
    assert group.structure is not None
    told = zip(group.body.outputs, _parts(group.structure))
    return tuple(value for value, (_, is_turned) in told if not is_turned)


register(
    Template(
        "split_rope",
        variables=_variables,
        moved=_moved,
        cases=_cases,
        cost=_cost,
        handed=_handed,
        names=NAMES,
        keeps_dtype=True,
        native=True,
    )
)
