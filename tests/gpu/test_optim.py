"""What of the optimizers, copies and products only a GPU shows."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tdsl.runtime import linears, low_precision, mixed_precision, optim
from tests import one_launch_steps, one_launch_tools

SIZES = ((0,), (1,), (1025,), (7, 11), (300, 1000), (1 << 20,))


@contextmanager
def without_waiting() -> Iterator[None]:
    """Nothing within waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().cuda()) for p in one_launch_tools.parameters(sizes=SIZES)]


def stepped(made: Any, members: list[nn.Parameter], steps: int) -> None:
    for step in range(steps):
        one_launch_tools.give(
            members, [None if g is None else g.cuda() for g in one_launch_tools.gradients(members, step)]
        )
        made.step()


@pytest.mark.parametrize("name", one_launch_steps.OPTIONS)
def test_steps_are_pytorchs(name: str) -> None:
    for options in one_launch_steps.OPTIONS[name]:
        mine = parameters()
        theirs, exact = copy.deepcopy(mine), one_launch_tools.doubled(mine)
        low = [low_precision.of(p, torch.bfloat16) for p in mine[:5]]
        for kind, members in ((getattr(optim, name), mine), (one_launch_steps.ORACLES[name], theirs)):
            stepped(kind(one_launch_tools.groups(members), lr=0.01, **options), members, 5)
        stepped(one_launch_steps.ORACLES[name](one_launch_tools.groups(exact), lr=0.01, **options), exact, 5)
        one_launch_tools.judge(mine, theirs, exact, f"{options}")
        assert all(torch.equal(each, p.to(torch.bfloat16)) for each, p in zip(low, mine, strict=False))


@pytest.mark.parametrize("name", one_launch_steps.LONG)
def test_two_hundred_steps(name: str) -> None:
    one_launch_steps.many_steps(name, one_launch_steps.LONG[name], "cuda", SIZES[1:4])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_in_low_precision(dtype: torch.dtype) -> None:
    mine = [nn.Parameter(p.detach().to(dtype)) for p in parameters()]
    theirs, exact = copy.deepcopy(mine), one_launch_tools.doubled(mine)
    for kind, members in ((optim.AdamW, mine), (torch.optim.AdamW, theirs), (torch.optim.AdamW, exact)):
        stepped(kind(members, lr=0.01), members, 1)
    one_launch_tools.judge(mine, theirs, exact)


def test_norms_and_steps_have_the_same_bits_each_time_and_nothing_waits() -> None:
    mine = parameters()
    start = [p.detach().clone() for p in mine]
    given = [None if g is None else g.cuda() for g in one_launch_tools.gradients(mine, 0)]
    found: list[list[Tensor]] = []
    for _ in range(50):
        with torch.no_grad():
            for p, value in zip(mine, start, strict=True):
                p.copy_(value)
        made = optim.AdamW(mine, lr=0.1)
        one_launch_tools.give(mine, given)
        optim.clip_gradients(made, 1.0)
        made.step()
        with without_waiting():
            made.param_groups[0]["lr"] *= 0.5
            norm = optim.clip_gradients(made, 1.0)
            made.step()
        found.append([norm, *(p.detach().clone() for p in mine)])
    assert all(torch.equal(a, b) for each in found for a, b in zip(each, found[0], strict=True))
    right = torch.linalg.vector_norm(torch.cat([g.double().flatten() for g in given if g is not None]))
    torch.testing.assert_close(found[0][0].double(), right, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_clipping_of_what_is_not_finite(bad: float) -> None:
    mine = [nn.Parameter(torch.ones(n, device="cuda")) for n in (3, 4)]
    theirs = copy.deepcopy(mine)
    for members in (mine, theirs):
        one_launch_tools.give(members, [torch.ones(3).cuda(), torch.tensor([1.0, bad, 2.0, 3.0]).cuda()])
    norm = optim.clip_gradients(made := optim.SGD(mine, lr=0.1), 1.0)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs, 1.0), equal_nan=True)
    made.step()
    torch.optim.SGD(theirs, lr=0.1).step()
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q, equal_nan=True)


def test_a_scaler_does_not_wait() -> None:
    mine = parameters()
    made, scaler = optim.AdamW(mine, lr=0.1), torch.amp.GradScaler("cuda", init_scale=8.0)
    for step in range(4):
        given = [None if g is None else 8 * g.cuda() for g in one_launch_tools.gradients(mine, 0)]
        if step == 2:
            assert given[4] is not None
            given[4][3, 3] = float("inf")
        one_launch_tools.give(mine, given)
        before = [p.detach().clone() for p in mine]
        scaler.scale(torch.zeros((), device="cuda"))
        scaler.unscale_(made)
        optim.clip_gradients(made, 1.0)
        if step:
            with without_waiting():
                scaler.step(made)
        else:
            scaler.step(made)
        scaler.update(8.0)
        assert all(torch.equal(p, q) for p, q in zip(mine, before, strict=True)) == (step == 2)
    assert float(made.state[mine[4]]["step"]) == 3.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate = mixed_precision.Linear(64, 256), mixed_precision.Linear(64, 256)
        self.down = mixed_precision.Linear(256, 64)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = mixed_precision.linears(x, self.up, self.gate).chunk(2, dim=-1)
        found: Tensor = self.down(up * torch.sigmoid(gate))
        return found


@pytest.mark.parametrize("rate", ["tensor", "number"])
def test_a_step_in_one_graph(rate: str) -> None:
    """Replayed with other inputs and learning rates, it is the step that is taken without a graph."""
    torch.manual_seed(0)
    models = [Net().cuda()]
    models.append(copy.deepcopy(models[0]))
    inputs = torch.randn(12, 32, 64, device="cuda", dtype=torch.bfloat16)
    x = inputs[0].clone()
    made = [
        optim.AdamW(model.parameters(), lr=torch.tensor(0.01, device="cuda") if rate == "tensor" else 0.01)
        for model in models
    ]

    def step(i: int, batch: Tensor) -> Tensor:
        models[i](batch).float().square().mean().backward()
        norm = optim.clip_gradients(made[i], 0.1)
        made[i].step()
        return norm

    def change(i: int, value: float) -> None:
        group = made[i].param_groups[0]
        if rate == "tensor":
            group["lr"].fill_(value)
        else:
            group["lr"] = value
            assert made[i].refresh()

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for k in range(3):
            step(0, inputs[k])
            made[0].zero_grad()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        norm = step(0, x)
    for k in range(3):
        step(1, inputs[k])
        made[1].zero_grad()
    for k in range(3, 12):
        change(0, 0.01 / k)
        x.copy_(inputs[k])
        graph.replay()
        change(1, 0.01 / k)
        expected = step(1, inputs[k])
        made[1].zero_grad()
        torch.testing.assert_close(norm, expected, rtol=1e-4, atol=1e-6)
        if k == 7:  # a step without the graph in between, with gradients elsewhere
            kept = [p.grad for p in models[0].parameters()]
            for i in (0, 1):
                made[i].zero_grad()
                step(i, inputs[0])
                made[i].zero_grad()
            for p, gradient in zip(models[0].parameters(), kept, strict=True):
                p.grad = gradient
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
        assert float(made[0].state[p]["step"]) == float(made[1].state[q]["step"]) == 13.0
    assert torch.equal(low_precision.of(models[0].up.weight, torch.bfloat16), models[0].up.weight.bfloat16())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_weights_are_added_up_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    members = [mixed_precision.Linear(96, 64).cuda(), mixed_precision.Linear(96, 32).cuda()]
    x = torch.randn(4096, 96, device="cuda").to(dtype)
    grad = torch.randn(4096, 96, device="cuda").to(dtype)
    assert linears._widens(x.device, dtype)
    linears.linears(x, *members).backward(grad)
    exact = grad.double().T @ x.double()
    found = torch.cat([each.weight.grad for each in members if each.weight.grad is not None])
    assert found.dtype == torch.float32
    assert float((found - exact).abs().max()) < 1e-5 * float(exact.abs().max())


def test_a_model_moved_to_and_fro() -> None:
    model = Net().cuda()
    x = torch.randn(8, 64, device="cuda", dtype=torch.bfloat16)
    made = optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        model(x).float().square().mean().backward()
        made.step()
        made.zero_grad()
        wanted = model(x)
        model.cpu()
        with torch.no_grad():
            model.up.weight.add_(1.0)
        model.cuda()
        assert not torch.equal(model(x), wanted)
        with torch.no_grad():
            model.up.weight.sub_(1.0)
        torch.testing.assert_close(model(x), wanted, rtol=0.02, atol=0.02)
    assert made.refresh()
