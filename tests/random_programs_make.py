"""Random programs, each drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from tests import random_programs_text as texts
from tests.random_programs_data import Helper, Program, Shape, Statement, Type, broadcast

LAYOUTS = ("contiguous", "contiguous", "transposed", "sliced", "expanded")
INPUTS: tuple[Shape, ...] = (
    ("B", "D"), ("B", "T", "D"), ("T", "D"), ("D",), ("B", "1"), ("B", "T", "1"), ("B", "1", "D"), ("B", "T", "K", "D"),
    ("B",), ("1", "T", "1", "D"), ("B", "1", "1", "D"), ("B", "1", "K", "1"), ("1", "D"), ("T", "1"), ("B", "T"), ("K", "D"),
    ("B", "T", "D"), ("B", "D", "T"), ("B", "1", "D"), ("T", "D"),
)  # fmt: skip
PARAMS: tuple[Shape, ...] = (("D",), ("D",), (), ("1",), ("K", "D"), ("K", "1"), ("1", "D"))


@dataclass(frozen=True)
class Taste:
    """What is drawn: only what has no corners; only what keeps rows of a batch apart; nothing at random."""

    smooth: bool = False
    rowwise: bool = False
    drawing: bool = True


@dataclass
class Generator:
    """Writes one program from a random stream."""

    name: str
    seed: int
    taste: Taste = Taste()
    types: dict[str, Type] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def program(self) -> Program:
        r = self.random
        shapes = [s for s in INPUTS if not self.taste.rowwise or s[0] == "B"]
        inputs = tuple((f"x{i}", Type("float", s)) for i, s in enumerate(r.sample(shapes, r.randint(1, 3))))
        if not any("D" in t.shape for _, t in inputs):
            inputs = (*inputs, ("x9", Type("float", ("B", "D"))))
        for name, dtype in (("n", "int"), ("m", "bool")):
            if r.random() < 0.3:
                inputs = (*inputs, (name, Type(dtype, r.choice(shapes))))
        params = tuple((f"w{i}", r.choice(PARAMS)) for i in range(r.randint(0, 2)))
        self.types = dict(inputs) | {n: Type("float", s) for n, s in params}
        helpers = (self._helper(),) if r.random() < 0.3 else ()
        for _ in range(r.randint(2, 11)):
            self._statement(helpers)
        layouts = tuple(r.choice(LAYOUTS) for _ in inputs)
        deep, training, small = r.random() < 0.5, r.random() < 0.7, r.random() < 0.5
        statements, outputs, sizes = tuple(self.statements), self._outputs(), self._sizes()
        return Program(self.name, inputs, params, statements, outputs, sizes, layouts, deep, training, helpers, small)

    def _sizes(self) -> tuple[tuple[str, int], ...]:
        r = self.random
        rows = r.choice((1, 2, 3, 5, 7, 11))
        if self.taste.rowwise:
            rows = r.choice((2, 3, 5))
        wide = r.choice((1, 2, 5, 8, 16, 17, 33))
        return (("B", rows), ("T", r.choice((1, 2, 3, 5))), ("D", wide), ("K", 2), ("1", 1))

    def _helper(self) -> Helper:
        """A few statements of its own, on tensors of any leading dimensions."""
        is_module = self.random.random() < 0.5
        inner = Generator(f"{self.name}Part", self.random.randrange(1 << 30), self.taste)
        whole = Type("float", ("...", "D"))
        inner.types = {"a": whole, "b": whole} | ({"w": Type("float", ("D",))} if is_module else {})
        for _ in range(self.random.randint(1, 4)):
            self.random.choice((inner._unary, inner._binary, inner._row, inner._kept))()
        result = next((s.name for s in reversed(inner.statements) if s.type == whole), "a")
        return Helper(inner.name if is_module else inner.name.lower(), is_module, tuple(inner.statements), result)

    def _outputs(self) -> tuple[str, ...]:
        """What nothing reads, so that all is needed; at most five, and sometimes something in the middle."""
        read = {o for s in self.statements for o in s.operands}
        loose = [s.name for s in self.statements if s.name not in read][-3:]
        middle = [s.name for s in self.statements if s.name in read]
        discrete = [n for n in middle if self.types[n].dtype != "float"]
        more = self.random.sample(middle, 1) if middle and self.random.random() < 0.4 else []
        more += self.random.sample(discrete, 1) if discrete and self.random.random() < 0.5 else []
        return tuple(dict.fromkeys(loose + more))

    # Drawing ---------------------------------------------------------------------------------------------------------

    def _named(self, dtype: str = "float") -> list[str]:
        return [n for n, t in self.types.items() if t.dtype == dtype]

    def _pick(self) -> str:
        """The newest values are the likeliest."""
        names = self._named()
        return names[-1 - min(int(self.random.expovariate(0.6)), len(names) - 1)]

    def _pick_where(self, wanted: Sequence[str]) -> str | None:
        return self.random.choice(wanted) if wanted else None

    def _wide(self, rank: int = 1, last: str = "D") -> str | None:
        shapes = {n: self.types[n].shape for n in self._named()}
        return self._pick_where([n for n, s in shapes.items() if len(s) > rank and s[-1] in (last, "D")])

    def _choice(self, smooth: str, rough: str) -> str:
        both = texts.listed(smooth) if self.taste.smooth else texts.listed(smooth) + texts.listed(rough)
        return self.random.choice(both)

    def _joint(self, operands: Sequence[str]) -> Shape | None:
        """The shape that operands broadcast to; None where rows of a batch would meet that are to be kept apart."""
        shape: Shape | None = ()
        for operand in operands:
            shape = None if shape is None else broadcast(shape, self.types[operand].shape)
        if shape is None or (self.taste.rowwise and "B" in shape[1:]):
            return None
        return shape

    def _add(self, text: str, operands: Sequence[str], shape: Shape, dtype: str = "float") -> None:
        name = f"v{len(self.statements)}"
        whole = text if "{name}" in text else f"{{name}} = {text}"
        self.statements.append(Statement(name, whole, tuple(operands), Type(dtype, shape)))
        self.types[name] = Type(dtype, shape)

    def _statement(self, helpers: tuple[Helper, ...]) -> None:
        kinds = [self._unary, self._unary, self._binary, self._binary, self._binary, self._row, self._norm]
        kinds += [
            self._reduction,
            self._kept,
            self._layer,
            self._through,
            self._branch,
            self._loop,
            self._view,
            self._mixed,
        ]
        kinds += [] if self.taste.rowwise else [self._feedback, self._spread, self._move, self._sum_over, self._attend]
        kinds += [self._draw] if self.taste.drawing else []
        kinds += [] if self.taste.smooth else [self._discrete, self._discrete, self._mixed]
        kinds += [lambda: self._help(helpers[0])] * 2 if helpers else []
        self.random.choice(kinds)()

    # Kinds of statements ---------------------------------------------------------------------------------------------

    def _unary(self) -> None:
        x = self._pick()
        self._add(self._choice(texts.SMOOTH_UNARY, texts.ROUGH_UNARY).replace("K", self._k()), [x], self.types[x].shape)

    def _k(self) -> str:
        """The size K, which functions and modules of their own do not know."""
        return "3" if any("..." in t.shape for t in self.types.values()) else "K"

    def _binary(self) -> None:
        for _ in range(8):
            x, y = self._pick(), self.random.choice(self._named())
            shape = self._joint((x, y))
            if shape is not None:
                return self._add(self._choice(texts.SMOOTH_BINARY, texts.ROUGH_BINARY), [x, y], shape)
        return None

    def _row(self) -> None:
        x = self._wide(0 if self._k() == "3" else 1, "T")
        if x:
            self._add(self._choice(texts.SMOOTH_ROWS, texts.ROUGH_ROWS), [x], self.types[x].shape)

    def _norm(self) -> None:
        x = self._wide()
        if x:
            self._add(self._choice(texts.NORMS, texts.NORMS), [x], self.types[x].shape)

    def _reduced(self, x: str, dims: Sequence[int], keep: bool) -> None:
        """A reduction of `x` over dimensions, counted from the left or from the right."""
        shape = self.types[x].shape
        rank = len(shape)
        told = [d - rank if self.random.random() < 0.5 else d for d in dims]
        text = self._choice(texts.SMOOTH_REDUCTIONS, texts.ROUGH_REDUCTIONS)
        text = text.replace("{d}", str(told[0]) if len(told) == 1 else f"({', '.join(map(str, told))})")
        ones = ("1",) if keep else ()
        left = tuple(part for i, s in enumerate(shape) for part in (ones if i in dims else (s,)))
        self._add(text.replace("{k}", ", keepdim=true" if keep else ""), [x], left)

    def _reduction(self) -> None:
        """Over one or two trailing dimensions, of which the first is not."""
        x = self._wide()
        if x:
            rank = len(self.types[x].shape)
            count = 2 if rank > 2 and self.random.random() < 0.3 else 1
            self._reduced(x, range(rank - count, rank), self.random.random() < 0.4)

    def _kept(self) -> None:
        x = self._wide(0 if self._k() == "3" else 1)
        if x:
            text = self._choice(texts.SMOOTH_REDUCTIONS, texts.ROUGH_REDUCTIONS).replace("{d}", "-1")
            self._add(text.replace("{k}", ", keepdim=true"), [x], (*self.types[x].shape[:-1], "1"))

    def _sum_over(self) -> None:
        """Over a dimension that is not the last, or over several."""
        x = self._pick()
        rank = len(self.types[x].shape)
        if rank:
            dims = sorted(self.random.sample(range(rank), self.random.randint(1, rank)))
            self._reduced(x, dims, self.random.random() < 0.6)

    def _layer(self) -> None:
        x = self._wide()
        if x:
            self._add(self.random.choice(texts.CALLS), [x], self.types[x].shape)

    def _through(self) -> None:
        x = self._wide()
        if x:
            self._add(self.random.choice(texts.THROUGH), [x], self.types[x].shape)

    def _help(self, helper: Helper) -> None:
        x = self._wide()
        same = [n for n in self._named() if x and self.types[n] == self.types[x]]
        if x:
            name = helper.name.lower() if helper.is_module else helper.name
            self._add(f"{name}({{0}}, {{1}})", [x, self.random.choice(same)], self.types[x].shape)

    def _feedback(self) -> None:
        x = self._wide(1, "T")
        if x:
            self._add(self.random.choice(texts.FEEDBACKS), [x], self.types[x].shape)

    def _spread(self) -> None:
        """A sum over a dimension between others, broadcast along some rows alone."""
        x = self._pick_where([n for n in self._named() if len(self.types[n].shape) > 2])
        if x:
            at = self.random.randint(1, len(self.types[x].shape) - 2)
            summed = f"{{name}}_s = mean({{0}}, dim={at}, keepdim=true)"
            self._add(f"{summed}\n{{name}} = tanh({{0}} * {{name}}_s) + {{name}}_s", [x], self.types[x].shape)

    def _branch(self) -> None:
        x = self._pick()
        one, two = (self._choice(texts.SMOOTH_UNARY, texts.ROUGH_UNARY) for _ in range(2))
        condition = self.random.choice(("deep", "training", "D > 8", "K == 2 and deep"))
        text = f"if {condition} {{\n    {{name}} = {one}\n}} else {{\n    {{name}} = {two}\n}}"
        if self.random.random() < 0.3:
            text = f"{one} if {condition} else {two}"
        self._add(text, [x], self.types[x].shape)

    def _loop(self) -> None:
        x = self._pick()
        count = self.random.randint(1, 3)
        text = f"{{name}} = {{0}}\nfor i in range({count}) {{\n    {{name}} = tanh({{name}} + {{0}} * i)\n}}"
        self._add(text, [x], self.types[x].shape)

    def _draw(self) -> None:
        x = self._pick()
        self._add(self.random.choice(texts.RANDOM), [x], self.types[x].shape)

    def _discrete(self) -> None:
        """Truth values or integers."""
        family, dtype = self.random.choice(((texts.MASKS, "bool"), (texts.INTEGERS, "int")))
        self._by_kind(family, dtype)

    def _mixed(self) -> None:
        self._by_kind(texts.MIXED, "float")

    def _by_kind(self, family: dict[str, str], dtype: str) -> None:
        """A template whose operands, of the kinds that its key names, there are, and broadcast together."""
        named = {kind: self._named(d)[-6:] for kind, d in (("f", "float"), ("i", "int"), ("m", "bool"))}
        key = self._pick_where([k for k in family if all(named[c] for c in k)])
        if key is None:
            return
        fitting = []
        for operands in product(*(named[c] for c in key)):
            shape = self._joint(operands)
            fitting += [(operands, shape)] if shape is not None else []
        text = self.random.choice(texts.listed(family[key]))
        # What is filled in keeps the shape of the tensor.
        if "masked_fill" in text:
            fitting = [(o, s) for o, s in fitting if s == self.types[o[1]].shape]
        if fitting:
            operands, shape = self.random.choice(fitting)
            self._add(text, operands, shape, dtype)

    def _attend(self) -> None:
        """Products of a tensor with itself, whose rows are as long as it has rows."""
        x = self._wide()
        if x:
            square = "matmul({0}, transpose({0}, -1, -2)) / 4"
            shape = self.types[x].shape
            if self.random.random() < 0.5:
                return self._add(square, [x], (*shape[:-1], shape[-2]))
            self._add(f"matmul(softmax({square}, dim=-1), {{0}})", [x], shape)
        return None

    # What moves elements or adds dimensions, and lies between kernels.

    def _move(self) -> None:
        x = self._pick()
        shape = self.types[x].shape
        rank = len(shape)
        choices: list[tuple[str, Shape]] = []
        if rank < 4:
            at = self.random.randint(0, rank)
            choices.append((f"unsqueeze({{0}}, {at})", (*shape[:at], "1", *shape[at:])))
        if rank > 1:
            i, j = sorted(self.random.sample(range(rank), 2))
            swapped = (*shape[:i], shape[j], *shape[i + 1 : j], shape[i], *shape[j + 1 :])
            choices += [
                (f"transpose({{0}}, {i}, {j})", swapped),
                (
                    f"{{name}}_t = transpose({{0}}, {i}, {j})\n{{name}} = {{name}}_t * sigmoid({{name}}_t) + 0.5",
                    swapped,
                ),
                (f"flatten({{0}}, 0, 1).reshape({', '.join(shape)})", shape),
                ("flip({0}, [0])", shape),
                ("stack([{0}, tanh({0})], dim=0)[1]", shape),
                ("cumsum({0}, dim=0) / 3", shape),
            ]
        if "1" in shape:
            at = shape.index("1")
            choices.append((f"squeeze({{0}}, {at})", (*shape[:at], *shape[at + 1 :])))
        if choices:
            text, result = self.random.choice(choices)
            self._add(text, [x], result)

    def _view(self) -> None:
        """Within the rows of a batch."""
        x = self._pick()
        shape = self.types[x].shape
        choices = [("{0} + detach({0})", shape), ("reshape({0}, %s)" % ", ".join(shape), shape)] if shape else []
        if shape and shape[-1] == "D" and len(shape) > 1:
            choices += [
                ("cat([{0}, {0} * 2], dim=-1)[..., :D]", shape),
                ("flip({0}, [-1])", shape),
                ("roll({0}, 1, -1)", shape),
                ("{0}[..., :1]", (*shape[:-1], "1")),
                ("{0}[..., 0]", shape[:-1]),
                ("cumsum({0}, dim=-1) / 4", shape),
                ("pad({0}, (1, 0))[..., 1:]", shape),
                (texts.PIECES, shape),
                (texts.PIECE, shape),
            ]
            if not self.taste.smooth:
                choices.append(("{0} + {0}.gather(-1, argmax({0}, -1, true))", shape))
        if shape and shape[-1] == "1" and len(shape) > 1:
            whole = (*shape[:-1], "D")
            choices += [(f"expand({{0}}, {', '.join(whole)})", whole), ("{0}.squeeze(-1)", shape[:-1])]
        if len(shape) == 3 and shape[0] == "B":
            choices.append(('rearrange({0}, "b t d -> b d t")', (shape[0], shape[2], shape[1])))
        if choices:
            text, result = self.random.choice(choices)
            self._add(text, [x], result)


def generate(count: int, seed: int = 0, taste: Taste = Taste()) -> list[Program]:
    """`count` programs or a few less, the same for the same seed: one whose draw left nothing to return is left out."""
    found = [Generator(f"P{i}", seed * 1_000_003 + i, taste).program() for i in range(count)]
    return [p for p in found if p.outputs]
