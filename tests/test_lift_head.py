"""Heads that go into the loss: what is emitted, where it is not done, and that training goes as it did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tdsl.compiler import pipeline
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.emit.train import train_text
from tdsl.compiler.explain.explain import explain
from tdsl.compiler.memory import memory
from tests.helpers import UNFUSED, built, compiled, environment, graph_of
from tests.vocabularies import EXAMPLES, LOSS, WORDS, imported, program, project


def texts(text: str) -> tuple[str, list[str]]:
    """`model.py`, and the lines of the loss."""
    unit = compiled(text, name=EXAMPLES / "program.model")
    return model_text(unit), list(train_text(unit, unit.runs["words"]).loss)


def test_what_is_emitted() -> None:
    model, loss = texts(program())
    assert (
        "    def forward(self, tokens: Tensor, head: bool = True) -> Tensor:  # int[B, T] -> [B, T, vocab]\n" in model
    )
    assert "        return self.head(hidden) if head else hidden\n" in model
    assert loss == [
        "hidden = model(batch.tokens, head=False)  # [B, 64, 16]",
        "return kernels.linear_cross_entropy(hidden.flatten(0, 1), model.head.weight, batch.targets.flatten(0, 1))",
    ]


def test_in_low_precision_nothing_is_cast_on_the_way() -> None:
    assert texts(program(precision="bf16"))[1] == texts(program())[1]


def net(forward: str, members: str = "", classes: int = 8192) -> str:
    """A model `Words`, its body and members as given."""
    return f"""
module Words(vocab: int, dim: int = 16) {{
    embed = Embedding(vocab, dim)
    head  = Linear(dim, vocab)
{members}
    forward(tokens: int[B, T]) -> float[B, T, vocab] {{
{forward}
    }}
}}
"""


def test_the_keyword_is_a_name_that_the_module_has_not() -> None:
    body = "        head = embed(tokens)\n        return linear(head, embed.weight)"
    model, loss = texts(program(modules=net(body)))
    assert "def forward(self, tokens: Tensor, with_head: bool = True)" in model
    assert "return F.linear(head, self.embed.weight) if with_head else head" in model
    assert loss[0].startswith("hidden = model(batch.tokens, with_head=False)")
    assert "model.embed.weight" in " ".join(loss)


def test_a_layer_has_its_bias() -> None:
    model, loss = texts(program(modules=net("        return head(tanh(embed(tokens)))")))
    hidden = "torch.tanh(kernels.embedding(tokens, self.embed.weight))"
    assert f"        hidden = {hidden}\n        return self.head(hidden) if head else hidden" in model
    assert "    model.head.weight,\n    model.head.bias,\n    batch.targets.flatten(0, 1),\n" in "\n".join(loss)


NESTED = """
module Decoder(vocab: int, dim: int) {
    norm = LayerNorm(dim)
    out  = Linear(dim, vocab, bias=false)
    forward(x: [..., dim]) -> [..., vocab] { return out(norm(x)) }
}

module Inner(vocab: int, dim: int) {
    embed   = Embedding(vocab, dim)
    decoder = Decoder(vocab, dim)
    forward(tokens: int[B, T]) -> float[B, T, vocab] { return decoder(embed(tokens)) }
}

module Words(vocab: int) {
    inner = Inner(vocab, 16)
    forward(tokens: int[B, T]) -> float[B, T, vocab] { return inner(tokens) }
}
"""


def test_a_head_may_be_that_of_a_module_within() -> None:
    model, loss = texts(program(modules=NESTED))
    assert "return self.out(hidden) if head else hidden" in model
    assert "return self.decoder(kernels.embedding(tokens, self.embed.weight), head=head)" in model
    assert "return self.inner(tokens, head=head)" in model
    assert "model.inner.decoder.out.weight" in " ".join(loss)


KEPT = {
    "scores that are tracked": program(loss="\n        s = model(batch.tokens)\n        track top = s.amax()\n        "
                                       "return cross_entropy(s.flatten(0, 1), batch.targets.flatten())\n"),
    "scores that are read again": program(loss="\n        s = model(batch.tokens)\n        "
                                          "return cross_entropy(s.flatten(0, 1), batch.targets.flatten()) + s.square().mean()\n"),
    "losses that are not added up": program(loss="\n        s = model(batch.tokens).transpose(1, 2)\n        "
                                            'return cross_entropy(s, batch.targets, reduction="none").square().mean()\n'),
    "scores within a block": program(loss="\n        no_grad { s = model(batch.tokens) }\n        "
                                     "return cross_entropy(s.flatten(0, 1), batch.targets.flatten())\n"),
    "few classes": program(classes=65),
    "a wide layer": program(modules=WORDS.replace("dim: int = 16", "dim: int = 4096")),
    "a layer that is not the last": program(modules=net("        return 2 * head(embed(tokens))")),
    "scores that the model reads": program(modules=net("        s = head(embed(tokens))\n        track top = s.mean()\n        return s")),
    "no layer at all": program(modules=net("        return embed(tokens) @ embed.weight.T + 1")),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_where_the_head_stays(name: str) -> None:
    model, loss = texts(KEPT[name])
    assert "head: bool" not in model
    assert not any("head=False" in line for line in loss)


def test_heads_stay_where_gradients_are_differentiated() -> None:
    loss = LOSS.replace("return", "penalty = grad(scores.sum(), scores).square().mean()\n        return penalty +")
    assert "head: bool" not in texts(program(loss=loss))[0]


def test_a_written_out_loss_and_a_second_call() -> None:
    loss = """
        first = model(batch.tokens)
        second = model(batch.targets)
        a = -log_softmax(first, dim=-1).gather(-1, batch.targets[..., none]).mean()
        return a + cross_entropy(second.transpose(1, 2), batch.tokens)
"""
    lines = texts(program(loss=loss))[1]
    assert sum("head=False" in line for line in lines) == 2
    assert sum(line.count("kernels.linear_cross_entropy") for line in lines) == 2


# What looks at such programs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("modules", [WORDS, NESTED])
def test_explain_tells_of_the_model_without_its_head(modules: str) -> None:
    unit = built(program(modules=modules), EXAMPLES / "program.model")
    found = explain(unit, "words")
    loss, model, *_ = found.tables
    assert any("linear_cross_entropy" in part.name for part in loss.parts)
    assert model.title == "Words, no head"
    assert not any("head: linear" in part.name or "out: linear" in part.name for t in found.tables for part in t.parts)
    # Three products of all tokens, and the gradient of a row for each of the first two; the rest is small beside them.
    products = 3 * 2 * (4 * 64) * 8192 * 16
    assert products <= found.cost.flops + found.cost.flops_backward < 1.4 * products
    assert explain(unit, "words", "Words").tables[0].module == "Words"
    kept = explain(unit, "words", passes=UNFUSED).cost.kept
    assert found.cost.kept < kept / 4
    assert memory(unit, "words").activations > 0


def test_evaluation_has_the_scores() -> None:
    unit = compiled(program(), name=EXAMPLES / "program.model")
    compare = unit.evaluations["words"].compare
    assert compare is not None
    assert compare.outputs[0].type.shape[-1].constant == 8192
    assert graph_of(unit, "Words").outputs[0].type.shape[-1].substitute(graph_of(unit, "Words").known).constant == 8192


# Training ------------------------------------------------------------------------------------------------------------


class ByHand(nn.Module):
    """`Words` as one writes it, casting by hand."""

    def __init__(self, low: torch.dtype, classes: int) -> None:
        super().__init__()
        self.low = low
        self.embed = nn.Embedding(classes, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).to(self.low)
        h = self.norm(x.float() + F.silu(x.float())).to(self.low)
        return F.linear(h, self.embed.weight.to(self.low)).float()


def by_hand(model: ByHand, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())


def trained(model: nn.Module, loss: Any, batches: list[Any], parts: int) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    found = []
    for batch in batches:
        for part in batch.chunk(parts):
            value = loss(model, part) * (part.size / batch.size)
            value.backward()
            found.append(value.item())
        optimizer.step()
        optimizer.zero_grad()
    return found


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("precision", "rtol"), [("f32", 1e-5), ("bf16", 2e-3)])
def test_losses_are_those_of_pytorch(precision: str, rtol: float, parts: int, tmp_path: Path) -> None:
    """Loss by loss, with an embedding tied to the head: its gradient comes from two places."""
    low = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    with imported(project(program(precision=precision, classes=8200), tmp_path)) as script:
        batches = [batch for batch, _ in zip(script["data"].batches("train", 6, seed=0), range(6))]
        torch.manual_seed(0)
        ours = sys.modules["model"].Words(vocab=8200)
        plain = ByHand(low, 8200)
        plain.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "head.weight"})
        found = trained(ours, script["loss"], batches, parts)
    wanted = trained(plain, by_hand, batches, parts)
    assert wanted[-1] < 0.95 * wanted[0]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=rtol, atol=0.0)
    # What is added up in float32 here is rounded to bfloat16 there.
    torch.testing.assert_close(ours.embed.weight, plain.embed.weight, rtol=100 * rtol, atol=1000 * rtol / 20)


def run(folder: Path, text: str, passes: tuple[pipeline.Pass, ...] = pipeline.PASSES) -> dict[str, Tensor]:
    """The weights after the emitted script has run."""
    project(text, folder / "emitted", passes)
    command = [sys.executable, str(folder / "emitted" / "train.py"), "--out", str(folder), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    steps = sorted((folder / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    return load_file(steps[-1] / "model.safetensors")


SETTINGS = {
    "parts of a batch": "    accumulate = 2",
    "an average": "    ema = EMA(decay=0.5)\n    validate { every = 1 }",
    "a frozen head": '    freeze = ["embed.*"]',
    "weights to begin with": '    init_from = "START"\n    clip_grad_norm = 0.5',
}


@pytest.mark.parametrize("name", SETTINGS)
def test_runs_end_as_they_do_unfused(name: str, tmp_path: Path) -> None:
    untied = WORDS.replace(", weight=embed.weight", "") if "frozen" in name else WORDS
    settings = SETTINGS[name].replace("START", str(tmp_path / "start.safetensors"))
    torch.manual_seed(0)
    start = {"embed.weight": torch.randn(8192, 16), "norm.weight": torch.rand(16), "norm.bias": torch.randn(16)}
    save_file(start, tmp_path / "start.safetensors")
    text = program(modules=untied, settings=settings)
    found, wanted = run(tmp_path / "a", text), run(tmp_path / "b", text, UNFUSED)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_runs_in_low_precision_end_nearly_as_they_do_unfused(precision: str, tmp_path: Path) -> None:
    """With the scale of a loss in float16, under which a mean's gradient would vanish."""
    text = program(precision=precision)
    found, wanted = run(tmp_path / "a", text), run(tmp_path / "b", text, UNFUSED)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=2e-2, atol=2e-3, msg=key)
