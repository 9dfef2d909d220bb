"""`tdsl compile`: emit a project, or print a stage of the way there."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from tdsl.compiler.commands.program import chosen, complain, load, program, tell, write_project


def run(options: Namespace) -> int:
    if options.emit is not None:
        return _print_ast(options) if options.emit == "ast" else _print_stage(options)
    if options.out is None:
        complain("compile needs -o DIR")
        return 2
    unit = program(options)
    name = chosen(unit, options.run, needed=False, how=", with --run NAME")
    write_project(unit, name, options.out, options, options.standalone)
    return 0


def _print_stage(options: Namespace) -> int:
    from tdsl.compiler import pipeline
    from tdsl.compiler.printer import dump

    unit = load(options.file, options)
    if unit is None:
        return 2
    if options.emit != "ir":
        unit = pipeline.run(unit)
    if options.emit == "kernels":
        from tdsl.compiler.emit.kernels_file import emit_kernels

        print(emit_kernels(pipeline.groups(unit), Path(options.file).name), end="")
        return 0
    for graph in unit.graphs():
        print(dump(graph))
    return 0


def _print_ast(options: Namespace) -> int:
    from tdsl.dsl.diagnostics import Reporter, Source
    from tdsl.dsl.parser import parse

    reporter = Reporter()
    try:
        text = Path(options.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return 0 if load(options.file, options) else 2
    file = parse(Source(options.file, text), reporter)
    tell(reporter.diagnostics, options)
    print("\n".join(_tree("", file)))
    return 2 if reporter.errors else 0


def _tree(name: str, value: object) -> Iterator[str]:
    """A node of the syntax tree, its plain fields beside it and its nodes below it, indented."""
    from dataclasses import fields, is_dataclass

    from tdsl.dsl.diagnostics import Span

    assert is_dataclass(value)
    found = {f.name: getattr(value, f.name) for f in fields(value) if not isinstance(getattr(value, f.name), Span)}
    below = {n: v if isinstance(v, tuple) else (v,) for n, v in found.items()}
    plain = [f"{n}={v!r}" for n, v in found.items() if not any(map(is_dataclass, below[n]))]
    yield f"{name}{type(value).__name__}({', '.join(plain)})"
    for label, values in below.items():
        for each in filter(is_dataclass, values):
            yield from (f"    {line}" for line in _tree(f"{label}: ", each))
