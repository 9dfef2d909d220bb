"""Open files and their analyses, kept fresh as files change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tdsl.compiler.editor.analysis import Analysis, analyze

MOST_FILES = 500
SKIPPED = frozenset(["runs", "node_modules", "build", "dist", "__pycache__"])


@dataclass
class Workspace:
    """The files that are open in an editor. Paths are absolute."""

    buffers: dict[str, str] = field(default_factory=dict)
    analyses: dict[str, Analysis] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    def update(self, path: str, text: str) -> list[Analysis]:
        """Take the text of an open file; what it and the open files that import it are now."""
        self.buffers[os.path.realpath(path)] = text
        before = self.analyses.get(path)
        self.analyses[path] = analyze(path, text, self.buffers, before)
        return [self.analyses[path], *(self.refresh(other) for other in self.importers(path))]

    def refresh(self, path: str) -> Analysis:
        """Analyse an open file again, as one that it reads has changed."""
        old = self.analyses[path]
        self.analyses[path] = analyze(path, old.source.text, self.buffers, old)
        return self.analyses[path]

    def close(self, path: str) -> list[Analysis]:
        """Forget an open file; what the open files that import it are with its text on disk."""
        self.buffers.pop(os.path.realpath(path), None)
        self.analyses.pop(path, None)
        return [self.refresh(other) for other in self.importers(path)]

    def analysis(self, path: str) -> Analysis | None:
        """The analysis of a file, read from disk where it is not open; None where it can't be."""
        if path in self.analyses:
            return self.analyses[path]
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        return analyze(path, text, self.buffers)

    def importers(self, path: str) -> list[str]:
        """The open files that import a file, directly or not."""
        real = os.path.realpath(path)
        return [other for other, each in self.analyses.items() if other != path and real in each.imported]

    def programs(self, path: str) -> list[Analysis]:
        """The analyses of all programs that a file is part of: its own, and those that import it."""
        real = os.path.realpath(path)
        found = {path: self.analysis(path)}
        for other in (*self.analyses, *self._on_disk()):
            if other not in found and (each := self._importing(other, real)) is not None:
                found[other] = each
        return [each for each in found.values() if each is not None]

    def _importing(self, path: str, real: str) -> Analysis | None:
        if path not in self.analyses and not _imports(path):
            return None
        found = self.analysis(path)
        return found if found is not None and real in found.imported else None

    def _on_disk(self) -> Iterator[str]:
        """The programs below the workspace's folders."""
        seen = 0
        for folder in self.folders:
            for root, names, files in os.walk(folder):
                names[:] = [name for name in sorted(names) if name not in SKIPPED and not name.startswith(".")]
                for name in sorted(files):
                    if name.endswith(".model") and seen < MOST_FILES:
                        seen += 1
                        yield os.path.join(root, name)


def _imports(path: str) -> bool:
    """Whether a file may import another."""
    try:
        return "import" in Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
