"""What is typed by someone who knows PyTorch and not the language: each guess has a cure that can be typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdsl.compiler.driver import read
from tdsl.dsl import habits
from tdsl.dsl.diagnostics import Diagnostic

BASE = """data D {
    source = csv("points.csv")
    split  = random(train=0.8, val=0.2)

    field x: float[2] = columns("x", "t")
    field y: int[]    = column("u")
}

module Net(dim: int = 8) {
    up   = Linear(2, dim)
    rnn  = LSTM(2, dim, batch_first=true)
    down = Linear(dim, 7)

    forward(x: float[B, 2]) -> float[B, 7] {
        h, _ = rnn(x[:, none])
        h = relu(up(x)) + h[:, 0]
        return down(h)
    }
}

train t {
    model = Net()
    data  = D

    loss(batch) { return cross_entropy(model(batch.x), batch.y) }

    optimizer = AdamW(lr=1e-3)
    epochs    = 3
}
"""


def told(text: str) -> list[Diagnostic]:
    Path("program.model").write_text(text, encoding="utf-8")
    return [each for each in read("program.model")[1] if each.severity == "error"]


@pytest.fixture(autouse=True)
def _points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"{i}.5,{i},{i % 7}\n" for i in range(20))
    (tmp_path / "points.csv").write_text(f"x,t,u\n{rows}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


LOSS = "cross_entropy(model(batch.x), batch.y)"


def test_the_program_is_right() -> None:
    assert told(BASE) == []


@pytest.mark.parametrize(
    ("right", "guess", "code", "help"),
    [
        ("up   = Linear", "self.up = nn.Linear", "E019", "members are named as they are: write `up = ...`"),
        ("down = Linear(dim, 7)", "down = Linear(dim, 7)\n    down.weight = up.weight", "E012",
         "hand it over where the layer is made: `down = Linear(..., weight=embed.weight)`"),
        ("    forward(", "    encode(x: float[B, 2]) -> float[B, 2] { return x }\n    forward(", "E012",
         "write `fn NAME(...) -> ... { }` outside of the module, or a module of its own for this part"),
        ("return down(h)", "return F.scaled_dot_product_attention(h, h, h)", "E019", "write `attention(q, k, v, causal=true)`"),
        ("return down(h)", "return scaled_dot_product_attention(h, h, h)", "E110", "write `attention(q, k, v, causal=true)`"),
        ("return down(h)", "return down(h).to(device)", "E110", "leave it out: the run chooses the device (`--device`)"),
        ("return down(h)", "return down(h).to(float32)", "E110", "write `f32`"),
        ("return down(h)", "return down(h if h.sum() > 0 else x)", "E208", "choose among tensors with `where(mask, a, b)`"),
        ("return down(h)", "return down(sum([up(x) for i in range(3)]))", "E201",
         "add tensors up in a `for` loop, or join them by `stack([a, b])`"),
        ("h, _ = rnn(x[:, none])", "h = rnn(x[:, none])", "E201", "it is 2 values: take them apart, `a, b = ...`"),
        (LOSS, "nn.CrossEntropyLoss()(model(batch.x), batch.y)", "E019", "a loss is a function: `cross_entropy(input, target)`"),
        (LOSS, 'cross_entropy(model(batch.x), batch["y"])', "E201", "its fields are named: `batch.label`"),
        (LOSS, "cross_entropy(model(batch.x), one_hot(batch.y, 7))", "E203",
         "give the numbers of the classes, or probabilities as floats: `.float()`"),
        (LOSS, "cross_entropy(model(batch.x), batch.y.float())", "E205", "declare the field as `int`, or convert it: `.int()`"),
        (LOSS, "binary_cross_entropy_with_logits(model(batch.x)[:, 0], batch.y.float(), pos_weight=1.5)", "E202",
         "write `tensor(1.5)`, or `tensor([...])` with several numbers"),
        (LOSS, "cross_entropy(model.up(batch.x), batch.y)", "E201",
         "return what is wanted from its `forward`, or let a module that both have compute it"),
        ("epochs    = 3", "epochs    = 3\n    scheduler = StepLR(optimizer, step_size=1)", "E110",
         "the run knows its optimizer: leave it out"),
        ("epochs    = 3", "epochs    = 3\n    precision = float16", "E110", "write `f16`"),
        ("AdamW(lr=1e-3)", '"adamw"', "E311", "write `AdamW(...)`, without quotes"),
        ('csv("points.csv")', '"points.csv"', "E311", 'write `csv("points.csv")`'),
        (LOSS, "cross_entropy(model(batch.x), batch.y, reduction=mean)", "E202", 'a string has quotes: write `"mean"`'),
        ("return down(h)", "return down(interpolate(h, scale_factor=2, mode=nearest))", "E110",
         'a string has quotes: write `"nearest"`'),
        ("down = Linear(dim, 7)", "down = Linear(dim, 7)\n    c = Conv1d(2, 2, 3, padding=same)", "E110",
         'a string has quotes: write `"same"`'),
        ("down = Linear(dim, 7)", "down = Linear(dim, 7)\n    c = Conv1d(2, 2, 3, padding=sane)", "E110", None),
        ("epochs    = 3", "epochs    = 3\n    scheduler = ReduceLROnPlateau(mode=max)", "E110",
         'a string has quotes: write `"max"`'),
        ("    loss(batch)", "    loss critic(batch)", "E012", habits.ONE_LOSS),
        ("    loss(batch)", "    loss(batch) { return model(batch.x).mean() }\n    loss(batch)", "E101", habits.ONE_LOSS),
        ('csv("points.csv")', 'pd.read_csv("points.csv")', "E120", 'files are read by a source: `source = csv("data.csv")`'),
    ],
)  # fmt: skip
def test_a_guess_has_its_cure(right: str, guess: str, code: str, help: str) -> None:
    assert right in BASE
    (found, *_) = told(BASE.replace(right, guess, 1))
    assert (found.code, found.help) == (code, help)
    assert found.span is not None


def test_a_name_that_has_a_cure_is_told_once() -> None:
    found = told(BASE.replace("return down(h)", "return F.scaled_dot_product_attention(h, h, h)"))
    assert [each.code for each in found] == ["E019"]


def test_a_member_of_a_member_is_not_taken_for_one_that_is_not_there() -> None:
    (found,) = told(BASE.replace(LOSS, "cross_entropy(model.upp(batch.x), batch.y)"))
    assert found.help is None


def test_a_split_that_is_mistaken_is_told_alone() -> None:
    text = BASE.replace("random(train", "shuffled(train").replace(
        "epochs    = 3", 'epochs    = 3\n    checkpoint { best = "val/loss" }'
    )
    evaluated = (
        text + "\nevaluate t {\n    compare(batch) { return model(batch.x), batch.y }\n    metrics = [Accuracy()]\n}\n"
    )
    assert [each.code for each in told(evaluated)] == ["E313"]


def test_a_function_that_no_field_has_is_told_with_what_there_is() -> None:
    (found,) = told(BASE.replace('columns("x", "t")', 'one_hot_encoded(columns("x", "t"))'))
    assert found.code == "E455"
    assert found.help is not None
    assert "operators, numbers and functions" in found.help
    (known,) = told(BASE.replace('columns("x", "t")', 'standardize(columns("x", "t"))'))
    assert "write `standardized(columns(" in str(known.help)
    (near,) = told(BASE.replace('columns("x", "t")', 'sqrtt(columns("x", "t"))'))
    assert near.help == "did you mean `sqrt`?"
