"""Numbers and times as people read them."""

from __future__ import annotations

import math

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None, digits: int = 4) -> str:
    """A number with as many digits as tell something."""
    if value is None:
        return "undefined"
    if isinstance(value, int) or value == 0 or not math.isfinite(value):
        return f"{value:,}"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:,.{max(0, digits - max(0, math.floor(math.log10(abs(value)))))}f}"
    return f"{value:.3e}"


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """`1 h 02 min`, `2 min 03 s` or `4.5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(bytes: float) -> str:
    """`1.25 GiB`, with three digits."""
    power = 0
    while bytes >= 1000 and power < len(UNITS) - 1:
        bytes, power = bytes / 1024, power + 1
    digits = 0 if power == 0 else max(0, 2 - math.floor(math.log10(max(bytes, 1))))
    return f"{bytes:.{digits}f} {UNITS[power]}"
