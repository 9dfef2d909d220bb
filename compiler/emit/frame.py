"""What `kernels.py` says of a group however its kernels are made: comment, reference, public function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tdsl.compiler.emit.reference import reference_lines
from tdsl.compiler.emit.render import layout, plain
from tdsl.compiler.ir import Group, Scalar, Value
from tdsl.compiler.precision import low_precision
from tdsl.dsl.diagnostics import Span


@dataclass(frozen=True)
class GroupText:
    """One group: `comment` lines, the reference, the kernels with their autograd function, and the public function.

    `condition` decides whether the kernels run, `applied` is what the autograd function is given, `arguments` what the
    reference is. `prepared` are the function's first statements, `shared` is text that stands once
    before all groups that have it.
    """

    name: str
    class_name: str
    comment: tuple[str, ...]
    reference_head: str
    reference: tuple[str, ...]
    kernels: str
    public_head: str
    condition: str
    applied: str
    arguments: str
    draws: bool
    prepared: tuple[str, ...] = ()
    shared: str = ""
    everywhere: bool = False


@dataclass(frozen=True)
class Named:
    """The names of a group's tensors and numbers in its functions, and of the layer that they are given, if any."""

    inputs: Mapping[Value, str]
    scalars: Mapping[Scalar, str]
    draws: bool
    layer: str = ""

    @property
    def arguments(self) -> str:
        """What the reference and the autograd function take."""
        layer, seed = [self.layer] * bool(self.layer), ["seed"] * self.draws
        return ", ".join([*self.inputs.values(), *layer, *self.scalars.values(), *seed])


def class_name(group: str) -> str:
    """What the autograd function of a group is called, after its underscore."""
    return "".join(word.capitalize() for word in group.split("_"))


def frame(group: Group, named: Named, kernels: str, moved: str, everywhere: bool = False) -> GroupText:
    """The whole text of a group around that of its kernels; `moved` says what they move.

    `everywhere`: the autograd function is called whether kernels can run or not.
    """
    parameters = [f"{name}: Tensor" for name in named.inputs.values()]
    parameters += [f"{named.layer}: nn.Module"] if named.layer else []
    parameters += [f"{name}: {_annotation(scalar)}" for scalar, name in named.scalars.items()]
    count = len(group.body.outputs)
    returns = "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
    seed = ["seed: int"] if named.draws else []
    return GroupText(
        name=group.name,
        class_name=class_name(group.name),
        comment=tuple(_comment(group, moved)),
        reference_head=layout(f"def {group.name}_reference", parameters + seed, f" -> {returns}:", 0),
        reference=tuple(_reference(group, named)),
        kernels=kernels,
        public_head=layout(f"def {group.name}", parameters, f" -> {returns}:", 0),
        condition=f"launch.use_kernels({_tensors(group, named)})",
        applied=named.arguments,
        arguments=named.arguments,
        draws=named.draws,
        everywhere=everywhere,
    )


def _reference(group: Group, named: Named) -> list[str]:
    layer = (group.structure.layer, named.layer) if group.structure is not None and named.layer else None
    return reference_lines(group.body, named.inputs, _reference_scalars(group, named), layer)


def _annotation(scalar: Scalar) -> str:
    return {"bool": "bool", "i64": "int"}.get(scalar.dtype, "float")


def _tensors(group: Group, named: Named) -> str:
    """What decides whether the kernels can run: the tensors, apart those that are float32 beside lower ones.

    And the lower precision, where none of them has it.
    """
    low = low_precision(group)
    full = [n for v, n in named.inputs.items() if low is not None and v.type.dtype == "f32"]
    found = [n for n in named.inputs.values() if n not in full]
    found += [f"float32=({', '.join(full)}{',' if len(full) == 1 else ''})"] if full else []
    made = low is not None and not any(v.type.dtype == "float" for v in named.inputs)
    return ", ".join([*found, f"writes={low.text}"] if low is not None and made else found)


def _reference_scalars(group: Group, named: Named) -> dict[Scalar, str]:
    """The names of numbers, and the low precision as that of an input that has it."""
    low = low_precision(group)
    if low is None:
        return dict(named.scalars)
    like = next((n for v, n in named.inputs.items() if v.type.dtype == "float"), None)
    return {**named.scalars, low: f"{like}.dtype" if like else low.text}


def _comment(group: Group, moved: str) -> Iterable[str]:
    """Source lines and bytes moved."""
    spans = [n.span for n in group.body.nodes if n.span is not None]
    places = dict.fromkeys(f"{Path(s.source.name).name}:{s.line}" for s in spans)
    yield f"# {group.name}: {plain(', '.join(places))}" if places else f"# {group.name}"
    yield from (f"#     {text}" for text in dict.fromkeys(_source_line(s) for s in spans))
    yield f"# {moved}"


def _source_line(span: Span) -> str:
    return plain(span.source.line(span.line).strip())
