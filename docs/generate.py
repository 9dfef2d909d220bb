"""Writes what the code knows of the documents: `errors.md`, the names in `language.md`, the code in the README.

    python docs/generate.py

What is written stands between a comment, such as `<!-- names: NAME -->`, and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tdsl.compiler import pipeline
from tdsl.compiler.build.expr import METHODS
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.members import INITIALIZERS
from tdsl.compiler.build.program import build
from tdsl.compiler.build.rearrange import EINOPS
from tdsl.compiler.codes import CODES as OF_TYPES
from tdsl.compiler.emit.codes import CODES as OF_EMISSION
from tdsl.compiler.emit.data import TRANSFORMS
from tdsl.compiler.emit.kernels_file import emit_kernels
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.ops import OPS, Kind
from tdsl.compiler.ops.op import INTERNAL
from tdsl.compiler.probe import SOURCES, probe
from tdsl.dsl import signatures
from tdsl.dsl.codes import CODES as OF_FRONT_END
from tdsl.dsl.codes import Code
from tdsl.dsl.diagnostics import Reporter
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
    language, readme = HERE / "language.md", HERE.parent / "README.md"
    return {
        HERE / "errors.md": errors(),
        language: filled(language.read_text(encoding="utf-8"), "names", lambda name: wrapped(*names()[name])),
        readme: excerpts(readme.read_text(encoding="utf-8")),
    }


def filled(text: str, kind: str, content: Callable[[str], str]) -> str:
    """The text with what stands after `<!-- KIND: NAME -->` written anew."""

    def fresh(match: re.Match[str]) -> str:
        return f"<!-- {kind}: {match[1]} -->\n{content(match[1])}\n<!-- end -->"

    return re.sub(rf"<!-- {kind}: (\w+) -->\n.*?<!-- end -->", fresh, text, flags=re.DOTALL)


# Names ---------------------------------------------------------------------------------------------------------------


def names() -> Mapping[str, Iterable[str]]:
    """Lists by name, each what the registries hold."""
    ops = {name: op for name, op in OPS.items() if name not in INTERNAL}
    fused = [name for name, op in ops.items() if op.fusible]
    views = [name for name, op in ops.items() if op.kind is Kind.VIEW]
    views += [name for name, op in METHODS.items() if OPS[op].kind is Kind.VIEW]
    return {
        "fused": fused,
        "views": [*views, *EINOPS],
        "library": [name for name in ops if name not in {*fused, *views}],
        "layers": LAYERS,
        "initializers": INITIALIZERS,
        "optimizers": signatures.OPTIMIZERS,
        "schedulers": signatures.SCHEDULERS,
        "sources": SOURCES,
        "splits": signatures.SPLITS,
        "transforms": TRANSFORMS,
        "metrics": signatures.METRICS,
    }


def wrapped(*found: str, width: int = 118) -> str:
    """Names in lines of at most `width` characters, in alphabetical order."""
    lines = [""]
    for word in (f"`{name}`" for name in sorted(found, key=str.lower)):
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


# Code ----------------------------------------------------------------------------------------------------------------


def excerpts(text: str) -> str:
    """The README with its declarations, classes and kernels as the example has them now."""
    program, model, kernels = example()
    text = filled(text, "program", lambda name: fenced(program, rf"(?:# [^\n]*\n)*\w+ {name}[ (].*?^}}", ""))
    text = filled(text, "class", lambda name: fenced(model, rf"class {name}\(.*?(?=\n\n\n|\Z)", "python"))
    return filled(text, "kernels", lambda name: fenced(kernels, rf"# {name}:.*?(?=\n\n\nclass )", "python"))


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


def errors() -> str:
    """`errors.md`."""
    codes = sorted((OF_FRONT_END | OF_TYPES | OF_EMISSION).values(), key=lambda each: each.code)
    parts = [
        "# Errors\n\nWritten by `make docs`. A code keeps its meaning for good. The examples stand beside a file\n"
        "`points.csv` with the columns `x`, `t`, `u` and `name`.\n"
    ]
    for prefix, title in PARTS.items():
        parts += [f"## {title}\n", *(entry(each) for each in codes if each.code.startswith(prefix))]
    return "\n".join(parts)


def entry(code: Code) -> str:
    """One code: title, cure, example."""
    text = code.example.rstrip("\n").encode("utf-8", "backslashreplace").decode("utf-8")
    example = f"\n```\n{text}\n```\n" if text and len(text) <= LONGEST_EXAMPLE else ""
    return f"### {code.code}: {code.title}\n\nCure: {code.cure}.\n{example}"


if __name__ == "__main__":
    main()
