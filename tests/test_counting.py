"""Counting launches and bytes on a GPU that is not there, by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from tdsl.runtime import launch
from tdsl.runtime.counting.autocast import autocast
from tdsl.runtime.counting.counter import BACKWARD, FORWARD, Tally, counting
from tdsl.runtime.counting.gpu import GPU, fake_gpu
from tdsl.runtime.counting.traffic import ATTENTION, OTHER, PRODUCTS
from tdsl.runtime.counting.triton_launches import accesses

Found = dict[str, tuple[int, int]]


def launched(function: Callable[..., Any], *shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Found:
    """What a function of tensors on the GPU launches: by name how often, and the bytes moved together."""
    with fake_gpu(), counting() as counter:
        counter.on = False
        given = [torch.empty(shape, dtype=dtype, device=GPU, requires_grad=True) for shape in shapes]
        counter.on = True
        function(*given)
    return {kind.name: (tally.launches, tally.bytes) for kind, tally in counter.found.items()}


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
