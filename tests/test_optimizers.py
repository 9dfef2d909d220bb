"""Every optimizer of the language, as a program's run uses it, against a loop of PyTorch's own by hand: 200 steps."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from tdsl.compiler import pipeline
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.dsl.signatures import OPTIMIZERS
from tdsl.runtime import run
from tests import absent_gradients
from tests.helpers import ROOT, built, python
from tests.running import importable

STEPS, ROWS, BATCH = 200, 60, 12
PROGRAM = """
module Net() {{
    up   = Linear(5, 6)
    down = Linear(6, 3)

    forward(x: float[B, 5]) -> float[B, 3] {{ return down(tanh(up(x))) }}
}}

data Points {{
    source = csv("points.csv")
    field x: float[5] = columns("x*")
    field y: int[]    = column("y")
}}

train points {{
    model = Net()
    data  = Points
    loss(batch) {{ return cross_entropy(model(batch.x), batch.y) }}
    optimizer  = {optimizer}
    {settings}
    steps      = {steps}
    batch_size = {batch}
    checkpoint {{ every = {steps} }}
}}
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.up(x).tanh())
        return found


class Lion(Optimizer):
    """Algorithm 2 of Chen et al., 2023: the only optimizer that PyTorch lacks."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (one, two), rate, decay = group["betas"], group["lr"], group["weight_decay"]
            for p in group["params"]:
                m = self.state[p].get("m", torch.zeros_like(p))
                update = torch.sign(one * m + (1 - one) * p.grad)
                self.state[p]["m"] = two * m + (1 - two) * p.grad
                p.copy_(p - rate * (update + decay * p))


@dataclass(frozen=True)
class Case:
    """What a program says of its optimizer. `groups` are arguments by parameter, those of the glob that matches it."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    globs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    frozen: Sequence[str] = ()
    clip: float | None = None
    parts: int = 1

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.args.items())})"


def word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def said(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={word(value)}" for name, value in args.items())


def text(case: Case) -> str:
    lines = [f'group "{glob}" {{ {said(args).replace("=", " = ")} }}' for glob, args in case.globs.items()]
    lines += [f"freeze = [{', '.join(map(word, case.frozen))}]"] if case.frozen else []
    lines += [f"clip_grad_norm = {case.clip}"] if case.clip else []
    lines += [f"accumulate = {case.parts}"] if case.parts > 1 else []
    return PROGRAM.format(
        optimizer=f"{case.name}({said(case.args)})", settings="\n    ".join(lines), steps=STEPS, batch=BATCH
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("optimizers")
    torch.manual_seed(0)
    x = torch.randn(ROWS, 5)
    y = (x @ torch.randn(5, 3) + torch.randn(ROWS, 3)).argmax(1)
    rows = [",".join(map(str, [*row, label])) for row, label in zip(x.tolist(), y.tolist(), strict=True)]
    (found / "points.csv").write_text("\n".join(["x0,x1,x2,x3,x4,y", *rows, ""]))
    return found


def trained(case: Case, folder: Path, out: Path, *options: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters that the emitted program ends with, and those of the loop by hand, from the same start."""
    unit = pipeline.run(built(text(case), folder / "program.model"))
    write(emit(unit, Options("points", root=str(folder))), out)
    with importable(out):
        train, data, model = map(importlib.import_module, ("train", "data", "model"))
        argv = [f"--out={out / 'run'}", "--device=cpu", *options]
        status = run.main("points", train.SETTINGS, train.train, out=out, program=out / "program.model", argv=argv)
        assert status == 0
        run.set_up(seed=0)
        start, net = model.Net().state_dict(), Net()
        net.load_state_dict(start)
        by_hand(net, case, data.batches("train", BATCH, seed=0).steps(0, STEPS))
    return load_file(out / "run" / "checkpoints" / f"step-{STEPS}" / "model.safetensors"), net.state_dict()


def by_hand(net: Net, case: Case, batches: Iterator[Any]) -> None:
    kind: Callable[..., Optimizer] = Lion if case.name == "Lion" else getattr(torch.optim, case.name)
    members = {name: each for name, each in net.named_parameters() if name not in case.frozen}
    optimizer = kind([{"params": [each], **case.groups.get(name, {})} for name, each in members.items()], **case.args)
    for batch in batches:
        optimizer.zero_grad()
        for x, y in zip(batch.x.tensor_split(case.parts), batch.y.tensor_split(case.parts), strict=True):
            (F.cross_entropy(net(x), y) * (len(y) / len(batch.y))).backward()  # type: ignore[no-untyped-call]
        if case.clip:
            nn.utils.clip_grad_norm_(members.values(), case.clip)
        optimizer.step()


SETTINGS: Mapping[str, Sequence[dict[str, Any]]] = {
    "SGD": [
        {},
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "maximize": True},
    ],
    "Adam": [
        {},
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True},
        {"lr": 0.003, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
    "AdamW": [
        {},
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.0, "amsgrad": True},
        {"lr": 0.003, "weight_decay": 0.2, "maximize": True},
    ],
    "RMSprop": [
        {},
        {"lr": 0.005, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.01, "momentum": 0.5, "centered": True},
        {"lr": 0.003, "maximize": True},
    ],
    "Adagrad": [
        {},
        {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-6},
        {"lr": 0.05, "maximize": True},
    ],
    "Adadelta": [
        {},
        {"lr": 0.5, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.01},
        {"maximize": True},
    ],
    "Adamax": [
        {},
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.01},
        {"maximize": True},
    ],
    "NAdam": [
        {},
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.01, "momentum_decay": 0.01},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
    "RAdam": [
        {},
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.01},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
    "Lion": [{}, {"lr": 0.002, "betas": (0.8, 0.95), "weight_decay": 0.1}],
    "Muon": [
        {},
        {"lr": 0.02, "weight_decay": 0.0, "momentum": 0.8, "nesterov": False, "ns_steps": 3},
        {"ns_coefficients": (3.0, -4.0, 1.8), "eps": 1e-5, "adjust_lr_fn": "match_rms_adamw"},
    ],
}  # fmt: skip
# What is PyTorch's own computes the very same. In one call it rounds otherwise here and there; so does what is written
# twice.
EXACT = {"rtol": 0.0, "atol": 0.0}
ROUNDED = {"rtol": 1e-5, "atol": 1e-6}
TOLERANCES = {"SGD": ROUNDED, "Adam": ROUNDED, "AdamW": ROUNDED, "Lion": {"rtol": 1e-4, "atol": 1e-4}}
BIASES = ("up.bias", "down.bias")


def cases() -> Iterator[Case]:
    for name, settings in SETTINGS.items():
        for number, args in enumerate(settings):
            matrices = BIASES if name == "Muon" else ()
            special = {"lr": 0.004, "weight_decay": 0.3}
            # As they come; with groups and what is frozen; clipped, in parts.
            yield (
                Case(name, args, frozen=matrices),
                Case(
                    name,
                    args,
                    globs={"down.*": special},
                    groups={"down.weight": special, "down.bias": special},
                    frozen=matrices or ("up.bias",),
                ),
                Case(name, args, frozen=matrices, clip=0.1, parts=3),
            )[number]


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_a_run_ends_with_the_parameters_of_pytorchs_optimizer(case: Case, folder: Path, tmp_path: Path) -> None:
    found, expected = trained(case, folder, tmp_path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **TOLERANCES.get(case.name, EXACT))


def test_what_the_command_line_sets_holds_but_for_groups(folder: Path, tmp_path: Path) -> None:
    special = {"weight_decay": 0.3}
    case = Case("AdamW", {"lr": 0.01}, globs={"*.bias": special}, groups=dict.fromkeys(BIASES, special))
    options = ("--set=optimizer.lr=0.002", "--set=optimizer.weight_decay=0.2")
    found, _ = trained(case, folder, tmp_path / "set", *options)
    said = replace(case, args={"lr": 0.002, "weight_decay": 0.2})
    expected, by_hand = trained(said, folder, tmp_path / "said")
    for name, value in expected.items():
        assert torch.equal(found[name], value)
        torch.testing.assert_close(found[name], by_hand[name], **ROUNDED)


def test_every_optimizer_has_its_settings() -> None:
    """Each argument of the language is in one of the settings."""
    for name, each in OPTIMIZERS.items():
        given = {key for args in SETTINGS[name] for key in args}
        assert given == {arg.name for arg in each.args}, name


# Zeros and none ------------------------------------------------------------------------------------------------------
# Weight decay changes a parameter whose gradient is zero, and leaves one that has none.


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    ran = python("-m", "tests.absent_gradients", tmp_path_factory.mktemp("gradients"), interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: dict[str, list[str]] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("expression", absent_gradients.EXPRESSIONS)
def test_kernels_have_a_gradient_where_pytorch_has(expression: str, gradients: dict[str, list[str]]) -> None:
    assert gradients[expression] == [absent_gradients.EXPRESSIONS[expression]] * 3


def test_what_is_computed_with_others_has_a_gradient_of_zeros(gradients: dict[str, list[str]]) -> None:
    """As docs/language/train.md says: of a kernel's results, and of layers that are one product, one is not used."""
    assert gradients["norm.weight"] == ["zeros", "none", "none"]
    assert gradients["b.weight"] == ["zeros", "zeros", "none"]
