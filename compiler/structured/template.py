"""What a structured kernel is: one record, its text in `templates/triton/NAME.py.jinja`; the registry of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Group, Scalar, Structure, Value


@dataclass(frozen=True)
class Naming:
    """What the text of one group calls everything.

    `inputs` are the tensors of the group's body, `outputs` its results, `scalars` its numbers. `roles` has the names of
    the tensors by role; `low` is what PyTorch calls the precision of the run, empty where that is float32.
    """

    name: str
    class_name: str
    inputs: Mapping[Value, str]
    outputs: Mapping[Value, str]
    scalars: Mapping[Scalar, str]
    roles: Mapping[str, str]
    low: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Those of the function and of its autograd function: tensors, then numbers."""
        return (*self.inputs.values(), *self.scalars.values())


@dataclass(frozen=True)
class Case:
    """Sizes at which `tdsl verify` runs a group: the shapes of its tensors, and what fills those of integers.

    `dtypes` has for each tensor `float` (the precision in turn), `f32`, `bool`, an integer dtype (drawn from 0 to 7),
    or `below:N` for integers of 0 to N - 1 (and -100 among them, as `below:N:-100`). `positive float` and
    `positive f32` are numbers greater than 0 without a gradient.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    scalars: tuple[float, ...] = ()


@dataclass(frozen=True)
class Template:
    """A structured kernel.

    - `variables(group, naming)`: what its text shows. The text holds the kernels and one autograd function,
      `_{{ class_name }}`, whose `forward(ctx, ...)` takes `naming.arguments`, and the seed of its draws where it draws.
    - `moved(group)`: the comment's last clause, on the bytes it moves.
    - `cases(group)`: the sizes at which it is verified.
    - `cost(group, measure)`: what a step costs; `keeps` are the roles of the tensors that its backward reads,
      `keeping(group)` where these vary.
    - `draws(structure)`: whether it draws random numbers.
    - `everywhere`: whether its autograd function also runs where no kernel can, so that it is always the one called. It
      is told last whether gradients are wanted.
    - `native`: whether it multiplies matrices in the precision of what it is given. Others compute in float32 whatever
      they read and write, as generated kernels do.
    """

    name: str
    variables: Callable[[Group, Naming], Mapping[str, object]]
    moved: Callable[[Group], str]
    cases: Callable[[Group], Iterator[Case]]
    cost: Callable[[Group, Measure], Cost]
    keeps: tuple[str, ...] = ()
    draws: Callable[[Structure], bool] = field(default=lambda structure: False)
    native: bool = False
    keeping: Callable[[Group], tuple[str, ...]] | None = None
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
