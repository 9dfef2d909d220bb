"""Row 9: the gradients' norm, clipping by it, and AdamW, over GPT-2's 148 tensors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bench import Bench, Case, Floor
from benchmarks.gpt2 import GPT2
from benchmarks.measure import Candidate, distance
from benchmarks.programs import Emitted, emitted
from tdsl.runtime import optim

ARGUMENTS: dict[str, Any] = {"lr": 6e-4, "betas": (0.9, 0.95), "weight_decay": 0.1}
MAX_NORM = 1.0
# Of the gradient, read once for the norm; then parameter, gradient and moments read, parameter and moments written in
# float32, and the parameter's bf16 copy.
BYTES_A_PARAMETER = 4 + 4 * 4 + 3 * 4 + 2
SHAPE = {"vocab": 50304, "window": 1024, "dim": 768, "heads": 12, "layers": 12}
SMALL = {"vocab": 64, "window": 16, "dim": 32, "heads": 2, "layers": 2}
BACKWARD = 3.0


class Step:
    """Clip and step. The gradients lie ready in the parameters, as a backward has left them; `owner` has these."""

    def __init__(
        self, parameters: list[nn.Parameter], step: Callable[[], object], owner: nn.Module | None = None
    ) -> None:
        self.parameters = parameters
        self.step = step
        self.owner = owner

    def prepare(self) -> None: ...

    def __call__(self) -> None:
        self.step()


class Optimizer(Case):
    """All candidates take the same parameters and gradients; the judge is PyTorch's AdamW in float64."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        shape = SMALL if bench.dry else SHAPE
        self.model = GPT2(**shape)
        count = sum(p.numel() for p in self.model.parameters())
        self.model.to(bench.device)
        self.gradients = [torch.randn_like(p) * 0.01 for p in self.model.parameters()]
        self.title = f"clipping and AdamW, {len(self.gradients)} tensors, {count / 1e6:.1f} M parameters"
        self.floor = Floor(bytes=BYTES_A_PARAMETER * count)
        self.shape = shape
        self.errors: list[float] = []
        self.exact: list[Tensor] = []

    def candidates(self) -> Mapping[str, Callable[[], Candidate]]:
        return {
            "tdsl": self._ours,
            "eager, foreach": lambda: self._plain(self._own(), torch.optim.AdamW, foreach=True),
            "eager, fused": lambda: self._plain(self._own(), torch.optim.AdamW, fused=True),
            "eager, fused, and bf16 copies": self._with_copies,
        }

    def error(self, name: str, candidate: Candidate) -> float:
        """Of what one step changes."""
        assert isinstance(candidate, Step)
        if not self.errors:
            self.exact = self._changed(self._plain(self._own(torch.float64), torch.optim.AdamW, foreach=True))
            plain = self._changed(self._plain(self._own(), torch.optim.AdamW, foreach=True))
            self.errors = [distance(a, b) for a, b in zip(plain, self.exact, strict=True)]
        found = self._changed(candidate)
        unit = torch.finfo(torch.float32).eps
        ratios = []
        for one, exact, error, before in zip(found, self.exact, self.errors, self.model.parameters(), strict=True):
            size = distance(before, torch.zeros_like(before)) + distance(exact, torch.zeros_like(exact))
            ratios.append(distance(one, exact) / (BACKWARD * error + unit * size))
        return max(ratios)

    def checked(self) -> None:
        self.exact = []

    def _changed(self, candidate: Step) -> list[Tensor]:
        """Each parameter after a step, less what it was."""
        candidate()
        before = self.model.parameters()
        return [p.detach().double() - b.detach().double() for p, b in zip(candidate.parameters, before, strict=True)]

    def _own(self, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
        """Parameters of a candidate's own, with the gradients that all have."""
        found = [nn.Parameter(p.detach().to(dtype, copy=True)) for p in self.model.parameters()]
        for parameter, gradient in zip(found, self.gradients, strict=True):
            parameter.grad = gradient.to(dtype, copy=True)
        return found

    def _plain(self, parameters: list[nn.Parameter], kind: Any, **how: bool) -> Step:
        optimizer = kind(parameters, **ARGUMENTS, **how)

        def step() -> None:
            nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            optimizer.step()

        return Step(parameters, step)

    def _with_copies(self) -> Step:
        """As a loop that keeps bf16 weights beside float32 ones by hand."""
        made = self._plain(self._own(), torch.optim.AdamW, fused=True)
        copies = [p.detach().to(torch.bfloat16) for p in made.parameters]

        def step() -> None:
            made.step()
            torch._foreach_copy_(copies, [p.detach() for p in made.parameters])

        return Step(made.parameters, step)

    def _ours(self) -> Step:
        """What the emitted script does, with the emitted model: its layers may keep copies that a step writes."""
        program = emitted("gpt2", self.bench, **{name.upper(): value for name, value in self.shape.items()})
        model = program.modules["model"].GPT2(**self.shape).to(self.bench.device)
        model.load_state_dict(self.model.state_dict())
        model(torch.zeros(1, 8, dtype=torch.int64, device=self.bench.device))
        named = dict(model.named_parameters())
        parameters = [named[name] for name, _ in self.model.named_parameters()]
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer = optim.make(optimizer_class(program), optim.groups({"model": model}), **ARGUMENTS)

        def step() -> None:
            optim.clip_gradients(optimizer, MAX_NORM)
            optimizer.step()

        return Step(parameters, step, model)


def optimizer_class(program: Emitted) -> Any:
    """What the emitted script hands to `optim.make`."""
    train = program.modules["train"]
    named = re.search(r"optim\.make\(([\w.]+), ", inspect.getsource(train))
    assert named is not None
    return reduce(getattr, named[1].split(".")[1:], vars(train)[named[1].split(".")[0]])
