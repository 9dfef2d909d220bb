"""Numbers and times as people read them."""

from __future__ import annotations

import math

import pytest

from tdsl.runtime.readable import clock, duration, number, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.9877"),
        (1.0, "1.0000"),
        (109.2345, "109.23"),
        (1234.5678, "1,234.6"),
        (2.5e-5, "2.500e-05"),
        (3.2e7, "3.200e+07"),
        (0.0, "0.0"),
        (1797, "1,797"),
        (-0.5, "-0.5000"),
        (None, "undefined"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_numbers_have_as_many_digits_as_tell_something(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text", "words"),
    [(0.04, "0:00", "0.0 s"), (59.4, "0:59", "59 s"), (61, "1:01", "1 min 01 s"), (3725, "1:02:05", "1 h 02 min")],
)
def test_times(seconds: float, text: str, words: str) -> None:
    assert clock(seconds) == text
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1024, "1.00 KiB"), (12.5 * 2**20, "12.5 MiB"), (999 * 2**30, "999 GiB"),
     (1023 * 2**30, "1.00 TiB"), (80 * 2**40, "80.0 TiB")],
)  # fmt: skip
def test_sizes_have_three_digits(bytes: float, text: str) -> None:
    assert size(bytes) == text
