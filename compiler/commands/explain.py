"""`tdsl explain`: for each source line its kernel, bytes, FLOPs and what it keeps; for what did not fuse, why."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tdsl.compiler.commands.program import Stop, chosen, complain, load, tell
from tdsl.compiler.commands.scripts import importable

if TYPE_CHECKING:
    from tdsl.compiler.build.unit import Unit
    from tdsl.compiler.explain.model import Explanation
    from tdsl.dsl.diagnostics import Diagnostic


def run(options: Namespace) -> int:
    _check_options(options)
    told: list[Diagnostic] = []
    unit = load(options.file, options, told)
    if unit is None or options.format == "text":
        tell(told, options)
    if unit is None:
        return 2
    if options.compare:
        return _compare(unit, options, told)
    from tdsl.compiler.explain.explain import explain

    _check_module(unit, options.module)
    found = explain(unit, chosen(unit, options.run, needed=False), options.module)
    if options.registers:
        found = _compiled(found, unit, options)
    if options.format == "json":
        from tdsl.compiler.explain.data import to_json

        print(to_json(found, told))
    else:
        from tdsl.compiler.explain.show import show

        show(found)
    return 0


def _check_options(options: Namespace) -> None:
    """What is asked for goes together."""
    lacking = [name for name in ("module", "registers") if getattr(options, name)]
    if options.compare and lacking:
        complain(f"--compare counts a whole step: it has no --{lacking[0]}")
        raise Stop(2)
    if options.ops and not options.compare:
        complain("--ops tells what --compare has counted: add --compare eager")
        raise Stop(2)


def _compiled(found: Explanation, unit: Unit, options: Namespace) -> Explanation:
    """With the registers of each kernel."""
    from tdsl.compiler.explain.registers import Uncompiled, with_registers

    try:
        return with_registers(found, unit, options.registers, _environment(options))
    except Uncompiled as error:
        complain(f"the kernels can't be compiled: {error}")
        raise Stop(1) from None


def _environment(options: Namespace) -> dict[str, str]:
    """Of a process that imports what is emitted, and compiles its kernels."""
    environment = {**os.environ, **importable(Path(options.file).parent)}
    environment.pop("TRITON_INTERPRET", None)
    return environment


def _compare(unit: Unit, options: Namespace, told: list[Diagnostic]) -> int:
    """Beside plain PyTorch instead: a step of each is counted."""
    from tdsl.compiler.explain.compare import Uncountable, compare
    from tdsl.compiler.explain.show_compare import show, to_json

    name = chosen(unit, options.run, needed=True)
    assert name is not None
    try:
        found = compare(unit, name, Path(options.file), _environment(options), options.allow_outside)
    except Uncountable as error:
        complain(f"a step of `{name}` can't be counted {error}")
        return 1
    if options.format == "json":
        print(to_json(found, told))
    else:
        show(found, options.ops)
    return 0


def _check_module(unit: Unit, module: str | None) -> None:
    """There is something to explain, and the module that is asked for."""
    names = [ir.class_name for ir in unit.modules]
    if not names and not unit.runs:
        complain("the file has nothing to explain: no module and no run")
        raise Stop(2)
    if module is not None and module not in names:
        from tdsl.dsl.names import did_you_mean

        complain(f"no module `{module}`; {did_you_mean(module, names) or 'there are: ' + ', '.join(names)}")
        raise Stop(2)
