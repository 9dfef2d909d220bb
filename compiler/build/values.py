"""What an expression of a body can be while it is elaborated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdsl.compiler.ir import Attr, Scalar, TensorType, Value
from tdsl.compiler.ops.op import Op
from tdsl.dsl import ast

if TYPE_CHECKING:
    from tdsl.compiler.build.layers import Layer
    from tdsl.compiler.build.unit import ModuleIR


@dataclass(frozen=True)
class Infer:
    """`_`: a size taken from the first call."""


@dataclass(frozen=True)
class Dtype:
    """`bf16` as an argument; `name` is the IR's."""

    name: str


@dataclass(frozen=True)
class OpRef:
    """A built-in function, with what a method call has bound of it already."""

    op: Op
    bound: Value | None = None


@dataclass(frozen=True, eq=False)
class LayerRef:
    """A layer's constructor."""

    layer: Layer


@dataclass(frozen=True, eq=False)
class ModuleRef:
    """A module's constructor."""

    decl: ast.Module


@dataclass(frozen=True, eq=False)
class FunctionRef:
    """A `fn`."""

    decl: ast.Function


@dataclass(eq=False)
class LayerInstance:
    """A layer that a module has. `args` are complete once the first call has told what `_` stands for."""

    layer: Layer
    args: dict[str, Attr | Infer]
    given: tuple[str, ...]
    path: str = ""
    ties: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, Value] = field(default_factory=dict)


@dataclass(eq=False)
class ModuleInstance:
    """A module of the program with its arguments. `env` binds its parameters in the words of the module that has it."""

    decl: ast.Module
    env: Mapping[str, Semantic]
    ir: ModuleIR
    signature: Signature
    args: tuple[tuple[str, Attr], ...]
    inline: bool
    path: str = ""


@dataclass(eq=False)
class ListInstance:
    """A list of modules, or a `Sequential`. `repeat` holds the variable and the count of a comprehension."""

    elements: tuple[Instance, ...]
    sequential: bool = False
    repeat: tuple[str, Attr] | None = None
    path: str = ""


@dataclass(frozen=True)
class Signature:
    """The types of a `forward` in its own words: run-time sizes by their names."""

    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[TensorType, ...]


@dataclass(frozen=True)
class Batch:
    """The parameter of `loss(batch)`: its fields."""

    fields: Mapping[str, Value]


Instance = LayerInstance | ModuleInstance | ListInstance
Semantic = (
    Value
    | Scalar
    | str
    | tuple["Semantic", ...]
    | Infer
    | Dtype
    | OpRef
    | LayerRef
    | ModuleRef
    | FunctionRef
    | LayerInstance
    | ModuleInstance
    | ListInstance
    | Batch
)

Observer = Callable[[ast.Node, Semantic], None]


def is_none(value: object) -> bool:
    """Whether a value is the literal `none`."""
    return isinstance(value, Scalar) and value.value is None and not value.text


class Skip(Exception):
    """Something that an earlier mistake left without meaning was used: there is nothing new to tell."""


@dataclass(frozen=True)
class Poison:
    """What a name means whose definition was mistaken."""


def describe(value: Semantic) -> str:
    """What a value is, for a message."""
    if isinstance(value, Value):
        return f"a tensor {value.type}"
    if isinstance(value, Scalar):
        return "none" if is_none(value) else f"the number {value.text if value.value is None else value.value}"
    if isinstance(value, (LayerInstance, LayerRef)):
        return f"the layer {value.layer.name}"
    if isinstance(value, (ModuleInstance, ModuleRef, FunctionRef)):
        return f"`{value.decl.name}`"
    kinds = {
        str: "a string",
        tuple: "a list",
        OpRef: "a function",
        ListInstance: "a list of modules",
        Batch: "the batch",
        Dtype: "a dtype",
    }
    return kinds.get(type(value), "`_`")
