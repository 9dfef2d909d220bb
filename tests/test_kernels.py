"""Every fusible operation in a kernel with neighbours, in both directions, against float64 in Triton's interpreter.

A batch is one program of many modules; each module becomes one group (asserted), and each group runs at the sizes, in
the memory layouts and at the precisions of `tdsl verify`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import compiled, disagreements, emitted, graph_of, python, written
from tests.kernel_cases import BATCHES, SPLIT


@pytest.mark.parametrize("batch", BATCHES)
def test_kernels_agree_with_float64(batch: str, tmp_path: Path) -> None:
    unit = compiled("".join(BATCHES[batch].values()))
    split = [name for name in BATCHES[batch] if len(graph_of(unit, name).nodes) != 1]
    assert set(split) <= SPLIT, "not one group"
    folder = written(emitted(unit), tmp_path)
    formatted = python("-m", "ruff", "format", "--check", "--no-cache", "--isolated", "--line-length=120", folder)
    assert formatted.returncode == 0, formatted.stdout[-3000:]
    told = disagreements(folder)
    assert not told, f"{len(told)} cases:\n" + "\n".join(told[:20])


def test_truth_values_of_single_numbers_are_of_blocks() -> None:
    """Whatever they are made by: Triton's interpreter makes numbers of others that it broadcasts."""
    inputs = "w: float[1, D], f: float[1, D]"
    text = emitted(
        compiled(
            f"module M(D: int = 1) {{\n    forward({inputs}) -> bool[1, D] {{\n        v = w * f + tanh(f)\n"
            "        return logical_and(v > 0, w > 0.5)\n    }\n}\n"
        )
    )["kernels.py"]
    loads = [line for line in text.splitlines() if "tl.load(" in line]
    assert len(loads) == 2
    assert all("+ tl.zeros(" in line or "offsets" in line for line in loads), loads
