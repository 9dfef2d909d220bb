"""Parameter groups, freezing, clipping and averaging, against PyTorch done by hand."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tdsl.compiler.emit.train import OWN_OPTIMIZERS
from tdsl.dsl.signatures import OPTIMIZERS
from tdsl.runtime import optim
from tdsl.runtime.loader import Batch
from tdsl.runtime.run import Failure


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.norm1 = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm1(self.embed(x)))  # type: ignore[no-any-return]


def named(group: dict[str, Any]) -> set[str]:
    return set(group["param_names"])


def test_parameters_that_are_alike_are_in_one_group() -> None:
    models = {"model": Tied()}
    special = {"*.bias": {"weight_decay": 0.0}, "*norm*": {"weight_decay": 0.0, "lr": 0.5}}
    made = optim.make(torch.optim.AdamW, optim.groups(models, special), lr=0.1, weight_decay=0.2)
    found = {frozenset(named(group)): (group["lr"], group["weight_decay"]) for group in made.param_groups}
    assert found == {
        frozenset({"embed.weight"}): (0.1, 0.2),
        frozenset({"head.bias"}): (0.1, 0.0),
        frozenset({"norm1.weight", "norm1.bias"}): (0.5, 0.0),
    }


def test_the_last_of_several_globs_holds_in_whatever_order_its_arguments_are() -> None:
    models = {"model": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))}
    special = {"*": {"lr": 0.3, "weight_decay": 0.1}, "1.*": {"weight_decay": 0.5}}
    made = optim.make(torch.optim.SGD, optim.groups(models, special), lr=1.0)
    assert [(group["lr"], group["weight_decay"]) for group in made.param_groups] == [(0.3, 0.1), (0.3, 0.5)]


def test_parameters_of_a_further_model_have_its_name_in_front() -> None:
    models = {"model": nn.Linear(2, 2), "teacher": nn.Linear(2, 2)}
    assert [name for name, _ in optim.named_parameters(models)] == ["weight", "bias", "teacher.weight", "teacher.bias"]
    optim.freeze(models, "teacher.*")
    assert not any(parameter.requires_grad for parameter in models["teacher"].parameters())
    assert {name for group in optim.groups(models) for name, _ in group["params"]} == {"weight", "bias"}


def test_a_pattern_may_name_a_module() -> None:
    models = {"model": nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))}
    optim.freeze(models, "1.?")
    assert {n for n, p in optim.named_parameters(models) if p.requires_grad} == {"0.weight", "0.bias"}
    (frozen,) = (g for g in optim.groups(models, {"0": {"lr": 0.5}}) if "lr" in g)
    assert [name for name, _ in frozen["params"]] == ["0.weight", "0.bias"]


def test_a_frozen_parameter_stays_as_it_was() -> None:
    model = Tied()
    optim.freeze({"model": model}, "norm1.*")
    before = deepcopy(model)
    made = optim.make(torch.optim.AdamW, optim.groups({"model": model}), lr=0.1)
    model(torch.arange(5)).square().mean().backward()
    made.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before.get_parameter(name))}
    assert changed == {"embed.weight", "head.bias"}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda models: optim.freeze(models, "encoder.*"),
        lambda models: optim.groups(models, {"*.scale": {"lr": 1.0}}),
    ],
)
def test_a_glob_that_names_nothing_is_an_error(wrong: Callable[[dict[str, nn.Module]], object]) -> None:
    with pytest.raises(Failure, match="matches no parameter") as found:
        wrong({"model": Tied()})
    assert "embed.weight" in str(found.value)


def test_nothing_left_to_train_is_an_error() -> None:
    models = {"model": Tied()}
    optim.freeze(models, "*")
    with pytest.raises(Failure, match="frozen"):
        optim.groups(models)


def test_what_pytorch_refuses_is_a_message() -> None:
    with pytest.raises(Failure, match="learning rate"):
        optim.make(torch.optim.Adam, optim.groups({"model": nn.Linear(1, 1)}), lr=-1.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_language_is_there_and_takes_a_step(name: str) -> None:
    kind = getattr(optim if name in OWN_OPTIMIZERS else torch.optim, name)
    model = nn.Linear(3, 2, bias=False)
    made = optim.make(kind, optim.groups({"model": model}), lr=0.1)
    before = model.weight.detach().clone()
    model(torch.ones(4, 3)).square().mean().backward()
    made.step()
    assert torch.isfinite(model.weight).all()
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("name", sorted({*OWN_OPTIMIZERS} - {"Lion"}))
def test_on_the_cpu_a_step_is_pytorchs(name: str) -> None:
    one, options = Tied(), {"momentum": 0.9} if name in ("SGD", "RMSprop") else {"amsgrad": True}
    two = deepcopy(one)
    for kind, model in ((getattr(optim, name), one), (getattr(torch.optim, name), two)):
        made = optim.make(kind, optim.groups({"model": model}), lr=0.01, **options)
        assert made.defaults.keys() == getattr(torch.optim, name)([torch.zeros(1)]).defaults.keys()
        for i in range(3):
            made.zero_grad()
            (model(torch.tensor([0, 1, i])) * 100).square().mean().backward()
            optim.clip_gradients(made, 0.5)
            before = [each._version for each in model.parameters()]
            made.step()
            assert all(each._version > v for each, v in zip(model.parameters(), before, strict=True)), "autograd knows"
        assert all(group.get("fused") is None for group in made.param_groups)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_on_the_cpu_parameters_may_begin_one_after_another(name: str) -> None:
    """And have no gradient in between: PyTorch's one call for all of a group takes momentum of all, or of none."""
    options = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {"amsgrad": True}
    found = []
    for kind in (getattr(optim, name), getattr(torch.optim, name)):
        torch.manual_seed(0)
        members = [nn.Parameter(torch.randn(5)) for _ in range(3)]
        made = kind(members, lr=0.1, **options)
        for step in range(6):
            for number, each in enumerate(members):
                absent = (number == 1 and step < 2) or (number == 2 and step == 4)
                each.grad = None if absent else torch.randn(5)
            made.step()
        found.append(members)
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a slice": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[:1, :1, :1, :1].expand(x.shape),
}


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_layouts_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    """Each of a parameter and of its gradient; and a state that was loaded in another."""
    options = {"momentum": 0.9, "weight_decay": 0.1} if name == "SGD" else {"amsgrad": True, "weight_decay": 0.1}
    for first in list(LAYOUTS)[:-1]:
        for second in LAYOUTS:
            found = []
            for kind in (getattr(optim, name), getattr(torch.optim, name)):
                torch.manual_seed(0)
                parameter = nn.Parameter(LAYOUTS[first](torch.randn(3, 4, 5, 6, dtype=dtype)))
                made = kind([parameter], lr=0.01, **options)
                for step in range(4):
                    parameter.grad = LAYOUTS[second](torch.randn(3, 4, 5, 6, dtype=dtype))
                    made.step()
                    if step == 1:
                        state = made.state[parameter]
                        state |= {key: LAYOUTS["transposed"](each) for key, each in state.items() if each.ndim}
                found.append(parameter)
            torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7, msg=f"{first}, {second}")


@pytest.mark.parametrize("asked", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}])
def test_what_is_asked_for_holds(asked: dict[str, bool]) -> None:
    """On the CPU, bit for bit."""
    found = []
    for kind in (optim.AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        parameter = nn.Parameter(torch.randn(50))
        made = kind([parameter], lr=0.01, **asked)
        for _ in range(3):
            parameter.grad = torch.randn(50)
            made.step()
        assert made.param_groups[0][next(iter(asked))] is next(iter(asked.values()))
        found.append(parameter)
    assert torch.equal(*found)


def test_a_norm_that_nobody_asks_for_is_not_looked_for() -> None:
    model = nn.Linear(2, 1)
    made = optim.make(optim.SGD, optim.groups({"model": model}), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    assert optim.clip_gradients(made, None, told=False).isnan()
    assert optim.clip_gradients(made, None).item() == pytest.approx(3**0.5)
    assert optim.clip_gradients(made, 0.5, told=False).item() == pytest.approx(3**0.5)
    assert model.weight.grad is not None
    assert model.weight.grad.norm().item() < 0.5


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e6])
def test_clipping_is_pytorchs(max_norm: float) -> None:
    torch.manual_seed(0)
    one = Tied()
    two = deepcopy(one)
    for model in (one, two):
        (model(torch.tensor([0, 1, 4])) * 100).sum().backward()
    norm = optim.clip_gradients(optim.make(torch.optim.SGD, optim.groups({"model": one}), lr=0.1), max_norm)
    expected = nn.utils.clip_grad_norm_(two.parameters(), max_norm)
    assert torch.equal(norm, expected)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


def test_without_a_limit_only_the_norm_is_told() -> None:
    model = nn.Linear(2, 1)
    (model(torch.ones(1, 2)) * 50).sum().backward()
    assert model.weight.grad is not None
    before = model.weight.grad.clone()
    norm = optim.clip_gradients(optim.make(torch.optim.SGD, optim.groups({"model": model}), lr=0.1), None)
    assert torch.equal(model.weight.grad, before)
    assert norm.item() == pytest.approx(np.sqrt(2 * 50**2 + 50**2))


def test_the_average_follows_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    ema = optim.average(model, 0.9)
    expected: Tensor | None = None
    for _ in range(5):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        ema.update_parameters(model)
        now = model.weight.detach().double()
        expected = now if expected is None else 0.9 * expected + 0.1 * now
    torch.testing.assert_close(ema.module.weight.double(), expected, rtol=1e-6, atol=1e-6)


def test_lion_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3))
    parameter = nn.Parameter(torch.tensor(weight))
    lion = optim.Lion([parameter], lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)
    momentum = np.zeros_like(weight)
    for _ in range(10):
        gradient = rng.normal(size=weight.shape)
        parameter.grad = torch.tensor(gradient)
        lion.step()
        weight = weight - 0.01 * (np.sign(0.8 * momentum + 0.2 * gradient) + 0.1 * weight)
        momentum = 0.95 * momentum + 0.05 * gradient
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-12)


@pytest.mark.parametrize("rows", [12, 11, 3, 1])
@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_parts_of_a_batch_add_up_to_its_gradient(rows: int, parts: int) -> None:
    """As in an emitted step: each part's mean is weighted by its rows, the last, smaller batch of an epoch included."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3, dtype=torch.float64)
    fields = {"x": torch.randn(rows, 5, dtype=torch.float64), "y": torch.randint(3, (rows,))}
    batch = Batch(fields, rows)
    for part in batch.chunk(parts):
        value = nn.functional.cross_entropy(model(part.x), part.y) * (part.size / batch.size)
        value.backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    whole = deepcopy(model)
    whole.zero_grad()
    nn.functional.cross_entropy(whole(batch.x), batch.y).backward()  # type: ignore[no-untyped-call]
    assert whole.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, whole.weight.grad, rtol=1e-12, atol=1e-12)
