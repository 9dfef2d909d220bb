"""`tdsl diff`: which weights of a checkpoint load into a changed program, and why the others do not."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tdsl.compiler.commands.program import Stop, chosen, complain, program

if TYPE_CHECKING:
    from tdsl.compiler.weights import Entry


def run(options: Namespace) -> int:
    from tdsl.compiler.show_weights import show, to_json
    from tdsl.compiler.weights import Difference, Unreadable, difference, hidden

    unit = program(options)
    name = chosen(unit, options.run, needed=True)
    assert name is not None
    models = unit.runs[name].models
    if options.model not in models:
        complain(f"`{name}` has no model `{options.model}`; there are: {', '.join(models)}")
        raise Stop(2)
    try:
        given = _shapes(options.checkpoint, options.model)
    except Unreadable as error:
        complain(str(error))
        return 2
    member = models[options.model]
    rows = difference(unit, member, given, _written(options, name))
    unknown = tuple(path.rstrip(".") or options.model for path in hidden(unit, member))
    found = Difference(str(options.checkpoint), options.file, options.model, rows, unknown)
    if options.json:
        print(to_json(found))
    else:
        show(found)
    return 0 if found.loads else 1


def _shapes(path: Path, model: str) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the weights of a file, a checkpoint or a run's newest: of `model` the averaged, where they are."""
    from tdsl.compiler.weights import header, sharded

    if not path.is_dir():
        return header(path)
    steps = [each for each in path.glob("checkpoints/step-*") if each.name[5:].isdigit()]
    path = max(steps, key=lambda each: int(each.name[5:]), default=path)
    averaged = model == "model" and ((path / "ema.safetensors").exists() or sharded(path, "ema") is not None)
    name = "ema" if averaged else model
    found = sharded(path, name)
    return header(path / f"{name}.safetensors") if found is None else found


def _written(options: Namespace, name: str) -> Mapping[str, Entry]:
    """The shapes of the weights as the program that made them has them; empty where that is not there, or not read."""
    from tdsl.compiler.driver import read
    from tdsl.compiler.weights import entries

    folder = options.checkpoint if options.checkpoint.is_dir() else options.checkpoint.parent
    text = folder / "program.model"
    try:
        unit, _ = read(options.file, text=text.read_text(encoding="utf-8"), allow_outside=options.allow_outside)
    except (OSError, UnicodeDecodeError):
        return {}
    if unit is None or name not in unit.runs or options.model not in unit.runs[name].models:
        return {}
    return entries(unit, unit.runs[name].models[options.model])
