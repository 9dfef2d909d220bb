"""Which of PyTorch's kernels for attention come first, and that the choice is undone where it is to be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from tdsl.runtime import attention_backends, launch


def order() -> list[int]:
    return [int(each) for each in torch._C._get_sdp_priority_order()]


def first() -> SDPBackend:
    return SDPBackend(order()[0])


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    before = order()
    yield
    attention_backends.prefer("default")
    assert order() == before


@pytest.mark.parametrize("name", attention_backends.BACKENDS)
def test_a_back_end_is_put_first(name: str) -> None:
    attention_backends.prefer(name)
    assert first() == attention_backends.BACKENDS[name]
    q = torch.randn(1, 2, 5, 8)
    assert F.scaled_dot_product_attention(q, q, q).shape == q.shape


def test_the_plain_one_is_never_left_out() -> None:
    attention_backends.prefer("cudnn")
    assert torch.backends.cuda.math_sdp_enabled()
    assert order().index(int(SDPBackend.MATH)) > order().index(int(SDPBackend.EFFICIENT_ATTENTION))


@pytest.mark.parametrize(("architecture", "wanted"), [("sm_90", SDPBackend.CUDNN_ATTENTION), ("sm_80", None)])
def test_the_fastest_depends_on_the_gpu(
    architecture: str, wanted: SDPBackend | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = first()
    monkeypatch.setattr(launch, "architecture", lambda: architecture)
    attention_backends.prefer()
    assert first() == (before if wanted is None else wanted)


def test_the_environment_has_its_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(attention_backends.VARIABLE, "efficient")
    attention_backends.prefer()
    assert first() == SDPBackend.EFFICIENT_ATTENTION
    monkeypatch.setenv(attention_backends.VARIABLE, "fastest")
    with pytest.raises(ValueError, match="'fastest'"):
        attention_backends.prefer()


def test_what_is_switched_off_stays_off() -> None:
    before = order()
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        with attention_backends.preferring("cudnn"):
            assert not torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.backends.cuda.enable_flash_sdp(True)
        # PyTorch puts what is switched off last, and leaves it there.
        torch._C._set_sdp_priority_order(before)


def test_one_alone_is_taken_within() -> None:
    with attention_backends.only("math"):
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
