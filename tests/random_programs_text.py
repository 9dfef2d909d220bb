"""What random programs are written of: templates by kind, with `{0}`, `{1}`, `{2}` for operands and `{name}` for the result.

`SMOOTH` functions have no corners: what rounding changes of their arguments changes their results and gradients little.
The length of a row and its deviation have one at 0, which a low precision reaches.
"""

from __future__ import annotations

LIBRARY = """fn mix(a: float[..., D], b: float[..., D]) -> float[..., D] {
    return a * sigmoid(b) + 0.5
}

fn centred(x: float[..., D]) -> float[..., D] {
    return x - mean(x, dim=-1, keepdim=true)
}

fn scaled(x: float[..., D]) -> float[..., D] {
    c = centred(x)
    return c * rsqrt(mean(c ** 2, dim=-1, keepdim=true) + 0.01)
}

fn parted(x: float[..., D]) -> (float[..., D], float[..., 1]) {
    top = logsumexp(x, dim=-1, keepdim=true)
    return mix(scaled(x), x), top / 4
}

module Norm(dim: int) {
    param weight: [dim] = ones()
    forward(x: float[..., dim]) -> float[..., dim] {
        return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + 0.01) * weight
    }
}

module Gate(dim: int) {
    norm = Norm(dim)
    up   = Linear(dim, dim)
    forward(x: float[..., dim]) -> float[..., dim] {
        h = norm(x)
        return x + h * sigmoid(up(h))
    }
}

module Shift(dim: int, gated: bool = true) {
    param by: [dim] = zeros()
    param rate: [] = ones()
    forward(x: float[..., dim]) -> float[..., dim] {
        if gated {
            h = silu(x + by) * rate
        } else {
            h = x * rate + by
        }
        return h if training else 0.9 * h
    }
}

module Nest(dim: int) {
    shifts = [Shift(dim), Shift(dim, gated=false)]
    gates  = [Gate(dim) for i in range(2)]
    last   = Norm(dim)
    forward(x: float[..., dim]) -> float[..., dim] {
        h = x |> shifts
        for gate in gates {
            h = gate(h) * 0.5 + tanh(x)
        }
        return last(h)
    }
}

"""

# Members that a program has where it uses them.
LAYERS = {
    "lin": "Linear(D, D)",
    "unit": "Norm(D)",
    "gate": "Gate(D)",
    "layer": "LayerNorm(D)",
    "rms": "RMSNorm(D)",
    "nest": "Nest(D)",
    "shift": "Shift(D, gated=false)",
    "drop": "Dropout(0.25)",
    "gates": "[Gate(D) for i in range(2)]",
    "units": "[Norm(D), Shift(D), Norm(D)]",
}

SMOOTH_UNARY = """tanh({0})|sigmoid({0})|gelu({0})|silu({0})|-{0}|exp(-{0} ** 2)|log({0} ** 2 + 1)|sqrt({0} ** 2 + 1)
rsqrt({0} * {0} + 1)|softplus({0})|sin({0})|cos({0})|erf({0})|{0} / 2 + 1|3 - {0}|0.5 * {0}|{0} ** 2 / 4|mish({0})
reciprocal({0} ** 2 + 1)|log1p({0} ** 2)|expm1(tanh({0}))|square({0}) * 0.1|atan({0})|sinh(tanh({0}))|cosh(tanh({0}))
tan(tanh({0}) * 0.9)|asin(tanh({0}) * 0.9)|acos(tanh({0}) * 0.9)|exp2(tanh({0}))|log2({0} ** 2 + 1)|logsigmoid({0})
log10({0} ** 2 + 1)|softsign({0})|gelu({0}, approximate="tanh")|{0} * 1 + 0|{0} * 0 + tanh({0})|0 - {0}|{0} * K / 2
tanh({0}) ** 3|({0} ** 2 + 1) ** -0.5|2 ** tanh({0})|1 / ({0} ** 2 + 2)|detach({0}) * {0} / 2|{0} + detach(sin({0}))"""

ROUGH_UNARY = """relu({0})|exp(-abs({0}))|sqrt(abs({0}) + 1)|elu({0})|abs({0})|clamp({0}, -0.8, 0.9)|clamp({0}, min=0.1)
leaky_relu({0}, 0.1)|hardtanh({0})|hardswish({0})|reciprocal(abs({0}) + 1)|where({0} > 0, {0}, 0.5)|log1p(abs({0}))
masked_fill({0}, {0} < -0.5, 0.25)|relu6({0})|selu({0})|celu({0}, 1.5)|hardsigmoid({0})|threshold({0}, 0.2, -0.3)
frac({0})|floor({0} * 1.7) / 4|ceil({0} * 1.3) / 4 + {0}|round({0} * 2) * 0.3|trunc({0} * 1.9) + {0}|sign({0}) * {0}
fmod({0}, 0.7)|{0} % 0.9|{0} // 0.6 * 0.2 + {0}|clamp({0}, max=0.3)|round({0}, decimals=1) * {0}|{0} - relu({0} - 1)
where({0} <= 0.3, sin({0}), 1)|where(isfinite({0}), {0}, 0.0)|masked_fill({0} * 2, isnan({0}), 1.0)"""

SMOOTH_BINARY = """{0} + {1}|{0} - {1}|{0} * {1}|{0} / ({1} ** 2 + 1)|{1} - {0}|{0} * tanh({1})|({0} ** 2 + 1) ** tanh({1})
{0} * sigmoid({1}) + {1} / 3|lerp({0} + {1}, {0} - {1}, 0.3)|atan2({0}, {1} ** 2 + 1)|add({0}, {1}, alpha=0.5)
sub({0}, {1}, alpha=2) / 2|tanh({0}) / ({1} * {1} + 0.5)|({0} + {1}) * ({0} - {1}) / 4|tanh({0}) + exp(-{1} ** 2)"""

ROUGH_BINARY = """{0} / (abs({1}) + 1)|maximum({0}, {1})|minimum({0}, {1})|where({0} > {1}, {0}, {1} * 0.5)
where({1} < 0.2, {0}, -{0})|(abs({0}) + 1) ** tanh({1})|where(logical_and({0} > 0, {1} > 0), {0} + {1}, {0} - {1})
fmod({0}, abs({1}) + 0.5)|{0} % (abs({1}) + 0.6)|maximum({0}, {0}) + {1}|where(logical_or({0} > 1, {1} < 0), {0}, {1})
where({0} != {1}, {1} / 2, {0})|maximum(relu({0}), relu({1}))|clamp({0} + {1}, -1, 1)"""

# Over the last dimension of any size.
SMOOTH_ROWS = """softmax({0}, dim=-1)|log_softmax({0}, dim=-1) / 4|softmax({0} * 2, dim=-1) * {0}
{0} - logsumexp({0}, dim=-1, keepdim=true)
softmax({0}, dim=-1) - softmax(-{0}, dim=-1)|{0} * softmax({0} - mean({0}, dim=-1, keepdim=true), dim=-1)"""
ROUGH_ROWS = """{0} - amax({0}, dim=-1, keepdim=true)|{0} / (norm({0}, dim=-1, keepdim=true) + 0.5)
({0} - mean({0}, dim=-1, keepdim=true)) / (std({0}, dim=-1, keepdim=true, correction=0) + 0.5)
{0} - amin({0}, dim=-1, keepdim=true)
{0} / (norm({0}, p=inf, dim=-1, keepdim=true) + 1)|softmax(masked_fill({0}, {0} < -0.2, -10.0), dim=-1)
where({0} >= mean({0}, dim=-1, keepdim=true), {0}, 0.0)|exp({0} - amax({0}, dim=-1, keepdim=true))"""
# Pieces of a tensor, side by side, and one of them.
PIECES = """{name}_a, {name}_b = cat([{0}, sin({0})], dim=-1).chunk(2, dim=-1)
{name} = {name}_a * sigmoid({name}_b) + {name}_b / 2"""
PIECE = """{name}_p = (cat([cos({0}), {0}], dim=-1) * 2)[..., D:]
{name} = tanh({name}_p) + {name}_p"""
# Over a last dimension of D.
NORMS = """centred({0})|scaled({0})|layer_norm({0}, D)|rms_norm({0}, D, eps=0.01)|layer_norm({0} * 2, D) + {0}
rms_norm({0}, D, eps=0.1) * silu({0})"""

# `{d}` is the dimension or dimensions, `{k}` what keeps them.
SMOOTH_REDUCTIONS = """sum({0}, dim={d}{k}) / 4|mean({0}, dim={d}{k})|logsumexp({0}, dim={d}{k})
var({0}, dim={d}{k}, correction=0)|mean({0} * {0}, dim={d}{k})|sum(tanh({0}), dim={d}{k}) / 3
mean(sin({0}), dim={d}{k})"""
ROUGH_REDUCTIONS = """amax({0}, dim={d}{k})|std({0}, dim={d}{k}, correction=-1)|norm({0} + 2, dim={d}{k}) / 4
amin({0}, dim={d}{k})|norm({0}, p=1, dim={d}{k}) / 4|norm({0}, dim={d}{k}) / 2
norm({0}, p=inf, dim={d}{k})|amax({0}, dim={d}{k}) - amin({0}, dim={d}{k})|mean(where({0} > 0, {0}, 0.5), dim={d}{k})"""

# A sum that comes back to what it was made of, by one way through a kernel and by another around it.
FEEDBACKS = """{name}_s = mean({0}, dim=0, keepdim=true)
{name} = ({0} - {name}_s) * sigmoid({name}_s)
---
{name}_s = mean({0}, dim=-1, keepdim=true)
{name}_t = mean({0} * {name}_s, dim=0, keepdim=true)
{name} = softmax({0} + {name}_t, dim=-1) * {name}_s
---
{name}_h = tanh({0})
{name}_s = sum({name}_h, dim=0, keepdim=true) / 3
{name}_r = sigmoid({name}_h) - mean({name}_h, dim=-1, keepdim=true)
{name} = {name}_h * {name}_s + {name}_r
---
{name}_h = {0} * 0.5 + 1
{name}_g = sin(mean({name}_h, dim=0, keepdim=true)) + 0.1
{name} = {name}_h / ({name}_g * {name}_g + 1) + tanh({name}_h)
---
{name}_a = sigmoid({0})
{name}_f = flip({name}_a, [0])
{name} = {name}_a * {name}_f + tanh({name}_f)""".split("\n---\n")
# Through a layer, for a last dimension of D.
THROUGH = """{name}_h = tanh({0})
{name} = {name}_h + lin({name}_h * {0})
---
{name}_n = scaled({0})
{name}_u = lin({name}_n)
{name} = {0} + silu({name}_u) * {name}_n
---
{name}_a, {name}_b = parted({0})
{name} = {name}_a * {name}_b
---
{name} = {0}
for gate in gates {
    {name} = gate({name}) / 2
}
---
{name} = {0} |> units
---
{name} = units[1]({0}) + units[0]({0})
---
{name}_a, {name}_b = chunk(cat([{0}, lin({0})], dim=-1), 2, dim=-1)
{name} = {name}_a * sigmoid({name}_b)""".split("\n---\n")
CALLS = ["lin({0})", "unit({0})", "gate({0})", "layer({0})", "rms({0})", "shift({0})", "nest({0})", "mix({0}, {0})"]

RANDOM = ["dropout({0}, 0.3)", "dropout({0} * 2, 0.5) + {0}", "{0} * rand_like({0})", "{0} + 0.1 * randn_like({0})",
          "drop({0})", "dropout(dropout({0}, 0.2) * 2, 0.4)", "dropout({0}, 0.3) * dropout({0}, 0.3)"]  # fmt: skip

# To truth values, from tensors of the kinds named (f: float, i: int, m: bool); the others likewise.
MASKS = {
    "f": "{0} > 0|{0} <= 0.3|isfinite({0})|{0} * {0} < 1",
    "ff": "{0} > {1}|{0} <= {1} + 0.2|logical_and({0} > 0, {1} > -0.5)",
    "i": "{0} > 1|{0} == 0|{0} % 2 == 1|{0} != 3",
    "ii": "{0} == {1}|{0} < {1}|logical_or({0} > 1, {1} < 0)",
    "m": "logical_not({0})",
    "mm": "logical_and({0}, {1})|logical_or({0}, logical_not({1}))|{0} == {1}",
}
INTEGERS = {
    "i": "{0} + 1|{0} % 3|{0} // 2|abs({0})|clamp({0}, min=-2, max=2)|sign({0})|-{0}|{0} ** 2 % 5|fmod({0}, 3)|{0} * 0",
    "ii": "{0} - {1}|({0} * {1}) % 7|maximum({0}, {1})|where({0} > {1}, {0}, 2)|minimum({0}, {1} + 1)",
    "m": "where({0}, 2, 1)|{0} * 3",
    "mi": "where({0}, {1}, 0)|{0} * {1}|masked_fill({1}, {0}, -1)",
    "f": "({0} * 3).int() % 11",
    "mm": "where({0}, 3, 1) - where({1}, 2, 0)",
}
MIXED = {
    "mff": "where({0}, {1}, {2})|where({0}, {1} * 2, {2}) + {1}",
    "mf": "masked_fill({1}, {0}, -1.5)|where({0}, {1}, 0.0)|{1} * {0}|where({0}, 0.5, {1})|{1} + {0}|where({0}, {1}, {1} / 2)",
    "if": "{1} * {0}|{1} + {0} / 4|{1} / (abs({0}) + 1)|where({0} > 1, {1}, -{1})|{1} * {0}.float()|{1} - {0}|{1} * {0} * {0} / 9",
    "mif": "where({0}, {2}, {1})|where({0}, {1}, {2}) * 0.5",
    "iif": "({0} - {1}) * {2} / 4|where({0} == {1}, {2}, {2} * 0.5)",
}


def listed(texts: str) -> list[str]:
    """The templates of a text, which stand between bars and on lines."""
    return texts.replace("\n", "|").split("|")
