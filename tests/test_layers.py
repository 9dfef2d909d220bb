"""Every layer of the language against `torch.nn`, from the same weights: results, gradients, buffers, names and shapes.

`python -m tests.test_layers` prints how many forms of each layer agree.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tdsl.compiler import inspect
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.unit import ModuleMember, Unit
from tests.helpers import compiled, emitted, written
from tests.layer_cases import CASES, SIZES, Case
from tests.running import loaded

# LANGUAGE: every name that it lists among the layers, and every activation.
NAMES = set(
    """
    Linear Bilinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d Embedding EmbeddingBag LayerNorm RMSNorm
    GroupNorm BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d LocalResponseNorm Dropout Dropout2d
    MaxPool1d MaxPool2d AvgPool1d AvgPool2d AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveMaxPool2d Flatten Unflatten
    Identity Upsample PixelShuffle MultiheadAttention LSTM GRU RNN ReLU ReLU6 LeakyReLU ELU SELU CELU GELU SiLU Mish
    Sigmoid Hardsigmoid Hardswish Hardtanh Tanh Softplus Softsign Softmax LogSoftmax GLU PReLU Threshold
    """.split()
)
LETTERS = "xyzuv"
# Where it is fused, dropout draws by its own generator.
DRAWN = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d")


def module(name: str, case: Case, between: bool = False) -> str:
    """A module of the one layer; with `between` it stands among operations that fuse."""
    inputs = ", ".join(f"{letter}: {type}" for letter, type in zip(LETTERS, case.inputs))
    results = ", ".join(case.results)
    given = ", ".join(LETTERS[: len(case.inputs)])
    body = case.body or ("return layer(x * 1.5) + 1.0" if between else f"return layer({given})")
    outputs = f"({results})" if len(case.results) > 1 else results
    return (
        f"module {name}() {{\n    layer = {case.made}\n\n    forward({inputs}) -> {outputs} {{\n        {body}\n"
        "    }\n}\n"
    )


def goes_between(case: Case) -> bool:
    plain = len(case.inputs) == len(case.results) == 1 and not case.body
    return plain and case.inputs[0].startswith("float")


@cache
def program() -> tuple[Unit, ModuleType]:
    """All cases as one program: `C3` is the third, `D3` the same among other operations."""
    texts = [module(f"C{i}", case) for i, case in enumerate(CASES)]
    texts += [module(f"D{i}", case, between=True) for i, case in enumerate(CASES) if goes_between(case)]
    fused = compiled("".join(texts))
    folder = Path(tempfile.mkdtemp())
    return fused, loaded(written(emitted(fused), folder))


def reference(case: Case) -> nn.Module:
    """The same layer of PyTorch, `_` standing for what the input has."""
    python = re.sub(r"(?<!\")\b(true|false|none)\b", lambda word: word[0].capitalize(), case.made)
    record = LAYERS[case.layer]
    position = [arg.name for arg in record.signature]
    arguments = re.search(r"\((.*)\)$", python)
    assert arguments is not None
    given = re.split(r",\s*(?![^(\[]*[)\]])", arguments[1])
    filled = []
    for index, argument in enumerate(given):
        name, equals, value = argument.rpartition("=")
        name = name or position[index] if value.strip() == "_" else name
        if value.strip() == "_":
            number, axis = record.infer[name]
            value = str(tensor(case, number).shape[axis])
        filled.append(f"{name}{equals}{value}" if equals else value)
    made: nn.Module = eval(f"nn.{case.layer}({', '.join(filled)})", {"nn": nn})
    return made


def tensor(case: Case, index: int) -> Tensor:
    if index in case.given:
        return case.given[index].clone()
    dtype, _, rest = case.inputs[index].partition("[")
    shape = [eval(part, dict(SIZES)) for part in rest.rstrip("]").split(",") if part.strip()]
    if dtype == "int":
        return torch.randint(0, 10, shape)
    return torch.randn(shape).requires_grad_()


def inputs(case: Case) -> list[Tensor]:
    torch.manual_seed(3)
    return [tensor(case, index) for index in range(len(case.inputs))]


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [] if value is None else [each for part in value for each in flat(part)]


def outcome(function: Any, layer: nn.Module, given: list[Tensor]) -> dict[str, Tensor]:
    """Results, gradients of inputs and of parameters, and buffers afterwards."""
    torch.manual_seed(11)
    results = flat(function(*given))
    torch.manual_seed(12)
    loss = sum(((r * torch.randn(r.shape)).sum() for r in results if r.is_floating_point()), torch.zeros(()))
    layer.zero_grad()
    if loss.requires_grad:
        loss.backward()
    found = {f"result {i}": r.detach() for i, r in enumerate(results)}
    found |= {f"gradient {i}": x.grad for i, x in enumerate(given) if x.grad is not None}
    found |= {f"gradient of {n}": p.grad for n, p in layer.named_parameters() if p.grad is not None}
    return found | {f"buffer {n}": b.clone() for n, b in layer.named_buffers()}


def compare(case: Case, name: str, train: bool) -> None:
    _, emitted_model = program()
    between = name.startswith("D")
    theirs = reference(case).train(train)
    ours = getattr(emitted_model, name)().train(train)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours.layer.load_state_dict(theirs.state_dict())
    call = case.call or (lambda layer, *given: layer(*given))

    def expected(*given: Tensor) -> Any:
        return theirs(given[0] * 1.5) + 1.0 if between else call(theirs, *given)

    mine, right = outcome(ours, ours.layer, inputs(case)), outcome(expected, theirs, inputs(case))
    assert mine.keys() == right.keys()
    for key, value in right.items():
        torch.testing.assert_close(mine[key], value, msg=lambda text, key=key: f"{case.made}: {key}: {text}")


def parameters(name: str) -> dict[str, tuple[int, ...]]:
    """Those that the compiler knows of, by their paths."""
    unit, _ = program()
    return {p.path: p.shape for p in inspect.parameters(unit, ModuleMember(name, ()))}


IDS = [f"{i}-{case.made}" for i, case in enumerate(CASES)]


@pytest.mark.parametrize("index", range(len(CASES)), ids=IDS)
@pytest.mark.parametrize("train", [True, False], ids=("train", "eval"))
def test_a_layer_is_that_of_pytorch(index: int, train: bool) -> None:
    compare(CASES[index], f"C{index}", train)


@pytest.mark.parametrize("index", [i for i, case in enumerate(CASES) if goes_between(case)])
@pytest.mark.parametrize("train", [True, False], ids=("train", "eval"))
def test_a_layer_among_operations_that_fuse(index: int, train: bool) -> None:
    if train and CASES[index].layer in DRAWN:
        pytest.skip("draws by a generator of its own")
    compare(CASES[index], f"D{index}", train)


@pytest.mark.parametrize("index", range(len(CASES)), ids=IDS)
def test_parameters_have_the_names_and_shapes_of_the_state_dict(index: int) -> None:
    theirs = {f"layer.{n}": tuple(p.shape) for n, p in reference(CASES[index]).named_parameters()}
    assert parameters(f"C{index}") == theirs


def test_every_layer_is_tested_in_several_forms() -> None:
    forms = Counter(case.layer for case in CASES)
    assert not NAMES - LAYERS.keys()
    assert forms.keys() == LAYERS.keys()
    assert [name for name, n in forms.items() if n < 2 and LAYERS[name].signature] == []


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_constructor_has_the_arguments_of_pytorch(name: str) -> None:
    """All of them in order, but those that say where and how numbers lie, and what is deprecated."""
    left = {"device", "dtype", "_weight", "_freeze", "args", "kwargs", "min_value", "max_value"}
    found = signature(getattr(nn, name).__init__).parameters
    if name in ("LSTM", "GRU", "RNN"):
        pytest.skip("declared `*args`")
    theirs = [p for n, p in found.items() if n not in left | {"self"} and p.kind is not Parameter.KEYWORD_ONLY]
    mine = LAYERS[name].signature
    assert [arg.name for arg in mine] == [p.name for p in theirs]
    for arg, p in zip(mine, theirs):
        # Where PyTorch guesses the dimension of a softmax, it warns.
        assert arg.required == (p.default is Parameter.empty) or name in ("Softmax", "LogSoftmax")
        assert arg.required or arg.default == p.default


def main() -> None:
    """Print how many forms of each layer agree, in both modes."""
    agreed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for index, case in enumerate(CASES):
        for train in (True, False):
            for name in [f"C{index}"] + [f"D{index}"] * (goes_between(case) and not (train and case.layer in DRAWN)):
                total[case.layer] += 1
                try:
                    compare(case, name, train)
                except Exception as error:
                    print(f"{name} {case.made}: {type(error).__name__}: {error}")
                else:
                    agreed[case.layer] += 1
    for layer, number in sorted(total.items()):
        print(f"{layer:<20} {agreed[layer]:>3} of {number}")
    print(f"{len(total)} layers, {sum(agreed.values())} of {sum(total.values())} comparisons agree")


if __name__ == "__main__":
    main()
