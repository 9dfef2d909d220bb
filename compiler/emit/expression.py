"""A field's expression over columns, as PyTorch text."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.ops import OPS, Kind, Op
from tdsl.dsl import ast
from tdsl.dsl.categories import column_named, is_categories
from tdsl.dsl.diagnostics import Diagnostic, ProgramError, Span
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.program import Call, Constant
from tdsl.dsl.row_shapes import VIEWS
from tdsl.dsl.signatures import TRANSFORMS
from tdsl.dsl.statistics import MEAN, MISSING, is_standardized

# How tightly Python's operators bind; what binds tighter needs no parentheses within what binds looser.
PRECEDENCE = dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 1)
PRECEDENCE |= {"+": 4, "-": 4, "*": 5, "/": 5, "//": 5, "%": 5, "@": 5, "**": 7}
UNARY, ATOM = 6, 9
LOGICAL = {"and": "torch.logical_and", "or": "torch.logical_or", "not": "torch.logical_not"}
CASTS = {"float": "float", "int": "long", "bool": "bool"}
TABLE = ("column", "columns")
# A field's shape is that of a row, the table's has the rows before it.
ROW_SHAPES = ("reshape", "view")
# The cure of a function that fields do not have.
FILLED = 'columns fill in what is missing: `column("a", missing=0)`, or `missing="mean"` for the train split\'s mean'
STANDARDIZED = 'write `standardized(columns("a*"))`, by the mean and standard deviation of the train split'
# What other libraries do with columns, in lower case, and what is written instead.
INSTEAD = {
    **dict.fromkeys(("fillna", "fill_null", "simpleimputer", "impute", "nan_to_num"), FILLED),
    **dict.fromkeys(("standardscaler", "standardize", "standardise", "standardised", "zscore", "scale"), STANDARDIZED),
}
COMPUTED = 'a field is made of operators, numbers and functions of PyTorch, such as `(log(column("a")) - 3.2) / 1.5`'


def constant(value: Constant) -> str:
    """A folded constant as Python text; several are a list."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(constant, value))}]"
    assert not isinstance(value, Call)
    return _string(value) if isinstance(value, str) else repr(value)


def _string(value: str) -> str:
    """A string literal in double quotes, as the formatter of emitted code has it."""
    single = repr(value)
    return single if single[0] == '"' or '"' in value else f'"{single[1:-1]}"'


def expression(value: ast.Expr, consts: Mapping[str, Constant], field: str = "", table: str = "table") -> str:
    """`columns("p*") / 16` as `table.columns("p*") / 16`, of a field and a table of those names.

    Calls of ops become their PyTorch text. Raises a located `ProgramError` for what has no meaning over columns.
    """
    return _Printer(consts, field, table).text(value, 0)


def _mistake(message: str, span: Span, help: str | None = None) -> ProgramError:
    return ProgramError(Diagnostic("E455", message, span, help=help))


def _within_rows(op: Op, value: ast.Call, is_method: bool) -> bool:
    """Whether an op is along dimensions that are counted from the end: the first one is the rows'."""
    if op.name in VIEWS:
        given = value.args if is_method else value.args[1:]
        leads = any(arg.name == VIEWS[op.name][0][0] for arg in given) or any(arg.name is None for arg in given)
        return leads and all(_from_end(arg.value) for arg in given)
    return op.kind in (Kind.REDUCTION, Kind.ROW) and any(_from_end(arg.value) for arg in value.args)


def _from_end(value: ast.Expr) -> bool:
    if isinstance(value, (ast.ListExpr, ast.TupleExpr)):
        return bool(value.items) and all(map(_from_end, value.items))
    return isinstance(value, ast.Unary) and value.op == "-"


class _Printer:
    def __init__(self, consts: Mapping[str, Constant], field: str, table: str) -> None:
        self.consts = consts
        self.field = field
        self.table = table

    def text(self, value: ast.Expr, outer: int) -> str:
        """The text of `value` where the operator around it binds with strength `outer`."""
        text, strength = self._visit(value)
        return f"({text})" if strength < outer else text

    def _visit(self, value: ast.Expr) -> tuple[str, int]:
        match value:
            case ast.Literal():
                negative = isinstance(value.value, (int, float)) and value.value < 0
                return constant(value.value), UNARY if negative else ATOM
            case ast.Name(id=name) if name in self.consts:
                return constant(self.consts[name]), ATOM
            case ast.Unary():
                return self._unary(value)
            case ast.Binary():
                return self._binary(value)
            case ast.Call():
                return self._call(value), ATOM
            case ast.Index():
                return f"{self.text(value.value, ATOM)}[{', '.join(map(self._item, value.items))}]", ATOM
            case ast.ListExpr(items=items) | ast.TupleExpr(items=items):
                return f"[{', '.join(self.text(item, 0) for item in items)}]", ATOM
            case ast.Name(id=name):
                raise _mistake(f"`{name}` is not known in a field", value.span, help=f'a column is `column("{name}")`')
            case _:
                raise _mistake("a field is an expression over columns", value.span)

    def _unary(self, value: ast.Unary) -> tuple[str, int]:
        if value.op == "not":
            return f"{LOGICAL['not']}({self.text(value.operand, 0)})", ATOM
        return f"{value.op}{self.text(value.operand, UNARY)}", UNARY

    def _binary(self, value: ast.Binary) -> tuple[str, int]:
        if value.op in LOGICAL:
            return f"{LOGICAL[value.op]}({self.text(value.left, 0)}, {self.text(value.right, 0)})", ATOM
        strength = PRECEDENCE[value.op]
        # Power groups from the right, the others from the left; comparisons of comparisons always need parentheses.
        left = strength + (value.op == "**" or strength == 1)
        right = strength + (value.op != "**")
        return f"{self.text(value.left, left)} {value.op} {self.text(value.right, right)}", strength

    def _call(self, value: ast.Call) -> str:
        match value.function:
            case ast.Name() if is_categories(value):
                return f"{self.table}.column({constant(column_named(value))})"  # of the table with numbers in its place
            case ast.Name(id=name) if name in TABLE:
                return f"{self.table}.{name}({', '.join(map(self._of_column, value.args))})"
            case ast.Name() if is_standardized(value):
                return f"{self.table}.standardized({constant(self.field)}, {self._arguments(value)}, statistics)"
            case ast.Name(id="tensor"):
                return self._tensor(value)
            case ast.Name(id=name):
                return self._op(name, value, [])
            case ast.Attribute(value=owner, name=name) if name in CASTS and not value.args:
                return f"{self.text(owner, ATOM)}.{CASTS[name]}()"
            case ast.Attribute(value=owner, name=name):
                return self._op(name, value, [self.text(owner, ATOM)])
            case _:
                raise _mistake("this can't be called in a field", value.function.span)

    def _of_column(self, arg: ast.Argument) -> str:
        """The name of a column, or what is put in place of its missing values."""
        text = self.text(arg.value, 0)
        if arg.name not in (None, MISSING):
            raise _mistake(f"a column has no argument `{arg.name}`", arg.value.span, FILLED)
        if arg.name == MISSING and text == constant(MEAN):
            return f"{MISSING}=statistics.mean"
        return text if arg.name is None else f"{arg.name}={text}"

    def _tensor(self, value: ast.Call) -> str:
        """Constants, one for each element along the last dimension of the rows."""
        text = self._arguments(value)
        if len(value.args) != 1 or value.args[0].name is not None or '"' in text or text.count("[") > 1:
            raise _mistake("`tensor` in a field takes one list of numbers", value.span, help="`tensor([0.5, 0.25])`")
        return f"torch.tensor({text})"

    def _op(self, name: str, value: ast.Call, owner: list[str]) -> str:
        op = OPS.get(name)
        if op is None or not isinstance(op.torch, str) or not op.torch.startswith(("torch.", "F.", ".")):
            raise _mistake(f"`{name}` can't be used in a field", value.function.span, _instead(name))
        if name in ROW_SHAPES and owner:
            return f"{owner[0]}.reshape(-1, {self._arguments(value)})"
        if op.kind is not Kind.POINTWISE and not _within_rows(op, value, bool(owner)):
            help = "compute it element by element, or along a dimension counted from the end, as `dim=-1`"
            raise _mistake(f"`{name}` in a field would mix its rows", value.function.span, help)
        given = [*owner, *map(self._argument, value.args)]
        if op.torch.startswith("."):
            first, *rest = given or [""]
            if not owner and value.args:
                first = self.text(value.args[0].value, ATOM)
            return f"{first}{op.torch}({', '.join(rest)})"
        return f"{op.torch.replace('F.', 'torch.nn.functional.', 1)}({', '.join(given)})"

    def _arguments(self, value: ast.Call) -> str:
        return ", ".join(map(self._argument, value.args))

    def _argument(self, arg: ast.Argument) -> str:
        return self.text(arg.value, 0) if arg.name is None else f"{arg.name}={self.text(arg.value, 0)}"

    def _item(self, item: ast.Expr) -> str:
        match item:
            case ast.Ellipsis_():
                return "..."
            case ast.Slice(start=start, stop=stop, step=step):
                parts = ["" if part is None else self.text(part, 0) for part in (start, stop)]
                return ":".join(parts if step is None else [*parts, self.text(step, 0)])
        return self.text(item, 0)


def _instead(name: str) -> str | None:
    """What may be written instead of a call that no field takes."""
    if name in TRANSFORMS:
        return f"write it in `transform FIELD = [{name}(...)]`"
    if name.lower() in INSTEAD:
        return INSTEAD[name.lower()]
    return None if name in OPS else did_you_mean(name, OPS) or COMPUTED
