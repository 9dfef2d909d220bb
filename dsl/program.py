"""A resolved program: names bound, constants folded, settings and arguments checked against their signatures.

`Module`, `fn` and block bodies stay syntax trees: the compiler builds IR from them. Everything else is plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Source, Span

# A folded constant. Lists and tuples of the source are both tuples here.
Constant = Union[int, float, str, bool, None, "Call", tuple["Constant", ...]]
# What a column with categories may hold.
Categories = tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """`AdamW(lr=3e-3)`: a built-in and its arguments by name, defaults left out, in the order of the signature."""

    name: str
    args: Mapping[str, Constant]
    span: Span


@dataclass(frozen=True)
class FieldSpec:
    """A field of a dataset: values of `dtype` (`float`, `int`, ...) and `shape` (one row, without the batch).

    `resized` says that rows have that shape only behind their transforms, `bytes` that they are bytes until `ToTensor`,
    `fitted` that they take numbers from the rows of the train split.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    value: ast.Expr
    span: Span
    doc: str = ""
    resized: bool = False
    bytes: bool = False
    fitted: bool = False


@dataclass(frozen=True)
class TransformSpec:
    """What is applied to `field`, in order; `split` is None where no split is named."""

    field: str
    split: str | None
    calls: tuple[Call, ...]
    span: Span


@dataclass(frozen=True)
class DataSpec:
    """A `data` declaration. `sources` has `source` and, where declared, `val` and `test`.

    `categories` are the values of the columns that are numbered by their places in a list.
    """

    name: str
    sources: Mapping[str, Call]
    split: Call | None
    fields: tuple[FieldSpec, ...]
    transforms: tuple[TransformSpec, ...]
    settings: Mapping[str, Constant]
    facts: Mapping[str, int]
    span: Span
    doc: str = ""
    categories: Mapping[str, Categories] = field(default_factory=dict)

    @property
    def fitted(self) -> bool:
        """Whether fields take numbers from the rows of the train split."""
        return any(each.fitted for each in self.fields)


@dataclass(frozen=True)
class GroupSpec:
    """`group "PATTERN" { weight_decay = 0 }`: optimizer arguments for the parameters that a glob names."""

    pattern: str
    args: Mapping[str, Constant]
    span: Span


@dataclass(frozen=True)
class TrainSpec:
    """A `train` declaration.

    `models` maps `model` (always first) and any further model's name to the expression that makes it. `schedulers` is
    the chain joined with `|>`. `settings` holds every plain setting (`epochs`, `batch_size`, `precision`, ...) with its
    default filled in; `sections` likewise (`checkpoint`, `early_stopping`, `logging`, `validate`), a section that is
    not written and has no defaults being absent.
    """

    name: str
    models: Mapping[str, ast.Expr]
    data: DataSpec
    loss: ast.Block
    optimizer: Call
    groups: tuple[GroupSpec, ...]
    schedulers: tuple[Call, ...]
    settings: Mapping[str, Constant]
    sections: Mapping[str, Mapping[str, Constant]]
    span: Span
    doc: str = ""


@dataclass(frozen=True)
class EvaluateSpec:
    """An `evaluate` declaration; `name` is the run it evaluates."""

    name: str
    compare: ast.Block | None
    predict: ast.Block | None
    metrics: tuple[Call, ...]
    split: str
    span: Span


@dataclass(frozen=True)
class Program:
    """All declarations of a file and of those it imports, by name, in the order written.

    `broken` are names whose declarations have syntax errors: told already, so a use of them is not.
    """

    source: Source
    sources: tuple[Source, ...]
    consts: Mapping[str, Constant]
    functions: Mapping[str, ast.Function]
    modules: Mapping[str, ast.Module]
    externs: Mapping[str, ast.ExternModule]
    data: Mapping[str, DataSpec]
    runs: Mapping[str, TrainSpec]
    evaluations: Mapping[str, EvaluateSpec]
    broken: frozenset[str] = frozenset()
