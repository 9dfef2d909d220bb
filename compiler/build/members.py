"""Members of a module: layers, modules, lists of them, parameters, constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.bind import attribute, match
from tdsl.compiler.build.expr import evaluate
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.layer_calls import check_arguments
from tdsl.compiler.build.layers import Layer
from tdsl.compiler.build.loops import loop_items
from tdsl.compiler.build.types import declared
from tdsl.compiler.build.unit import (
    ConstantMember,
    LayerMember,
    ListMember,
    Member,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    SharedMember,
    Submodule,
    TensorMember,
)
from tdsl.compiler.build.values import (
    Infer,
    Instance,
    LayerInstance,
    LayerRef,
    ListInstance,
    ModuleInstance,
    Semantic,
    describe,
)
from tdsl.compiler.ir import Attr, Scalar, TensorType, Value
from tdsl.compiler.ops.op import Arg, Signature, signature
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span, fail
from tdsl.dsl.names import did_you_mean

SEQUENTIAL = Layer("Sequential", (), "identity", {})

# The initialisers of torch.nn.init, and their arguments.
INITIALIZERS: Mapping[str, Signature] = {
    "zeros": (),
    "ones": (),
    "eye": (),
    "constant": signature("val: float"),
    "normal": signature("mean: float = 0.0, std: float = 1.0"),
    "uniform": signature("a: float = 0.0, b: float = 1.0"),
    "trunc_normal": signature("mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0"),
    "xavier_uniform": signature("gain: float = 1.0"),
    "xavier_normal": signature("gain: float = 1.0"),
    "kaiming_uniform": signature('a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"'),
    "kaiming_normal": signature('a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"'),
    "orthogonal": signature("gain: float = 1.0"),
}
_EXACT = ("zeros", "ones", "constant", "eye")
_MATRICES = ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal")


def member(decl: ast.Member | ast.ParamMember, frame: Frame) -> object:
    """Elaborate one member and bind its name."""
    if isinstance(decl, ast.ParamMember):
        made = _tensor_member(decl, frame)
        type = TensorType(made.dtype, made.shape)
        frame.names[decl.name] = frame.builder.parameter(decl.name, type, made.trainable)
        return made
    value = evaluate(decl.value, frame)
    if isinstance(value, (LayerInstance, ModuleInstance, ListInstance)):
        placed = _placed(value, decl.name)
        frame.names[decl.name] = placed
        frame.builder.given[placed] = decl.value.span
        return placed
    if isinstance(value, (Scalar, str, tuple)):
        frame.names[decl.name] = value
        return ConstantMember(_constant(value, decl.value.span))
    help = "call it: `ReLU()`" if isinstance(value, LayerRef) else None
    fail("E201", f"a member is a module or a constant, not {describe(value)}", decl.value.span, help=help)


def inlined(decl: ast.Member | ast.ParamMember, frame: Frame) -> Semantic:
    """A member of a module whose body is inlined: its tensor, by its path, or its constant."""
    if isinstance(decl, ast.ParamMember):
        type = declared(decl.type, frame.names, False, lambda e: evaluate(e, frame))
        return frame.builder.parameter(f"{frame.path}.{decl.name}", type, decl.trainable)
    return evaluate(decl.value, frame)


def _constant(value: Semantic, span: Span) -> Attr:
    if isinstance(value, tuple):
        return tuple(_constant(v, span) for v in value)
    if isinstance(value, Scalar):
        return value if value.text else value.value
    if isinstance(value, str):
        return value
    fail("E201", f"a constant is a number, a string or a list, not {describe(value)}", span)


def _placed(value: Instance, path: str) -> Instance:
    """The instance at its path, and its elements below it; one that has a path already is shared."""
    if value.path:
        return replace(value, path=path, shared=value.shared or value.path)
    if isinstance(value, ListInstance):
        elements = tuple(_placed(e, f"{path}.{i}") for i, e in enumerate(value.elements))
        return replace(value, elements=elements, path=path)
    return replace(value, path=path)


# Parameters ----------------------------------------------------------------------------------------------------------


def _tensor_member(decl: ast.ParamMember, frame: Frame) -> TensorMember:
    type = declared(decl.type, frame.names, False, lambda e: evaluate(e, frame))
    init = decl.initializer
    if not isinstance(init, ast.Call) or not isinstance(init.function, ast.Name):
        fail("E202", "a parameter starts from an initializer, such as `zeros()`", init.span)
    name = init.function.id
    if name not in INITIALIZERS:
        help = did_you_mean(name, INITIALIZERS) or f"one of {', '.join(INITIALIZERS)}"
        fail("E110", f"unknown initializer `{name}`", init.function.span, help=help)
    record = INITIALIZERS[name]
    given = match(name, record, init.args, lambda e: evaluate(e, frame), init.span)
    args = tuple((arg.name, attribute(name, arg, *given[arg.name])) for arg in record if arg.name in given)
    rank = len(type.shape)
    if (name in _MATRICES and rank < 2) or (name == "eye" and rank != 2):
        fail("E203", f"`{name}` needs a matrix", init.span, f"`{decl.name}` is {type}")
    _check_dtype(decl, type, name, dict(args), init.span)
    return TensorMember(type.shape, type.dtype, name, args, decl.trainable)


def _check_dtype(
    decl: ast.ParamMember, type: TensorType, initializer: str, args: Mapping[str, Attr], span: Span
) -> None:
    """Parameters are floating-point numbers, as only those have gradients; integers start from integers."""
    if type.is_float:
        return
    if decl.trainable:
        help = f"write `buffer {decl.name}: ...`: a buffer is saved with the module, and never trained"
        fail("E205", "a parameter holds floating-point values", decl.type.span, f"this is {type}", help=help)
    value = args.get("val", 0)
    if initializer not in _EXACT or (isinstance(value, float) and not value.is_integer()):
        help = f"one of {', '.join(_EXACT)} with a whole number"
        fail("E205", f"`{initializer}` makes no {type.dtype}", span, f"`{decl.name}` is {type}", help=help)


# Layers and lists ----------------------------------------------------------------------------------------------------


def layer_instance(ref: LayerRef, args: Sequence[ast.Argument], span: Span, frame: Frame) -> LayerInstance:
    """A layer from its constructor's arguments. A parameter given by name, as `weight=embed.weight`, is shared."""
    record = ref.layer
    if record.name == "Identity":  # takes anything, so that it can stand where another layer would
        args = [a for a in args if evaluate(a.value, frame) is None]
    shared = [a for a in args if a.name is not None and record.takes(a.name)]
    plain = [a for a in args if a not in shared]
    given = match(record.name, record.signature, plain, lambda e: evaluate(e, frame), span)
    values: dict[str, Attr | Infer] = {}
    for arg in record.signature:
        values[arg.name] = _argument(record.name, arg, *given[arg.name]) if arg.name in given else arg.default
    positional = {arg.name for arg, a in zip(record.signature, plain) if a.name is None}
    order = tuple(("" if name in positional else name) + "=" + name for name in given)
    made = LayerInstance(record, values, order)
    check_arguments(made, span)
    tied = {a.name: _shared(a, frame) for a in shared if a.name is not None}
    return replace(made, tied=tied) if tied else made


def _argument(what: str, arg: Arg, value: Semantic, span: Span) -> Attr | Infer:
    return value if isinstance(value, Infer) else attribute(what, arg, value, span)


def _shared(argument: ast.Argument, frame: Frame) -> Value:
    value = evaluate(argument.value, frame)
    if not isinstance(value, Value) or not any(p.value is value for p in frame.builder.params.values()):
        fail("E202", f"`{argument.name}` is a parameter of another layer, to share it", argument.value.span)
    return value


def comprehension(expr: ast.Comprehension, frame: Frame) -> ListInstance:
    """`[Block(dim) for i in range(n)]`, or over the values of a list."""
    if not _is_count(expr.iterable):
        return frame.classes.listed(_made(expr, loop_items(expr.iterable, frame), frame), expr.element.span)
    count = _range(expr.iterable, frame)
    number = arithmetic.number(count)
    total = number if isinstance(number, int) else 1
    if total < 0 or total > 10_000:
        help = "a list has 0 to 10,000 modules"
        fail("E209", f"a list of {total} modules", expr.iterable.span, help=help)
    # Elements that read the variable, or take sizes from what they are given, may differ.
    differ = _mentions(expr.element, expr.variable) or _mentions(expr.element, "_")
    elements = _made(expr, [Scalar(i) for i in range(total if differ else min(total, 1))], frame)
    listed = frame.classes.listed(elements if differ else elements * total, expr.element.span)
    return listed if differ else replace(listed, repeat=(expr.variable, _count(count)))


def _made(expr: ast.Comprehension, items: Sequence[Semantic], frame: Frame) -> list[Semantic]:
    """The element for each value of the variable."""
    return [evaluate(expr.element, replace(frame, names={**frame.names, expr.variable: item})) for item in items]


def _count(count: Scalar) -> Attr:
    return count if count.text else count.value


def _is_count(expr: ast.Expr) -> bool:
    """Whether this is `range(n)`, of which a class can have any number."""
    return (
        isinstance(expr, ast.Call)
        and isinstance(expr.function, ast.Name)
        and expr.function.id == "range"
        and len(expr.args) == 1
    )


def _range(expr: ast.Expr, frame: Frame) -> Scalar:
    function = expr.function if isinstance(expr, ast.Call) and len(expr.args) == 1 else None
    if isinstance(expr, ast.Call) and isinstance(function, ast.Name) and function.id == "range":
        value = evaluate(expr.args[0].value, frame)
        if isinstance(value, Scalar) and arithmetic.is_integer(value):
            return value
    fail("E202", "a list of modules goes over `range(n)`", expr.span)


def _mentions(expr: object, name: str) -> bool:
    if isinstance(expr, ast.Name):
        return expr.id == name
    if isinstance(expr, tuple):
        return any(_mentions(e, name) for e in expr)
    if isinstance(expr, ast.Node):
        return any(_mentions(getattr(expr, f), name) for f in expr.__dataclass_fields__ if f != "span")
    return False


# As data -------------------------------------------------------------------------------------------------------------


def member_ir(made: object) -> Member:
    """A member as the emitters read it."""
    if isinstance(made, (TensorMember, ConstantMember)):
        return made
    assert isinstance(made, (LayerInstance, ModuleInstance, ListInstance)), made
    return submodule(made)


def submodule(made: Instance) -> Submodule:
    if made.shared:
        return SharedMember(made.shared)
    if isinstance(made, LayerInstance):
        return LayerMember(made.layer.path, tuple(_layer_args(made)))
    if isinstance(made, ModuleInstance):
        return ModuleMember(made.ir.class_name, made.args)
    if made.repeat is not None and made.elements:
        return RepeatMember(submodule(made.elements[0]), *made.repeat)
    elements = tuple(submodule(e) for e in made.elements)
    return SequentialMember(elements) if made.sequential else ListMember(elements)


def _layer_args(made: LayerInstance) -> list[tuple[str, Attr]]:
    found: list[tuple[str, Attr]] = []
    for text in made.given:
        shown, _, name = text.partition("=")
        value = made.args[name]
        found.append((shown, None if isinstance(value, Infer) else value))
    return found


def ties(made: Mapping[str, object], frame: Frame) -> tuple[tuple[str, str], ...]:
    """(`head.weight`, `embed.weight`) for each parameter that is shared."""
    paths = {p.value: path for path, p in frame.builder.params.items()}
    return tuple(
        (f"{layer.path}.{name}", paths[value])
        for each in made.values()
        for layer in _layers(each)
        for name, value in layer.tied.items()
    )


def _layers(made: object) -> list[LayerInstance]:
    """The layers that a member is, or is a list of."""
    if isinstance(made, ListInstance):
        return [layer for each in made.elements for layer in _layers(each)]
    return [made] if isinstance(made, LayerInstance) and not made.shared else []


def unknown_sizes(made: object) -> list[str]:
    """The layers of a member whose `_` no call has told."""
    waiting = [layer for layer in _layers(made) if any(isinstance(v, Infer) for v in layer.args.values())]
    return [layer.path for layer in waiting]
