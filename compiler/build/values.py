"""What an expression of a body can be while it is elaborated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


@dataclass(frozen=True)
class Training:
    """Whether the module is being trained, which only the run knows; `text` is how emitted code asks."""

    text: str
    negated: bool = False


@dataclass(frozen=True)
class Unbound:
    """A name that means nothing after two branches: why, and what to know of it."""

    why: str
    note: str


@dataclass(frozen=True, eq=False)
class LayerRef:
    """A layer's constructor."""

    layer: Layer


@dataclass(frozen=True, eq=False)
class ModuleRef:
    """A module's constructor."""

    decl: ast.Module | ast.ExternModule


@dataclass(frozen=True, eq=False)
class FunctionRef:
    """A `fn`, with what a method call has bound of it already."""

    decl: ast.Function
    bound: Value | None = None


@dataclass(eq=False)
class LayerInstance:
    """A layer that a module has. `args` are complete once the first call has told what `_` stands for."""

    layer: Layer
    args: dict[str, Attr | Infer]
    given: tuple[str, ...]
    path: str = ""
    # The path of the module that this is another name of.
    shared: str = ""
    ties: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, Value] = field(default_factory=dict)


@dataclass(eq=False)
class ModuleInstance:
    """A module of the program with its arguments. `env` binds its parameters in the words of the module that has it."""

    decl: ast.Module | ast.ExternModule
    env: Mapping[str, Semantic]
    ir: ModuleIR
    signature: Signature
    args: tuple[tuple[str, Attr], ...]
    inline: bool
    path: str = ""
    # The path of the module that this is another name of.
    shared: str = ""


@dataclass(eq=False)
class ListInstance:
    """A list of modules, or a `Sequential`. `repeat` holds the variable and the count of a comprehension."""

    elements: tuple[Instance, ...]
    sequential: bool = False
    repeat: tuple[str, Attr] | None = None
    path: str = ""
    # The path of the module that this is another name of.
    shared: str = ""


@dataclass(frozen=True)
class Signature:
    """The types of a `forward` in its own words: run-time sizes by their names."""

    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[TensorType, ...]


@dataclass(frozen=True)
class Batch:
    """The parameter of `loss(batch)`: its fields."""

    fields: Mapping[str, Value]


class Results(tuple["Semantic", ...]):
    """Several results of an op, some of which have names: `x.max(dim=1).values`."""

    names: tuple[str, ...]

    def __new__(cls, values: Iterable[Semantic], names: tuple[str, ...] = ()) -> Results:
        found = super().__new__(cls, values)
        found.names = names
        return found


Instance = LayerInstance | ModuleInstance | ListInstance
Semantic = (
    Value
    | Scalar
    | str
    | tuple["Semantic", ...]
    | Infer
    | Dtype
    | Training
    | Unbound
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


def is_called(value: object) -> bool:
    """Whether a value is something to call."""
    kinds = (OpRef, LayerRef, ModuleRef, FunctionRef, LayerInstance, ModuleInstance, ListInstance)
    return isinstance(value, kinds)


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
    if isinstance(value, OpRef):
        return f"the function `{value.op.name}`"
    kinds = {
        str: "a string",
        tuple: "a list",
        ListInstance: "a list of modules",
        Batch: "the batch",
        Dtype: "a dtype",
        Training: "`training`, which only the run knows",
    }
    return kinds.get(type(value), "`_`")
