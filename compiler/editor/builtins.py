"""The built-in names in one form: what they are called in PyTorch, their arguments, and what they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tdsl.compiler.build.expr import METHODS
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.members import INITIALIZERS
from tdsl.compiler.build.rearrange import EINOPS
from tdsl.compiler.editor import functions_doc, layers_doc, sections_doc
from tdsl.compiler.ops import OPS
from tdsl.compiler.ops.op import INTERNAL, Arg, Op, Signature
from tdsl.dsl import kinds, signatures
from tdsl.dsl.constants import FUNCTIONS as FOLDED

# Their names are in `tdsl`, not in PyTorch.
OURS = ("attention", "rope", "alibi", "rearrange", "reduce", "repeat", "einsum", "size", "detach", "grad", "cast")


@dataclass(frozen=True)
class Parameter:
    """One argument: its kind in words, and its default as the program would write it; None where there is none."""

    name: str
    kind: str
    default: str | None = None
    variadic: bool = False
    keyword_only: bool = False

    def __str__(self) -> str:
        shown = f"*{self.name}" if self.variadic else self.name
        shown += f": {self.kind}" if self.kind else ""
        return shown if self.default is None else f"{shown} = {self.default}"


@dataclass(frozen=True)
class Builtin:
    """A built-in name. `group` says what it is: `function`, `layer`, `optimizer`, `source`, `metric` and so on."""

    name: str
    group: str
    parameters: tuple[Parameter, ...]
    doc: str
    torch: str = ""

    @property
    def parts(self) -> list[str]:
        """The arguments as they are shown; kinds of those of sections are sentences, and left out."""
        if self.group in ("function", "method", "layer", "initializer", "column", "number"):
            return [str(parameter) for parameter in self.parameters]
        return [p.name if p.default is None else f"{p.name}={p.default}" for p in self.parameters]

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(self.parts)})"


Table = Mapping[str, Builtin]


@cache
def functions() -> Table:
    """Functions of tensors by name."""
    found = {name: _function(name, op) for name, op in OPS.items() if name not in INTERNAL}
    for name in (*EINOPS, "size", "grad", "detach"):
        if name not in found:
            found[name] = Builtin(name, "function", _PLAIN.get(name, ()), functions_doc.FUNCTIONS.get(name, ""))
    return found


@cache
def methods() -> Table:
    """What may stand behind a tensor and a dot: functions without their first argument."""
    renamed = {name: _function(name, OPS[op]) for name, op in METHODS.items() if op in OPS}
    found = {name: each for name, each in {**functions(), **renamed}.items() if _takes_tensor(each)}
    return {
        name: Builtin(name, "method", each.parameters[1:], each.doc, each.torch) for name, each in sorted(found.items())
    }


def _takes_tensor(builtin: Builtin) -> bool:
    return bool(builtin.parameters) and builtin.parameters[0].kind.startswith("tensor")


@cache
def layers() -> Table:
    found = {
        name: Builtin(name, "layer", _arguments(record.signature), layers_doc.LAYERS.get(name, ""), f"torch.nn.{name}")
        for name, record in LAYERS.items()
    }
    doc = layers_doc.LAYERS["Sequential"]
    layer = Builtin("Sequential", "layer", (Parameter("layers", "module", variadic=True),), doc, "torch.nn.Sequential")
    return {**found, "Sequential": layer}


@cache
def initializers() -> Table:
    return {
        name: Builtin(
            name, "initializer", _arguments(args), layers_doc.INITIALIZERS.get(name, ""), f"torch.nn.init.{name}_"
        )
        for name, args in INITIALIZERS.items()
    }


TABLES = (
    ("optimizer", signatures.OPTIMIZERS, sections_doc.OPTIMIZERS, "torch.optim."),
    ("scheduler", signatures.SCHEDULERS, sections_doc.SCHEDULERS, "torch.optim.lr_scheduler."),
    ("source", signatures.SOURCES, sections_doc.SOURCES, ""),
    ("split", signatures.SPLITS, sections_doc.SPLITS, ""),
    ("transform", signatures.TRANSFORMS, sections_doc.TRANSFORMS, "torchvision.transforms.v2."),
    ("metric", signatures.METRICS, sections_doc.METRICS, "torchmetrics."),
    ("tokenizer", signatures.TOKENIZERS, sections_doc.OTHERS, ""),
    ("average", signatures.EMAS, sections_doc.OTHERS, ""),
    ("start", signatures.WEIGHTS, sections_doc.OTHERS, ""),
    ("strategy", signatures.STRATEGIES, sections_doc.OTHERS, ""),
)


@cache
def of_sections() -> Mapping[str, Table]:
    """What sections call, by its group."""
    found: dict[str, Table] = {
        group: {name: of_signature(each, group, docs.get(name, ""), torch) for name, each in table.items()}
        for group, table, docs, torch in TABLES
    }
    name = Parameter("name", "str")
    names = Parameter("names", "str", variadic=True)
    missing = Parameter("missing", 'number or "mean"', "none", keyword_only=True)
    takes = {
        "column": (name, missing),
        "columns": (names, missing),
        "categories": (name, Parameter("values", "list")),
        "standardized": (Parameter("x", "columns"),),
    }
    found["column"] = {each: Builtin(each, "column", args, sections_doc.OTHERS[each]) for each, args in takes.items()}
    return found


def of_signature(each: kinds.Signature, group: str, doc: str, torch: str = "") -> Builtin:
    """A built-in of a section."""
    return Builtin(each.name, group, setting_parameters(each.args), doc, f"{torch}{each.name}" if torch else "")


def setting_parameters(args: Iterable[kinds.Arg]) -> tuple[Parameter, ...]:
    """Arguments, or settings, of a section."""
    return tuple(
        Parameter(arg.name, arg.kind.what, None if arg.default is kinds.Required else shown(arg.default))
        for arg in args
    )


@cache
def folded() -> Table:
    """Functions of compile-time values."""
    return {name: Builtin(name, "number", (), f"`{name}` of compile-time numbers.") for name in FOLDED}


_PLAIN: Mapping[str, tuple[Parameter, ...]] = {
    **{
        name: (Parameter("x", "tensor"), Parameter("pattern", "str"), Parameter("sizes", "int", variadic=True))
        for name in ("rearrange", "repeat")
    },
    "reduce": (
        Parameter("x", "tensor"),
        Parameter("pattern", "str"),
        Parameter("reduction", "str"),
        Parameter("sizes", "int", variadic=True),
    ),
    "einsum": (Parameter("pattern", "str"), Parameter("operands", "tensor", variadic=True)),
    "size": (Parameter("x", "tensor"), Parameter("dim", "int")),
    "grad": (Parameter("y", "tensor"), Parameter("x", "tensor")),
    "detach": (Parameter("x", "tensor"),),
}
_KINDS = {"operand": "tensor or number", "tensors": "tensors", "sizes": "int or list", "shape": "list", "size": "int"}


def _function(name: str, op: Op) -> Builtin:
    doc = functions_doc.FUNCTIONS.get(name) or functions_doc.FUNCTIONS.get(op.name, "")
    return Builtin(name, "function", _arguments(op.signature), doc, _torch(op) if name not in OURS else "")


def _torch(op: Op) -> str:
    """PyTorch's name of an op, where it has one."""
    if not isinstance(op.torch, str):
        return f"torch.nn.functional.{op.name}" if "dropout" in op.name else f"torch.{op.name}"
    if op.torch.startswith(("torch.", "F.")):
        return op.torch.replace("F.", "torch.nn.functional.", 1) if op.torch.startswith("F.") else op.torch
    return f"torch.Tensor{op.torch}" if op.torch.startswith(".") else f"torch.{op.name}"


def _arguments(signature: Signature) -> tuple[Parameter, ...]:
    return tuple(_argument(arg) for arg in signature if not arg.is_built)


def _argument(arg: Arg) -> Parameter:
    kind = _KINDS.get(arg.kind, arg.kind if arg.kind != "any" else "")
    kind += " or none" if arg.optional and kind else ""
    default = None if arg.required or arg.variadic else shown(arg.default)
    return Parameter(arg.name, kind, default, arg.variadic, arg.keyword_only)


def shown(value: Any) -> str:
    """A default as the program would write it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})" if value else "[]"
    return f"{value:g}" if isinstance(value, float) and value != int(value) else str(value)
