"""Writes what the code knows of the documents: `errors.md`, the lists of the reference, emitted code.

    python -m docs.generate

What is written stands between a comment, such as `<!-- names: NAME -->`, and `<!-- end -->`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill

from docs import reference
from tdsl.compiler import pipeline
from tdsl.compiler.build.program import build
from tdsl.compiler.codes import CODES as OF_TYPES
from tdsl.compiler.driver import read
from tdsl.compiler.emit.codes import CODES as OF_EMISSION
from tdsl.compiler.emit.kernels_file import emit_kernels
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.probe import probe
from tdsl.dsl.codes import CODES as OF_FRONT_END
from tdsl.dsl.codes import Code
from tdsl.dsl.diagnostics import Diagnostic, Reporter
from tdsl.dsl.render import render
from tdsl.dsl.resolve import load

HERE = Path(__file__).resolve().parent
PARTS = {
    "E0": "Syntax",
    "E1": "Names and constants",
    "E2": "Types and shapes",
    "E3": "Runs",
    "E4": "Data",
    "W": "Warnings",
}
LONGEST_EXAMPLE = 500


def main() -> None:
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")


def generated() -> dict[Path, str]:
    """The files, as they should be."""
    readme = HERE.parent / "README.md"
    return {
        HERE / "errors.md": errors(),
        **reference.written(),
        readme: excerpts(readme.read_text(encoding="utf-8")),
    }


def filled(text: str, kind: str, content: Callable[[str], str]) -> str:
    """The text with what stands after `<!-- KIND: NAME -->` written anew."""

    def fresh(match: re.Match[str]) -> str:
        return f"<!-- {kind}: {match[1]} -->\n{content(match[1])}\n<!-- end -->"

    return re.sub(rf"<!-- {kind}: (\w+) -->\n.*?<!-- end -->", fresh, text, flags=re.DOTALL)


# Code ----------------------------------------------------------------------------------------------------------------


def excerpts(text: str) -> str:
    """The README with its declarations, classes and kernels as the example has them now."""
    program, model, kernels = example()
    text = filled(text, "program", lambda name: fenced(program, rf"(?:# [^\n]*\n)*\w+ {name}[ (].*?^}}", ""))
    text = filled(text, "class", lambda name: fenced(model, rf"class {name}\(.*?(?=\n\n\n|\Z)", "python"))
    return filled(text, "kernels", lambda name: fenced(kernels, rf"# {name}:.*?(?=\n\n\n@launch)", "python"))


def fenced(text: str, pattern: str, language: str) -> str:
    """The first match as a fenced block."""
    match = re.search(f"^{pattern}", text, re.DOTALL | re.MULTILINE)
    assert match is not None, pattern
    return f"```{language}\n{match[0].rstrip()}\n```"


def example() -> tuple[str, str, str]:
    """`examples/digits.model`, and the `model.py` and `kernels.py` that it becomes."""
    path = HERE.parent / "examples" / "digits.model"
    program, _ = load(path, probe=probe)
    assert program is not None
    unit = build(program, Reporter())
    assert unit is not None
    unit = pipeline.run(unit)
    return path.read_text(encoding="utf-8"), model_text(unit), emit_kernels(pipeline.groups(unit), path.name)


# Errors --------------------------------------------------------------------------------------------------------------


INTRODUCTION = """# Errors

Written by `make docs` from the records of the codes. A code keeps its meaning for good. Each example stands beside a
file `points.csv` with the columns `x`, `t`, `u` (numbers) and `name` (text); what `tdsl check` prints follows it.
`tdsl check --format json` prints the same as an array of objects with the keys `code severity message file line column
end_line end_column notes help`. A run tells every independent mistake, at most 20; what follows from one is not told.

Codes with a W are warnings: the program is as it should be, and hardly means what it says. They change no exit status.
One is allowed by a comment that names it, on its line or with the declaration that it is in:

```
# tdsl: allow W203
module Probe(dim: int) {
    spare = Linear(dim, dim)    # tdsl: allow W206
}
```
"""


def errors() -> str:
    """`errors.md`."""
    codes = sorted((OF_FRONT_END | OF_TYPES | OF_EMISSION).values(), key=lambda each: each.code)
    parts = [INTRODUCTION]
    with beside_data():
        for prefix, title in PARTS.items():
            parts += [f"## {title}\n", *(entry(each) for each in codes if each.code.startswith(prefix))]
    return "\n".join(parts)


@contextmanager
def beside_data() -> Iterator[None]:
    """A folder of its own, with the data file of the examples."""
    before = os.getcwd()
    with TemporaryDirectory() as outer:
        folder = Path(outer) / "program"
        folder.mkdir()
        for place in (folder, Path(outer)):
            rows = "".join(f"{i}.5,{i},{i},abc\n" for i in range(20))
            (place / "points.csv").write_text(f"x,t,u,name\n{rows}", encoding="utf-8")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def entry(code: Code) -> str:
    """One code: title, why, a program and what is told of it, the cure, and other forms that it takes."""
    parts = [f"### {code.code}: {code.title}", fill(code.why, 118, break_long_words=False, break_on_hyphens=False)]
    text = code.example.rstrip("\n").encode("utf-8", "backslashreplace").decode("utf-8")
    if text and len(text) <= LONGEST_EXAMPLE:
        parts += [f"```\n{text}\n```", f"```text\n{render(told(code.example)).rstrip()}\n```"]
    parts.append(f"**Cure**: {code.cure}.")
    others = [each for program in code.more for each in told(program)]
    if others:
        parts.append("\n".join(["| also | help |", "| --- | --- |", *map(row, others)]))
    return "\n\n".join(parts) + "\n"


def told(program: str) -> list[Diagnostic]:
    """What `tdsl check` says of a program."""
    Path("program.model").write_bytes(program.encode("utf-8", "surrogateescape"))
    return read("program.model")[1]


def row(each: Diagnostic) -> str:
    """A diagnostic as a row of a table."""
    help = each.help or each.label
    return "| " + " | ".join(text.replace("|", "\\|") for text in (each.message, help)) + " |"


if __name__ == "__main__":
    main()
