"""From names to their declarations and back; renaming, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdsl.compiler.editor.analysis import analyze
from tdsl.compiler.editor.answers import Edit, Refused
from tdsl.compiler.editor.definition import definition, highlights, references, symbol_at
from tdsl.compiler.editor.rename import rename
from tdsl.compiler.editor.workspace import Workspace
from tests.editor import PATH, PROGRAMS, at, program, text_of


@pytest.mark.parametrize(
    ("use", "declared"),
    [
        ("scale  #", "scale: [dim]"),
        ("up(x)", "up   = Linear"),
        ("act(up", "act: fn"),
        ("dim)\n    down", "dim: int"),
        ("h |> down", "h = act"),
        ("down\n", "down = Linear"),
        ("WIDTH)", "WIDTH = 4"),
        ("Net(dim=", "Net(dim: int"),
        ("dim=WIDTH", "dim: int"),
        ("D]) -> float[B, D]", "D]) -> float[B, D]"),
        ("B, D] {", "B, D]) ->"),
        ("Digits\n", "Digits {"),
        ("batch.pixels)\n", "batch) {\n        scores"),
        ("pixels)\n", "pixels: float"),
        ("label)\n    }\n\n    opt", "label:  int"),
        ("model(batch.pixels)\n", "model = Net"),
        ("scores.std", "scores = model"),
        ("digits {\n    compare", "digits {\n    model"),
        ('label")\n    field pixels', "label:  int"),
        ('spread" }', "spread = scores"),
        ("model(batch.pixels), batch", "model = Net"),
        ("batch.label }", "batch) { return"),
    ],
)
def test_definition(use: str, declared: str) -> None:
    analysis, offset = at(use)
    found = definition(analysis, offset)
    assert found is not None
    assert analysis.source.text[found.start :].startswith(declared)


def test_built_ins_have_no_definition() -> None:
    for word in ("Linear(_", "csv(", "cross_entropy", "AdamW"):
        assert definition(*at(word)) is None


def test_each_use_and_declaration_of_a_name_names_the_same() -> None:
    """Go to definition, then references, comes back; in every program there is."""
    for path in PROGRAMS:
        analysis = analyze(str(path), text_of(path))
        assert analysis.index.occurrences
        for each in analysis.index.occurrences:
            assert each.span.text == each.symbol.name
            assert definition(analysis, each.span.start) == each.symbol.span
            spans = references(analysis, each.symbol)
            assert each.span in spans
            assert each.symbol.span in spans


def test_a_name_bound_again_hides_the_member_from_there_on() -> None:
    text = """module M(n: int) {
    norm = LayerNorm(n)
    forward(x: float[B, n]) -> float[B, n] {
        norm = norm(x)
        return norm
    }
}
"""
    analysis = analyze(PATH, text)
    member, local = text.index("norm = Layer"), text.index("norm = norm")
    starts = [span.start for span in highlights(analysis, member)]
    assert starts == [member, local + len("norm = ")]
    assert [span.start for span in highlights(analysis, local)] == [local, text.index("norm\n")]


# Rename --------------------------------------------------------------------------------------------------------------


def applied(text: str, edits: list[Edit]) -> str:
    for edit in sorted(edits, key=lambda each: -each.span.start):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


@pytest.mark.parametrize(
    ("word", "name", "count"),
    [
        ("WIDTH = 4", "SIZE", 2),
        ("twice(x", "double", 1),
        ("Net(dim: int", "Network", 2),
        ("dim: int", "width", 5),
        ("act: fn", "activation", 2),
        ("up   = Linear", "first", 2),
        ("scale: [dim]", "gain", 2),
        ("x: float[B, 64]", "image", 2),
        ("h = act", "hidden", 2),
        ("B, 64]) ->", "N", 2),
        ("Digits {", "Images", 2),
        ("pixels: float", "image", 3),
        ("label:  int", "target", 4),
        ("digits {\n    model", "run", 2),
        ("batch) {\n        scores", "rows", 3),
        ("scores = model", "logits", 3),
        ("spread = scores", "deviation", 2),
    ],
)
def test_rename(word: str, name: str, count: int) -> None:
    analysis, offset = at(word)
    edits = rename([], analysis, offset, name)
    assert len(edits) == count
    after = analyze(PATH, applied(analysis.source.text, edits))
    assert [d.code for d in after.diagnostics] == [d.code for d in analysis.diagnostics]
    assert all(edit.span.text != name for edit in edits)
    # And back again.
    (symbol,) = {each.symbol.key: each.symbol for each in after.index.occurrences if each.symbol.name == name}.values()
    back = rename([], after, symbol.span.start, edits[0].span.text)
    assert applied(after.source.text, back) == analysis.source.text


@pytest.mark.parametrize(
    ("word", "name", "why"),
    [
        ("h = act", "for", "keyword"),
        ("h = act", "lambda", "Python keyword"),
        ("h = act", "torch", "emitted code"),
        ("h = act", "höhe", "not a name"),
        ("h = act", "a b", "not a name"),
        ("h = act", "", "not a name"),
        ("h = act", "x", "meaning"),
        ("h = act", "down", "mistake"),
        ("up   = Linear", "down", "mistake"),
        ("up   = Linear", "train", "PyTorch module"),
        ("WIDTH = 4", "Digits", "mistake"),
        ("twice(x", "Net", "mistake"),
        ("B, 64]) ->", "b", "capitalised"),
        ("Net(dim: int", "Linear", "mistake"),
        ("scores = model", "cross_entropy", "mistake"),
        ("model = Net", "net", "name of the language"),
        ("Linear(_", "Dense", "declares"),
        ("h = act", "float", "dtype"),
    ],
)
def test_rename_is_refused(word: str, name: str, why: str) -> None:
    analysis, offset = at(word)
    with pytest.raises(Refused, match=why):
        rename([], analysis, offset, name)


def test_rename_in_every_program() -> None:
    """Each name of each program to one that is free: nothing is said that was not said before."""
    for path in PROGRAMS:
        analysis = analyze(str(path), text_of(path))
        for symbol in analysis.index.symbols:
            if symbol.name in ("model", "forward") and symbol.kind in ("model", "forward"):
                continue
            name = f"{symbol.name}_renamed"
            edits = rename([], analysis, symbol.span.start, name)
            after = analyze(str(path), applied(analysis.source.text, edits))
            assert len(after.diagnostics) == len(analysis.diagnostics), (path, symbol)
            if f'"{symbol.name}.*"' in analysis.source.text:  # what is frozen is so by its new name
                assert f'"{name}.*"' in after.source.text


GLOBS = """module Inner(dim: int) {
    head = Linear(dim, dim)
    other = Linear(dim, dim)
    forward(x: float[B, dim]) -> float[B, dim] { return other(relu(head(x))) }
}
module Net() {
    head = Linear(64, 8)
    heads = [Inner(8) for i in range(2)]
    down = Linear(8, 10)
    param weights: [8] = ones()
    forward(x: float[B, 64]) -> float[B, 10] { return down((head(x) |> heads) * weights) }
}
data Digits {
    source = csv("data/digits.csv")
    field pixels: float[64] = columns("p*")
    field label: int[] = column("label")
}
const LISTED = ["down.weight"]
train digits {
    model = Net()
    data = Digits
    teacher = Net()
    loss(batch) { return cross_entropy(model(batch.pixels) + teacher(batch.pixels), batch.label) }
    optimizer = AdamW(lr=1e-3)
    epochs = 1
    SETTING
}
"""


@pytest.mark.parametrize(
    ("setting", "word", "after"),
    [
        ('freeze = ["head.*"]', "head = Linear(64", 'freeze = ["new.*"]'),
        ('freeze = ["down", "head.weight"]', "head = Linear(64", 'freeze = ["down", "new.weight"]'),
        ('freeze = ["heads.?.head.*"]', "head = Linear(dim", 'freeze = ["heads.?.new.*"]'),
        ('freeze = ["heads.0.head.bias"]', "head = Linear(dim", 'freeze = ["heads.0.new.bias"]'),
        ('freeze = ["*.bias"]', "head = Linear(64", 'freeze = ["*.bias"]'),
        ('freeze = ["head.*"]', "head = Linear(dim", 'freeze = ["head.*"]'),
        ('freeze = ["head*"]', "head = Linear(dim", 'freeze = ["head*"]'),
        ('freeze = ["weights"]', "weights: [8]", 'freeze = ["new"]'),
        ('freeze = ["teacher.*"]', "teacher = Net", 'freeze = ["new.*"]'),
        ('freeze = ["teacher.head.*"]', "head = Linear(64", 'freeze = ["teacher.new.*"]'),
        ('group "head.*" { lr = 0 }\n    group "down" { lr = 1 }', "head = Linear(64",
         'group "new.*" { lr = 0 }\n    group "down" { lr = 1 }'),
        ('activation_checkpointing = ["heads"]', "heads = [", 'activation_checkpointing = ["new"]'),
    ],
)  # fmt: skip
def test_a_glob_follows_a_name_that_it_has_whole(setting: str, word: str, after: str) -> None:
    text = GLOBS.replace("SETTING", setting)
    analysis = analyze(PATH, text)
    found = analyze(PATH, applied(text, rename([], analysis, text.index(word), "new")))
    assert after in found.source.text
    assert [d.code for d in found.diagnostics] == [d.code for d in analysis.diagnostics]
    assert found.source.text.count("new") == len(rename([], found, found.source.text.index("new"), "newer"))


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ('freeze = ["hea?.*"]', "head = Linear(64"),
        ('freeze = ["head*"]', "heads = ["),
        ('freeze = ["*.head.*"]', "head = Linear(64"),  # of `teacher` that, and of `heads` another
        ("freeze = LISTED", "down = Linear"),
        ('group "d*" { lr = 0 }', "down = Linear"),
        ('activation_checkpointing = ["h*s.1"]', "heads = ["),
    ],
)
def test_a_name_that_a_glob_has_in_part_stays(setting: str, word: str) -> None:
    text = GLOBS.replace("SETTING", setting)
    analysis = analyze(PATH, text)
    with pytest.raises(Refused, match="change it first"):
        rename([], analysis, text.index(word), "new")


# Several files -------------------------------------------------------------------------------------------------------

BLOCKS = """# Doubles.
fn twice(x: float[B, D]) -> float[B, D] {
    return x + x
}

module Block(dim: int) {
    up = Linear(dim, dim)
    forward(x: float[B, dim]) -> float[B, dim] { return twice(up(x)) }
}
"""
MAIN = """import "blocks.model"

module Net(dim: int) {
    block = Block(dim=dim)
    forward(x: float[B, dim]) -> float[B, dim] { return twice(block(x)) }
}
"""
OTHER = """import "blocks.model"

fn four(x: float[B, D]) -> float[B, D] { return twice(twice(x)) }
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name, text in (("blocks", BLOCKS), ("main", MAIN), ("other", OTHER), ("apart", BLOCKS)):
        (tmp_path / f"{name}.model").write_text(text, encoding="utf-8")
    found = Workspace(folders=[str(tmp_path)])
    found.update(str(tmp_path / "main.model"), MAIN)
    return found


def test_definitions_lead_into_imported_files(workspace: Workspace, tmp_path: Path) -> None:
    analysis = workspace.analyses[str(tmp_path / "main.model")]
    assert not [d for d in analysis.diagnostics if d.severity == "error"]
    found = definition(analysis, MAIN.index("twice"))
    assert found is not None
    assert found.source.name == str(tmp_path / "blocks.model")
    assert found.start == BLOCKS.index("twice(x: ")
    opened = definition(analysis, MAIN.index("blocks.model"))
    assert opened is not None
    assert opened.source.name == str(tmp_path / "blocks.model")


@pytest.mark.parametrize("where", ["main.model", "blocks.model", "other.model"])
def test_rename_across_files(workspace: Workspace, tmp_path: Path, where: str) -> None:
    path = str(tmp_path / where)
    text = text_of(tmp_path / where)
    analysis = workspace.analysis(path)
    assert analysis is not None
    symbol = symbol_at(analysis, text.index("twice"))
    assert symbol is not None
    edits = rename(workspace.programs(symbol.span.source.name), analysis, text.index("twice"), "double")
    files = [Path(edit.span.source.name).name for edit in edits]
    assert sorted(files) == ["blocks.model"] * 2 + ["main.model"] + ["other.model"] * 2


def test_rename_sees_collisions_in_files_that_import(workspace: Workspace, tmp_path: Path) -> None:
    analysis = workspace.analysis(str(tmp_path / "blocks.model"))
    assert analysis is not None
    roots = workspace.programs(analysis.path)
    with pytest.raises(Refused, match="four"):
        rename(roots, analysis, BLOCKS.index("twice"), "four")


def test_open_files_are_checked_again_when_what_they_import_changes(workspace: Workspace, tmp_path: Path) -> None:
    path = str(tmp_path / "blocks.model")
    found = workspace.update(path, BLOCKS.replace("twice", "double"))
    assert [Path(each.path).name for each in found] == ["blocks.model", "main.model"]
    assert [d.code for d in found[1].diagnostics if d.severity == "error"] == ["E110"]
    (again,) = workspace.close(path)
    assert not [d for d in again.diagnostics if d.severity == "error"]


def test_members_and_arguments_of_other_modules() -> None:
    text = program(LOSS="other = model.up.weight")
    analysis = analyze(PATH, text)
    assert symbol_at(analysis, text.index("dim=WIDTH")) == symbol_at(analysis, text.index("dim: int"))
