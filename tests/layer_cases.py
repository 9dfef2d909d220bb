"""One-layer modules: how each is made, what it is given, and the type that its result is declared to have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# What the run-time sizes are when a module is run.
SIZES = {"B": 3, "T": 5, "H": 9, "W": 8, "L": 11, "D": 7}


@dataclass(frozen=True)
class Case:
    """`made` is the constructor, as the language writes it; `inputs` and `results` are types.

    `body` stands for `return layer(x, y, ...)`, and `call` for `layer(*inputs)` in PyTorch, where those are not meant;
    `given` are inputs by number that random numbers can't stand for.
    """

    made: str
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    body: str = ""
    call: Callable[..., Any] | None = None
    given: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def layer(self) -> str:
        return self.made.partition("(")[0]


def one(made: str, input: str, result: str = "", **more: Any) -> Case:
    """A layer from one tensor to one."""
    return Case(made, (f"float{input}",), (f"float{result or input}",), **more)


def several(inputs: str, results: str, *made: str, **more: Any) -> list[Case]:
    """Layers that take and yield the same, types separated by semicolons."""
    types = [tuple(part.strip() for part in text.split(";")) for text in (inputs, results)]
    return [Case(each, *types, **more) for each in made]


ANY = "[B, 4, L]"
ELEMENTWISE = [
    one(made, ANY)
    for made in (
        "ReLU()", "ReLU(inplace=false)", "ReLU6()", "ReLU6(false)", "LeakyReLU()", "LeakyReLU(0.2)", "ELU()",
        "ELU(alpha=0.5)", "SELU()", "SELU(false)", "CELU()", "CELU(1.5)", "GELU()", 'GELU(approximate="tanh")',
        'GELU("none")', "SiLU()", "SiLU(false)", "Mish()", "Mish(false)", "Sigmoid()", "Tanh()", "Hardsigmoid()",
        "Hardsigmoid(false)", "Hardswish()", "Hardswish(false)", "Hardtanh()", "Hardtanh(-0.5, 0.25)",
        "Hardtanh(max_val=0.5)", "Softplus()", "Softplus(beta=2, threshold=1.5)", "Softsign()", "LogSigmoid()",
        "Softmax(dim=-1)", "Softmax(1)", "LogSoftmax(dim=-1)", "LogSoftmax(1)", "Threshold(0.1, 20.0)",
        "Threshold(threshold=-0.5, value=-1.0)", "PReLU()", "PReLU(4)", "PReLU(num_parameters=1, init=0.1)",
        "PReLU(4, 0.5)", "Identity()", "Dropout()", "Dropout(0.3)", "Dropout(p=0.0)", "Dropout(p=1.0)",
        "Dropout1d()", "Dropout1d(0.2)", "LocalResponseNorm(2)", "LocalResponseNorm(size=3, alpha=0.1, beta=0.5, k=2.0)",
    )
]  # fmt: skip
IMAGE, PLANE = "[B, 6, H, W]", "[6, H, W]"
GIVEN = [
    one("GLU()", "[B, 4, 6]", "[B, 4, 3]"),
    one("GLU(dim=1)", ANY, "[B, 2, L]"),
    one("Dropout2d()", IMAGE),
    one("Dropout2d(p=0.25)", IMAGE),
    one("Dropout3d()", "[B, 2, 3, H, W]"),
    one("Dropout3d(0.25)", "[2, 3, H, W]"),
    one("Flatten()", "[B, 4, 6]", "[B, 24]"),
    one("Flatten(start_dim=0, end_dim=1)", ANY, "[B * 4, L]"),
    one("Flatten(2)", "[B, T, H, W]", "[B, T, H * W]"),
    one("Unflatten(1, (2, 3))", "[B, 6, L]", "[B, 2, 3, L]"),
    one("Unflatten(dim=-1, unflattened_size=[4, -1])", "[B, 8]", "[B, 4, 2]"),
    one("Upsample(scale_factor=2)", IMAGE, "[B, 6, 2 * H, 2 * W]"),
    one("Upsample(size=(12, 7))", IMAGE, "[B, 6, 12, 7]"),
    one("Upsample(5)", "[B, 4, L]", "[B, 4, 5]"),
    one('Upsample(scale_factor=0.5, mode="nearest-exact")', IMAGE, "[B, 6, H // 2, W // 2]"),
    one('Upsample(scale_factor=(2, 1.5), mode="bilinear")', IMAGE, "[B, 6, 2 * H, 3 * W // 2]"),
    one('Upsample(scale_factor=2, mode="bilinear", align_corners=true)', IMAGE, "[B, 6, 2 * H, 2 * W]"),
    one('Upsample(size=(4, 5), mode="bicubic", align_corners=false)', IMAGE, "[B, 6, 4, 5]"),
    one('Upsample(scale_factor=2, mode="linear", recompute_scale_factor=true)', ANY, "[B, 4, 2 * L]"),
    one('Upsample(size=4, mode="trilinear")', "[B, 2, 3, H, W]", "[B, 2, 4, 4, 4]"),
    one('Upsample(size=3, mode="area")', IMAGE, "[B, 6, 3, 3]"),
    one("PixelShuffle(2)", "[B, 8, H, W]", "[B, 2, 2 * H, 2 * W]"),
    one("PixelShuffle(upscale_factor=3)", "[9, H, W]", "[1, 3 * H, 3 * W]"),
    one("PixelUnshuffle(2)", "[B, 3, 10, 8]", "[B, 12, 5, 4]"),
    one("PixelUnshuffle(downscale_factor=1)", PLANE),
]
DENSE = [
    *several("float[B, T, 6]", "float[B, T, 4]", "Linear(6, 4)", "Linear(_, 4)", "Linear(6, 4, bias=false)"),
    one("Linear(in_features=6, out_features=4)", "[6]", "[4]"),
    *several(
        "float[B, T, 6]; float[B, T, 4]",
        "float[B, T, 5]",
        "Bilinear(6, 4, 5)",
        "Bilinear(_, _, 5, bias=false)",
        "Bilinear(in1_features=6, in2_features=4, out_features=5)",
    ),
    *several(
        "int[B, T]",
        "float[B, T, 4]",
        "Embedding(10, 4)",
        "Embedding(10, 4, padding_idx=0)",
        "Embedding(10, 4, -1)",
        "Embedding(num_embeddings=10, embedding_dim=4, max_norm=0.5, norm_type=1.0)",
        "Embedding(10, 4, scale_grad_by_freq=true)",
    ),
    *several(
        "int[B, T]",
        "float[B, 4]",
        "EmbeddingBag(10, 4)",
        'EmbeddingBag(10, 4, mode="sum")',
        'EmbeddingBag(10, 4, mode="max", padding_idx=1)',
    ),
    Case(
        'EmbeddingBag(10, 4, mode="sum", include_last_offset=true)',
        ("int[L]", "int[D]"),
        ("float[D - 1, 4]",),
        given={1: torch.tensor([0, 2, 2, 5, 6, 9, 11])},
    ),
    Case("EmbeddingBag(10, 4)", ("int[L]", "int[3]"), ("float[3, 4]",), given={1: torch.tensor([0, 4, 7])}),
    Case(
        'EmbeddingBag(10, 4, mode="sum")',
        ("int[B, T]", "float[B, T]"),
        ("float[B, 4]",),
        body="return layer(x, per_sample_weights=y)",
        call=lambda layer, x, y: layer(x, per_sample_weights=y),
    ),
]


def _convolutions() -> list[Case]:
    found: list[Case] = []
    axes = ("H", "W", "L")
    for n in (1, 2, 3):
        sizes = axes[:n]
        x, lone = f"[B, 4, {', '.join(sizes)}]", f"[4, {', '.join(sizes)}]"

        def to(text: str, channels: int = 6, sizes: tuple[str, ...] = sizes) -> str:
            return f"[B, {channels}, {', '.join(text.replace('S', s) for s in sizes)}]"

        found += [
            one(f"Conv{n}d(4, 6, 3)", x, to("S - 2")),
            one(f"Conv{n}d(4, 6, kernel_size=3, stride=2, padding=1)", x, to("(S - 1) // 2 + 1")),
            one(f"Conv{n}d(_, 6, 2, padding=2, dilation=2, bias=false)", x, to("S + 2")),
            one(f'Conv{n}d(4, 6, 3, padding="same", groups=2)', x, to("S")),
            one(f'Conv{n}d(4, 6, 3, padding="valid")', x, to("S - 2")),
            one(f'Conv{n}d(4, 8, 3, 1, 1, 1, 4, true, "circular")', x, to("S", 8)),
            one(f"Conv{n}d(4, 6, 1)", lone, to("S").replace("B, ", "")),
            one(f"ConvTranspose{n}d(4, 6, 3)", x, to("S + 2")),
            one(f"ConvTranspose{n}d(4, 6, 2, stride=2)", x, to("2 * S")),
            one(
                f"ConvTranspose{n}d(_, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=false)",
                x,
                to("2 * S"),
            ),
            one(f"ConvTranspose{n}d(4, 6, 2, 1, 0, 0, 1, true, 2)", lone, to("S + 2").replace("B, ", "")),
        ]
    return [
        *found,
        one('Conv2d(4, 6, (3, 2), padding=(1, 0), padding_mode="reflect")', "[B, 4, H, W]", "[B, 6, H, W - 1]"),
        one("Conv2d(4, 6, [1, 3], (2, 1))", "[B, 4, H, W]", "[B, 6, (H - 1) // 2 + 1, W - 2]"),
        one('Conv1d(4, 6, 3, padding=1, padding_mode="replicate")', "[B, 4, L]", "[B, 6, L]"),
        one("ConvTranspose2d(4, 6, (3, 2), stride=(2, 1))", "[B, 4, H, W]", "[B, 6, 2 * H + 1, W + 1]"),
    ]


def _pools() -> list[Case]:
    found: list[Case] = []
    for n in (1, 2, 3):
        sizes = ("H", "W", "L")[:n]
        x, lone = f"[B, 4, {', '.join(sizes)}]", f"[4, {', '.join(sizes)}]"

        def to(text: str, lead: str = "B, 4", sizes: tuple[str, ...] = sizes) -> str:
            return f"[{lead}, {', '.join(text.replace('S', s) for s in sizes)}]"

        places = f"int{to('S // 2')}"
        found += [
            one(f"MaxPool{n}d(2)", x, to("S // 2")),
            one(f"MaxPool{n}d(3, 2, 1)", x, to("(S - 1) // 2 + 1")),
            one(f"MaxPool{n}d(kernel_size=2, stride=1, dilation=2)", lone, to("S - 2", "4")),
            one(f"MaxPool{n}d(2, ceil_mode=true)", x, to("(S + 1) // 2")),
            one(f"MaxPool{n}d(2, stride=2, padding=1, ceil_mode=true)", x, to("(S + 2) // 2")),
            Case(f"MaxPool{n}d(2, return_indices=true)", (f"float{x}",), (f"float{to('S // 2')}", places)),
            one(f"AvgPool{n}d(2)", x, to("S // 2")),
            one(f"AvgPool{n}d(3, stride=2, padding=1, count_include_pad=false)", x, to("(S - 1) // 2 + 1")),
            one(f"AvgPool{n}d(3, 2, ceil_mode=true)", lone, to("(S - 2) // 2 + 1", "4")),
            one(f"AdaptiveAvgPool{n}d(3)", x, to("3")),
            one(f"AdaptiveAvgPool{n}d(output_size=1)", lone, to("1", "4")),
            one(f"AdaptiveMaxPool{n}d(3)", x, to("3")),
            Case(
                f"AdaptiveMaxPool{n}d(2, return_indices=true)",
                (f"float{x}",),
                (f"float{to('2')}", f"int{to('2')}"),
            ),
        ]
    return [
        *found,
        one("MaxPool2d((3, 2), stride=(2, 1))", IMAGE, "[B, 6, (H - 3) // 2 + 1, W - 1]"),
        one("AvgPool2d(2, divisor_override=3)", IMAGE, "[B, 6, H // 2, W // 2]"),
        one("AdaptiveAvgPool2d((none, 4))", IMAGE, "[B, 6, H, 4]"),
        one("AdaptiveAvgPool2d([2, 3])", PLANE, "[6, 2, 3]"),
        one("AdaptiveMaxPool2d((2, none))", IMAGE, "[B, 6, 2, W]"),
    ]


def _norms() -> list[Case]:
    found = [
        *(one(made, "[B, T, 6]") for made in ("LayerNorm(6)", "LayerNorm(_)", "LayerNorm((6,), eps=1e-3, bias=false)")),
        one("LayerNorm([5, 6], elementwise_affine=false)", "[B, 5, 6]"),
        *(one(made, "[B, T, 6]") for made in ("RMSNorm(6)", "RMSNorm(_, eps=1e-3)", "RMSNorm((6,))")),
        one("RMSNorm((5, 6), elementwise_affine=false)", "[B, 5, 6]"),
        *(
            one(made, IMAGE)
            for made in ("GroupNorm(2, 6)", "GroupNorm(3, _, eps=1e-3)", "GroupNorm(6, 6, affine=false)")
        ),
        one("GroupNorm(num_groups=1, num_channels=6)", "[B, 6]"),
        one("BatchNorm1d(6)", "[B, 6]"),
        one("BatchNorm1d(_, momentum=none)", "[B, 6, L]"),
    ]
    for n, x, lone in (
        (1, "[B, 4, L]", "[4, L]"),
        (2, "[B, 4, H, W]", "[4, H, W]"),
        (3, "[B, 4, T, H, W]", "[4, T, H, W]"),
    ):
        batch = ("4", "_, eps=1e-3", "4, momentum=0.3", "4, affine=false", "4, track_running_stats=false")
        instance = ("4", "_, eps=1e-3", "4, affine=true", "4, track_running_stats=true, momentum=0.2")
        found += [one(f"BatchNorm{n}d({made})", x) for made in batch]
        found += [one(f"InstanceNorm{n}d({made})", x) for made in instance]
        found.append(one(f"InstanceNorm{n}d(4, affine=true)", lone))
    return found


def _recurrent() -> list[Case]:
    found: list[Case] = []
    for name in ("LSTM", "GRU", "RNN"):
        for options, results in (
            ("6, 4", ("[T, B, 4]", "[1, B, 4]")),
            ("_, 4, batch_first=true", ("[T, B, 4]", "[1, T, 4]")),
            ("6, 4, num_layers=2, bias=false, dropout=0.4", ("[T, B, 4]", "[2, B, 4]")),
            ("6, 4, 3, bidirectional=true", ("[T, B, 8]", "[6, B, 4]")),
        ):
            found += _run(f"{name}({options})", "float[T, B, 6]", results)
        found += _run(f"{name}(input_size=6, hidden_size=4)", "float[T, 6]", ("[T, 4]", "[1, 4]"))
    found += _run("LSTM(6, 4, proj_size=2, num_layers=2)", "float[T, B, 6]", ("[T, B, 2]", "[2, B, 2]", "[2, B, 4]"))
    found += _run('RNN(6, 4, nonlinearity="relu")', "float[T, B, 6]", ("[T, B, 4]", "[1, B, 4]"))
    return found


def _run(made: str, x: str, results: tuple[str, ...]) -> list[Case]:
    """A recurrent layer from no state, and from one."""
    output, hidden = results[:2]
    if made.startswith("LSTM"):
        cell = results[-1]
        types = (f"float{output}", f"float{hidden}", f"float{cell}")
        end = "return y, state[0], state[1]"
        return [
            Case(made, (x,), types, body=f"y, state = layer(x)\n        {end}"),
            Case(
                made,
                (x, *types[1:]),
                types,
                body=f"y, state = layer(x, (y, z))\n        {end}",
                call=lambda layer, x, h, c: layer(x, (h, c)),
            ),
        ]
    types = (f"float{output}", f"float{hidden}")
    return [Case(made, (x,), types), Case(made, (x, types[1]), types)]


def _attentions() -> list[Case]:
    x = "float[B, T, 8]"
    first = "batch_first=true"
    weights = "float[B, T, T]"

    def attends(layer: Any, x: Tensor, **options: Any) -> Any:
        return layer(x, x, x, **options)

    found = [
        Case(made, (x,), (x, weights), body="return layer(x, x, x)", call=attends)
        for made in (
            f"MultiheadAttention(8, 2, {first})",
            f"MultiheadAttention(_, 4, {first}, bias=false)",
            f"MultiheadAttention(embed_dim=8, num_heads=2, dropout=0.3, {first})",
        )
    ]
    plain = f"MultiheadAttention(8, 2, {first})"
    return [
        *found,
        Case("MultiheadAttention(8, 2)", ("float[T, B, 8]",) * 3, ("float[T, B, 8]", "float[B, T, T]")),
        Case("MultiheadAttention(8, 2)", ("float[T, 8]",) * 3, ("float[T, 8]", "float[T, T]")),
        Case(
            f"MultiheadAttention(8, 2, kdim=6, vdim=4, {first})",
            (x, "float[B, L, 6]", "float[B, L, 4]"),
            (x, "float[B, T, L]"),
        ),
        Case(
            f"MultiheadAttention(_, 2, kdim=_, vdim=_, {first})",
            (x, "float[B, L, 6]", "float[B, L, 4]"),
            (x, "float[B, T, L]"),
        ),
        Case(
            f"MultiheadAttention(8, 2, add_bias_kv=true, add_zero_attn=true, {first})",
            (x,) * 3,
            (x, "float[B, T, T + 2]"),
        ),
        Case(
            plain,
            (x,),
            (x,),
            body="y, none_here = layer(x, x, x, need_weights=false)\n        return y",
            call=lambda layer, x: layer(x, x, x, need_weights=False)[0],
        ),
        Case(
            plain,
            (x, "bool[T, T]"),
            (x, "float[B, 2, T, T]"),
            body="return layer(x, x, x, attn_mask=y, average_attn_weights=false)",
            call=lambda layer, x, m: layer(x, x, x, attn_mask=m, average_attn_weights=False),
            given={1: torch.ones(5, 5, dtype=torch.bool).triu(1)},
        ),
        Case(
            plain,
            (x, "bool[B, T]"),
            (x, weights),
            body="return layer(x, x, x, key_padding_mask=y)",
            call=lambda layer, x, m: layer(x, x, x, key_padding_mask=m),
            given={1: torch.arange(5).expand(3, 5) > torch.tensor([[4], [2], [3]])},
        ),
        Case(
            plain,
            (x, "float[T, T]"),
            (x, weights),
            body="return layer(x, x, x, attn_mask=y, is_causal=true)",
            call=lambda layer, x, m: layer(x, x, x, attn_mask=m, is_causal=True),
            given={1: torch.full((5, 5), float("-inf")).triu(1)},
        ),
    ]


CASES = [*ELEMENTWISE, *GIVEN, *DENSE, *_convolutions(), *_pools(), *_norms(), *_recurrent(), *_attentions()]
