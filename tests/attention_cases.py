"""Random uses of attention as programs, and their kernels against float64: what `tests/test_attention_kernel.py` runs.

`TRITON_INTERPRET=1 python -m tests.attention_cases FIRST COUNT` runs as many more as are asked for.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tdsl.compiler import pipeline
from tdsl.compiler.ir import Group
from tdsl.runtime import nn_functions, verify
from tests.helpers import compiled, emitted, written

LENGTHS = (0, 1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 70, 97, 130)
WIDTHS = (1, 3, 8, 16, 20, 32, 33, 64)
LAYOUTS = ("contiguous", "heads inside", "heads inside", "sliced", "transposed", "expanded")
# Defaults of the module's parameters, for numbers that reach a kernel as arguments.
PARAMS = "w: int = 5, c: float = 2.0, s: float = 0.3"
# An error in units in the last place of what a gradient is the difference of, or of the greatest result.
FLOOR, FLOOR_OF_FEW, FEW, SMALL = 4.0, 16.0, 16, 1e-2


@dataclass(frozen=True)
class Variant:
    """One use of attention. `numbers` are window, softcap and scale, those in `arguments` parameters of the module."""

    causal: bool = False
    numbers: tuple[tuple[str, float], ...] = ()
    arguments: frozenset[str] = frozenset()
    drops: bool = False
    alibi: bool = False
    bias: tuple[str, ...] | None = None
    heads: int = 2
    groups: int = 2
    width: int = 16
    v_width: int = 16
    alone: bool = False

    @property
    def program(self) -> str:
        """As a module of the language."""
        h, g, d, e = self.heads, self.groups, self.width, self.v_width
        inputs = [f"q: float[B, {h}, T, {d}]", f"k: float[B, {g}, S, {d}]", f"v: float[B, {g}, S, {e}]"]
        inputs = [f"q: float[B, {h}, T, {d}]"] if self.alone else inputs
        inputs += [f"bias: float[{', '.join(self.bias)}]"] if self.bias is not None else []
        call = ", ".join(["q", "q", "q"] if self.alone else ["q", "k", "v"])
        named = {"window": "w", "softcap": "c", "scale": "s"}
        options = ["causal=true"] * self.causal
        options += [f"{name}={named[name] if name in self.arguments else value}" for name, value in self.numbers]
        options += ["bias=bias"] if self.bias is not None else []
        options += [f"bias=alibi({h}, T{'' if self.alone else ', S'})"] if self.alibi else []
        options += ["dropout_p=0.3"] * self.drops
        return (
            f"module M({PARAMS}) {{\n    forward({', '.join(inputs)}) -> float[B, {h}, T, {e}] {{\n"
            f"        return attention({', '.join([call, *options])})\n    }}\n}}\n"
        )


@dataclass(frozen=True)
class Use:
    """A variant at sizes, in a precision, on a device; `values` are the numbers that are arguments, `rate` a dropout's."""

    variant: Variant
    sizes: tuple[int, int, int]
    dtype: torch.dtype = torch.float32
    values: tuple[tuple[str, float], ...] = ()
    rate: float = 0.3
    layouts: tuple[str, ...] = ("contiguous",) * 5
    hidden: bool = False
    seed: int = 0
    device: str = "cpu"


@dataclass
class Made:
    """The tensors and the numbers of a use, and the gradient of its result."""

    tensors: list[Tensor]
    numbers: list[float]
    d_y: Tensor
    named: dict[str, float] = field(default_factory=dict)


@cache
def built(variant: Variant) -> tuple[ModuleType, Group]:
    """The emitted `kernels.py` of a variant, imported, and its group."""
    unit = compiled(variant.program)
    (group,) = pipeline.groups(unit)
    folder = written(emitted(unit), Path(tempfile.mkdtemp()))
    return verify.load(folder / "kernels.py"), group


# What a use is made of ------------------------------------------------------------------------------------------------


def make(use: Use) -> Made:
    """Tensors in their memory layouts, numbers in the order of the emitted function."""
    generator = torch.Generator().manual_seed(use.seed)
    variant, (batch, queries, keys) = use.variant, use.sizes
    lengths = {"B": batch, "H": variant.heads, "T": queries, "S": keys}
    shapes = [(batch, variant.heads, queries, variant.width)]
    if not variant.alone:
        shapes += [(batch, variant.groups, keys, variant.width), (batch, variant.groups, keys, variant.v_width)]
    if variant.bias is not None:
        shapes.append(tuple(lengths.get(d) or (0 if d in lengths else int(d)) for d in variant.bias))
    tensors = [laid_out(s, how, use.dtype, generator) for s, how in zip(shapes, use.layouts)]
    if use.hidden and variant.bias is not None:
        gone = torch.rand(tensors[-1].shape, generator=generator) < 0.3
        tensors[-1] = tensors[-1].masked_fill(gone, -torch.inf)
    d_y = laid_out((batch, variant.heads, queries, variant.v_width), use.layouts[4], use.dtype, generator)
    _, group = built(variant)
    values = dict(use.values)
    named = dict(variant.numbers) | values
    numbers = [use.rate if " if " in s.text else values[_NAMES[s.text]] for s in group.scalars]
    return Made([_moved(t, use.device) for t in tensors], numbers, _moved(d_y, use.device), named)


def _moved(tensor: Tensor, device: str) -> Tensor:
    """On the device, its memory laid out as it was."""
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    whole = tensor.as_strided((count,), (1,), 0).to(device)
    return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


_NAMES = {"self.w": "window", "self.c": "softcap", "self.s": "scale"}


def laid_out(shape: Sequence[int], how: str, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Random numbers in a memory layout."""
    if how == "heads inside" and len(shape) == 4:
        inside = (shape[0], shape[2], shape[1], shape[3])
        return torch.randn(inside, generator=generator).to(dtype).transpose(1, 2)
    if how == "sliced":
        return torch.randn((*shape[:-1], shape[-1] + 3), generator=generator).to(dtype)[..., 2 : 2 + shape[-1]]
    if how == "transposed" and len(shape) > 1:
        return torch.randn((*shape[:-2], shape[-1], shape[-2]), generator=generator).to(dtype).mT
    if how == "expanded" and len(shape) > 1:
        return torch.randn((1, *shape[1:]), generator=generator).to(dtype).expand(shape)
    return torch.randn(tuple(shape), generator=generator).to(dtype)


def run(function: Callable[..., Tensor], made: Made, dtype: torch.dtype | None = None) -> list[Tensor]:
    """The result and the gradients of the tensors."""
    leaves = [(t if dtype is None else t.to(dtype)).detach().requires_grad_() for t in made.tensors]
    y = function(*leaves, *made.numbers)
    return [y.detach(), *torch.autograd.grad(y, leaves, made.d_y.to(y.dtype))]


def reference(use: Use, exact: bool = False) -> Callable[..., Tensor]:
    """Plain PyTorch, drawing what the kernel draws; linear biases in float64 where that is what it computes in."""
    module, _ = built(use.variant)

    def called(*arguments: Any) -> Tensor:
        seed = (use.seed,) if use.variant.drops else ()
        with _Alibi(exact):
            y: Tensor = module.attention_reference(*arguments, *seed)
            return y

    return called


class _Alibi:
    """Within, `nn_functions.alibi` yields float64 where that is `exact`."""

    def __init__(self, exact: bool) -> None:
        self.exact, self.own = exact, nn_functions.alibi

    def __enter__(self) -> None:
        if self.exact:
            nn_functions.alibi = lambda *given, **named: self.own(*given, **named).double()

    def __exit__(self, *_: object) -> None:
        nn_functions.alibi = self.own


def kernel(use: Use) -> Callable[..., Tensor]:
    """The autograd function itself, given the seed that the reference is given."""
    module, _ = built(use.variant)
    seed = (use.seed,) if use.variant.drops else ()
    return lambda *arguments: module._Attention.apply(*arguments, *seed)


# Judging -------------------------------------------------------------------------------------------------------------


def judge(use: Use) -> tuple[str, float]:
    """What is wrong with the kernels, and their greatest error over what is allowed.

    Twice (of gradients three times) the error of eager PyTorch, what the result changes by where its inputs do by a
    unit in the last place, and a few such units of the result: of a gradient, of what it is the difference of, since
    kernels subtract what queries have in common only after it is rounded; for the values, one of what scores are.
    """
    made = make(use)
    found, eager = run(kernel(use), made), run(reference(use), made)
    exact = run(reference(use, exact=True), made, torch.float64)
    generator = torch.Generator().manual_seed(use.seed)
    eps = torch.finfo(use.dtype).eps
    noise = [1 + eps * (2 * torch.rand(t.shape, generator=generator, dtype=torch.float64) - 1) for t in made.tensors]
    shaken = Made([t.double() * n.to(t.device) for t, n in zip(made.tensors, noise)], made.numbers, made.d_y)
    nearby = run(reference(use, exact=True), shaken, torch.float64)
    worst = 0.0
    for i, extra in enumerate([None, *cancelled(use, made)]):
        problem, ratio = compared(found[i], eager[i], exact[i], nearby[i], 3.0 if i else 2.0, extra)
        worst = max(worst, ratio)
        if problem or ratio > 1:
            return f"{'gradient ' + str(i) if i else 'result'}: {problem or f'{ratio:.2f}'}", ratio
    return "", worst


def compared(
    found: Tensor, eager: Tensor, exact: Tensor, nearby: Tensor, factor: float, extra: Tensor | None
) -> tuple[str, float]:
    """A problem, or the error over what is allowed."""
    if found.shape != exact.shape:
        return f"shape {tuple(found.shape)}", 0.0
    if not found.numel():
        return "", 0.0
    if not found.isfinite().all():
        return "not finite", 0.0
    finite = eager.isfinite()
    a, b, c, d = (t.double()[finite] for t in (found, eager, exact, nearby))
    unit = (FLOOR if c.numel() >= FEW else FLOOR_OF_FEW) * torch.finfo(found.dtype).eps
    allowed = factor * (b - c).abs().max() + unit * c.abs().max().clamp(min=SMALL) + (d - c).abs().max()
    allowed = allowed + (unit * extra.max() if extra is not None and extra.numel() else 0.0)
    return "", float((a - c).abs().max() / allowed)


def cancelled(use: Use, made: Made) -> list[Tensor]:
    """For each tensor, the sizes of the terms that its gradient is the sum of, or of those of the weights in it."""
    variant, named = use.variant, made.named
    q, k, v = [t.double() for t in (made.tensors[:1] * 3 if variant.alone else made.tensors[:3])]
    bias = made.tensors[-1].double() if variant.bias is not None else None
    if variant.alibi:
        bias = nn_functions.alibi(variant.heads, q.shape[2], k.shape[2], device=q.device).double()
    window = named.get("window")
    options: dict[str, Any] = {"causal": variant.causal, "window": None if window is None else int(window)}
    options |= {"softcap": named.get("softcap"), "scale": named.get("scale")}
    each = torch.eye(k.shape[2], dtype=torch.float64, device=q.device).expand(*k.shape[:2], -1, -1)
    weights = nn_functions.attention(q, k, each, bias=bias, **options)
    shared = variant.heads // variant.groups
    wide = [t.repeat_interleave(shared, 1) for t in (k, v)]
    kept = 1 / (1 - use.rate) if variant.drops and use.rate < 1 else 1.0
    d_weights = made.d_y.double().abs() @ wide[1].abs().mT * kept
    terms = weights * (d_weights + (weights * d_weights).sum(-1, keepdim=True))
    scale = abs(named.get("scale", variant.width**-0.5))
    d_q = scale * terms @ wide[0].abs()
    d_k = (scale * terms.mT @ q.abs()).unflatten(1, (variant.groups, shared)).sum(2)
    if variant.alone:
        found = [d_q + d_k]
    else:
        sizes = _score_sizes(scale * q.abs() @ wide[0].abs().mT, bias, named.get("softcap"))
        d_v = (kept * weights * sizes).mT @ made.d_y.double().abs()
        # Scores are in float32 whatever the tensors are, and of those terms nothing else is rounded: one unit of it.
        unit = torch.finfo(torch.float32).eps / (FLOOR * torch.finfo(use.dtype).eps)
        found = [d_q, d_k, unit * d_v.unflatten(1, (variant.groups, shared)).sum(2)]
    return [*found, *([terms.sum_to_size(made.tensors[-1].shape)] if variant.bias is not None else [])]


def _score_sizes(products: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """How great the terms of each score are, those of its product being `products`.

    The backward takes a weight from its score, summed anew, perhaps in another order, and from what the forward found
    the logarithm of their sum to be: it is off by what these are rounded to, where a softmax divides that out.
    """
    sizes = products if softcap is None else products.clamp(max=softcap)
    return sizes if bias is None else sizes + bias.abs().masked_fill(bias.isinf(), 0.0)


# Random uses ---------------------------------------------------------------------------------------------------------


def drawn(number: int) -> Use:
    """A use of attention for each number; PyTorch's own would do for none of them."""
    r = random.Random(number)
    groups = r.choice([1, 1, 2, 3])
    alone = r.random() < 0.1
    heads = groups * (r.choice([2, 3]) if r.random() < 0.4 and not alone else 1)
    width = r.choice(WIDTHS)
    batch, queries, keys = r.choice([0, 1, 1, 2, 2, 2]), r.choice(LENGTHS), r.choice(LENGTHS)
    chosen = [n for n in ("window", "softcap", "scale") if r.random() < 0.5] or ["softcap"]
    values = {"window": r.choice([1, 2, 5, 17, 64, 200, 1 << 40]), "softcap": r.choice([0.5, 2.0, 30.0])}
    values |= {"scale": r.choice([0.3, 1.0, -0.5])}
    chosen += ["softcap"] if chosen == ["scale"] else []
    arguments = frozenset(n for n in chosen if r.random() < 0.4)
    kind = r.random()
    dims = ("B", str(heads), "T", "T" if alone else "S")
    bias = tuple(d if r.random() < 0.7 else "1" for d in dims[r.choice([0, 0, 1, 2, 3]) :]) if kind < 0.45 else None
    variant = Variant(
        causal=r.random() < 0.5,
        numbers=tuple((n, values[n]) for n in chosen),
        arguments=arguments,
        drops=r.random() < 0.3,
        alibi=0.45 <= kind < 0.65,
        bias=bias,
        heads=heads,
        groups=groups,
        width=width,
        v_width=width if alone or r.random() < 0.7 else r.choice([1, 5, 16, 24, 40]),
        alone=alone,
    )
    return Use(
        variant,
        (batch, queries, queries if alone or r.random() < 0.5 else keys),
        r.choice([torch.float32, torch.float16]),
        tuple((n, values[n]) for n in chosen if n in arguments),
        r.choice([0.0, 0.3, 0.9, 1.0]),
        tuple(r.choice(LAYOUTS) for _ in range(5)),
        r.random() < 0.3,
        number,
    )


def disagreements(numbers: Sequence[int]) -> list[str]:
    """What is wrong, and with which use."""
    found = []
    for number in numbers:
        use = drawn(number)
        try:
            problem, _ = judge(use)
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error)[-400:]}"
        if problem:
            found.append(f"{number}: {problem}: {use}")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    first, count = map(int, sys.argv[1:])
    print(json.dumps(disagreements(range(first, first + count))))
