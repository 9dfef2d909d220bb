"""Random programs, compiled fused and unfused and compared: `python -m tests.random_programs 5000 [SEED]`.

A program is a module of statements over tensors of a few shapes: arithmetic with broadcasts, reductions, row operations,
views, branches, loops, layers, calls of functions and of nested modules. A failure is shrunk by dropping statements.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

Shape = tuple[str, ...]

LIBRARY = """fn mix(a: float[..., D], b: float[..., D]) -> float[..., D] {
    return a * sigmoid(b) + 0.5
}

fn centred(x: float[..., D]) -> float[..., D] {
    return x - mean(x, dim=-1, keepdim=true)
}

fn scaled(x: float[..., D]) -> float[..., D] {
    c = centred(x)
    return c * rsqrt(mean(c ** 2, dim=-1, keepdim=true) + 0.01)
}

module Norm(dim: int) {
    param weight: [dim] = ones()
    forward(x: float[..., dim]) -> float[..., dim] {
        return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + 0.01) * weight
    }
}

module Gate(dim: int) {
    norm = Norm(dim)
    up   = Linear(dim, dim)
    forward(x: float[..., dim]) -> float[..., dim] {
        h = norm(x)
        return x + h * sigmoid(up(h))
    }
}

"""
UNARY = """tanh({0})|sigmoid({0})|gelu({0})|silu({0})|relu({0})|-{0}|exp(-abs({0}))|log({0} ** 2 + 1)|sqrt(abs({0}) + 1)
rsqrt({0} * {0} + 1)|softplus({0})|elu({0})|sin({0})|cos({0})|erf({0})|abs({0})|{0} / 2 + 1|3 - {0}|0.5 * {0}|{0} ** 2 / 4
clamp({0}, -0.8, 0.9)|clamp({0}, min=0.1)|leaky_relu({0}, 0.1)|mish({0})|hardtanh({0})|hardswish({0})|reciprocal(abs({0}) + 1)
where({0} > 0, {0}, 0.5)|masked_fill({0}, {0} < -0.5, 0.25)|log1p(abs({0}))|expm1(tanh({0}))|square({0}) * 0.1"""
BINARY = """{0} + {1}|{0} - {1}|{0} * {1}|{0} / (abs({1}) + 1)|maximum({0}, {1})|minimum({0}, {1})|{1} - {0}
where({0} > {1}, {0}, {1} * 0.5)|where({1} < 0.2, {0}, -{0})|{0} * tanh({1})|(abs({0}) + 1) ** tanh({1})
where(logical_and({0} > 0, {1} > 0), {0} + {1}, {0} - {1})|{0} * sigmoid({1}) + {1} / 3|lerp({0} + {1}, {0}, 0.3)"""
ROWS = """softmax({0}, dim=-1)|log_softmax({0}, dim=-1) / 4|centred({0})|scaled({0})|softmax({0} * 2, dim=-1) * {0}
{0} / (norm({0}, dim=-1, keepdim=true) + 0.5)|{0} - logsumexp({0}, dim=-1, keepdim=true)
{0} - amax({0}, dim=-1, keepdim=true)"""
REDUCTIONS = """sum({0}, dim=-1{k}) / 4|mean({0}, dim=-1{k})|amax({0}, dim=-1{k})|amin({0}, dim=-1{k})|logsumexp({0}, dim=-1{k})
norm({0}, dim=-1{k}) / 2|norm({0}, p=1, dim=-1{k}) / 4|var({0}, dim=-1{k}, correction=0)|mean({0} * {0}, dim=-1{k})"""
INPUTS: tuple[Shape, ...] = (
    ("B", "D"), ("B", "T", "D"), ("T", "D"), ("D",), ("B", "1"), ("B", "T", "1"), ("B", "1", "D"), ("B", "T", "K", "D"), ("B",),
)  # fmt: skip
PARAMS: tuple[Shape, ...] = (("D",), ("D",), (), ("1",), ("K", "D"), ("K", "1"))


def _split(texts: str) -> list[str]:
    return texts.replace("\n", "|").split("|")


@dataclass(frozen=True)
class Statement:
    """`text` with `{name}` for the result and `{0}`, `{1}` for the operands."""

    name: str
    text: str
    operands: tuple[str, ...]
    shape: Shape

    def lines(self) -> list[str]:
        filled = self.text.replace("{name}", self.name)
        for number, operand in enumerate(self.operands):
            filled = filled.replace(f"{{{number}}}", operand)
        return filled.split("\n")


@dataclass(frozen=True)
class Program:
    """A module: inputs and parameters by name with their shapes, layers as text, statements, and what it returns."""

    name: str
    inputs: tuple[tuple[str, Shape], ...]
    params: tuple[tuple[str, Shape], ...]
    dim: int
    deep: bool
    statements: tuple[Statement, ...]
    outputs: tuple[str, ...]

    def text(self) -> str:
        shapes = {s.name: s.shape for s in self.statements} | dict(self.inputs) | dict(self.params)
        body = [f"        {line}" for s in self.statements for line in s.lines()]
        inputs = ", ".join(f"{n}: {_type(s)}" for n, s in self.inputs)
        results = ", ".join(_type(shapes[n]) for n in self.outputs)
        used = "\n".join(body)
        layers = [f"    {n} = {made}" for n, made in LAYERS.items() if f"{n}(" in used]
        params = [f"    param {n}: [{', '.join(s)}] = ones()" for n, s in self.params]
        head = f"module {self.name}(D: int = {self.dim}, K: int = 2, deep: bool = {str(self.deep).lower()}) {{"
        forward = (
            f"    forward({inputs}) -> ({results}) {{"
            if len(self.outputs) > 1
            else f"    forward({inputs}) -> {results} {{"
        )
        return "\n".join(
            [head, *params, *layers, forward, *body, f"        return {', '.join(self.outputs)}", "    }", "}\n\n"]
        )


LAYERS = {"lin": "Linear(D, D)", "unit": "Norm(D)", "gate": "Gate(D)", "layer": "LayerNorm(D)"}


def _type(shape: Shape) -> str:
    return f"float[{', '.join(shape)}]"


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The common shape, or None."""
    found: list[str] = []
    for i in range(1, max(len(a), len(b)) + 1):
        x, y = (s[-i] if i <= len(s) else "1" for s in (a, b))
        if x != y and "1" not in (x, y):
            return None
        found.insert(0, y if x == "1" else x)
    return tuple(found)


class Generator:
    """Writes one program from a random stream."""

    def __init__(self, name: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.name = name
        self.shapes: dict[str, Shape] = {}
        self.statements: list[Statement] = []

    def program(self) -> Program:
        r = self.random
        inputs = tuple((f"x{i}", s) for i, s in enumerate(r.sample(INPUTS, r.randint(1, 3))))
        if not any("D" in s for _, s in inputs):
            inputs = (*inputs, ("x9", ("B", "D")))
        params = tuple((f"w{i}", r.choice(PARAMS)) for i in range(r.randint(0, 2)))
        self.shapes = {**dict(inputs), **dict(params)}
        for _ in range(r.randint(2, 11)):
            self.statement()
        dim = r.choice((1, 2, 5, 8, 16, 17, 33))
        return Program(self.name, inputs, params, dim, r.random() < 0.5, tuple(self.statements), self.outputs())

    def outputs(self) -> tuple[str, ...]:
        """What nothing reads, so that all is needed; at most four, and sometimes something in the middle."""
        read = {o for s in self.statements for o in s.operands}
        loose = [s.name for s in self.statements if s.name not in read][-3:]
        middle = [s.name for s in self.statements if s.name in read]
        return tuple(loose + (self.random.sample(middle, 1) if middle and self.random.random() < 0.4 else []))

    def pick(self) -> str:
        """The newest values are the likeliest."""
        names = list(self.shapes)
        return names[-1 - min(int(self.random.expovariate(0.6)), len(names) - 1)]

    def add(self, text: str, operands: Sequence[str], shape: Shape) -> None:
        name = f"v{len(self.statements)}"
        whole = text if "{name}" in text else f"{{name}} = {text}"
        self.statements.append(Statement(name, whole, tuple(operands), shape))
        self.shapes[name] = shape

    def statement(self) -> None:
        kinds = [
            self.unary,
            self.binary,
            self.binary,
            self.row,
            self.reduction,
            self.layer,
            self.branch,
            self.loop,
            self.view,
        ]
        self.random.choice(kinds)()

    def unary(self) -> None:
        x = self.pick()
        self.add(self.random.choice(_split(UNARY)), [x], self.shapes[x])

    def binary(self) -> None:
        for _ in range(8):
            x, y = self.pick(), self.random.choice(list(self.shapes))
            shape = broadcast(self.shapes[x], self.shapes[y])
            if shape is not None:
                return self.add(self.random.choice(_split(BINARY)), [x, y], shape)
        return None

    def _wide(self) -> str | None:
        wide = [n for n, s in self.shapes.items() if len(s) > 1 and s[-1] == "D"]
        return self.random.choice(wide) if wide else None

    def row(self) -> None:
        x = self._wide()
        if x:
            self.add(self.random.choice(_split(ROWS)), [x], self.shapes[x])

    def reduction(self) -> None:
        x = self._wide()
        if x:
            keep = self.random.random() < 0.5
            text = self.random.choice(_split(REDUCTIONS)).replace("{k}", ", keepdim=true" if keep else "")
            self.add(text, [x], (*self.shapes[x][:-1], *(("1",) if keep else ())))

    def layer(self) -> None:
        x = self._wide()
        if x:
            self.add(
                self.random.choice(["lin({0})", "unit({0})", "gate({0})", "layer({0})", "mix({0}, {0})"]),
                [x],
                self.shapes[x],
            )

    def branch(self) -> None:
        x = self.pick()
        one, two = self.random.sample(_split(UNARY), 2)
        text = f"if deep {{\n    {{name}} = {one}\n}} else {{\n    {{name}} = {two}\n}}"
        self.add(text, [x], self.shapes[x])

    def loop(self) -> None:
        x = self.pick()
        text = f"{{name}} = {{0}}\nfor i in range({self.random.randint(1, 3)}) {{\n    {{name}} = tanh({{name}} + {{0}} * i)\n}}"
        self.add(text, [x], self.shapes[x])

    def view(self) -> None:
        """What moves elements or adds dimensions, and lies between kernels."""
        x = self.pick()
        shape = self.shapes[x]
        choices: list[tuple[str, Shape]] = [("unsqueeze({0}, 0)", ("1", *shape))] if len(shape) < 4 else []
        if len(shape) > 1:
            choices += [
                ("transpose({0}, -1, -2)", (*shape[:-2], shape[-1], shape[-2])),
                ("flatten({0}, 0, 1).reshape(%s)" % ", ".join(shape), shape),
            ]
        if shape and shape[-1] == "D":
            choices += [("cat([{0}, {0}], dim=-1)[..., :D]", shape), ("{0} + detach({0})", shape)]
        if choices:
            text, result = self.random.choice(choices)
            self.add(text, [x], result)


def generate(count: int, seed: int = 0) -> list[Program]:
    """`count` programs, the same for the same seed."""
    found = [Generator(f"P{i}", seed * 1_000_003 + i).program() for i in range(count)]
    return [p for p in found if p.outputs]


# Running -------------------------------------------------------------------------------------------------------------


def mismatches(programs: Sequence[Program], folder: Path) -> dict[str, str]:
    """What is wrong with each program that is wrong: needs `TRITON_INTERPRET=1`."""
    from tests.helpers import UNFUSED, compiled, emitted, written

    text = LIBRARY + "".join(p.text() for p in programs)
    fused = _load(written(emitted(compiled(text)), folder / "fused"))
    plain = _load(written(emitted(compiled(text, UNFUSED)), folder / "plain"))
    found = {p.name: _compared(p, fused, plain) for p in programs}
    return {name: problem for name, problem in found.items() if problem}


def _load(folder: Path) -> ModuleType:
    """`model.py` of a folder, with the `kernels` beside it."""
    sys.modules.pop("kernels", None)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        spec = importlib.util.spec_from_file_location(f"_model_{abs(hash(str(folder)))}", folder / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(folder))


def _compared(program: Program, fused: ModuleType, plain: ModuleType) -> str:
    import torch

    torch.manual_seed(len(program.statements))
    sizes = {"B": 1 + len(program.outputs) % 4 * 3, "T": 3, "D": program.dim, "K": 2, "1": 1}
    state = getattr(plain, program.name)().state_dict()
    state = {n: torch.randn(t.shape) * 0.5 for n, t in state.items()}
    inputs = [torch.randn([sizes[d] for d in shape]) for _, shape in program.inputs]
    try:
        results = [_run(getattr(m, program.name), state, inputs, t) for m, t in _judges(fused, plain)]
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[-800:]}"
    for number, (a, b, c) in enumerate(zip(*results, strict=True)):
        if a is None and b is not None and bool(b.any()):
            return f"result {number}: a gradient is missing"
        if b is None and a is not None and bool(a.any()):
            return f"result {number}: a gradient where there is none"
        # A kernel hands on zeros where PyTorch, which sees each operation, knows that nothing comes.
        if a is not None and b is not None and (a.shape != c.shape or not _close(a, b, c)):
            return f"result {number}: {(a - c).abs().max() if a.shape == c.shape else a.shape}, eager {(b - c).abs().max()}"
    return ""


def _judges(fused: ModuleType, plain: ModuleType) -> list[tuple[ModuleType, Any]]:
    import torch

    return [(fused, torch.float32), (plain, torch.float32), (plain, torch.float64)]


def _close(a: Any, b: Any, c: Any) -> bool:
    """Within a few times what eager PyTorch errs, or some hundred units in the last place of the greatest number."""
    if not a.numel():
        return True
    allowed = 8 * (b - c).abs().max() + 2e-5 * c.abs().max().clamp(min=1.0)
    return bool(((a - c).abs() <= allowed).all())


def _run(made: Any, state: dict[str, Any], inputs: Sequence[Any], dtype: Any) -> list[Any]:
    """Results, then gradients of inputs and parameters."""
    import torch

    model = made().to(dtype)
    model.load_state_dict(state)
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    outputs = model(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(o.shape, generator=generator).to(dtype) for o in outputs]
    wanted = [*leaves, *model.parameters()]
    differentiable = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
    found: Sequence[Any] = ()
    if differentiable:
        roots, given = zip(*differentiable, strict=True)
        found = torch.autograd.grad(roots, wanted, given, allow_unused=True)
    return [o.detach().double() for o in outputs] + [None if g is None else g.double() for g in found]


# Shrinking -----------------------------------------------------------------------------------------------------------


def without(program: Program, index: int) -> Program | None:
    """The program less one statement, what read it reading a value of the same shape made before instead."""
    gone = program.statements[index]
    before = [*program.inputs, *program.params, *((s.name, s.shape) for s in program.statements[:index])]
    instead = next((n for n, s in reversed(before) if s == gone.shape), None)
    rest = [s for i, s in enumerate(program.statements) if i != index]
    if instead is None and any(gone.name in s.operands for s in rest):
        return None
    rest = [replace(s, operands=tuple(instead or o if o == gone.name else o for o in s.operands)) for s in rest]
    made = {s.name for s in rest}
    outputs = tuple(o for o in program.outputs if o in made) or tuple(s.name for s in rest[-1:])
    return replace(program, statements=tuple(rest), outputs=outputs) if outputs else None


def shrunk(program: Program, folder: Path) -> Program:
    """The smallest program found that still fails."""
    smaller = True
    while smaller:
        smaller = False
        for i in reversed(range(len(program.statements))):
            tried = without(program, i)
            if tried is not None and _fails(tried, folder):
                program, smaller = tried, True
                break
    return program


def _fails(program: Program, folder: Path) -> bool:
    try:
        return bool(mismatches([program], Path(tempfile.mkdtemp(dir=folder))))
    except AssertionError:
        return False


def main(argv: Sequence[str]) -> int:
    """Check that many programs, 50 at a time; prints each failure shrunk, and the count. 1 where there are any."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        env = {**os.environ, "TRITON_INTERPRET": "1"}
        return subprocess.call([sys.executable, "-W", "ignore", "-m", "tests.random_programs", *argv], env=env)
    import torch

    torch.set_num_threads(1)
    count, seed = int(argv[0]), int(argv[1]) if len(argv) > 1 else 0
    failed = checked = 0
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        while checked < count:
            programs = generate(min(50, count - checked), seed + checked)
            checked += 50
            for name, problem in mismatches(programs, Path(tempfile.mkdtemp(dir=folder))).items():
                failed += 1
                small = shrunk(next(p for p in programs if p.name == name), Path(folder))
                print(f"{problem}\n{small.text()}", flush=True)
    print(f"{min(checked, count)} programs, {failed} mismatches")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
