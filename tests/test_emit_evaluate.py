"""The emitted `evaluate.py`: its text, and what it tells of a trained model when it is run."""

from __future__ import annotations

import ast
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

import tdsl.compiler.ops  # noqa: F401
from tdsl.compiler import pipeline
from tdsl.compiler.build.program import build
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.emit.data import emit_data
from tdsl.compiler.emit.evaluate import emit_evaluate, predict_function, unsupported
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.emit.predict import emit_predict
from tdsl.compiler.emit.python import block_lines
from tdsl.compiler.probe import probe
from tdsl.dsl.diagnostics import ProgramError
from tdsl.dsl.resolve import load
from tdsl.runtime import checkpoint, evaluation

ROOT = Path(__file__).resolve().parents[1]
DIGITS = Path(__file__).with_name("programs").joinpath("mlp.model").read_text()
SHARED = ROOT.parent / "shared" / "conformance"


def unit_of(text: str, folder: Path = ROOT / "examples") -> Unit:
    program, reporter = load(folder / "program.model", text=text, probe=probe)
    assert not reporter.errors, reporter.errors
    assert program is not None
    unit = build(program, reporter)
    assert unit is not None, reporter.errors
    return unit


def digits(compare: str, metrics: str, rest: str = "", field: str = "label:  int[]") -> Unit:
    text = DIGITS[: DIGITS.index("evaluate digits")].replace("label:  int[]", field)
    block = f"evaluate digits {{\n    compare(batch) {{ return {compare} }}\n    metrics = [{metrics}]\n{rest}}}\n"
    return unit_of(text + block)


def emitted(unit: Unit, name: str = "digits") -> str:
    return emit_evaluate(unit, unit.runs[name], unit.evaluations.get(name))


SCORES, BINARY = "model(batch.pixels)", "model(batch.pixels)[:, 0], batch.label.float()"
LABELS = f"{SCORES}, batch.pixels[:, 0:10]"


@pytest.mark.parametrize(
    ("compare", "metrics", "expected"),
    [
        (f"{SCORES}, batch.label", "Accuracy()", 'metrics.Accuracy(task="multiclass", num_classes=10)'),
        (f"{SCORES}, batch.label", 'F1Score(average="macro")', 'num_classes=10, average="macro")'),
        (f"softmax({SCORES}, dim=-1), batch.label", "AUROC()", "num_classes=10, from_logits=False)"),
        (BINARY, "AUROC()", 'metrics.AUROC(task="binary")'),
        (BINARY, 'F1Score(average="macro", threshold=0.3)', 'task="binary", threshold=0.3, average="macro")'),
        (f"sigmoid({SCORES}[:, 0]), batch.label", "ROC()", 'metrics.ROC(task="binary", from_logits=False)'),
        (LABELS, "AUROC()", 'metrics.AUROC(task="binary", num_labels=10)'),
        (LABELS, 'F1Score(average="macro")', 'task="binary", num_labels=10, average="macro")'),
        (LABELS, 'F1Score(average="micro")', 'metrics.F1Score(task="binary")'),
        (LABELS, "JaccardIndex()", 'task="binary", num_labels=10)'),
        (LABELS, 'JaccardIndex(average="micro")', 'metrics.JaccardIndex(task="binary")'),
        (LABELS, "ConfusionMatrix()", 'metrics.ConfusionMatrix(task="binary")'),
        (f"{SCORES}[:, 0:1], batch.pixels[:, 0:1]", "AUROC()", 'metrics.AUROC(task="binary")'),
        (BINARY, "MeanSquaredError(squared=false)", "metrics.MeanSquaredError(squared=False)"),
        (f"{SCORES}, batch.label", "Perplexity()", 'metrics.Perplexity(task="multiclass", num_classes=10)'),
    ],
)
def test_the_task_and_the_class_count_come_from_the_types(compare: str, metrics: str, expected: str) -> None:
    assert expected in emitted(digits(compare, metrics))


def test_probabilities_are_seen_in_fused_code_and_in_the_model() -> None:
    fused = pipeline.run(digits(f"sigmoid(2 * {SCORES}[:, 0] + 1), batch.label", "AUROC()"))
    assert 'metrics.AUROC(task="binary", from_logits=False)' in emitted(fused)
    text = DIGITS.replace("return down(dropout(h, 0.1))", "return softmax(down(h), dim=-1)")
    assert "num_classes=10, from_logits=False)" in emitted(pipeline.run(unit_of(text)))


@pytest.mark.parametrize(
    ("compare", "metrics"),
    [
        (f"{SCORES}, batch.label", "MeanSquaredError()"),
        (f"{SCORES}, batch.pixels[:, 0:9]", "Accuracy()"),
        (BINARY, "Perplexity()"),
        (f"{SCORES}, batch.label.float()", "Accuracy()"),
        (f"{SCORES}[:, 0:1], batch.label", "Accuracy()"),
        (f"{SCORES}, batch.label", "Precision(threshold=0.7)"),
        (f"{SCORES}, batch.label", "AUROC(max_fpr=0.1)"),
        (BINARY, 'AUROC(average="macro")'),
        (LABELS, "AUROC(max_fpr=0.1)"),
        (BINARY, "Accuracy(top_k=2)"),
        (BINARY, "MeanSquaredError(num_outputs=2)"),
        (f"{SCORES}, batch.pixels[:, 0:10]", "MeanAbsoluteError(num_outputs=9)"),
    ],
)
def test_metrics_that_do_not_fit_are_located_errors(compare: str, metrics: str) -> None:
    unit = digits(compare, metrics)
    (found,) = unsupported(unit, unit.runs["digits"], unit.evaluations["digits"])
    assert found.code == "E330"
    assert found.span is not None
    assert found.span.text == metrics
    assert found.help
    with pytest.raises(ProgramError):
        emitted(unit)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("y = model(batch.pixels)\n t = batch.label\n return y, t", ("y", "t")),
        ("truth = batch.label\n p = softmax(model(batch.pixels), dim=-1)\n return p, truth", ("p", "truth")),
        ("y = model(batch.pixels)\n t = y\n return y, t", ("y", "t")),
        ("return model(batch.pixels).argmax(-1), batch.label", ("prediction", "label")),
        ("return batch.label + 1", ("prediction",)),
        ("row = batch.label\n return row, row", ("row_0", "row_1")),
        ("pair = (model(batch.pixels), batch.label)\n return pair", None),
    ],
)
def test_results_are_called_as_the_program_calls_them(body: str, names: tuple[str, ...] | None) -> None:
    unit = pipeline.run(digits(f"{SCORES}, batch.label", "Accuracy()", f"    predict(batch) {{ {body} }}\n"))
    found = predict_function(unit.evaluations["digits"])
    assert found is not None
    assert len(set(found.names)) == found.returns.count("Tensor")
    assert found.names == names or names is None
    texts = emitted(unit), emit_predict(unit, unit.runs["digits"], unit.evaluations["digits"])
    for text in texts:
        assert text is not None
        assert all(f'"{name}"' in text for name in found.names)


def test_without_compare_a_run_is_evaluated_by_its_loss() -> None:
    alone = DIGITS[: DIGITS.index("evaluate digits")]
    unit = unit_of(f'{alone}evaluate digits {{ split = "val" }}\n')
    plain = emitted(unit_of(alone))
    assert "compare" not in plain
    assert "metrics" not in plain
    assert emitted(unit) == plain.replace("--split test", "--split val").replace('split="test"', 'split="val"')
    assert emit_predict(unit, unit.runs["digits"], unit.evaluations["digits"]) is None
    _, reporter = load("program.model", text=f"{alone}evaluate digits {{ metrics = [Accuracy()] }}\n")
    assert [each.code for each in reporter.errors] == ["E303"]


def test_the_text_is_the_same_every_time_and_strings_stay_strings() -> None:
    metrics = 'Accuracy(), Accuracy(top_k=5), CalibrationError(norm="l2")'
    first, again = (emitted(digits(f"{SCORES}, batch.label", metrics)) for _ in range(2))
    assert first == again
    ast.parse(first)
    evil = unit_of(DIGITS)
    object.__setattr__(evil.program.source, "name", 'x"""\n{{ 7 * 7 }}\\')
    assert len(ast.dump(ast.parse(emitted(evil)))) > 0
    assert "49" not in ast.get_docstring(ast.parse(emitted(evil)), clean=False)  # type: ignore[operator]


# The script, run --------------------------------------------------------------------------------------------------


def project(unit: Unit, name: str, folder: Path, data: Path) -> Path:
    """An emitted project with a checkpoint of an untrained model, as `train.py` would leave it."""
    run = unit.runs[name]
    out, here = folder / "run", folder / "run" / "emitted"
    here.mkdir(parents=True)
    body = "\n    ".join(block_lines(run.loss))
    models = ", ".join(run.models)
    files = {
        "model.py": model_text(unit),
        "data.py": emit_data(run.spec.data, unit.program.consts, root=os.path.relpath(data, here)),
        "evaluate.py": emitted(unit, name),
        "predict.py": emit_predict(unit, run, unit.evaluations.get(name)) or "",
        "train.py": f"import torch\nimport torch.nn.functional as F\n\n\ndef loss({models}, batch):\n    {body}\n",
    }
    for file, text in files.items():
        (here / file).write_text(text)
    space: dict[str, Any] = {}
    exec(compile(files["model.py"], "model.py", "exec"), space)
    torch.manual_seed(0)
    member = run.models["model"]
    model = space[member.class_name](**dict(member.args))
    checkpoint.write(out / "checkpoints", 7, models={"model": model}, tensors={}, state={}, program="text")
    (out / "log.jsonl").write_text('{"step": 5, "loss": 2.0, "lr": 0.1}\n{"step": 7, "loss": 1.5, "lr": 0.1}\n')
    return out


def start(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(out / "emitted" / "evaluate.py"), "--out", str(out), "--device", "cpu", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_digits_agree_with_scikit_learn(tmp_path: Path) -> None:
    predict = "    predict(batch) { return softmax(model(batch.pixels), dim=-1), batch.label }\n"
    metrics = 'Accuracy(), F1Score(average="macro"), AUROC(), ROC(), ConfusionMatrix(), CalibrationError()'
    out = project(digits(f"{SCORES}, batch.label", metrics, predict), "digits", tmp_path, ROOT / "examples")
    table = tmp_path / "p.csv"
    done = start(out, "--predict", str(table))
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "metrics.json").read_text())
    with table.open() as file:
        written = [list(map(float, row)) for row in list(csv.reader(file))[1:]]
    rows = [row[1:] for row in written]
    scores = torch.tensor([row[:10] for row in rows]).double()
    labels = [int(row[10]) for row in rows]
    assert found["rows"] == len(rows) == 269
    with (ROOT / "examples" / "data" / "digits.csv").open() as file:
        source = [int(row["label"]) for row in csv.DictReader(file)]
    assert [source[int(row[0]) - 1] for row in written] == labels
    assert found["checkpoint"]["step"] == 7
    chosen = scores.argmax(1).tolist()
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy_score(labels, chosen))
    assert found["metrics"]["f1_score"] == pytest.approx(f1_score(labels, chosen, average="macro"), abs=1e-6)
    truth = torch.eye(10)[labels]
    assert found["metrics"]["auroc"] == pytest.approx(roc_auc_score(truth, scores, average="macro"), abs=1e-6)
    loss = -scores[range(len(labels)), labels].log().mean()
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert "accuracy" in done.stdout.lower()
    assert (out / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--split", "dev"], 2, "there is no split `dev`"),
        (["--device", "abacus"], 2, "abacus"),
        ([], 1, "there is no checkpoint"),
        (["--checkpoint", "step-3"], 1, "step-3"),
    ],
)
def test_wrong_options_and_missing_checkpoints_are_told(
    options: list[str], status: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(job: evaluation.Job) -> None:
        raise AssertionError("nothing is evaluated")

    argv = ["--out", str(tmp_path), *options]
    assert evaluation.main("r", evaluate, out=tmp_path, split="test", splits=["train", "test"], argv=argv) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error


@pytest.mark.skipif(not SHARED.exists(), reason="needs the conformance programs beside the repository")
@pytest.mark.parametrize(("program", "name"), [("triplet", "triplet"), ("vae", "vae"), ("imbalanced", "screen")])
def test_conformance_programs(program: str, name: str, tmp_path: Path) -> None:
    unit = unit_of((SHARED / f"{program}.model").read_text(), SHARED)
    out = project(unit, name, tmp_path, SHARED)
    done = start(out)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "metrics.json").read_text())
    assert found["loss"] > 0
    assert set(found["tracked"]) == set(unit.runs[name].loss.tracked)
    if name == "screen":
        assert set(found["metrics"]) == {"accuracy", "precision", "recall", "f1_score", "auroc"}
        assert len(found["confusion_matrix"]) == 2


LONG = """
data D {
    source = image_folder("images")
    split  = random(train=0.5, test=0.5)
    field image: float[3, 32, 32] = column("image")
    field label: int[] = column("label")
    transform train image = [
        Resize([36, 36]), RandomCrop([32, 32]), RandomHorizontalFlip(), RandomVerticalFlip(), RandomRotation(10),
        ColorJitter(brightness=0.2, contrast=0.2), RandAugment(), GaussianBlur(3), ToTensor(), RandomErasing(),
        Normalize(mean=[0.48512345678, 0.456987654321, 0.40612345678], std=[0.2291234567891, 0.224123456789, 0.22512345]),
    ]
    transform test image = [Resize([32, 32]), ToTensor()]
}
module Net() {
    up = Linear(3 * 32 * 32, 2)
    forward(x: float[B, 3, 32, 32]) -> float[B, 2] { return x |> flatten(1) |> up }
}
train run {
    model = Net()
    a_teacher_with_a_name = Net()
    data = D
    freeze = ["a_teacher_with_a_name.*"]
    loss(batch) { return cross_entropy(model(batch.image) + a_teacher_with_a_name(batch.image), batch.label) }
    optimizer = SGD(lr=0.01)
    distributed = ddp()
    epochs = 1
}
evaluate run {
    predict(batch) {
        scores_of_all_classes = model(batch.image)
        RESULTS
    }
}
"""
SEVERAL = """probabilities_of_all_classes = softmax(scores_of_all_classes, dim=-1)
        the_best_of_all_the_classes = scores_of_all_classes.argmax(dim=-1)
        return scores_of_all_classes, probabilities_of_all_classes, the_best_of_all_the_classes"""


@pytest.mark.skipif(shutil.which("ruff", path=str(Path(sys.executable).parent)) is None, reason="ruff is not installed")
@pytest.mark.parametrize("results", ["return scores_of_all_classes", SEVERAL])
def test_long_lines_are_broken_as_a_formatter_breaks_them(results: str, tmp_path: Path) -> None:
    unit = unit_of(LONG.replace("RESULTS", results), tmp_path)
    run, evaluation = unit.runs["run"], unit.evaluations["run"]
    texts = {
        "data.py": emit_data(run.spec.data, {}),
        "evaluate.py": emit_evaluate(unit, run, evaluation),
        "predict.py": emit_predict(unit, run, evaluation),
    }
    for name, text in texts.items():
        assert text is not None
        (tmp_path / name).write_text(text)
        assert max(map(len, text.splitlines())) <= 120
    assert "            RandomHorizontalFlip(),\n" in str(texts["data.py"])
    ruff = str(Path(sys.executable).parent / "ruff")
    options = ["--isolated", "--line-length=120", "--diff", str(tmp_path)]
    ran = subprocess.run([ruff, "format", *options], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
