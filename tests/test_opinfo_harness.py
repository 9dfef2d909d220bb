"""The harness of PyTorch's samples tells what is wrong: a wrong result, gradient, shape, mistake; and what it leaves out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tdsl.compiler.ops import OPS
from tdsl.compiler.ops.op import Bound, Types
from tdsl.compiler.size import Size
from tests.helpers import ROOT, python
from tests.opinfo.calls import Call
from tests.opinfo.run import judged
from tests.opinfo.samples import Case, Writer, cases
from tests.opinfo.table import REASONS, Skip


def problem(case: Case, name: str) -> str:
    """What the harness says of a sample."""
    report = judged([case], "", name)
    assert report.passed == 1 - len(report.failures)
    return report.failures[0][1] if report.failures else ""


def one(expression: str, reference: object = torch.sin, *inputs: torch.Tensor) -> Case:
    given = list(inputs or (torch.rand(3, 4, requires_grad=True),))
    return Case("S0", given, lambda leaves: reference(*leaves), expression)


def test_what_agrees_passes() -> None:
    assert not problem(one("sin(a0)"), "sin")
    assert not problem(one("a0.sum(dim=1)", lambda x: x.sum(1)), "sum")


@pytest.mark.parametrize(
    ("expression", "reference", "told"),
    [
        ("cos(a0)", torch.sin, "plain: result 0: Tensor-likes are not close"),
        ("sin(detach(a0))", torch.sin, "plain: gradient 0: Tensor-likes are not close"),
        ("sin(a0)", lambda x: torch.sin(x.detach()), "plain: gradient 0: Tensor-likes are not close"),
        ("sin(a0)[0]", torch.sin, "E207"),
        ("sin(a0).float()", lambda x: x.sin().double(), "E207|plain: result 0: The values for attribute 'dtype'"),
        ("sinn(a0)", torch.sin, "E110 unknown name `sinn`"),
        ("sin(a0)", lambda x: None, "no tensor comes out"),
        ("sin(a0)", lambda x: 1 / 0, "PyTorch itself: ZeroDivisionError"),
    ],
)
def test_what_does_not_is_told(expression: str, reference: object, told: str) -> None:
    found = problem(one(expression, reference), "sin")
    assert any(part in found for part in told.split("|")), found


def test_a_wrong_backward_is_told() -> None:
    """In a process of its own, with Triton's interpreter."""
    ran = python("-m", "tests.test_opinfo_harness", interpret=True, cwd=ROOT)
    assert ran.stdout.startswith("kernel: gradient 0: Tensor-likes are not close"), ran.stdout + ran.stderr


def test_a_wrong_shape_rule_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is right at the sample's sizes only."""

    def infer(b: Bound) -> Types:
        (found,) = OPS["sin"].infer(b)
        return (replace(found, shape=(Size.of(3), *found.shape[1:])),)

    monkeypatch.setitem(OPS, "cos", replace(OPS["cos"], infer=infer))
    assert "is [(3, 5)] with sizes 1 larger, not [(4, 5)]" in problem(one("cos(a0)", torch.cos), "cos")


SKIPPED = {
    "complex": Call("add", [torch.rand(2), 1j]),
    "mask": Call("index", [torch.rand(2), torch.tensor([True, False])]),
    "out": Call("add", [torch.rand(2), 1], {"out": torch.rand(2)}),
    "in place": Call("relu", [torch.rand(2)], {"inplace": True}),
    "legacy": Call("mse_loss", [torch.rand(2), torch.rand(2)], {"size_average": True}),
}


@pytest.mark.parametrize("reason", SKIPPED)
def test_what_the_language_has_no_words_for_is_skipped(reason: str) -> None:
    with pytest.raises(Skip) as skip:
        Writer().call(SKIPPED[reason].plain(), False, False)
    assert skip.value.reason == REASONS[reason]


def test_a_skip_is_no_pass() -> None:
    report = judged([Case("S0", [], lambda _: None, skipped="a reason")], "", "sin")
    assert (report.passed, report.skipped["a reason"], report.samples) == (0, 1, 1)


def test_calls_are_written_as_functions_methods_and_operators() -> None:
    written = [c.expression for c in cases("sub", "sub")]
    assert {"sub(a0, a1)", "a0.sub(a1)", "a0 - a1"} <= set(written)


if __name__ == "__main__":
    OPS["sin"] = replace(OPS["sin"], vjp=lambda t, g, y, x: (g * t.sin(x),))
    print(problem(one("sin(a0)"), "sin"))
