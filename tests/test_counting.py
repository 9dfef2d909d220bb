"""Counting launches and bytes on a GPU that is not there: by hand, and against what PyTorch's own headers say."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from tdsl.compiler.explain.compare import write
from tdsl.runtime import launch
from tdsl.runtime.counting import autocast as lists
from tdsl.runtime.counting.autocast import autocast
from tdsl.runtime.counting.counter import BACKWARD, FORWARD, UPDATE, Tally, counting
from tdsl.runtime.counting.gpu import GPU, fake_gpu
from tdsl.runtime.counting.step import count
from tdsl.runtime.counting.traffic import ATTENTION, OTHER, PRODUCTS
from tdsl.runtime.counting.triton_launches import accesses
from tests.helpers import built

Found = dict[str, tuple[int, int]]


def launched(function: Callable[..., Any], *shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Found:
    """What a function of tensors on the GPU launches: by name how often, and the bytes moved together."""
    with fake_gpu(), counting() as counter:
        counter.on = False
        given = [torch.empty(shape, dtype=dtype, device=GPU, requires_grad=True) for shape in shapes]
        counter.on = True
        function(*given)
    return {kind.name: (tally.launches, tally.bytes) for kind, tally in counter.found.items()}


# Operators, by hand: a [6, 16] tensor of float32 has 384 bytes, a row of it 64 -------------------------------------------

FULL, ROW = 6 * 16 * 4, 16 * 4
OPERATORS: dict[str, tuple[Callable[[Tensor], Any], Found]] = {
    "one tensor": (torch.exp, {"exp": (1, 2 * FULL)}),
    "a tensor twice": (lambda x: x * x, {"mul": (1, 2 * FULL)}),
    "a broadcast row": (lambda x: x + x[0], {"add": (1, FULL + ROW + FULL)}),
    "an expanded row": (lambda x: x[0].expand(6, 16).exp(), {"exp": (1, ROW + FULL)}),
    "in place": (lambda x: x.detach().add_(1.0), {"add_": (1, 2 * FULL)}),
    "written over": (lambda x: x.detach().zero_(), {"zero_": (1, FULL)}),
    "copied": (lambda x: torch.empty_like(x).copy_(x), {"copy_": (1, 2 * FULL)}),
    "views": (lambda x: x.view(96).unsqueeze(0).T.detach()[3:].split(7), {}),
    "allocations": (lambda x: (torch.empty_like(x), x.new_empty(3)), {}),
    "a reshape that copies": (lambda x: x.T.reshape(96), {"clone": (1, 2 * FULL)}),
    "a reshape that does not": (lambda x: x.reshape(96), {}),
    "zeros": (torch.zeros_like, {"zeros_like": (1, FULL)}),
    "another dtype": (lambda x: x.half(), {"_to_copy": (1, FULL + FULL // 2)}),
    "the same device": (lambda x: x.to(x.device), {}),
    "to the GPU": (lambda x: torch.empty(6, 16).to(x.device), {"_to_copy": (1, FULL)}),
    "nothing": (lambda x: x[:0].exp(), {}),
    "on the CPU": (lambda x: torch.ones(6, 16).exp(), {}),
    "a list": (lambda x: torch._foreach_mul([x, x.exp()], 2.0), {"exp": (1, 2 * FULL), "_foreach_mul": (1, 4 * FULL)}),
    "a number read": (lambda x: x.sum().item(), {"sum": (1, FULL + 4), "_local_scalar_dense": (1, 4)}),
    "a truth value read": (lambda x: bool(x.sum() > 0), {"sum": (1, FULL + 4), "gt": (1, 5), "_local_scalar_dense": (1, 1)}),
    "dropout": (lambda x: F.dropout(x, 0.1), {"native_dropout": (1, 2 * FULL + FULL // 4)}),
    "no dropout": (lambda x: F.dropout(x, 0.1, training=False), {}),
    "a look-up": (
        lambda x: F.embedding(torch.zeros(3, dtype=torch.int64, device=GPU), x),
        {"zeros": (1, 24), "embedding": (1, 24 + 2 * 3 * ROW)},
    ),
    "a gradient": (lambda x: F.silu(x).backward(torch.empty_like(x)), {"silu": (1, 2 * FULL), "silu_backward": (1, 3 * FULL)}),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_by_hand(name: str) -> None:
    function, found = OPERATORS[name]
    assert launched(function, (6, 16)) == found


def test_products_and_attention_are_told_apart() -> None:
    def step(x: Tensor, q: Tensor, image: Tensor) -> None:
        torch.relu(x @ x.mT).sum().backward()
        F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
        F.conv2d(image, image).sum().backward()

    with fake_gpu(), counting() as counter:
        shapes = ((6, 16), (2, 3, 8, 16), (4, 3, 5, 5))
        step(*(torch.empty(shape, device=GPU, requires_grad=True) for shape in shapes))
    found = {kind.name: kind.category for kind in counter.found}
    assert {n for n, c in found.items() if c == PRODUCTS} == {"mm", "convolution", "convolution_backward"}
    assert {n for n, c in found.items() if c == ATTENTION} == {
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_efficient_attention_backward",
    }
    assert {"relu", "threshold_backward", "sum"} <= {n for n, c in found.items() if c == OTHER}


HEADS = (2, 4, 8, 16)
SDPA = [
    (torch.bfloat16, {}, "flash"),
    (torch.float16, {"is_causal": True, "dropout_p": 0.1}, "flash"),
    (torch.float32, {"is_causal": True}, "efficient"),
    (torch.bfloat16, {"attn_mask": (8, 8)}, "efficient"),
    (torch.float64, {}, "products"),
]


@pytest.mark.parametrize(("dtype", "options", "expected"), SDPA, ids=lambda value: str(value))
def test_attention_takes_the_back_end_of_a_gpu(dtype: torch.dtype, options: dict[str, Any], expected: str) -> None:
    def attend(q: Tensor) -> None:
        masks = (
            {"attn_mask": torch.zeros(options["attn_mask"], dtype=dtype, device=GPU)} if "attn_mask" in options else {}
        )
        F.scaled_dot_product_attention(q, q, q, **{**options, **masks}).sum().backward()

    found = launched(attend, HEADS, dtype=dtype)
    kernels = {name for name in found if name.startswith("_scaled_dot_product")}
    if expected == "products":
        assert not kernels
        assert "bmm" in found
    else:
        name = f"_scaled_dot_product_{expected}_attention"
        assert kernels == {name, f"{name}_backward"}


def test_a_group_of_heads_needs_flash_attention() -> None:
    def attend(q: Tensor, k: Tensor) -> None:
        F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    shapes = HEADS, (2, 2, 8, 16)
    assert "_scaled_dot_product_flash_attention" in launched(attend, *shapes, dtype=torch.float16)
    assert "bmm" in launched(attend, *shapes)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_are_one_call_of_cudnn(kind: str) -> None:
    def step(x: Tensor) -> None:
        getattr(nn, kind)(16, 5, num_layers=2, bidirectional=True, dropout=0.1).to(GPU)(x)[0].sum().backward()

    found = launched(step, (7, 3, 16))
    assert found["_cudnn_rnn"][0] == found["_cudnn_rnn_backward"][0] == 1
    assert "addmm" not in found


def test_models_move_to_the_gpu_with_what_they_share() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight
            self.register_buffer("table", torch.arange(3))

    with fake_gpu():
        model = Tied().to(GPU)
        twin = copy.deepcopy(model)
        for each in (model, twin):
            assert each.head.weight is each.embed.weight
            assert {t.device for t in (*each.parameters(), *each.buffers())} == {GPU}
            assert all(t.is_cuda and t.requires_grad for t in each.parameters())
        assert twin.head.weight is not model.head.weight
        assert twin.head.weight.data_ptr() != model.head.weight.data_ptr() == model.head.weight.detach().data_ptr()


OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_lists_of_tensors_as_on_a_gpu(name: str) -> None:
    def step(x: Tensor, y: Tensor) -> None:
        parameters = [nn.Parameter(x.detach()), nn.Parameter(y.detach())]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        optimizer = getattr(torch.optim, name)(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    found = launched(step, (6, 16), (16,))
    assert {"_foreach_norm", "_foreach_mul_"} <= set(found)
    changed = {name for name in found if name.endswith("_") and not name.startswith("_foreach")}
    assert not changed


def test_what_was_replaced_is_as_it_was() -> None:
    before = torch._C._group_tensors_by_device_and_dtype, nn.Module.to, nn.RNNBase.flatten_parameters
    with fake_gpu(), autocast(torch.bfloat16):
        assert nn.Module.to is not before[1]
    assert before == (torch._C._group_tensors_by_device_and_dtype, nn.Module.to, nn.RNNBase.flatten_parameters)
    x = torch.randn(2, 3, 4, 8)
    assert F.scaled_dot_product_attention(x, x, x).shape == x.shape
    assert F.dropout(x, 0.5).count_nonzero() < x.numel()


# Autocast ----------------------------------------------------------------------------------------------------------------

HEADER = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
MACROS = {
    "AT_FORALL_LOWER_PRECISION_FP": lists.LOW,
    "AT_FORALL_FP32": lists.FLOAT32,
    "AT_FORALL_FP32_SET_OPT_DTYPE": lists.FLOAT32_RESULT,
    "AT_FORALL_PROMOTE": lists.WIDEST,
}


@pytest.mark.skipif(not HEADER.exists(), reason="this installation of PyTorch has no headers")
@pytest.mark.parametrize("macro", MACROS)
def test_the_lists_are_those_of_pytorch(macro: str) -> None:
    """Each entry reads `_(name)` or `_(name, overload)`; nobody names the dimensions of tensors."""
    text = re.sub(r"\\\n", " ", HEADER.read_text())
    (line,) = re.findall(rf"#define {macro}\(_\)(.*)", text)
    entries = re.findall(r"_\((\w+)(?:,\s*(\w+))?\)", line)
    found = {f"{name}.{overload}" if overload else name for name, overload in entries}
    assert {name for name in found if "dimname" not in name.lower()} == set(filter(lists.has_wrapper, MACROS[macro]))


def cast(function: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[torch.dtype, int]:
    """The dtype of a function's result under autocast to bfloat16, and how many tensors were cast for it."""
    with fake_gpu(), counting() as counter, autocast(torch.bfloat16):
        counter.on = False
        given = [torch.empty(shape, device=GPU, requires_grad=True) for shape in shapes]
        low = [each.to(torch.bfloat16) for each in given]
        counter.on = True
        dtype = function(*given, *low).dtype
    return dtype, sum(tally.launches for kind, tally in counter.found.items() if kind.name == "_to_copy")


CASTS: dict[str, tuple[Callable[..., Any], torch.dtype, int]] = {
    "linear": (lambda x, w, x16, w16: F.linear(x, w), torch.bfloat16, 2),
    "a weight once": (lambda x, w, x16, w16: F.linear(F.linear(x16, w), w), torch.bfloat16, 1),
    "a copy each time": (lambda x, w, x16, w16: (x * 1) @ w16 + (x * 1) @ w16, torch.bfloat16, 2),
    "layer_norm": (lambda x, w, x16, w16: F.layer_norm(x16, (16,)), torch.float32, 1),
    "softmax": (lambda x, w, x16, w16: torch.softmax(x16, -1), torch.float32, 1),
    "sum": (lambda x, w, x16, w16: x16.sum(-1), torch.float32, 0),
    "norm": (lambda x, w, x16, w16: torch.norm(x16, dim=-1), torch.float32, 0),
    "power": (lambda x, w, x16, w16: x16**2, torch.float32, 1),
    "gelu": (lambda x, w, x16, w16: F.gelu(x16), torch.bfloat16, 0),
    "the widest": (lambda x, w, x16, w16: torch.addcmul(x, x16, x16), torch.float32, 2),
    "binary_cross_entropy": (lambda x, w, x16, w16: F.binary_cross_entropy(x16, x), torch.float32, 1),
    "double": (lambda x, w, x16, w16: x.double() @ w.double(), torch.float64, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CASTS)
def test_what_autocast_casts(name: str) -> None:
    function, dtype, casts = CASTS[name]
    assert cast(function, (16, 16), (16, 16)) == (dtype, casts)


# Triton ------------------------------------------------------------------------------------------------------------------


@triton.jit
def _scale(x_ptr, y_ptr, index_ptr, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place = x_ptr + tl.load(index_ptr + offsets, mask=offsets < n, other=0)
    x = tl.load(place, mask=offsets < n, other=0.0)
    tl.store(place, 2.0 * x, mask=offsets < n)
    tl.store(y_ptr + offsets, x, mask=offsets < n)


@triton.jit
def _product_of_tables(table_ptr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    a = tl.load(table_ptr + tl.arange(0, BLOCK)[:, None] + tl.arange(0, BLOCK)[None, :])
    tl.store(table_ptr + tl.arange(0, BLOCK)[:, None], tl.dot(a, a, input_precision="ieee"))


@triton.jit
def _at(table_ptr):  # type: ignore[no-untyped-def]
    return tl.load(table_ptr).to(tl.pointer_type(tl.float32))


@triton.jit
def _by_address(table_ptr):  # type: ignore[no-untyped-def]
    tl.store(_at(table_ptr), 1.0)


def test_how_a_kernel_reaches_its_arguments() -> None:
    found = {name: how for name, how in accesses(str(_scale.src)).items() if name.endswith("_ptr")}
    assert found == {"index_ptr": {"read"}, "x_ptr": {"read", "write"}, "y_ptr": {"write"}}


def test_a_launch_from_anywhere_counts_with_its_tensors() -> None:
    def step(x: Tensor, y: Tensor) -> None:
        _scale[(1,)](x, y, torch.empty(96, dtype=torch.int64, device=GPU), 96, BLOCK=128, num_warps=4)

    assert launched(step, (6, 16), (6, 16)) == {"_scale": (1, 3 * FULL + 96 * 8)}


def test_a_launcher_tells_the_bytes_that_its_arguments_do_not_show() -> None:
    def step(x: Tensor) -> None:
        launch.note_bytes(lambda: 30 * x.numel())
        _by_address[(1,)](torch.empty(8, dtype=torch.int64, device=GPU))
        _scale[(1,)](x, x, torch.empty(8, dtype=torch.int64, device=GPU), 8, BLOCK=8)

    # What is told is told of one launch.
    assert launched(step, (6, 16)) == {"_by_address": (1, 30 * 96), "_scale": (1, 2 * FULL + 64)}
    launch.note_bytes(lambda: pytest.fail("nobody counts"))


def test_bytes_that_nobody_can_know_are_not_guessed() -> None:
    def step(x: Tensor) -> None:
        _by_address[(1,)](torch.empty(8, dtype=torch.int64, device=GPU))

    with pytest.raises(ValueError, match=r"`_by_address` reaches tensors by their addresses.*`launch.note_bytes`"):
        launched(step, (6, 16))


def test_a_kernel_that_multiplies_is_a_product() -> None:
    with fake_gpu(), counting() as counter:
        _product_of_tables[(1,)](torch.empty(8, dtype=torch.int64, device=GPU), BLOCK=16)
        _scale[(1,)](*(torch.empty(8, device=GPU) for _ in range(3)), 8, BLOCK=8)
    assert {kind.name: kind.category for kind in counter.found} == {"_product_of_tables": PRODUCTS, "_scale": OTHER}


# A whole step, by hand ---------------------------------------------------------------------------------------------------


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


def test_tallies_add_up() -> None:
    with fake_gpu(), counting() as counter:
        counter.add("a", OTHER, 3)
        with counter.within(BACKWARD):
            counter.add("a", OTHER, 4)
        counter.add("a", OTHER, 5)
    assert [(kind.phase, tally) for kind, tally in counter.found.items()] == [
        (FORWARD, Tally(2, 8)),
        (BACKWARD, Tally(1, 4)),
    ]
