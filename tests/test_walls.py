"""What imports what: `dsl` knows no compiler, `compiler` no torch, `runtime` neither; no circles; start-up is light."""

from __future__ import annotations

import ast
import graphlib
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
HEAVY = {"torch", "triton", "numpy", "pyarrow", "torchmetrics", "rich", "safetensors", "lark"}


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


def needed(module: str, path: Path, modules: Iterable[str]) -> set[str]:
    """The modules that must have run before this one: those that it imports and their packages, less its own."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        if isinstance(node, ast.ImportFrom):
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            # Of its own package a module may import others as they come to be, but no name that the package defines.
            names = within & {*modules} | ({str(node.module)} if within - {*modules} else set())
        found |= names | {name for name in imported([node]) if not f"{module}.".startswith(f"{name}.")}
    return found & {*modules}


@pytest.mark.parametrize("folder", WALLS)
def test_any_module_can_be_imported_first(folder: str) -> None:
    """A circle breaks when it is entered at the wrong place, which the order of other imports may hide."""
    paths = {path.relative_to(ROOT).with_suffix(""): path for path in (ROOT / folder).rglob("*.py")}
    modules = {".".join(("tdsl", *name.parts)).removesuffix(".__init__"): path for name, path in paths.items()}
    graph = {module: needed(module, path, modules) for module, path in modules.items()}
    assert [*graphlib.TopologicalSorter(graph).static_order()]


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
