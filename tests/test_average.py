"""Averaged weights: what follows a model, and what is the model's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tdsl.runtime import optim
from tdsl.runtime.average import Average, Averaged

DECAY = 0.75
AVERAGED = ("0.weight", "1.running_mean", "1.running_var")


def normed() -> nn.Sequential:
    """A model with running statistics, and with buffers of its own that no average is of."""
    found = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    found.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    found.register_buffer("order", torch.arange(3))
    return found


def changed(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model after a step that changes all that a step can."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(16, 3) * 3 + 1)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", [Averaged, Average])
def test_statistics_are_averaged_as_parameters_are(kind: type[Averaged | Average]) -> None:
    torch.manual_seed(0)
    model = normed()
    average = kind(model, DECAY)
    steps = []
    for _ in range(5):
        steps.append(changed(model))
        average.update_parameters(model)
    found = average.module.state_dict() if isinstance(average, Averaged) else average.state_dict()
    for name in AVERAGED:
        expected = steps[0][name].double()
        for step in steps[1:]:
            expected = DECAY * expected + (1 - DECAY) * step[name].double()
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-6, atol=1e-6)
        assert not torch.equal(found[name], steps[-1][name])
    for name in ("mask", "order", "1.num_batches_tracked"):
        assert torch.equal(found[name], steps[-1][name])


def test_statistics_are_swapped_with_the_parameters() -> None:
    """Where a model is divided, it is itself what is evaluated."""
    torch.manual_seed(0)
    model = normed()
    average, other = Average(model, DECAY), Averaged(model, DECAY)
    for _ in range(3):
        before = changed(model)
        average.update_parameters(model)
        other.update_parameters(model)
    x = torch.randn(5, 3)
    with average.instead():
        torch.testing.assert_close(model.eval()(x), other.module.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_averaged_means_are_those_of_what_the_averaged_weights_compute() -> None:
    """A layer is linear in its weights: of the same rows, the average of its means is the mean of its average."""
    torch.manual_seed(0)
    model, x = normed(), torch.randn(64, 3)
    model[1].momentum = 1.0
    average = optim.average(model, DECAY)
    for _ in range(6):
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
        model.train()(x)
        average.update_parameters(model)
    found = average.module
    assert isinstance(found, nn.Sequential)
    torch.testing.assert_close(found[1].running_mean, found[0](x).mean(0).detach(), rtol=1e-5, atol=1e-5)
    assert (found[1].running_mean - model[1].running_mean).abs().max() > 0.1
