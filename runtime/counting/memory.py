"""What the forward of a training step keeps for its backward, measured without a GPU.

Run as `python -m tdsl.runtime.counting.memory FOLDER`: `FOLDER` is as `tdsl.runtime.counting.step` takes it. What is
emitted takes the ways that it takes on a GPU, on tensors without contents. Autograd tells each tensor that it saves, of
PyTorch's operators as of kernels; each storage counts once. Neither the batch nor what outlives the step counts:
parameters, buffers and copies of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tdsl.runtime import low_precision, run
from tdsl.runtime.counting.counter import counting
from tdsl.runtime.counting.gpu import fake_gpu
from tdsl.runtime.counting.step import BatchSpec, _Done, _project, _start
from tdsl.runtime.loader import Batch


def kept(folder: Path) -> dict[str, int]:
    """The bytes that the forward of the second step keeps, and those of all copies of parameters."""
    spec = BatchSpec.read(folder)
    measured: list[int] = []

    def stream(*_: Any) -> Iterator[Batch]:
        yield spec.make()
        yield spec.make()
        raise _Done

    def measuring(loss: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            saved: dict[int, Tensor] = {}
            with torch.autograd.graph.saved_tensors_hooks(lambda t: _note(saved, t), lambda t: t):
                result = loss(*args)
            measured.append(_bytes(saved.values(), args))
            return result

        return called

    with _project(folder, False) as train, fake_gpu(), counting() as counter, _patched(train, stream, measuring):
        counter.on = False
        with suppress(_Done):
            _start(train)
    return {"kept": measured[-1], "copies": sum(found.tensor.nbytes for found in low_precision._COPIES.values())}


@contextmanager
def _patched(train: Any, stream: Callable[..., Any], measuring: Callable[..., Any]) -> Iterator[None]:
    with mock.patch.object(run, "stream", stream), mock.patch.object(train, "loss", measuring(train.loss)):
        yield


def _note(saved: dict[int, Tensor], tensor: Tensor) -> Tensor:
    saved.setdefault(tensor.untyped_storage()._cdata, tensor.detach())
    return tensor


def _bytes(saved: Any, args: Sequence[Any]) -> int:
    """Of the storages of tensors, but for those of models and batches."""
    models = [arg for arg in args if isinstance(arg, nn.Module)]
    lasting: list[Tensor] = [value for model in models for value in model.state_dict().values()]
    lasting += [value for arg in args if isinstance(arg, Batch) for value in arg.fields.values()]
    lasting += [found.tensor for found in low_precision._COPIES.values()]
    known = {value.untyped_storage()._cdata for value in lasting}
    return sum(t.untyped_storage().nbytes() for t in saved if t.untyped_storage()._cdata not in known)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the bytes as JSON."""
    parser = argparse.ArgumentParser(description="Measure what a training step keeps for its backward.")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    print(json.dumps(kept(options.folder.resolve())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
