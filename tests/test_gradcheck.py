"""A share of `python -m tests.gradcheck`: derived backwards against finite differences in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tdsl.compiler.ops import OPS
from tests import gradcheck

pytest.importorskip("expecttest", reason="PyTorch's operator samples need it")


def test_backwards_are_the_limit_of_differences() -> None:
    """The first sample of each operation, and programs until each primitive has been in one."""
    outcomes = [outcome for name in gradcheck.names() for outcome in gradcheck.samples(name, most=1)]
    outcomes += [gradcheck.backward(name) for name in gradcheck.BACKWARDS]
    checked = {primitive for o in outcomes for primitive in o.primitives}
    for name in gradcheck.PROGRAMS:
        if not gradcheck.with_vjp() <= checked:
            outcomes.append(gradcheck.program(name))
            checked |= outcomes[-1].primitives
    assert [o for o in outcomes if o.problem] == []
    assert gradcheck.with_vjp() <= checked
    assert len(outcomes) > 50


def test_a_wrong_backward_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "cos", replace(OPS["cos"], vjp=lambda t, g, y, x: (g * t.sin(x),)))
    outcomes = list(gradcheck.samples("cos"))
    assert outcomes
    assert all("Jacobian mismatch" in o.problem for o in outcomes)


def test_a_wrong_backward_of_a_backward_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "scan_back", replace(OPS["scan_back"], vjp=lambda t, g, y, x: (t.scan_back(g),)))
    assert "Jacobian mismatch" in gradcheck.backward("scan_back").problem
