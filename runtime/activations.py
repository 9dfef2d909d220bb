"""Activation checkpointing: modules that keep what they are given, and compute the rest again in the backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from types import MethodType
from typing import Any

from torch import is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from tdsl.runtime import tracking
from tdsl.runtime.run import Failure


def recompute(models: Mapping[str, nn.Module], *patterns: str) -> None:
    """Compute the activations of the modules that a glob matches again in the backward, those around others first.

    Names are those of `model` as they are, and those of another model with its name in front. Of a list of modules each
    is one by itself. Values and gradients are, bit for bit, those of before: what is random is drawn again from the
    same state, and buffers (running statistics) and tracked values are those of the forward alone. Names of parameters
    stay.

    Raises `Failure` for a glob that matches no module.
    """
    names = {f"{lead}{name}" for lead, model in _named(models) for name, _ in model.named_modules() if name}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise Failure(f'"{pattern}" matches no module', f"the modules are {', '.join(sorted(names))}")
    for lead, model in _named(models):
        for module in _outermost(model, lead, patterns):
            module.forward = MethodType(_forward, module)


def _named(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Each model, with what stands before the names of its modules."""
    return (("" if owner == "model" else f"{owner}.", model) for owner, model in models.items())


def _outermost(module: nn.Module, lead: str, patterns: tuple[str, ...]) -> Iterator[nn.Module]:
    """The modules that a glob matches, without those within them. A list, which nobody calls, stands for its own."""
    for name, each in module.named_children():
        path = f"{lead}{name}"
        if not any(fnmatchcase(path, pattern) for pattern in patterns):
            yield from _outermost(each, f"{path}.", patterns)
        elif isinstance(each, nn.ModuleList):
            yield from _outermost(each, "", ("*",))
        else:
            yield each


def _forward(module: nn.Module, *args: Any, **options: Any) -> Any:
    """The `forward` of a module, which keeps its inputs alone. Bound to it, so that copies of it have their own."""
    forward = MethodType(type(module).forward, module)
    if not is_grad_enabled():
        return forward(*args, **options)
    again = _Again(module)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), again

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **options)


class _Again:
    """What holds while a module computes again: its buffers are copies of what they were, and nothing is tracked."""

    def __init__(self, module: nn.Module) -> None:
        self.before = [
            (owner, name, value.detach().clone())
            for owner in module.modules()
            for name, value in owner._buffers.items()
            if value is not None and owner.training
        ]
        self.entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        self.entered.append(self._set_back())
        self.entered[-1].__enter__()

    def __exit__(self, *error: Any) -> None:
        self.entered.pop().__exit__(*error)

    @contextmanager
    def _set_back(self) -> Iterator[None]:
        present = [owner._buffers[name] for owner, name, _ in self.before]
        for owner, name, value in self.before:
            owner._buffers[name] = value.clone()
        try:
            with tracking.quiet():
                yield
        finally:
            for (owner, name, _), after in zip(self.before, present, strict=True):
                owner._buffers[name] = after
