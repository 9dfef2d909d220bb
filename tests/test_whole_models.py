"""Small models, 32 training steps: loss by loss the same as hand-written PyTorch's from the same weights and batches."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tdsl.compiler import pipeline
from tests.helpers import ROOT, UNFUSED, compiled, emitted, python, written
from tests.random_programs import _load
from tests.whole_models import PAIRS
from tests.whole_models.pair import Pair

STEPS = 32
# As PyTorch does it, operation for operation; with fused groups, whose kernels add up in another order.
TOLERANCES = {"unfused": 1e-5, "fused": 1e-5, "kernels": 1e-4}


def losses(model: nn.Module, pair: Pair) -> list[float]:
    """Train, on batches drawn from a seed of their own."""
    torch.manual_seed(11)
    # Not Adam, which makes a step of any size of the rounding errors of a gradient that is zero.
    optimizer = torch.optim.SGD(model.parameters(), lr=pair.lr, momentum=0.9)
    found = []
    for _ in range(STEPS):
        loss: Tensor = model(*pair.batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def disagreement(pair: Pair, folder: Path, how: str) -> str:
    """Train the compiled model and the hand-written one from the same weights; empty where they agree."""
    torch.manual_seed(5)
    unit = compiled(pair.program, UNFUSED if how == "unfused" else pipeline.PASSES)
    ours = _load(written(emitted(unit), folder)).Loss()
    by_hand = pair.by_hand()
    assert sorted(ours.state_dict()) == sorted(by_hand.state_dict())
    by_hand.load_state_dict(ours.state_dict())
    found, wanted = torch.tensor(losses(ours, pair)), torch.tensor(losses(by_hand, pair))
    assert wanted.isfinite().all()
    rtol = TOLERANCES[how]
    try:
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=rtol)
        torch.testing.assert_close(state(ours), state(by_hand), rtol=10 * rtol, atol=10 * rtol)
    except AssertionError as error:
        return f"{error}\n{found}\n{wanted}"
    return ""


def state(model: nn.Module) -> Tensor:
    """All parameters and running averages, in the order of their names."""
    return torch.cat([t.detach().double().flatten() for _, t in sorted(model.state_dict().items())])


@pytest.mark.parametrize("how", ["unfused", "fused"])
@pytest.mark.parametrize("name", PAIRS)
def test_losses_are_those_of_pytorch(name: str, how: str, tmp_path: Path) -> None:
    assert not disagreement(PAIRS[name], tmp_path, how)


def test_losses_with_kernels_are_those_of_pytorch(tmp_path: Path) -> None:
    """In Triton's interpreter, in one process for all."""
    ran = python("-m", "tests.test_whole_models", tmp_path, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


def test_most_models_have_kernels() -> None:
    without = {name for name, pair in PAIRS.items() if not pipeline.groups(compiled(pair.program))}
    assert len(without) <= 3, without


def main(folder: Path) -> int:
    """1 where a model trained with its kernels has other losses."""
    torch.set_num_threads(1)
    wrong = {name: told for name, pair in PAIRS.items() if (told := disagreement(pair, folder / name, "kernels"))}
    for name, told in wrong.items():
        print(f"{name}: {told}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
