"""What autocast casts on a GPU that is not there, by the lists in the headers of PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tdsl.runtime.counting import autocast as lists
from tdsl.runtime.counting.autocast import autocast
from tdsl.runtime.counting.counter import counting
from tdsl.runtime.counting.gpu import GPU, fake_gpu

HEADER = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
MACROS = {
    "AT_FORALL_LOWER_PRECISION_FP": lists.LOW,
    "AT_FORALL_FP32": lists.FLOAT32,
    "AT_FORALL_FP32_SET_OPT_DTYPE": lists.FLOAT32_RESULT,
    "AT_FORALL_PROMOTE": lists.WIDEST,
}


@pytest.mark.skipif(not HEADER.exists(), reason="this installation of PyTorch has no headers")
@pytest.mark.parametrize("macro", MACROS)
def test_the_lists_are_those_of_pytorch(macro: str) -> None:
    """Each entry reads `_(name)` or `_(name, overload)`; nobody names the dimensions of tensors."""
    text = re.sub(r"\\\n", " ", HEADER.read_text())
    (line,) = re.findall(rf"#define {macro}\(_\)(.*)", text)
    entries = re.findall(r"_\((\w+)(?:,\s*(\w+))?\)", line)
    found = {f"{name}.{overload}" if overload else name for name, overload in entries}
    assert {name for name in found if "dimname" not in name.lower()} == set(filter(lists.has_wrapper, MACROS[macro]))


def cast(function: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[torch.dtype, int]:
    """The dtype of a function's result under autocast to bfloat16, and how many tensors were cast for it."""
    with fake_gpu(), counting() as counter, autocast(torch.bfloat16):
        counter.on = False
        given = [torch.empty(shape, device=GPU, requires_grad=True) for shape in shapes]
        low = [each.to(torch.bfloat16) for each in given]
        counter.on = True
        dtype = function(*given, *low).dtype
    return dtype, sum(tally.launches for kind, tally in counter.found.items() if kind.name == "_to_copy")


CASTS: dict[str, tuple[Callable[..., Any], torch.dtype, int]] = {
    "linear": (lambda x, w, x16, w16: F.linear(x, w), torch.bfloat16, 2),
    "a weight once": (lambda x, w, x16, w16: F.linear(F.linear(x16, w), w), torch.bfloat16, 1),
    "a copy each time": (lambda x, w, x16, w16: (x * 1) @ w16 + (x * 1) @ w16, torch.bfloat16, 2),
    "layer_norm": (lambda x, w, x16, w16: F.layer_norm(x16, (16,)), torch.float32, 1),
    "softmax": (lambda x, w, x16, w16: torch.softmax(x16, -1), torch.float32, 1),
    "sum": (lambda x, w, x16, w16: x16.sum(-1), torch.float32, 0),
    "norm": (lambda x, w, x16, w16: torch.norm(x16, dim=-1), torch.float32, 0),
    "power": (lambda x, w, x16, w16: x16**2, torch.float32, 1),
    "gelu": (lambda x, w, x16, w16: F.gelu(x16), torch.bfloat16, 0),
    "the widest": (lambda x, w, x16, w16: torch.addcmul(x, x16, x16), torch.float32, 2),
    "binary_cross_entropy": (lambda x, w, x16, w16: F.binary_cross_entropy(x16, x), torch.float32, 1),
    "double": (lambda x, w, x16, w16: x.double() @ w.double(), torch.float64, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CASTS)
def test_what_autocast_casts(name: str) -> None:
    function, dtype, casts = CASTS[name]
    assert cast(function, (16, 16), (16, 16)) == (dtype, casts)
