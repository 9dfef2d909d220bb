"""Operands that lie elsewhere than results: broadcast in part, cut in pieces, in another order."""

from __future__ import annotations

from tests.kernel_cases.module import Family

# What lacks some of the rows' or columns' dimensions is read by index arithmetic.
PARTS: Family = {
    "ChannelsOfImages": (
        "x: float[B, D, T, 3]",
        "return relu(x * scale + shift) + x",
        "scale: [D, 1, 1] = ones();shift: [D, 1, 1] = ones()",
        "float[B, D, T, 3]",
    ),
    "MiddleAndLast": ("x: float[B, T, D], m: float[B, 1, D]", "return tanh(x * m) + m", "", "float[B, T, D]"),
    "FirstAndThird": ("x: float[B, 2, T, D], m: float[B, 1, T, 1]", "return tanh(x * m) + m", "", "float[B, 2, T, D]"),
    "SecondAndLast": (
        "x: float[B, 2, T, D], m: float[2, 1, D], n: float[T, 1]",
        "return tanh(x * m) * n + m",
        "",
        "float[B, 2, T, D]",
    ),
    "PartOfRows": ("x: float[B, T, D], m: float[B, 1, 1]", "return softmax(x * m, -1) + m", "", "float[B, T, D]"),
    "PartOfColumns": (
        "x: float[B, T, D]",
        "return layer_norm(x * gain, [T, D])",
        "gain: [1, D] = ones()",
        "float[B, T, D]",
    ),
    "RowsDropped": ("x: float[B, T, D], s: float[T]", "return mean(x * x, -1) * s + s", "", "float[B, T]"),
    "TwoScales": (
        "x: float[B, D, T]",
        "return x * scale + gelu(x) * late",
        "scale: [D, 1] = ones();late: [1, 1] = ones()",
        "float[B, D, T]",
    ),
}

# Groups that cut what they are given: pieces side by side, one piece, pieces with the same gradient.
PIECES: Family = {
    "Gated": ("h: float[..., 66]", "a, b = h.chunk(2, dim=-1)\nreturn silu(a) * b", "", "float[..., 33]"),
    "GatedChannels": (
        "h: float[B, 4, T, D]",
        "a, b = h.split([2, 2], 1)\nreturn a * sigmoid(b) + a",
        "",
        "float[B, 2, T, D]",
    ),
    "ThreePieces": (
        "h: float[B, 21], s: float[B, 1]",
        "a, b, c = h.chunk(3, -1)\nreturn softmax(a * s, -1) * b - c * weight",
        "weight: [7] = ones()",
        "float[B, 7]",
    ),
    "OneOfThree": ("h: float[B, 21]", "a, b, c = h.chunk(3, -1)\nreturn tanh(b) * b", "", "float[B, 7]"),
    "SameGradient": ("h: float[B, 12], y: float[B, 6]", "a, b = h.chunk(2, -1)\nreturn a + b + y", "", "float[B, 6]"),
    "FirstStep": ("h: float[B, 5, D], y: float[B, D]", "return tanh(h[:, 0] * y) + y", "", "float[B, D]"),
    "AllButOne": ("h: float[B, 5, D]", "a = h[:, 1:]\nreturn a * a + sin(a)", "", "float[B, 4, D]"),
    "PiecesAndMean": (
        "h: float[B, 12]",
        "m, v = h.chunk(2, -1)\nreturn (m * m + exp(v) - v).sum(-1).mean()",
        "",
        "float[]",
    ),
    "PiecesOfLongRows": ("h: float[B, 4100]", "a, b = h.chunk(2, -1)\nreturn softmax(a, -1) * b", "", "float[B, 2050]"),
    "UnboundPairs": ("h: float[B, 2, D]", "a, b = h.unbind(1)\nreturn a * cos(b)", "", "float[B, D]"),
}

# Dimensions in another order, the last one in its place.
MOVED: Family = {
    "HeadsNorm": (
        "x: float[B, T, 2, D]",
        "q = x.transpose(1, 2)\nreturn q * rsqrt(mean(q * q, -1, true) + 0.00001) * weight",
        "weight: [D] = ones()",
        "float[B, 2, T, D]",
    ),
    "MovedAndNot": (
        "x: float[B, T, D], y: float[T, B, D]",
        "return tanh(x.transpose(0, 1)) * y + y",
        "",
        "float[T, B, D]",
    ),
    "Permuted": (
        "x: float[B, T, 2, D], y: float[2, 1, 1, D]",
        "return gelu(x.permute(2, 0, 1, 3)) * y",
        "",
        "float[2, B, T, D]",
    ),
    "MovedDim": (
        "x: float[B, 3, T, 2, D]",
        "return x.movedim(1, 2) * 2 + sin(x.movedim(1, 2))",
        "",
        "float[B, T, 3, 2, D]",
    ),
    "MovedMean": (
        "x: float[B, T, D], y: float[T, B, D]",
        "return ((x.transpose(0, 1) - y) ** 2).mean()",
        "",
        "float[]",
    ),
}
