"""What a structured kernel is: one record, its text in `templates/triton/NAME.py.jinja`; the registry of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Group, Scalar, Structure, Value


@dataclass(frozen=True)
class Naming:
    """What the text of one group calls everything.

    `inputs` are the tensors of the group's body, `outputs` its results, `scalars` its numbers. `roles` has the names of
    the tensors by role; `low` is what PyTorch calls the precision of the run, empty where that is float32. `layer` is
    the layer that the function is given, where it is given one.
    """

    name: str
    class_name: str
    inputs: Mapping[Value, str]
    outputs: Mapping[Value, str]
    scalars: Mapping[Scalar, str]
    roles: Mapping[str, str]
    low: str = ""
    layer: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Those of the function: tensors, a layer, numbers. The autograd function has the same, but for a layer's."""
        return (*self.inputs.values(), *([self.layer] if self.layer else []), *self.scalars.values())


@dataclass(frozen=True)
class Case:
    """Sizes at which `tdsl verify` runs a group: the shapes of its tensors, and what fills those of integers.

    `dtypes` has for each tensor `float` (the precision in turn), `f32`, `bool`, an integer dtype (drawn from 0 to 7),
    or `below:N` for integers of 0 to N - 1 (and -100 among them, as `below:N:-100`). `positive float` and
    `positive f32` are numbers greater than 0 without a gradient. A layer is `BatchNorm2d:train` or `BatchNorm2d:eval`,
    options of its constructor after that (`:affine=False`), and its channels are its shape. `state` is a float32 tensor
    without a gradient that a call may change, positive. Where `finite`, no input holds NaN or an infinity.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    scalars: tuple[float, ...] = ()
    finite: bool = False


@dataclass(frozen=True)
class Template:
    """A structured kernel.

    - `variables(group, naming)`: what its text shows. The text holds the kernels and one autograd function,
      `_{{ class_name }}`, whose `forward(ctx, ...)` takes `naming.arguments`, and the seed of its draws where it draws.
    - `moved(group)`: the comment's last clause, on the bytes it moves.
    - `cases(group)`: the sizes at which it is verified; `case(group, shapes)`: a case of tensors of these shapes, where
      the types of the group do not tell it.
    - `cost(group, measure)`: what a step costs, but for what it saves; `keeps` are the roles of the tensors that its
      backward reads (and `results` where it reads those), or a function from the group to the tensors themselves.
    - `handed(group)`: the results that are views of its first input, and keep all of that where they are kept.
    - `draws(structure)`: whether it draws random numbers.
    - `everywhere`: whether its autograd function also runs where no kernel can, so that it is always the one called. It
      is told last whether gradients are wanted.
    - `names`: what its text binds itself, and no tensor of a program may be called there.
    - `keeps_dtype`: whether its results are of the precision of what it reads, also where that is not the run's.
    - `native`: whether it multiplies matrices in the precision of what it is given. Others compute in float32 whatever
      they read and write, as generated kernels do.
    - `layer`: what its functions call the layer that they are given.
    - `shared`: the template of a text that stands once in a file, before the groups that use it.
    - `prepared(group, naming)`: the first statements of the function, where it has some.
    - `condition(group, naming)`: what decides whether the kernels run, where that is more than dtypes and devices.
    - `applied(group, naming)`: what the autograd function is given, where that is not what the function is given.
    - `by_role`: whether its tensors are called by their roles, whatever the program calls them where it is used first.
    - `any_rank`: whether one text serves tensors of any number of dimensions.
    """

    name: str
    variables: Callable[[Group, Naming], Mapping[str, object]]
    moved: Callable[[Group], str]
    cases: Callable[[Group], Iterator[Case]]
    cost: Callable[[Group, Measure], Cost]
    keeps: tuple[str, ...] | Callable[[Group], tuple[Value, ...]] = ()
    handed: Callable[[Group], tuple[Value, ...]] = field(default=lambda group: ())
    draws: Callable[[Structure], bool] = field(default=lambda structure: False)
    names: tuple[str, ...] = ()
    keeps_dtype: bool = False
    native: bool = False
    case: Callable[[Group, Sequence[Sequence[int]]], Case] | None = None
    layer: str = ""
    shared: str = ""
    prepared: Callable[[Group, Naming], Sequence[str]] = field(default=lambda group, naming: ())
    condition: Callable[[Group, Naming], str] | None = None
    applied: Callable[[Group, Naming], str] | None = None
    by_role: bool = False
    any_rank: bool = False
    everywhere: bool = False


TEMPLATES: dict[str, Template] = {}


def register(template: Template) -> Template:
    """Add a template under its name."""
    if template.name in TEMPLATES:
        raise ValueError(f"template {template.name!r} is registered twice")
    TEMPLATES[template.name] = template
    return template


def template_of(group: Group) -> Template:
    """The template that computes a group."""
    assert group.structure is not None
    return TEMPLATES[group.structure.template]
