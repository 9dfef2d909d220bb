"""What the kernels of an emitted folder are checked on: the tensors and layers of a case."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module

DTYPES = {"float": None, "f32": torch.float32, "i64": torch.int64, "i32": torch.int32, "bool": torch.bool}

Input = Tensor | Module


@dataclass(frozen=True)
class Case:
    """One call: `shapes` and `dtypes` of the tensors, `scalars` after them, how inputs are laid out.

    A dtype is `float` (the precision in turn), one of `DTYPES`, or says what the tensor holds: `below:N` labels of N
    classes, and L among them as `below:N:L`; `positive float` and `positive f32` weights, which have no gradient.

    A layer is among the tensors as `BatchNorm2d:train` or `BatchNorm2d:eval`, then options of its constructor, such as
    `:affine=False`; its shape is how many channels it has. A `state` is a tensor that a call may change.
    """

    group: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    scalars: tuple[float, ...]
    layout: str = "contiguous"
    special: bool = False


def shaken(each: Input, dtype: torch.dtype, generator: torch.Generator) -> Input:
    """In float64, each number changed by about a unit in the last place of `dtype`."""
    if isinstance(each, Module):
        copied = copy.deepcopy(each).double()
        for tensor in (*copied.parameters(), *copied.buffers()):
            tensor.data = shaken_tensor(tensor.data, dtype, generator)
        return copied
    return shaken_tensor(each, dtype, generator)


def shaken_tensor(tensor: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """The same of a tensor; one of integers stays as it is."""
    if not tensor.is_floating_point():
        return tensor
    change = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return tensor.double() * (1 + torch.finfo(dtype).eps * change.to(tensor.device))


def learns(kind: str) -> bool:
    """Whether a tensor of this dtype of a case has a gradient."""
    return kind in ("float", "f32")


def is_layer(kind: str) -> bool:
    """Whether this stands for a layer among the tensors of a case."""
    return ":" in kind and not kind.startswith("below:")


def leaf(tensor: Input, kind: str, dtype: torch.dtype | None) -> Input:
    """What a run is given, which it may change where it is a layer or a state."""
    if isinstance(tensor, Module) or kind == "state":
        return copy.deepcopy(tensor).to(dtype)
    if not tensor.is_floating_point():
        return tensor
    return (tensor.to(dtype) if dtype else tensor).detach().requires_grad_(learns(kind))


def output_grad(output: Tensor, case: Case, dtype: torch.dtype) -> Tensor:
    """Random. Transposed beside inputs that are sliced, contiguous beside transposed ones: so that they lie otherwise.

    Expanded along all dimensions but the last as `loss.sum()` hands it, not from one number: against a constant
    gradient a softmax cancels to nothing but rounding.
    """
    generator = torch.Generator().manual_seed(output.numel())

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).to(output)

    if case.layout == "expanded":
        return draw(output.shape[-1:]).expand(output.shape)
    other = {"transposed": "contiguous", "sliced": "transposed"}.get(case.layout, case.layout)
    return _laid_out(tuple(output.shape), other, draw)


def made_layer(kind: str, channels: int, generator: torch.Generator) -> Module:
    """A layer as a case names it, its parameters and statistics random."""
    name, mode, *options = kind.split(":")
    given = {key: ast.literal_eval(value) for key, _, value in (option.partition("=") for option in options)}
    layer: Module = getattr(torch.nn, name)(channels, **given).train(mode == "train")
    for key, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if tensor.is_floating_point():
            draw = torch.randn(tensor.shape, generator=generator)
            tensor.data = draw.abs() + 0.5 if key == "running_var" else draw
    return layer


def random_input(
    shape: tuple[int, ...], kind: str, dtype: torch.dtype, case: Case, generator: torch.Generator, device: str
) -> Input:
    """Random values in the case's memory layout, which they are given on the device: a copy would be contiguous."""
    if is_layer(kind):
        return made_layer(kind, shape[0], generator).to(device)
    if kind == "state":
        return (torch.rand(shape, generator=generator) + 0.5).to(device)
    wanted = torch.float32 if kind.endswith("f32") else dtype if kind.endswith("float") else DTYPES.get(kind)

    def draw(shape: Sequence[int]) -> Tensor:
        return _values(shape, kind, generator).to(device, wanted)

    values = _laid_out(shape, case.layout, draw)
    if case.special and kind == "float" and values.numel() > 2:  # parameters are finite
        flat = values.view(-1)
        flat[0], flat[values.numel() // 2] = float("nan"), float("inf")
    return values


def _values(shape: Sequence[int], kind: str, generator: torch.Generator) -> Tensor:
    if kind == "bool":
        return torch.rand(shape, generator=generator) < 0.5
    if kind.startswith("below:"):
        return _labels(kind, shape, generator)
    if not kind.endswith(("float", "f32")):
        return torch.randint(0, 8, shape, generator=generator)
    return torch.randn(shape, generator=generator) if learns(kind) else torch.rand(shape, generator=generator) + 0.5


def _laid_out(shape: tuple[int, ...], layout: str, draw: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """A tensor of a shape, its elements in memory as a layout says; `draw` makes contiguous ones."""
    if layout == "channels_last" and len(shape) > 2:
        return draw((shape[0], *shape[2:], shape[1])).movedim(-1, 1)
    if layout == "transposed" and len(shape) > 1:
        return draw((*shape[:-2], shape[-1], shape[-2])).transpose(-1, -2)
    if layout == "sliced" and shape:
        return draw((*shape[:-1], 2 * shape[-1] + 1))[..., 1::2]
    if layout == "expanded" and len(shape) > 1:
        return draw((1, *shape[1:])).expand(shape)
    return draw(shape)


def _labels(kind: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Labels of as many classes as `below:N` says; of `below:N:L` every fourth or so is L."""
    _, classes, *other = kind.split(":")
    labels = torch.randint(0, max(int(classes), 1), shape, generator=generator)
    replaced = torch.rand(shape, generator=generator) < 0.25
    return torch.where(replaced, int(other[0]), labels) if other else labels
