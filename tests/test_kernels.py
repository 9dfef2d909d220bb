"""Every fusible operation in a kernel with neighbours, in both directions, against float64 in Triton's interpreter.

A batch is one program of many modules; each module becomes one group (asserted), and each group runs at the sizes, in
the memory layouts and at the precisions of `tdsl verify`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import compiled, disagreements, emitted, graph_of, python, written

UNARY = """abs neg sign exp exp2 expm1 rsqrt(abs(x)+0.5) sqrt(abs(x)+0.5) square sin cos tan tanh erf sigmoid floor ceil
log(abs(x)+0.5) log2(abs(x)+0.5) log10(abs(x)+0.5) log1p(abs(x)) reciprocal(abs(x)+0.5) asin(tanh(x)) acos(tanh(x))
atan sinh cosh round trunc frac""".split()
ACTIVATIONS = """relu relu6 leaky_relu elu selu celu gelu silu mish hardsigmoid hardswish hardtanh softplus softsign
logsigmoid""".split()


def _module(name: str, inputs: str, body: str, result: str = "float[B, D]", params: str = "") -> str:
    declared = "".join(f"    param {p}\n" for p in params.split(";") if p)
    lines = "".join(f"        {line.strip()}\n" for line in body.strip().splitlines())
    return f"module {name}(D: int = 33) {{\n{declared}    forward({inputs}) -> {result} {{\n{lines}    }}\n}}\n\n"


def _call(text: str) -> str:
    return text if "(" in text else f"{text}(x)"


def _numbered(kind: str, texts: list[str]) -> dict[str, str]:
    """Each function between a product and a sum, so that it has neighbours and its gradient two factors."""
    return {
        f"{kind}{i}": _module(f"{kind}{i}", "x: float[B, D], y: float[B, D]", f"return {_call(text)} * y + x")
        for i, text in enumerate(texts)
    }


POINTWISE = {
    "Tower": ("x: float[B, D], y: float[B, D]", "return (x + y) * (x - y) / (abs(y) + 1) - 2 * -x"),
    "Scalars": ("x: float[B, D]", "return (3 - x) / 2 + (1 - x * 0.25) ** 2"),
    "Extrema": ("x: float[B, D], y: float[B, D]", "return maximum(x, y) * minimum(x, 0.5 * y) + maximum(x, x)"),
    "ExtremaOfNumbers": ("x: float[B, D]", "return clamp(x, min=-0.5, max=0.75) * clamp(x, max=0) + clamp(x, 0.25)"),
    "ClampByTensors": ("x: float[B, D], y: float[B, D]", "return clamp(x, min=-abs(y), max=abs(y)) * x"),
    "Powers": ("x: float[B, D]", "return x ** 2 + x ** 3 - x ** 4 + x ** 1 + x ** 5 + x ** 0"),
    "NegativePowers": (
        "x: float[B, D]",
        "h = abs(x) + 0.5\nreturn h ** -1 + h ** -0.5 + h ** 0.5 + h ** -2 + h ** 1.5",
    ),
    "PowerOfTensors": ("x: float[B, D], y: float[B, D]", "return (abs(x) + 0.5) ** y + x"),
    "PowerOfNumber": ("x: float[B, D]", "return 2 ** x + 0.5 ** x"),
    "Where": ("x: float[B, D], y: float[B, D]", "return where(x > y, x * y, y - 1) + where(x <= 0, 0.0, x)"),
    "Comparisons": (
        "x: float[B, D], y: float[B, D]",
        "a = where(x == y, 1.0, x)\nb = where(x != y, y, 2.0)\nreturn a * where(x >= y, b, a) + where(x < y, x, b)",
    ),
    "Logic": (
        "x: float[B, D], y: float[B, D]",
        "both = logical_and(x > 0, y > 0)\neither = logical_or(x > 1, logical_not(y > 0))\n"
        "return where(both, x * y, x) + where(either, y, 0.0)",
    ),
    "LogicWords": (
        "x: float[B, D], y: float[B, D]",
        "return where(logical_not(isnan(x)), x, y) + where(logical_and(isnan(x), y > 0), 1.0, y)",
    ),
    "Mask": ("x: float[B, D], m: bool[B, D]", "return masked_fill(x * 2, m, -1.0) + where(m, x, 0.0)"),
    "MaskOfRow": ("x: float[B, D], m: bool[B, 1]", "return where(m, x * x, 0.5 * x)"),
    "MaskOfColumns": ("x: float[B, D], m: bool[D]", "return where(m, x * x, 0.5 * x)"),
    "NanOnce": ("x: float[B, D], y: float[B, D]", "return where(logical_and(isnan(x), y > 0), 1.0, x * y)", ""),
    "TruthOfNumbers": (
        "x: float[B, D], y: float[B, D]",
        "return where(logical_or(logical_not(relu(x)), logical_and(x, relu(y))), x * y, y)",
        "",
    ),
    "MaskNot": ("x: float[B, D], m: bool[B, D]", "return where(logical_not(m), x * 2, x)"),
    "Integers": ("x: float[B, D], n: int[B, D]", "return x * n + n"),
    "IntegerDivision": ("x: float[B, D], n: int[B, D]", "return x + n / 4 + where(n > 3, x, 0.0)"),
    "IntegerRemainders": (
        "x: float[B, D], n: int[B, D]",
        'return x * ((n - 4) % 3) + (n - 4) // 3 + fmod(n - 4, 3) * x + div(n - 4, 3, rounding_mode="trunc")',
    ),
    "IntegerFunctions": ("x: float[B, D], n: int[B, D]", "return sqrt(n) * x + floor(n) + sign(n - 4) * x + n ** 2"),
    "TruthArithmetic": (
        "x: float[B, D], m: bool[B, D]",
        "return x * (m + m) + where(m * (x > 0), x, 0.5) + (m ** 2 + square(m)) * x",
    ),
    "Remainders": (
        "x: float[B, D], y: float[B, D]",
        "return fmod(x, abs(y) + 0.5) * y + x % 0.7 + x % -(abs(y) + 0.5) * x",
    ),
    "FloorDivision": (
        "x: float[B, D], y: float[B, D]",
        'return x // (abs(y) + 0.5) * y + div(x, abs(y) + 0.5, rounding_mode="trunc") * x + div(x, 2) // -0.3',
    ),
    "Angles": ("x: float[B, D], y: float[B, D]", "return atan2(x, y) * y + atan2(y, x)"),
    "Decimals": ("x: float[B, D], y: float[B, D]", "return round(x, decimals=2) * y + round(y, decimals=-1) * x"),
    "Infinite": (
        "x: float[B, D], y: float[B, D]",
        "return where(isinf(x), 1.0, x * y) + where(isfinite(y), y, 0.0) * x",
    ),
    "Alphas": ("x: float[B, D], y: float[B, D]", "return add(x, y, alpha=2) * sub(x, y, alpha=0.5)"),
    "Threshold": ("x: float[B, D], y: float[B, D]", "return threshold(x, 0.2, -3.0) * y + x"),
    "LargePowers": ("x: float[B, D], y: float[B, D]", "return (abs(x) * 50 + 1) ** (y * 3) + pow(x, 3.0)"),
    "Lerp": ("x: float[B, D], y: float[B, D]", "return lerp(x, y, 0.3) * lerp(y, x, sigmoid(y))"),
    "Detached": ("x: float[B, D]", "h = x * x\nreturn h * x + h"),
    "Twice": ("x: float[B, D]", "h = exp(x)\nreturn h * h + h / (1 + h)"),
    "GeluTanh": ("x: float[B, D]", 'return gelu(x, approximate="tanh") * x'),
    "ReadAgain": ("x: float[B, D], y: float[B, D]", "return tanh(x + y)"),
    "Arguments": (
        "x: float[B, D]",
        "return leaky_relu(x, 0.2) + elu(x, alpha=0.7) * celu(x, 1.5) + softplus(x, beta=2.0) + hardtanh(x, -0.5, 0.3)",
    ),
    "NestedNegation": (
        "x: float[B, D], y: float[B, D]",
        "return -(-x - -y) * -(x * -y) - (x - (y - x)) / (x / (abs(y) + 1) - 9)",
    ),
}

BROADCASTS = {
    "Bias": ("x: float[B, D]", "return gelu(x + bias)", "bias: [D] = zeros()"),
    "ScaleAndShift": ("x: float[B, D]", "return x * weight + bias", "weight: [D] = ones();bias: [D] = zeros()"),
    "RowScale": ("x: float[B, D], s: float[B, 1]", "return tanh(x * s) + s", ""),
    "ScalarScale": ("x: float[B, D]", "return tanh(x * scale) + scale", "scale: [] = ones()"),
    "OneScale": ("x: float[B, D]", "return tanh(x * scale) + x", "scale: [1] = ones()"),
    "OuterSum": ("x: float[B, 1]", "return tanh(x + weight) * weight", "weight: [D] = ones()"),
    "RowAndColumn": ("x: float[B, D], s: float[B, 1]", "return (x * weight + s) * s", "weight: [D] = ones()"),
    "VectorSquared": ("x: float[B, D]", "return x * weight ** 2 + exp(weight)", "weight: [D] = ones()"),
    "VectorTwice": ("x: float[B, D]", "return sigmoid(x * weight) * (x + weight)", "weight: [1, D] = ones()"),
    "SumOfRowScalar": ("x: float[B, D], s: float[B, 1]", "return x * s * s / (1 + s * s)", ""),
    "Rank1": ("x: float[B]", "return gelu(x) * x", "", "float[B]"),
    "Rank1Bias": ("x: float[D]", "return gelu(x) * x + bias", "bias: [D] = ones()", "float[D]"),
    "Rank4": ("x: float[B, 2, T, D]", "return gelu(x + bias) * x", "bias: [D] = zeros()", "float[B, 2, T, D]"),
    "Rank4Heads": ("x: float[B, 2, T, D]", "return gelu(x * bias)", "bias: [2, 1, D] = ones()", "float[B, 2, T, D]"),
    "Channels": (
        "x: float[B, D, T]",
        "return relu(x * scale + shift)",
        "scale: [D, 1] = ones();shift: [D, 1] = ones()",
        "float[B, D, T]",
    ),
    "Mask": ("m: bool[B, D]", "return where(m, 2, scale) + scale", "scale: [1] = ones()"),
    "Partial": ("x: float[B, T, D], m: float[B, 1, D]", "return tanh(x * m) + m", "", "float[B, T, D]"),
    "Positions": ("x: float[B, T, D], p: float[T, D]", "return tanh(x + p) * p", "", "float[B, T, D]"),
    "RowOfThree": ("x: float[B, T, D], s: float[B, T, 1]", "return tanh(x * s) + s", "", "float[B, T, D]"),
    "OverTheFirst": ("x: float[B, T, D], s: float[B, 1, 1]", "return tanh(x * s) + s", "", "float[B, T, D]"),
    "Leading": ("x: float[..., D]", "return gelu(x * weight)", "weight: [D] = ones()", "float[..., D]"),
}

ROWS = {
    "RMSNorm": (
        "x: float[..., D]",
        "return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + 0.000001) * weight",
        "weight: [D] = ones()",
        "float[..., D]",
    ),
    "LayerNormByHand": (
        "x: float[..., D]",
        "c = x - mean(x, dim=-1, keepdim=true)\nv = mean(c * c, dim=-1, keepdim=true)\n"
        "return c * rsqrt(v + 0.00001) * weight + bias",
        "weight: [D] = ones();bias: [D] = zeros()",
        "float[..., D]",
    ),
    "AddRMSNorm": (
        "x: float[B, D], a: float[B, D]",
        "h = x + a\nreturn h, h * rsqrt(mean(h ** 2, dim=-1, keepdim=true) + 0.000001) * weight",
        "weight: [D] = ones()",
        "(float[B, D], float[B, D])",
    ),
    "AddLayerNorm": (
        "x: float[B, T, D], a: float[B, T, D]",
        "h = x + gelu(a)\nreturn h, layer_norm(h, D, weight, bias)",
        "weight: [D] = ones();bias: [D] = zeros()",
        "(float[B, T, D], float[B, T, D])",
    ),
    "NamedRMSNorm": ("x: float[B, D]", "return rms_norm(x * 2, D, weight, eps=0.00001) * x", "weight: [D] = ones()"),
    # What its backward reads again is rounded: of a row of one column nothing is left, but for that.
    "NormOfSum": (
        "x: float[B, D], a: float[B, D]",
        "h = x + a\nreturn h, layer_norm(h, D, weight, bias)",
        "weight: [D] = ones(); bias: [D] = zeros()",
        "(float[B, D], float[B, D])",
    ),
    "NormWithoutWeight": ("x: float[B, D]", "return layer_norm(x, D) * x", ""),
    "SoftmaxByHand": (
        "x: float[B, D]",
        "e = exp(x - amax(x, dim=-1, keepdim=true))\nreturn e / sum(e, dim=-1, keepdim=true)",
        "",
    ),
    "SoftmaxTimes": ("x: float[B, D], y: float[B, D]", "return softmax(x * 0.5, dim=-1) * y", ""),
    "LogSoftmaxTimes": ("x: float[B, D], y: float[B, D]", "return log_softmax(x, dim=-1) * y", ""),
    "MaskedSoftmax": (
        "x: float[B, T, D], m: bool[T, D]",
        "return softmax(masked_fill(x, m, -10.0), dim=-1)",
        "",
        "float[B, T, D]",
    ),
    "LogSumExp": ("x: float[B, D]", "return x - logsumexp(x, dim=-1, keepdim=true)", ""),
    "LogSumExpAlone": ("x: float[B, D]", "return logsumexp(x * 2, dim=-1)", "", "float[B]"),
    "Entropy": ("x: float[B, D]", "p = softmax(x, dim=-1)\nreturn -sum(p * log(p + 0.001), dim=-1)", "", "float[B]"),
    "Standardise": (
        "x: float[B, D], y: float[B, D]",
        "return (x - mean(x, dim=-1, keepdim=true)) / (std(x, dim=-1, keepdim=true, correction=0) + 0.5) * y",
        "",
    ),
    "Variance": ("x: float[B, D]", "return var(x * x, dim=-1, correction=0) * 2", "", "float[B]"),
    "Norm1": ("x: float[B, D]", "return x / (norm(x, p=1, dim=-1, keepdim=true) + 1)", ""),
    "Norm2": ("x: float[B, D]", "return x / clamp(norm(x, dim=-1, keepdim=true), min=0.000001)", ""),
    "Norm3": ("x: float[B, D]", "return x / (norm(x, p=3, dim=-1, keepdim=true) + 1)", ""),
    "NormInf": ("x: float[B, D]", "return x / (norm(x, p=inf, dim=-1, keepdim=true) + 1)", ""),
    "NormLeast": ("x: float[B, D]", "return x / (norm(x, p=-inf, dim=-1, keepdim=true) + 1)", ""),
    "Norm0": ("x: float[B, D]", "return x / (norm(relu(x), p=0, dim=-1, keepdim=true) + 1)", ""),
    "VarianceOfAPart": ("x: float[B, D]", "return x / (var(x, dim=-1, keepdim=true, correction=-0.5) + 1)", ""),
    "BiasedDeviation": ("x: float[B, D]", "return x / (x.std(-1, false, true) + 1)", ""),
    "Extremes": ("x: float[B, D]", "return amax(x, dim=-1) - amin(x * 2, dim=-1)", "", "float[B]"),
    "Dot": ("x: float[B, D], y: float[B, D]", "return sum(x * y, dim=-1)", "", "float[B]"),
    "Cosine": (
        "x: float[B, D], y: float[B, D]",
        "return sum(x * y, dim=-1) / (norm(x, dim=-1) * norm(y, dim=-1) + 0.1)",
        "",
        "float[B]",
    ),
    "TwoReductions": ("x: float[B, D]", "return sum(x * x, dim=-1), mean(exp(x), dim=-1)", "", "(float[B], float[B])"),
    "RowsAndMore": (
        "x: float[B, D], s: float[B]",
        "return mean(x * weight, dim=-1) * s + s",
        "weight: [D] = ones()",
        "float[B]",
    ),
    "TwoTrailing": ("x: float[B, T, D]", "return sum(x * x, dim=(1, 2)) / 2", "", "float[B]"),
    "TwoTrailingNorm": (
        "x: float[B, 3, D]",
        "return (x - mean(x, dim=(1, 2), keepdim=true)) * weight",
        "weight: [3, D] = ones()",
        "float[B, 3, D]",
    ),
    "NormOfIntegers": ("x: float[B, D], n: int[B, D]", "return sum(x * n, dim=-1) / 2", "", "float[B]"),
    "PartialRows": ("x: float[B, T, D], m: float[B, 1, D]", "return softmax(x * m, dim=-1) + m", "", "float[B, T, D]"),
    "GatedNorm": (
        "x: float[B, D], g: float[B, D]",
        "return rms_norm(x * silu(g), D, weight, eps=0.001) + g",
        "weight: [D] = ones()",
    ),
    "OneMoreThanTheWeight": (
        "x: float[..., D]",
        "return x * rsqrt(mean(x ** 2, -1, true) + 0.00001) * (1 + weight) + exp(bias) * weight",
        "weight: [D] = ones();bias: [D] = zeros()",
        "float[..., D]",
    ),
    "MeanOfVector": (
        "x: float[B, D]",
        "return x * weight - mean(x * weight, dim=-1, keepdim=true)",
        "weight: [D] = ones()",
    ),
    "RowNumberFirst": (
        "a: float[B, 1], x: float[B, D]",
        "b = 2 * a\nreturn atan2(b, norm(x, dim=-1, keepdim=true))",
        "",
        "float[B, 1]",
    ),
    "MeanKeptAndNot": (
        "x: float[B, D]",
        "h = tanh(x) * x\nm = mean(h, dim=1)\nk = mean(h, dim=-1, keepdim=true)\nreturn softmax(h, dim=-1) * k, m, k",
        "",
        "(float[B, D], float[B], float[B, 1])",
    ),
    "ScalarInRows": ("x: float[B, D]", "return softmax(x * scale, dim=-1) * scale", "scale: [] = ones()"),
}

# Sums that run over more than a row: of all elements, of the first dimensions, of rows' own results.
SUMS = {
    "MeanOfAll": ("x: float[B, D], y: float[B, D]", "return ((x - y) ** 2).mean()", "", "float[]"),
    "SumOfAll": ("x: float[B, T, D]", "return (x * sigmoid(x)).sum()", "", "float[]"),
    "SumOfWhatIsNotZero": ("x: float[B, D], y: float[B, D]", "return exp(x * 0.1 + cos(y)).sum()", "", "float[]"),
    "SumOfAllKept": ("x: float[B, D]", "return (x * x).sum(dim=(0, 1), keepdim=true)", "", "float[1, 1]"),
    "MeanOfColumns": ("x: float[B, D]", "return (x * x).mean(0)", "", "float[D]"),
    "SumOfColumnsKept": ("x: float[B, T, D]", "return tanh(x * 2).sum(dim=(0, 1), keepdim=true)", "", "float[1, 1, D]"),
    "SumOfTwoColumns": ("x: float[B, T, D]", "return (x * x).sum(0)", "", "float[T, D]"),
    "SeveralSums": (
        "x: float[B, D], y: float[B, D]",
        "d = (x - y) ** 2\nreturn d.mean(), (d * x).sum(0), exp(-d) * x",
        "",
        "(float[], float[D], float[B, D])",
    ),
    "WeightedMean": (
        "x: float[B, D]",
        "return (x * weight + bias).mean()",
        "weight: [D] = ones();bias: [] = ones()",
        "float[]",
    ),
    "MeanOfRows": ("x: float[B, D]", "return (logsumexp(x, -1) - x.mean(-1)).mean()", "", "float[]"),
    "MeanOfThreeRows": ("x: float[B, T, D]", "return (x * softmax(x, -1)).sum(-1).mean()", "", "float[]"),
    "NormAndMean": (
        "x: float[B, D]",
        "y = rms_norm(x, D, weight)\nreturn y, (y * y).mean(), y.sum(0)",
        "weight: [D] = ones()",
        "(float[B, D], float[], float[D])",
    ),
    "Divergence": (
        "mu: float[B, D], lv: float[B, D]",
        "return (-0.5 * (1 + lv - mu ** 2 - exp(lv)).sum(-1)).mean()",
        "",
        "float[]",
    ),
    "ScaleAndMean": ("x: float[B, D]", "return (x * scale).mean()", "scale: [] = ones()", "float[]"),
}

# What lacks some of the rows' or columns' dimensions is read by index arithmetic.
PARTS = {
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
PIECES = {
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

# A number of each row by its index, running sums, conversions.
PICKS = {
    "LogLikelihood": (
        "x: float[B, 9], label: int[B, 1]",
        "return (-log_softmax(x, -1).gather(-1, label)).mean()",
        "",
        "float[]",
    ),
    "PickAndMore": ("x: float[B, 9], n: int[B, 1]", "return x * x.gather(1, n) + sigmoid(x)", "", "float[B, 9]"),
    "PickOfThree": (
        "x: float[B, T, 9], n: int[B, T, 1]",
        "return (x * 2).gather(2, n) + x.sum(-1, true)",
        "",
        "float[B, T, 1]",
    ),
    "RunningSum": ("x: float[B, D]", "return tanh(x).cumsum(-1) * x", "", "float[B, D]"),
    "RunningSumOfThree": (
        "x: float[B, T, 17]",
        "y = cumsum(x * x, 2)\nreturn y / (1 + y.amax(-1, true))",
        "",
        "float[B, T, 17]",
    ),
    "RunningLogits": ("x: float[B, 17]", "return softmax(x, -1).cumsum(-1).mean(0)", "", "float[17]"),
    "Counted": (
        "x: float[B, D], m: bool[B, D]",
        "return (x * m.float()).sum(-1) / (m.float().sum(-1) + 1)",
        "",
        "float[B]",
    ),
    "Converted": (
        "x: float[B, D], n: int[B, D]",
        "return x * n.float() + (x * 3).long() * x + n.bool().float() * cast(x > 0, float) + x.float() * cast(n, bool)",
        "",
        "float[B, D]",
    ),
}

# Dimensions in another order, the last one in its place.
MOVED = {
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

RANDOM = {
    "Dropout": ("x: float[B, D]", "return dropout(gelu(x), 0.3) * x", ""),
    "DropoutTwice": ("x: float[B, D]", "return dropout(dropout(x, 0.2) * 2, 0.4) + x", ""),
    "Reparametrise": ("mu: float[B, D], lv: float[B, D]", "return mu + exp(0.5 * lv) * randn_like(mu)", ""),
    "Uniform": ("x: float[B, D]", "return x * rand_like(x) + rand_like(x)", ""),
    "DropoutNorm": (
        "x: float[B, D], a: float[B, D]",
        "h = x + dropout(a, 0.25)\nreturn h, rms_norm(h, D, weight)",
        "weight: [D] = ones()",
        "(float[B, D], float[B, D])",
    ),
    "SoftmaxDropout": ("x: float[B, T, D]", "return dropout(softmax(x, dim=-1), 0.5)", "", "float[B, T, D]"),
}


def _family(family: dict[str, tuple[str, ...]]) -> dict[str, str]:
    found = {}
    for name, (inputs, body, *rest) in family.items():
        params, result = (*rest, "")[0], rest[1] if len(rest) > 1 else "float[B, D]"
        found[name] = _module(name, inputs, body, result, params)
    return found


BATCHES = {
    "unary": _numbered("Unary", UNARY),
    "activations": _numbered("Activation", ACTIVATIONS),
    "pointwise": _family(POINTWISE),
    "broadcasts": _family(BROADCASTS),
    "rows": _family(ROWS),
    "sums": _family(SUMS),
    "parts": _family(PARTS),
    "pieces": _family(PIECES),
    "picks": _family(PICKS),
    "moved": _family(MOVED),
    "random": _family(RANDOM),
}


# What is computed from a number a row alone is no part of a group without reductions; nor do two results share a kernel
# where neither is made from the other.
SPLIT = {"SumOfRowScalar", "TwoReductions"}


@pytest.mark.parametrize("batch", BATCHES)
def test_kernels_agree_with_float64(batch: str, tmp_path: Path) -> None:
    unit = compiled("".join(BATCHES[batch].values()))
    split = [name for name in BATCHES[batch] if len(graph_of(unit, name).nodes) != 1]
    assert set(split) <= SPLIT, "not one group"
    folder = written(emitted(unit), tmp_path)
    formatted = python("-m", "ruff", "format", "--check", "--no-cache", "--isolated", "--line-length=120", folder)
    assert formatted.returncode == 0, formatted.stdout[-3000:]
    told = disagreements(folder)
    assert not told, f"{len(told)} cases:\n" + "\n".join(told[:20])


def test_truth_values_of_single_numbers_are_of_blocks() -> None:
    """Whatever they are made by: Triton's interpreter makes numbers of others that it broadcasts."""
    inputs = "w: float[1, D], f: float[1, D]"
    text = emitted(
        compiled(
            f"module M(D: int = 1) {{\n    forward({inputs}) -> bool[1, D] {{\n        v = w * f + tanh(f)\n"
            "        return logical_and(v > 0, w > 0.5)\n    }\n}\n"
        )
    )["kernels.py"]
    loads = [line for line in text.splitlines() if "tl.load(" in line]
    assert len(loads) == 2
    assert all("+ tl.zeros(" in line or "offsets" in line for line in loads), loads
