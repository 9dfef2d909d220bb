"""Checks of the optimizers' kernels in Triton's interpreter, in a process of its own: `python -m tests.one_launch`.

PyTorch's optimizers are the oracle, and a run of them in float64 the judge: what is computed in one launch may be at
most twice as far from it as PyTorch's own float32, and a few units in the last place.
"""

from __future__ import annotations

import json
import traceback

import pytest
import torch

from tests import one_launch_state, one_launch_steps
from tests.one_launch_tools import CHECKS

__all__ = ["CHECKS", "one_launch_state", "one_launch_steps"]


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    for name, function in CHECKS.items():
        try:
            function()
            found[name] = ""
        except (Exception, pytest.fail.Exception):
            found[name] = traceback.format_exc()[-3000:]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
