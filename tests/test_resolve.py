"""Programs resolved: names, constants, settings, data, options; and malformed ones by the thousand."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tdsl.compiler.probe import probe
from tdsl.dsl import kinds, signatures
from tdsl.dsl.kinds import Required
from tdsl.dsl.names import MODULE_ATTRIBUTES
from tdsl.dsl.program import Program
from tdsl.dsl.resolve import load

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
PROGRAMS = [*sorted((ROOT / "examples").glob("*.model")), *sorted((SHARED / "conformance").glob("*.model"))]

BASE = """\
const half = 1 / 2.0
module Net(dim: int = 4) { l = Linear(dim, 1) }
data Points {
    source = csv("points.csv")
    split  = random(train=0.8, val=0.1, test=0.1)
    field x: float[2] = columns("a", "b") / 2
    field label: int[] = column("kind")
}
train run {
    model = Net(dim=2)
    data = Points
    loss(batch) {
        track extra = batch.x.mean()
        return cross_entropy(model(batch.x), batch.label)
    }
    optimizer = AdamW(lr=half)
    epochs = 4
    EXTRA
}
evaluate run {
    compare(batch) { return model(batch.x), batch.label }
    metrics = [Accuracy()]
}
"""
Write = Callable[..., tuple[Program, list[str]]]


@pytest.fixture
def resolved(tmp_path: Path) -> Write:
    (tmp_path / "points.csv").write_text("a,b,kind\n" + "".join(f"{i},{i}.5,{i % 3}\n" for i in range(30)))

    def write(text: str, **options: Any) -> tuple[Program, list[str]]:
        (tmp_path / "p.model").write_text(text)
        program, reporter = load(tmp_path / "p.model", probe=probe, **options)
        assert program is not None
        return program, [each.code for each in reporter.diagnostics]

    return write


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_resolve(program: Path) -> None:
    resolved, reporter = load(program, probe=probe)
    assert reporter.diagnostics == []
    assert resolved is not None
    assert resolved.modules


def test_values_are_folded_and_arguments_ordered(resolved: Write) -> None:
    program, codes = resolved(
        BASE.replace("EXTRA", "scheduler = LinearLR(total_iters=1) |> CosineAnnealingLR(3, eta_min=1e-5)")
    )
    run = program.runs["run"]
    assert codes == []
    assert program.consts == {"half": 0.5}
    assert run.optimizer.args == {"lr": 0.5}
    assert [(each.name, each.args) for each in run.schedulers] == [
        ("LinearLR", {"total_iters": 1}), ("CosineAnnealingLR", {"T_max": 3, "eta_min": 1e-5}),
    ]  # fmt: skip
    assert run.settings["batch_size"] == 32
    assert program.data["Points"].fields[0].shape == (2,)
    assert program.evaluations["run"].metrics[0].name == "Accuracy"


@pytest.mark.parametrize(("fact", "value"), [("rows", 30), ("num_classes", 3)])
def test_facts_come_from_the_files(fact: str, value: int, resolved: Write) -> None:
    program, codes = resolved(BASE.replace("Net(dim=2)", f"Net(dim=2 * Points.{fact})").replace("EXTRA", ""))
    assert codes == []
    assert program.data["Points"].facts == {fact: value}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("epohcs = 3", ["E301"]),
        ("steps = 3", ["E317"]),
        ("batch_size = 0", ["E312"]),
        ("precision = bf61", ["E311"]),
        ("precision = bf16", []),
        ("scheduler = StepLR(gamma=0.5)", ["E303"]),
        ("scheduler = StepLR(1, gama=0.5)", ["E302"]),
        ("scheduler = StepLR(1, step_size=2)", ["E304"]),
        ("scheduler = OneCycleLR(max_lr=0.1)", ["W303"]),
        ("scheduler = OneCycleLR(max_lr=0.1, per=\"step\")", []),
        ("scheduler = OneCycleLR(max_lr=0.1, per=\"epoch\")", []),
        ("scheduler = CyclicLR(base_lr=0.1, max_lr=0.2)", ["W303"]),
        ("early_stopping { monitor = \"val/accuracy\" }", []),
        ("early_stopping { monitor = \"val/extra\" }", []),
        ("early_stopping { monitor = \"val/auroc\" }", ["E319"]),
        ("early_stopping { monitor = \"train/extra\" }", []),
        ("early_stopping { monitor = \"train/accuracy\" }", ["E319"]),
        ("logging { evry = 3 }", ["E301"]),
        ("loging { every = 3 }", ["E301"]),
        ("group \"*.bias\" { weight_decay = 0 }", []),
        ("group \"*.bias\" { momentum = 0 }", ["E301"]),
        ("teacher = Net(2)", []),
        ("ema = EMA(decay=1.5)", ["E312"]),
        ("ema = none", []),
        ("freeze = [\"l.*\", 3]", ["E311"]),
        ("distributed = ddp", ["E313"]),
        ("checkpoint { resume = auto }", []),
        ("seed = 1\n    seed = 2", ["E101"]),
        ("epohcs = 3\n    batch_size = 0\n    ema = EMA(1.5)", ["E301", "E312", "E312"]),
    ],
)  # fmt: skip
def test_settings_of_a_run(extra: str, expected: list[str], resolved: Write) -> None:
    assert resolved(BASE.replace("EXTRA", extra))[1] == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("absent.safetensors", ["W401"]),
        ("runs/other/weights.safetensors", ["W401"]),
        ("runs/run", ["W401"]),  # its own
        ("run\\nx", ["W401"]),
        ("points.csv", []),
        ("runs/base", []),
        ("runs/base/checkpoints/step-4", []),
    ],
)
def test_weights_that_are_not_there_are_told(path: str, expected: list[str], resolved: Write) -> None:
    base = "\ntrain base {" + BASE.replace("EXTRA", "").partition("train run {")[2].partition("\nevaluate")[0]
    assert "optimizer" in base
    assert resolved(BASE.replace("EXTRA", f'init_from = "{path}"') + base)[1] == expected


def test_weights_that_an_option_names_are_told_where_they_are_not_there(resolved: Write) -> None:
    text = BASE.replace("EXTRA", "")
    assert resolved(text, overrides={"init_from": '"absent"'})[1] == ["W401"]
    assert resolved(text, overrides={"init_from": '"points.csv"'})[1] == []
    assert resolved(text, overrides={"init_from": 'weights("absent", without=["l"])'})[1] == ["W401"]
    assert (
        resolved(text, overrides={"init_from": '["points.csv", weights("absent"), weights("no")]'})[1] == ["W401"] * 2
    )


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ('Accuracy(average="macro")', []),
        ('Accuracy(average="none")', ["E319"]),
        ("Accuracy(0.5, none)", ["E319"]),
        ("Accuracy(average=none)", ["E319"]),
        ("Accuracy(average=each)", ["E319"]),
        ('Accuracy(), Accuracy(average="none")', []),
        ('Accuracy(average="none"), Accuracy(top_k=2)', []),
        ("Accuracy(avrage=none)", ["E302"]),
    ],
)
def test_what_is_monitored_is_one_number(metric: str, expected: list[str], resolved: Write) -> None:
    text = BASE.replace("EXTRA", 'early_stopping { monitor = "val/accuracy" }')
    assert "Accuracy()" in text
    assert resolved(f'const each = "none"\n{text.replace("Accuracy()", metric)}')[1] == expected


@pytest.mark.parametrize(
    ("monitor", "help"),
    [
        ("train/accuracy", 'monitor "val/accuracy": metrics are computed on held-out rows'),
        ("test/accuracy", 'monitor "val/accuracy": a run never sees the rows of `test`, by which it is evaluated'),
        ("accuracy", 'monitor "val/accuracy"'),
        ("val/acuracy", "did you mean `val/accuracy`?"),
        ("distance", "what is logged is val/loss, val/extra, val/accuracy, train/loss, train/extra"),
    ],
)
def test_what_can_be_monitored_is_told(monitor: str, help: str, tmp_path: Path) -> None:
    text = BASE.replace("EXTRA", f'checkpoint {{ best = "{monitor}" }}')
    _, reporter = load(tmp_path / "p.model", text=text, probe=probe)
    (found,) = (each for each in reporter.errors if each.code == "E319")
    assert found.help == help
    # What is offered is taken.
    for name in (word.strip('":`,?') for word in help.split() if "/" in word):
        _, reporter = load(tmp_path / "p.model", text=text.replace(f'"{monitor}"', f'"{name}"'), probe=probe)
        assert "E319" not in [each.code for each in reporter.errors]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('column("kind")', 'column("kid")', "E402"),
        ('columns("a", "b")', 'columns("z*")', "E402"),
        ("float[2]", "float[3]", "E406"),
        ("test=0.1", "test=0.3", "E314"),
        ("AdamW(", "Adamw(", "E313"),
        ("Accuracy()", "Acuracy()", "E313"),
        ("evaluate run", "evaluate rum", "E116"),
        ("data = Points", "data = Point", "E112"),
        ("lr=half", "lr=haf", "E110"),
        ("lr=half", "lr=-1", "E312"),
        ("points.csv", "../points.csv", "W401"),
        ("Net(dim: int = 4)", "Net(self: int = 4)", "E102"),
        ("track extra =", "track lambda =", "E102"),
        ("l = Linear", "train = Linear", "E102"),
    ],
)
def test_mistakes(old: str, new: str, expected: str, resolved: Write) -> None:
    assert resolved(BASE.replace("EXTRA", "").replace(old, new))[1] == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('columns("a", "b") - tensor([1, 2])', []),
        ('2 * columns("a", "b") / tensor(0.5) - 1', []),
        ('columns("a", "b") * column("a")[:, none]', []),
        ('columns("a", "b") - tensor([1, 2, 3])', ["E406"]),
        ('columns("a", "b") * column("a")', ["E406"]),
        ('columns("a", "b") - columns("a", "b", "kind")', ["E406"]),
        ('column("a") - tensor([1, 2])', ["E406"]),
    ],
)
def test_both_sides_of_an_operator_in_a_field_fit(value: str, expected: list[str], resolved: Write) -> None:
    assert resolved(BASE.replace("EXTRA", "").replace('columns("a", "b") / 2', value))[1] == expected


def test_options_change_an_evaluation(resolved: Write) -> None:
    text = BASE.replace("EXTRA", 'checkpoint { best = "val/auroc" }')
    options = {"evaluate.metrics": '[AUROC(), F1Score(average="macro")]', "evaluate.split": '"val"'}
    program, codes = resolved(text, overrides=options)
    assert codes == []
    assert [each.name for each in program.evaluations["run"].metrics] == ["AUROC", "F1Score"]
    assert program.evaluations["run"].split == "val"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"evaluate.metrics": "[Acuracy()]"}, "E313"),
        ({"evaluate.split": '"vall"'}, "E311"),
        ({"evaluate.metric": "[Accuracy()]"}, "E301"),
        ({"evaluate.compare": "3"}, "E301"),
    ],
)
def test_options_of_an_evaluation_are_checked(option: dict[str, str], expected: str, resolved: Write) -> None:
    assert resolved(BASE.replace("EXTRA", ""), overrides=option)[1] == [expected]
    without = BASE.replace("EXTRA", "").partition("evaluate run")[0]
    assert resolved(without, overrides=option)[1] == ["E321"]


def test_options_are_checked_as_the_program_is(resolved: Write) -> None:
    text = BASE.replace("EXTRA", "checkpoint { keep = 2 }")
    options = {"optimizer.lr": "1e-3", "steps": "7", "checkpoint.every": "1", "logging.csv": "true", "model.dim": "8"}
    program, codes = resolved(text, overrides=options)
    run = program.runs["run"]
    assert codes == []
    assert run.optimizer.args == {"lr": 1e-3}
    assert (run.settings["steps"], run.settings["epochs"]) == (7, None)
    assert (run.sections["checkpoint"]["every"], run.sections["checkpoint"]["keep"]) == (1, 2)
    assert run.sections["logging"]["csv"] is True


@pytest.mark.parametrize(
    ("key", "value", "code", "column"),
    [
        ("optimizer.rl", "1", "E302", 11),
        ("batch_size", "0", "E312", 12),
        ("batch_sise", "1", "E301", 1),
        ("batch_size", "(", "E010", 12),
        ("batch_size", "", "E012", 12),
        ("a b", "1", "E321", 1),
        ("x.y", "1", "E321", 1),
        ("optimizr.lr", "1", "E321", 1),
        ("evaluate.split", '"vall"', "E311", 16),
        ("evaluate.metrics", "[Acuracy()]", "E313", 19),
        ("evaluate.metric", "[]", "E301", 10),
    ],
)
def test_mistakes_in_options_point_at_them(key: str, value: str, code: str, column: int, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("a,b,kind\n1,2.5,0\n")
    _, reporter = load(tmp_path / "p.model", text=BASE.replace("EXTRA", ""), overrides={key: value}, probe=probe)
    (found,) = reporter.errors
    assert found.code == code
    assert found.span is not None
    assert str(found.span) == f"--set:1:{column}"
    if key == "optimizr.lr":
        assert found.help == "did you mean `optimizer.lr`?"


@pytest.mark.parametrize("argument", ['task="multiclass"', "num_classes=10"])
def test_metrics_know_the_task(argument: str, tmp_path: Path) -> None:
    text = BASE.replace("EXTRA", "").replace("Accuracy()", f"Accuracy({argument})")
    _, reporter = load(tmp_path / "p.model", text=text, probe=probe)
    (found,) = reporter.errors
    assert (found.code, "leave it out" in str(found.help)) == ("E302", True)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("optimizer = AdamW(lr=half)", "optimizer = [SGD(lr=0.1), Adam()]", "E313"),
        ("EXTRA", "optimizer = Adam()", "E101"),
    ],
)
def test_a_run_has_one_optimizer(old: str, new: str, code: str, tmp_path: Path) -> None:
    _, reporter = load(tmp_path / "p.model", text=BASE.replace(old, new).replace("EXTRA", ""), probe=probe)
    (found,) = reporter.errors
    assert found.code == code
    assert 'group "critic.*"' in str(found.help)


@pytest.mark.parametrize(
    ("old", "new", "help"),
    [
        ("EXTRA", 'freeze = "l.*"', 'write `["l.*"]`'),
        ("EXTRA", "freeze = 3", 'such as `["text"]`'),
        ("EXTRA", 'scheduler = MultiStepLR(milestones="a")', "such as `[10, 20]`"),
        ("[Accuracy()]", "Accuracy()", "write `[Accuracy()]`"),
        ("Accuracy()", "AUROC(thresholds=1)", "such as `10`"),
    ],
)
def test_the_cure_of_another_kind_is_one_of_the_kind(old: str, new: str, help: str, tmp_path: Path) -> None:
    text = BASE.replace(old, new).replace("EXTRA", "")
    _, reporter = load(tmp_path / "p.model", text=text, probe=probe)
    (found,) = (each for each in reporter.errors if each.code in ("E311", "E312"))
    assert found.help == help


def test_imports(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "points.csv").write_text("x\n1.0\n2.0\n")
    (tmp_path / "sub" / "d.model").write_text(
        'import "../c.model"\ndata D {\n source = csv("points.csv")\n field x: float[] = column("x")\n}\n'
    )
    (tmp_path / "c.model").write_text("const c = 3\n")
    program, reporter = load(
        tmp_path / "m.model", text='import "sub/d.model"\nimport "c.model"\nconst n = D.rows + c\n', probe=probe
    )
    assert reporter.diagnostics == []
    assert program is not None
    assert program.consts["n"] == 5
    assert program.data["D"].sources["source"].args["path"] == "sub/points.csv"


def test_a_circle_of_imports(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_text('import "b.model"\n')
    (tmp_path / "b.model").write_text('import "a.model"\n')
    _, reporter = load(tmp_path / "a.model")
    assert [each.code for each in reporter.diagnostics] == ["E103"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"const a = 1\n\xe9", b"\0\0\0"])
def test_bytes_that_are_no_program(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.model").write_bytes(content)
    _, reporter = load(tmp_path / "p.model")
    assert reporter.errors
    assert load(tmp_path)[0] is None
    assert load(tmp_path / "absent.model")[1].errors[0].code == "E104"


def test_a_syntax_error_hides_no_other_mistake(resolved: Write) -> None:
    text = BASE.replace("EXTRA", "epohcs = 3").replace("const half = 1 / 2.0", "const half = 1 /")
    assert resolved(text)[1] == ["E012", "E301"]


# Signatures are PyTorch's -------------------------------------------------------------------------------------------

OWN = {"per", "monitor", "optimizer", "params", "self", "last_epoch", "verbose"}
# Arguments for speed or for callers in Python alone.
LEFT_OUT = {
    "foreach",
    "capturable",
    "differentiable",
    "fused",
    "decoupled_weight_decay",
    "maximize",
    "scale_fn",
    "scale_mode",
}


@pytest.mark.parametrize(
    ("table", "home"),
    [(signatures.OPTIMIZERS, torch.optim), (signatures.SCHEDULERS, torch.optim.lr_scheduler)],
    ids=["optimizers", "schedulers"],
)
def test_defaults_are_those_of_torch(table: dict[str, kinds.Signature], home: Any) -> None:
    for name, ours in table.items():
        if not hasattr(home, name):
            assert name in ("Lion", "WarmupCosine")
            continue
        theirs = inspect.signature(getattr(home, name)).parameters
        known = {arg.name: arg.default for arg in ours.args if arg.name not in OWN}
        assert known.keys() <= theirs.keys(), name
        assert theirs.keys() - known.keys() - OWN - LEFT_OUT == set(), name
        for key, default in known.items():
            expected = theirs[key].default
            assert default == (Required if expected is inspect.Parameter.empty else expected), f"{name}.{key}"


def test_members_replace_nothing_of_a_module() -> None:
    public = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
    assert public <= MODULE_ATTRIBUTES


# Malformed programs -------------------------------------------------------------------------------------------------

TOKEN = re.compile(r"[A-Za-z_]\w*|[0-9.e-]+|\"[^\"\n]*\"|\s+|.")


def mutated(rng: random.Random, text: str) -> str:
    """A program with one to four slips: tokens dropped, doubled, swapped or replaced, text cut or garbled."""
    tokens = TOKEN.findall(text)
    for _ in range(rng.randrange(1, 5)):
        i, j = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        kind = rng.randrange(6)
        if kind == 0:
            tokens[i] = ""
        elif kind == 1:
            tokens[i] *= rng.choice((2, 2, 100))
        elif kind == 2:
            tokens[i], tokens[j] = tokens[j], tokens[i]
        elif kind == 3:
            tokens[i] = tokens[j]
        elif kind == 4:
            tokens[i] = rng.choice(
                ["\0", "é", '"', "{", "}", "(", "1e999", "9" * 30, "none", "-1", "\\", "lambda", "//", "_"]
            )
        else:
            tokens = tokens[: max(i, 1)] if rng.random() < 0.2 else tokens
    return "".join(tokens)


@pytest.mark.parametrize("seed", range(4))
def test_malformed_programs(seed: int, tmp_path: Path) -> None:
    """No exception for any of 2,000 mutated programs, and each mistake with its code, line and column."""
    rng = random.Random(seed)
    (tmp_path / "points.csv").write_text("a,b,kind\n1,2.5,0\n2,3.5,1\n")
    texts = [
        (tmp_path, BASE.replace("EXTRA", "")),
        *((path.parent, path.read_text(encoding="utf-8")) for path in PROGRAMS),
    ]
    for _ in range(500):
        folder, text = rng.choice(texts)
        _, reporter = load(folder / "mutant.model", text=mutated(rng, text), probe=probe)
        for each in reporter.diagnostics:
            assert each.span is not None
            assert re.fullmatch(r"[EW]\d{3}", each.code)
            assert min(each.span.source.position(each.span.start)) >= 1
