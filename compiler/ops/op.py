"""What an op is: one record, in one place, and the registry that holds them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tdsl.compiler.ir import Attr, Operand, Scalar, Structure, TensorType, Value
from tdsl.compiler.ops.cost import Call, Keeps
from tdsl.dsl.diagnostics import Span


class Kind(Enum):
    """How an op fuses."""

    POINTWISE = "pointwise"  # each element of the result from the same element of the (broadcast) inputs
    REDUCTION = "reduction"  # trailing dimensions to one number a row
    ROW = "row"  # softmax-like: a row of the result from a row of the input
    RANDOM = "random"  # draws numbers; pointwise but for the seed
    VIEW = "view"  # index arithmetic alone
    LIBRARY = "library"  # left to PyTorch
    STRUCTURED = "structured"  # its own kernel template


@dataclass(frozen=True)
class Arg:
    """One argument of a signature.

    `kind`: `tensor` (a Value), `operand` (a Value or a number), `tensors` (a list of Values), or an attribute: `int`,
    `float`, `bool`, `str`, `size`, `sizes` (an int or several), `dtype`, `any`; or `device` or `built`, which the
    builder fills in and no program gives. A `?` after it allows `none`.
    `variadic` takes the remaining positional arguments as a tuple, as `x.reshape(B, -1)` does.
    """

    name: str
    kind: str
    default: Any = None
    required: bool = True
    keyword_only: bool = False
    optional: bool = False
    variadic: bool = False

    @property
    def is_built(self) -> bool:
        """Whether the builder fills it in."""
        return self.kind in ("device", "built")

    @property
    def is_operand(self) -> bool:
        return self.kind in ("tensor", "operand", "tensors")


Signature = tuple[Arg, ...]

_DEFAULTS: Mapping[str, Any] = {"none": None, "true": True, "false": False, "inf": float("inf")}


def signature(text: str) -> Signature:
    """Read `"input: tensor, dim: int = -1, *, keepdim: bool = false"`; `*shape: size` is variadic."""
    found: list[Arg] = []
    keyword_only = False
    for part in filter(None, (p.strip() for p in text.split(","))):
        if part == "*":
            keyword_only = True
            continue
        declared, has_default, default = part.partition("=")
        name, _, kind = (p.strip() for p in declared.partition(":"))
        found.append(
            Arg(
                name=name.lstrip("*"),
                kind=kind.rstrip("?"),
                default=_default(default.strip()) if has_default else None,
                required=not has_default,
                keyword_only=keyword_only,
                optional=kind.endswith("?"),
                variadic=name.startswith("*"),
            )
        )
    return tuple(found)


def _default(text: str) -> Any:
    if text in _DEFAULTS:
        return _DEFAULTS[text]
    if text[0] == '"':
        return text.strip('"')
    return float(text) if any(c in text for c in ".e") else int(text)


@dataclass(frozen=True)
class Bound:
    """A call whose arguments are matched with the signature: operands in its order, attributes by name, all filled in.

    An optional operand that is not given is `Scalar(None)`.
    """

    op: Op
    inputs: tuple[Operand, ...]
    attrs: Mapping[str, Attr]
    span: Span | None

    def type(self, index: int) -> TensorType:
        """Type of a tensor operand; a number is a zero-dimensional tensor of its own dtype."""
        operand = self.inputs[index]
        return operand.type if isinstance(operand, Value) else TensorType(operand.dtype, ())

    def given(self, index: int) -> bool:
        """Whether the optional operand is there."""
        operand = self.inputs[index]
        return isinstance(operand, Value) or operand.value is not None or bool(operand.text)


Types = tuple[TensorType, ...]


@dataclass(frozen=True)
class Cut:
    """How a view cuts a tensor into pieces that lie side by side along dimension `dim` (counted from the left).

    `whole` where the pieces make up all of it; otherwise the view has one piece.
    """

    dim: int
    whole: bool


@dataclass(frozen=True)
class Op:
    """One operation of the language.

    - `signature`: PyTorch's arguments, names and defaults.
    - `infer`: shape and dtype rule: the result types, or a located `ProgramError`.
    - `torch`: PyTorch text. `torch.exp` and `F.gelu` are functions, `.chunk` a method, `+` an operator, `-x` a unary
      one; a callable `(operand texts, attribute values) -> str` writes what none of these can.
    - `triton`: for a primitive, the text for one element, `{0}`, `{1}` standing for its operands.
    - `lower`: for an op that is not primitive, how it is made of others: `lower(t, *operands, **attrs)` with a
      `Tracer`, on canonical [rows, columns] tensors, its reduction running over dimension 1.
    - `vjp`: for a primitive, `vjp(t, g, y, *operands, **attrs)`: the gradients of its operands (None: none) from the
      gradient `g` of its result `y`. It returns IR, which is then optimised as the forward is.
    - `flops`: floating-point operations for an element of the result (of the input, for a reduction); 0 where elements
      are moved, and none is computed.
    - `product`: for a product, the floating-point operations of a call. A run in lower precision computes it in that.
    - `product_backward`: how often as many its backward has, from which operands need a gradient; by default once for
      each that does, but for a bias, whose gradient is a sum.
    - `looks_up`: the operand of which no more is read than is yielded.
    - `keeps`, `keeps_more`: where PyTorch computes it, what its backward reads again, and the bytes of what it keeps
      beside that.
    - `same_memory`: whether its result has the memory of its input, although it is no index arithmetic.
    - `aliases`: other names for it.
    - `effects`: whether a call does more than yield its result (draws random numbers, counts a batch), so that two
      equal calls are still two.
    - `arguments`: for an op that layers are: what is written between the parentheses of a layer's call, from the texts
      of its operands and its attributes. By default the operands that are not the layer's own parameters.
    - `targets`: how the names of several results are written: `("y", "(h, c)")` from `("y", "h", "c")`.
    - `overloads`: the other forms that PyTorch calls by this name: the first one that the arguments fit is called.
    - `results`: the names of several results, `("values", "indices")`.
    - `unfused`: which calls of a fusible op are left to PyTorch all the same.
    - `cut`: of a view: how it cuts its input, None where a call does not, or by numbers that only a module knows.
    - `moves`: of a view: the order that it puts dimensions in (dimension i is dimension `order[i]` of the input),
      where the last one stays in its place; None where a call does something else.
    - `total`: "sum" or "mean" where a reduction is one: such a reduction may run over more than a row.
    - `alone`: whether a single call is worth a kernel of ours.
    - `casts`: whether what computes it keeps the casts of its parameters itself.
    - `structure`: how a template computes a call; None where none does.
    """

    name: str
    kind: Kind
    signature: Signature
    infer: Callable[[Bound], Types]
    torch: str | Callable[..., str]
    triton: str = ""
    lower: Callable[..., Any] | None = None
    vjp: Callable[..., Any] | None = None
    flops: float = 1
    product: Callable[[Call], int] | None = None
    product_backward: Callable[[Sequence[bool]], float] | None = None
    looks_up: int | None = None
    keeps: Keeps | Callable[[Call], Keeps] = Keeps.INPUTS
    keeps_more: Callable[[Call], int] | None = None
    same_memory: bool = False
    aliases: tuple[str, ...] = ()
    effects: bool = False
    arguments: Callable[[Sequence[str], Mapping[str, Any]], list[str]] | None = None
    targets: Callable[[Sequence[str]], tuple[str, ...]] | None = None
    overloads: tuple[Op, ...] = ()
    results: tuple[str, ...] = ()
    unfused: Callable[[Bound], bool] | None = None
    cut: Callable[[Bound], Cut | None] | None = None
    moves: Callable[[Bound], tuple[int, ...] | None] | None = None
    total: str = ""
    alone: bool = False
    casts: bool = False
    structure: Callable[[Bound], Structure | None] | None = None
    doc: str = ""

    @property
    def fusible(self) -> bool:
        """Whether a kernel of ours can compute it."""
        return bool(self.triton or self.lower)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Add an op under its name and aliases."""
    for name in (op.name, *op.aliases):
        if name in OPS:
            raise ValueError(f"op {name!r} is registered twice")
        OPS[name] = op
    return op


def library(name: str, given: str, infer: Callable[[Bound], Types], torch: Any = None, **more: Any) -> Op:
    """Register an op that is left to PyTorch, by default to its functional form."""
    return register(Op(name, Kind.LIBRARY, signature(given), infer, torch or f"F.{name}", **more))


def movement(name: str, given: str, infer: Callable[[Bound], Types], torch: Any = None, **more: Any) -> Op:
    """Register an op, left to PyTorch, that moves elements and computes none."""
    return library(name, given, infer, torch, **{"flops": 0, "keeps": Keeps.NOTHING, **more})


# Ops of the compiler's own, which a program can't name.
INTERNAL: set[str] = set()


def internal(*names: str) -> None:
    """Keep these ops from programs."""
    INTERNAL.update(names)


def bind_plain(op: Op, operands: Iterable[Operand], attrs: Mapping[str, Attr], span: Span | None = None) -> Bound:
    """Bind a call made by the compiler itself: operands in order, attributes by name, defaults filled in."""
    given = tuple(operands)
    wanted = [arg for arg in op.signature if arg.is_operand]
    filled = given + (Scalar(None),) * (len(wanted) - len(given))
    full = {arg.name: attrs.get(arg.name, arg.default) for arg in op.signature if not arg.is_operand}
    return Bound(op, filled, full, span)
