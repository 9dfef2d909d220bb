"""Which identifiers a program may declare, and which it may have meant."""

from __future__ import annotations

import keyword
from collections.abc import Iterable

from tdsl.dsl.signatures import SCHEDULERS

# Names that emitted modules bind or call: a declaration of the same name would change what they mean.
EMITTED = frozenset(
    [
        "self",
        "super",
        "torch",
        "nn",
        "F",
        "math",
        "kernels",
        "mixed_precision",
        "nn_functions",
        "triton",
        "tl",
        "Tensor",
    ]
)

# Python's own names that emitted code calls: a variable of the same name would hide them.
BUILTINS = frozenset(
    ["bool", "dict", "float", "getattr", "int", "isinstance", "len", "list", "print", "range", "staticmethod", "str",
     "tuple", "type"]
)  # fmt: skip

# What the emitted scripts bind beside the modules and models of the program (a test compares them with the scripts).
SCRIPTS = frozenset(
    [*SCHEDULERS, "BATCH_SIZE", "Batch", "Batches", "Best", "CATEGORIES", "EarlyStopping", "FOLDED", "Meter", "OUT",
     "Path", "ROOT", "Results", "SETTINGS", "SPLITS", "Schedule", "Split", "TRANSFORMS", "Training", "activations",
     "bar", "batch", "batches", "checkpoint", "checkpoint_tool", "compare", "counted", "data", "device", "distributed",
     "ends", "evaluate", "expected", "fields", "fold", "found", "grad_norm", "groups", "held_out", "improved", "job",
     "length", "line", "loading", "log", "loss", "main", "make_metrics", "mean", "meter", "metrics", "models", "name",
     "optim", "optimizer", "out", "part", "plateau", "predict", "predict_rows", "predicted", "progress", "replace",
     "report", "results", "run", "schedule", "seed", "settings", "sharding", "share", "shared", "shares", "sources",
     "stage", "state", "statistics", "streams", "sys", "tracked", "train", "validate", "validates", "value", "which"]
)  # fmt: skip

# Attributes of `torch.nn.Module` (a test compares them with PyTorch's): a member of such a name would replace one.
MODULE_ATTRIBUTES = frozenset(
    [
        "T_destination",
        "add_module",
        "apply",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "compile",
        "cpu",
        "cuda",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "half",
        "ipu",
        "load_state_dict",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "parameters",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "state_dict",
        "to",
        "to_empty",
        "train",
        "training",
        "type",
        "xpu",
        "zero_grad",
    ]
)


def why_reserved(name: str, member: bool = False, *, variable: bool = False, imported: bool = False) -> str | None:
    """Why a program may not declare `name`; None where it may.

    `member`: as a module's member; `variable`: as what becomes a variable or a function; `imported`: as a module or a
    model, which the emitted scripts import or make.
    """
    if keyword.iskeyword(name):
        return "is a Python keyword"
    if name.startswith("__"):
        return "begins with two underscores, which Python keeps for itself"
    if name in EMITTED:
        return "is a name that the emitted code needs"
    if variable and name in BUILTINS:
        return "is a name of Python's that the emitted code calls"
    if imported and name in SCRIPTS:
        return "is a name that the emitted scripts need"
    if member and (name in MODULE_ATTRIBUTES or name.startswith("_")):
        return "is an attribute that every PyTorch module has"
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The help line that offers the nearest known name; None where none is near."""
    found = nearest(name, known)
    return f"did you mean `{found}`?" if found else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name with the fewest edits from `name`, at most a third of its length; None where none is near."""
    if len(name) > 64:
        return None
    best = min(known, key=lambda other: (_distance(name.lower(), other.lower()), other), default=None)
    limit = 0 if len(name) < 3 else max(1, len(name) // 3)
    return best if best is not None and _distance(name.lower(), best.lower()) <= limit else None


def _distance(a: str, b: str) -> int:
    """Edits between two words: insertions, deletions, substitutions and swaps of neighbours (Damerau-Levenshtein)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        last, before_last = row, before
        row = [i + 1]
        for j, y in enumerate(b):
            cost = min(last[j + 1] + 1, row[j] + 1, last[j] + (x != y))
            if i and j and x == b[j - 1] and a[i - 1] == y:
                cost = min(cost, before_last[j - 1] + 1)
            row.append(cost)
        before = last
    return row[-1]
