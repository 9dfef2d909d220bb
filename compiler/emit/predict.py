"""`predict.py`: what a run's `predict` tells of new rows. Only the fields that it reads are needed of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from tdsl.compiler.build.unit import EvaluationIR, RunIR, Unit
from tdsl.compiler.emit.data import FieldText, columns_numbered, data_text
from tdsl.compiler.emit.evaluate import FunctionText, model_statement, predict_function, writes
from tdsl.compiler.emit.expression import constant
from tdsl.compiler.emit.render import import_from, plain, render
from tdsl.compiler.emit.sources import text_columns
from tdsl.compiler.emit.text import identifier, mentions
from tdsl.compiler.ir import Value
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.program import DataSpec
from tdsl.dsl.signatures import PATHS

ROWS = Size.of(Symbol("B"))

# Arguments by which a source names what it reads, beside paths.
NAMES = ("name", "target")


@dataclass(frozen=True)
class PredictText:
    """All that varies in `predict.py`: Python text, but for `program`, `name` and `source`.

    `models` are the statements that make the run's models, by name, `writes` those that write its results; `fields` are
    those that `predict` reads, `numbered` the columns with categories among theirs, `fitted` whether they take numbers
    from the train split; `transforms` the entries of a dictionary; `options` what the program gives its source beside
    paths.
    """

    program: str
    name: str
    models: Mapping[str, str]
    predict: FunctionText
    writes: tuple[str, ...]
    fields: tuple[FieldText, ...]
    numbered: tuple[str, ...]
    fitted: bool
    transforms: tuple[str, ...]
    source: str
    options: str
    batch_size: int
    seed: int
    standard: tuple[str, ...]
    others: tuple[str, ...]
    own: tuple[str, ...]


def emit_predict(unit: Unit, run: RunIR, evaluation: EvaluationIR | None) -> str | None:
    """The text of `predict.py`; None of a run whose program does not say what to predict."""
    if evaluation is None or evaluation.predict is None:
        return None
    return render("scripts/predict.py.jinja", predict=predict_text(unit, run, evaluation))


def predict_text(unit: Unit, run: RunIR, evaluation: EvaluationIR) -> PredictText:
    """What the template shows."""
    predict = predict_function(evaluation)
    assert predict is not None
    spec = run.spec.data
    data = data_text(spec, unit.program.consts, evaluation.limits, "", False)
    read = _read("\n".join(predict.lines), spec)
    fields = tuple(text for field, text in zip(spec.fields, data.fields, strict=True) if field.name in read)
    chains = data.transforms.get(evaluation.spec.split, {})
    split = constant(evaluation.spec.split)
    transforms = [f"{constant(each)}: data.TRANSFORMS[{split}][{constant(each)}]" for each in chains if each in read]
    classes = [identifier(member.class_name) for member in run.models.values()]
    settings = run.spec.settings
    assert isinstance(settings["batch_size"], int)
    assert isinstance(settings["seed"], int)
    standard, others, own = _imports(predict, classes)
    return PredictText(
        program=plain(PurePath(unit.program.source.name).name),
        name=run.spec.name,
        models={identifier(name): model_statement(name, member, unit, run) for name, member in run.models.items()},
        predict=predict,
        writes=writes("job.write", list(map(identifier, run.models)), predict, "batches", 4),
        fields=fields,
        numbered=columns_numbered(fields),
        fitted=any(field.fitted for field in fields),
        transforms=tuple(transforms),
        source=spec.sources["source"].name,
        options=_options(spec),
        batch_size=settings["batch_size"],
        seed=settings["seed"],
        standard=standard,
        others=others,
        own=own,
    )


def _read(body: str, spec: DataSpec) -> list[str]:
    """The fields that a body reads; all of them, should it need no more than the number of rows."""
    found = set(re.findall(r"\bbatch\.(\w+)", body))
    names = [field.name for field in spec.fields]
    return [name for name in names if name in found] or names


def _options(spec: DataSpec) -> str:
    """What the source is given beside paths, as a dictionary's text; empty where that is nothing."""
    call = spec.sources["source"]
    given = {name: value for name, value in call.args.items() if name not in (*PATHS, *NAMES) and _is_plain(value)}
    entries = [f"{constant(name)}: {constant(value)}" for name, value in (given | text_columns(call, spec)).items()]
    return f"{{{', '.join(entries)}}}" if entries else ""


def _is_plain(value: object) -> bool:
    return isinstance(value, (int, float, str))


def _imports(predict: FunctionText, classes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The imports of the standard library, of others' packages and of the project, those that are used."""
    body = "\n".join(line.partition("  # ")[0] for line in predict.lines)
    standard = ["import math"] * mentions(body, "math") + ["import sys"]
    others = [
        "import torch",
        *["import torch.nn.functional as F"] * mentions(body, "F"),
        "from torch import Tensor, nn",
    ]
    own = ["import data", *["import kernels"] * mentions(body, "kernels"), import_from("model", classes)]
    own += [f"from tdsl.runtime import {'nn_functions, ' * mentions(body, 'nn_functions')}sources"]
    own += ["from tdsl.runtime.loader import Batch", "from tdsl.runtime.prediction import Job, main"]
    return tuple(standard), tuple(others), tuple(own)


def unsupported(evaluation: EvaluationIR | None) -> list[Diagnostic]:
    """Results of `predict` that are not one for each row, each with its place and the way out."""
    if evaluation is None or evaluation.predict is None or evaluation.spec.predict is None:
        return []
    wrong = [value for value in evaluation.predict.outputs if value.type.shape[:1] != (ROWS,)]
    place = evaluation.spec.predict.name_span
    return [
        Diagnostic("E335", "`predict` returns something for each row", place, _found(value), help=_CURE)
        for value in wrong
    ]


def _found(value: Value) -> str:
    return f"it returns {value.type}"


_CURE = "a first dimension of `B`, the rows of the batch: leave them apart"
