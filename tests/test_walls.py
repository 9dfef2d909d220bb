"""What imports what: `dsl` knows no compiler, `compiler` no torch, `runtime` neither; and start-up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What a folder never imports, not within a function either.
WALLS = {
    "dsl": {"torch", "triton", "numpy", "pyarrow", "tdsl.compiler", "tdsl.runtime", "tdsl.templates"},
    "compiler": {"torch", "triton", "tdsl.runtime", "lark"},
    "runtime": {"tdsl.dsl", "tdsl.compiler", "tdsl.templates", "lark"},
}
# What takes long to import: `check` and `compile` load none of it.
HEAVY = {"torch", "triton", "numpy", "pyarrow", "torchmetrics", "matplotlib", "rich", "safetensors", "lark"}


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The modules that statements import, and the packages that those are in."""
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} imports relatively"
            assert node.module is not None
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


@pytest.mark.parametrize("folder", WALLS)
def test_folders_import_only_what_they_may(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not set(imported(ast.walk(tree))) & WALLS[folder], path


def test_templates_hold_text_alone() -> None:
    assert [path for path in (ROOT / "templates").rglob("*.py") if path.read_text(encoding="utf-8").strip()] == []


@pytest.mark.parametrize("command", [["check"], ["compile", "-o", "OUT"]], ids=lambda words: words[0])
def test_commands_start_without_heavy_packages(command: list[str], tmp_path: Path) -> None:
    name, *rest = (str(tmp_path) if word == "OUT" else word for word in command)
    script = f"""
import sys
from tdsl.compiler.cli import main
status = main({[name, str(ROOT / "examples" / "digits.model"), *rest]!r})
print(status, *sorted({{name.partition(".")[0] for name in sys.modules}} & {HEAVY!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert done.stdout.splitlines()[-1] == "0", done.stdout
