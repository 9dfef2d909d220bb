"""Copies of parameters in low precision: never stale, never in the way of what else is done with a model."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tdsl.runtime import low_precision, mixed_precision, optim

LOW = torch.bfloat16


def parameter() -> nn.Parameter:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(6, 4))


def up_to_date(p: nn.Parameter) -> Tensor:
    low = low_precision.of(p, LOW)
    assert torch.equal(low, p.detach().to(LOW))
    return low


def in_place(p: nn.Parameter) -> None:
    with torch.no_grad():
        p.mul_(2)


def initialised(p: nn.Parameter) -> None:
    nn.init.normal_(p)


def through_a_view(p: nn.Parameter) -> None:
    with torch.no_grad():
        p[2:].zero_()


def through_a_detached_one(p: nn.Parameter) -> None:
    p.detach().add_(1.0)


def another_storage(p: nn.Parameter) -> None:
    p.data = p.data * 3


def another_order(p: nn.Parameter) -> None:
    p.data = p.data.reshape(4, 6).T


def loaded(p: nn.Parameter) -> None:
    holder = nn.ParameterDict({"p": p})
    holder.load_state_dict({"p": torch.full_like(p, 7.0)})


def optimized(p: nn.Parameter) -> None:
    p.grad = torch.ones_like(p)
    torch.optim.SGD([p], lr=0.5).step()


CHANGES: list[Callable[[nn.Parameter], None]] = [
    in_place, initialised, through_a_view, through_a_detached_one, another_storage,
    another_order, loaded, optimized,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_no_change_leaves_a_copy_stale(change: Callable[[nn.Parameter], None]) -> None:
    p = parameter()
    up_to_date(p)
    before = p.detach().clone()
    change(p)
    assert not torch.equal(p, before)
    up_to_date(p)


def test_another_storage_at_the_same_address_is_not_mistaken() -> None:
    """Its version is the same, too, and where the first storage was described there may be another now."""
    p, memory = parameter(), np.zeros((6, 4), dtype=np.float32)
    for i in range(50):
        memory += 1
        p.data = torch.from_numpy(memory)
        up_to_date(p)
        assert (p.data_ptr(), p._version) == (memory.ctypes.data, 0)
        if i % 2:
            p.data = torch.zeros(6, 4)


def test_a_copy_is_made_once_and_made_anew_in_the_same_memory() -> None:
    p = parameter()
    low = up_to_date(p)
    version = low._version
    assert low_precision.of(p, LOW) is low
    assert low._version == version
    in_place(p)
    assert up_to_date(p) is low


def test_the_precision_may_change() -> None:
    p = parameter()
    up_to_date(p)
    assert torch.equal(low_precision.of(p, torch.float16), p.half())
    up_to_date(p)


def test_a_copy_is_gone_with_its_parameter() -> None:
    before = len(low_precision._COPIES)
    p = parameter()
    up_to_date(p)
    assert len(low_precision._COPIES) == before + 1
    del p
    gc.collect()
    assert len(low_precision._COPIES) == before


def test_a_copy_made_in_inference_mode_can_be_trained_with() -> None:
    layer, x = mixed_precision.Linear(4, 3), torch.randn(2, 4, dtype=LOW)
    with torch.inference_mode():
        layer(x)
        in_place(layer.weight)
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    up_to_date(layer.weight)


def test_parameters_that_are_no_plain_ones_are_cast() -> None:
    low_precision.cast(torch.randn(3), LOW)
    assert low_precision.cast(p := parameter(), torch.float32) is p
    assert low_precision.cast(p, torch.float64).dtype == torch.float64
    computed = nn.utils.parametrizations.weight_norm(mixed_precision.Linear(4, 3))
    x = torch.randn(2, 4)
    torch.testing.assert_close(computed(x.to(LOW)).float(), computed(x), rtol=0.05, atol=0.05)
    with torch.inference_mode():
        assert low_precision.cast(nn.Parameter(torch.ones(3)), LOW).dtype == LOW
    meta = nn.Parameter(torch.ones(3, device="meta"))
    assert low_precision.cast(meta, LOW).device.type == "meta"
    assert not any(low_precision.find(each) for each in (meta, p))


# Layers ---------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Every kind of product, one weight tied to an embedding, one layer that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.conv = mixed_precision.Conv1d(8, 8, 3, padding=1)
        self.back = mixed_precision.ConvTranspose1d(8, 8, 3, padding=1)
        self.pair = mixed_precision.Bilinear(8, 8, 8)
        self.act = mixed_precision.PReLU()
        self.frozen = mixed_precision.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.head = mixed_precision.Linear(8, 7)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).to(LOW)
        x = self.back(self.act(self.conv(x.mT))).mT
        found: Tensor = self.head(self.frozen(self.pair(x, x)))
        return found


class Cast(nn.Module):
    """The same with casts where the weights are used."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Tensor:
        net, F = self.net, nn.functional

        def low(p: Tensor | None) -> Tensor:
            assert p is not None
            return p.to(LOW)

        x = low(net.embed(tokens)).mT
        x = F.conv1d(x, low(net.conv.weight), low(net.conv.bias), padding=1)
        x = F.prelu(x, low(net.act.weight))
        x = F.conv_transpose1d(x, low(net.back.weight), low(net.back.bias), padding=1).mT
        x = F.bilinear(x, x, low(net.pair.weight), low(net.pair.bias))
        x = F.linear(x, low(net.frozen.weight), low(net.frozen.bias))
        return F.linear(x, low(net.head.weight), low(net.head.bias))


def trained(forward: Callable[[Tensor], Tensor], model: nn.Module, kind: Any, steps: int = 3) -> nn.Module:
    made = kind([p for p in model.parameters() if p.requires_grad], lr=0.01)
    torch.manual_seed(1)
    for _ in range(steps):
        for _ in range(2):  # two backward passes are added up
            tokens = torch.randint(7, (4, 5))
            nn.functional.cross_entropy(forward(tokens).float().mT, tokens).backward()
        made.step()
        made.zero_grad()
    return model


def test_a_model_trains_as_with_casts() -> None:
    torch.manual_seed(0)
    one = Net()
    two = copy.deepcopy(one)
    frozen = one.frozen.weight.detach().clone()
    trained(one, one, optim.AdamW)
    trained(Cast(two), two, torch.optim.AdamW)
    assert torch.equal(one.frozen.weight, frozen)
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0.02, atol=0.004, msg=name)
        assert p.dtype == torch.float32
    with torch.no_grad():
        tokens = torch.randint(7, (4, 5))
        assert torch.equal(one(tokens), Cast(one)(tokens))


def test_gradients_are_in_float32_and_frozen_weights_pass_them_on() -> None:
    layer = mixed_precision.Linear(64, 3)
    layer.weight.requires_grad_(False)
    x = torch.randn(500, 64, dtype=LOW, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == LOW
    assert layer.weight.grad is None
    assert layer.bias.grad is not None
    # In bfloat16 a count of 500 ones does not come out.
    assert torch.equal(layer.bias.grad, torch.full((3,), 500.0))


def test_a_second_derivative_goes_through_a_layer() -> None:
    """As with a cast weight, up to the rounding of what is between."""
    torch.manual_seed(0)
    layer = mixed_precision.Linear(5, 4)
    x = torch.randn(3, 5).to(LOW).requires_grad_()

    def second(y: Tensor) -> list[Tensor]:
        (first,) = torch.autograd.grad(y.float().tanh().sum(), x, create_graph=True)
        return list(torch.autograd.grad(first.float().square().sum(), [layer.weight, layer.bias, x]))

    low = layer.weight.to(LOW), layer.bias.to(LOW)
    for found, wanted in zip(second(layer(x)), second(nn.functional.linear(x, *low)), strict=True):
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.02)


def test_a_weight_changed_before_the_backward_is_noticed() -> None:
    layer, x = mixed_precision.Linear(4, 3), torch.randn(2, 4, dtype=LOW, requires_grad=True)
    y = layer(x)
    in_place(layer.weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_copied_pickled_and_averaged_models_have_copies_of_their_own() -> None:
    torch.manual_seed(0)
    tokens, model = torch.randint(7, (2, 5)), Net()
    model(tokens)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    read = Net()
    read.load_state_dict(torch.load(file, weights_only=True))
    ema = optim.average(model, 0.5)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), read, ema.module]
    for other in others:
        assert torch.equal(other(tokens), model(tokens))
    wanted = model(tokens)
    trained(model, model, optim.AdamW)
    assert not torch.equal(model(tokens), wanted)
    for other in others:
        assert torch.equal(other(tokens), wanted)
    ema.update_parameters(model)
    assert torch.equal(ema.module(tokens), model(tokens))  # the first update takes the model as it is
    trained(model, model, optim.AdamW)
    ema.update_parameters(model)
    assert torch.equal(ema.module(tokens), Cast(ema.module)(tokens))
    assert set(model.state_dict()) == set(Net().state_dict())
