"""The layers of `torch.nn`: constructor, parameters, and the op that a call of one is. One record a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tdsl.compiler.ir import Attr, Shape
from tdsl.compiler.ops.op import Signature, signature
from tdsl.compiler.size import Size

Args = Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """A layer.

    - `signature`: the constructor's, PyTorch's names and defaults.
    - `op`: the op that a call is; its tensor operands after the input are `params` in order.
    - `params`: name to shape from the constructor's arguments; None for one that the arguments leave out.
    - `attrs`: attributes of the op from the constructor's arguments; those of the same name are taken by themselves.
    - `infer`: (argument, dimension): the size that `_` takes from the input.
    """

    name: str
    signature: Signature
    op: str
    params: Mapping[str, Callable[[Args], Shape | None]]
    attrs: Callable[[Args], Mapping[str, Attr]] | None = None
    infer: tuple[str, int] | None = None

    @property
    def path(self) -> str:
        return f"nn.{self.name}"


LAYERS: dict[str, Layer] = {}


def layer(
    name: str,
    arguments: str,
    op: str,
    params: Mapping[str, Callable[[Args], Shape | None]] | None = None,
    attrs: Callable[[Args], Mapping[str, Attr]] | None = None,
    infer: tuple[str, int] | None = None,
) -> None:
    LAYERS[name] = Layer(name, signature(arguments), op, params or {}, attrs, infer)


def _size(value: Any) -> Size:
    return Size.of(value)


def _sizes(value: Any) -> Shape:
    return tuple(Size.of(v) for v in value) if isinstance(value, tuple) else (Size.of(value),)


def _pair(value: Any) -> Shape:
    return _sizes(value) if isinstance(value, tuple) else (Size.of(value), Size.of(value))


def _where(flag: str, shape: Callable[[Args], Shape]) -> Callable[[Args], Shape | None]:
    return lambda a: shape(a) if a[flag] else None


layer(
    "Linear",
    "in_features: size, out_features: size, bias: bool = true",
    "linear",
    {
        "weight": lambda a: (_size(a["out_features"]), _size(a["in_features"])),
        "bias": _where("bias", lambda a: (_size(a["out_features"]),)),
    },
    infer=("in_features", -1),
)
layer(
    "Embedding",
    "num_embeddings: size, embedding_dim: size, padding_idx: int? = none",
    "embedding",
    {"weight": lambda a: (_size(a["num_embeddings"]), _size(a["embedding_dim"]))},
)
layer(
    "LayerNorm",
    "normalized_shape: sizes, eps: float = 1e-5, elementwise_affine: bool = true, bias: bool = true",
    "layer_norm",
    {
        "weight": _where("elementwise_affine", lambda a: _sizes(a["normalized_shape"])),
        "bias": lambda a: _sizes(a["normalized_shape"]) if a["elementwise_affine"] and a["bias"] else None,
    },
    attrs=lambda a: {"normalized_shape": _sizes(a["normalized_shape"])},
    infer=("normalized_shape", -1),
)
layer(
    "RMSNorm",
    "normalized_shape: sizes, eps: float? = none, elementwise_affine: bool = true",
    "rms_norm",
    {"weight": _where("elementwise_affine", lambda a: _sizes(a["normalized_shape"]))},
    attrs=lambda a: {"normalized_shape": _sizes(a["normalized_shape"])},
    infer=("normalized_shape", -1),
)


def _conv_weight(a: Args) -> Shape:
    return (_size(a["out_channels"]), _size(a["in_channels"]) // _size(a["groups"]), *_pair(a["kernel_size"]))


layer(
    "Conv2d",
    "in_channels: size, out_channels: size, kernel_size: sizes, stride: sizes = 1, padding: any = 0, "
    "dilation: sizes = 1, groups: int = 1, bias: bool = true",
    "conv2d",
    {"weight": _conv_weight, "bias": _where("bias", lambda a: (_size(a["out_channels"]),))},
    infer=("in_channels", 1),
)
layer("MaxPool2d", "kernel_size: sizes, stride: sizes? = none, padding: sizes = 0, dilation: sizes = 1", "max_pool2d")
layer("AvgPool2d", "kernel_size: sizes, stride: sizes? = none, padding: sizes = 0", "avg_pool2d")
layer("AdaptiveAvgPool2d", "output_size: sizes", "adaptive_avg_pool2d")


def _features(ranks: tuple[int, ...]) -> Callable[[Args], Mapping[str, Attr]]:
    return lambda a: {"features": a["num_features"], "ranks": ranks}


for _name, _ranks in (("BatchNorm1d", (2, 3)), ("BatchNorm2d", (4,))):
    layer(
        _name,
        "num_features: size, eps: float = 1e-5, momentum: float? = 0.1, affine: bool = true, "
        "track_running_stats: bool = true",
        "batch_norm",
        {
            "weight": _where("affine", lambda a: (_size(a["num_features"]),)),
            "bias": _where("affine", lambda a: (_size(a["num_features"]),)),
        },
        attrs=_features(_ranks),
        infer=("num_features", 1),
    )
layer("Flatten", "start_dim: int = 1, end_dim: int = -1", "flatten")
layer("Identity", "", "identity")
layer("Dropout", "p: float = 0.5", "dropout")
for _name, _arguments, _op in (
    ("ReLU", "", "relu"),
    ("ReLU6", "", "relu6"),
    ("LeakyReLU", "negative_slope: float = 0.01", "leaky_relu"),
    ("ELU", "alpha: float = 1.0", "elu"),
    ("SELU", "", "selu"),
    ("CELU", "alpha: float = 1.0", "celu"),
    ("GELU", 'approximate: str = "none"', "gelu"),
    ("SiLU", "", "silu"),
    ("Mish", "", "mish"),
    ("Sigmoid", "", "sigmoid"),
    ("Tanh", "", "tanh"),
    ("Hardsigmoid", "", "hardsigmoid"),
    ("Hardswish", "", "hardswish"),
    ("Hardtanh", "min_val: float = -1.0, max_val: float = 1.0", "hardtanh"),
    ("Softplus", "beta: float = 1.0, threshold: float = 20.0", "softplus"),
    ("Softsign", "", "softsign"),
    ("LogSigmoid", "", "logsigmoid"),
    ("Softmax", "dim: int", "softmax"),
    ("LogSoftmax", "dim: int", "log_softmax"),
):
    layer(_name, _arguments, _op)
