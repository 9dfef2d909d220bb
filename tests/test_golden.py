"""Emitted text, word for word, and that it computes what the same program does unfused.

`pytest tests/test_golden.py --update-golden` writes the goldens anew: read the difference before it is committed.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, compiled, emitted, graph_of, python, tdsl, written

GOLDEN = Path(__file__).resolve().parent / "golden"
PROGRAMS = sorted(p.stem for p in GOLDEN.glob("*.model"))


def _compiled(name: str, folder: Path, seed: str) -> dict[str, str]:
    """What `tdsl compile` writes of a golden program: with data beside it, so that nothing is unknown."""
    program = (GOLDEN / f"{name}.model").read_text(encoding="utf-8")
    folder.mkdir()
    (folder / f"{name}.model").write_text(program, encoding="utf-8")
    data = ROOT / "examples" / "data"
    (folder / "data").symlink_to(data)
    ran = tdsl("compile", f"{name}.model", "-o", "emitted", "--allow-outside", cwd=folder, PYTHONHASHSEED=seed)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return {p.name: p.read_text(encoding="utf-8") for p in sorted((folder / "emitted").glob("*.py"))}


@pytest.mark.parametrize("name", PROGRAMS)
def test_emitted_text(name: str, tmp_path: Path, update_golden: bool) -> None:
    found = _compiled(name, tmp_path / "a", "1")
    assert found == _compiled(name, tmp_path / "b", "2"), "the text depends on the hash seed"
    golden = GOLDEN / name
    if update_golden:
        for old in golden.glob("*.py"):
            old.unlink()
        written(found, golden)
    assert sorted(found) == sorted(p.name for p in golden.glob("*.py"))
    for file, text in found.items():
        assert text == (golden / file).read_text(encoding="utf-8"), f"{name}/{file}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_goldens_compile_without_warnings(name: str) -> None:
    for path in (GOLDEN / name).glob("*.py"):
        ran = python("-W", "error", "-c", f"compile(open({str(path)!r}).read(), 'm', 'exec')")
        assert ran.returncode == 0, ran.stderr
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", PROGRAMS)
def test_goldens_are_as_ruff_would_have_them(name: str) -> None:
    """By ruff's own rules, from the folder, with `kernels` and `tdsl` as the project's own modules."""
    for command in (("check", "--no-cache", "--extend-select", "I,UP,B,RET,SIM"), ("format", "--check", "--no-cache")):
        own = 'lint.isort.known-first-party = ["tdsl"]'
        options = ["--isolated", "--config", "line-length = 120", *(["--config", own] if command[0] == "check" else [])]
        ran = python("-m", "ruff", *command, *options, ".", cwd=GOLDEN / name)
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]


def test_goldens_compute_what_they_do_unfused(tmp_path: Path) -> None:
    """In Triton's interpreter, in one process for all."""
    ran = python("-m", "tests.test_golden", str(tmp_path), interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]


def test_a_norm_in_arithmetic_is_one_kernel_each_way() -> None:
    unit = compiled((GOLDEN / "rms_norm.model").read_text(encoding="utf-8"))
    text = emitted(unit)["kernels.py"]
    assert text.count("@triton.jit") == 2
    assert "def _rms_norm_forward(" in text
    assert "def _rms_norm_backward(" in text
    # The sum over programs that finishes the weight's gradient is the only other work.
    (backward,) = [line for line in text.splitlines() if line.strip().startswith("return d_x, ")]
    assert backward.count(".sum(0)") == 1
    assert [n.op.name for n in graph_of(unit, "Net").nodes] == ["group", "linear"]


# Run in the interpreter --------------------------------------------------------------------------------------------

EXECUTED = {"rms_norm": "Net", "residual_norm": "Block", "layer_norm_by_hand": "Net", "softmax_by_hand": "Attend",
            "branches": "Net", "tied": "Tied", "images": "Net", "normalise": "Encoder", "masks": "Masked",
             "mixture": "Mixture", "scalars": "Scaled", "long_rows": "Long", "rotary": "Rotary", "embeddings": "Net",
             "local_attention": "Net", "batch_norms": "Inverted", "residual_images": "Net",
             "labels": "Few"}  # fmt: skip


def _execute(folder: Path) -> int:
    import torch

    from tests.helpers import UNFUSED
    from tests.running import loaded

    torch.manual_seed(0)
    for name, module in EXECUTED.items():
        text = (GOLDEN / f"{name}.model").read_text(encoding="utf-8")
        fused = getattr(loaded(GOLDEN / name), module)()
        plain = getattr(loaded(written(emitted(compiled(text, UNFUSED)), folder / name)), module)()
        plain.load_state_dict(fused.state_dict())
        inputs = _inputs(compiled(text), module)
        outputs = [m(*inputs) for m in (fused, plain)]
        a, b = ([o] if isinstance(o, torch.Tensor) else list(o) for o in outputs)
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=2e-5, atol=2e-6)
        sum(o.square().sum() for o in a).backward()
        sum(o.square().sum() for o in b).backward()
        for (path, p), q in zip(fused.named_parameters(), plain.parameters(), strict=True):
            message = f"{name}: the gradient of {path}"
            torch.testing.assert_close(p.grad, q.grad, rtol=2e-4, atol=2e-5, msg=message)
    return 0


def _inputs(unit: object, module: str) -> list[object]:
    import torch

    from tdsl.compiler.build.unit import Unit

    assert isinstance(unit, Unit)
    graph = graph_of(unit, module)
    sizes = {s: graph.known.get(s, 6) for v in graph.inputs for d in v.type.shape for s in d.symbols()}
    found: list[object] = []
    for value in graph.inputs:
        shape = [d.substitute(sizes).constant for d in value.type.shape]
        made = torch.randint(0, 8, shape) if value.type.dtype == "i64" else torch.randn(shape)
        found.append(made > -0.5 if value.type.dtype == "bool" else made)
    return found


if __name__ == "__main__":
    raise SystemExit(_execute(Path(sys.argv[1])))
