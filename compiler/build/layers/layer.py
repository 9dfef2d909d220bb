"""What a layer is: one record, in one place, and the registry that holds them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tdsl.compiler.ir import Attr, Shape
from tdsl.compiler.ops.op import Signature, signature
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import Span, fail

Args = Mapping[str, Any]
Shapes = Mapping[str, Callable[[Args], "Shape | None"]]
INPUT = signature("input: tensor")


@dataclass(frozen=True)
class Layer:
    """A layer.

    - `signature`: the constructor's, PyTorch's names and defaults.
    - `op`: the op that a call is. Its operands are the inputs and parameters of the same names; a list of tensors among
      them is all parameters.
    - `params`: name to shape from the constructor's arguments; None for one that the arguments leave out.
    - `more`: further parameters, whose very names depend on the arguments.
    - `attrs`: attributes of the op from the constructor's arguments; those of the same name are taken by themselves.
    - `inputs`: the arguments of a call.
    - `state`: the operands that an input `hx` of a recurrent layer stands for.
    - `infer`: (input, dimension) by argument: the size that `_` takes, and that what is given must be.
    - `parts`: layers within this one, by name, and their arguments.
    - `buffers`: name to shape of what a layer keeps beside its parameters.
    - `check`: refuses constructor's arguments that do not fit together.
    - `joins`: whether a kernel computes it with an activation that follows it: the elements of a `Sequential` that has
      both are called one by one.
    """

    name: str
    signature: Signature
    op: str
    params: Shapes = field(default_factory=dict)
    more: Callable[[Args], Mapping[str, Shape]] | None = None
    attrs: Callable[[Args], Mapping[str, Attr]] | None = None
    inputs: Signature = INPUT
    state: tuple[str, ...] = ()
    infer: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, Callable[[Args], Args]]] = field(default_factory=dict)
    buffers: Shapes = field(default_factory=dict)
    check: Callable[[Args, Span], None] | None = None
    joins: bool = False

    @property
    def path(self) -> str:
        return f"nn.{self.name}"

    def shapes(self, args: Args) -> dict[str, Shape]:
        """The parameters that a layer with these arguments has, as PyTorch names them, in its order."""
        found = {name: shape for name, make in self.params.items() if (shape := make(args)) is not None}
        return found | dict(self.more(args)) if self.more is not None else found

    def all_shapes(self, args: Args) -> Iterator[tuple[str, Shape]]:
        """Those of the layers within it as well, by their paths."""
        yield from self.shapes(args).items()
        for part, (name, made) in self.parts.items():
            for path, shape in LAYERS[name].shapes(made(args)).items():
                yield f"{part}.{path}", shape

    @property
    def has_parameters(self) -> bool:
        return bool(self.params) or self.more is not None

    def takes(self, name: str) -> bool:
        """Whether an argument of the constructor is a parameter to share."""
        return name not in {arg.name for arg in self.signature} and (name in self.params or self.more is not None)


LAYERS: dict[str, Layer] = {}


def layer(name: str, arguments: str, op: str, params: Shapes | None = None, **more: Any) -> None:
    """Register a layer; arguments of calls may be given as text."""
    inputs = more.pop("inputs", None)
    record = Layer(name, signature(arguments), op, params or {}, **more)
    LAYERS[name] = record if inputs is None else Layer(**{**vars(record), "inputs": signature(inputs)})


def size(value: Any) -> Size:
    return Size.of(value)


def sizes(value: Any) -> Shape:
    return tuple(Size.of(v) for v in value) if isinstance(value, tuple) else (Size.of(value),)


def several(value: Any, n: int) -> Shape:
    """One number for each of `n` dimensions."""
    found = sizes(value)
    return found * n if len(found) == 1 else found


def where(flag: str, shape: Callable[[Args], Shape]) -> Callable[[Args], Shape | None]:
    """A parameter that is there where an argument says so."""
    return lambda a: shape(a) if a[flag] else None


def one_of(args: Args, name: str, choices: tuple[str, ...], span: Span) -> None:
    """E202 where an argument is none of the words that it may be."""
    if args[name] not in choices:
        fail("E202", f"`{name}` is one of {', '.join(choices)}", span, f'this is "{args[name]}"')
