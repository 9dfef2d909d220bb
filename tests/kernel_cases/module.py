"""The text of a module from the parts that tell it from others."""

from __future__ import annotations

# Of each module: its inputs, its body, and where there are any its parameters and another result than float[B, D].
Family = dict[str, tuple[str, ...]]


def module(name: str, inputs: str, body: str, result: str = "float[B, D]", params: str = "") -> str:
    declared = "".join(f"    param {p}\n" for p in params.split(";") if p)
    lines = "".join(f"        {line.strip()}\n" for line in body.strip().splitlines())
    return f"module {name}(D: int = 33) {{\n{declared}    forward({inputs}) -> {result} {{\n{lines}    }}\n}}\n\n"


def modules(family: Family) -> dict[str, str]:
    found = {}
    for name, (inputs, body, *rest) in family.items():
        params, result = (*rest, "")[0], rest[1] if len(rest) > 1 else "float[B, D]"
        found[name] = module(name, inputs, body, result, params)
    return found
