"""Steps of the optimizers that are one launch: every option, and what PyTorch takes instead."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from tdsl.runtime import multi_tensor, optim, slots
from tests.one_launch_tools import (
    CHECKS,
    check,
    doubled,
    give,
    gradients,
    groups,
    judge,
    judge_sums,
    launches,
    parameters,
    run,
    together,
)

# What PyTorch has no class for.
ORACLES = {
    **{name: getattr(torch.optim, name) for name in ("SGD", "Adam", "AdamW", "RMSprop")},
    "Lion": optim._PlainLion,
}
OPTIONS: Mapping[str, Sequence[dict[str, Any]]] = {
    "SGD": [
        {"momentum": m, "dampening": d, "nesterov": n, "weight_decay": w, "maximize": x}
        for m, d, n in ((0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.0, True), (0.9, 0.3, False))
        for w, x in itertools.product((0.0, 0.1), (False, True))
    ],
    "Adam": [
        {"amsgrad": a, "weight_decay": w, "maximize": x, "decoupled_weight_decay": d}
        for a, w, x, d in itertools.product((False, True), (0.0, 0.1), (False, True), (False, True))
    ],
    "AdamW": [
        *({"amsgrad": a, "weight_decay": w, "maximize": x}
          for a, w, x in itertools.product((False, True), (0.0, 0.1), (False, True))),
        {"betas": (0.0, 0.0)}, {"betas": (0.3, 0.9999), "eps": 1e-3},
    ],
    "RMSprop": [
        {"momentum": m, "centered": c, "weight_decay": w, "maximize": x}
        for m, c, w, x in itertools.product((0.0, 0.9), (False, True), (0.0, 0.1), (False, True))
    ],
    "Lion": [{"weight_decay": w, "betas": b} for w, b in itertools.product((0.0, 0.1), ((0.9, 0.99), (0.5, 0.2)))],
}  # fmt: skip
LONG: Mapping[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"weight_decay": 0.01},
    "AdamW": {"amsgrad": True},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Lion": {"weight_decay": 0.1},
}


# Steps ----------------------------------------------------------------------------------------------------------------


def _options(name: str) -> None:
    for options in OPTIONS[name]:
        mine = parameters()
        theirs, exact = copy.deepcopy(mine), doubled(mine)
        made = run(getattr(optim, name), mine, **options)
        plain, right = run(ORACLES[name], theirs, **options), run(ORACLES[name], exact, **options)
        together(made)
        judge(mine, theirs, exact, f"{options}")
        for p, q, r in zip(mine, theirs, exact, strict=True):
            assert list(made.state[p]) == list(plain.state[q]), options
            for key, value in made.state[p].items():
                judge([value], [plain.state[q][key]], [right.state[r][key].double()], f"{options} {key}")


for _name in OPTIONS:
    CHECKS[f"options_{_name}"] = lambda name=_name: _options(name)  # type: ignore[misc]


def many_steps(name: str, options: Mapping[str, Any], device: str, sizes: Sequence[tuple[int, ...]]) -> None:
    """200 steps, clipped: what is rounded adds up, and the count of steps goes into Adam's corrections."""
    mine = [nn.Parameter(p.detach().to(device)) for p in parameters(sizes=sizes)]
    theirs, exact = copy.deepcopy(mine), doubled(mine)
    for kind, members in ((getattr(optim, name), mine), (ORACLES[name], theirs), (ORACLES[name], exact)):
        made = kind([{"params": members[:1]}, {"params": members[1:], "lr": 0.003}], lr=0.01, **options)
        for step in range(200):
            give(members, [None if g is None else g.to(device) for g in gradients(members, step)])
            optim.clip_gradients(made, 3.0)
            made.step()
        if members is mine:
            together(made)
    judge_sums(mine, theirs, exact, name)


@check
def two_hundred_steps() -> None:
    many_steps("AdamW", LONG["AdamW"], "cpu", ((3,), (1,)))


@check
def blocks_chunks_and_addresses_that_are_not_aligned() -> None:
    """Several blocks a program, several programs a tensor, and tensors that begin anywhere."""
    with patch.object(multi_tensor, "BLOCK", 64), patch.multiple(slots, SMALLEST=256, PROGRAMS=1 << 30):
        torch.manual_seed(0)
        memory = torch.randn(6000)
        cuts = [(0, 512), (512, 1025), (1027, 1027), (1029, 3000), (3003, 3004), (3008, 5000)]
        for name, options in (("AdamW", {"amsgrad": True}), ("RMSprop", {"centered": True, "momentum": 0.9})):
            mine = [nn.Parameter(memory.clone()[begin:end]) for begin, end in cuts]
            theirs, exact = [nn.Parameter(p.detach().clone()) for p in mine], doubled(mine)
            made = run(getattr(optim, name), mine, **options)
            run(ORACLES[name], theirs, **options)
            run(ORACLES[name], exact, **options)
            assert together(made).chunk == 256
            judge(mine, theirs, exact, name)
            give(mine, gradients(mine, 9))
            expected = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in mine if p.grad is not None]))
            torch.testing.assert_close(optim.clip_gradients(made, 1.0), expected)


@check
def gradients_far_smaller_than_the_ones_before() -> None:
    """A mean that forgets at once is the gradient, however small that is beside what is forgotten."""
    for name, options in (
        ("AdamW", {"betas": (0.0, 0.0)}),
        ("RMSprop", {"alpha": 0.0, "centered": True}),
        ("Lion", {"betas": (0.0, 0.0)}),
    ):
        torch.manual_seed(0)
        mine = [nn.Parameter(torch.randn(300))]
        theirs, exact = copy.deepcopy(mine), doubled(mine)
        given = [torch.randn(300), torch.logspace(-9, 0, 300)]
        for kind, members in ((getattr(optim, name), mine), (ORACLES[name], theirs), (ORACLES[name], exact)):
            made = kind(members, lr=0.01, **options)
            for gradient in given:
                give(members, [gradient])
                made.step()
        judge(mine, theirs, exact, name)


@check
def gradients_in_half_precision() -> None:
    for name, dtype in itertools.product(OPTIONS, ("float32", "float16")):
        mine = parameters(getattr(torch, dtype))
        theirs, exact = [nn.Parameter(p.detach().float()) for p in mine], doubled(mine)
        made = getattr(optim, name)(groups(mine), lr=0.01)
        plain, right = ORACLES[name](groups(theirs), lr=0.01), ORACLES[name](groups(exact), lr=0.01)
        for step in range(2 if dtype == "float16" else 6):
            given = gradients(mine, step, torch.float16)
            for p, gradient in zip(mine, given, strict=True):
                p.grad_dtype = torch.float16
                p.grad = gradient
            give(theirs, given)
            give(exact, given)
            for each in (made, plain, right):
                each.step()
        together(made)
        # PyTorch's float32 has not been rounded to half precision.
        judge(mine, theirs if dtype == "float32" else [p.half() for p in theirs], exact, f"{name} {dtype}")


@check
def memory_formats() -> None:
    """Parameters dense in another order, gradients and loaded states in yet another, or of stride 0."""
    torch.manual_seed(0)
    shapes = [torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last), torch.randn(8, 5).T, torch.randn(2, 1, 9)]
    mine = [nn.Parameter(each) for each in shapes]
    theirs, exact = copy.deepcopy(mine), doubled(mine)
    kinds = (optim.AdamW, torch.optim.AdamW, torch.optim.AdamW)
    made = [kind(each, lr=0.01) for kind, each in zip(kinds, (mine, theirs, exact), strict=True)]
    for step in range(4):
        for members in (mine, theirs, exact):
            torch.manual_seed(step)
            for p in members:
                p.grad = torch.randn(p.shape).to(p.dtype) if step % 2 else torch.randn(()).to(p.dtype).expand(p.shape)
        for each in made:
            each.step()
        if step == 1:
            state = made[0].state_dict()
            state["state"] = {
                i: {key: value.clone(memory_format=torch.contiguous_format) for key, value in slots.items()}
                for i, slots in state["state"].items()
            }
            made[0].load_state_dict(state)
    together(made[0])
    judge(mine, theirs, exact)
    for p in mine:
        assert made[0].state[p]["exp_avg"].stride() == p.stride()


@check
def one_launch_a_step() -> None:
    members = parameters()
    made = optim.AdamW(
        [{"params": members[:2], "lr": 0.1, "betas": (0.8, 0.9)}, {"params": members[2:], "weight_decay": 0.5}], lr=0.01
    )
    with launches() as found:
        for step in range(3):
            give(members, gradients(members, step))
            made.step()
        assert found == ["_update"] * 3
        found.clear()
        optim.clip_gradients(made, 1.0)
        assert found == ["_squares", "_clip"]
        found.clear()
        made.zero_grad()
        made.step()
        assert found == []


@check
def other_options_take_another_launch() -> None:
    mine = parameters()
    theirs, exact = copy.deepcopy(mine), doubled(mine)
    with launches() as found:
        for kind, members in ((optim.SGD, mine), (torch.optim.SGD, theirs), (torch.optim.SGD, exact)):
            made = kind([{"params": members[:3]}, {"params": members[3:], "momentum": 0.9}], lr=0.1)
            for step in range(3):
                give(members, gradients(members, step))
                made.step()
    assert found == ["_update"] * 6
    judge(mine, theirs, exact)


@check
def addresses_are_uploaded_only_where_they_have_changed() -> None:
    members = parameters()
    made = optim.AdamW(members, lr=0.1)
    given = gradients(members, 0)
    give(members, given)
    made.step()
    tables = together(made)
    rows, numbers = tables.tensors.rows, tables.numbers.rows
    made.step()
    assert tables.tensors.rows is rows
    assert tables.numbers.rows is numbers
    made.param_groups[0]["lr"] = 0.2
    made.step()
    assert tables.tensors.rows is rows
    assert tables.numbers.rows is not numbers
    kept = members[2].grad
    members[2].grad = torch.ones(1025)
    made.step()
    assert kept is not None
    assert together(made) is tables
    assert [a != b for a, b in zip(tables.tensors.rows, rows, strict=True)] == [i == 2 for i in range(len(members))]
    rows = tables.tensors.rows
    made.state.clear()
    made.step()
    assert tables.tensors.rows is not rows
    assert [float(made.state[p]["step"]) for p in members[:5]] == [1.0] * 5


@check
def parameters_that_change_between_steps() -> None:
    """Another storage, another shape of the groups, states that are dropped, counts that are written."""
    mine = parameters()
    theirs, exact = copy.deepcopy(mine), doubled(mine)
    counts = []
    for kind, members in ((optim.Adam, mine), (torch.optim.Adam, theirs), (torch.optim.Adam, exact)):
        made = kind(members[:3], lr=0.01)
        for step in range(12):
            give(members, gradients(members, step))
            made.step()
            if step == 2:
                members[2].data = members[2].data.clone()
            if step == 4:
                made.add_param_group({"params": members[3:], "lr": 0.1})
            if step == 6:
                made.state.pop(members[2])
            if step == 8:
                made.state[members[4]]["step"].fill_(1.0)
            if step == 10:
                made.state[members[4]]["step"] = torch.tensor(3.0)
        counts.append([float(made.state[p]["step"]) for p in members[:5]])
    judge(mine, theirs, exact)
    assert counts[0] == counts[1] == [12, 11, 5, 7, 4]


@check
def rates_may_be_tensors() -> None:
    mine = parameters()
    theirs = copy.deepcopy(mine)
    rate = torch.tensor(0.1)
    made, plain = optim.AdamW(mine, lr=rate), torch.optim.AdamW(theirs, lr=0.1)
    for step in range(4):
        give(mine, gradients(mine, step))
        give(theirs, gradients(theirs, step))
        made.step()
        plain.step()
        rate.mul_(0.5)
        plain.param_groups[0]["lr"] *= 0.5
    assert together(made).numbers.rows[0][-1] == 0.0
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q)


@check
def the_same_bits_each_time() -> None:
    def once() -> list[Tensor]:
        members = parameters()
        made = optim.AdamW(members, lr=0.1)
        norms = []
        for step in range(4):
            give(members, gradients(members, step))
            norms.append(optim.clip_gradients(made, 1.0))
            made.step()
        together(made)
        return [*members, *norms]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


# Around a step --------------------------------------------------------------------------------------------------------


@check
def where_pytorch_takes_the_step() -> None:
    """The same bits as PyTorch's, clipped as there."""

    def sparse(p: Tensor) -> None:
        p.grad = torch.randn(p.shape).to_sparse()

    def dense(p: Tensor) -> None:
        p.grad = torch.randn(p.shape, dtype=p.dtype)

    for dtype, options, fill in (
        (torch.float64, {}, dense), (torch.float32, {"foreach": True}, dense), (torch.float32, {}, sparse),
        (torch.complex64, {}, dense),
    ):  # fmt: skip
        found = []
        for kind in (optim.SGD, torch.optim.SGD):
            torch.manual_seed(0)
            members = [nn.Parameter(torch.randn(5, 4, dtype=dtype)) for _ in range(2)]
            made = kind(members, lr=0.1, **options)
            for _ in range(3):
                for p in members:
                    fill(p)
                if fill is dense and dtype is not torch.complex64:
                    optim.clip_gradients(made, 0.5)
                made.step()
            found.append(members)
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)), (dtype, options)


@check
def what_the_kernels_do_not_take() -> None:
    memory, p = torch.randn(8), nn.Parameter(torch.randn(4))
    for members, options in (
        ([nn.Parameter(memory), nn.Parameter(memory)], {}), ([p], {"differentiable": True}), ([p], {"fused": True}),
        ([p, nn.Parameter(torch.randn(3, dtype=torch.float64))], {}), ([nn.Parameter(torch.randn(1).expand(3))], {}),
    ):  # fmt: skip
        assert not optim.SGD(members, lr=0.1, **options).refresh(), (members, options)
    assert optim.SGD([p, nn.Parameter(torch.randn(3).half())], lr=0.1).refresh()


@check
def a_factor_is_not_lost_where_pytorch_takes_the_step() -> None:
    mine = parameters()
    theirs = copy.deepcopy(mine)
    made, plain = optim.SGD(mine, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    for each in (mine, theirs):
        give(each, gradients(each, 0))
    optim.clip_gradients(made, 0.01)
    nn.utils.clip_grad_norm_(theirs, 0.01)
    made.param_groups[0]["foreach"] = True
    made.step()
    plain.step()
    assert made._tables is None
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q)
