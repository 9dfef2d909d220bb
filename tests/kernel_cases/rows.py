"""Operations on rows: norms, sums over more than a row, what is looked up or added up along one."""

from __future__ import annotations

from tests.kernel_cases.module import Family

ROWS: Family = {
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
SUMS: Family = {
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

# A number of each row by its index, running sums, conversions.
PICKS: Family = {
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
