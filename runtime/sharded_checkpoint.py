"""Writing a checkpoint by all ranks together, where parameters are divided among them (`shards`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from torch import Tensor

from tdsl.runtime import ranks, shards
from tdsl.runtime.checkpoint import (
    OPTIMIZER,
    RANDOM,
    Checkpoint,
    check_finite,
    describe,
    enlist,
    unwritten,
)
from tdsl.runtime.files import begin_folder, drop_folder, end_folder, sha256
from tdsl.runtime.shards import Piece

T = TypeVar("T")


def write(
    folder: Path,
    step: int,
    *,
    tensors: Mapping[str, Mapping[str, Tensor | Piece]],
    state: Mapping[str, Any],
    program: str,
    tokenizer: str | None = None,
) -> Checkpoint:
    """Write the checkpoint of a step together with all other ranks, each what it has of the tensors.

    The ranks' `folder` is one. Raises `Failure` on every rank where `checkpoint.write` does; `state`,
    `program` and `tokenizer` are those of rank 0.
    """
    path = folder / f"step-{step}"
    try:
        aside = ranks.first(lambda: begin_folder(path))
        found = ranks.gathered(_attempt(lambda: _write_own(aside, step, tensors)))
        for each in found:
            if isinstance(each, Exception):
                raise each
        sums, starts = zip(*found, strict=True)

        def end() -> None:
            (aside / shards.SHARDS).write_text(json.dumps(shards.index(list(starts)), sort_keys=True), encoding="utf-8")
            texts = describe(aside, step, state, program, tokenizer)
            own = {name: sha256(aside / name) for name in (shards.SHARDS, *texts)}
            enlist(aside, {name: digest for each in (*sums, own) for name, digest in each.items()})
            end_folder(path)

        ranks.first(end)
    except BaseException as error:
        if ranks.rank() == 0:
            drop_folder(path)
        raise unwritten(path, error) from None if isinstance(error, (OSError, SafetensorError)) else error
    return Checkpoint(path, step)


def _write_own(
    aside: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor | Piece]]
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Write this rank's files; their sums, and where its rows begin."""
    sums = {}
    for name, values in tensors.items():
        own = {key: each.tensor if isinstance(each, Piece) else each for key, each in values.items()}
        if name not in (OPTIMIZER, RANDOM):
            check_finite(name, own, step)
        written = shards.write(aside, name, values)
        if written is not None:
            sums[written.name] = sha256(written)
    return sums, {name: shards.starts(values) for name, values in tensors.items()}


def _attempt(function: Callable[[], T]) -> T | Exception:
    """What a function returns, or the error that it raises."""
    try:
        return function()
    except Exception as error:
        return error
