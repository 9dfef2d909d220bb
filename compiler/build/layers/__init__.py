"""The layers of `torch.nn`: constructor, parameters, and the op that a call of one is. One record a layer."""

from __future__ import annotations

from tdsl.compiler.build.layers import activation, attention, conv, dense, norm, pool, rearranging, recurrent
from tdsl.compiler.build.layers.layer import LAYERS, Layer

__all__ = [
    "LAYERS",
    "Layer",
    "activation",
    "attention",
    "conv",
    "dense",
    "norm",
    "pool",
    "rearranging",
    "recurrent",
]
