"""From what the parser reduces to syntax-tree nodes: a method for each action that the grammar names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tdsl.dsl import ast, habits
from tdsl.dsl.diagnostics import Diagnostic, Reporter, Source, Span, fail
from tdsl.dsl.lexer import Token
from tdsl.dsl.names import did_you_mean

KINDS = ("int", "float", "bool", "str", "fn", "module")
DTYPES = ("float", "f64", "f32", "f16", "bf16", "int", "i64", "i32", "i16", "i8", "u8", "bool")
TENSORS = "a tensor is an input of `forward`, or a member: `param NAME: [dim] = zeros()`"
ESCAPES = {"n": "\n", "t": "\t"}
WORDS = {"true": True, "false": False, "none": None}
# What Python writers type, and how it is spelt here.
PYTHON_WORDS = {"True": "true", "False": "false", "None": "none"}
Targets = tuple[ast.Target | ast.Nested, ...]


class Builder:
    """Actions take the span of what they were reduced from, then the values of the symbols.

    What is merely spelt as PyTorch spells it is reported, and taken for what it means, so that what follows is checked.
    """

    def __init__(self, source: Source, reporter: Reporter) -> None:
        self.source = source
        self.reporter = reporter
        self.respelt: set[ast.Expr] = set()

    def action(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self, name)
        return found

    def span(self, token: Token) -> Span:
        return Span(self.source, token.start, token.end)

    def misspelt(self, message: str, at: Span, help: str) -> None:
        """Report a habit of Python or PyTorch."""
        self.reporter.add(Diagnostic("E019", message, at, help=help))

    def doc(self, span: Span) -> str:
        """The comment lines directly above the line that `span` begins on."""
        number = span.line - 1
        lines: list[str] = []
        while number >= 1 and (line := self.source.line(number).strip()).startswith("#"):
            lines.append(line[1:].removeprefix(" ").rstrip())
            number -= 1
        return "\n".join(reversed(lines))

    def head(self, at: Span, name: Token) -> tuple[Span, str, Span, str]:
        """The first members of every `Declaration`."""
        return at, name.text, self.span(name), self.doc(at)

    # Declarations

    def start(self, at: Span, *found: ast.Import | ast.Declaration) -> ast.File:
        imports = tuple(item for item in found if isinstance(item, ast.Import))
        return ast.File(imports, tuple(item for item in found if isinstance(item, ast.Declaration)))

    def import_(self, at: Span, path: Token) -> ast.Import:
        return ast.Import(self.span(path), text_of(path))

    def const(self, at: Span, name: Token, value: ast.Expr) -> ast.Const:
        return ast.Const(*self.head(at, name), value)

    def function(self, at: Span, name: Token, inputs: list[Any], outputs: list[Any], body: list[Any]) -> ast.Function:
        return ast.Function(*self.head(at, name), tuple(inputs), tuple(outputs), tuple(body))

    def fn(self, at: Span, name: Token, inputs: list[Any], *rest: Any) -> ast.Function:
        wrong = next((each for each in inputs if isinstance(each, ast.Parameter) and each.kind == "module"), None)
        if wrong is not None:
            help = "make the `fn` a `module`, which may have it as a parameter"
            fail("E014", "a `fn` makes no modules", wrong.span, help=help)
        return self.function(at, name, inputs, *rest)

    def forward(self, at: Span, name: Token, inputs: list[Any], *rest: Any) -> ast.Function:
        wrong = next((each for each in inputs if isinstance(each, ast.Parameter)), None)
        if wrong is not None:
            written = f"{wrong.name}: {wrong.kind}"
            single = f"; a tensor of one number is `{written}[]`" if wrong.kind in DTYPES else ""
            help = f"make it a parameter of the module: `module Net({written}) {{ ... }}`{single}"
            fail("E015", "an input of `forward` is a tensor", wrong.span, f"`{wrong.kind}` has no sizes", help=help)
        return self.function(at, name, inputs, *rest)

    def extern_module(self, at: Span, name: Token, params: list[Any], *rest: Any) -> ast.ExternModule:
        inputs, outputs, target = rest
        head = self.head(at, name)
        where = self.span(target)
        return ast.ExternModule(*head, tuple(params), tuple(inputs), tuple(outputs), text_of(target), where)

    def params(self, at: Span, *found: ast.Parameter) -> list[ast.Parameter]:
        return list(found)

    def parameter(self, at: Span, name: Token, kind: Token, default: ast.Expr | None = None) -> ast.Parameter:
        if kind.text not in KINDS:
            message = f"`{kind.text}` is not a kind of parameter"
            fail("E014", message, self.span(kind), "one of int, float, bool, str, fn, module",
                 help=habits.kind(kind.text) or did_you_mean(kind.text, KINDS) or TENSORS)  # fmt: skip
        return ast.Parameter(at, name.text, kind.text, default)

    def inputs(self, at: Span, *found: ast.Input | ast.Parameter) -> list[ast.Input | ast.Parameter]:
        return list(found)

    def input(self, at: Span, name: Token, type: ast.TypeExpr, default: ast.Expr | None = None) -> ast.Input:
        if default is not None:
            help = f"a number that may be left out has a kind: `{name.text}: float = {default.span.text}`"
            fail("E014", "a tensor has no default", default.span, f"`{name.text}` is a tensor", help=help)
        return ast.Input(at, name.text, type)

    def input_kind(self, at: Span, name: Token, kind: Token, default: ast.Expr | None = None) -> ast.Parameter:
        """What has no sizes is a parameter of the `fn`."""
        if kind.text not in KINDS:
            self.type(self.span(kind), kind)
        return ast.Parameter(at, name.text, kind.text, default)

    def outputs(self, at: Span, *found: ast.TypeExpr) -> list[ast.TypeExpr]:
        return list(found)

    def type(self, at: Span, dtype: Token) -> ast.TypeExpr:
        self.dtype(dtype)
        fail("E015", "a tensor type needs its sizes", at, help=f"a single number is `{dtype.text}[]`")

    def float_type(self, at: Span, *dims: ast.Expr) -> ast.TypeExpr:
        return ast.TypeExpr(at, None, dims)

    def tensor_type(self, at: Span, dtype: Token, *dims: ast.Expr) -> ast.TypeExpr:
        self.dtype(dtype)
        return ast.TypeExpr(at, dtype.text, dims)

    def dtype(self, name: Token) -> None:
        if name.text not in DTYPES:
            help = habits.dtype(name.text) or did_you_mean(name.text, DTYPES) or f"the dtypes are {', '.join(DTYPES)}"
            fail("E013", f"`{name.text}` is not a dtype", self.span(name), help=help)

    def module(self, at: Span, name: Token, params: list[Any], *found: Any) -> ast.Module:
        forwards = [item for item in found if isinstance(item, ast.Function)]
        if len(forwards) > 1:
            note = f"the first is at {forwards[0].name_span}"
            help = "make it a `fn`, or a module of its own"
            fail("E101", "a second `forward` in one module", forwards[1].name_span, notes=(note,), help=help)
        members = tuple(item for item in found if not isinstance(item, ast.Function))
        return ast.Module(*self.head(at, name), tuple(params), members, forwards[0] if forwards else None)

    def param(self, at: Span, name: Token, type: ast.TypeExpr, value: ast.Expr) -> ast.ParamMember:
        return ast.ParamMember(*self.head(at, name), type, value, True)

    def buffer(self, at: Span, name: Token, type: ast.TypeExpr, value: ast.Expr) -> ast.ParamMember:
        return ast.ParamMember(*self.head(at, name), type, value, False)

    def member(self, at: Span, name: Token, value: ast.Expr) -> ast.Member:
        return ast.Member(*self.head(at, name), value)

    # Sections

    def data(self, at: Span, name: Token, *found: Any) -> ast.Data:
        settings = tuple(item for item in found if isinstance(item, ast.Setting))
        fields = tuple(item for item in found if isinstance(item, ast.Field))
        transforms = tuple(item for item in found if isinstance(item, ast.Transform))
        return ast.Data(*self.head(at, name), settings, fields, transforms)

    def field(self, at: Span, name: Token, type: ast.TypeExpr, value: ast.Expr) -> ast.Field:
        return ast.Field(*self.head(at, name), type, value)

    def transform(self, at: Span, field: Token, value: ast.Expr) -> ast.Transform:
        return ast.Transform(at, None, field.text, self.span(field), value)

    def transform_split(self, at: Span, split: Token, field: Token, value: ast.Expr) -> ast.Transform:
        return ast.Transform(at, split.text, field.text, self.span(field), value)

    def train(self, at: Span, name: Token, *found: Any) -> ast.Train:
        return ast.Train(*self.head(at, name), *_run_parts(found))

    def evaluate(self, at: Span, name: Token, *found: Any) -> ast.Evaluate:
        return ast.Evaluate(*self.head(at, name), *_run_parts(found))

    def block(self, at: Span, name: Token, parameter: Token, body: list[Any]) -> ast.Block:
        target = ast.Target(self.span(parameter), parameter.text)
        return ast.Block(at, name.text, self.span(name), target, tuple(body))

    def section(self, at: Span, name: Token, *settings: ast.Setting) -> ast.Section:
        return ast.Section(at, name.text, self.span(name), None, settings)

    def pattern_section(self, at: Span, name: Token, pattern: Token, *settings: ast.Setting) -> ast.Section:
        return ast.Section(at, name.text, self.span(name), text_of(pattern), settings)

    def setting(self, at: Span, name: Token, value: ast.Expr) -> ast.Setting:
        return ast.Setting(*self.head(at, name), value)

    def flag(self, at: Span, name: Token) -> ast.Setting:
        return ast.Setting(*self.head(at, name), ast.Literal(at, True))

    # Statements

    def body(self, at: Span, *statements: ast.Statement) -> list[ast.Statement]:
        return list(statements)

    def assign(self, at: Span, targets: Targets, values: tuple[ast.Expr, ...]) -> ast.Assign:
        only = targets[0]
        # `(a, b) = f(x)` is `a, b = f(x)`; `(a,)` takes a tuple of one apart.
        if len(targets) == 1 and isinstance(only, ast.Nested) and len(only.targets) > 1:
            targets = only.targets
        if len(targets) > 1:
            values = _opened(values)
            if len(values) not in (1, len(targets)):
                message = f"{len(targets)} names are given {len(values)} values"
                help = "write as many values as names; a name that nothing uses may be `_`"
                fail("E020", message, values[0].span.to(values[-1].span), help=help)
        elif len(values) > 1:
            values = (ast.TupleExpr(values[0].span.to(values[-1].span), values),)
        return ast.Assign(at, targets, values)

    def targets(self, at: Span, *targets: ast.Target | ast.Nested) -> Targets:
        return targets

    def target(self, at: Span, name: Token) -> ast.Target:
        return ast.Target(at, name.text)

    def nested(self, at: Span, *targets: ast.Target | ast.Nested) -> ast.Nested:
        return ast.Nested(at, targets)

    def values(self, at: Span, *values: ast.Expr) -> tuple[ast.Expr, ...]:
        return values

    def return_(self, at: Span, values: tuple[ast.Expr, ...]) -> ast.Return:
        return ast.Return(at, _opened(values))

    def for_(self, at: Span, variable: Token, iterable: ast.Expr, body: list[Any]) -> ast.For:
        return ast.For(at, ast.Target(self.span(variable), variable.text), iterable, tuple(body))

    def if_(self, at: Span, condition: ast.Expr, body: list[Any]) -> ast.If:
        return ast.If(at, condition, tuple(body), ())

    def if_else(self, at: Span, condition: ast.Expr, body: list[Any], otherwise: Any) -> ast.If:
        rest = (otherwise,) if isinstance(otherwise, ast.If) else tuple(otherwise)
        return ast.If(at, condition, tuple(body), rest)

    def track(self, at: Span, name: Token, value: ast.Expr) -> ast.Track:
        return ast.Track(at, ast.Target(self.span(name), name.text), value)

    def assume(self, at: Span, condition: ast.Expr) -> ast.Assume:
        return ast.Assume(at, condition)

    def no_grad(self, at: Span, body: list[Any]) -> ast.NoGrad:
        return ast.NoGrad(at, tuple(body))

    # Expressions

    def pipe(self, at: Span, value: ast.Expr, stage: ast.Expr) -> ast.Pipe:
        if not isinstance(stage, (ast.Name, ast.Attribute, ast.Index, ast.Call)):
            help = "`x |> f(a)` is `f(x, a)`"
            fail("E018", "only a function, a module or a list of modules can follow `|>`", stage.span, help=help)
        return ast.Pipe(at, value, stage)

    def conditional(self, at: Span, then: ast.Expr, condition: ast.Expr, otherwise: ast.Expr) -> ast.Conditional:
        return ast.Conditional(at, condition, then, otherwise)

    def binary(self, at: Span, left: ast.Expr, operator: Token, right: ast.Expr) -> ast.Binary:
        return ast.Binary(at, operator.text, left, right)

    def unary(self, at: Span, operator: Token, operand: ast.Expr) -> ast.Unary:
        return ast.Unary(at, operator.text, operand)

    def call(self, at: Span, function: ast.Expr, *args: ast.Argument) -> ast.Call:
        args = self.without_parameters(function, args)
        named: set[str] = set()
        for argument in args:
            if argument.name is None and named:
                help = "put it first, or give its name"
                fail("E016", "an argument without a name after one with a name", argument.span, help=help)
            if argument.name in named:
                help = "keep one of the two"
                fail("E017", f"the argument `{argument.name}` is given twice", argument.span, help=help)
            named |= {argument.name} if argument.name else set()
        return ast.Call(at, function, args)

    def without_parameters(self, function: ast.Expr, args: tuple[ast.Argument, ...]) -> tuple[ast.Argument, ...]:
        """`Adam(model.parameters(), lr=...)`: the first argument, reported once, is left out."""
        given = args[0].value if args else None
        owner = given.function if isinstance(given, ast.Call) else None
        if not isinstance(owner, ast.Attribute) or owner.name != "parameters" or not isinstance(function, ast.Name):
            return args
        if function not in self.respelt:
            self.misspelt(f"`{function.id}` takes no parameters", args[0].span, habits.METHODS["parameters"])
        return args[1:]

    def argument(self, at: Span, value: ast.Expr) -> ast.Argument:
        return ast.Argument(at, None, value)

    def keyword_argument(self, at: Span, name: Token, value: ast.Expr) -> ast.Argument:
        return ast.Argument(at, name.text, value)

    def attribute(self, at: Span, value: ast.Expr, name: Token) -> ast.Expr:
        prefix = habits.prefix_of(value, name.text)
        if prefix is not None and name.text not in habits.INNER:
            return self.unprefixed(at, prefix, name)
        if isinstance(value, ast.Name) and value.id == "self":
            help = f"members are named as they are: write `{name.text}`"
            self.misspelt("there is no `self`", value.span, help)
            return ast.Name(self.span(name), name.text)
        return ast.Attribute(at, value, name.text, self.span(name))

    def unprefixed(self, at: Span, prefix: str, name: Token) -> ast.Expr:
        """`nn.Linear` taken for `Linear`, `torch.float32` for `f32`."""
        number = habits.NUMBERS.get(name.text) if prefix in ("math", "torch") else None
        word = repr(number) if number is not None else habits.DTYPES.get(name.text, name.text)
        cure = habits.unknown_name(name.text) if word == name.text else None
        help = f"write `{word}`" if word != name.text else f"built-in names have no prefix: write `{word}`"
        if cure is None:
            self.misspelt(f"there is no `{prefix}`", at, help)
        else:  # where the name is looked up, nothing more is told
            self.misspelt(f"there is no `{prefix}.{name.text}`", self.span(name), cure)
        found = ast.Literal(at, number) if number is not None else ast.Name(self.span(name), word)
        self.respelt.add(found)
        return found

    def index(self, at: Span, value: ast.Expr, *items: ast.Expr) -> ast.Index:
        if not items:
            fail("E012", "expected an index within `[ ]`", at, help="such as `x[0]`, `x[:, 0]` or `x[..., none]`")
        return ast.Index(at, value, items)

    def slice(self, at: Span, *parts: ast.Expr | Token) -> ast.Slice:
        bounds: list[ast.Expr | None] = [None, None, None]
        position = 0
        for part in parts:
            if isinstance(part, Token):
                position += 1
            else:
                bounds[position] = part
        return ast.Slice(at, *bounds)

    def ellipsis(self, at: Span) -> ast.Ellipsis_:
        return ast.Ellipsis_(at)

    def name(self, at: Span, name: Token) -> ast.Expr:
        if name.text in PYTHON_WORDS:
            self.misspelt(f"`{name.text}` is not a value", at, f"it is spelt `{PYTHON_WORDS[name.text]}`")
            return ast.Literal(at, WORDS[PYTHON_WORDS[name.text]])
        return ast.Name(at, name.text)

    def number(self, at: Span, token: Token) -> ast.Literal:
        digits = token.text.replace("_", "")
        return ast.Literal(at, int(digits) if digits.isdigit() else float(digits))

    def string(self, at: Span, token: Token) -> ast.Literal:
        return ast.Literal(at, text_of(token))

    def word(self, at: Span, token: Token) -> ast.Literal:
        return ast.Literal(at, WORDS[token.text])

    def tuple(self, at: Span, *items: ast.Expr) -> ast.TupleExpr:
        return ast.TupleExpr(at, items)

    def list(self, at: Span, *items: ast.Expr) -> ast.ListExpr:
        return ast.ListExpr(at, items)

    def comprehension(self, at: Span, element: ast.Expr, variable: Token, iterable: ast.Expr) -> ast.Comprehension:
        return ast.Comprehension(at, element, variable.text, iterable)


def text_of(token: Token) -> str:
    """What a string literal stands for."""
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), token.text[1:-1])


def _opened(values: tuple[ast.Expr, ...]) -> tuple[ast.Expr, ...]:
    """`a, b` where the values are one tuple `(a, b)`."""
    if len(values) == 1 and isinstance(values[0], ast.TupleExpr):
        return values[0].items
    return values


def _run_parts(
    found: tuple[Any, ...],
) -> tuple[tuple[ast.Setting, ...], tuple[ast.Block, ...], tuple[ast.Section, ...]]:
    settings = tuple(item for item in found if isinstance(item, ast.Setting))
    blocks = tuple(item for item in found if isinstance(item, ast.Block))
    sections = tuple(item for item in found if isinstance(item, ast.Section))
    return settings, blocks, sections
