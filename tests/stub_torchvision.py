"""torchvision beside a torch without its compiled operators: the transforms need none of them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

# Kept alive: a library that is collected takes its operators with it.
_STUBS = []


def transforms() -> ModuleType:
    """`torchvision.transforms.v2`; skips the test where torchvision is not installed."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision is not installed")
    if "torchvision" not in sys.modules:
        version = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
        if "+cu" in version and torch.version.cuda is None:
            _stub()
    return importlib.import_module("torchvision.transforms.v2")


def _stub() -> None:
    """Define the operators that are looked for when torchvision is imported; its own library can't be loaded."""
    stub: Any = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        stub.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _STUBS.append(stub)
