"""`evaluate.py`: what compares a run's predictions with its targets, and one pass over a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tdsl.compiler.build.unit import EvaluationIR, ModuleIR, RunIR, Unit
from tdsl.compiler.emit.expression import constant
from tdsl.compiler.emit.model import constructor
from tdsl.compiler.emit.python import block_lines, shape_comment
from tdsl.compiler.emit.render import layout, plain, render
from tdsl.compiler.emit.text import identifier, mentions
from tdsl.compiler.ir import Graph, Node, TensorType, Value
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import Diagnostic, ProgramError
from tdsl.dsl.program import Call
from tdsl.dsl.resolve_data import splits_of

# Metrics that compare values, and those that compare scores with classes.
REGRESSION = ("MeanSquaredError", "MeanAbsoluteError", "R2Score")
# Metrics that ask which class wins: each may also be given classes instead of scores.
COUNTS = ("Accuracy", "Precision", "Recall", "F1Score", "ConfusionMatrix")
# Arguments that have a meaning for several classes only; torchmetrics ignores them for two.
MULTICLASS_ARGS = ("average", "top_k")
# What makes probabilities of scores: metrics must not do it again.
PROBABILITIES = {"binary": ("sigmoid",), "multiclass": ("softmax",)}
LABELS = ("i64", "i32", "i16", "i8", "u8")


@dataclass(frozen=True)
class Task:
    """What is predicted: `binary`, `multiclass` (of `classes`, along `class_dim` of the scores) or `regression`."""

    name: str
    classes: int | None = None
    class_dim: int = -1
    from_logits: bool = True


@dataclass(frozen=True)
class FunctionText:
    """A block of the program as a function: its lines, its result's annotation, and a line about the shapes."""

    lines: tuple[str, ...]
    returns: str
    doc: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class EvaluateText:
    """All that varies in `evaluate.py`: Python text, but for `program`, `name`, `split`, `splits` and `out`."""

    program: str
    name: str
    imports: tuple[str, ...]
    models: Mapping[str, str]
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    compare: FunctionText | None
    predict: FunctionText | None
    tracks: bool
    split: str
    splits: tuple[str, ...]
    batch_size: int
    seed: int
    drop_last: bool
    out: str


def emit_evaluate(unit: Unit, name: str, *, out: str = "..") -> str:
    """The text of `evaluate.py` for the run `name`. `out` leads from its folder to the run's.

    Raises `ProgramError` for metrics that do not fit what `compare` returns; `unsupported` tells all of it.
    """
    for diagnostic in unsupported(unit, name):
        raise ProgramError(diagnostic)
    return render("scripts/evaluate.py.jinja", evaluate=evaluate_text(unit, name, out))


def evaluate_text(unit: Unit, name: str, out: str) -> EvaluateText:
    """What the template shows. A run without an `evaluate` block is evaluated by its loss."""
    run, evaluation = unit.runs[name], unit.evaluations.get(name)
    spec, data = run.spec, run.spec.data
    compare = _function(evaluation.compare) if evaluation and evaluation.compare else None
    predict = _function(evaluation.predict) if evaluation and evaluation.predict else None
    splits = splits_of(data)
    metrics = metric_texts(unit, evaluation) if evaluation else ()
    models = {identifier(key): constructor(member, f"{key} = ", 4) for key, member in run.models.items()}
    return EvaluateText(
        program=plain(PurePath(unit.program.source.name).name),
        name=name,
        imports=tuple(_imports([*(line for each in (compare, predict) if each for line in each.lines)])),
        models=models,
        classes=tuple(sorted({identifier(member.class_name) for member in run.models.values()})),
        metrics=metrics,
        compare=compare,
        predict=predict,
        tracks=bool(run.loss.tracked),
        split=evaluation.spec.split if evaluation else "test" if "test" in splits else splits[-1],
        splits=tuple(splits),
        batch_size=_integer(spec.settings["batch_size"]),
        seed=_integer(spec.settings["seed"]),
        drop_last=bool(data.settings.get("drop_last")),
        out=out,
    )


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


def _imports(lines: Sequence[str]) -> Iterator[str]:
    """What the blocks name beside the models and the batch."""
    text = "\n".join(line.partition("  # ")[0] for line in lines)
    names = {"math": "import math", "F": "import torch.nn.functional as F", "kernels": "import kernels"}
    yield from (statement for name, statement in names.items() if mentions(text, name))


def _function(graph: Graph) -> FunctionText:
    count = len(graph.outputs)
    return FunctionText(
        lines=tuple(block_lines(graph)),
        returns="Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]",
        doc=shape_comment([value.type for value in graph.outputs]),
        outputs=tuple(value.name or "prediction" for value in graph.outputs),
    )


# Metrics ------------------------------------------------------------------------------------------------------------


def metric_texts(unit: Unit, evaluation: EvaluationIR, indent: int = 8) -> tuple[str, ...]:
    """Each metric's constructor, with the task and the class count that the types of `compare` tell."""
    if evaluation.compare is None:
        return ()
    task = _task(unit, evaluation)
    return tuple(_metric(call, task, indent) for call in evaluation.spec.metrics)


def _metric(call: Call, task: Task, indent: int) -> str:
    arguments: list[str] = []
    args = dict(call.args)
    if call.name not in REGRESSION:
        arguments.append(f"task={constant(task.name)}")
        if task.name == "multiclass":
            arguments.append(f"num_classes={task.classes}")
            arguments += [f"class_dim={task.class_dim}"] if task.class_dim != -1 else []
        else:
            args = {key: value for key, value in args.items() if key not in MULTICLASS_ARGS}
        arguments += [] if task.from_logits else ["from_logits=False"]
    arguments += [f"{identifier(key)}={constant(value)}" for key, value in args.items()]
    return layout(f"metrics.{identifier(call.name)}", arguments, ",", indent)


def unsupported(unit: Unit, name: str) -> list[Diagnostic]:
    """Metrics that do not fit what `compare` returns, each with its place and the way out."""
    evaluation = unit.evaluations.get(name)
    if evaluation is None or evaluation.compare is None:
        return []
    task = _task(unit, evaluation)
    prediction, target = (value.type for value in evaluation.compare.outputs)
    found = (_misfit(call, task, prediction, target) for call in evaluation.spec.metrics)
    return [diagnostic for diagnostic in found if diagnostic is not None]


def _misfit(call: Call, task: Task, prediction: TensorType, target: TensorType) -> Diagnostic | None:
    label = f"`compare` returns {prediction} and {target}"

    def told(message: str, help: str) -> Diagnostic:
        return Diagnostic("E330", message, call.span, label, help=help)

    if call.name in REGRESSION:
        if prediction.shape == target.shape:
            return None
        return told(f"`{call.name}` compares values of one shape", "make the shapes equal in `compare`")
    if task.name == "regression":
        help = "return scores [B, classes] with classes [B], or one logit [B] a target"
        return told(f"`{call.name}` compares scores with classes", help)
    if task.name == "multiclass" and task.classes is None:
        return told(f"`{call.name}` needs a known number of classes", "declare the size as a number")
    if task.name == "binary" and call.name == "Perplexity":
        return told("`Perplexity` needs scores of every class", "return scores [B, ..., classes]")
    if not prediction.is_float:
        return told(f"`{call.name}` compares floating-point scores", "return the scores, not the class that wins")
    if task.name == "multiclass" and target.dtype not in LABELS:
        return told("classes are integers", "declare the field as `int`")
    return None


def _task(unit: Unit, evaluation: EvaluationIR) -> Task:
    """What the types of `compare` tell of the task."""
    assert evaluation.compare is not None
    graph = evaluation.compare
    scores, labels = (value.type for value in graph.outputs)
    shape, target = scores.shape, labels.shape
    run = unit.runs[evaluation.spec.name]
    maker = _maker(graph, 0, run, unit)
    if shape == target:
        return Task("binary", from_logits=maker not in PROBABILITIES["binary"])
    logits = maker not in PROBABILITIES["multiclass"]
    if shape[:-1] == target:
        return Task("multiclass", _classes(shape[-1], graph), -1, logits)
    if len(shape) > 2 and (shape[0], *shape[2:]) == target:
        return Task("multiclass", _classes(shape[1], graph), 1, logits)
    return Task("regression")


def _classes(size: Size, graph: Graph) -> int | None:
    found = size.substitute(graph.known).constant
    return found if found is not None and found > 1 else None


def _maker(graph: Graph, output: int, run: RunIR, unit: Unit) -> str:
    """The op that a graph's output comes from, looked up in the model that is called, where one is."""
    value = graph.outputs[output]
    node = _producer(graph, value)
    if node is None or node.layer not in run.models:
        return node.op.name if node else ""
    model = _class_of(run.models[node.layer].class_name, unit)
    inner = _producer(model.graph, model.graph.outputs[node.outputs.index(value)])
    return inner.op.name if inner else ""


def _producer(graph: Graph, value: Value) -> Node | None:
    node = graph.producers().get(value)
    return node.group.body.producers().get(value, node) if node is not None and node.group is not None else node


def _class_of(name: str, unit: Unit) -> ModuleIR:
    return next(module for module in unit.modules if module.class_name == name)
