"""`model.py`: a class for each module of the program."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tdsl import __version__
from tdsl.compiler.build.extern import target
from tdsl.compiler.build.unit import (
    ConstantMember,
    LayerMember,
    ListMember,
    Member,
    ModuleIR,
    ModuleMember,
    ParameterIR,
    RepeatMember,
    SequentialMember,
    SharedMember,
    Submodule,
    TensorMember,
    Unit,
)
from tdsl.compiler.emit.data import DTYPES
from tdsl.compiler.emit.headed import headed_lines
from tdsl.compiler.emit.python import block_lines, graph_lines, shape_comment
from tdsl.compiler.emit.render import WIDTH, docstring, layout, plain, render
from tdsl.compiler.emit.text import identifier, literal, mentions, path_text
from tdsl.compiler.ir import Attr, Scalar

# What a text may name beside its own module, and the statement that imports it: standard, others', the project's own.
IMPORTS = (
    {"math": "import math"},
    {"torch": "import torch", "F": "import torch.nn.functional as F", "nn": "", "Tensor": ""},
    {"kernels": "import kernels", "mixed_precision": "", "nn_functions": "", "tracking": ""},
)
STRINGS_AND_COMMENTS = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|#.*"""
# Columns before a line of a method.
BODY = 8


@dataclass(frozen=True)
class ClassText:
    """One class: its lines, and `buffers`, which are annotated since `register_buffer` tells no type."""

    name: str
    doc: tuple[str, ...]
    buffers: tuple[str, ...]
    init: str
    members: tuple[str, ...]
    forward: str
    body: tuple[str, ...]
    decorator: str = ""


def model_text(unit: Unit) -> str:
    """The text of `model.py`. Modules that are fused call the functions of `kernels.py`."""
    read = _read_parameters(unit)
    targets = {module.class_name: found for module in unit.modules if (found := target(module)) is not None}
    own = [module for module in unit.modules if module.class_name not in targets]
    classes = [_class(module, read.get(module.class_name, frozenset())) for module in own]
    source = plain(PurePath(unit.program.source.name).name)
    return render(
        "torch/model.py.jinja", source=source, version=__version__, imports=_imports(classes, targets), classes=classes
    )


def _imports(classes: Sequence[ClassText], targets: Mapping[str, tuple[str, str]]) -> list[list[str]]:
    """The imports that the classes need, by section; those of Python classes by the program's names for them."""
    lines = [line for c in classes for line in (c.init, *c.members, c.decorator, c.forward, *c.body)]
    lines += ["Tensor" for c in classes if c.buffers]
    text = "\n".join(re.sub(STRINGS_AND_COMMENTS, "", line) for line in lines)
    sections: list[list[str]] = []
    for names in IMPORTS:
        found = [statement for name, statement in names.items() if statement and mentions(text, name)]
        if "nn" in names and classes:
            found.append("from torch import Tensor, nn" if mentions(text, "Tensor") else "from torch import nn")
        runtime = [
            name for name in ("mixed_precision", "nn_functions", "tracking") if name in names and mentions(text, name)
        ]
        found += [f"from tdsl.runtime import {', '.join(runtime)}"] if runtime else []
        sections.append(found)
    extern = [_extern(name, *targets[name], text) for name in sorted(targets, key=lambda name: targets[name])]
    return [section for section in (*sections, extern) if section]


def _extern(name: str, package: str, class_name: str, text: str) -> str:
    """The import of a Python class under the program's name; `as` also tells that it is there for other files."""
    path = ".".join(map(identifier, package.split(".")))
    renamed = "" if name == class_name and mentions(text, name) else f" as {identifier(name)}"
    return f"from {path} import {identifier(class_name)}{renamed}"


# A class -------------------------------------------------------------------------------------------------------------


def _class(module: ModuleIR, read: frozenset[str]) -> ClassText:
    kept = [param.name for param in module.params if param.name in read]
    members = [f"self.{identifier(name)} = {name}" for name in kept]
    for name, member in module.members.items():
        members += _member(identifier(name), member, module)
    members += [f"{path_text('self.', shared)} = {path_text('self.', source)}" for shared, source in module.ties]
    buffers = [n for n, m in module.members.items() if isinstance(m, TensorMember) and not m.trainable]
    forward = _forward(module) if module.graph.outputs else [""]
    return ClassText(
        name=identifier(module.class_name),
        doc=tuple(_doc(module.doc)),
        buffers=tuple(buffers),
        init=_init(module),
        members=tuple(line for member in members for line in _dedented(member)),
        forward=forward[0],
        body=tuple(forward[1:]),
        decorator="@torch.enable_grad()" if module.graph.differentiates else "",
    )


def _dedented(statement: str) -> list[str]:
    """The lines of a statement, those after the first less the indentation that the template puts before each."""
    first, *others = statement.split("\n")
    return [first, *(line[BODY:] for line in others)]


def _doc(text: str) -> list[str]:
    """The lines of a docstring, long ones broken."""
    lines = docstring("\n".join(map(plain, text.splitlines()))).split("\n")
    return [part for line in lines for part in textwrap.wrap(line, WIDTH - 10) or [""]] if text.strip() else []


def _init(module: ModuleIR) -> str:
    return layout("def __init__", ["self", *map(_parameter, module.params)], " -> None:", 4)


def _parameter(param: ParameterIR) -> str:
    default = "" if param.required else f" = {literal(param.default)}"
    optional = " | None" if not param.required and param.default is None else ""
    return f"{identifier(param.name)}: {param.annotation}{optional}{default}"


def _forward(module: ModuleIR) -> list[str]:
    """`forward`, the shapes of what goes in and out beside its head, or below it where there is no room."""
    graph = module.graph
    arguments = ["self", *(f"{identifier(v.name)}: Tensor" for v in graph.inputs)]
    arguments += [f"{identifier(module.head)}: bool = True"] if module.head else []
    count = len(graph.outputs)
    returns = "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
    head = layout("def forward", arguments, f" -> {returns}:", 4)
    inputs = shape_comment([v.type for v in graph.inputs])
    comment = f"# {inputs} -> {shape_comment([v.type for v in graph.outputs])}"
    body = headed_lines(graph, module.head) if module.head else graph_lines(graph)
    if "\n" not in head and 4 + len(head) + 2 + len(comment) <= WIDTH:
        return [f"{head}  {comment}", *body]
    return [head, comment, *body] if BODY + len(comment) <= WIDTH else [head, *body]


# Members -------------------------------------------------------------------------------------------------------------


def _member(name: str, member: Member, module: ModuleIR) -> list[str]:
    """The statements that make a member. Those of more than one line are indented as they stand."""
    params = {param.name for param in module.params}
    if isinstance(member, TensorMember):
        return _tensor(name, member, params)
    if isinstance(member, ConstantMember):
        return [f"self.{name} = {made(member.value, params)}"]
    return [_submodule(member, params, f"self.{name} = ", BODY)]


def made(value: Attr, params: set[str]) -> str:
    """A constructor's argument: what `forward` reads from the module, the constructor has by name."""
    if isinstance(value, Scalar) and value.text:
        return re.sub(r"\bself\.(\w+)", lambda m: m[1] if m[1] in params else m[0], value.text)
    if isinstance(value, tuple):
        inner = ", ".join(made(v, params) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return literal(value)


def _given(args: Sequence[tuple[str, Attr]], params: set[str]) -> list[str]:
    return [f"{identifier(name)}={made(value, params)}" if name else made(value, params) for name, value in args]


def _submodule(member: Submodule, params: set[str], head: str, indent: int) -> str:
    """`head` followed by what makes a submodule, on several lines where it is too long for one."""
    if isinstance(member, LayerMember):
        return layout(head + path_text("", member.path), _given(member.args, params), "", indent)
    if isinstance(member, ModuleMember):
        return layout(head + identifier(member.class_name), _given(member.args, params), "", indent)
    if isinstance(member, SharedMember):
        return head + path_text("self.", member.path)
    if isinstance(member, RepeatMember):
        return layout(f"{head}nn.ModuleList", [_comprehension(member, params)], "", indent)
    if isinstance(member, SequentialMember):
        elements = [_submodule(e, params, "", indent + 4) for e in member.elements]
        return layout(f"{head}nn.Sequential", elements, "", indent)
    return _list(member, params, head, indent)


def _comprehension(member: RepeatMember, params: set[str]) -> str:
    element = _submodule(member.element, params, "", 0)
    variable = identifier(member.variable) if mentions(element, member.variable) else "_"
    return f"[{element} for {variable} in range({made(member.count, params)})]"


def _list(member: ListMember, params: set[str], head: str, indent: int) -> str:
    elements = [_submodule(e, params, "", indent + 8) for e in member.elements]
    line = f"{head}nn.ModuleList([{', '.join(elements)}])"
    if indent + len(line) <= WIDTH:
        return line
    first, second, third = (" " * (indent + more) for more in (0, 4, 8))
    inner = "".join(f"{third}{element},\n" for element in elements)
    return f"{head}nn.ModuleList(\n{second}[\n{inner}{second}]\n{first})"


def _tensor(name: str, member: TensorMember, params: set[str]) -> list[str]:
    """A parameter or buffer, made and initialised."""
    args = {key: made(value, params) for key, value in member.args}
    value = _initial(member, args, params)
    wrapped = f"self.{name} = nn.Parameter({value})"
    lines = [wrapped if member.trainable else f"self.register_buffer({literal(name)}, {value})"]
    if member.initializer not in ("zeros", "ones", "constant", "normal"):
        given = [f"self.{name}", *(f"{identifier(key)}={text}" for key, text in args.items())]
        lines.append(layout(f"nn.init.{identifier(member.initializer)}_", given, "", BODY))
    return lines


def _initial(member: TensorMember, args: Mapping[str, str], params: set[str]) -> str:
    sizes = ", ".join(made(size, params) for size in member.shape)
    dtype = "" if member.dtype == "float" else f", dtype={DTYPES[member.dtype]}"
    # No arguments at all would be a tensor without elements for some of these functions.
    shape = sizes or "()"
    if member.initializer == "constant":
        return f"torch.full(({sizes}{',' if len(member.shape) == 1 else ''}), {args['val']}{dtype})"
    if member.initializer == "normal":
        scaled = "" if args.get("std", "1.0") in ("1.0", "1") else f" * {_factor(args['std'])}"
        shifted = "" if args.get("mean", "0.0") in ("0.0", "0") else f" + {_factor(args['mean'])}"
        return f"torch.randn({shape}{dtype}){scaled}{shifted}"
    made_by = member.initializer if member.initializer in ("zeros", "ones") else "empty"
    return f"torch.{made_by}({shape}{dtype})"


def _factor(text: str) -> str:
    return text if re.fullmatch(r"-?[\w.]+", text) or re.fullmatch(r"\d[\d.]*e-?\d+", text) else f"({text})"


# Which parameters are kept -------------------------------------------------------------------------------------------


def _read_parameters(unit: Unit) -> dict[str, frozenset[str]]:
    """By class, the constructor's parameters that a function reads from the module, or from one that has it."""
    classes = {module.class_name: module for module in unit.modules}
    found: dict[str, set[str]] = {}
    for root, module, lines in _functions(unit, classes):
        for path in re.findall(rf"(?<![\w.]){root}((?:\.\w+|\[\d+\])+)", "\n".join(lines)):
            at = _owner(module, re.findall(r"\w+", path), classes)
            if at is not None:
                found.setdefault(at[0], set()).add(at[1])
    return {name: frozenset(names) for name, names in found.items()}


def _functions(unit: Unit, classes: Mapping[str, ModuleIR]) -> Iterator[tuple[str, ModuleIR, Sequence[str]]]:
    """Each function that reads a module: what it calls the module, the module, and its lines."""
    for module in unit.modules:
        if module.graph.outputs:
            yield "self", module, graph_lines(module.graph)
    for name, run in unit.runs.items():
        evaluation = unit.evaluations.get(name)
        graphs = (run.loss, *((evaluation.compare, evaluation.predict) if evaluation is not None else ()))
        lines = [line for graph in graphs if graph is not None for line in block_lines(graph)]
        for root, model in run.models.items():
            yield identifier(root), classes[model.class_name], lines


def _owner(module: ModuleIR, path: Sequence[str], classes: Mapping[str, ModuleIR]) -> tuple[str, str] | None:
    """The class and name of the parameter that a path leads to; None where it leads to something else."""
    name, *rest = path
    if name in module.members:
        member: Member | None = module.members[name]
        while rest and isinstance(member, (RepeatMember, SequentialMember, ListMember)):
            member = member.element if isinstance(member, RepeatMember) else member.elements[int(rest[0])]
            rest = rest[1:]
        if isinstance(member, SharedMember):
            return _owner(module, [*member.path.split("."), *rest], classes)
        return _owner(classes[member.class_name], rest, classes) if rest and isinstance(member, ModuleMember) else None
    known = name in {param.name for param in module.params}
    return (module.class_name, name) if known and not rest else None
