"""The kernels of attention: which calls have them, what is emitted, and that they compute what plain PyTorch does.

In Triton's interpreter, each batch of checks in a process of its own.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.emit.kernels_file import emit_kernels
from tdsl.compiler.ir import Group
from tdsl.compiler.structured.attention import _pairs
from tests.helpers import ROOT, compiled, disagreements, emitted, graph_of, python, written

# Which calls have kernels of ours -----------------------------------------------------------------------------------

QKV = "q: float[B, 4, T, 8], k: float[B, 4, S, 8], v: float[B, 4, S, 8]"


def program(call: str, more: str = "", params: str = "", before: str = "", held: str = "") -> str:
    inputs = QKV + (f", {more}" if more else "")
    body = "".join(f"        {line}\n" for line in (*filter(None, [before]), f"return {call}"))
    return f"module M({params}) {{\n    {held}\n    forward({inputs}) -> float[B, 4, T, 8] {{\n{body}    }}\n}}\n"


def grouped(unit: Unit) -> list[Group]:
    return [g for g in pipeline.groups(unit) if g.structure is not None]


WITH = [
    "attention(q, k, v, window=3)",
    "attention(q, k, v, softcap=2.0)",
    "attention(q, k, v, causal=true, bias=bias)",
    "attention(q, k, v, bias=alibi(4, T, S))",
    "attention(q, k, v, bias=alibi(1, T, S), causal=true)",
    "attention(q, k, v, window=w, scale=c)",
    "attention(q, k, v, window=T)",
    "attention(q, k, v, window=T // 2 + 1)",
    "attention(q, k, v, window=3, dropout_p=0.1)",
]
WITHOUT = [
    "attention(q, k, v)",
    "attention(q, k, v, causal=true, scale=0.5, dropout_p=0.1)",
    "attention(q, k, v, bias=bias)",
    # A bias that is one of the tensors has two gradients.
    "attention(q, k, v, bias=q.reshape(B, 4, T, 8).sum(dim=-1, keepdim=true), scale=0.5)",
    # Nobody but the caller knows both numbers.
    "attention(q, k, v, window=T // w)",
]


@pytest.mark.parametrize("call", WITH)
def test_what_pytorch_lacks_has_a_kernel(call: str) -> None:
    unit = compiled(program(call, "bias: float[T, S]", "w: int = 3, c: float = 0.5"))
    (group,) = grouped(unit)
    assert [n.op.name for n in group.body.nodes] == ["attention"]
    assert "alibi" not in [n.op.name for n in graph_of(unit, "M").nodes]


@pytest.mark.parametrize("call", WITHOUT)
def test_the_rest_is_pytorch_s(call: str) -> None:
    assert not grouped(compiled(program(call, "bias: float[T, S]", "w: int = 3")))


def test_linear_biases_of_other_sizes_are_added_as_they_are() -> None:
    unit = compiled(program("attention(q, k, v, causal=true, bias=alibi(4, 1, S))"))
    (group,) = grouped(unit)
    assert group.structure is not None
    assert group.structure.options["alibi"] is None
    assert group.structure.options["bias"] == ("head", "", "keys")


BIASES = [
    ("bias: float[T, S]", "", "bias", True),
    ("m: bool[T, S]", "", "where(m, 0.0, -inf)", False),
    ("bias: float[T, S]", "", "bias.detach()", False),
    ("n: int[T, S]", "param table: [9] = zeros()", "table[n]", True),
    ("n: int[T, S]", "table = Embedding(9, 1)", "table(n).squeeze(-1)", True),
    ("", "", "alibi(4, T, S) * 2", False),
]


@pytest.mark.parametrize(("more", "held", "bias", "carries"), BIASES)
def test_a_bias_has_a_gradient_only_where_one_may_be_asked(more: str, held: str, bias: str, carries: bool) -> None:
    unit = compiled(program("attention(q, k, v, causal=true, bias=added)", more, before=f"added = {bias}", held=held))
    group = grouped(unit)[-1]  # after that of the embedding, which has a kernel too
    assert group.name == "attention"
    text = emit_kernels([group], "m.model")
    assert ("_attention_backward_bias" in text) == carries
    assert (".detach()" in text) == (not carries)


def test_two_uses_share_a_kernel_only_where_their_biases_lie_alike() -> None:
    call = "attention(q, k, v, causal=true, bias=a) + attention(q, k, v, causal=true, bias=b) + attention(v, q, k, causal=true, bias=c)"
    same, other = (
        "a: float[1, 4, T, S], b: float[1, 4, T, S], c: float[1, 4, T, S]",
        "a: float[1, 4, T, S], b: float[B, 1, T, S], c: float[1, 4, T, S]",
    )
    for more, count in ((same, 1), (other, 2)):
        text = program(call, more).replace("S, 8]", "T, 8]").replace("T, S]", "T, T]")
        assert len(grouped(compiled(text))) == count


# What is emitted -----------------------------------------------------------------------------------------------------

TEXTS = {
    "cap": "attention(q, k, v, softcap=2.0)",
    "window": "attention(q, k, v, causal=true, window=128)",
    "both ways": "attention(q, k, v, window=w, softcap=c, scale=c)",
    "one": "attention(q, k, v, window=1)",
    "long": "attention(q, k, v, window=1073741823, softcap=1.2345678901234567, dropout_p=0.25, bias=bias)",
    "endless": "attention(q, k, v, window=1099511627776, softcap=1.5)",
    "linear": "attention(q, k, v, causal=true, bias=alibi(4, T, S))",
    "linear of one": "attention(q, k, v, bias=alibi(1, T, S), scale=1.0)",
    "sizes": "attention(q, k, v, window=T // 2 + 1)",
    "number": "attention(q, k, v, causal=true, bias=number)",
    "key": "attention(q, k, v, causal=true, bias=key, window=12)",
    "query": "attention(q, k, v, window=12, bias=query)",
}
MORE = "bias: float[4, T, S], number: float[1, 4, 1, 1], key: float[B, 1, 1, S], query: float[T, 1]"


@cache
def texts() -> dict[str, str]:
    found = {}
    for name, call in TEXTS.items():
        (group,) = grouped(compiled(program(call, MORE, "w: int = 3, c: float = 0.5")))
        found[name] = emit_kernels([group], "m.model")
    return found


def test_emitted_text_is_as_ruff_would_have_it(tmp_path: Path) -> None:
    for i, text in enumerate(texts().values()):
        (tmp_path / f"kernels_{i}.py").write_text(text, encoding="utf-8")
    own = 'lint.isort.known-first-party = ["tdsl"]'
    for command in (("check", "--extend-select", "I,UP,B,RET,SIM", "--config", own), ("format", "--check")):
        options = ["--no-cache", "--isolated", "--config", "line-length = 120"]
        ran = python("-m", "ruff", command[0], *options, *command[1:], ".", cwd=tmp_path)
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]


# What stands in a text, and only in those that are named.
TRACES = {
    "tanh_for": {"cap", "both ways", "long", "endless"},
    "bias_ptr": {"long", "number", "key", "query"},
    "alibi_slope": {"linear", "linear of one"},
    "DROPOUT": {"long"},
    "keys <= queries": {"window", "linear", "number", "key"},
    "keys > queries": set(TEXTS) - {"cap", "endless", "linear", "linear of one", "number"},
    "keys < queries": {"both ways", "one", "long", "sizes", "query"},
    "n_groups": set[str](),
    "last = ": set(TEXTS) - {"cap", "endless", "linear of one"},
}


@pytest.mark.parametrize("trace", TRACES)
def test_what_is_not_asked_for_leaves_no_trace(trace: str) -> None:
    kernels = {name: text.partition("@triton.jit")[2] for name, text in texts().items()}
    assert {name for name, text in kernels.items() if trace in text} == TRACES[trace]


def test_heads_that_share_keys_are_told_of() -> None:
    text = program("attention(q, k, v, softcap=2.0)").replace("k: float[B, 4", "k: float[B, 2")
    (group,) = grouped(compiled(text.replace("v: float[B, 4", "v: float[B, 2")))
    text = emit_kernels([group], "m.model")
    assert "group = head // (n_heads // n_groups)" in text
    assert 'tile("backward_kv grouped"' in text


def test_numbers_are_bound_once() -> None:
    text = texts()["both ways"]
    assert "def attention(q: Tensor, k: Tensor, v: Tensor, softcap: float, window: int) -> Tensor:" in text
    assert "def forward(ctx, q, k, v, scale, window):" in text
    assert "window = min(window, 1 << 30)" in text
    assert "window = min(n_queries // 2 + 1, 1 << 30)" in texts()["sizes"]


# Costs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_the_scores_that_are_counted_are_those_that_are_seen(causal: bool) -> None:
    for queries, keys, window in itertools.product((0, 1, 4, 7), (0, 1, 5, 9), (None, 1, 2, 3, 6, 20)):
        seen = sum(
            (not causal or j <= i) and (window is None or abs(i - j) < window)
            for i in range(queries)
            for j in range(keys)
        )
        assert _pairs(queries, keys, causal, window) == seen, (queries, keys, window)


# Against float64 -----------------------------------------------------------------------------------------------------


def interpreted(*arguments: str) -> list[str]:
    ran = python("-m", *arguments, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: list[str] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_random_uses_agree_with_float64() -> None:
    told = interpreted("tests.attention_cases", "0", "60")
    assert not told, f"{len(told)} uses:\n" + "\n".join(told[:10])


@pytest.mark.slow
def test_hundreds_of_random_uses_agree_with_float64() -> None:
    told = interpreted("tests.attention_cases", "1000", "300")
    assert not told, f"{len(told)} uses:\n" + "\n".join(told[:10])


def test_verify_runs_its_cases(tmp_path: Path) -> None:
    text = program("attention(q, k, v, window=w, softcap=2.0, bias=bias)", "bias: float[1, 4, 1, S]", "w: int = 4")
    told = disagreements(written(emitted(compiled(text)), tmp_path))
    assert not told, "\n".join(told)


LOW = """
module Net(dim: int = 32, heads: int = 4) {
    qkv = Linear(dim, 3 * dim)
    param table: [heads, 1, 5] = normal(std=0.1)
    param queries: [1, heads, 5, 8] = normal()
    forward(x: float[B, 5, dim]) -> float[B, 5, dim] {
        q, k, v = qkv(x).chunk(3, dim=-1)
        q = rearrange(q, "b t (h d) -> b h t d", h=heads)
        k = rearrange(k, "b t (h d) -> b h t d", h=heads)
        v = rearrange(v, "b t (h d) -> b h t d", h=heads)
        y = attention(q, k, v, causal=true, softcap=30.0, bias=table) + attention(queries, queries, queries, window=3)
        return rearrange(y, "b h t d -> b t (h d)")
    }
}

data D {
    source = synthetic(rows=8)
    field x: float[5, 32] = column("x")
    field y: float[5, 32] = column("y")
}

train net {
    model = Net()
    data  = D
    epochs = 1
    precision = PRECISION
    optimizer = SGD(lr=0.1)
    loss(batch) { return mse_loss(model(batch.x), batch.y) }
}
"""


def test_in_lower_precision_parameters_stay_in_float32(tmp_path: Path) -> None:
    """A bias is read as it is, what else is a parameter in the precision of the run."""
    bf16, f16 = (emitted(compiled(LOW.replace("PRECISION", p))) for p in ("bf16", "f16"))
    assert "if launch.use_kernels(q, k, v, float32=(table,)):" in bf16["kernels.py"]
    assert "launch.rows_together(each.to(torch.bfloat16)) for each in (qkv, qkv, qkv)" in bf16["kernels.py"]
    told = disagreements(written(f16, tmp_path), ("float16",))
    assert not told, "\n".join(told)


# What else holds, each a function that is run in the interpreter ------------------------------------------------------


def _use(**options: object) -> object:
    from tests.attention_cases import Use, Variant

    given = {"causal": True, "numbers": (("window", 9), ("softcap", 2.0)), "heads": 4, "groups": 2, **options}
    return Use(Variant(**given), (2, 70, 70))  # type: ignore[arg-type]


def _runs_are_bit_equal() -> None:
    from tests import attention_cases as cases

    use = _use(bias=("4", "T", "S"), drops=True)
    first, second = (cases.run(cases.kernel(use), cases.make(use)) for _ in range(2))
    assert all(map(torch.equal, first, second))


def _rows_are_read_where_they_lie() -> None:
    """Of q, k, v and the gradient, what has its rows in one piece is not copied; the result has its heads inside."""
    from tests import attention_cases as cases

    use = replace(_use(), layouts=("heads inside", "sliced", "heads inside", "", "heads inside"))
    made = cases.make(use)
    leaves = [t.detach().requires_grad_() for t in made.tensors]
    y = cases.kernel(use)(*leaves, *made.numbers)
    assert [t.data_ptr() for t in y.grad_fn.saved_tensors[:3]] == [t.data_ptr() for t in leaves]
    assert y.shape == (2, 4, 70, 16)
    assert y.transpose(1, 2).is_contiguous()


def _not_a_number_spoils_what_sees_it() -> None:
    """NaN and infinities of q and k are in the results where eager PyTorch has them, and nowhere else in gradients.

    There PyTorch has more of them: its products with the zeros of what is hidden.
    """
    from tests import attention_cases as cases

    for index, value in itertools.product((0, 1), (float("nan"), float("inf"))):
        use = _use(numbers=(("window", 9),))
        made = cases.make(use)
        made.tensors[index][1, 1, 33, 3] = value
        found, eager = (cases.run(f(use), made) for f in (cases.kernel, cases.reference))
        assert torch.equal(found[0].isfinite(), eager[0].isfinite()), (index, value)
        assert not found[0].isfinite().all()
        if value != value:
            assert all(mine.isfinite()[theirs.isfinite()].all() for mine, theirs in zip(found, eager)), index


def _a_query_that_sees_nothing_yields_zeros() -> None:
    from tests import attention_cases as cases

    use = replace(_use(causal=False, bias=("B", "1", "T", "S")), sizes=(2, 60, 20))
    made = cases.make(use)
    made.tensors[-1][:, :, 5] = -torch.inf
    y, *gradients = cases.run(cases.kernel(use), made)
    assert not y[:, :, 5].any()
    assert not y[:, :, 40:].any()
    assert all(g.isfinite().all() for g in gradients)
    assert not gradients[0][:, :, 40:].any()
    assert not gradients[-1][:, :, 5].any()


def _a_gradient_of_the_bias_is_computed_where_it_is_asked() -> None:
    from tests import attention_cases as cases

    use = _use(bias=("1", "4", "T", "S"))
    made = cases.make(use)
    module, _ = cases.built(use.variant)
    q, k, v, bias = made.tensors
    q = q.detach().requires_grad_()
    module._attention_backward_bias = None
    module._Attention.apply(q, k, v, bias, *made.numbers).sum().backward()
    assert q.grad is not None


def _dropout_keeps_what_the_reference_keeps() -> None:
    """With one weight a query, what is left of it is that weight or nothing."""
    from tests import attention_cases as cases

    use = replace(_use(numbers=(("window", 1),), drops=True), rate=0.4, seed=12345678901234567)
    made = cases.make(use)
    found, right = cases.kernel(use)(*made.tensors, *made.numbers), cases.reference(use)(*made.tensors, *made.numbers)
    assert torch.equal(found == 0, right == 0)
    assert 0.3 < (found == 0).float().mean() < 0.5


def _rates_that_training_alone_has_draw_nothing_otherwise() -> None:
    from tests import attention_cases as cases

    use, plain = _use(drops=True), _use()
    made = cases.make(plain)
    module, _ = cases.built(use.variant)
    assert torch.equal(module.attention(*made.tensors, 0.0), cases.kernel(plain)(*made.tensors))


CHECKS: dict[str, Callable[[], None]] = {
    f.__name__[1:]: f
    for f in (
        _runs_are_bit_equal,
        _rows_are_read_where_they_lie,
        _not_a_number_spoils_what_sees_it,
        _a_query_that_sees_nothing_yields_zeros,
        _a_gradient_of_the_bias_is_computed_where_it_is_asked,
        _dropout_keeps_what_the_reference_keeps,
        _rates_that_training_alone_has_draw_nothing_otherwise,
    )
}


@cache
def checked() -> dict[str, str]:
    ran = python("-m", "tests.test_attention_kernel", interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_interpreted(name: str) -> None:
    assert checked()[name] == ""


def _run_checks() -> dict[str, str]:
    import traceback

    torch.set_num_threads(1)
    found = {}
    for name, check in CHECKS.items():
        try:
            check()
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()[-1500:]
    return found


if __name__ == "__main__":
    print(json.dumps(_run_checks()))
    sys.exit(0)
