"""Where tables are printed."""

from __future__ import annotations

import os
import sys

from rich.console import Console

# Characters of a line that goes into a file or a pipe, where names must not be cut.
WIDTH = 140


def console() -> Console:
    """The standard output: as wide as the terminal, or wide enough for whole names where it is none."""
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if narrow else WIDTH)
