"""Which settings a script changes by itself, and which its program alone has."""

from __future__ import annotations

import pytest

from tdsl.dsl.signatures import DATA_SETTINGS, EVALUATE_SETTINGS, OPTIONAL_SECTIONS, SECTIONS, TRAIN_SETTINGS
from tdsl.runtime.settings import COMPILED, RULES, Settings, UsageError

OWN = Settings({"epochs": 3, "steps": None, "batch_size": 8, "optimizer.lr": 0.1, "optimizer.weight_decay": 0.0})
# Those that every script has, and takes without a rule of their own.
PLAIN = {"tf32", "deterministic", "checkpoint.resume", "logging.tensorboard", "logging.csv"}


def test_every_setting_of_the_language_is_one_or_the_other() -> None:
    sections = {**SECTIONS, **OPTIONAL_SECTIONS}.values()
    named = {arg.name for arg in TRAIN_SETTINGS} | {f"data.{arg.name}" for arg in DATA_SETTINGS}
    named |= {f"evaluate.{arg.name}" for arg in EVALUATE_SETTINGS}
    named |= {f"{section.name}.{arg.name}" for section in sections for arg in section.args}
    assert named == COMPILED | RULES.keys() | PLAIN
    assert not COMPILED & (RULES.keys() | PLAIN)


@pytest.mark.parametrize(
    "option",
    ["ema=none", "precision=bf16", "ema.decay=0.9", "model.width=8", "scheduler=none", "scheduler.T_max=7",
     "optimizer.momentum=0.9", "early_stopping.patience=3", "data.shuffle=false", "evaluate.split=val"],
)  # fmt: skip
def test_what_the_program_alone_has_is_told_with_the_command(option: str) -> None:
    with pytest.raises(UsageError) as found:
        OWN.changed([option])
    key = option.partition("=")[0]
    assert f"`{key}` is no option of this script, but a setting of its program" in str(found.value)
    assert f"help: `tdsl train FILE --set {option}` takes it, which compiles the program with it" in str(found.value)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("optimizr.lr=1", "did you mean `optimizer.lr`?"),
        ("optimizer.weight_decy=1", "did you mean `optimizer.weight_decay`?"),
        ("batchsize=1", "did you mean `batch_size`?"),
        ("nothing=1", "there are epochs, steps, batch_size, optimizer.lr, optimizer.weight_decay"),
    ],
)
def test_what_neither_has_is_told_with_what_there_is(option: str, told: str) -> None:
    with pytest.raises(UsageError) as found:
        OWN.changed([option])
    assert f"there is no setting `{option.partition('=')[0]}`" in str(found.value)
    assert told in str(found.value)
