"""Which parameters the globs of a run name: as PyTorch's own names have it, and as the emitted run takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from tdsl.compiler.build.unit import Unit
from tdsl.compiler.memory import memory
from tdsl.compiler.patterns import is_frozen, named_parameters
from tdsl.compiler.trainable import unsupported
from tdsl.runtime import optim
from tests.helpers import built, compiled, emitted, written
from tests.running import importable

# Lists, sequences, what is shared, what is no parameter, a model within a model, and a second model.
PROGRAM = """
module Block(dim: int) {
    norm = BatchNorm1d(dim)
    up   = Sequential(Linear(dim, 2 * dim), ReLU(), Linear(2 * dim, dim, bias=false))
    param scale: [dim] = ones()
    buffer shift: [dim] = zeros()
    forward(x: [B, dim]) -> [B, dim] { return x + (x |> norm |> up) * scale + shift }
}

module Net(dim: int = 8, depth: int = 2) {
    embed  = Embedding(32, dim)
    blocks = [Block(dim) for i in range(depth)]
    head   = Linear(dim, 32, bias=false, weight=embed.weight)
    forward(x: int[B]) -> float[B, 32] { return x |> embed |> blocks |> head }
}

data Rows {
    source = csv("rows.csv")
    split  = random(train=0.8, val=0.2)
    field x: int[] = column("x")
    field y: int[] = column("y")
}

train net {
    model     = Net()
    teacher   = Net(depth=1)
    data      = Rows
    optimizer = SETTINGS
    epochs    = 1
    loss(batch) { return mse_loss(model(batch.x), detach(teacher(batch.x))) + 0 * cross_entropy(model(batch.x), batch.y) }
}
"""


def unit_of(settings: str) -> Unit:
    return built(PROGRAM.replace("SETTINGS", f"SGD()\n{settings}"))


def models(folder: Path) -> dict[str, nn.Module]:
    """The two models of the run, as it makes them."""
    text = PROGRAM.replace("SETTINGS", "SGD()")
    with importable(written(emitted(compiled(text)), folder)):
        from model import Net  # type: ignore[import-not-found]

        return {"model": Net(), "teacher": Net(depth=1)}


def test_the_names_are_those_of_pytorch(tmp_path: Path) -> None:
    unit = unit_of("")
    found = {name: each.shape for name, each in named_parameters(unit, unit.runs["net"])}
    expected = {name: tuple(each.shape) for name, each in optim.named_parameters(models(tmp_path))}
    assert found == expected


@pytest.mark.parametrize(
    "pattern",
    ["embed", "embed.*", "blocks", "blocks.0", "blocks.?.up", "*.bias", "*.up.[02].*", "*scale", "teacher", "teacher.*", "*"],
)  # fmt: skip
def test_a_glob_names_what_it_names_when_the_run_begins(pattern: str, tmp_path: Path) -> None:
    run = unit_of(f'    freeze = ["{pattern}"]').runs["net"]
    made = models(tmp_path)
    optim.freeze(made, pattern)
    names = {name: not each.requires_grad for name, each in optim.named_parameters(made)}
    assert any(names.values())
    assert {name: is_frozen(name, run) for name in names} == names


@pytest.mark.parametrize(
    ("settings", "code", "told", "at"),
    [
        ('    freeze = ["embd.*"]', "E336", 'did you mean "embed.*"?', '"embd.*"'),
        ('    freeze = ["embed", "blocks.2.*"]', "E336", 'did you mean "blocks.0.*"?', '"blocks.2.*"'),
        ('    freeze = ["teacher.block"]', "E336", 'did you mean "teacher.blocks"?', '"teacher.block"'),
        ('    group "*.bais" { lr = 1 }', "E336", 'did you mean "*.bias"?', '"*.bais"'),
        ('    group "*.bias" { lr = 1 }\n    group "norm" { lr = 2 }', "E336", "and 12 more", '"norm"'),
        ('    freeze = ["head.weight"]', "E336", 'write "embed.weight"', '"head.weight"'),
        ('    group "head" { lr = 1 }', "E336", 'write "embed.weight"', '"head"'),
        ('    freeze = ["teacher.head.*"]', "E336", 'write "teacher.embed.weight"', '"teacher.head.*"'),
        ('    freeze = ["*.shift"]', "E336", "the parameters are embed.weight", '"*.shift"'),
        ('    freeze = ["*"]', "E337", "take a pattern out of `freeze`", "freeze"),
    ],
)
def test_a_glob_that_means_nothing_is_told_where_it_stands(settings: str, code: str, told: str, at: str) -> None:
    unit = unit_of(settings)
    (found,) = unsupported(unit, unit.runs["net"])
    assert found.code == code
    assert found.help is not None
    assert told in found.help
    assert found.span is not None
    assert found.span.text == at


def test_the_other_name_of_what_is_shared_is_told_with_the_first() -> None:
    unit = unit_of('    freeze = ["teacher.head.*"]')
    (found,) = unsupported(unit, unit.runs["net"])
    (note,) = found.notes
    assert note.startswith("`teacher.head.weight` is tied to `teacher.embed.weight`")


def test_a_run_without_parameters_has_nothing_to_train() -> None:
    text = PROGRAM.replace("SETTINGS", "SGD()").replace("Net()", "Same()").replace("teacher   = Net(depth=1)", "")
    text = (
        text.replace("teacher(", "model(")
        + "\nmodule Same() { forward(x: int[B]) -> float[B, 4] { return one_hot(x, 4).float() } }"
    )
    unit = built(text)
    (found,) = unsupported(unit, unit.runs["net"])
    assert (found.code, found.help) == ("E337", "give the model a layer, or a `param`")


def test_what_a_class_of_python_has_is_asked_when_the_run_begins() -> None:
    text = PROGRAM.replace("SETTINGS", 'SGD()\n    freeze = ["inner.*"]').replace("Net(depth=1)", "Other()")
    text += '\nextern module Other() : int[B] -> float[B, 32] = "other:Other"'
    unit = built(text)
    assert unsupported(unit, unit.runs["net"]) == []


def test_a_frozen_module_has_neither_gradients_nor_state() -> None:
    free, frozen = (memory(unit_of(each), "net") for each in ("", '    freeze = ["teacher"]'))
    teacher = sum(
        each.count for name, each in named_parameters(unit_of(""), unit_of("").runs["net"]) if name[:2] == "te"
    )
    assert teacher > 0
    assert frozen.gradients == free.gradients - 4 * teacher
