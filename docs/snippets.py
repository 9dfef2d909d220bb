"""The programs in the pages of the reference, and the words that surround the short ones.

A fenced block whose language is `tdsl` is a whole program. Further words say what else it is:

- `tdsl body`: statements of a `forward`. A comment above it, `<!-- given: ... -->`, has the members and the head of
  that `forward`. Without a `return` it returns its first input.
- `tdsl data`, `tdsl train`, `tdsl evaluate`: entries of such a section; what they leave out is filled in.
- `tdsl file NAME`: a file that later programs of the page import.
- `... error E203`: it has this error and no other; `... warning W201`: so with a warning.

A comment behind a statement that is a type, `# float[B, 64]`, is the type of what the line binds.
"""

from __future__ import annotations

import ast as python
import gzip
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tdsl.compiler import pipeline
from tdsl.compiler.build.program import build
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.build.values import Semantic
from tdsl.compiler.driver import read
from tdsl.compiler.editor.describe import kind_of
from tdsl.compiler.emit import project
from tdsl.compiler.ir import Value
from tdsl.compiler.probe import probe
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Diagnostic, Reporter
from tdsl.dsl.resolve import load

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(
    r"(?:^<!-- given:\n?(?P<given>.*?)-->\n+)?^```tdsl(?P<words>[^\n]*)\n(?P<text>.*?)^```$", re.S | re.M
)
TYPED = re.compile(r"#\s*((?:float|int|bool|[fiu]\d+|bf16)\[.*?)\s*$")
# What sections are filled up with.
NET = """
module Net(hidden: int = 32, classes: int = 10) {
    up   = Linear(64, hidden)
    down = Linear(hidden, classes)

    forward(x: float[B, 64]) -> float[B, classes] { return x |> up |> relu |> down }
}
"""
DIGITS = """
data Digits {
    source = csv("data/digits.csv")
    split  = random(train=0.7, val=0.15, test=0.15, seed=0)
    field pixels: float[64] = columns("p*") / 16
    field label: int[] = column("label")
}
"""
TRAIN = {
    "model": "model = Net()",
    "data": "data = Digits",
    "loss": "loss(batch) { return cross_entropy(model(batch.pixels), batch.label) }",
    "optimizer": "optimizer = AdamW(lr=1e-3)",
    "epochs": "epochs = 10",
}
DATA = {"source": 'source = csv("points.csv")', "field": 'field x: float[] = column("x")'}
EVALUATE = {
    "compare": "compare(batch) { return model(batch.pixels), batch.label }",
    "metrics": "metrics = [Accuracy()]",
}


@dataclass(frozen=True)
class Snippet:
    """A program of a page. `code` is what is wrong with it, `files` are those that it may import."""

    page: Path
    line: int
    kind: str
    code: str
    given: str
    text: str
    files: Mapping[str, str]
    end: int

    @property
    def name(self) -> str:
        return f"{self.page.stem}:{self.line}"

    @property
    def program(self) -> str:
        """The text as a whole program."""
        wrap = {"body": _body, "data": _data, "train": _train, "evaluate": _evaluate}.get(self.kind)
        return self.text if wrap is None else wrap(self)


def pages() -> list[Path]:
    """The pages of the reference."""
    return [HERE / "language.md", *sorted((HERE / "language").glob("*.md"))]


def snippets(page: Path) -> Iterator[Snippet]:
    """The programs of a page, in order."""
    text = page.read_text(encoding="utf-8")
    files: dict[str, str] = {}
    for match in BLOCK.finditer(text):
        words = match["words"].split()
        line = text.count("\n", 0, match.start("text")) + 1
        code = words[words.index(word) + 1] if (word := next(iter({"error", "warning"} & {*words}), "")) else ""
        kind = words[0] if words and words[0] not in ("error", "warning") else ""
        if kind == "file":
            files[words[1]] = match["text"]
        yield Snippet(page, line, kind, code, match["given"] or "", match["text"], dict(files), match.end())


# Short ones, made whole ----------------------------------------------------------------------------------------------


def _body(snippet: Snippet) -> str:
    """A module of these members, whose `forward` has this body."""
    *members, head = snippet.given.strip().splitlines()
    first = re.search(r"forward\((\w+): ([^\]]*\])", head)
    assert first is not None, f"{snippet.name}: {head}"
    returns = re.search(r"^ *return|^no_grad \{ return", snippet.text, re.MULTILINE)
    rest = "" if returns else f"return {first[1]}\n"
    head = head if "->" in head else f"{head} -> {first[2]}"
    return "\n".join(["module M(dim: int = 64) {", *members, f"{head} {{", f"{snippet.text}{rest}}}", "}", ""])


def _section(head: str, snippet: Snippet, standard: Mapping[str, str]) -> str:
    """A section with what the snippet does not say itself."""
    words = {match[1] for match in re.finditer(r"^(?:\s*)(\w+)", snippet.text, re.M)}
    words |= {"epochs"} if "steps" in words else set()
    filled = "\n".join(text for name, text in standard.items() if name not in words)
    return f"{head} {{\n{filled}\n{snippet.text}}}\n"


def _data(snippet: Snippet) -> str:
    return snippet.given + _section("data Points", snippet, DATA)


def _train(snippet: Snippet) -> str:
    return snippet.given + NET + DIGITS + _section("train digits", snippet, TRAIN)


def _evaluate(snippet: Snippet) -> str:
    run = f"train digits {{\n{chr(10).join(TRAIN.values())}\n}}\n"
    return NET + DIGITS + snippet.given + run + _section("evaluate digits", snippet, EVALUATE)


# Looking at them -----------------------------------------------------------------------------------------------------


def prepared(folder: Path) -> Path:
    """The folder with the data files that the pages speak of."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE.parent / "examples" / "data" / "digits.csv", folder / "data" / "digits.csv")
    rows = "".join(f"{i}.5,{i},{i % 3},abc\n" for i in range(20))
    (folder / "points.csv").write_text(f"x,t,u,name\n{rows}", encoding="utf-8")
    (folder / "story.txt").write_text("It was a dark and stormy night. " * 40, encoding="utf-8")
    for name in ("daisy", "rose"):
        (folder / "flowers" / name).mkdir(parents=True, exist_ok=True)
        (folder / "flowers" / name / "1.png").touch()  # its header is not read
    for part in ("train", "t10k"):
        (folder / "mnist").mkdir(exist_ok=True)
        images, labels = (folder / "mnist" / f"{part}-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
        images.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 10, 28, 28) + bytes(10 * 28 * 28)))
        labels.write_bytes(gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 10) + bytes(range(10))))
    return folder


def looked_at(snippet: Snippet, folder: Path) -> tuple[Unit | None, list[Diagnostic]]:
    """What the compiler makes of it, in a folder that is `prepared`."""
    for name, text in snippet.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    unit, told = read(folder / "net.model", text=snippet.program)
    return unit, [each for each in told if snippet.kind != "body" or each.code != "W206" or snippet.code]


def emitted(unit: Unit) -> dict[str, str]:
    """The Python files that a program becomes; each must at least be Python."""
    run = next(iter(unit.runs), None)
    files = project.emit(pipeline.run(unit, name=run), project.Options(run, "."))
    for name, text in files.items():
        if name.endswith(".py"):
            python.parse(text, name)
    return files


def types(snippet: Snippet, folder: Path) -> Iterator[tuple[int, str, str]]:
    """(line, the type that a comment says, the type that it has) of each such comment."""
    text = snippet.program
    found: dict[int, list[tuple[ast.Node, Semantic]]] = {}
    program, reporter = load(str(folder / "net.model"), text=text, probe=probe)
    assert program is not None

    def observe(node: ast.Node, value: Semantic) -> None:
        last = node.span.source.position(max(node.span.end - 1, node.span.start))[0]
        if node.span.source.name.endswith("net.model"):
            found.setdefault(last, []).append((node, value))

    build(program, Reporter() if reporter is None else reporter, observe)
    for number, line in enumerate(text.splitlines(), 1):
        if (match := TYPED.search(line)) is not None:
            yield number, match[1], _type(found.get(number, []))


def _type(seen: list[tuple[ast.Node, Semantic]]) -> str:
    """Of what a line binds; of its whole expression where it binds nothing."""
    targets = {node.span.start: value for node, value in seen if isinstance(node, ast.Target)}
    if targets:
        return ", ".join(kind_of(value) for value in targets.values())
    values = [(node.span.end - node.span.start, value) for node, value in seen if isinstance(value, (Value, tuple))]
    return kind_of(max(values, key=lambda each: each[0])[1]).strip("()") if values else "nothing"
