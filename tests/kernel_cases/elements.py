"""Operations on elements, numbers broadcast to them, random draws."""

from __future__ import annotations

from tests.kernel_cases.module import Family

POINTWISE: Family = {
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

BROADCASTS: Family = {
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

RANDOM: Family = {
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
