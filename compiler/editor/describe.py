"""Values, declarations and built-ins in words."""

from __future__ import annotations

from tdsl.compiler.build import values
from tdsl.compiler.build.values import Semantic, is_none
from tdsl.compiler.editor.builtins import Builtin
from tdsl.compiler.editor.symbols import Symbol
from tdsl.compiler.ir import Scalar, Value
from tdsl.compiler.size import Size
from tdsl.dsl import ast
from tdsl.dsl.constants import describe as constant_text

LONGEST = 200


def kind_of(value: Semantic) -> str:
    """What a value is, as a type or as what it is known to be: `float[B, 64]`, `int = 3 * dim`, `Linear(64, dim)`."""
    if isinstance(value, Value):
        return str(value.type)
    if isinstance(value, Scalar):
        return _number(value)
    if isinstance(value, str):
        return f"str = {constant_text(value)}"
    if isinstance(value, tuple):
        return f"({', '.join(map(kind_of, value))})"[:LONGEST]
    if isinstance(value, values.LayerInstance):
        given = (_argument(name, arg) for name, arg in value.args.items() if _is_given(name, value))
        return f"{value.layer.name}({', '.join(given)})"
    if isinstance(value, values.ModuleInstance):
        return f"{value.decl.name}{call_signature(value)}"
    if isinstance(value, values.ListInstance):
        return _list(value)
    if isinstance(value, values.Batch):
        return "batch"
    if isinstance(value, values.Infer):
        return "a size that the first call tells"
    if isinstance(value, values.Dtype):
        return f"dtype {value.name}"
    return values.describe(value)


def binding(value: Semantic) -> str:
    """What is shown behind a name that is bound: `: float[B, 64]`, ` = 3 * dim`; empty where nothing is worth it."""
    if isinstance(value, Value):
        return f": {value.type}"
    if isinstance(value, Scalar) and not is_none(value) and (value.value is not None):
        return f" = {_shown(value)}"
    return ""


def _number(value: Scalar) -> str:
    if is_none(value):
        return "none"
    kind = {"bool": "bool", "i64": "int"}.get(value.dtype, "float")
    return kind if value.value is None else f"{kind} = {_shown(value)}"


def _shown(value: Scalar) -> str:
    found = value.value
    return str(found).lower() if isinstance(found, bool) else str(found)


def _is_given(name: str, value: values.LayerInstance) -> bool:
    return any(text.partition("=")[2] == name for text in value.given)


def _argument(name: str, value: object) -> str:
    if isinstance(value, values.Infer):
        return f"{name}=_"
    if isinstance(value, Scalar):
        value = value.text or value.value
    shown = str(value).lower() if isinstance(value, bool) or value is None else repr(value)
    return f"{name}={value if isinstance(value, Size) else shown}"


def call_signature(value: values.ModuleInstance) -> str:
    """The inputs and outputs of a module's `forward`."""
    inputs = ", ".join(f"{name}: {type}" for name, type in value.signature.inputs)
    outputs = ", ".join(map(str, value.signature.outputs))
    return f"({inputs}) -> {outputs}" if outputs else ""


def _list(value: values.ListInstance) -> str:
    kinds = list(dict.fromkeys(_short(each) for each in value.elements))
    what = "Sequential" if value.sequential else "list"
    return f"{what} of {len(value.elements)}: {', '.join(kinds)}"[:LONGEST]


def _short(value: values.Instance) -> str:
    if isinstance(value, values.LayerInstance):
        return value.layer.name
    if isinstance(value, values.ModuleInstance):
        return value.decl.name
    return f"{'Sequential' if value.sequential else 'list'}({', '.join(map(_short, value.elements))})"


# Declarations ----------------------------------------------------------------------------------------------------


def head(symbol: Symbol) -> str:
    """The first line of what a symbol names, without its body."""
    node = symbol.node
    if isinstance(node, ast.Module):
        forward = f" {{ {_function(node.forward)} }}" if node.forward is not None else ""
        return f"module {node.name}({_parameters(node.params)}){forward}"
    if isinstance(node, ast.ExternModule):
        return f"extern module {node.name}({_parameters(node.params)})"
    if isinstance(node, ast.Function):
        return _function(node)
    if isinstance(node, ast.Member):
        return _line(f"{node.name} = {node.value.span.text}")
    if isinstance(node, ast.ParamMember):
        word = "param" if node.trainable else "buffer"
        return _line(f"{word} {node.name}: {node.type.span.text} = {node.initializer.span.text}")
    if isinstance(node, ast.Field):
        return _line(f"field {node.name}: {node.type.span.text} = {node.value.span.text}")
    if isinstance(node, ast.Setting):
        return _line(f"{node.name} = {node.value.span.text}")
    if isinstance(node, ast.Const):
        return _line(f"const {node.name} = {node.value.span.text}")
    if isinstance(node, (ast.Parameter, ast.Input)):
        return _line(node.span.text)
    return f"{symbol.kind} {symbol.name}" if isinstance(node, ast.Declaration) else symbol.name


def _function(node: ast.Function) -> str:
    word = "forward" if node.name == "forward" else f"fn {node.name}"
    inputs = ", ".join(each.span.text for each in node.takes)
    outputs = ", ".join(each.span.text for each in node.outputs)
    return f"{word}({inputs}) -> {outputs if len(node.outputs) == 1 else f'({outputs})'}"


def _parameters(params: tuple[ast.Parameter, ...]) -> str:
    return ", ".join(each.span.text for each in params)


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def doc_of(symbol: Symbol) -> str:
    """The comment lines above a declaration, or what its kind is."""
    node = symbol.node
    written = node.doc if isinstance(node, ast.Declaration) else ""
    return written.replace("\n", " ") or _KINDS.get(symbol.kind, "")


_KINDS = {
    "size": "A size that is known when the program runs.",
    "batch": "The rows of one step: a tensor for each field.",
    "tracked": "A scalar that is logged.",
    "model": "A model of the run.",
    "loop": "What the loop goes over.",
}


def builtin_doc(builtin: Builtin) -> str:
    """A built-in's sentence, with its name in PyTorch."""
    return f"{builtin.doc}\n\n`{builtin.torch}`" if builtin.torch else builtin.doc
