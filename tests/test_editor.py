"""What an editor is told: errors as the command tells them, hover, completion, hints, fixes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdsl.compiler import probe
from tdsl.compiler.driver import read
from tdsl.compiler.editor import builtins, sections_doc
from tdsl.compiler.editor.actions import fixes
from tdsl.compiler.editor.analysis import analyze
from tdsl.compiler.editor.completion import complete
from tdsl.compiler.editor.hints import hints
from tdsl.compiler.editor.hover import hover
from tdsl.compiler.editor.outline import folds, outline
from tdsl.compiler.editor.signature import signature
from tdsl.compiler.editor.text import Text
from tests.editor import PATH, PROGRAMS, at, marked, program, text_of
from tests.helpers import ROOT


def labels(text: str) -> list[str]:
    """What is offered at the cursor of a text, the first first."""
    analysis, offset = marked(text)
    return [item.label for item in sorted(complete(analysis, offset).items, key=lambda item: item.rank)]


# Diagnostics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("broken", [None, ("return ", "return x."), ("Linear(", "Lienar(("), ("model = ", "model ")])
def test_errors_are_those_of_check(path: Path, broken: tuple[str, str] | None, tmp_path: Path) -> None:
    text = text_of(path)
    if broken is not None:
        text = text.replace(*broken, 1)
    found = analyze(str(path), text).diagnostics
    _, told = read(path, text=text)
    assert [(d.code, d.message, str(d.span), d.notes, d.help) for d in found] == [
        (d.code, d.message, str(d.span), d.notes, d.help) for d in told
    ]


def test_buffers_stand_for_files(tmp_path: Path) -> None:
    (tmp_path / "part.model").write_text("const SIZE = 3\n", encoding="utf-8")
    text = 'import "part.model"\nconst TWICE = 2 * OTHER\n'
    path = str(tmp_path / "main.model")
    assert [d.code for d in analyze(path, text).diagnostics] == ["E110"]
    assert not analyze(path, text, {str(tmp_path / "part.model"): "const OTHER = 3\n"}).diagnostics


def test_an_import_that_is_being_typed_is_read(tmp_path: Path) -> None:
    (tmp_path / "part.model").write_text("const SIZE = 3\n", encoding="utf-8")
    found = analyze(str(tmp_path / "main.model"), 'import "part.model\nconst TWICE = 2 * SIZE\n')
    assert [d.code for d in found.diagnostics] == ["E006", "E110"]
    assert "SIZE" in {symbol.name for symbol in found.index.symbols}


# Hover ---------------------------------------------------------------------------------------------------------------

HOVERS = [
    ("h = act(up", "h: float[B, dim]"),
    ("up(x))", "up = Linear(_, dim)\nup: Linear(in_features=64, out_features=dim)"),
    ("scale  #", "param scale: [dim] = ones()\nscale: float[dim]"),
    ("twice(x", "fn twice(x: float[B, D]) -> float[B, D]\n```\n\nTwice its input."),
    ("WIDTH)", "const WIDTH = 4 * 8\n= 32\n```\n\nHow wide it is."),
    ("Net(dim=", "module Net(dim: int, act: fn = relu) { forward(x: float[B, 64]) -> float[B, 10] }\n```\n\nA small"),
    ("dim=WIDTH", "dim: int"),
    ("model(batch.pixels)\n", "model = Net(dim=WIDTH)\nmodel(x: float[B, 64]) -> float[B, 10]"),
    ("batch) {\n        scores", "batch\nbatch.pixels: float[B, 64]\nbatch.label: int[B]"),
    ("std()", "std("),
    ("std()", "-> float[]"),
    ("down\n", "-> float[B, 10]"),
    ("model(batch.pixels)\n", "-> float[B, 10]"),
    ("cross_entropy", "cross_entropy(input: tensor, target: tensor"),
    ("cross_entropy", "log_softmax itself"),
    ("cross_entropy", "`torch.nn.functional.cross_entropy`"),
    ("AdamW", "`torch.optim.AdamW`"),
    ("lr=1e-3", "lr: a number of at least 0 = 0.001"),
    ("epochs ", "How often the data is gone through"),
    ("checkpoint", "When the run is saved"),
    ("best =", "whose best checkpoint stays"),
    ("Accuracy", "The share of predictions that are right"),
    ("csv(", "A file of comma-separated values"),
    ("fn twice", "A pure tensor function"),
    ("label\")\n    split", ""),
    ("spread = scores", "spread: float[]"),
    ("* scale", "float[B, dim]"),
    ("_, dim", "a size that the first call tells"),
    ("Linear(_", "`torch.nn.Linear`"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "wanted"), [case for case in HOVERS if case[1]], ids=lambda text: text[:20])
def test_hover(word: str, wanted: str) -> None:
    analysis, offset = at(word)
    found = hover(analysis, offset)
    assert found is not None
    assert wanted in found.text
    assert found.start <= offset <= found.end


@pytest.mark.parametrize("word", ["wide it is", "höher", "0.15, test"])
def test_there_is_nothing_to_say_of_comments_and_such(word: str) -> None:
    assert hover(*at(word)) is None


def test_hover_tells_what_columns_take() -> None:
    data = 'field y: float[] = standardized(column("p0", missing=0))'
    for word, wanted in (
        ("standardized", "over the rows of the train split"),
        ('column("p0", m', "for its missing values"),
    ):
        found = hover(*at(word, DATA=data))
        assert found is not None
        assert wanted in found.text


def test_hover_tells_facts_of_data() -> None:
    analysis, offset = at("num_classes", LOSS="n = Digits.num_classes")
    found = hover(analysis, offset)
    assert found is not None
    assert "Digits.num_classes: int = 10" in found.text


def test_functions_are_told_in_their_own_words() -> None:
    """Not in those of their callers, into which they are inlined."""
    analysis, offset = at("x + x", BODY="h = twice(h)")
    found = hover(analysis, offset)
    assert found is not None
    assert "x: float[B, D]" in found.text


# While it is being typed ---------------------------------------------------------------------------------------------

COMPLETIONS = [
    ({"BODY": "y = h.‸"}, ["reshape", "mean", "flatten"], ["Linear", "h"]),
    ({"BODY": "y = h.resh‸"}, ["reshape"], ["Linear"]),
    ({"BODY": "y = up(x).‸"}, ["reshape"], ["weight"]),
    ({"BODY": "y = up.‸"}, ["weight", "bias"], ["reshape"]),
    ({"BODY": "y = ‸"}, ["h", "x", "up", "scale", "dim", "B", "twice", "WIDTH", "softmax"], ["y", "AdamW"]),
    ({"BODY": "y = h |> ‸"}, ["up", "down", "act", "twice", "relu"], ["h", "x", "B", "WIDTH"]),
    ({"BODY": "y = softmax(‸"}, ["dim=", "h", "x"], ["y"]),
    ({"BODY": "y = softmax(h, ‸)"}, ["dim=", "dtype="], ["input="]),
    ({"BODY": "y = twice(‸)"}, ["x=", "h"], ["input="]),
    ({"BODY": 'y = mse_loss(h, h, reduction="‸"'}, ["mean", "sum", "none"], ["h"]),
    ({"BODY": "‸"}, ["return", "for", "if", "h"], ["Linear"]),
    ({"BODY": "if training {\n y = h.‸"}, ["reshape"], []),
    ({"LOSS": "y = batch.‸"}, ["pixels", "label"], ["reshape"]),
    ({"LOSS": "y = model(‸"}, ["x=", "batch"], []),
    ({"LOSS": "y = Digits.‸"}, ["num_classes", "rows"], ["pixels"]),
    ({"DATA": "‸"}, ["workers", "field", "transform"], ["source", "split", "optimizer"]),
    ({"DATA": 'field y: float[] = column("‸'}, ["p0", "label"], ["p*", "pixels"]),
    ({"DATA": 'field y: float[] = columns("p‸"'}, ["p0", "p*"], []),
    ({"DATA": 'field y: float[] = standardized(columns("p‸"'}, ["p0", "p*"], []),
    ({"DATA": "field y: float[] = sta‸"}, ["standardized"], []),
    ({"DATA": "field y: float[] = standardized(‸"}, ["column", "log"], ["Linear"]),
    ({"DATA": 'field y: float[] = column("p0", ‸'}, ["missing="], []),
    ({"DATA": 'field y: float[2] = columns("p0", "p1", ‸'}, ["missing="], []),
    ({"DATA": 'field y: float[] = column("p0", missing="‸'}, ["mean"], ["p0"]),
    ({"DATA": "field y: ‸"}, ["float", "int", "u8"], ["module", "fn"]),
    ({"DATA": "field y: float[‸"}, ["WIDTH"], ["B"]),
    ({"DATA": "field y: float[] = ‸"}, ["column", "columns"], ["softmax"]),
    ({"DATA": "val = ‸"}, ["csv", "parquet", "npz"], ["AdamW", "Digits"]),
    ({"DATA": 'val = csv("da‸"'}, ["data/"], []),
    ({"DATA": 'val = csv("data/‸"'}, ["data/digits.csv"], []),
    ({"DATA": 'val = csv("a.csv", ‸'}, ["delimiter="], ["path="]),
    ({"DATA": 'val = csv("a.csv", delimiter="‸"'}, [";", "\\t"], ["data/"]),
    ({"DATA": "val = csv(delimiter=‸"}, ['";"', '"\\t"'], []),
    ({"DATA": 'val = image_folder("a", mode="‸"'}, ["L", "RGB"], ["data/"]),
    ({"DATA": "transform train pixels = [‸"}, ["Normalize", "RandomCrop"], ["Accuracy"]),
    ({"RUN": "‸"}, ["scheduler", "precision", "logging", "group"], ["optimizer", "epochs", "loss", "checkpoint"]),
    ({"RUN": "optimizer = Ad‸"}, ["AdamW", "Adam", "SGD"], ["StepLR", "relu"]),
    ({"RUN": "scheduler = ‸"}, ["StepLR", "WarmupCosine"], ["AdamW"]),
    ({"RUN": "scheduler = StepLR(‸"}, ["step_size=", "gamma="], ["StepLR"]),
    ({"RUN": "scheduler = StepLR(step_size=3) |> ‸"}, ["CosineAnnealingLR"], ["WIDTH"]),
    ({"RUN": "scheduler = StepLR(3, per=‸"}, ['"step"', '"epoch"', "none"], []),
    ({"RUN": "precision = ‸"}, ["bf16", "f16", "f32"], ["AdamW"]),
    ({"RUN": "tf32 = ‸"}, ["true", "false"], ["none"]),
    ({"RUN": "teacher = ‸"}, ["Net", "Linear"], []),
    ({"RUN": "logging { ‸ }"}, ["every", "csv", "tensorboard"], ["keep"]),
    ({"RUN": "logging { every = 1, ‸"}, ["csv"], []),
    ({"RUN": 'early_stopping { monitor = "‸"'}, ["val/loss", "val/spread", "val/accuracy"], []),
    ({"RUN": 'group "*.bias" { ‸ }'}, ["weight_decay", "lr"], ["momentum"]),
    ({"RUN": "# optim‸"}, [], ["optimizer"]),
]


@pytest.mark.parametrize(("lines", "offered", "withheld"), COMPLETIONS, ids=lambda case: str(case)[:40])
def test_completion(lines: dict[str, str], offered: list[str], withheld: list[str]) -> None:
    found = labels(program(**lines))
    assert [word for word in offered if word not in found] == []
    assert [word for word in withheld if word in found] == []
    assert len(found) == len(set(found))


IRIS = 'data Iris {\n    source = csv("iris.csv")\n    field kind: int[] = FIELD\n}\n'


@pytest.mark.parametrize(
    ("field", "offered"),
    [
        ('categories("kind", ["‸', ['of \\"x\\"', "setosa", "virginica"]),
        ('categories("kind", ["‸"])', ['of \\"x\\"', "setosa", "virginica"]),
        ('categories("kind", ["setosa", "vir‸"])', ['of \\"x\\"', "virginica"]),
        ('categories("kind", ["setosa", "of \\"x\\"", ‸])', ['"virginica"']),
        ('categories("kind", ["virginica", "‸', ['of \\"x\\"', "setosa"]),
        ('categories("‸', ["kind", "other"]),
        ('categories("absent", ["‸', []),
        ('categories("kind" , values=["‸', ['of \\"x\\"', "setosa", "virginica"]),
    ],
)
def test_the_list_of_categories_is_completed_with_the_values(field: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "iris.csv").write_text('kind,other\nsetosa,1\nvirginica,2\nsetosa,3\n"of ""x""",4\n')
    analysis, offset = marked(IRIS.replace("FIELD", field), str(tmp_path / "iris.model"))
    found = {each.label for each in complete(analysis, offset).items}
    known = {"kind", "other", "setosa", "virginica", 'of \\"x\\"'}
    assert {each for each in found if each in known or each[1:-1] in known} == set(offered)


def test_many_values_and_large_files_are_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, path = IRIS.replace("FIELD", 'categories("kind", ["‸'), str(tmp_path / "iris.model")
    (tmp_path / "iris.csv").write_text("kind\n" + "".join(f"a{i}\n" for i in range(100)))
    assert complete(*marked(text, path)).items == ()
    (tmp_path / "iris.csv").write_text("kind\na\nb\n")
    assert [each.label for each in complete(*marked(text, path)).items] == ["a", "b"]
    monkeypatch.setattr(probe, "SMALL", 3)
    assert complete(*marked(text, path)).items == ()


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("‸", ["module", "train", "data", "const"]),
        ("mod‸", ["module"]),
        ("module M(a: ‸", ["int", "module", "fn"]),
        ("module M(a: int) {\n ‸\n}", ["forward", "param", "buffer"]),
        ("module M(a: int) {\n up = Lin‸\n}", ["Linear", "a"]),
        ("module M(a: int) {\n up = Linear(‸\n}", ["in_features=", "out_features=", "a"]),
        ("module M(a: int) {\n up = Linear(a, ‸)\n}", ["out_features=", "bias="]),
        ("module M(a: int) {\n param w: [‸\n}", ["a"]),
        ("module M(a: int) {\n param w: [a] = ‸\n}", ["zeros", "normal"]),
        ("module M(a: int) {\n forward(x: ‸\n}", ["float", "int"]),
        ("module M(a: int) {\n forward(x: float[B, ‸]) -> float[B] {\n return x }\n}", ["a", "B"]),
        ("const A = 1\nconst B = ‸", ["A"]),
        ("train a {\n}\nevaluate ‸", ["a"]),
        ('import "‸"', ["gpt.model", "data/"]),
        ("", []),
    ],
)
def test_completion_of_declarations(text: str, offered: list[str]) -> None:
    found = labels(text) if text else []
    assert [word for word in offered if word not in found] == []


def test_completion_replaces_what_is_typed() -> None:
    analysis, offset = marked(program(BODY="y = h.resh‸"))
    found = complete(analysis, offset)
    assert analysis.source.text[found.start : offset] == "resh"
    analysis, offset = marked(program(DATA='field y: float[] = column("la‸"'))
    assert analysis.source.text[complete(analysis, offset).start : offset] == "la"


def test_completion_tells_kinds_and_defaults() -> None:
    analysis, offset = marked(program(BODY="y = dropout(h, ‸)"))
    (p,) = [item for item in complete(analysis, offset).items if item.label == "p="]
    assert p.detail.endswith("= 0.5")


@pytest.mark.parametrize(
    "line", ["y = h.", "y = up(", "y = ", "y = (h +", "if training {", "y = h |>", "y = h[", "y =", "z", "y = 'a'", "}"]
)
def test_what_is_typed_hides_nothing_else(line: str) -> None:
    """Hints and hovers of everything but the line itself."""
    whole = analyze(PATH, program())
    found = analyze(PATH, program(BODY=line), {}, whole)
    expected = {hint.text for hint in hints(whole)}
    assert expected <= {hint.text for hint in hints(found)}
    place = found.source.text.index("batch.pixels)\n") + len("batch.")
    told = hover(found, place)
    assert told is not None
    assert "field pixels" in told.text


def test_a_run_that_lacks_its_optimizer_keeps_its_hints() -> None:
    whole = analyze(PATH, program())
    text = program().replace("AdamW(lr=1e-3)", "Ad")
    found = analyze(PATH, text, {}, whole)
    assert found.diagnostics
    assert {hint.text for hint in hints(whole)} == {hint.text for hint in hints(found)}


# Hints ---------------------------------------------------------------------------------------------------------------


def shown(text: str) -> str:
    """A text with its hints in it."""
    analysis = analyze(PATH, text)
    for hint in reversed(hints(analysis)):
        text = f"{text[: hint.offset]}«{hint.text}»{text[hint.offset :]}"
    return text


def test_hints_show_the_shape_of_every_binding() -> None:
    text = shown(program(BODY="a, b = h.chunk(2, dim=-1)\n n = size(h, 1)"))
    for line in (
        "const WIDTH = 4 * 8« = 32»",
        "up   = Linear(_« = 64», dim)",
        "h«: float[B, dim]» = act(up(x))",
        "a«: float[B, dim // 2]», b«: float[B, dim // 2]» = h.chunk",
        "n« = dim» = size(h, 1)",
        "scores«: float[B, 10]» = model(batch.pixels)",
        "track spread«: float[]» = scores.std()",
    ):
        assert line in text.replace("dim - dim // 2", "dim // 2"), text


def test_hints_of_stages_and_loops() -> None:
    text = shown(
        """module M(n: int) {
    blocks = [Linear(n, n) for i in range(3)]
    forward(x: float[B, n]) -> float[B, n] {
        y = x
            |> relu
            |> blocks
        for block in blocks { y = block(y) }
        return y
    }
}
"""
    )
    assert "|> relu«: float[B, n]»" in text
    assert "{ y«: float[B, n]» = block(y) }" in text


def test_hints_between_two_places() -> None:
    analysis = analyze(PATH, program())
    middle = analysis.source.text.index("data Digits")
    assert hints(analysis) == [*hints(analysis, 0, middle), *hints(analysis, middle + 1)]


# Signatures, outline, fixes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "label", "active"),
    [
        ({"BODY": "y = softmax(‸"}, "softmax(input: tensor, dim", 0),
        ({"BODY": "y = softmax(h, ‸"}, "softmax(input: tensor, dim", 1),
        ({"BODY": "y = softmax(h, dim=‸)"}, "softmax(input: tensor, dim", 1),
        ({"BODY": "y = h.softmax(‸)"}, "softmax(dim", 0),
        ({"BODY": "y = twice(‸"}, "twice(x: float[B, D])", 0),
        ({"BODY": "y = up(twice(h), ‸"}, "", None),
        ({"LOSS": "y = model(‸"}, "model(x: float[B, 64])", 0),
        ({"RUN": "scheduler = StepLR(step_size=2, ‸"}, "StepLR(step_size, gamma=0.1, per=none)", 1),
        ({"RUN": "teacher = Net(‸"}, "Net(dim: int, act: fn = relu)", 0),
    ],
    ids=str,
)
def test_signature(lines: dict[str, str], label: str, active: int | None) -> None:
    found = signature(*marked(program(**lines)))
    if not label:
        assert found is None or found.active is None
        return
    assert found is not None
    assert found.label.startswith(label)
    assert found.active == active
    for start, end in found.parameters:
        assert found.label[start:end].strip(", ()")


def test_outline_lists_declarations_and_their_parts() -> None:
    analysis = analyze(PATH, program())
    found = outline(analysis)
    assert [each.name for each in found] == ["WIDTH", "twice", "Net", "Digits", "digits", "digits"]
    assert [part.name for part in found[2].children] == ["up", "down", "scale", "forward"]
    for each in found:
        assert each.span.start <= each.name_span.start < each.name_span.end <= each.span.end
    assert len(folds(analysis)) >= 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cross_entropy", "cros_entropy"),
        ("AdamW(", "Adamw("),
        ("batch.label)", "batch.labl)"),
        ("epochs ", "epoch "),
        ("lr=1e-3", "lrr=1e-3"),
        ('by="label"', 'by="labl"'),
        ("Linear(_", "Linaer(_"),
        ("in_features=dim", "in_feature=dim"),
        ("model = Net", "model = Nett"),
        ("WIDTH)", "WIDHT)"),
        ("data  = Digits", "data  = Digit"),
        ('column("label")', 'column("labl")'),
        ("Digits {", "Digits {\n    wrkers = 2"),
    ],
)
def test_did_you_mean_is_a_fix(old: str, new: str) -> None:
    text = program().replace(old, new, 1)
    analysis = analyze(PATH, text)
    offers = fixes(analysis, 0, len(text))
    assert offers, [d.message for d in analysis.diagnostics]
    for offer in offers:
        span = offer.edit.span
        fixed = text[: span.start] + offer.edit.text + text[span.end :]
        if fixed in (program(), program().replace("Digits {", "Digits {\n    workers = 2", 1)):
            return
    raise AssertionError(offers)


def test_either_meaning_of_a_sum_before_a_pipe_is_a_fix() -> None:
    text = "fn f(x: [B, 4]) -> [B, 4] {{ return {} }}\n"
    analysis = analyze(PATH, text.format("x + x |> relu"))
    meant = []
    for offer in fixes(analysis, 0, len(analysis.source.text)):
        span = offer.edit.span
        meant.append(analysis.source.text[: span.start] + offer.edit.text + analysis.source.text[span.end :])
    assert meant == [text.format("(x + x) |> relu"), text.format("x + (x |> relu)")]
    assert all(not analyze(PATH, each).diagnostics for each in meant)


# Texts ---------------------------------------------------------------------------------------------------------------


def test_positions_are_counted_in_the_units_agreed_on() -> None:
    text = "aé𝟙b\r\nc\rd\n"
    places = {"utf-16": 4, "utf-8": 7, "utf-32": 3}
    for encoding, column in places.items():
        lines = Text(text, encoding)
        assert lines.position(3) == (0, column)
        assert lines.offset(0, column) == 3
        for offset in range(len(text) + 1):
            if text[offset - 1 : offset + 1] != "\r\n":
                assert lines.offset(*lines.position(offset)) == offset
        assert lines.offset(0, 99) == 4
        assert lines.offset(99, 0) == len(text)
        assert lines.offset(1, 99) == 7


# Documentation -------------------------------------------------------------------------------------------------------


def test_every_built_in_has_its_sentence() -> None:
    """One for a new name belongs in `functions_doc.py` or `sections_doc.py`."""
    tables = [builtins.functions(), builtins.layers(), builtins.initializers(), *builtins.of_sections().values()]
    assert [(each.group, name) for table in tables for name, each in table.items() if not each.doc] == []


def test_every_setting_has_its_sentence() -> None:
    from tdsl.dsl import signatures

    for args, docs in (
        (signatures.DATA_SETTINGS, sections_doc.DATA),
        (signatures.TRAIN_SETTINGS, sections_doc.TRAIN),
        (signatures.EVALUATE_SETTINGS, sections_doc.EVALUATE),
    ):
        assert [arg.name for arg in args if arg.name not in docs] == []
    for name, section in {**signatures.SECTIONS, **signatures.OPTIONAL_SECTIONS}.items():
        assert name in sections_doc.SECTIONS
        assert [arg.name for arg in section.args if f"{name}.{arg.name}" not in sections_doc.SECTIONS] == []


def test_pytorch_has_the_names_that_are_told() -> None:
    import torch

    unknown = []
    for table in (builtins.functions(), builtins.layers(), builtins.initializers()):
        for each in table.values():
            found: object = torch
            for part in each.torch.split(".")[1:] if each.torch else ():
                found = getattr(found, part, None)
            if found is None:
                unknown.append(each.torch)
    assert unknown == []


def test_the_editor_imports_nothing_heavy() -> None:
    """Its functions need neither torch nor the protocol's package."""
    for path in (ROOT / "compiler" / "editor").glob("*.py"):
        if path.stem not in ("server", "protocol"):
            text = text_of(path)
            assert "pygls" not in text, path
            assert "lsprotocol" not in text, path
