"""Build a resolved program: its runs and evaluations, then the modules that none of them makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from tdsl.compiler.accumulation import accumulation
from tdsl.compiler.build.body import guarded, statements
from tdsl.compiler.build.classes import Classes
from tdsl.compiler.build.expr import evaluate
from tdsl.compiler.build.frame import Frame, GraphBuilder
from tdsl.compiler.build.types import DTYPES
from tdsl.compiler.build.unit import (
    EvaluationIR,
    ListMember,
    Member,
    ModuleMember,
    RepeatMember,
    RunIR,
    SequentialMember,
    Unit,
)
from tdsl.compiler.build.values import Batch, ModuleInstance, Observer, Semantic, describe
from tdsl.compiler.ir import Graph, TensorType, Value
from tdsl.compiler.limits import limits
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.reach import may_idle
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Reporter, fail
from tdsl.dsl.program import DataSpec, EvaluateSpec, Program, TrainSpec

BATCH = Size.of(Symbol("B"))


def build(program: Program, reporter: Reporter, observe: Observer | None = None) -> Unit | None:
    """The program as IR; None where it has mistakes, which `reporter` then holds.

    `observe` is told what each expression, target, input and member of it is.
    """
    builder = _Builder(program, reporter, observe)
    with knowing({}):
        for run in program.runs.values():
            builder.run(run)
        for evaluation in program.evaluations.values():
            builder.evaluation(evaluation)
        builder.rest()
        if reporter.errors:
            return None
        unit = Unit(program, tuple(builder.classes.order), builder.runs, builder.evaluations)
        runs = {name: _analysed(unit, run) for name, run in unit.runs.items()}
        evaluations = {name: _limited(unit, name, each) for name, each in unit.evaluations.items()}
        return replace(unit, runs=runs, evaluations=evaluations)


def _analysed(unit: Unit, run: RunIR) -> RunIR:
    """A run with what is known of its loss: how a batch is divided, whether all trained reaches it, what it takes."""
    found = limits(unit, run.loss, run.spec.data, run.models)
    return replace(run, accumulation=accumulation(unit, run), idle=may_idle(unit, run), limits=found)


def _limited(unit: Unit, name: str, evaluation: EvaluationIR) -> EvaluationIR:
    """An evaluation with what `predict` can take."""
    run, predict = unit.runs[name], evaluation.predict
    found = limits(unit, predict, run.spec.data, run.models) if predict is not None else {}
    return replace(evaluation, limits=found)


class _Builder:
    def __init__(self, program: Program, reporter: Reporter, observe: Observer | None) -> None:
        self.program = program
        self.reporter = reporter
        self.classes = Classes(program, reporter, observe=observe)
        self.models: dict[str, Mapping[str, ModuleInstance]] = {}
        self.runs: dict[str, RunIR] = {}
        self.evaluations: dict[str, EvaluationIR] = {}

    def run(self, spec: TrainSpec) -> None:
        frame = Frame(self.classes, GraphBuilder(spec.name, ""), {})
        models: dict[str, ModuleInstance] = {}
        for name, expr in spec.models.items():
            with guarded(self.reporter, frame, [name]):
                models[name] = self._model(name, expr, frame)
        if len(models) != len(spec.models):
            return
        self.models[spec.name] = models
        loss = self._block(spec.loss, spec, models)
        if loss is None:
            return
        with guarded(self.reporter, frame, []):
            _check_loss(spec, loss)
            members = {n: ModuleMember(m.ir.class_name, m.args) for n, m in models.items()}
            collects = any(self._tracks(member) for member in members.values())
            self.runs[spec.name] = RunIR(spec, members, replace(loss, collects=collects))

    def _tracks(self, member: Member) -> bool:
        """Whether a module, or one that it has, tracks values of its own."""
        if isinstance(member, RepeatMember):
            return self._tracks(member.element)
        if isinstance(member, (SequentialMember, ListMember)):
            return any(map(self._tracks, member.elements))
        if not isinstance(member, ModuleMember):
            return False
        ir = next(each for each in self.classes.order if each.class_name == member.class_name)
        return bool(ir.graph.tracked) or any(map(self._tracks, ir.members.values()))

    def _model(self, name: str, expr: ast.Expr, frame: Frame) -> ModuleInstance:
        value = evaluate(expr, frame)
        if not isinstance(value, ModuleInstance):
            help = "declare one around it: `module Net() { ... forward(...) -> ... { ... } }`"
            fail("E201", f"`{name}` is a module of the program", expr.span, f"this is {describe(value)}", help=help)
        # A run calls its model whole, whatever it is made of.
        return replace(value, path=name, inline=False)

    def _block(self, block: ast.Block, spec: TrainSpec, models: Mapping[str, ModuleInstance]) -> Graph | None:
        builder = GraphBuilder(block.name, "")
        fields = batch_fields(spec.data)
        builder.inputs += fields.values()
        names: dict[str, Semantic] = {**models, block.parameter.id: Batch(fields)}
        frame = Frame(self.classes, builder, names)
        with guarded(self.reporter, frame, []):
            returned = statements(block.body, frame, self.reporter)
            if returned is None:
                fail("E207", f"`{block.name}` returns nothing", block.name_span, help="end it with `return`")
            return replace(builder.graph(returned[0], {}), data=True)
        return None

    def evaluation(self, spec: EvaluateSpec) -> None:
        run = self.program.runs.get(spec.name)
        if run is None or spec.name not in self.models:
            return
        models = self.models[spec.name]
        compare = self._block(spec.compare, run, models) if spec.compare is not None else None
        predict = self._block(spec.predict, run, models) if spec.predict is not None else None
        if compare is not None and len(compare.outputs) != 2 and spec.compare is not None:
            with guarded(self.reporter, Frame(self.classes, GraphBuilder("compare"), {}), []):
                help = "write `return model(batch.x), batch.label`"
                fail("E207", "`compare` returns a prediction and a target", spec.compare.name_span, help=help)
        self.evaluations[spec.name] = EvaluationIR(spec, compare, predict)

    def rest(self) -> None:
        """Modules that nothing makes are checked with their defaults, functions that nothing calls as declared."""
        for each in self.program.externs.values():
            if each.name not in self.classes.tried:
                with guarded(self.reporter, Frame(self.classes, GraphBuilder(each.name), {}), []):
                    self.classes.declared(each)
        mistaken = bool(self.reporter.errors)
        for decl in _users_first(self.program.modules):
            # What a mistake has left unmade may be right for arguments that only its maker knows.
            unsure = mistaken and any(p.default is None for p in decl.params)
            if decl.name not in self.classes.tried and not unsure:
                with guarded(self.reporter, Frame(self.classes, GraphBuilder(decl.name), {}), []):
                    self.classes.alone(decl)
        for function in self.program.functions.values():
            if function.name not in self.classes.tried:
                frame = Frame(self.classes, GraphBuilder(function.name, ""), {})
                with guarded(self.reporter, frame, []):
                    self.classes.function_alone(function, frame)


def _users_first(modules: Mapping[str, ast.Module]) -> list[ast.Module]:
    """Modules that no other mentions come first: they make the others, with arguments."""
    words = {name: set(re.findall(r"\w+", decl.span.text)) for name, decl in modules.items()}

    def is_mentioned(decl: ast.Module) -> bool:
        return any(decl.name in found for name, found in words.items() if name != decl.name)

    return sorted(modules.values(), key=is_mentioned)


def batch_fields(data: DataSpec) -> dict[str, Value]:
    """The fields of a batch, each with a leading `B`."""
    found: dict[str, Value] = {}
    for field in data.fields:
        shape = (BATCH, *(Size.of(n) for n in field.shape))
        found[field.name] = Value(TensorType(DTYPES.get(field.dtype, field.dtype), shape), f"batch.{field.name}")
    return found


def _check_loss(spec: TrainSpec, loss: Graph) -> None:
    (*rest,) = loss.outputs[1:]
    if rest or loss.outputs[0].type.shape or not loss.outputs[0].type.is_float:
        found = ", ".join(str(v.type) for v in loss.outputs)
        fail(
            "E207",
            "the loss is one floating-point number",
            spec.loss.name_span,
            f"it returns {found}",
            help="average it, as with `.mean()`",
        )
