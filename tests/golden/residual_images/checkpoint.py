"""The checkpoints of the run `digits` of residual_images.model.

Started as `python checkpoint.py list`, `verify` or `convert FILE.safetensors`; `--help` tells the options.
"""

from __future__ import annotations

import sys
from pathlib import Path

import data
from model import Net
from tdsl.runtime import checkpoint, checkpoint_tool

OUT = data.ROOT / "runs" / "digits"


def load(which: str = "best", *, out: Path = OUT, device: str = "cpu") -> Net:
    """The model of a checkpoint: `which` is `best`, `last` or the path of one; `none` is the model as it begins.

    The weights are the averaged ones, where they are kept.
    """
    model = Net()
    if which != "none":
        found = checkpoint.find(out / "checkpoints", which)
        checkpoint.load_model_weights(found, model, "model")
    return model.to(device).eval()


if __name__ == "__main__":
    sys.exit(checkpoint_tool.main("digits", OUT))
