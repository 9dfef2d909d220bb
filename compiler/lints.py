"""Lints: what a program may say and hardly means. Each is a warning with a code; `# tdsl: allow W203` keeps one quiet.

A rule is a function from a built program to diagnostics; `RULES` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    RunIR,
    SequentialMember,
    Unit,
)
from tdsl.compiler.data_lints import drawn
from tdsl.compiler.ir import Graph, Node
from tdsl.compiler.limits import Use, uses
from tdsl.compiler.reach import Scope, maker, scopes, unreached
from tdsl.compiler.run_lints import long_averages, rows_as_places
from tdsl.dsl import ast
from tdsl.dsl.categories import column_named, is_categories
from tdsl.dsl.declared_names import walk
from tdsl.dsl.diagnostics import Diagnostic, Reporter, Span
from tdsl.dsl.program import DataSpec, Program
from tdsl.dsl.scope import column_of

# Ops whose results are any numbers: what a probability never is.
UNBOUNDED = frozenset(
    ["linear", "bilinear", "matmul", "mm", "bmm", "einsum", "conv1d", "conv2d", "conv3d", "batch_norm", "layer_norm",
     "rms_norm", "group_norm", "relu", "gelu", "leaky_relu", "silu", "elu"]
)  # fmt: skip
# By loss: what it does itself, and what is to be left out before it.
APPLIES = {
    "cross_entropy": ("softmax", frozenset(["softmax", "log_softmax", "sigmoid"])),
    "binary_cross_entropy_with_logits": ("sigmoid", frozenset(["sigmoid", "logsigmoid", "softmax"])),
}
# By loss: what its input has to come from, and the loss that takes scores as they are.
WANTS = {
    "binary_cross_entropy": ("sigmoid", UNBOUNDED | {"log_softmax", "tanh"}, "binary_cross_entropy_with_logits"),
    "nll_loss": ("log_softmax", UNBOUNDED | {"softmax", "sigmoid", "tanh"}, "cross_entropy"),
}
PRODUCTS = ("*", "/", "//", "%", "@", "**")


def lint(unit: Unit, reporter: Reporter) -> None:
    """Report what a program without errors hardly means."""
    for rule in RULES:
        for diagnostic in rule(unit):
            reporter.add(diagnostic)


# Losses --------------------------------------------------------------------------------------------------------------


def probabilities(unit: Unit) -> Iterator[Diagnostic]:
    """`cross_entropy(softmax(x), y)`: the loss applies it again, and trains poorly."""
    for scope, node in _losses(unit, APPLIES):
        does, wrong = APPLIES[node.op.name]
        found = maker(scope, node.values[0], unit)
        if found is None or found.op.name not in wrong:
            continue
        notes = (f"its input comes from `{found.op.name}` ({found.span})",) if found.span else ()
        help = f"leave `{found.op.name}` out, and apply it where the probabilities are read, such as in `predict`"
        yield Diagnostic("W201", f"`{node.op.name}` applies {does} itself", node.span, notes=notes, help=help)


def scores(unit: Unit) -> Iterator[Diagnostic]:
    """`binary_cross_entropy(linear(x), y)`: the loss takes probabilities."""
    for scope, node in _losses(unit, WANTS):
        wanted, wrong, instead = WANTS[node.op.name]
        found = maker(scope, node.values[0], unit)
        if found is None or found.op.name not in wrong:
            continue
        what = "log-probabilities" if wanted == "log_softmax" else "probabilities"
        notes = (f"its input comes from `{found.op.name}` ({found.span})",) if found.span else ()
        help = f"apply `{wanted}` before it, or use `{instead}`, which takes scores as they are"
        yield Diagnostic("W202", f"`{node.op.name}` takes {what}", node.span, notes=notes, help=help)


def _losses(unit: Unit, names: Mapping[str, object]) -> Iterator[tuple[Scope, Node]]:
    for scope in scopes(unit):
        for node in scope.graph.walk():
            if node.op.name in names and node.values:
                yield scope, node


def labels(unit: Unit) -> Iterator[Diagnostic]:
    """Class labels that no score stands for, and numbers that a table has no entry for."""
    told: set[tuple[Span | None, str]] = set()
    for run in unit.runs.values():
        for use in uses(unit, run.loss, run.spec.data, run.models):
            for diagnostic in _labels(unit, run, use):
                if (use.span, diagnostic.message) not in told:
                    told.add((use.span, diagnostic.message))
                    yield diagnostic


def _labels(unit: Unit, run: RunIR, use: Use) -> Iterator[Diagnostic]:
    from tdsl.compiler.probe import NoClass

    data, limit = run.spec.data, use.limit
    what, fact = ("entry", "vocab_size") if limit.looked_up else ("score", "num_classes")
    try:
        classes = _classes(data, use.field, unit)
    except NoClass as error:
        if limit.ignored in (None, -100):  # else it may be what is ignored
            yield Diagnostic("W204", f"{error.message}, which no {what} stands for", use.span, help=error.help)
        return
    if classes is None or classes <= limit.count or limit.ignored == classes - 1:
        return
    message = f"there are {limit.count} scores a row, and the labels of `batch.{use.field}` go up to {classes - 1}"
    help = f"give the model {classes} outputs, such as by `{data.name}.{fact}`"
    if limit.looked_up:
        message = f"the table has {limit.count} entries, and the numbers of `batch.{use.field}` go up to {classes - 1}"
        help = f"give it {classes} entries" + f", such as by `{data.name}.{fact}`" * _has_vocabulary(data)
    spec = next(each for each in data.fields if each.name == use.field)
    yield Diagnostic("W204", message, use.span, notes=(f"`{spec.name}` is read at {spec.span}",), help=help)


def _has_vocabulary(data: DataSpec) -> bool:
    return data.sources["source"].name in ("text", "tokens")


def _classes(data: DataSpec, name: str, unit: Unit) -> int | None:
    """The classes of a field, where its column tells them and is quickly read."""
    field = next((each for each in data.fields if each.name == name), None)
    if field is not None and is_categories(field.value):
        return len(data.categories[column_named(field.value)])
    column = column_of(field.value) if field is not None else None
    source = data.sources.get("source")
    if column is None or source is None:
        return None
    from pathlib import Path

    from tdsl.compiler.probe import SOURCES, NoClass, ProbeError, probe

    if source.name not in SOURCES:
        return None
    folder = Path(unit.program.source.name).parent
    try:
        found = probe(source.name, source.args, folder, allow_outside=True)
        return found.num_classes(column) if column in found.columns and found.is_small(folder) else None
    except NoClass:
        raise
    except (ProbeError, OSError):
        return None


# Parameters ----------------------------------------------------------------------------------------------------------


def untrained(unit: Unit) -> Iterator[Diagnostic]:
    """Parameters that no gradient reaches."""
    told: set[tuple[str, int]] = set()
    idle = {(each.span.source.name, each.span.start) for each in unused(unit) if each.span is not None}
    for name, run in unit.runs.items():
        for path, member in unreached(unit, run):
            place = (member.name_span.source.name, member.name_span.start)
            if place in told or place in idle:
                continue
            told.add(place)
            single = isinstance(member, ast.ParamMember)
            what = f"the parameter `{path}` never reaches" if single else f"no parameter of `{path}` reaches"
            help = "let the loss depend on it, remove it, or name it in `freeze`"
            yield Diagnostic("W203", f"{what} the loss of `{name}`", member.name_span, help=help)


def unused(unit: Unit) -> Iterator[Diagnostic]:
    """Members and local names that nothing uses."""
    program = unit.program
    bodies = _bodies(program)
    models = [model for run in program.runs.values() for model in run.models.values()]
    named: list[ast.Node] = [*bodies, *program.modules.values(), *models]
    reached = {node.name for root in named for node in walk(root) if isinstance(node, ast.Attribute)}
    for module in program.modules.values():
        used = {node.id for node in walk(module) if isinstance(node, ast.Name)} | reached
        for member in module.members:
            if member.name not in used and module.forward is not None:
                message = f"`{member.name}` of `{module.name}` is never used"
                yield Diagnostic("W206", message, member.name_span, help="use it in `forward`, or remove it")
    for body in bodies:
        yield from _locals(body)


def _bodies(program: Program) -> list[ast.Function | ast.Block]:
    """Everything that holds statements."""
    found: list[ast.Function | ast.Block] = [*program.functions.values()]
    found += [module.forward for module in program.modules.values() if module.forward is not None]
    found += [run.loss for run in program.runs.values()]
    blocks = [block for each in program.evaluations.values() for block in (each.compare, each.predict)]
    return [*found, *(block for block in blocks if block is not None)]


def _locals(body: ast.Function | ast.Block) -> Iterator[Diagnostic]:
    nodes = list(walk(body))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    for node in nodes:
        if not isinstance(node, ast.Assign) or any(target.id in used for target in node.names):
            continue
        for target in node.names:
            if not target.id.startswith("_"):
                help = "use it, or remove the statement"
                yield Diagnostic("W206", f"`{target.id}` is never used", target.span, help=help)


# Batches -------------------------------------------------------------------------------------------------------------


def batch_of_one(unit: Unit) -> Iterator[Diagnostic]:
    """Batch norm or dropout where a batch has one row."""
    for name, run in unit.runs.items():
        rows, parts = run.spec.settings.get("batch_size"), run.spec.settings.get("accumulate")
        if not isinstance(rows, int) or not isinstance(parts, int) or rows // parts != 1:
            continue
        why = (
            f"the run `{name}` takes {'one row' if parts == 1 else f'{rows} rows in {parts} parts, one row'} at a time"
        )
        for graph in _graphs(unit, run):
            for node in graph.walk():
                if node.op.name in ("batch_norm", "batch_norm_layer"):
                    help = "take more rows, or use `GroupNorm` or `LayerNorm`, which do not depend on the batch"
                    yield Diagnostic("W205", "batch norm in a batch of one", node.span, notes=(why,), help=help)
                if "dropout" in node.op.name:
                    help = "take more rows, so that a step averages over what is dropped"
                    yield Diagnostic("W205", "dropout in a batch of one", node.span, notes=(why,), help=help)


def in_parts(unit: Unit) -> Iterator[Diagnostic]:
    """`accumulate`, and batch norm or a module of Python's."""
    for run in unit.runs.values():
        if run.spec.settings.get("accumulate") in (1, None):
            continue
        why = (f"the run `{run.spec.name}` computes a batch in {run.spec.settings['accumulate']} parts",)
        for graph in _graphs(unit, run):
            for node in graph.walk():
                if node.op.name in ("batch_norm", "batch_norm_layer"):
                    help = "use `GroupNorm` or `LayerNorm`, which do not depend on the batch, or `# tdsl: allow W207`"
                    yield Diagnostic("W207", "batch statistics are those of each part", node.span, notes=why, help=help)
        yield from _listed_norms(unit, run, why)
        yield from _unseen(unit, run, why)


def _listed_norms(unit: Unit, run: RunIR, why: tuple[str, ...]) -> Iterator[Diagnostic]:
    """Batch norms that a `Sequential` or a list calls, none of whose elements is called by itself."""
    graphs = list(_graphs(unit, run))
    for module in unit.modules:
        if isinstance(module.source, ast.ExternModule) or not any(module.graph is graph for graph in graphs):
            continue
        for declared in module.source.members:
            member = module.members.get(declared.name)
            called = any(node.layer.startswith(f"{declared.name}.") for node in module.graph.walk())
            if not isinstance(member, LayerMember) and _has_batch_norm(member) and not called:
                help = "use `GroupNorm` or `LayerNorm`, which do not depend on the batch, or `# tdsl: allow W207`"
                message = "batch statistics are those of each part"
                yield Diagnostic("W207", message, declared.name_span, notes=why, help=help)


def _has_batch_norm(member: object) -> bool:
    if isinstance(member, RepeatMember):
        return _has_batch_norm(member.element)
    if isinstance(member, (SequentialMember, ListMember)):
        return any(map(_has_batch_norm, member.elements))
    return isinstance(member, LayerMember) and member.name.startswith("BatchNorm")


def _unseen(unit: Unit, run: RunIR, why: tuple[str, ...]) -> Iterator[Diagnostic]:
    made = {each.class_name for each in run.models.values()}
    made |= {name for module in unit.modules for name in _made(module)}
    for module in unit.modules:
        if isinstance(module.source, ast.ExternModule) and module.class_name in made:
            message = f"whether `{module.source.name}` mixes the rows of a batch can't be seen"
            help = "make sure that it leaves each by itself, and write `# tdsl: allow W207` above it"
            yield Diagnostic("W207", message, module.source.name_span, notes=why, help=help)


def _graphs(unit: Unit, run: RunIR) -> Iterator[Graph]:
    """The graphs of a run: its loss, and the modules that its models are made of."""
    yield run.loss
    by_name = {module.class_name: module for module in unit.modules}
    waiting = [each.class_name for each in run.models.values()]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        module = by_name.get(name)
        if name not in seen and module is not None:
            seen.add(name)
            yield module.graph
            waiting += _made(module)


def _made(module: ModuleIR) -> list[str]:
    """The classes of the modules that a module has."""
    found: list[str] = []
    waiting: list[object] = [*module.members.values()]
    while waiting:
        each = waiting.pop()
        if isinstance(each, ModuleMember):
            found.append(each.class_name)
        elif isinstance(each, RepeatMember):
            waiting.append(each.element)
        elif isinstance(each, (SequentialMember, ListMember)):
            waiting += each.elements
    return found


# Pipes ---------------------------------------------------------------------------------------------------------------


def sums_into_pipes(unit: Unit) -> Iterator[Diagnostic]:
    """`x + x |> f`: the whole sum goes into the pipe. Products are read so anyway, and no number goes into a pipe."""
    seen: set[ast.Pipe] = set()
    for body in _bodies(unit.program):
        for node in walk(body):
            if not isinstance(node, ast.Pipe) or node in seen:
                continue
            first = node
            while isinstance(first.value, ast.Pipe) and not _in_parentheses(first):
                first = first.value
                seen.add(first)
            if not _in_parentheses(first) and (last := _last_operand(first.value)) is not None:
                yield _sum_into_pipe(node.span, first, last)


def _in_parentheses(pipe: ast.Pipe) -> bool:
    return pipe.span.start < pipe.value.span.start


def _last_operand(value: ast.Expr) -> ast.Expr | None:
    """What a reader may take for all that goes into the pipe: the last operand of a sum, or of what binds less."""
    if isinstance(value, ast.Conditional):
        last = value.otherwise
    elif isinstance(value, ast.Binary) and value.op not in PRODUCTS:
        last = value.right
    else:
        return None
    return None if isinstance(last, ast.Literal) else _last_operand(last) or last


def _sum_into_pipe(whole: Span, first: ast.Pipe, last: ast.Expr) -> Diagnostic:
    value, stages = first.value.span, whole.text[first.value.span.end - whole.start :]
    help = "put parentheses around what goes into the pipe"
    if "\n" not in whole.text and last.span.end == value.end:
        head = whole.text[: last.span.start - whole.start]
        one, other = f"({value.text}){stages}", f"{head}({last.span.text}{stages})"
        help = f"write `{one}` if that is meant, `{other}` if only `{last.span.text}` goes into the pipe"
    what = "sum" if isinstance(first.value, ast.Binary) and first.value.op in "+-" else "expression"
    message = f"the whole {what} goes into the pipe: `|>` binds less than any operator"
    return Diagnostic("W208", message, whole, help=help)


RULES = (
    probabilities, scores, labels, untrained, unused, batch_of_one, in_parts, sums_into_pipes, rows_as_places,
    long_averages, drawn,
)  # fmt: skip

# Permission ----------------------------------------------------------------------------------------------------------

ALLOW = re.compile(r"#\s*tdsl:\s*allow\s+((?:W\d{3}[\s,]*)+)")


def permitted(diagnostics: list[Diagnostic], program: Program) -> list[Diagnostic]:
    """The diagnostics without the warnings that a comment allows: on their line, or with their declaration."""
    spans = [each.span for each in program.functions.values()] + [each.span for each in program.modules.values()]
    spans += [each.span for each in program.data.values()] + [each.span for each in program.runs.values()]
    spans += [each.span for each in program.evaluations.values()]
    return [each for each in diagnostics if each.severity == "error" or not _allows(each, spans)]


def _allows(warning: Diagnostic, declarations: list[Span]) -> bool:
    span = warning.span
    if span is None or "allow" not in span.source.text:
        return False
    lines = [span.source.line(span.line)]
    for whole in declarations:
        if whole.source.name == span.source.name and whole.start <= span.start < whole.end:
            lines += [whole.source.line(whole.line), *_above(whole)]
    return any(warning.code in match[1] for line in lines if (match := ALLOW.search(line)))


def _above(declaration: Span) -> Iterator[str]:
    """The comment lines directly above a declaration."""
    number = declaration.line - 1
    while number and (line := declaration.source.line(number)).lstrip().startswith("#"):
        yield line
        number -= 1
