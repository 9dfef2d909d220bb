"""Which name means what: walks declarations in the order in which the builder binds their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from tdsl.compiler.build.values import FunctionRef, ModuleInstance, ModuleRef, Semantic
from tdsl.compiler.editor.symbols import Occurrence, Place, Symbol
from tdsl.compiler.editor.tolerant import HOLE
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span
from tdsl.dsl.signatures import DATA_SETTINGS, EVALUATE_SETTINGS, TRAIN_SETTINGS

Fact = Callable[[ast.Node], Semantic | None]
# The declaration that a call is the call of.
Callee = ast.Module | ast.ExternModule | ast.Function


@dataclass
class Walk:
    """Finds symbols and occurrences; `fact` tells what the builder made of an expression."""

    fact: Fact
    globals: dict[str, Symbol] = field(default_factory=dict)
    runs: dict[str, Symbol] = field(default_factory=dict)
    fields: dict[str, dict[str, Symbol]] = field(default_factory=dict)
    members: dict[Place, dict[str, Symbol]] = field(default_factory=dict)
    callees: dict[Place, dict[str, Symbol]] = field(default_factory=dict)
    found: dict[tuple[str, int, int], Occurrence] = field(default_factory=dict)
    names: dict[str, Symbol] = field(default_factory=dict)
    batch: Mapping[str, Symbol] = field(default_factory=dict)

    # Symbols ---------------------------------------------------------------------------------------------------------

    def mark(self, span: Span, symbol: Symbol) -> Symbol:
        if span.end > span.start and symbol.name != HOLE:
            self.found.setdefault((span.source.name, span.start, span.end), Occurrence(span, symbol))
        return symbol

    def new(self, kind: str, name: str, span: Span, node: ast.Node, scope: Span | None) -> Symbol:
        return self.mark(span, Symbol(kind, name, span, node, scope))

    def declare(self, declarations: Iterable[ast.Declaration]) -> None:
        """The names that the whole program sees, with the fields and parameters behind them."""
        for each in declarations:
            kind = _KINDS[type(each)]
            if isinstance(each, ast.Train):
                self.runs.setdefault(each.name, self.new(kind, each.name, each.name_span, each, None))
            elif not isinstance(each, ast.Evaluate) and each.name not in self.globals:
                self.globals[each.name] = self.new(kind, each.name, each.name_span, each, None)
            if isinstance(each, ast.Data):
                self.fields.setdefault(
                    each.name, {f.name: self.new("field", f.name, f.name_span, f, each.span) for f in each.fields}
                )
            if isinstance(each, (ast.Module, ast.ExternModule)):
                self.callees[_place(each)] = {p.name: self.parameter(p, each.span) for p in each.params}
            if isinstance(each, ast.Function):
                self.callees[_place(each)] = self.inputs(each)
            if isinstance(each, ast.Module):
                scope = each.span
                self.members[_place(each)] = {m.name: self.member(m, scope) for m in each.members}
                if each.forward is not None:
                    self.callees[_place(each.forward)] = self.inputs(each.forward)

    def parameter(self, node: ast.Parameter, scope: Span) -> Symbol:
        return self.new("parameter", node.name, _head(node.span, node.name), node, scope)

    def member(self, node: ast.Member | ast.ParamMember, scope: Span) -> Symbol:
        kind = "member" if isinstance(node, ast.Member) else "param" if node.trainable else "buffer"
        return self.new(kind, node.name, node.name_span, node, scope)

    def inputs(self, function: ast.Function) -> dict[str, Symbol]:
        scope = function.span
        return {
            each.name: self.parameter(each, scope)
            if isinstance(each, ast.Parameter)
            else self.new("input", each.name, _head(each.span, each.name), each, scope)
            for each in function.takes
        }

    # Declarations ----------------------------------------------------------------------------------------------------

    def declaration(self, each: ast.Declaration) -> None:
        self.names = dict(self.globals)
        if isinstance(each, ast.Const):
            self.expression(each.value)
        elif isinstance(each, ast.Function):
            self.function(each)
        elif isinstance(each, ast.Module):
            self.module(each)
        elif isinstance(each, ast.ExternModule):
            self.parameters(each)
            self.types(each.inputs, each.outputs, each.span)
        elif isinstance(each, ast.Data):
            self.data(each)
        elif isinstance(each, (ast.Train, ast.Evaluate)):
            self.run(each)

    def parameters(self, each: ast.Module | ast.ExternModule) -> None:
        self.defaults(each.params)
        self.names |= self.callees[_place(each)]

    def defaults(self, params: Iterable[ast.Parameter]) -> None:
        for param in params:
            if param.default is not None:
                self.expression(param.default)

    def module(self, each: ast.Module) -> None:
        self.parameters(each)
        members = self.members[_place(each)]
        for member in each.members:
            if isinstance(member, ast.ParamMember):
                self.sizes(member.type)
            self.expression(member.value if isinstance(member, ast.Member) else member.initializer)
            self.names[member.name] = members[member.name]
        if each.forward is not None:
            self.function(each.forward)

    def function(self, each: ast.Function) -> None:
        taken = self.callees[_place(each)]
        self.defaults(each.params)
        self.names |= {param.name: taken[param.name] for param in each.params}
        self.types([i.type for i in each.inputs], each.outputs, each.span)
        self.names |= taken
        self.body(each.body, each.span)

    def types(self, inputs: Sequence[ast.TypeExpr], outputs: Sequence[ast.TypeExpr], scope: Span) -> None:
        """Sizes that the inputs bind, then their uses."""
        for type in inputs:
            for dim in type.dims or ():
                if isinstance(dim, ast.Name) and dim.id not in self.names and dim.id[0].isupper():
                    self.names[dim.id] = self.new("size", dim.id, dim.span, dim, scope)
        for type in (*inputs, *outputs):
            self.sizes(type)

    def sizes(self, type: ast.TypeExpr) -> None:
        for dim in type.dims or ():
            self.expression(dim)

    # Sections --------------------------------------------------------------------------------------------------------

    def data(self, each: ast.Data) -> None:
        fields = self.fields.get(each.name, {})
        self.settings(each.settings, {arg.name: arg.kind.words for arg in DATA_SETTINGS})
        for setting in each.settings:
            for argument in setting.value.args if isinstance(setting.value, ast.Call) else ():
                if argument.name == "by":
                    self.text(argument.value, "", fields)
        for written in each.fields:
            self.sizes(written.type)
            self.expression(written.value)
        for transform in each.transforms:
            self.expression(transform.value)
            if transform.field in fields:
                self.mark(transform.field_span, fields[transform.field])

    def settings(self, settings: Sequence[ast.Setting], words: Mapping[str, Sequence[str]]) -> None:
        for setting in settings:
            value = setting.value
            if not isinstance(value, ast.Name) or value.id not in words.get(setting.name, ()):
                self.expression(value)

    def run(self, each: ast.Train | ast.Evaluate) -> None:
        """A run, or its evaluation: the models are those of the run."""
        known = EVALUATE_SETTINGS if isinstance(each, ast.Evaluate) else TRAIN_SETTINGS
        self.settings(each.settings, {arg.name: arg.kind.words for arg in known})
        for section in each.sections:
            self.settings(section.settings, {"resume": ("auto", "none"), "mode": ("auto", "min", "max")})
        symbol = self.runs.get(each.name)
        train = symbol.node if symbol is not None else None
        if symbol is not None and isinstance(each, ast.Evaluate):
            self.mark(each.name_span, symbol)
        if not isinstance(train, ast.Train):
            return
        self.models(train, each)
        tracked: dict[str, Symbol] = {}
        names = self.names
        for block in each.blocks:
            self.names = dict(names)
            self.names[block.parameter.id] = self.new(
                "batch", block.parameter.id, block.parameter.span, block, block.span
            )
            self.body(block.body, block.span, tracked)
        for setting in chain(each.settings, *(section.settings for section in each.sections)):
            self.monitored(setting.value, tracked)

    def models(self, train: ast.Train, within: ast.Declaration) -> None:
        for setting in train.settings:
            if setting.name == "data" and isinstance(setting.value, ast.Name):
                self.batch = self.fields.get(setting.value.id, {})
            if setting.name == "model" or not any(arg.name == setting.name for arg in TRAIN_SETTINGS):
                symbol = Symbol("model", setting.name, setting.name_span, setting, within.span)
                self.names[setting.name] = self.mark(setting.name_span, symbol) if within is train else symbol

    def monitored(self, value: ast.Expr, tracked: Mapping[str, Symbol]) -> None:
        """`"val/NAME"`, in a setting or in the argument of a schedule."""
        if isinstance(value, ast.Literal) and isinstance(value.value, str):
            self.text(value, value.value.rpartition("/")[0] + "/", tracked)
        elif isinstance(value, ast.Call):
            for argument in value.args:
                if argument.name == "monitor":
                    self.monitored(argument.value, tracked)
        elif isinstance(value, ast.Pipe):
            self.monitored(value.value, tracked)
            self.monitored(value.stage, tracked)

    def text(self, expr: ast.Expr, prefix: str, names: Mapping[str, Symbol]) -> None:
        """A name within a string, after a prefix."""
        if not isinstance(expr, ast.Literal) or not isinstance(expr.value, str) or not expr.value.startswith(prefix):
            return
        name = expr.value[len(prefix) :]
        if name in names and expr.span.text == f'"{expr.value}"':
            start = expr.span.start + 1 + len(prefix)
            self.mark(Span(expr.span.source, start, start + len(name)), names[name])

    # Statements ------------------------------------------------------------------------------------------------------

    def body(self, body: Sequence[ast.Statement], scope: Span, tracked: dict[str, Symbol] | None = None) -> None:
        for statement in body:
            self.statement(statement, scope, tracked if tracked is not None else {})

    def statement(self, each: ast.Statement, scope: Span, tracked: dict[str, Symbol]) -> None:
        if isinstance(each, (ast.Assign, ast.Return)):
            for value in each.values:
                self.expression(value)
        if isinstance(each, ast.Assign):
            for target in each.names:
                self.bind("local", target, scope)
        elif isinstance(each, ast.For):
            self.expression(each.iterable)
            self.bind("loop", each.variable, scope)
            self.body(each.body, scope, tracked)
        elif isinstance(each, ast.If):
            self.expression(each.condition)
            self.body(each.body, scope, tracked)
            self.body(each.otherwise, scope, tracked)
        elif isinstance(each, ast.Track):
            self.expression(each.value)
            tracked[each.target.id] = self.new("tracked", each.target.id, each.target.span, each, scope)
        elif isinstance(each, ast.Assume):
            self.expression(each.condition)
        elif isinstance(each, ast.NoGrad):
            self.body(each.body, scope, tracked)

    def bind(self, kind: str, target: ast.Target, scope: Span) -> None:
        """A name of the body: bound again it stays the same one."""
        known = self.names.get(target.id)
        if known is not None and known.kind in ("local", "loop", "input"):
            self.mark(target.span, known)
        else:
            self.names[target.id] = self.new(kind, target.id, target.span, target, scope)

    # Expressions -----------------------------------------------------------------------------------------------------

    def expression(self, expr: ast.Node) -> None:
        if isinstance(expr, ast.Name):
            if expr.id in self.names:
                self.mark(expr.span, self.names[expr.id])
        elif isinstance(expr, ast.Attribute):
            self.expression(expr.value)
            self.attribute(expr)
        elif isinstance(expr, ast.Call):
            self.call(expr)
        elif isinstance(expr, ast.Comprehension):
            self.comprehension(expr)
        else:
            for child in children(expr):
                self.expression(child)

    def attribute(self, expr: ast.Attribute) -> None:
        """`batch.pixels`, and members of modules."""
        owner = self.names.get(expr.value.id) if isinstance(expr.value, ast.Name) else None
        known: Mapping[str, Symbol] = self.batch if owner is not None and owner.kind == "batch" else {}
        made = self.fact(expr.value)
        if isinstance(made, ModuleInstance):
            known = self.members.get(_place(made.decl), {})
        if expr.name in known:
            self.mark(expr.name_span, known[expr.name])

    def call(self, expr: ast.Call) -> None:
        self.expression(expr.function)
        declared = self.callee(expr.function)
        known = self.callees.get(_place(declared), {}) if declared is not None else {}
        for argument in expr.args:
            self.expression(argument.value)
            if argument.name in known:
                self.mark(_head(argument.span, argument.name), known[argument.name])

    def callee(self, function: ast.Expr) -> Callee | None:
        """The declaration that a call gives arguments to."""
        made = self.fact(function)
        if isinstance(made, (ModuleRef, FunctionRef)):
            return made.decl
        if isinstance(made, ModuleInstance):
            return made.decl.forward if isinstance(made.decl, ast.Module) else None
        symbol = self.names.get(function.id) if isinstance(function, ast.Name) else None
        node = symbol.node if symbol is not None else None
        return node if isinstance(node, (ast.Module, ast.ExternModule, ast.Function)) else None

    def comprehension(self, expr: ast.Comprehension) -> None:
        self.expression(expr.iterable)
        text = expr.span.source.text
        found = re.compile(rf"\bfor\s+({re.escape(expr.variable)})\b").search(text, expr.element.span.end)
        outer = dict(self.names)
        if found is not None:
            span = Span(expr.span.source, *found.span(1))
            self.names[expr.variable] = self.new("loop", expr.variable, span, expr, expr.span)
        self.expression(expr.element)
        self.names = outer


_KINDS = {
    ast.Const: "const",
    ast.Function: "fn",
    ast.Module: "module",
    ast.ExternModule: "extern",
    ast.Data: "data",
    ast.Train: "train",
    ast.Evaluate: "evaluate",
}


def _head(span: Span, name: str) -> Span:
    """The name that a span begins with."""
    return Span(span.source, span.start, span.start + len(name))


def _place(node: ast.Declaration) -> Place:
    return node.name_span.source.name, node.name_span.start


def children(node: ast.Node) -> list[ast.Node]:
    """The nodes right below one."""
    found: list[ast.Node] = []
    for name in node.__dataclass_fields__:
        value = getattr(node, name)
        found += [each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, ast.Node)]
    return found
