"""The typed syntax tree: frozen nodes, each with the span it was written at."""

from __future__ import annotations

from dataclasses import dataclass

from tdsl.dsl.diagnostics import Span


@dataclass(frozen=True)
class Node:
    span: Span


# Expressions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expr(Node):
    pass


@dataclass(frozen=True)
class Literal(Expr):
    """`12`, `0.5`, `"text"`, `true`, `none`."""

    value: int | float | str | bool | None


@dataclass(frozen=True)
class Name(Expr):
    """A name; `_` stands for a size to be inferred, as in `Linear(_, 64)`."""

    id: str


@dataclass(frozen=True)
class Unary(Expr):
    """`op` is `-`, `+` or `not`."""

    op: str
    operand: Expr


@dataclass(frozen=True)
class Binary(Expr):
    """`op` is one of `+ - * / // % @ ** == != < <= > >= and or`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Conditional(Expr):
    """`then if condition else otherwise`."""

    condition: Expr
    then: Expr
    otherwise: Expr


@dataclass(frozen=True)
class Pipe(Expr):
    """`value |> stage`; `stage` is a name, an attribute, an index or a call."""

    value: Expr
    stage: Expr


@dataclass(frozen=True)
class Argument(Node):
    """One argument of a call; `name` is None where it is positional."""

    name: str | None
    value: Expr


@dataclass(frozen=True)
class Call(Expr):
    """`function(args)`; a method call has an `Attribute` as its function."""

    function: Expr
    args: tuple[Argument, ...]


@dataclass(frozen=True)
class Attribute(Expr):
    """`value.name`; `name_span` is the name alone."""

    value: Expr
    name: str
    name_span: Span


@dataclass(frozen=True)
class Slice(Expr):
    """`start:stop:step` within an index."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True)
class Ellipsis_(Expr):
    """`...` within an index or the sizes of a type."""


@dataclass(frozen=True)
class Index(Expr):
    """`value[items]`; items are expressions, slices, `...` and `none`."""

    value: Expr
    items: tuple[Expr, ...]


@dataclass(frozen=True)
class ListExpr(Expr):
    items: tuple[Expr, ...]


@dataclass(frozen=True)
class TupleExpr(Expr):
    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Comprehension(Expr):
    """`[element for variable in iterable]`."""

    element: Expr
    variable: str
    iterable: Expr


# Types ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TypeExpr(Node):
    """`dtype[dims]`; `dtype` is None where it is left out, `dims` None for a parameter kind such as `int`."""

    dtype: str | None
    dims: tuple[Expr, ...] | None


# Statements ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statement(Node):
    pass


@dataclass(frozen=True)
class Target(Node):
    id: str


@dataclass(frozen=True)
class Assign(Statement):
    """`a = x`, `a, b = x, y` or `a, b = f(x)`."""

    targets: tuple[Target, ...]
    values: tuple[Expr, ...]


@dataclass(frozen=True)
class Return(Statement):
    values: tuple[Expr, ...]


@dataclass(frozen=True)
class For(Statement):
    variable: Target
    iterable: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class If(Statement):
    condition: Expr
    body: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True)
class Track(Statement):
    """`track name = value`: a scalar that is logged."""

    target: Target
    value: Expr


@dataclass(frozen=True)
class Assume(Statement):
    condition: Expr


@dataclass(frozen=True)
class NoGrad(Statement):
    body: tuple[Statement, ...]


# Declarations --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declaration(Node):
    """`name_span` is the name alone; `doc` the comment lines directly above."""

    name: str
    name_span: Span
    doc: str


@dataclass(frozen=True)
class Parameter(Node):
    """A module's parameter: `name: kind = default`, kind one of `int float bool str fn module`."""

    name: str
    kind: str
    default: Expr | None


@dataclass(frozen=True)
class Input(Node):
    """One typed input of `forward` or of a `fn`."""

    name: str
    type: TypeExpr


@dataclass(frozen=True)
class Function(Declaration):
    """`fn name(inputs) -> outputs { body }`; a module's `forward` has the name `forward`."""

    inputs: tuple[Input, ...]
    outputs: tuple[TypeExpr, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Member(Declaration):
    """`NAME = value`: a submodule where the value is a module, a constant otherwise."""

    value: Expr


@dataclass(frozen=True)
class ParamMember(Declaration):
    """`param NAME: type = initializer`, or `buffer` where `trainable` is false."""

    type: TypeExpr
    initializer: Expr
    trainable: bool


@dataclass(frozen=True)
class Module(Declaration):
    params: tuple[Parameter, ...]
    members: tuple[Member | ParamMember, ...]
    forward: Function | None


@dataclass(frozen=True)
class ExternModule(Declaration):
    """`extern module Name(params) : inputs -> outputs = "package.module:Class"`."""

    params: tuple[Parameter, ...]
    inputs: tuple[TypeExpr, ...]
    outputs: tuple[TypeExpr, ...]
    target: str
    target_span: Span


@dataclass(frozen=True)
class Const(Declaration):
    value: Expr


@dataclass(frozen=True)
class Import(Node):
    path: str


@dataclass(frozen=True)
class Setting(Declaration):
    """`name = value` in a section; `name` alone where a section's flag is written without a value."""

    value: Expr


@dataclass(frozen=True)
class Field(Declaration):
    """`field name: type = value` of a `data` section."""

    type: TypeExpr
    value: Expr


@dataclass(frozen=True)
class Transform(Node):
    """`transform [split] field = [...]`; `split` is None where it holds for every split."""

    split: str | None
    field: str
    field_span: Span
    value: Expr


@dataclass(frozen=True)
class Data(Declaration):
    settings: tuple[Setting, ...]
    fields: tuple[Field, ...]
    transforms: tuple[Transform, ...]


@dataclass(frozen=True)
class Block(Node):
    """`loss(batch) { ... }`, `compare(batch) { ... }`, `predict(batch) { ... }`."""

    name: str
    name_span: Span
    parameter: Target
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Section(Node):
    """`checkpoint { every = 500, ... }` within a run; `pattern` is the string of `group "*.bias" { ... }`."""

    name: str
    name_span: Span
    pattern: str | None
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Train(Declaration):
    settings: tuple[Setting, ...]
    blocks: tuple[Block, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Evaluate(Declaration):
    """`name` is the run that is evaluated."""

    settings: tuple[Setting, ...]
    blocks: tuple[Block, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class File:
    """One source file: its declarations in the order written; `broken` names those left out for a syntax error."""

    imports: tuple[Import, ...]
    declarations: tuple[Declaration, ...]
    broken: tuple[str, ...] = ()
