"""`accumulate`: the parts of a batch add up to the whole, or the program is refused where its rows meet."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tdsl.compiler.driver import read
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.compiler.trainable import unsupported
from tdsl.runtime.training import shares
from tests.helpers import built, compiled
from tests.running import importable
from tests.test_emit_train import EXAMPLES, trained

Tensors = dict[str, torch.Tensor]
HELPERS = """
module Inner(dim: int) {
    l = Linear(dim, dim)
    forward(x: float[..., dim]) -> float[..., dim] { return l(x).relu() }
}
"""


def program(loss: str, parts: int, body: str = "h", members: str = "") -> str:
    return f"""{HELPERS}
module Net() {{
    up = Linear(64, 8)
    head = Linear(8, 10)
{members}
    forward(x: float[B, 64]) -> float[B, 10] {{
        h = up(x)
        return head({body})
    }}
}}

data Digits {{
    source = csv("data/digits.csv")
    split  = sequential(train=0.5, val=0.25, test=0.25)
    field x: float[64] = columns("p*") / 16
    field y: int[]     = column("label")
}}

train digits {{
    model = Net()
    data  = Digits
    optimizer = SGD(lr=0.1)
    steps = 3
    batch_size = 24
    accumulate = {parts}
    logging {{ every = 1 }}
    loss(batch) {{
        s = model(batch.x)
        {loss}
    }}
}}
"""


CROSS = "return cross_entropy(s, batch.y)"
SQUARE = "return s.square().mean()"
MEANS = [
    CROSS,
    "return cross_entropy(s, where(batch.y < 5, -100, batch.y))",
    # Only the labels of the first rows count: the last parts have none.
    "return cross_entropy(s, where(batch.x.sum(-1) > 20, batch.y, -100), label_smoothing=0.1)",
    "return cross_entropy(s, batch.y, ignore_index=3)",
    "return cross_entropy(s, batch.y, weight=tensor([1.0, 2.0, 3.0, 4.0, 0.0, 6.0, 7.0, 8.0, 9.0, 0.5]), ignore_index=3)",
    "return nll_loss(s.log_softmax(-1), where(batch.y == 1, -100, batch.y))",
    'k = (batch.y > 3).float()\n        return sum(cross_entropy(s, batch.y, reduction="none") * k) / sum(k)',
    'k = (batch.y > 3).float()\n        return sum(cross_entropy(s, batch.y, reduction="none") * k) / k.sum().clamp(min=1)',
    'return mean(cross_entropy(s, batch.y, reduction="none"))',
    'return cross_entropy(s, batch.y, reduction="none").sum() / size(s, 0)',
    "return logsumexp(s, -1).mean()",
    "return s.square().sum(-1).mean()",
    "return s[:, 0].square().mean()",
    'return kl_div(log_softmax(s, -1), softmax(batch.x[:, :10], -1), reduction="batchmean")',
    "return binary_cross_entropy_with_logits(s[:, 0], batch.y.float() / 9)",
    "return mse_loss(s[:, :1].squeeze(-1), batch.y.float())",
    "return 0.5 * mse_loss(s[:, 0], batch.y.float()) - s.mean() / 3 + l1_loss(s, s.tanh()) * 2",
    "return cross_entropy(s, batch.y) + 0.1 * s.square().mean()",
    "return s.reshape(size(s, 0) * 5, 2).softmax(-1)[:, 0].mean(0)",
    'return einsum("bi,bj->bij", s, s).mean()',
]
BODIES = [
    ("blocks(h)", "    blocks = Sequential(Inner(8), LayerNorm(8), GELU())"),
    ("h |> ls", "    ls = [Inner(8) for i in range(3)]"),
    ("h.reshape(B, 2, 4).transpose(1, 2).flatten(1)", ""),
    ("cat([h[:, :4], h[:, 4:]], dim=-1) + zeros(B, 8)", ""),
    ("(h.unsqueeze(1) @ h.unsqueeze(2)).squeeze(-1) + h.softmax(-1) @ w", "    param w: [8, 8] = normal(std=0.1)"),
]
MIXING = [
    "h - h.mean(0)",
    "h.flip(0)",
    "softmax(h, dim=0)",
    "h.cumsum(0)",
    "h + h[0]",
    "h * arange(B).unsqueeze(-1)",
    "h * size(h, 0)",
    "h * (size(h, 0) / 16.0)",
    "h.roll(1, 0)",
    "(h @ h.T) @ h",
    "h + h.T.reshape(B, 8)",
    "h / h.norm()",
    "h + h.std()",
    "h[arange(B)]",
    'einsum("bi,ci->bc", h, h) @ h',
]


@pytest.fixture
def gradients(tmp_path: Path) -> Iterator[Callable[[str], tuple[Tensors, Tensors]]]:
    """The gradients of a batch as a whole, and in four parts, by the emitted code."""

    def found(text: str) -> tuple[Tensors, Tensors]:
        write(emit(compiled(text, name=EXAMPLES / "program.model"), Options("digits", root=str(EXAMPLES))), tmp_path)
        script = runpy.run_path(str(tmp_path / "train.py"))
        batch = next(iter(script["data"].batches("train", 24, seed=0)))
        torch.manual_seed(0)
        model = sys.modules["model"].Net()
        script["loss"](model, batch).backward()
        whole = taken(model)
        rows = [(part, part.size / batch.size) for part in batch.chunk(4)]
        options = {"rows": True} if "counted, rows=True" in (tmp_path / "train.py").read_text() else {}
        for part, share in shares(batch, 4, script["counted"], **options) if "counted" in script else rows:
            (script["loss"](model, part) * share).backward()
        return whole, taken(model)

    with importable(tmp_path):
        yield found


def taken(model: torch.nn.Module) -> Tensors:
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    return found


CASES = [(loss, "h", "") for loss in MEANS] + [(CROSS, body, members) for body, members in BODIES]


@pytest.mark.parametrize(("loss", "body", "members"), CASES)
def test_parts_add_up_to_the_whole_batch(
    loss: str, body: str, members: str, gradients: Callable[[str], tuple[Tensors, Tensors]]
) -> None:
    whole, parts = gradients(program(loss, 4, body, members))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


def test_training_in_parts_ends_with_the_same_parameters(tmp_path: Path) -> None:
    first, second = (trained(tmp_path / str(parts), program(MEANS[2], parts)) for parts in (1, 4))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


def refused(text: str) -> str:
    """The expression that E332 is told of."""
    unit = built(text, EXAMPLES / "program.model")
    (found,) = unsupported(unit, unit.runs["digits"])
    assert found.code == "E332"
    assert found.span is not None
    return found.span.text


@pytest.mark.parametrize("body", MIXING)
def test_what_mixes_rows_in_a_module_is_refused_where_it_stands(body: str) -> None:
    assert refused(program(SQUARE, 4, body)) in body
    nested = program(SQUARE, 4, "m(h)", "    m = Mix()")
    mix = f"module Mix() {{\n    forward(h: float[B, 8]) -> float[B, 8] {{ return {body} }}\n}}\n"
    assert refused(mix + nested) in body


@pytest.mark.parametrize(
    "loss",
    [
        "return s.sum()",
        "return s.square().mean().sqrt()",
        "return mse_loss(s, s.tanh(), weight=s.square())",
        "return cross_entropy(s, s.argmax(-1))",
        "return s.max()",
        "return s.sum() / s.square().sum()",
        "return (s - s.mean()).square().mean()",
    ],
)
def test_losses_that_are_no_mean_are_refused(loss: str) -> None:
    assert refused(program(loss, 4)) in loss


def test_a_part_whose_labels_and_rows_have_other_shares_ends_the_run(tmp_path: Path) -> None:
    loss = "return cross_entropy(s, where(batch.x.sum(-1) > 20, batch.y, -100)) + 0.1 * s.square().mean()"
    with pytest.raises(AssertionError, match="other shares of its labels than of its rows"):
        trained(tmp_path, program(loss, 4))


@pytest.mark.parametrize(
    "member", ["BatchNorm1d(8)", "Sequential(Linear(8, 8), BatchNorm1d(8))", "Sequential(BatchNorm1d(8), ReLU())"]
)
def test_batch_norm_in_parts_is_told(member: str) -> None:
    text = program(CROSS, 4, "n(h)", f"    n = {member}")
    _, told = read(EXAMPLES / "program.model", text=text)
    assert [each.code for each in told] == ["W207"]


@pytest.mark.parametrize(("freeze", "codes"), [('["*.bias"]', []), ("[]", ["E334"]), ('["up.bias"]', ["E334"])])
def test_muon_trains_matrices(freeze: str, codes: list[str]) -> None:
    text = program(SQUARE, 1).replace("SGD(lr=0.1)", f"Muon(lr=0.1)\n    freeze = {freeze}")
    unit = built(text, EXAMPLES / "program.model")
    assert [each.code for each in unsupported(unit, unit.runs["digits"])] == codes
