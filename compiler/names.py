"""Names of emitted code made from names of the program."""

from __future__ import annotations

import re


def snake(name: str) -> str:
    """`RMSNorm` as `rms_norm`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
