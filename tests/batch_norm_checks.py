"""What is checked of batch norm's kernels in Triton's interpreter, in a process of its own: `python -m` this, a folder.

Each check yields what is wrong; all of it is printed as JSON by the checks' names.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdsl.runtime import batch_norm, launch, verify


def channels_may_lie_together(kernels: ModuleType, folder: Path) -> Iterator[str]:
    """Against float64, at all sizes; `disagreements` has planes."""
    for case in verify.cases(folder / "cases.json"):
        if len(case.shapes[0]) == 2 or case.layout != "contiguous" or case.special:
            continue
        tried = replace(case, layout="channels_last")
        found = verify.verify(kernels, tried, torch.float32, "cpu")
        if not found.passed:
            yield f"{tried}: {found.problem} {found.forward:.2f} {found.backward:.2f}"


def gradients(kernels: ModuleType, group: str, layer: nn.Module, *given: Tensor) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in given]
    layer = copy.deepcopy(layer)
    result = getattr(kernels, group)(*leaves, layer)
    result.backward(torch.linspace(-1, 1, result.numel()).view(result.shape))
    grads = [t.grad for t in (*leaves, *layer.parameters())]
    return [result.detach(), *(g for g in grads if g is not None), *layer.buffers()]


def runs_are_bit_equal(kernels: ModuleType, folder: Path) -> Iterator[str]:
    layer = nn.BatchNorm2d(5)
    given = [torch.randn(7, 5, 9, 9) for _ in range(2)]
    for group, count in (("batch_norm_relu", 1), ("batch_norm_add_relu", 2)):
        first, second = (gradients(kernels, group, layer, *given[:count]) for _ in range(2))
        if not all(map(torch.equal, first, second)):
            yield group


OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"momentum": None},
    {"momentum": 0.3, "eps": 0.01},
    {"momentum": 1.0},
    {"track_running_stats": False},
)


def layers_keep_what_pytorch_keeps(kernels: ModuleType, folder: Path) -> Iterator[str]:
    """Results and statistics over several batches, then in evaluation."""
    for options in OPTIONS:
        ours = nn.BatchNorm2d(4, **options)
        theirs = copy.deepcopy(ours)
        for step in range(5):
            if step == 3:
                ours.eval()
                theirs.eval()
            x = torch.randn(6, 4, 3, 5) * 2 + 1
            y, wanted = kernels.batch_norm_relu(x, ours), F.relu(theirs(x))
            for a, b in zip((y, *ours.buffers()), (wanted, *theirs.buffers()), strict=True):
                if a.dtype != b.dtype or not torch.allclose(a, b, rtol=2e-6, atol=2e-6):
                    yield f"{options}, step {step}: {(a - b).abs().max()}"


def memory_formats_stay(kernels: ModuleType, folder: Path) -> Iterator[str]:
    images, volumes = torch.channels_last, torch.channels_last_3d
    for layer, shape, kept in (
        (nn.BatchNorm2d(3), (2, 3, 4, 5), images),
        (nn.BatchNorm3d(3), (2, 3, 4, 5, 2), volumes),
    ):
        for memory_format in (kept, torch.contiguous_format):
            x = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
            y = kernels.batch_norm_relu(x, layer)
            y.backward(torch.randn(shape))
            assert x.grad is not None
            if not all(t.is_contiguous(memory_format=memory_format) for t in (y, x.grad)):
                yield f"{shape} {memory_format}"


def far_from_zero(kernels: ModuleType, folder: Path) -> Iterator[str]:
    """Variances are as exact as the numbers allow, however large their mean is."""
    for shape in ((5000, 3), (3, 3, 50, 50), (300, 3, 4, 4)):
        for mean in (1e3, -1e5):
            x = torch.randn(shape) + mean
            layer = (nn.BatchNorm1d if x.dim() == 2 else nn.BatchNorm2d)(3, momentum=1.0)
            kernels.batch_norm_relu(x, layer)
            exact = x.double().transpose(0, 1).flatten(1)
            off = (layer.running_var - exact.var(1)).abs().max() / exact.var(1).max()
            wrong = (layer.running_mean - exact.mean(1)).abs().max() / abs(mean)
            if off > 2e-9 * abs(mean) + 1e-5 or wrong > 2e-7:
                yield f"{shape} {mean}: {off} {wrong}"


def refusals_are_those_of_pytorch(kernels: ModuleType, folder: Path) -> Iterator[str]:
    layer = nn.BatchNorm1d(3)
    try:
        kernels.batch_norm_relu(torch.randn(1, 3), layer)
        yield "one value a channel"
    except ValueError:
        pass
    counted = int(layer.num_batches_tracked)
    if kernels.batch_norm_relu(torch.randn(0, 3), layer).shape != (0, 3) or layer.num_batches_tracked != counted + 1:
        yield "an empty batch"
    try:
        kernels.batch_norm_relu(torch.randn(4, 5), layer)
        yield "another number of channels"
    except (ValueError, RuntimeError):
        pass


def layers_that_compute_themselves(kernels: ModuleType, folder: Path) -> Iterator[str]:
    x = torch.randn(4, 3, 2, 2)
    others = [nn.SyncBatchNorm(3), nn.InstanceNorm2d(3), nn.Identity(), nn.BatchNorm2d(3).double(), nn.BatchNorm2d(2)]
    others += [nn.BatchNorm2d(3), nn.BatchNorm2d(3)]
    others[-1].track_running_stats = False
    others[-2].num_batches_tracked = None
    for layer in others:
        if batch_norm.takes(layer, x):
            yield f"{layer}"
    for given in (x.double(), x.bfloat16()):
        if batch_norm.takes(nn.BatchNorm2d(3), given):
            yield f"{given.dtype}"
    if not torch.equal(kernels.batch_norm_relu(x, nn.Identity()), F.relu(x)):
        yield "an identity"


def folded_norms_change_nothing(kernels: ModuleType, folder: Path) -> Iterator[str]:
    folded = batch_norm.Folded().eval()
    for memory_format in (torch.channels_last, torch.contiguous_format):
        x, residual = (torch.randn(3, 4, 5, 6).contiguous(memory_format=memory_format) for _ in range(2))
        with torch.no_grad():
            if not batch_norm.takes(folded, x, residual):
                yield "kernels do not take it"
            if not torch.equal(kernels.batch_norm_relu(x, folded), F.relu(x)):
                yield "relu"
            if not torch.equal(kernels.batch_norm_add_relu(x, residual, folded), F.relu(x + residual)):
                yield "add, relu"
        x.requires_grad_()
        (grad,) = torch.autograd.grad(kernels.batch_norm_add_relu(x, residual, folded).sum(), x)
        if not torch.equal(grad, (x + residual > 0).float()):
            yield "a gradient"


def a_trial_keeps_the_layer(kernels: ModuleType, folder: Path) -> Iterator[str]:
    """Kernels that are tried on a GPU before their first use count no batch."""
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
    layer = nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    arguments = (x, layer.weight, layer.bias, layer)
    if not launch._builds(kernels._BatchNormRelu.apply, "relu", arguments):
        yield "it does not build"
    if layer.num_batches_tracked or layer.running_mean.any() or x.grad is not None:
        yield f"{layer.num_batches_tracked} {layer.running_mean}"


def statistics_that_change_are_noticed(kernels: ModuleType, folder: Path) -> Iterator[str]:
    """A gradient by running statistics that training has changed since is refused, as PyTorch refuses it."""
    layer = nn.BatchNorm2d(3).eval()
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    y = kernels.batch_norm_relu(x, layer)
    kernels.batch_norm_relu(x, layer.train())
    try:
        y.sum().backward()
        yield "a gradient from other statistics"
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            yield str(error)


CHECKS = (
    channels_may_lie_together,
    runs_are_bit_equal,
    layers_keep_what_pytorch_keeps,
    memory_formats_stay,
    far_from_zero,
    refusals_are_those_of_pytorch,
    layers_that_compute_themselves,
    folded_norms_change_nothing,
    a_trial_keeps_the_layer,
    statistics_that_change_are_noticed,
)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    kernels = verify.load(folder / "kernels.py")
    found = {}
    for check in CHECKS:
        torch.manual_seed(0)
        found[check.__name__] = list(check(kernels, folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
