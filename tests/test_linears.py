"""Several linear layers as one product: results, gradients, and all that is done with the layers besides."""

from __future__ import annotations

import copy
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from tdsl.runtime import adjacent, checkpoint, linears, mixed_precision, optim

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def layers(bias: bool = True, sizes: tuple[int, ...] = (6, 4, 5)) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(8, size, bias=bias) for size in sizes]


def by_hand(x: Tensor, *members: nn.Linear) -> Tensor:
    def low(p: Tensor | None) -> Tensor | None:
        return None if p is None else p.to(x.dtype)

    return torch.cat([F.linear(x, each.weight.to(x.dtype), low(each.bias)) for each in members], dim=-1)


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    size = float(wanted.detach().abs().max()) if wanted.numel() else 0.0
    torch.testing.assert_close(found, wanted, rtol=8 * eps, atol=8 * eps * (1 + size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 8), (2, 3, 8), (8,), (0, 8), (1, 8)])
def test_one_product_is_what_the_layers_give(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]) -> None:
    mine, theirs = layers(bias), layers(bias)
    for step in range(3):
        torch.manual_seed(step)
        x, grad = torch.randn(shape).to(dtype), torch.randn(*shape[:-1], 15).to(dtype)
        inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
        found, wanted = linears.linears(inputs[0], *mine), by_hand(inputs[1], *theirs)
        assert found.dtype == dtype
        close(found, wanted, dtype)
        found.backward(grad)
        wanted.backward(grad)
        assert inputs[0].grad is not None
        assert inputs[1].grad is not None
        close(inputs[0].grad, inputs[1].grad, dtype)
    for one, other in zip(mine, theirs, strict=True):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert p.grad is not None
            assert q.grad is not None
            assert p.grad.dtype == torch.float32
            close(p.grad, q.grad, dtype)


def test_the_layers_agree_on_having_a_bias() -> None:
    with pytest.raises(ValueError, match="bias"):
        linears.linears(torch.randn(2, 8), nn.Linear(8, 2), nn.Linear(8, 2, bias=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_laid_beside_one_another_once(dtype: torch.dtype) -> None:
    members, x = layers(), torch.randn(3, 8).to(dtype)
    parameters = [p for each in members for p in each.parameters()]
    with patch.object(torch, "cat", wraps=torch.cat) as concatenated:
        linears.linears(x, *members)
        assert concatenated.call_count == 2
        made = optim.SGD(parameters, lr=0.1)
        for _ in range(2):
            linears.linears(x, *members).sum().backward()
            made.step()
            members[1](x.float())
        assert concatenated.call_count == 2
    assert all(a is b for a, b in zip(parameters, (p for each in members for p in each.parameters()), strict=True))
    gradients = [each.weight.grad for each in members]
    assert len({g.untyped_storage().data_ptr() for g in gradients if g is not None}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_in_two_products_stays_where_it_was_first(dtype: torch.dtype) -> None:
    one, two, three = layers(sizes=(6, 6, 6))
    x = torch.randn(3, 8).to(dtype)
    for _ in range(2):
        for members in ((one, two), (two, three), (three, one), (one, one)):
            close(linears.linears(x, *members), by_hand(x, *members), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changes_of_a_parameter_reach_the_product(dtype: torch.dtype) -> None:
    members, x = layers(), torch.randn(3, 8).to(dtype)
    linears.linears(x, *members)
    with torch.no_grad():
        members[1].weight.mul_(2)
        members[2].bias.add_(1)
    close(linears.linears(x, *members), by_hand(x, *members), dtype)
    members[0].weight.data = torch.randn(6, 8)
    close(linears.linears(x, *members), by_hand(x, *members), dtype)
    members[0].weight = nn.Parameter(torch.randn(6, 8))
    close(linears.linears(x, *members), by_hand(x, *members), dtype)
    members[1].load_state_dict(nn.Linear(8, 4).state_dict())
    close(linears.linears(x, *members), by_hand(x, *members), dtype)
    other = copy.deepcopy(nn.ModuleList(members))
    optim.SGD(members[0].parameters(), lr=0.1)
    close(linears.linears(x, *other), by_hand(x, *members), dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_parameter_changed_before_the_backward_is_noticed(dtype: torch.dtype) -> None:
    members, x = layers(), torch.randn(3, 8).to(dtype)
    y = linears.linears(x, *members)
    with torch.no_grad():
        members[2].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_frozen_and_computed_weights() -> None:
    x = torch.randn(3, 8)
    members = layers()
    members[1].requires_grad_(False)
    linears.linears(x, *members).square().sum().backward()
    assert members[1].weight.grad is None
    wanted = layers()
    by_hand(x, *wanted).square().sum().backward()
    for i in (0, 2):
        assert members[i].weight.grad is not None
        assert wanted[i].weight.grad is not None
        close(members[i].weight.grad, wanted[i].weight.grad, torch.float32)
    computed = [nn.utils.parametrizations.weight_norm(each) for each in layers()]
    for dtype in (torch.float32, torch.bfloat16):
        low = x.to(dtype)
        close(linears.linears(low, *computed), by_hand(low, *computed), dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_second_derivatives(dtype: torch.dtype) -> None:
    members = [each.to(dtype) for each in layers()]
    x = torch.randn(3, 8, dtype=dtype, requires_grad=True)
    parameters = [p for each in members for p in each.parameters()]

    def second(y: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(y.tanh().sum(), [x, *parameters], create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), [x, *parameters]))  # type: ignore[arg-type]

    for found, wanted in zip(second(linears.linears(x, *members)), second(by_hand(x, *members)), strict=True):
        close(found, wanted, torch.float32)
    if dtype is torch.float64:
        torch.autograd.gradgradcheck(lambda x: linears.linears(x, *members), x)


class Attention(nn.Module):
    """Three projections of one input; the second block shares its layers with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = layers(sizes=(8, 8, 8))
        self.again = nn.ModuleList([self.q, self.k])
        self.embed = nn.Embedding(8, 8)
        self.v.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = linears.linears(x, self.q, self.k, self.v).chunk(3, dim=-1)
        return linears.linears(q * k + v, self.q, self.k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpoints_keep_names_and_values(dtype: torch.dtype, tmp_path: Path) -> None:
    model, x = Attention(), torch.randn(3, 8).to(dtype)
    made = optim.make(optim.AdamW, optim.groups({"model": model}), lr=0.1)
    plain = Attention().state_dict()
    save_model(Attention(), str(tmp_path / "plain.safetensors"))
    for _ in range(2):
        model(x).float().square().sum().backward()
        made.step()
    tensors, rest = checkpoint.flat_optimizer(made)
    found = checkpoint.write(
        tmp_path, 2, models={"model": model}, tensors={"optimizer": tensors}, state={"rest": rest}, program=""
    )
    assert list(model.state_dict()) == list(plain)
    saved = load_file(found.path / "model.safetensors")
    assert list(saved) == list(load_file(tmp_path / "plain.safetensors"))
    assert (found.path / "model.safetensors").stat().st_size < 1.2 * (tmp_path / "plain.safetensors").stat().st_size
    other = Attention()
    for _ in range(2):  # into a model as it is made, and into one that has been used
        checkpoint.load_model_weights(found, other)
        assert all(
            torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True)
        )
        assert torch.equal(other(x), model(x))
        with torch.no_grad():
            other.q.weight.zero_()
    checkpoint.load_weights(tmp_path / "plain.safetensors", model)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.values(), strict=True))
    copied = copy.deepcopy(model)
    assert copied.v.weight is copied.embed.weight
    assert torch.equal(copied(x), model(x))


def test_mixed_precision_has_it_too() -> None:
    members = [mixed_precision.Linear(8, 4), mixed_precision.Linear(8, 2)]
    x = torch.randn(3, 8, dtype=torch.bfloat16)
    close(mixed_precision.linears(x, *members), torch.cat([each(x) for each in members], -1), torch.bfloat16)


def test_what_lies_beside_one_another() -> None:
    whole = torch.arange(24.0).reshape(6, 4)
    parts = [whole[:2], whole[2:3], whole[3:]]
    found = adjacent.stacked(parts)
    assert found is not None
    assert torch.equal(found, whole)
    assert found.data_ptr() == whole.data_ptr()
    assert adjacent.stacked([whole[3:]]) is not None
    for wrong in ([whole[:2], whole[3:]], [whole[2:], whole[:2]], [whole[:2], whole[2:].clone()], [whole[:, :2]],
                  [whole[:2], whole[2:].reshape(8, 2)]):  # fmt: skip
        assert adjacent.stacked(wrong) is None
    assert not adjacent.stackable(parts)
    assert not adjacent.stackable([whole, whole])
    assert not adjacent.stackable([torch.ones(2, 3), torch.ones(2, 4)])
    assert adjacent.stackable([torch.ones(2, 3), torch.ones(1, 3)])
