"""Every activation as a layer."""

from __future__ import annotations

from tdsl.compiler.build.layers.layer import layer, size

INPLACE = "inplace: bool = false"
for _name, _arguments, _op in (
    ("ReLU", INPLACE, "relu"),
    ("ReLU6", INPLACE, "relu6"),
    ("LeakyReLU", f"negative_slope: float = 0.01, {INPLACE}", "leaky_relu"),
    ("ELU", f"alpha: float = 1.0, {INPLACE}", "elu"),
    ("SELU", INPLACE, "selu"),
    ("CELU", f"alpha: float = 1.0, {INPLACE}", "celu"),
    ("GELU", 'approximate: str = "none"', "gelu"),
    ("SiLU", INPLACE, "silu"),
    ("Mish", INPLACE, "mish"),
    ("Sigmoid", "", "sigmoid"),
    ("Tanh", "", "tanh"),
    ("Hardsigmoid", INPLACE, "hardsigmoid"),
    ("Hardswish", INPLACE, "hardswish"),
    ("Hardtanh", f"min_val: float = -1.0, max_val: float = 1.0, {INPLACE}", "hardtanh"),
    ("Softplus", "beta: float = 1.0, threshold: float = 20.0", "softplus"),
    ("Softsign", "", "softsign"),
    ("LogSigmoid", "", "logsigmoid"),
    ("Softmax", "dim: int", "softmax"),
    ("LogSoftmax", "dim: int", "log_softmax"),
    ("GLU", "dim: int = -1", "glu"),
    ("Threshold", f"threshold: float, value: float, {INPLACE}", "threshold"),
):
    layer(_name, _arguments, _op)
layer(
    "PReLU",
    "num_parameters: size = 1, init: float = 0.25",
    "prelu",
    {"weight": lambda a: (size(a["num_parameters"]),)},
)
