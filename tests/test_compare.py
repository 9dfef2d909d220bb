"""`tdsl explain --compare eager`: as a command, as numbers, and where it can't count."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tdsl.compiler.driver import read
from tdsl.compiler.explain.compare import CATEGORIES, PHASES, Comparison, Operation, Tally, write
from tdsl.compiler.explain.show_compare import show, to_json
from tdsl.runtime.counting.step import count
from tests.helpers import ROOT, SHARED, tdsl

EXTERN = """
extern module Helper() : float[B, 8] -> float[B, 8] = "helper:Helper"
"""


def program(body: str = "return b(gelu(a(x) * 2.0))", members: str = "", top: str = "", run: str = "") -> str:
    return f"""{top}
module Net() {{
    a = Linear(8, 16)
    b = Linear(16, 4)
    {members}
    forward(x: float[B, 8]) -> float[B, 4] {{ {body} }}
}}
data D {{
    source = csv("d.csv")
    split = random(train=0.8, val=0.2, seed=0)
    field x: float[8] = columns("x*")
    field t: int[] = column("t")
}}
train r {{
    model = Net()
    data = D
    loss(batch) {{ return cross_entropy(model(batch.x), batch.t) }}
    optimizer = AdamW(lr=1e-3)
    steps = 10
    batch_size = 12
    {run}
}}
"""


def written(folder: Path, text: str) -> Path:
    """The program, and the head of its data."""
    head = ",".join(f"x{i}" for i in range(8))
    (folder / "d.csv").write_text(f"{head},t\n" + "1,2,3,4,5,6,7,8,1\n" * 20)
    (folder / "p.model").write_text(text)
    return folder / "p.model"


FOUND = Comparison(
    "p.model",
    "r",
    "bf16",
    12,
    (
        Operation("forward", "matrix products", "mm", Tally(2, 3000), Tally(2, 3000)),
        Operation("forward", "everything else", "gelu", Tally(3, 4096), Tally()),
        Operation("forward", "everything else", "_gelu_forward", Tally(), Tally(1, 1024)),
        Operation("backward", "attention", "_scaled_dot_product_flash_attention_backward", Tally(1, 7), Tally(1, 7)),
        Operation("clipping and optimizer", "everything else", "_foreach_add_", Tally(1, 5), Tally(1, 5)),
    ),
)


def shown(found: Comparison, width: int, operations: bool) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    show(found, operations, console)
    return console.export_text().splitlines()


def row(lines: list[str], name: str) -> list[str]:
    """The numbers of the first row of that name."""
    return next(line for line in lines if line.strip().startswith(name)).replace(name, "").split()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_has_phases_and_totals(width: int) -> None:
    lines = shown(FOUND, width, operations=False)
    assert row(lines, "forward") == ["5", "3", "1.67", "6.9", "KiB", "3.9", "KiB", "1.76"]
    assert row(lines, "matrix products") == ["2", "2", "1.00", "2.9", "KiB", "2.9", "KiB", "1.00"]
    assert row(lines, "everything else") == ["3", "1", "3.00", "4.0", "KiB", "1.0", "KiB", "4.00"]
    assert row(lines, "backward") == ["1", "1", "1.00", "7", "B", "7", "B", "1.00"]
    assert row(lines, "the step") == ["7", "5", "1.40", "6.9", "KiB", "3.9", "KiB", "1.76"]
    assert row(lines, "outside products and attention") == ["4", "2", "2.00", "4.0", "KiB", "1.0", "KiB", "3.99"]
    assert max(map(len, lines)) <= width
    assert "under autocast to bfloat16" in " ".join(lines)


def test_operations_are_listed_by_phase() -> None:
    lines = shown(FOUND, 80, operations=True)
    text = "\n".join(lines[next(i for i, line in enumerate(lines) if "what is launched" in line) :])
    assert text.index("gelu ") < text.index("_gelu_forward") < text.index("backward\n".strip())
    assert row(lines, "gelu") == ["3", "4.0", "KiB"]
    assert row(lines, "_gelu_forward") == ["1", "1.0", "KiB"]
    # A long name goes on below.
    assert "".join(line[:33].strip() for line in lines).count("_scaled_dot_product_flash_attention_backward") == 1


def test_json_has_what_the_text_has() -> None:
    told = json.loads(to_json(FOUND, ()))
    assert told["outside"] == {"eager": {"launches": 4, "bytes": 4101}, "compiled": {"launches": 2, "bytes": 1029}}
    assert [phase["phase"] for phase in told["phases"]] == list(PHASES)
    assert set(told["phases"][0]["categories"]) == set(CATEGORIES)
    assert [operation["name"] for operation in told["operations"]] == [o.name for o in FOUND.operations]
    for phase in told["phases"]:
        for side in ("eager", "compiled"):
            for what in ("launches", "bytes"):
                assert phase[side][what] == sum(each[side][what] for each in phase["categories"].values())


def compared(path: Path, *options: str) -> Any:
    ran = tdsl("explain", path, "--compare", "eager", "--format", "json", *options)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_program_is_counted_as_compiled_and_as_plain_pytorch(tmp_path: Path) -> None:
    told = compared(written(tmp_path, program()), "--set", "batch_size=6")
    assert (told["run"], told["precision"], told["rows"], told["diagnostics"]) == ("r", "f32", 6, [])
    operations = {(each["phase"], each["name"]): each for each in told["operations"]}
    h = 6 * 16 * 4
    assert operations["forward", "gelu"]["eager"] == {"launches": 1, "bytes": 2 * h}
    assert operations["forward", "gelu"]["compiled"] == {"launches": 0, "bytes": 0}
    (kernel,) = (each for (phase, name), each in operations.items() if name.endswith("gelu_forward"))
    assert kernel["compiled"] == {"launches": 1, "bytes": 2 * h}
    products = [each for each in told["operations"] if each["category"] == "matrix products"]
    assert products
    assert all(each["eager"] == each["compiled"] for each in products)


PROGRAMS = [
    path
    for folder in (ROOT / "examples", SHARED / "conformance")
    if folder.exists()
    for path in sorted(folder.glob("*.model"))
    if "\ntrain " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_program_with_a_run_is_counted(path: Path, tmp_path: Path) -> None:
    unit, _ = read(path)
    assert unit is not None
    (run,) = unit.runs
    folders = write(unit, run, path, tmp_path)
    plain, emitted = (count(folders[how], how).found for how in ("plain", "emitted"))
    for found in (plain, emitted):
        assert {kind.phase for kind in found} == set(PHASES)
    for phase in PHASES:
        launches = [sum(t.launches for k, t in f.items() if k.phase == phase) for f in (plain, emitted)]
        products = [
            sum(t.launches for k, t in f.items() if (k.phase, k.category) == (phase, "matrix products"))
            for f in (plain, emitted)
        ]
        assert min(launches) > 0
        assert products[1] <= products[0]


def test_what_can_not_be_counted_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, program("return b(gelu(a(h(x))))", "h = Helper()", EXTERN))
    ran = tdsl("explain", path, "--compare", "eager")
    assert ran.returncode == 1
    assert "a step of `r` can't be counted" in ran.stderr
    assert "No module named 'helper'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_modules_of_python_beside_the_program_are_found(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(
        "from torch import nn\n\n\nclass Helper(nn.Module):\n    def forward(self, x):\n        return x.tanh()\n"
    )
    told = compared(written(tmp_path, program("return b(gelu(a(h(x))))", "h = Helper()", EXTERN)))
    assert "tanh" in {each["name"] for each in told["operations"]}


WRONG = [
    (("--compare", "eager", "--module", "Net"), "it has no --module"),
    (("--compare", "eager", "--registers"), "it has no --registers"),
    (("--ops",), "add --compare eager"),
    (("s",), "no run `s`"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda value: str(value))
def test_options_that_do_not_go_together_are_told(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    ran = tdsl("explain", written(tmp_path, program()), *options)
    assert ran.returncode == 2
    assert message in ran.stderr


def test_a_file_without_a_run_has_no_step(tmp_path: Path) -> None:
    (tmp_path / "m.model").write_text(program().partition("\ndata")[0])
    ran = tdsl("explain", tmp_path / "m.model", "--compare", "eager")
    assert ran.returncode == 2
    assert "the file declares no run" in ran.stderr


def test_several_runs_need_a_name(tmp_path: Path) -> None:
    text = program()
    path = written(tmp_path, text + text[text.index("\ntrain r") :].replace("train r", "train s"))
    ran = tdsl("explain", path, "--compare", "eager")
    assert ran.returncode == 2
    assert "name one of: r, s" in ran.stderr
    assert json.loads(tdsl("explain", path, "s", "--compare", "eager", "--format", "json").stdout)["run"] == "s"
