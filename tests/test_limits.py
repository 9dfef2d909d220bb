"""What numbers that are indices may be, as far as a program tells it; PyTorch takes those and no others."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.compiler.build.unit import Limit
from tdsl.compiler.limits import INDICES
from tests.helpers import built

NET = """module Net(classes: int = 5) {
    up = Linear(3, classes)
    forward(x: float[B, 3]) -> float[B, classes] { return up(x) }
}
module Words(vocab: int = 65) {
    embed = Embedding(vocab, 4)
    head = Linear(4, vocab)
    forward(tokens: int[B, T]) -> float[B, T, vocab] { return head(embed(tokens)) }
}
module Listed(vocab: int = 30) {
    body = Sequential(Embedding(vocab, 4), ReLU())
    forward(tokens: int[B, T]) -> float[B, T, 4] { return body(tokens) }
}
module Own(classes: int = 7) {
    up = Linear(3, classes)
    forward(x: float[B, 3], label: int[B]) -> float[] { return cross_entropy(up(x), label.long()) }
}
module Sometimes() {
    up = Linear(3, 5)
    forward(x: float[B, 3], label: int[B]) -> float[B, 5] {
        return up(x) + (one_hot(label, 5).float() if training else 0.0 * up(x))
    }
}
"""
DATA = """data D {
    source = csv("rows.csv")
    field x: float[3] = columns("x*")
    field y: float[] = column("y")
    field label: int[] = column("label")
    field tokens: int[8] = columns("t*")
    field pair: int[2] = columns("p*")
    field small: u8[] = column("s")
    MORE
}
"""
RUN = """train r {
    model = MODEL()
    data = D
    loss(batch) {
        BODY
    }
    optimizer = SGD(lr=0.1)
    epochs = 1
    batch_size = 4
}
"""


def told(body: str, model: str = "Net", more: str = "") -> dict[str, Limit]:
    """The limits of the fields that a loss has."""
    text = NET + DATA.replace("MORE", more) + RUN.replace("MODEL", model).replace("BODY", body)
    return dict(built(text).runs["r"].limits)


def classes(count: int, ignored: int | None = -100) -> Limit:
    return Limit(count, ignored, looked_up=False)


def entries(count: int) -> Limit:
    return Limit(count, None, looked_up=True)


SCORES = "scores = model(batch.x)\n        "


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return cross_entropy(scores, batch.label)", classes(5)),
        ("return cross_entropy(scores, batch.label, ignore_index=255)", classes(5, 255)),
        ("return cross_entropy(scores, batch.label, ignore_index=2)", classes(5, 2)),
        ('return (cross_entropy(scores, batch.label, reduction="none") * (batch.y > 0).float()).mean()', classes(5)),
        ("return nll_loss(log_softmax(scores, dim=-1), batch.label)", classes(5)),
        ("return multi_margin_loss(scores, batch.label)", classes(5, None)),
        ("return mse_loss(scores, one_hot(batch.label, 5).float())", classes(5, None)),
        ("return -gather(log_softmax(scores, dim=-1), 1, batch.label.unsqueeze(1)).mean()", entries(5)),
        ("return scores.t().index_select(0, batch.label).mean()", entries(5)),
        ("return cross_entropy(scores, batch.label.unsqueeze(1).squeeze(1))", classes(5)),
        # Each use holds: -100 is no row of the table that one of them has.
        ("return cross_entropy(scores, batch.label) + one_hot(batch.label, 9).float().mean()", classes(5, None)),
        (
            "return cross_entropy(scores, batch.label) + cross_entropy(scores, batch.label, ignore_index=9)",
            classes(5, None),
        ),
        # What is 255 for the loss may be looked up.
        (
            "return cross_entropy(scores, batch.label, ignore_index=255) + one_hot(batch.label, 300).float().mean()",
            classes(5, 255),
        ),
    ],
)
def test_a_label_is_a_class(body: str, expected: Limit) -> None:
    assert told(SCORES + body) == {"label": expected}


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        ("Words", "return model(batch.tokens).mean()", {"tokens": entries(65)}),
        ("Net", f"{SCORES}return cross_entropy(scores, batch.small.long())", {"small": classes(5)}),
        ("Net", f"{SCORES}return cross_entropy(scores, batch.label.int().long())", {"label": classes(5)}),
        ("Listed", "return model(batch.tokens).mean()", {"tokens": entries(30)}),
        ("Own", "return model(batch.x, batch.label)", {"label": classes(7)}),
        # Of the next token, -100 would be left out; of all others it is none of the table.
        (
            "Words",
            "return cross_entropy(model(batch.tokens[:, :-1]).flatten(0, 1), batch.tokens[:, 1:].flatten())",
            {"tokens": classes(65)},
        ),
        ("Net", f"{SCORES}return cross_entropy(scores.repeat(2, 1), batch.pair.flatten())", {"pair": classes(5)}),
        (
            "Net",
            f"{SCORES}return cross_entropy(scores, batch.pair[:, 0]) + "
            "cross_entropy(scores.repeat(1, 2), batch.pair[..., 1])",
            {"pair": classes(10)},
        ),
    ],
)
def test_fields_are_followed_into_modules_and_pieces(model: str, body: str, expected: dict[str, Limit]) -> None:
    assert told(body, model) == expected


@pytest.mark.parametrize(
    "body",
    [
        "return cross_entropy(scores, batch.label - 1)",
        "return cross_entropy(scores, batch.label % 5)",
        "return cross_entropy(scores, batch.label.clamp(0, 4))",
        "return cross_entropy(scores, where(batch.label < 0, 0, batch.label))",
        "return cross_entropy(scores, batch.label[0:])",
        "return cross_entropy(scores, batch.pair[:, 0])",
        "return mse_loss(scores[:, 0], batch.y)",
        "return mse_loss(scores[:, 0], batch.label.float())",
        "unused = one_hot(batch.label, 3)\n        return scores.mean()",
        "return scores.mean()",
    ],
)
def test_nothing_is_said_of_other_numbers(body: str) -> None:
    assert told(SCORES + body) == {}


def test_nothing_is_said_of_what_is_transformed_or_only_trained_with() -> None:
    assert told("return model(batch.x, batch.label).mean()", "Sometimes") == {}
    mask = 'field mask: int[1, 4, 4] = column("mask")'
    loss = f"{SCORES}return scores.mean() + one_hot(batch.mask, 3).float().mean()"
    assert told(loss, more=mask) == {"mask": classes(3, None)}
    assert told(loss, more=f"{mask}\n    transform mask = [RandomCrop(4, padding=1)]") == {}


# Pieces of a row of six, and which of its numbers they have; the first two have all.
PIECES = {"": range(6), "[:, :]": range(6), "[:, 1:]": range(1, 6), "[:, :-1]": range(5), "[:, 2:5]": range(2, 5),
          "[:, -1]": range(5, 6), "[:, ::2]": range(0, 6, 2)}  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_a_limit_refuses_nothing_that_each_use_takes(seed: int) -> None:
    """Where each use has the whole row, it takes nothing else, either."""
    draw, whole = random.Random(seed), seed % 2 == 1
    pieces = list(PIECES)[: 2 if whole else None]
    uses = [(draw.choice(pieces), draw.randint(2, 9), draw.choice([-100, -1, 3, 7])) for _ in range(draw.randint(1, 4))]
    terms = []
    for piece, count, ignored in uses:
        scores = f"zeros(batch.row.shape[0] * {len(PIECES[piece])}, {count})"
        terms.append(f"cross_entropy({scores}, batch.row{piece}.flatten(), ignore_index={ignored})")
    body = f"{SCORES}return scores.mean() + {' + '.join(terms)}"
    limit = told(body, more='field row: int[6] = column("row")').get("row")
    for place, value in itertools.product(range(6), range(-101, 12)):
        holds = all(0 <= value < n or value == ignored for piece, n, ignored in uses if place in PIECES[piece])
        taken = limit is None or 0 <= value < limit.count or value == limit.ignored
        assert taken or not holds
        assert not (whole and taken) or holds


X, LOGS = torch.zeros(1, 5), torch.zeros(1, 5).log_softmax(-1)
TABLE = torch.zeros(5, 2)
# What takes indices, with one that may be 0 to 4.
TAKES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": lambda i: F.cross_entropy(X, i),
    "nll_loss": lambda i: F.nll_loss(LOGS, i),
    "multi_margin_loss": lambda i: F.multi_margin_loss(X, i),
    "one_hot": lambda i: F.one_hot(i, 5),
    "embedding": lambda i: F.embedding(i, TABLE),
    "embedding_bag": lambda i: F.embedding_bag(i[None], TABLE),
    "gather": lambda i: X.gather(1, i[None]),
    "index_select": lambda i: X.index_select(1, i),
}


@pytest.mark.parametrize("name", INDICES)
def test_pytorch_takes_what_is_within_and_nothing_else(name: str) -> None:
    takes = TAKES[name]
    for index in (0, 4):
        takes(torch.tensor([index]))
    for index in (-1, 5, 255):
        with pytest.raises((IndexError, RuntimeError)):
            takes(torch.tensor([index]))
    if name in ("cross_entropy", "nll_loss"):
        takes(torch.tensor([-100]))
    else:
        with pytest.raises((IndexError, RuntimeError)):
            takes(torch.tensor([-100]))
