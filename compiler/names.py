"""Names of emitted code made from names of the program."""

from __future__ import annotations

import keyword
import re


def snake(name: str) -> str:
    """`RMSNorm` as `rms_norm`, `With` as `with_`."""
    found = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return f"{found}_" if keyword.iskeyword(found) else found
