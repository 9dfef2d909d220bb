"""What PyTorch and Python writers type, and how it is written here: the cures of the commonest first guesses."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.dsl import ast
from tdsl.dsl.signatures import METRICS, OPTIMIZERS, SCHEDULERS, TRANSFORMS

ONE_OPTIMIZER = 'a run has one: `group "critic.*" { lr = 1e-4 }` gives some parameters arguments of their own'
ONE_LOSS = (
    "a run has one, the sum of all that counts; what plays against another part has its gradient turned around, as "
    "that of `2 * detach(x) - x` is"
)
# Prefixes of built-in names. The first are names that no program can declare; the others are taken for prefixes only
# before a name that they have.
RESERVED = frozenset(["torch", "nn", "F", "math"])
PREFIXES: Mapping[str, frozenset[str]] = {
    "optim": frozenset([*OPTIMIZERS, *SCHEDULERS, "lr_scheduler"]),
    "lr_scheduler": frozenset(SCHEDULERS),
    "torchmetrics": frozenset(METRICS),
    "torchvision": frozenset(["transforms", "datasets"]),
    "transforms": frozenset([*TRANSFORMS, "v2"]),
    "T": frozenset(TRANSFORMS),
    "v2": frozenset(TRANSFORMS),
    "einops": frozenset(["rearrange", "reduce", "repeat", "einsum"]),
}
# Packages within `torch`: what follows them is the name.
INNER = frozenset(
    ["nn", "functional", "init", "optim", "lr_scheduler", "linalg", "special", "utils", "cuda", "amp", "autograd",
     "transforms", "v2", "datasets"]
)  # fmt: skip
DTYPES: Mapping[str, str] = {
    "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "double": "f64", "half": "f16",
    "int64": "int", "long": "int", "int32": "i32", "int16": "i16", "short": "i16", "int8": "i8", "uint8": "u8",
    "boolean": "bool", "integer": "int", "str": "int", "string": "int",
}  # fmt: skip
TENSORS = frozenset(["Tensor", "LongTensor", "FloatTensor", "BoolTensor", "tensor", "Array", "ndarray"])
NUMBERS: Mapping[str, float] = {"pi": 3.141592653589793, "e": 2.718281828459045}

# Words that begin a statement elsewhere, and what stands in their place.
WORDS: Mapping[str, str] = {
    "elif": "write `else if COND { }`",
    "def": "a function is `fn f(x: float[B, 64]) -> float[B, 10] { ... }`, in a module `forward(...) -> ... { }`",
    "class": "write `module Net(hidden: int) { ... }`: members, then `forward(x: float[B, 8]) -> float[B, 2] { ... }`",
    "lambda": "declare a `fn` and give its name",
    "from": 'PyTorch\'s names are there already; another file of yours is `import "file.model"`',
    "while": "loops are `for i in range(n) { }`",
    "is": "compare with `==`",
    "with": "write `no_grad { ... }` for `with torch.no_grad():`",
    "assert": "write `assume COND`",
    "pass": "leave the block empty",
    "del": "leave it out: memory is freed by itself",
    "global": "declare a `const`",
    "yield": "return a tensor, or several: `return a, b`",
    "raise": "a condition that must hold is `assume COND`",
    "try": "a condition that must hold is `assume COND`",
    "as": "leave it out: a name is used as it is declared",
    "True": "it is spelt `true`",
    "False": "it is spelt `false`",
    "None": "it is spelt `none`",
}
OTHER_WORDS = frozenset(["let", "var", "val", "auto", "mut", "static", "final", "new"])

# Names that are no built-ins, and what does their work.
NAMES: Mapping[str, str] = {
    "self": "members are named as they are: `up(x)` for `self.up(x)`",
    "super": "a module needs no constructor: its members are `NAME = ...`",
    "print": "a number is logged by `track NAME = value`",
    "enumerate": "write `for i in range(n) { }` and index by `i`",
    "zip": "write `for i in range(n) { }` and index by `i`",
    "isinstance": "types are known when the program is checked",
    "Tensor": "a tensor's type is written with its sizes: `float[B, 64]`",
    "Module": "a module is declared: `module Name(params) { ... }`",
    "ModuleList": "a list of modules is written as one: `[Linear(8, 8) for i in range(3)]`",
    "Parameter": "a parameter is a member: `param weight: [dim] = zeros()`",
    "register_buffer": "a buffer is a member: `buffer mask: [dim] = ones()`",
    "DataLoader": "declare a `data`: `batch_size` is a setting of the run, `workers` one of the data",
    "Dataset": "declare a `data`: `data Digits { source = csv(\"digits.csv\") ... }`",
    "load_state_dict": "write `init_from = \"weights.safetensors\"` in the run",
    "torch": "PyTorch's names are built in: write `relu(x)` for `torch.relu(x)`",
    "nn": "PyTorch's names are built in: write `Linear(8, 8)` for `nn.Linear(8, 8)`",
    "F": "PyTorch's names are built in: write `gelu(x)` for `F.gelu(x)`",
    "np": "PyTorch's names are built in: write `sqrt(x)`",
    "concat": "did you mean `cat`?",
    "concatenate": "did you mean `cat`?",
    "scaled_dot_product_attention": "write `attention(q, k, v, causal=true)`",
    "optimizer": "the run knows its optimizer: leave it out",
    "device": "leave it out: the run chooses the device (`--device`)",
    "cdist": "write `(x[:, none] - y[none, :]).norm(dim=-1)`",
    "nonzero": "its result has no known size: choose by `where(mask, a, b)`",
    "masked_select": "its result has no known size: choose by `where(mask, a, b)`",
    "unique": "its result has no known size: numbers of classes are `Digits.num_classes`",
    "IoU": "did you mean `JaccardIndex`?",
    "MeanIoU": "did you mean `JaccardIndex`?",
    "pd": "files are read by a source: `source = csv(\"data.csv\")`",
    "inf": "write a number large enough, such as 1e30",
}  # fmt: skip
LOSSES: Mapping[str, str] = {
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "nll_loss",
    "MSELoss": "mse_loss",
    "L1Loss": "l1_loss",
    "SmoothL1Loss": "smooth_l1_loss",
    "HuberLoss": "huber_loss",
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "KLDivLoss": "kl_div",
    "TripletMarginLoss": "triplet_margin_loss",
    "MarginRankingLoss": "margin_ranking_loss",
    "CosineEmbeddingLoss": "cosine_embedding_loss",
    "HingeEmbeddingLoss": "hinge_embedding_loss",
    "MultiMarginLoss": "multi_margin_loss",
    "GaussianNLLLoss": "gaussian_nll_loss",
    "PoissonNLLLoss": "poisson_nll_loss",
    "CTCLoss": "ctc_loss",
}

_DEVICE = "leave it out: the run chooses the device (`--device`)"
_TRAINS = "leave it out: the run does this"
METHODS: Mapping[str, str] = {
    "cuda": _DEVICE,
    "cpu": _DEVICE,
    "device": _DEVICE,
    "dim": "the number of dimensions is known: write it",
    "item": "leave it out: a scalar is a tensor without dimensions, and `track NAME = x` logs it",
    "tolist": "leave it out: values are known only when the program runs",
    "numpy": "leave it out: what stays is a tensor",
    "clone": "leave it out: tensors are not changed in place",
    "backward": _TRAINS,
    "zero_grad": _TRAINS,
    "step": _TRAINS,
    "train": _TRAINS,
    "eval": _TRAINS,
    "requires_grad_": "`freeze = [\"name.*\"]` in the run keeps parameters as they are",
    "requires_grad": "`freeze = [\"name.*\"]` in the run keeps parameters as they are",
    "parameters": "the run knows them: the optimizer takes none, as in `AdamW(lr=1e-3)`",
    "named_parameters": "the run knows them; `group \"*.bias\" { ... }` gives some their own settings",
    "long": "write `x.int()`",
    "double": "write `x.to(f64)`",
    "half": "write `x.to(f16)`",
    "bfloat16": "write `x.to(bf16)`",
    "type": "write `x.to(f32)`",
    "astype": "write `x.to(f32)`",
    "data": "write `detach(x)`",
    "grad": "write `grad(y, x)`",
    "new_zeros": "write `zeros(...)`",
    "new_ones": "write `ones(...)`",
}  # fmt: skip

# Settings of a run elsewhere: where they are written here.
_OPTIMIZER = "it is an argument of the optimizer: `optimizer = AdamW({}=...)`"
_DATA = "it is a setting of the data"
SETTINGS: Mapping[str, str] = {
    **{name: _OPTIMIZER.format(name) for name in ("lr", "weight_decay", "betas", "eps")},
    "momentum": "it is an argument of the optimizer: `optimizer = SGD(lr=0.1, momentum=...)`",
    "learning_rate": _OPTIMIZER.format("lr"),
    "num_workers": "write `workers = ...`, in the data",
    "workers": _DATA,
    "prefetch": _DATA,
    "shuffle": _DATA,
    "drop_last": _DATA,
    "device": "it is an option of the script: `--device cuda`",
    "metrics": "they stand in `evaluate NAME { ... }`",
    "loss": "it is a block: `loss(batch) { return cross_entropy(model(batch.x), batch.label) }`",
    "compare": "it is a block of `evaluate NAME { ... }`",
    "checkpoint": "it is a section: `checkpoint { every = 1, keep = 3 }`",
    "early_stopping": 'it is a section: `early_stopping { monitor = "val/loss", patience = 5 }`',
    "logging": "it is a section: `logging { every = 10 }`",
    "validate": "it is a section: `validate { every = 1 }`",
    "criterion": "the loss is a block: `loss(batch) { return cross_entropy(...) }`",
    "loss_fn": "the loss is a block: `loss(batch) { return cross_entropy(...) }`",
    "lr_scheduler": "did you mean `scheduler`?",
    "max_epochs": "did you mean `epochs`?",
    "num_epochs": "did you mean `epochs`?",
    "max_steps": "did you mean `steps`?",
    "gradient_clip_val": "did you mean `clip_grad_norm`?",
    "amp": "write `precision = bf16`",
    "dataset": "did you mean `data`?",
    "patience": "write `early_stopping { patience = ... }`",
    "every": "write `checkpoint { every = ... }`, `validate { every = ... }` or `logging { every = ... }`",
}


def prefix_of(value: ast.Expr, name: str) -> str | None:
    """What stands before `name` where that is a package of built-in names (`nn.functional`), else None."""
    if isinstance(value, ast.Name):
        known = value.id in RESERVED or name in PREFIXES.get(value.id, ())
        return value.id if known else None
    if isinstance(value, ast.Attribute) and value.name in INNER:
        before = prefix_of(value.value, value.name)
        return f"{before}.{value.name}" if before else None
    return None


def unknown_name(name: str) -> str | None:
    """The cure of a name that PyTorch or Python has and the language has not."""
    if name in LOSSES:
        return f"a loss is a function: `{LOSSES[name]}(input, target)`"
    return NAMES.get(name) or dtype(name)


def unknown_method(name: str) -> str | None:
    """The cure of a method that PyTorch's tensors have and the language has not."""
    if name.endswith("_") and not name.startswith("_") and name not in METHODS:
        return f"tensors are not changed in place: write `x = x.{name[:-1]}(...)`"
    return METHODS.get(name)


KINDS: Mapping[str, str] = {
    "integer": "int", "string": "str", "boolean": "bool", "double": "float", "number": "float", "size": "int",
    "Module": "module", "layer": "module", "function": "fn", "callable": "fn", "Callable": "fn", "f32": "float",
}  # fmt: skip


def kind(name: str) -> str | None:
    """The cure of a word that is no kind of parameter."""
    return f"write `{KINDS[name]}`" if name in KINDS else None


def dtype(name: str) -> str | None:
    """The cure of a word that is no dtype."""
    if name in TENSORS:
        return "a type is a dtype and sizes: `float[B, 64]`"
    return f"write `{DTYPES[name]}`" if name in DTYPES and name not in ("str", "string") else None
