"""How many registers a thread of each kernel takes, from compiling ahead of time: no GPU is needed.

Run as `python -m tdsl.runtime.registers FOLDER --target sm_90 --dtype float32`: `FOLDER` holds `kernels.py`, and
`cases.json` with the calls that are meant.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from tdsl.runtime import aot
from tdsl.runtime.verify import cases, load

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def registers(folder: Path, target: str, dtype: torch.dtype) -> Iterator[Mapping[str, Mapping[str, int] | None]]:
    """Of each case what its kernels take `forward` and `backward`, None where there is none.

    `registers` is the most of any kernel, `spilled` the bytes of all of them.
    """
    module = load(folder / "kernels.py")
    known: dict[object, aot.Compiled] = {}
    for case in cases(folder / "cases.json"):
        if case.layout != "contiguous" or case.special:
            continue
        launched = aot.launches(module, case, dtype)
        for each in launched:
            if each.key() not in known:
                known[each.key()] = aot.compiled(each, target, dtype)
        sides = {"forward": False, "backward": True}
        yield {name: _most([known[e.key()] for e in launched if e.backward is side]) for name, side in sides.items()}


def _most(found: Sequence[aot.Compiled]) -> Mapping[str, int] | None:
    if not found:
        return None
    return {"registers": max(c.registers for c in found), "spilled": sum(c.spilled for c in found)}


def main(argv: Sequence[str] | None = None) -> int:
    """Print, as JSON, a list with an object for each case."""
    parser = argparse.ArgumentParser(description="Tell the registers of kernels.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", choices=list(aot.TARGETS), default="sm_90")
    parser.add_argument("--dtype", choices=list(DTYPES), default="f32")
    options = parser.parse_args(argv)
    print(json.dumps(list(registers(options.folder, options.target, DTYPES[options.dtype]))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
