"""Writes what of the documentation the code knows: `errors.md`, and the lists of names in `language.md`.

    python docs/generate.py

A list stands between `<!-- names: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tdsl.compiler.build.expr import INTERNAL, METHODS
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.members import INITIALIZERS
from tdsl.compiler.build.rearrange import EINOPS
from tdsl.compiler.codes import CODES as OF_TYPES
from tdsl.compiler.emit.codes import CODES as OF_EMISSION
from tdsl.compiler.emit.data import TRANSFORMS
from tdsl.compiler.ops import OPS, Kind
from tdsl.compiler.probe import SOURCES
from tdsl.dsl import signatures
from tdsl.dsl.codes import CODES as OF_FRONT_END
from tdsl.dsl.codes import Code

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
    for name, text in generated().items():
        (HERE / name).write_text(text, encoding="utf-8")


def generated() -> dict[str, str]:
    """The files, as they should be."""
    return {"errors.md": errors(), "language.md": listed((HERE / "language.md").read_text(encoding="utf-8"))}


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


def listed(text: str) -> str:
    """The text with its lists of names brought up to date."""
    found = names()

    def fresh(match: re.Match[str]) -> str:
        words = " ".join(f"`{name}`" for name in sorted(found[match[1]], key=str.lower))
        return f"<!-- names: {match[1]} -->\n{wrapped(words)}\n<!-- end -->"

    return re.sub(r"<!-- names: (\w+) -->\n.*?<!-- end -->", fresh, text, flags=re.DOTALL)


def wrapped(words: str, width: int = 118) -> str:
    """Words in lines of at most `width` characters."""
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


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
