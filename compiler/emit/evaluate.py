"""`evaluate.py`: what compares a run's predictions with its targets, and one pass over a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import PurePath

from tdsl.compiler.build.unit import EvaluationIR, ModuleIR, ModuleMember, RunIR, Unit
from tdsl.compiler.emit.data import kept
from tdsl.compiler.emit.expression import constant
from tdsl.compiler.emit.python import block_lines, shape_comment
from tdsl.compiler.emit.render import WIDTH, import_from, layout, plain, render
from tdsl.compiler.emit.text import arguments, identifier, mentions
from tdsl.compiler.folding import Pair, foldable
from tdsl.compiler.ir import Graph, Node, TensorType, Value
from tdsl.compiler.passes.place_layouts import channels_last
from tdsl.compiler.reach import source_of
from tdsl.compiler.size import Size
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Diagnostic, ProgramError
from tdsl.dsl.program import Call, DataSpec
from tdsl.dsl.resolve_data import splits_of
from tdsl.dsl.signatures import METRICS

# Metrics that compare values, and those that compare scores with classes.
REGRESSION = ("MeanSquaredError", "MeanAbsoluteError", "R2Score")
# Those that count right and wrong predictions: of two classes, of class 1, or with `average` of both.
COUNTS = ("Accuracy", "Precision", "Recall", "F1Score", "JaccardIndex")
# Those that are of each class or label by itself, and then averaged.
AREAS = ("AUROC", "AveragePrecision")
# Arguments that have a meaning for two classes only.
BINARY_ARGS = ("threshold", "max_fpr")
# What makes probabilities of scores: metrics must not do it again.
PROBABILITIES = {"binary": ("sigmoid",), "multiclass": ("softmax",)}
# Sources that know the names of classes.
NAMED = frozenset({"huggingface", "image_folder", "python", "torchvision"})
LABELS = ("i64", "i32", "i16", "i8", "u8")


@dataclass(frozen=True)
class Task:
    """What is predicted: `binary`, `multiclass` (of `classes`, along `class_dim` of the scores) or `regression`.

    `labels` counts the binary targets of a row, where they are several.
    """

    name: str
    classes: int | None = None
    labels: int | None = None
    class_dim: int = -1
    from_logits: bool = True


@dataclass(frozen=True)
class FunctionText:
    """A block of the program as a function: its lines, what it returns, of which `shapes`, under which `names`."""

    lines: tuple[str, ...]
    returns: str
    shapes: tuple[str, ...]
    names: tuple[str, ...]
    differentiates: bool


@dataclass(frozen=True)
class EvaluateText:
    """All that varies in `evaluate.py`: Python text, but for `program`, `name`, `split` and the functions' names.

    `models` are the statements that make the run's models, by name; `folded` are the classes with the batch norms that
    are folded in them; `writes` the statements that write predictions; `target` is the field that is compared, where
    its numbers may have names; `standard`, `others` and `own` the imports.
    """

    program: str
    name: str
    models: Mapping[str, str]
    folded: Mapping[str, str]
    metrics: tuple[str, ...]
    compare: FunctionText | None
    predict: FunctionText | None
    writes: tuple[str, ...]
    target: str | None
    categories: bool
    tracks: bool
    distributed: bool
    kept: tuple[str, ...]
    parts: str
    split: str
    batch_size: int
    seed: int
    standard: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


def emit_evaluate(unit: Unit, run: RunIR, evaluation: EvaluationIR | None = None) -> str:
    """The text of `evaluate.py`. A run without an `evaluate` block is evaluated by its loss, on its last split.

    Raises `ProgramError` for metrics that do not fit what `compare` returns; `unsupported` tells all of it.
    """
    for diagnostic in unsupported(unit, run, evaluation):
        raise ProgramError(diagnostic)
    return render("scripts/evaluate.py.jinja", evaluate=evaluate_text(unit, run, evaluation))


def evaluate_text(unit: Unit, run: RunIR, evaluation: EvaluationIR | None) -> EvaluateText:
    """What the template shows."""
    predict = predict_function(evaluation) if evaluation else None
    distributed = run.spec.settings.get("distributed") is not None
    whole = "replace(batches, rank=0, ranks=1)" if distributed else "batches"
    models = list(map(identifier, run.models))
    text = EvaluateText(
        program=plain(PurePath(unit.program.source.name).name),
        name=run.spec.name,
        models={identifier(name): model_statement(name, member, unit, run) for name, member in run.models.items()},
        folded={identifier(name): _folded(name, pairs) for name, pairs in foldable(unit, run.models).items()},
        # The same metric twice tells nothing more.
        metrics=tuple(dict.fromkeys(metric_texts(unit, run, evaluation))),
        compare=function_text(evaluation.compare if evaluation else None),
        predict=predict,
        writes=writes("job.write_predictions", models, predict, whole, 8) if predict is not None else (),
        target=_target(run.spec.data, evaluation),
        categories=bool(run.spec.data.categories),
        tracks=run.loss.tracks,
        distributed=distributed,
        kept=tuple(kept(run.spec.data)),
        parts=parts_text(run, "shares", "1"),
        split=evaluation.spec.split if evaluation else splits_of(run.spec.data)[-1],
        batch_size=_integer(run.spec.settings["batch_size"]),
        seed=_integer(run.spec.settings["seed"]),
    )
    standard, others, own = _imports(text, run)
    return replace(text, standard=tuple(standard), others=tuple(others), own=tuple(own))


def _target(spec: DataSpec, evaluation: EvaluationIR | None) -> str | None:
    """The field that `compare` returns as the target, of data that tell what the numbers of fields stand for."""
    graph = evaluation.compare if evaluation is not None else None
    if graph is None or not (spec.categories or NAMED & {call.name for call in spec.sources.values()}):
        return None
    found = source_of(graph, graph.outputs[1])
    return None if found is None else found.removeprefix("batch.")


def parts_text(run: RunIR, function: str, parts: str) -> str:
    """The call that divides a batch into parts by what counts in it."""
    counted, arguments = run.accumulation.counted, ["batch", parts]
    arguments += ["counted"] if counted is not None else []
    arguments += ["rows=True"] if counted is not None and run.accumulation.rows else []
    return f"{function}({', '.join(arguments)})"


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


def model_statement(name: str, member: ModuleMember, unit: Unit, run: RunIR) -> str:
    """The statement that makes a model of the run."""
    laid_out = ".to(memory_format=torch.channels_last)" if name in channels_last(unit, run) else ""
    return layout(f"{identifier(name)} = {identifier(member.class_name)}", arguments(member.args), laid_out, 4)


def _folded(name: str, pairs: Sequence[Pair]) -> str:
    """An entry of a dictionary."""
    texts = [f"({constant(pair.layer)}, {constant(pair.norm)})" for pair in pairs]
    line = f"    {identifier(name)}: [{', '.join(texts)}],"
    return line if len(line) <= WIDTH else "\n".join([f"    {name}: [", *(f"        {t}," for t in texts), "    ],"])


def function_text(graph: Graph | None) -> FunctionText | None:
    """A block of the program as a function."""
    if graph is None:
        return None
    count = len(graph.outputs)
    return FunctionText(
        lines=tuple(block_lines(graph)),
        returns="Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]",
        shapes=tuple(shape_comment([value.type]) for value in graph.outputs),
        names=_names(graph),
        differentiates=graph.differentiates,
    )


def predict_function(evaluation: EvaluationIR) -> FunctionText | None:
    """`predict` as a function, its results under the names that its `return` has for them."""
    text, block = function_text(evaluation.predict), evaluation.spec.predict
    returned = block.body[-1] if block is not None and block.body else None
    if text is None or evaluation.predict is None or not isinstance(returned, ast.Return):
        return text
    written = returned.values if len(returned.values) == len(evaluation.predict.outputs) else ()
    return replace(text, names=_names(evaluation.predict, tuple(map(_called, written))))


def writes(head: str, models: Sequence[str], predict: FunctionText, batches: str, indent: int) -> tuple[str, ...]:
    """The statements that write what `predict` tells of each batch, under the names of its results."""
    call = f"predict({', '.join([*models, 'batch'])})"
    names = list(map(constant, predict.names))
    if len(names) == 1:
        return (_over(head, f"{{{names[0]}: {call}}}", f"for batch in {batches}", indent),)
    rows = f"dict(zip(names, {call}, strict=True))"
    return layout("names = ", names, "", indent), _over(head, rows, f"for batch in {batches}", indent)


def _over(head: str, element: str, loop: str, indent: int) -> str:
    """A call with a generator, on as many lines as it needs."""
    if indent + len(f"{head}({element} {loop})") <= WIDTH:
        return f"{head}({element} {loop})"
    inner = " " * (indent + 4)
    gap = " " if len(f"{inner}{element} {loop}") <= WIDTH else f"\n{inner}"
    return f"{head}(\n{inner}{element}{gap}{loop}\n{' ' * indent})"


def _called(result: ast.Expr) -> str:
    """The name of a variable or of a field; none of what is computed."""
    return result.id if isinstance(result, ast.Name) else result.name if isinstance(result, ast.Attribute) else ""


def _names(graph: Graph, written: Sequence[str] = ()) -> tuple[str, ...]:
    """What the outputs are called in a table: what the program calls them, or else predictions."""
    names = [value.name.rpartition(".")[2] for value in graph.outputs]
    found = [name or other or "prediction" for name, other in zip_longest(written, names, fillvalue="")]
    # `row` is the number of the row.
    return tuple(name if found.count(name) == 1 and name != "row" else f"{name}_{i}" for i, name in enumerate(found))


def _imports(text: EvaluateText, run: RunIR) -> tuple[list[str], list[str], list[str]]:
    """The imports of the standard library, of others' packages and of the project, those that are used."""
    functions = [text.compare] if text.compare is not None else []
    body = "\n".join(line.partition("  # ")[0] for each in functions for line in each.lines)
    classes = [*(identifier(member.class_name) for member in run.models.values()), *text.folded]
    standard = (["import math"] if mentions(body, "math") else []) + ["import sys", "from dataclasses import replace"]
    others = ["import torch"] + (["import torch.nn.functional as F"] if mentions(body, "F") else [])
    others += ["from torch import Tensor, nn"] if functions else []
    own = ["import data"] + (["import kernels"] if mentions(body, "kernels") else [])
    own += [import_from("model", classes)] + ["from predict import predict"] * (text.predict is not None)
    runtime = ["metrics"] * bool(text.metrics) + ["nn_functions"] * mentions(body, "nn_functions")
    own += [f"from tdsl.runtime import {', '.join(runtime)}"] if runtime else []
    own += ["from tdsl.runtime.evaluation import Job, main"]
    own += ["from tdsl.runtime.folding import fold"] if text.folded else []
    own += ["from tdsl.runtime.loader import Batch"] if functions else []
    own += ["from tdsl.runtime.results import Results"]
    own += ["from tdsl.runtime.training import shares"] if text.distributed else []
    own += [f"from train import {'counted, ' if 'counted' in text.parts and text.distributed else ''}loss"]
    return standard, others, own


# Metrics ------------------------------------------------------------------------------------------------------------


def metric_texts(unit: Unit, run: RunIR, evaluation: EvaluationIR | None, indent: int = 8) -> tuple[str, ...]:
    """Each metric's constructor with a comma, with the task and the class count that the types of `compare` tell."""
    if evaluation is None or evaluation.compare is None:
        return ()
    task = _task(unit, run, evaluation.compare)
    return tuple(_metric(call, task, indent) for call in evaluation.spec.metrics)


def _metric(call: Call, task: Task, indent: int) -> str:
    arguments: list[str] = []
    if call.name not in REGRESSION:
        arguments.append(f"task={constant(task.name)}")
        if task.name == "multiclass":
            arguments.append(f"num_classes={task.classes}")
            arguments += [f"class_dim={task.class_dim}"] if task.class_dim != -1 else []
        arguments += [f"num_labels={task.labels}"] if _is_per_label(call, task) else []
        arguments += [] if task.from_logits else ["from_logits=False"]
    # Over all labels together, as `"micro"` asks, is what there is without.
    kept = {
        key: value for key, value in call.args.items() if not (task.labels and (key, value) == ("average", "micro"))
    }
    arguments += [f"{identifier(key)}={constant(value)}" for key, value in kept.items()]
    return layout(f"metrics.{identifier(call.name)}", arguments, ",", indent)


def _is_per_label(call: Call, task: Task) -> bool:
    """Whether a metric is computed of each label, and averaged."""
    usual = next((each.default for each in METRICS[call.name].args if each.name == "average"), None)
    averaged = call.name in COUNTS and call.args.get("average", usual) != "micro"
    return task.labels is not None and (averaged or call.name in AREAS)


def unsupported(unit: Unit, run: RunIR, evaluation: EvaluationIR | None) -> list[Diagnostic]:
    """Metrics that do not fit what `compare` returns, each with its place and the way out."""
    if evaluation is None or evaluation.compare is None:
        return []
    task = _task(unit, run, evaluation.compare)
    prediction, target = (value.type for value in evaluation.compare.outputs)
    found = (_misfit(call, task, prediction, target) for call in evaluation.spec.metrics)
    return [diagnostic for diagnostic in found if diagnostic is not None]


def _misfit(call: Call, task: Task, prediction: TensorType, target: TensorType) -> Diagnostic | None:
    label = f"`compare` returns {prediction} and {target}"

    def told(message: str, help: str) -> Diagnostic:
        return Diagnostic("E330", message, call.span, label, help=help)

    if call.name in REGRESSION:
        if prediction.shape != target.shape:
            return told(f"`{call.name}` compares values of one shape", "make the shapes equal in `compare`")
        outputs = call.args.get("num_outputs", 1)
        if outputs != 1 and (len(target.shape) != 2 or target.shape[1].constant not in (outputs, None)):
            help = f"return values [B, {outputs}], or leave `num_outputs` out: then it is of all values"
            return told(f"these are not {outputs} values a row", help)
        return None
    if task.name == "regression":
        help = "return scores [B, classes] with classes [B], or one logit [B] a target"
        return told(f"`{call.name}` compares scores with classes", help)
    unheard = _unheard(call, task)
    if unheard is not None:
        return told(unheard, "leave it out")
    if task.name == "multiclass" and task.classes is None:
        return told(f"`{call.name}` needs a known number of classes", "declare the size as a number")
    if task.name == "binary" and call.name == "Perplexity":
        return told("`Perplexity` needs scores of every class", "return scores [B, ..., classes]")
    if not prediction.is_float:
        return told(f"`{call.name}` compares floating-point scores", "return the scores, not the class that wins")
    if task.name == "multiclass" and target.dtype not in LABELS:
        return told("classes are integers", "declare the field as `int`")
    return None


def _unheard(call: Call, task: Task) -> str | None:
    """What is wrong with an argument by which nothing would change; None where there is none."""
    if task.name == "multiclass":
        top = call.args.get("top_k", 1)
        if task.classes is not None and isinstance(top, int) and top > task.classes:
            return f"`top_k` is {top}, and there are {task.classes} classes"
        return next(
            (f"`{name}` is of two classes, and these are several" for name in BINARY_ARGS if name in call.args), None
        )
    if "top_k" in call.args:
        return "`top_k` is of several classes, and these are two"
    if task.labels is not None:
        return f"`max_fpr` is of one label, and these are {task.labels}" if "max_fpr" in call.args else None
    if "average" in call.args and call.name not in COUNTS:
        return f"`average` is over several classes, and of two there is one `{call.name}`"
    return None


def _task(unit: Unit, run: RunIR, graph: Graph) -> Task:
    """What the types of `compare` tell of the task."""
    shape, target = (value.type.shape for value in graph.outputs)
    maker = _maker(graph, 0, run, unit)
    if shape == target:
        labels = _classes(shape[1], graph) if len(shape) == 2 else None
        return Task("binary", labels=labels, from_logits=maker not in PROBABILITIES["binary"])
    logits = maker not in PROBABILITIES["multiclass"]
    if shape[:-1] == target:
        return Task("multiclass", _classes(shape[-1], graph), class_dim=-1, from_logits=logits)
    if len(shape) > 2 and (shape[0], *shape[2:]) == target:
        return Task("multiclass", _classes(shape[1], graph), class_dim=1, from_logits=logits)
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
