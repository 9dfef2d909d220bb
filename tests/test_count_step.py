"""A whole training step, launch by launch and byte by byte: by hand, and the same in runs of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tdsl.compiler.explain.compare import write
from tdsl.runtime import launch
from tdsl.runtime.counting.counter import BACKWARD, FORWARD, UPDATE
from tdsl.runtime.counting.step import count
from tests.helpers import built

Found = dict[str, tuple[int, int]]


def program(
    body: str = "return b(silu(a(x)) * 2.0)", run: str = "", loss: str = "", optimizer: str = "SGD(lr=0.1)"
) -> str:
    return f"""
module Net() {{
    a = Linear(8, 16, bias=false)
    b = Linear(16, 4)
    forward(x: float[B, 8]) -> float[B, 4] {{ {body} }}
}}
data D {{
    source = npz("d.npz")
    split = random(train=0.8, val=0.2, seed=0)
    field x: float[8] = column("x")
    field t: int[] = column("t")
}}
train r {{
    model = Net()
    data = D
    loss(batch) {{
        {loss or "return cross_entropy(model(batch.x), batch.t)"}
    }}
    optimizer = {optimizer}
    steps = 10
    batch_size = 12
    {run}
}}
"""


def step(text: str, folder: Path, how: str) -> dict[str, Found]:
    """What a step launches, by phase."""
    source = folder / "p.model"
    counter = count(write(built(text, source), "r", source, folder)[how], how)
    found: dict[str, Found] = {}
    for kind, tally in counter.found.items():
        found.setdefault(kind.phase, {})[kind.name] = (tally.launches, tally.bytes)
    return found


X, H, Y = 12 * 8 * 4, 12 * 16 * 4, 12 * 4 * 4
A, B, BIAS = 16 * 8 * 4, 4 * 16 * 4, 4 * 4
LABELS, LOSS = 12 * 8, 4


def test_a_plain_step_by_hand(tmp_path: Path) -> None:
    assert step(program(), tmp_path, "plain") == {
        FORWARD: {
            "mm": (1, X + A + H),
            "silu": (1, 2 * H),
            "mul": (1, 2 * H),
            "addmm": (1, H + B + BIAS + Y),
            "_log_softmax": (1, 2 * Y),
            "nll_loss_forward": (1, 12 * 4 + LABELS + 2 * LOSS),  # a score a row; the loss, and what it is a mean over
        },
        BACKWARD: {
            "ones_like": (1, LOSS),
            "nll_loss_backward": (1, 2 * LOSS + LABELS + Y),
            "_log_softmax_backward_data": (1, 3 * Y),
            "mm": (3, (Y + B + H) + (Y + H + B) + (H + X + A)),
            "sum": (1, Y + BIAS),
            "mul": (1, 2 * H),
            "silu_backward": (1, 3 * H),
        },
        UPDATE: {"_foreach_add_": (1, 3 * (A + B + BIAS))},
    }


def test_a_compiled_step_has_its_kernels(tmp_path: Path) -> None:
    plain, emitted = (step(program(), tmp_path, how) for how in ("plain", "emitted"))
    assert emitted[FORWARD].pop("_silu_mul_forward") == (1, 2 * H)
    assert emitted[BACKWARD].pop("_silu_mul_backward") == (1, 3 * H)
    # Two numbers a row; and what the rows are counted in, which the forward writes or reads.
    rows, counts = 2 * 12 * 4, launch.COUNTS * 4
    assert emitted[FORWARD].pop("_cross_entropy_forward") == (1, Y + LABELS + rows + 2 * counts + LOSS)
    assert emitted[BACKWARD].pop("_cross_entropy_backward") == (1, Y + LABELS + rows + counts + LOSS + Y)
    for phase, names in ((FORWARD, ("mm", "addmm")), (BACKWARD, ("mm", "sum"))):
        assert {name: emitted[phase][name] for name in names} == {name: plain[phase][name] for name in names}
    replaced = {"silu", "silu_backward", "_log_softmax", "nll_loss_forward", "nll_loss_backward"}
    assert not replaced & {*emitted[FORWARD], *emitted[BACKWARD]}


def test_low_precision_is_that_of_autocast(tmp_path: Path) -> None:
    found = step(program(run="precision = bf16"), tmp_path, "plain")
    # x and both weights and the bias are cast, the scores for the loss.
    assert found[FORWARD]["_to_copy"] == (5, (X + A + B + BIAS) * 3 // 2 + Y // 2 + Y)
    assert found[FORWARD]["silu"] == (1, H)
    assert found[UPDATE] == {"_foreach_add_": (1, 3 * (A + B + BIAS))}


def test_clipping_is_plain_where_the_run_clips(tmp_path: Path) -> None:
    plain = step(program(run="clip_grad_norm = 1.0"), tmp_path, "plain")
    assert plain[UPDATE]["_foreach_norm"] == (1, A + B + BIAS + 3 * 4)
    assert plain[UPDATE]["_foreach_mul_"] == (1, 2 * (A + B + BIAS) + 4)


RUNS = {
    "accumulated": program(run="accumulate = 3", optimizer="Lion()"),
    "half": program(run="precision = f16\n    clip_grad_norm = 1.0\n    accumulate = 2\n    ema = EMA(decay=0.99)"),
    "a teacher": program(
        run='teacher = Net()\n    freeze = ["teacher.*"]\n    group "*.bias" { weight_decay = 0 }',
        loss="return cross_entropy(model(batch.x), batch.t) + mse_loss(model(batch.x), teacher(batch.x))",
        optimizer="AdamW(lr=1e-3)",
    ),
    "tracked": program(
        loss="l = cross_entropy(model(batch.x), batch.t)\n        track twice = l * 2.0\n        return l"
    ),
    "weights": program(run='init_from = "w.safetensors"'),
    "gradients": program(
        loss="x = batch.x\n        y = model(x)\n        g = grad(y.sum(), x)\n"
        "        return cross_entropy(y, batch.t) + (g ** 2).mean()"
    ),
    "branches": program(
        "h = a(x)\n        if training {\n            h = dropout(h, 0.1)\n        }\n"
        "        no_grad {\n            s = h.abs().max()\n        }\n        return b(h / s)"
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_every_kind_are_counted(name: str, tmp_path: Path) -> None:
    plain, emitted = (step(RUNS[name], tmp_path, how) for how in ("plain", "emitted"))
    for found in (plain, emitted):
        assert set(found) == {FORWARD, BACKWARD, UPDATE}
    for product in ("mm", "addmm"):
        assert plain[FORWARD].get(product, (0, 0))[0] == emitted[FORWARD].get(product, (0, 0))[0]


def test_parts_of_a_batch_are_passes_of_their_own(tmp_path: Path) -> None:
    whole, parts = (step(program(run=run), tmp_path, "emitted") for run in ("", "accumulate = 3"))
    assert parts[FORWARD]["mm"] == (3, whole[FORWARD]["mm"][1] + 2 * A)
    assert parts[BACKWARD]["_silu_mul_backward"] == (3, whole[BACKWARD]["_silu_mul_backward"][1])


def test_averages_and_scaled_gradients_count(tmp_path: Path) -> None:
    found = step(RUNS["half"], tmp_path, "plain")[UPDATE]
    assert found["_amp_foreach_non_finite_check_and_unscale_"][0] == 1
    assert found["_foreach_lerp_"] == (1, 3 * (A + B + BIAS))


def test_a_count_comes_out_the_same_again(tmp_path: Path) -> None:
    assert step(RUNS["half"], tmp_path, "emitted") == step(RUNS["half"], tmp_path, "emitted")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", ["plain", "emitted"])
@pytest.mark.parametrize("name", ["half", "a teacher", "gradients"])
def test_a_gpu_launches_what_is_counted(name: str, how: str, tmp_path: Path) -> None:
    source = tmp_path / "p.model"
    folder = write(built(RUNS[name], source), "r", source, tmp_path)[how]
    fake, real = count(folder, how), count(folder, how, real=True)
    assert {k: t.launches for k, t in real.found.items()} == {k: t.launches for k, t in fake.found.items()}
