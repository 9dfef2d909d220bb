"""Every code of what can't be emitted: what it says, a program that raises it, and the cure."""

from __future__ import annotations

from tdsl.dsl.codes import DATA, Code, run

_SPLIT = DATA.replace("\n}", "\n    split = random(train=0.8, test=0.2)\n}")
_MISFIT = (
    "evaluate r {\n    compare(batch) { return batch.x.unsqueeze(1), batch.x }\n    metrics = [MeanSquaredError()]\n}\n"
)
_POOLED = "evaluate r {\n    predict(batch) { return model(batch.x).mean() }\n}\n"


_ALL = (
    # A run
    Code("E330", "a metric that does not fit what `compare` returns", run("    epochs = 1", _SPLIT) + _MISFIT,
         "return what the metric compares, or choose another",
         "A metric compares class scores with labels, or values with values of one shape; which, the types tell."),
    Code("E331", "a run that `fsdp()` can't divide",
         run('    epochs = 1\n    freeze = ["l.bias"]\n    distributed = fsdp()').replace("SGD", "Muon"),
         "write `ddp()`, under which every process has all parameters",
         "Each process has rows of a parameter: what needs whole ones, `Muon` and a gradient within a loss, can't be "
         "had."),
    Code("E332", "`accumulate` or `distributed` with a loss that is no mean over rows",
         run("    epochs = 1\n    accumulate = 2").replace(".mean()", ".sum()"),
         "take the mean over the rows",
         "The gradient of a batch in parts is that of the whole only where the loss is a mean over rows, of which each "
         "goes through the models by itself.",
         (run("    epochs = 1\n    accumulate = 2").replace("return l(x.unsqueeze(-1))",
                                                           "h = l(x.unsqueeze(-1))\n        return h - h.mean(0)"),
          run("    epochs = 1\n    distributed = ddp()").replace(".mean()", ".sum()"))),
    Code("E333", "schedulers that can't follow each other",
         run("    epochs = 9\n    scheduler = StepLR(3) |> CosineAnnealingLR(T_max=6)"),
         "put the one without an end last",
         "Of schedules joined with `|>`, the next begins where the one before ends."),
    Code("E334", "parameters that an optimizer can't train", run("    epochs = 1").replace("SGD()", "Muon()"),
         "freeze them, or choose another optimizer",
         "`Muon` makes the update of a matrix orthogonal; biases, norms and convolutions have no matrices."),
    Code("E335", "a `predict` that does not keep the rows apart", run("    epochs = 1", _SPLIT) + _POOLED,
         "return a result for each row",
         "What `predict` returns is written out row by row: its results begin with the dimension `B`."),
    Code("E336", "a pattern that names nothing",
         run('    epochs = 1\n    activation_checkpointing = ["blocks.*"]'),
         "write a name that `tdsl inspect` shows; of a module, less that of the parameter",
         "`freeze` and `group` name parameters, by their own names or by that of a module that they are in; what is "
         "shared goes by its first name. "
         "What is to be computed again is a module that some `forward` calls. A norm written out, or an activation, is "
         "computed by a kernel of the module around it."),
    Code("E337", "a run with nothing to train", run('    epochs = 1\n    freeze = ["l.*"]'),
         "let some parameters train",
         "An optimizer needs a parameter that is not frozen."),
    # Data
    Code("E450", "a source that can't be made", DATA.replace('csv("points.csv")', 'python("dataset")'),
         'write `python("package.module:Dataset")`',
         "The name is that of a class, in a module; texts of one dataset have one tokenizer."),
    Code("E451", "a knob without effect", DATA.replace("\n}", "\n    prefetch = 4\n}"),
         "remove it, or give it what it is for", "A setting that does nothing would be taken for one that does.",
         (DATA.replace("\n}", "\n    workers = 2, resident = true\n}"),)),
    Code("E452", "a field named as a batch's own attribute", DATA.replace("field x", "field size"), "rename it",
         "Fields are attributes of a batch, beside those that every batch has."),
    Code("E455", "not an expression over columns", DATA.replace('column("x")', "x"), 'a column is `column("t")`',
         "A field is computed from columns of its own row, with the operators and the functions of tensors."),
)  # fmt: skip
CODES = {each.code: each for each in _ALL}
