"""What stands around the steps that are one launch: clipping, scaling, states, copies, hooks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tdsl.runtime import checkpoint, low_precision, optim
from tests.one_launch_tools import check, doubled, give, gradients, judge, launches, parameters, run, together


@check
def clipping_is_pytorchs() -> None:
    for most in (1e-3, 1.0, 1e6, None):
        mine = parameters()
        theirs, exact = copy.deepcopy(mine), doubled(mine)
        made, plain, right = optim.SGD(mine, lr=0.1), torch.optim.SGD(theirs, lr=0.1), torch.optim.SGD(exact, lr=0.1)
        for step in range(3):
            for members in (mine, theirs, exact):
                give(members, gradients(members, step))
            before = [p.grad.clone() for p in mine if p.grad is not None]
            norm = optim.clip_gradients(made, most)
            expected = nn.utils.clip_grad_norm_(theirs, float("inf") if most is None else most)
            torch.testing.assert_close(norm, expected)
            assert norm.shape == expected.shape
            nn.utils.clip_grad_norm_(exact, float("inf") if most is None else most)
            assert all(
                torch.equal(a, b) for a, b in zip(before, [p.grad for p in mine if p.grad is not None], strict=True)
            )
            for each in (made, plain, right):
                each.step()
        together(made)
        judge(mine, theirs, exact, f"{most}")


@check
def clipping_of_what_is_not_finite() -> None:
    for bad in (float("nan"), float("inf")):
        mine = parameters(sizes=((3,), (4,)))
        theirs = copy.deepcopy(mine)
        for members in (mine, theirs):
            give(members, [torch.ones(3), torch.tensor([1.0, bad, 2.0, 3.0])])
        made, plain = optim.SGD(mine, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
        norm, expected = optim.clip_gradients(made, 1.0), nn.utils.clip_grad_norm_(theirs, 1.0)
        torch.testing.assert_close(norm, expected, equal_nan=True)
        made.step()
        plain.step()
        for p, q in zip(mine, theirs, strict=True):
            torch.testing.assert_close(p, q, equal_nan=True)


@check
def clipping_twice_and_forgetting() -> None:
    mine = parameters()
    theirs = copy.deepcopy(mine)
    made, plain = optim.SGD(mine, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    for step, limits in enumerate(((1.0, 0.3), (0.3, 1.0), (0.5, None))):
        for members in (mine, theirs):
            give(members, gradients(members, step))
        for most in limits:
            norm = optim.clip_gradients(made, most)
            expected = nn.utils.clip_grad_norm_(theirs, float("inf") if most is None else most)
            torch.testing.assert_close(norm, expected)
        made.step()
        plain.step()
    # A factor is for the gradients that it was found for.
    give(mine, gradients(mine, 0))
    optim.clip_gradients(made, 1e-6)
    made.zero_grad()
    for each, members in ((made, mine), (plain, theirs), (made, mine), (plain, theirs)):
        give(members, gradients(members, 1))
        each.step()
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q)


@check
def half_precision_with_a_scaler() -> None:
    """A step whose gradients overflow is left out, counts included; the scale of the loss goes down as with PyTorch."""
    for unscales in (True, False):
        found = []
        for kind in (optim.AdamW, torch.optim.AdamW):
            members = parameters()
            made, scaler = kind(members, lr=0.01), torch.amp.GradScaler("cpu", init_scale=256.0)
            for step in range(5):
                give(members, [None if g is None else g * scaler.get_scale() for g in gradients(members, step)])
                if step == 1:
                    assert members[4].grad is not None
                    members[4].grad[3] = float("inf")
                scaler.scale(torch.zeros(()))
                if unscales:
                    scaler.unscale_(made)
                    optim.clip_gradients(made, 1.0)
                scaler.step(made)
                scaler.update()
                made.zero_grad()
            found.append((members, float(made.state[members[4]]["step"]), scaler.get_scale()))
            if kind is optim.AdamW:
                together(made)
        (mine, steps, scale), (theirs, expected, other) = found
        assert (steps, scale) == (expected, other) == (4.0, 128.0)
        for p, q in zip(mine, theirs, strict=True):
            torch.testing.assert_close(p, q)


@check
def a_state_goes_to_pytorch_and_back() -> None:
    for name in ("SGD", "Adam", "AdamW", "RMSprop"):
        options: dict[str, Any] = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {"amsgrad": True}
        mine, theirs, plain = parameters(), parameters(), parameters()
        exact = doubled(plain)
        kinds = getattr(optim, name), getattr(torch.optim, name)
        whole, right = kinds[1](plain, lr=0.01, **options), kinds[1](exact, lr=0.01, **options)
        made = [kind(members, lr=0.01, **options) for kind, members in zip(kinds, (mine, theirs), strict=True)]
        for step in range(6):
            for members in (mine, theirs, plain, exact):
                give(members, gradients(members, step))
            for each in (*made, whole, right):
                each.step()
            if step % 2:
                # Each goes on with the other's state.
                states = [copy.deepcopy(each.state_dict()) for each in made]
                for each, state in zip(made, reversed(states), strict=True):
                    each.load_state_dict(state)
        together(made[0])
        judge(mine, plain, exact, name)
        judge(theirs, plain, exact, name)


@check
def a_checkpoint_brings_the_same_bits() -> None:
    def named(members: Sequence[Tensor]) -> Optimizer:
        return optim.AdamW([{"params": [(f"p{i}", p) for i, p in enumerate(members)]}], lr=0.1, betas=(0.8, 0.9))

    mine = parameters()
    made = named(mine)
    for step in range(3):
        give(mine, gradients(mine, step))
        made.step()
    tensors, rest = checkpoint.flat_optimizer(made)
    model = nn.ParameterList(mine)
    with TemporaryDirectory() as folder:
        found = checkpoint.write(
            Path(folder), 3, models={"model": model}, tensors={"optimizer": tensors}, state={"rest": rest}, program=""
        )
        other = nn.ParameterList(parameters())
        checkpoint.load_model_weights(found, other)
        again = named(list(other))
        checkpoint.restore_optimizer(again, found.tensors("optimizer"), found.state["rest"])
    for step in range(3, 6):
        for each, members in ((made, mine), (again, list(other))):
            give(members, gradients(members, step))
            each.step()
    together(again)
    assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    for p, q in zip(mine, other, strict=True):
        assert all(torch.equal(made.state[p][key], again.state[q][key]) for key in made.state[p])


@check
def copies_are_written_in_the_same_pass() -> None:
    members = parameters()
    held = [low_precision.of(p, torch.float16) for p in members[:5]]
    made = optim.AdamW(members, lr=0.1)
    versions = [p._version for p in members]
    with launches() as found:
        give(members, gradients(members, 0))
        made.step()
    assert found == ["_update"]
    for i, (p, low) in enumerate(zip(members, held, strict=False)):
        mine = low_precision.find(p)
        assert mine is not None
        assert mine.tensor is low
        assert torch.equal(low, p.half())
        assert mine.fresh(p)
        assert p._version > versions[i]
    assert members[5]._version == versions[5]
    # One that was not fresh stays to be made anew: the kernel may leave out a step.
    with torch.no_grad():
        members[2].add_(1.0)
    give(members, gradients(members, 1))
    made.step()
    stale = low_precision.find(members[2])
    assert stale is not None
    assert not stale.fresh(members[2])
    assert torch.equal(low_precision.of(members[2], torch.float16), members[2].half())


@check
def a_change_is_known_to_autograd() -> None:
    """What was saved for a backward and changed by the kernel is refused there, as where PyTorch changes it."""
    p = nn.Parameter(torch.ones(3))
    made = optim.SGD([p], lr=0.1)
    y = (p * p).sum()
    p.grad = torch.ones(3)
    made.step()
    together(made)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()  # type: ignore[no-untyped-call]


@check
def hooks_closures_and_schedulers() -> None:
    for foreach in (None, True):
        torch.optim.AdamW([nn.Parameter(torch.ones(1))])
        p = nn.Parameter(torch.ones(3))
        made = optim.AdamW([p], lr=0.1, foreach=foreach)
        schedule = torch.optim.lr_scheduler.StepLR(made, 1, 0.5)
        called: list[str] = []
        made.register_step_pre_hook(lambda *_, called=called: called.append("before"))
        made.register_step_post_hook(lambda *_, called=called: called.append("after"))

        def closure(p: Tensor = p, made: Optimizer = made) -> float:
            made.zero_grad()
            loss = (p * p).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        losses = []
        for _ in range(3):
            losses.append(made.step(closure))
            schedule.step()
        assert called == ["before", "after"] * 3
        assert losses[0] == 3.0
        assert losses == sorted(losses, reverse=True)
        assert made.param_groups[0]["lr"] == 0.1 / 8
        assert (made._tables is None) is bool(foreach)


@check
def an_optimizer_can_be_copied() -> None:
    members = parameters()
    made = run(optim.AdamW, members, 3)
    pair = copy.deepcopy((members, made))
    for each, parts in ((made, members), (pair[1], pair[0])):
        for step in (3, 4):
            give(parts, gradients(parts, step))
            each.step()
    together(pair[1])
    assert all(torch.equal(a, b) for a, b in zip(members, pair[0], strict=True))
