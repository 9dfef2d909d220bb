"""`tdsl export`: files that others load, and that they compute what the model does."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tdsl.runtime import export
from tdsl.runtime.run import Failure
from tests.helpers import environment, python, tdsl

# A batch norm that evaluation does not update, a norm that is a kernel, a random layer, and further inputs.
PROGRAM = """module Net(width: int = 12) {
    conv = Conv2d(1, width, 3, padding=1, bias=false)
    norm = BatchNorm2d(width)
    head = Linear(width, 3)
    forward(image: float[B, 1, 5, 5], scale: float[B]) -> float[B, 3] {
        h = relu(norm(conv(image))).mean(dim=(2, 3))
        y = h * rsqrt(mean(h ** 2, dim=-1, keepdim=true) + 1e-6)
        return head(dropout(y, 0.5)) * scale.unsqueeze(-1)
    }
}
module Noisy() {
    head = Linear(25, 3)
    forward(image: float[B, 1, 5, 5]) -> float[B, 3] {
        h = head(image.flatten(1))
        return h + randn_like(h)
    }
}
data Images {
    source = npz("images.npz")
    split  = sequential(train=0.5, test=0.5)
    field image: float[1, 5, 5] = column("image")
    field scale: float[]        = column("scale")
    field label: int[]          = column("label")
}
train net {
    model = Net()
    data  = Images
    loss(batch) { return cross_entropy(model(batch.image, batch.scale), batch.label) }
    optimizer  = AdamW(lr=1e-2)
    steps      = 5
    batch_size = 16
}
train noisy {
    model = Noisy()
    data  = Images
    loss(batch) { return cross_entropy(model(batch.image), batch.label) }
    optimizer  = SGD(lr=1e-2)
    steps      = 1
    batch_size = 16
}
"""
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    draw = np.random.default_rng(0)
    images, scale = draw.normal(size=(60, 1, 5, 5)).astype(np.float32), draw.uniform(1, 2, 60).astype(np.float32)
    np.savez(folder / "images.npz", image=images, scale=scale, label=np.arange(60) % 3)
    (folder / "net.model").write_text(PROGRAM)
    for run in ("net", "noisy"):
        ran = tdsl("train", "net.model", run, "--device", "cpu", cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def exported(folder: Path, format: str, *options: str | Path, run: str = "net", status: int = 0) -> str:
    ran = tdsl("export", "net.model", run, "--format", format, *options, cwd=folder)
    assert ran.returncode == status, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stdout + ran.stderr


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 1, 5, 5, generator=generator), torch.rand(rows, generator=generator)


def by_hand(weights: dict[str, Tensor], image: Tensor, scale: Tensor) -> Tensor:
    """The model in evaluation, by PyTorch's functions."""
    h = torch.nn.functional.conv2d(image, weights["conv.weight"], padding=1)
    norm = (weights[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    h = torch.nn.functional.batch_norm(h, *norm).relu().mean(dim=(2, 3))
    y = h * torch.rsqrt((h**2).mean(-1, keepdim=True) + 1e-6)
    return torch.nn.functional.linear(y, weights["head.weight"], weights["head.bias"]) * scale.unsqueeze(-1)


def weights(folder: Path, run: str = "net", step: int = 5) -> dict[str, Tensor]:
    return load_file(folder / f"runs/{run}/checkpoints/step-{step}/model.safetensors")


def test_weights_alone(trained: Path) -> None:
    kept = weights(trained)
    told = exported(trained, "state_dict")
    assert "net.pt: state_dict of step-5" in told
    assert "compared with the model on 16 rows: the largest difference is 0, of 0 times" in told
    exported(trained, "safetensors", "-o", "w.safetensors")
    for found in (torch.load(trained / "net.pt", weights_only=True), load_file(trained / "w.safetensors")):
        assert found.keys() == kept.keys()
        assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_the_whole_module_beside_its_classes(trained: Path, tmp_path: Path) -> None:
    told = exported(trained, "module", "-o", tmp_path / "net.bin")
    assert "`model.py`" in told
    code = (
        f"import sys, torch; m = torch.load({str(tmp_path / 'net.bin')!r}, weights_only=False); "
        f"print(type(m).__name__, m.training, tuple(m(torch.ones(7, 1, 5, 5), torch.ones(7)).shape))"
    )
    ran = python("-c", code, PYTHONPATH=environment(PYTHONPATH=str(trained / "runs/net/emitted"))["PYTHONPATH"]
                 + f":{Path(__file__).parent.parent / 'src'}")  # fmt: skip
    assert ran.stdout == "Net False (7, 3)\n", ran.stderr


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_a_program_takes_any_number_of_rows(rows: int, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = trained / "net.pt2"
    if not file.exists():
        assert "the largest difference is" in exported(trained, "pt2")
    program = torch.export.load(file)
    found = program.module()(*inputs(rows))
    torch.testing.assert_close(found, by_hand(weights(trained), *inputs(rows)), rtol=1e-4, atol=1e-5)
    assert "triton" not in str(program.graph).lower()
    assert "tdsl" not in str(program.graph).lower()


def test_averaged_weights_are_those_exported(trained: Path, tmp_path: Path) -> None:
    from tdsl.runtime import checkpoint

    kept = weights(trained)
    averaged = {name: value * 2 if name == "head.weight" else value for name, value in kept.items()}
    net = torch.nn.Linear(1, 1)
    checkpoint.write(tmp_path, 9, models={"model": net}, tensors={"ema": averaged}, state={}, program=PROGRAM)
    exported(trained, "safetensors", "--checkpoint", tmp_path / "step-9", "-o", tmp_path / "w.safetensors")
    assert torch.equal(load_file(tmp_path / "w.safetensors")["head.weight"], 2 * kept["head.weight"])


def test_data_that_processes_read_are_read_without_them(trained: Path) -> None:
    """PyTorch forks as it compares, and what is forked would tell that these are not its children."""
    told = exported(trained, "state_dict", "-o", "workers.pt", "--set", "data.workers=2")
    assert "workers.pt: state_dict" in told
    assert "Exception ignored" not in told


@pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")
def test_onnx(trained: Path) -> None:
    import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

    assert "the largest difference is" in exported(trained, "onnx")
    session = onnxruntime.InferenceSession(trained / "net.onnx", providers=["CPUExecutionProvider"])
    for rows in (1, 9):
        given = dict(zip([each.name for each in session.get_inputs()], map(Tensor.numpy, inputs(rows)), strict=True))
        (found,) = session.run(None, given)
        torch.testing.assert_close(torch.tensor(found), by_hand(weights(trained), *inputs(rows)), rtol=1e-4, atol=1e-5)


def test_without_the_packages_of_onnx_it_is_told_how_to_get_them(trained: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = sys.modules['onnxscript'] = None; "
        "from tdsl.runtime.export import main; sys.exit(main())"
    )
    nowhere = [word for name in ("emitted", "plain", "output") for word in (f"--{name}", "x")]
    rest = ["--out", trained / "runs/net", "--checkpoint", "last", "--format", "onnx"]
    rest += ["--precision", "f32", "--device", "cpu", "--model", "model"]
    ran = python("-c", code, *nowhere, *rest)
    assert ran.returncode == 1
    assert "onnxscript, onnxruntime" in ran.stderr
    assert "pip install" in ran.stderr


def test_a_model_that_draws_is_compared_by_its_shapes(trained: Path) -> None:
    assert "values were not compared" in exported(trained, "pt2", run="noisy")
    assert "the largest difference is 0" in exported(trained, "state_dict", run="noisy")


class Latent(nn.Module):
    """Draws for one of its outputs, as an autoencoder of distributions does."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + torch.randn_like(x), 2 * x


def test_of_outputs_that_draw_alone_are_values_left_out() -> None:
    nowhere = Path("a.pt2")
    job = export.Job(nowhere, nowhere, nowhere, "model", nowhere, "pt2", "f32", torch.device("cpu"))
    x = (torch.rand(6, 3),)
    sample = export.Sample(x, x, x)
    told = export._compared(job, Latent(), sample, lambda given: (given[0], 2 * given[0]))
    assert told.startswith("the largest difference is 0, ")
    assert "of output 0, which random numbers go into, the shape alone was compared" in told
    with pytest.raises(Failure, match="output 1 of what was written differs by"):
        export._compared(job, Latent(), sample, lambda given: (given[0], 3 * given[0]))


def test_a_file_that_differs_is_not_kept(trained: Path, tmp_path: Path) -> None:
    """Weights that are doubled as they are written."""
    (tmp_path / "net.model").write_text(PROGRAM)
    (tmp_path / "images.npz").symlink_to(trained / "images.npz")
    (tmp_path / "runs").symlink_to(trained / "runs")
    code = (
        "import copy, sys, torch; save = torch.save\n"
        "def wrong(model, file):\n    model = copy.deepcopy(model)\n"
        "    [value.mul_(2) for value in model.state_dict().values()]\n    save(model, file)\n"
        "torch.save = wrong\nfrom tdsl.runtime import export\nsys.exit(export.main(sys.argv[1:]))"
    )
    made = tdsl("compile", "net.model", "--run", "net", "-o", tmp_path / "emitted", "--allow-outside", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    given = {
        "emitted": tmp_path / "emitted", "plain": tmp_path / "emitted", "output": tmp_path / "net.pt",
        "out": trained / "runs/net", "checkpoint": "last", "format": "module", "precision": "f32", "device": "cpu",
        "model": "model",
    }  # fmt: skip
    ran = python("-c", code, *[word for key, value in given.items() for word in (f"--{key}", str(value))])
    assert ran.returncode == 1, ran.stdout
    assert "differs by" in ran.stderr
    assert not list(tmp_path.glob("*.pt"))
    assert not list(tmp_path.glob(".net*"))


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--checkpoint", "step-77"], 1, "is no checkpoint"),
        (["--model", "teacher"], 2, "has no model `teacher`"),
        (["-o", "net.zip"], 2, ".pt2"),
        (["-o", "nowhere/net.pt2"], 1, "nowhere"),
        (["--device", "abacus"], 2, "abacus"),
    ],
)
def test_wrong_options(options: list[str], status: int, told: str, trained: Path) -> None:
    assert told in exported(trained, "pt2", *options, status=status)


def test_a_record_of_the_run_names_its_models(trained: Path) -> None:
    record = json.loads((trained / "runs/net/emitted/program.json").read_text())
    assert list(record["models"]) == ["model"]


def test_the_command_imports_no_torch(trained: Path) -> None:
    """What needs it runs in a process of its own."""
    code = (
        "import sys; from tdsl.compiler.commands import process\n"
        "process.call = lambda *a, **k: print('torch' in sys.modules) or 0\n"
        "from tdsl.compiler.cli import main; sys.exit(main(['export', 'net.model', 'net', '--format', 'pt2']))"
    )
    ran: subprocess.CompletedProcess[str] = python("-c", code, cwd=trained)
    assert ran.stdout == "False\n", ran.stderr
