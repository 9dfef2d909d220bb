"""How fast what is emitted runs, beside PyTorch and its peers: `python -m benchmarks.run --rows 1,2,5`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# On a machine where tdsl is not installed it is the one of this checkout.
if importlib.util.find_spec("tdsl") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
