"""Every code of types, shapes and lints: what it says, a program that raises it, why, and the cure.

`dsl/codes.py` has the others.
"""

from __future__ import annotations

from tdsl.dsl.codes import DATA, Code, run


def forward(body: str, members: str = "", result: str = "float[B, dim]") -> str:
    """A module of which `forward` has this body."""
    return (
        f"module M(dim: int = 8) {{\n{members}    forward(x: float[B, dim], n: int[B]) -> {result} {{\n"
        f"        {body}\n    }}\n}}\n"
    )


LABELLED = DATA.replace("\n}", '\n    field t: int[] = column("t")\n}')
BINARY = LABELLED.replace('int[] = column("t")', 'float[] = column("t") / 20')


def loss(returned: str, data: str = DATA, net: str = "l(x.unsqueeze(-1))", members: str = "", size: str = "1") -> str:
    """A run with this loss, of a model that returns `net`."""
    text = run("    epochs = 1", data).replace("return l(x.unsqueeze(-1))", f"return {net}")
    text = text.replace("    l = Linear(1, 1)\n", f"    l = Linear(1, {size})\n{members}")
    return text.replace("float[B, 1] {", f"float[B, {size}] {{").replace("model(batch.x).mean()", returned)


_SHAPE = (
    "module Half() {\n    pool = MaxPool2d(2)\n    forward(x: float[B, 64, H, W]) -> float[B, 64, H, W] {\n"
    "        return x + pool(x)\n    }\n}\n"
)
_FLIPPED = DATA.replace(
    '    field x: float[] = column("x")\n',
    "    split = random(train=0.8, val=0.2)\n"
    '    field x: float[1, 1, 3] = columns("x", "t", "u").reshape(-1, 1, 1, 3)\n'
    "    transform x = [RandomHorizontalFlip()]\n",
)
_CLASSES = "cross_entropy(model(batch.x), batch.t)"

_TYPES = (
    Code("E201", "a value of another sort is needed", forward("return x + relu"), "give it a value of the sort named",
         "Functions, modules, sizes, numbers and tensors each have their own places.",
         (forward("return dim(x)"), forward("return Linear(dim, dim) |> x"), forward("return x", "    act = ReLU\n"),
          forward("l = Linear(dim, dim)\n        return l(x)"))),
    Code("E202", "an argument does not fit", forward("return dropout(x, rate=0.1)"), "correct its name or value",
         "Arguments, their names, order and defaults are PyTorch's.",
         (forward("return softmax(x)"), forward("return relu(x, x, x)"), forward('return softmax(x, dim="last")'),
          forward("return l(x)", "    l = Linear(dim)\n"), forward("return dropout(x, p=1.5)"))),
    Code("E203", "shapes do not match", forward("return x + x.sum(dim=-1)"), "keep the dimension: `keepdim=true`",
         "Shapes broadcast as in PyTorch: from the last dimension on, sizes are equal or one of them is 1. Sizes with "
         "names are equal where they are the same expression, or where an `assume` says so.",
         (_SHAPE, forward("return l(x)", "    l = Linear(16, dim)\n"), forward("return x @ x"),
          forward("return cat([x, x.sum(dim=0)], dim=0)"), forward("return x.reshape(B, 3, dim)"),
          "fn f(x: float[B, 4]) -> float[B, 4] { return x }\n" + forward("return f(x)"))),
    Code("E204", "no such dimension or index", forward("return softmax(x, dim=2)"), "count from 0, or back from -1",
         "A tensor of n dimensions has the dimensions 0 to n - 1, and -n to -1 from the last.",
         (forward("return x[:, 9]"), forward("return x * size(x, 3)"))),
    Code("E205", "values of another dtype are needed", forward("return softmax(n, dim=0)"), "convert with `.float()`",
         "Values are converted where PyTorch converts them, and not where it refuses.",
         (forward("return l(n)", "    l = Linear(dim, dim)\n"), forward("return where(x, x, x)"))),
    Code("E206", "not supported", forward("return x[x > 0]"), "write it with what there is",
         "What the language leaves out, because its result would have no shape that is known.",),
    Code("E207", "not what is declared", forward("return x.sum()"), "correct the declaration or the result",
         "A signature is a promise that the body keeps: callers are checked against it alone.",
         (forward("y = x"), forward("a, b = x\n        return a"), forward("return x, x"), forward("return 3"),
          run("    epochs = 1").replace(".mean()", ""))),
    Code("E208", "not known, or not proved, at compile time", forward("return x.reshape(-1, 3).sum()"),
         "make the size a constant or a parameter, or state it with `assume`",
         "What can't be proved equal is refused, because it would fail as the model runs, if not on the first batch.",
         (forward("if B > 3 {\n            return x\n        }\n        return x"),
          forward("for i in range(B) {\n            x = x + i\n        }\n        return x"),
          forward("if x.sum() > 0 {\n            return x\n        }\n        return x"))),
    Code("E209", "too large", forward("return x", "    l = [ReLU() for i in range(100000)]\n"), "make it smaller",
         "A module has at most 10,000 operations after its loops are unrolled, a list as many modules."),
    Code("E210", "something contains itself", forward("return m(x, n)", "    m = M(dim)\n"), "take the circle apart",
         "A module that makes itself would never end, and neither would a function that calls itself.",
         ("fn f(x: [B]) -> [B] { return f(x) }",)),
    Code("E211", "an `extern module` that no Python class can be",
         'extern module M() : [B] -> [B] = "package.module"\n', 'name it "package.module:Class"',
         "The target is a class that the emitted code imports. Its parameters are numbers, truth values and strings.",
         ('extern module M(f: fn) : [B] -> [B] = "package.module:Class"\n',)),
)  # fmt: skip

_LINTS = (
    Code("W201", "probabilities for a loss that takes scores",
         loss(_CLASSES, LABELLED, "l(x.unsqueeze(-1)).softmax(-1)", size="20"),
         "leave the activation out",
         "The loss applies softmax or sigmoid itself, in a form that is numerically stable. Applied twice, gradients "
         "nearly vanish: training goes on, and goes nowhere.",
         (loss("binary_cross_entropy_with_logits(sigmoid(model(batch.x).squeeze(-1)), batch.t)", BINARY),)),
    Code("W202", "scores for a loss that takes probabilities",
         loss("binary_cross_entropy(model(batch.x).squeeze(-1), batch.t)", BINARY),
         "apply the activation, or use the loss that takes scores",
         "The logarithm of a score that is not a probability is meaningless, or not a number.",
         (loss("nll_loss(model(batch.x), batch.t)", LABELLED, size="20"),)),
    Code("W203", "parameters that never reach the loss",
         loss("model(batch.x).detach().mean() + model(batch.x).mean() * 0 + detach(teacher(batch.x)).mean()").replace(
             "    data = D\n", "    teacher = Net()\n    data = D\n"),
         "let the loss depend on them, remove them, or freeze them",
         "No gradient reaches them: they keep their first values, and the optimizer's state for them is memory lost."),
    Code("W204", "class labels that no score stands for", loss(_CLASSES, LABELLED, size="9"),
         "give the model as many outputs as there are classes",
         "So is what is looked up in a table of fewer entries. Where no file tells it here, it is an error as the data "
         "are loaded, with file, row and field."),
    Code("W205", "dropout or batch norm in a batch of one",
         loss("model(batch.x).mean()", net="n(l(x.unsqueeze(-1)))", members="    n = BatchNorm1d(1)\n").replace(
             "    epochs = 1", "    epochs = 1\n    batch_size = 1"),
         "take more rows at a time",
         "Batch norm has no variance to divide by in one row; what dropout leaves of one row is noise.",
         (loss("model(batch.x).mean()", net="dropout(l(x.unsqueeze(-1)), 0.5)").replace(
             "    epochs = 1", "    epochs = 1\n    batch_size = 4\n    accumulate = 4"),)),
    Code("W206", "something that nothing uses", forward("y = x * 2\n        return x"), "use it, or remove it",
         "A name that nothing reads is left over, or is what should have been written somewhere else.",
         (forward("return x", "    unused = Linear(dim, dim)\n"),)),
    Code("W207", "`accumulate` and what may depend on a whole batch",
         loss("model(batch.x).mean()", net="n(l(x.unsqueeze(-1)))", members="    n = BatchNorm1d(1)\n").replace(
             "    epochs = 1", "    epochs = 1\n    batch_size = 8\n    accumulate = 2"),
         "use a norm that does not depend on the batch, or allow it",
         "Batch norm takes the statistics of each part, so the gradient is not quite that of the whole batch. Into an "
         "`extern module` the compiler does not see."),
    Code("W208", "a sum that goes into a pipe", forward("return x + x |> relu"), "put parentheses around what is meant",
         "`|>` binds less than any operator: all that stands before it goes into it. A product is read so anyway; a "
         "sum or a choice before a pipe may be meant to be added to what the pipe gives, as in a residual connection.",
         (forward("return x if dim > 4 else 2 * x |> relu"),)),
    Code("W209", "rows of the batch as places of a sequence",
         loss("model(batch.x).mean()", net="a(z, z, z)[0].mean(dim=1)", members="    a = MultiheadAttention(1, 1)\n")
         .replace("        return a(", "        z = l(x.reshape(-1, 1, 1))\n        return a("),
         "make the layer with `batch_first=true`, or permute what goes into it",
         "As in PyTorch, `LSTM`, `GRU`, `RNN` and `MultiheadAttention` take [T, B, ...] unless they are made with "
         "`batch_first=true`: of [B, T, ...] they read the rows one after another, and mix them."),
    Code("W304", "a running mean that remembers more than the run has steps for",
         run("    steps = 500\n    ema = EMA(decay=0.999)"), "choose a decay that fits the run",
         "A mean with the decay d reaches back about 1 / (1 - d) steps, and begins with the first parameters. Where "
         "that is more than a quarter of the run, what is evaluated is still much of what the run began with.",
         (run("    steps = 5\n    ema = EMA()"), run("    steps = 500\n    ema = EMA(decay=1)"))),
    Code("W402", "what is evaluated is changed at random", _FLIPPED, "draw at random in the split `train` alone",
         "A `transform` that names no split is of all of them, so that a metric would depend on chance.",
         (_FLIPPED.replace("transform x", "transform val x"),)),
)  # fmt: skip
CODES = {each.code: each for each in (*_TYPES, *_LINTS)}
