"""The typed syntax tree: frozen nodes, each with the span it was written at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tdsl.dsl.diagnostics import Span

T = TypeVar("T")

# Type checkers hold these classes frozen. `dataclass` itself is not asked to: with that, comparison and `repr` it takes
# 25 ms to make the classes below, a sixth of what `tdsl check` may take, and without 6 ms.
if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    @dataclass_transform(frozen_default=True)
    def node(cls: type[T]) -> type[T]: ...
else:
    node = dataclass(eq=False, repr=False)


@node
class Node:
    """Two nodes are equal only where they are the same one."""

    span: Span

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Any]]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.span}: {self.span.text!r})"


# Expressions ---------------------------------------------------------------------------------------------------------


@node
class Expr(Node):
    pass


@node
class Literal(Expr):
    """`12`, `0.5`, `"text"`, `true`, `none`."""

    value: int | float | str | bool | None


@node
class Name(Expr):
    """A name; `_` stands for a size to be inferred, as in `Linear(_, 64)`."""

    id: str


@node
class Unary(Expr):
    """`op` is `-`, `+` or `not`."""

    op: str
    operand: Expr


@node
class Binary(Expr):
    """`op` is one of `+ - * / // % @ ** == != < <= > >= and or`."""

    op: str
    left: Expr
    right: Expr


@node
class Conditional(Expr):
    """`then if condition else otherwise`."""

    condition: Expr
    then: Expr
    otherwise: Expr


@node
class Pipe(Expr):
    """`value |> stage`; `stage` is a name, an attribute, an index or a call."""

    value: Expr
    stage: Expr


@node
class Argument(Node):
    """One argument of a call; `name` is None where it is positional."""

    name: str | None
    value: Expr


@node
class Call(Expr):
    """`function(args)`; a method call has an `Attribute` as its function."""

    function: Expr
    args: tuple[Argument, ...]


@node
class Attribute(Expr):
    """`value.name`; `name_span` is the name alone."""

    value: Expr
    name: str
    name_span: Span


@node
class Slice(Expr):
    """`start:stop:step` within an index."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@node
class Ellipsis_(Expr):
    """`...` within an index or the sizes of a type."""


@node
class Index(Expr):
    """`value[items]`; items are expressions, slices, `...` and `none`."""

    value: Expr
    items: tuple[Expr, ...]


@node
class ListExpr(Expr):
    items: tuple[Expr, ...]


@node
class TupleExpr(Expr):
    items: tuple[Expr, ...]


@node
class Comprehension(Expr):
    """`[element for variable in iterable]`."""

    element: Expr
    variable: str
    iterable: Expr


# Types ---------------------------------------------------------------------------------------------------------------


@node
class TypeExpr(Node):
    """`dtype[dims]`; `dtype` is None where it is left out, `dims` None for a parameter kind such as `int`."""

    dtype: str | None
    dims: tuple[Expr, ...] | None


# Statements ----------------------------------------------------------------------------------------------------------


@node
class Statement(Node):
    pass


@node
class Target(Node):
    id: str


@node
class Nested(Node):
    """`(h, c)` among the targets of `y, (h, c) = lstm(x)`."""

    targets: tuple[Target | Nested, ...]


@node
class Assign(Statement):
    """`a = x`, `a, b = x, y`, `a, b = f(x)` or `a, (b, c) = f(x)`."""

    targets: tuple[Target | Nested, ...]
    values: tuple[Expr, ...]

    @property
    def names(self) -> list[Target]:
        """The targets, however deep."""
        return _names(self.targets)


@node
class Return(Statement):
    values: tuple[Expr, ...]


@node
class For(Statement):
    variable: Target
    iterable: Expr
    body: tuple[Statement, ...]


@node
class If(Statement):
    condition: Expr
    body: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@node
class Track(Statement):
    """`track name = value`: a scalar that is logged."""

    target: Target
    value: Expr


@node
class Assume(Statement):
    condition: Expr


@node
class NoGrad(Statement):
    body: tuple[Statement, ...]


def _names(targets: tuple[Target | Nested, ...]) -> list[Target]:
    parts = [_names(each.targets) if isinstance(each, Nested) else [each] for each in targets]
    return [name for part in parts for name in part]


# Declarations --------------------------------------------------------------------------------------------------------


@node
class Declaration(Node):
    """`name_span` is the name alone; `doc` the comment lines directly above."""

    name: str
    name_span: Span
    doc: str


@node
class Parameter(Node):
    """A parameter of a module or a `fn`: `name: kind = default`, kind one of `int float bool str fn module`."""

    name: str
    kind: str
    default: Expr | None


@node
class Input(Node):
    """One typed input of `forward` or of a `fn`."""

    name: str
    type: TypeExpr


@node
class Function(Declaration):
    """`fn name(takes) -> outputs { body }`; a module's `forward` has the name `forward`, and takes tensors alone."""

    takes: tuple[Input | Parameter, ...]
    outputs: tuple[TypeExpr, ...]
    body: tuple[Statement, ...]

    @property
    def inputs(self) -> tuple[Input, ...]:
        return tuple(each for each in self.takes if isinstance(each, Input))

    @property
    def params(self) -> tuple[Parameter, ...]:
        return tuple(each for each in self.takes if isinstance(each, Parameter))


@node
class Member(Declaration):
    """`NAME = value`: a submodule where the value is a module, a constant otherwise."""

    value: Expr


@node
class ParamMember(Declaration):
    """`param NAME: type = initializer`, or `buffer` where `trainable` is false."""

    type: TypeExpr
    initializer: Expr
    trainable: bool


@node
class Module(Declaration):
    params: tuple[Parameter, ...]
    members: tuple[Member | ParamMember, ...]
    forward: Function | None


@node
class ExternModule(Declaration):
    """`extern module Name(params) : inputs -> outputs = "package.module:Class"`."""

    params: tuple[Parameter, ...]
    inputs: tuple[TypeExpr, ...]
    outputs: tuple[TypeExpr, ...]
    target: str
    target_span: Span


@node
class Const(Declaration):
    value: Expr


@node
class Import(Node):
    path: str


@node
class Setting(Declaration):
    """`name = value` in a section; `name` alone where a section's flag is written without a value."""

    value: Expr


@node
class Field(Declaration):
    """`field name: type = value` of a `data` section."""

    type: TypeExpr
    value: Expr


@node
class Transform(Node):
    """`transform [split] field = [...]`; `split` is None where it holds for every split."""

    split: str | None
    field: str
    field_span: Span
    value: Expr


@node
class Data(Declaration):
    settings: tuple[Setting, ...]
    fields: tuple[Field, ...]
    transforms: tuple[Transform, ...]


@node
class Block(Node):
    """`loss(batch) { ... }`, `compare(batch) { ... }`, `predict(batch) { ... }`."""

    name: str
    name_span: Span
    parameter: Target
    body: tuple[Statement, ...]


@node
class Section(Node):
    """`checkpoint { every = 500, ... }` within a run; `pattern` is the string of `group "*.bias" { ... }`."""

    name: str
    name_span: Span
    pattern: str | None
    settings: tuple[Setting, ...]


@node
class Train(Declaration):
    settings: tuple[Setting, ...]
    blocks: tuple[Block, ...]
    sections: tuple[Section, ...]


@node
class Evaluate(Declaration):
    """`name` is the run that is evaluated."""

    settings: tuple[Setting, ...]
    blocks: tuple[Block, ...]
    sections: tuple[Section, ...]


@node
class File:
    """One source file: its declarations in the order written; `broken` names those left out for a syntax error."""

    imports: tuple[Import, ...]
    declarations: tuple[Declaration, ...]
    broken: tuple[str, ...] = ()

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Any]]
