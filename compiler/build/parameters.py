"""What the parameters of a module or a `fn` are given: checked, and as the names that its body reads."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.bind import attribute
from tdsl.compiler.build.unit import ParameterIR
from tdsl.compiler.build.values import FunctionRef, Infer, LayerRef, ModuleRef, OpRef, Semantic, describe
from tdsl.compiler.ir import Attr, Scalar, Value
from tdsl.compiler.ops.infer import known
from tdsl.compiler.ops.op import Arg
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span, fail


def checked(what: str, param: ast.Parameter, value: Semantic, span: Span) -> Semantic:
    """What is given for a parameter, where it is of its kind; fails where it is not."""
    if param.kind in ("fn", "module"):
        fits = (FunctionRef, OpRef) if param.kind == "fn" else (ModuleRef, LayerRef)
        if not isinstance(value, fits):
            fail("E202", f"argument `{param.name}` of `{what}` is a {param.kind}", span, f"this is {describe(value)}")
        return value
    if isinstance(value, Infer):
        fail("E202", "`_` stands for sizes of built-in layers only", span)
    if isinstance(value, Scalar) and value.text == "unknown":
        return value
    found = attribute(what, Arg(param.name, param.kind), value, span)
    if isinstance(found, str):
        return found
    return found if isinstance(found, Scalar) else Scalar(found)  # type: ignore[arg-type]


def refuse_tensor(decl: ast.Function, param: ast.Parameter, value: Value, span: Span) -> None:
    """A `fn` takes tensors for the inputs that are declared with sizes only."""
    told, label = f"`{param.name}` of `{decl.name}` is of the kind `{param.kind}`", f"this is {describe(value)}"
    fail("E202", told, span, label, help=f"for a tensor, declare it with sizes: `{param.name}: {value.type}`")


def attr(value: Semantic) -> Attr:
    """An argument as a constructor is given it."""
    if isinstance(value, str):
        return value
    assert isinstance(value, Scalar), value
    return value if value.text else value.value


def key_of(value: Semantic) -> object:
    """What tells two elaborations apart."""
    if isinstance(value, Scalar):
        number = arithmetic.number(value)
        return (type(number).__name__, number)
    if isinstance(value, (FunctionRef, ModuleRef)):
        return value.decl.name
    return value.op.name if isinstance(value, OpRef) else value.layer.name if isinstance(value, LayerRef) else value


def of_function(decl: ast.Function, env: Mapping[str, Semantic]) -> tuple[dict[str, Semantic], dict[Symbol, int]]:
    """The parameters of a `fn` in its own words, and what is known of its sizes."""
    names, sizes = dict(env), dict[Symbol, int]()
    for param in decl.params:
        value = env[param.name]
        if param.kind == "int" and isinstance(value, Scalar):
            symbol = Symbol(param.name, param=True)
            names[param.name] = Scalar(Size.of(symbol))
            number = arithmetic.number(value)
            sizes |= {symbol: number} if isinstance(number, int) else {}
    return names, sizes


def unknown(param: ast.Parameter) -> Semantic:
    """What a parameter is taken for where nothing tells it."""
    return Scalar(True) if param.kind == "bool" else Scalar(None, param.name)


def of_module(
    decl: ast.Module | ast.ExternModule, env: Mapping[str, Semantic]
) -> tuple[dict[str, Semantic], dict[Symbol, int]]:
    """A module's parameters in its own words, and what is known of its sizes."""
    names: dict[str, Semantic] = {}
    sizes: dict[Symbol, int] = {}
    for param in decl.params:
        value = env[param.name]
        if param.kind == "int":
            symbol = Symbol(param.name, param=True)
            names[param.name] = Scalar(Size.of(symbol))
            if isinstance(value, Scalar) and isinstance(value.value, (int, Size)):
                size = known(Size.of(value.value))
                sizes |= {} if size is None else {symbol: size}
        elif param.kind == "float":
            number = arithmetic.number(value) if isinstance(value, Scalar) else None
            names[param.name] = Scalar(number, f"self.{param.name}")
        else:
            names[param.name] = value
    return names, sizes


_ANNOTATIONS = {"int": "int", "float": "float", "bool": "bool", "str": "str"}


def declared(decl: ast.Module | ast.ExternModule, env: Mapping[str, Semantic]) -> tuple[ParameterIR, ...]:
    """What the constructor of the class takes: functions and modules are settled before there is one."""
    found: list[ParameterIR] = []
    for param in decl.params:
        if param.kind not in _ANNOTATIONS:
            continue
        default = param.default.value if isinstance(param.default, ast.Literal) else None
        value: Attr = default
        if param.default is not None and not isinstance(param.default, ast.Literal):
            made = env[param.name]
            value = arithmetic.number(made) if isinstance(made, Scalar) else made if isinstance(made, str) else None
        found.append(ParameterIR(param.name, _ANNOTATIONS[param.kind], value, param.default is None))
    return tuple(found)
