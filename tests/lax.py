"""Rules of emitted text, for what Triton's interpreter can't show."""

from __future__ import annotations

import re


def lax(files: dict[str, str]) -> list[str]:
    """Lines that touch elements unmasked, read under a mask without saying what stands for the rest, or may overflow."""
    return [line for line in files["kernels.py"].splitlines() if _is_lax(line)]


def _is_lax(line: str) -> bool:
    if "tl.load(" in line and "mask=" in line and "other=" not in line:
        return True
    if re.match(r" +(offsets|rows|\w+_place) = .*tl\.program_id\(0\)(?!( [/%]+ \w+\))?\.to\(tl\.int64\))", line):
        return True
    return bool(re.search(r"tl\.(load|store)\(\w+ \+ (offsets|rows|cols)", line)) and "mask=" not in line
