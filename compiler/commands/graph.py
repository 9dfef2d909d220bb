"""`tdsl graph`: the model as a picture, fusion groups tinted."""

from __future__ import annotations

import sys
from argparse import Namespace

from tdsl.compiler.commands.program import Stop, complain, program


def run(options: Namespace) -> int:
    from tdsl.compiler import pipeline
    from tdsl.compiler.graph.build import picture
    from tdsl.compiler.graph.svg import svg

    unit = pipeline.run(program(options))
    names = [ir.class_name for ir in unit.modules]
    if not names:
        complain("the file has no module to draw")
        return 2
    if options.module is not None and options.module not in names:
        from tdsl.dsl.names import did_you_mean

        complain(
            f"no module `{options.module}`; {did_you_mean(options.module, names) or 'there are: ' + ', '.join(names)}"
        )
        raise Stop(2)
    text = svg(picture(unit, options.module))
    if options.out is None:
        sys.stdout.write(text)
        return 0
    try:
        options.out.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        complain(f"can't write {options.out}: {error.strerror}")
        return 1
    return 0
