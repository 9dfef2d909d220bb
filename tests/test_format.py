"""`tdsl fmt`: one formatting, idempotent, with every comment kept, and the same program after it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tdsl.dsl.concrete import read
from tdsl.dsl.diagnostics import Reporter, Source
from tdsl.dsl.format import Unfaithful, format_source, same_program
from tdsl.dsl.lexer import Token, tokenize
from tdsl.dsl.parser import parse
from tests.helpers import ROOT, SHARED, tdsl

GOLDEN = Path(__file__).parent / "golden" / "format"
CONFORMANCE = sorted((SHARED / "conformance").glob("*.model"))
LAID_OUT = [*sorted(p for p in (ROOT / "examples").rglob("*.model") if "runs" not in p.parts), *CONFORMANCE]
PROGRAMS = [*LAID_OUT, *sorted((ROOT / "tests" / "golden").glob("*.model")), *sorted(GOLDEN.glob("*.model"))]
VARIANTS = 18
COMMENTS = ("# why", "#why", "# " + "long " * 30, "#", "#! as it is", "#\ttab", '# it\'s "quoted" { ( [')


def formatted(text: str) -> str:
    reporter = Reporter()
    found = format_source(Source("t.model", text), reporter)
    assert found is not None, reporter.diagnostics
    return found


def scanned(text: str) -> tuple[list[Token], list[Token]]:
    """Tokens and comments."""
    comments: list[Token] = []
    chunks = tokenize(Source("t.model", text), Reporter(), comments=comments)
    return [token for chunk in chunks for token in chunk.tokens], comments


def words(text: str) -> list[str]:
    """What is written, less what formatting may add or remove: line ends and commas."""
    return [token.text for token in scanned(text)[0] if token.kind not in ("NEWLINE", ",")]


def comments(text: str) -> Counter[str]:
    """Comments, less the space after `#`."""
    return Counter(token.text.rstrip()[1:].removeprefix(" ") for token in scanned(text)[1])


def hold(text: str) -> str:
    """The formatted text, after all that must be true of it."""
    found = formatted(text)
    assert formatted(found) == found
    assert words(found) == words(text)
    assert comments(found) == comments(text)
    assert found.endswith("\n") or not found
    assert "\n\n\n" not in found
    assert all(line == line.rstrip() for line in found.split("\n"))
    return found


@pytest.mark.parametrize("path", LAID_OUT, ids=lambda path: path.stem)
def test_programs_laid_out_well_stay_as_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert formatted(text) == text


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.model")), ids=lambda path: path.stem)
def test_golden(path: Path, update_golden: bool) -> None:
    found = hold(path.read_text(encoding="utf-8"))
    expected = path.with_suffix(".formatted")
    if update_golden:
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


# Variants ------------------------------------------------------------------------------------------------------------


class Writer:
    """Writes a program's tokens anew: with other spaces, and where `lines` and `notes`, other line ends and comments."""

    def __init__(self, seed: int, lines: bool, notes: bool) -> None:
        self.random = random.Random(seed)
        self.lines, self.notes = lines, notes
        self.open: list[str] = []

    def text(self, source: str) -> str:
        tokens, notes = scanned(source)
        kept = [token for token in tokens if token.kind != "NEWLINE"]
        merged = sorted([*kept, *([] if self.notes else notes)], key=lambda token: token.start)
        parts: list[str] = []
        end = 0
        self.short = _short_blocks(source, kept)
        for last, token in zip([None, *merged], merged):
            parts += [*self.between(last, token, source[end : token.start].count("\n")), token.text]
            end = token.end
            if token.text in ("(", "[", "{"):
                self.open.append(token.text)
            elif token.text in (")", "]", "}"):
                self.open.pop()
        return "".join([*parts, self.line_end(1)])

    def between(self, last: Token | None, token: Token, lines: int) -> Iterator[str]:
        inside = bool(self.open) and self.open[-1] != "{" and token.kind != "COMMENT"
        if not self.notes:  # a block on one line stays one only as long as it is
            inside = inside and not any(start < token.start < end for start, end in self.short)
        if lines or (inside and self.lines and self.chance(0.2)):
            yield self.line_end(lines or 1)
        elif token.kind == "|>" and self.lines and self.notes and not inside and self.chance(0.3):
            yield self.line_end(1)
        elif last is None or (_may_touch(last, token) and self.chance(0.5)):
            yield ""
        else:
            yield self.blank() or " "

    def blank(self) -> str:
        return self.random.choice(("", " ", "  ", "\t", "        "))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def line_end(self, lines: int) -> str:
        """The end of a line and `lines - 1` blank lines, or others, with comments."""
        found = [self.blank()]
        if self.notes and self.chance(0.3):
            found.append(self.random.choice(COMMENTS))
        found.append("\n" * lines)
        while self.notes and self.chance(0.3):
            found.append(self.blank() + self.random.choice((*COMMENTS, "")) + "\n")
        return "".join([*found, self.blank()])


def _short_blocks(source: str, tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Start and end of each block on one line."""
    found, openers = [], []
    for token in tokens:
        if token.kind == "{":
            openers.append(token.start)
        elif token.kind == "}":
            found.append((openers.pop(), token.start))
    return [(start, end) for start, end in found if "\n" not in source[start:end]]


def _may_touch(last: Token, token: Token) -> bool:
    """Whether two tokens stay two without a space between them."""
    joined = last.text + token.text
    found = scanned(f"{joined}\n")[0]
    return [each.text for each in found if each.kind != "NEWLINE"] == [last.text, token.text]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_any_spacing_is_formatted_alike(path: Path) -> None:
    text = formatted(path.read_text(encoding="utf-8"))
    for seed in range(VARIANTS // 3):
        assert formatted(Writer(seed, lines=False, notes=False).text(text)) == text, seed


@pytest.mark.parametrize("path", LAID_OUT, ids=lambda path: path.stem)
def test_any_line_ends_in_brackets_are_formatted_alike(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for seed in range(VARIANTS // 3):
        assert formatted(Writer(seed, lines=True, notes=False).text(text)) == text, seed


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_variants_are_the_same_program(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for seed in range(VARIANTS):
        variant = Writer(seed, lines=True, notes=True).text(text)
        assert words(variant) == words(text)
        hold(variant)


def test_small_programs_often() -> None:
    texts = [path.read_text(encoding="utf-8") for path in PROGRAMS if path.stat().st_size < 1000]
    for seed in range(300):
        hold(Writer(1000 + seed, lines=True, notes=True).text(texts[seed % len(texts)]))


# Rules ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("const a=2**3//-4\n", "const a = 2 ** 3 // -4\n"),
        ("const a=- - 4\n", "const a = --4\n"),
        ("const a=not 1<2 and(3==4)\n", "const a = not 1 < 2 and (3 == 4)\n"),
        ("const a=[ 1,2 , 3 ]\n", "const a = [1, 2, 3]\n"),
        ("const a=(1 , )\n", "const a = (1,)\n"),
        ("const a=( )\n", "const a = ()\n"),
        ("const a=[1,2,]\n", "const a = [\n    1,\n    2,\n]\n"),
        ("const a = f( x = -1,y=(2) )\n", "const a = f(x=-1, y=(2))\n"),
        ("const a = x[ : ,1 : -1, : :2,i+1:n,...,none]\n", "const a = x[:, 1:-1, ::2, i + 1 : n, ..., none]\n"),
        ("const a = x . T . mean ( )\n", "const a = x.T.mean()\n"),
        ("const a = x|>f|>g ( 1 )\n", "const a = x |> f |> g(1)\n"),
        ("const a = x\n|> f |> g\n", "const a = x\n    |> f\n    |> g\n"),
        ("const a=1\nconst long=2\n", "const a    = 1\nconst long = 2\n"),
        ("const a=1\n\n\nconst long=2\n", "const a = 1\n\nconst long = 2\n"),
        ('import"a.model"\nconst a=1\n', 'import "a.model"\n\nconst a = 1\n'),
        ("module A(){}\nmodule B( ) {\n}\n", "module A() {}\n\nmodule B() {}\n"),
        ("fn f(x:[B])->[B]{return x}\n", "fn f(x: [B]) -> [B] { return x }\n"),
        ("fn f(x:[B])->[B]{\nreturn x}\n", "fn f(x: [B]) -> [B] {\n    return x\n}\n"),
        ("train r { a=1,b = 2 }\n", "train r { a = 1, b = 2 }\n"),
        ("train r { a=1,bb = 2\n}\n", "train r {\n    a  = 1\n    bb = 2\n}\n"),
        ("train r { a=1 # one\nbb = 2 # two\n}\n", "train r {\n    a  = 1  # one\n    bb = 2  # two\n}\n"),
        ("\ufeffconst a = 1", "const a = 1\n"),
        ("#a\n#!b", "# a\n#!b\n"),
        ("", ""),
    ],
)  # fmt: skip
def test_rules(written: str, expected: str) -> None:
    assert hold(written) == expected


def test_lines_are_short_where_they_can_be() -> None:
    names = ", ".join(f"argument_{i}=value_{i}" for i in range(12))
    found = hold(f"train r {{\n    optimizer = Thing({names}, nested=[{names.replace('=', ' + ')}])\n}}\n")
    assert max(map(len, found.split("\n"))) <= 120
    assert "        argument_0=value_0,\n" in found


def test_a_long_chain_is_broken_at_its_links() -> None:
    stages = [f"stage_number_{i}(argument={i})" for i in range(5)]
    found = hold(f"const a = f(x, y) |> {' |> '.join(stages)}\n")
    assert found == "const a = f(x, y)\n" + "".join(f"    |> {stage}\n" for stage in stages)


def test_another_program_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdsl.dsl.format.text_of", lambda lines: "const a = 2\n")
    with pytest.raises(Unfaithful):
        format_source(Source("t.model", "const a = 1\n"), Reporter())


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("const a = 1", "const a  =  1", True),
        ("const a = 1", "const a = (1)", True),
        ("const a = 1", "const a = 1.0", False),
        ("const a = 1", "const b = 1", False),
        ("const a = 1", "# doc\nconst a = 1", False),
        ("const a = f(1, 2)", "const a = f((1, 2))", False),
        ("const a = true", "const a = 1", False),
    ],
)
def test_what_the_same_program_is(left: str, right: str, same: bool) -> None:
    trees = [parse(Source("t.model", text), Reporter()) for text in (left, right)]
    assert same_program(*trees) is same


def test_comments_find_their_place() -> None:
    tree = read(Source("t.model", "# a\nconst b = f(  # c\n    # d\n    1,  # e\n    # f\n)  # g\n# h\n"))
    (entry,) = tree.entries
    group = entry.items[-1]
    assert [each.text for each in entry.above] == ["# a"]
    assert entry.beside is not None
    assert entry.beside.text == "# g"
    assert [each.text for each in tree.below] == ["# h"]
    assert group.beside.text == "# c"  # type: ignore[union-attr]
    assert [each.text for each in group.below] == ["# f"]  # type: ignore[union-attr]
    assert [each.text for each in group.elements[0].above] == ["# d"]  # type: ignore[union-attr]


# The command ---------------------------------------------------------------------------------------------------------

UGLY, NICE = "const a=1\n", "const a = 1\n"


def files(folder: Path, texts: Sequence[str]) -> list[str]:
    for i, text in enumerate(texts):
        (folder / f"{i}.model").write_text(text, encoding="utf-8")
    return [f"{i}.model" for i in range(len(texts))]


def test_files_are_written_where_they_change(tmp_path: Path) -> None:
    names = files(tmp_path, [UGLY, NICE])
    before = (tmp_path / "1.model").stat().st_mtime_ns
    ran = tdsl("fmt", *names, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "formatted 0.model\n1 file already formatted\n")
    assert (tmp_path / "0.model").read_text(encoding="utf-8") == NICE
    assert (tmp_path / "1.model").stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_check_writes_nothing(tmp_path: Path) -> None:
    names = files(tmp_path, [UGLY, NICE])
    ran = tdsl("fmt", "--check", *names, cwd=tmp_path)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (1, "would format 0.model")
    assert (tmp_path / "0.model").read_text(encoding="utf-8") == UGLY
    assert tdsl("fmt", "--check", "1.model", cwd=tmp_path).returncode == 0


def test_diff_writes_nothing(tmp_path: Path) -> None:
    files(tmp_path, [UGLY])
    ran = tdsl("fmt", "--diff", "0.model", cwd=tmp_path)
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[2:] == ["@@ -1 +1 @@", "-const a=1", "+const a = 1"]
    assert (tmp_path / "0.model").read_text(encoding="utf-8") == UGLY


def test_a_file_with_mistakes_is_left_alone(tmp_path: Path) -> None:
    names = files(tmp_path, ["const a=(\n", UGLY])
    ran = tdsl("fmt", *names, "absent.model", cwd=tmp_path)
    assert ran.returncode == 2
    assert "error[E010]" in ran.stderr
    assert "0.model:1:9" in ran.stderr
    assert "error[E104]" in ran.stderr
    assert (tmp_path / "0.model").read_text(encoding="utf-8") == "const a=(\n"
    assert (tmp_path / "1.model").read_text(encoding="utf-8") == NICE


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    files(tmp_path, [UGLY])
    (tmp_path / "link.model").symlink_to("0.model")
    (tmp_path / "0.model").chmod(0o640)
    assert tdsl("fmt", "link.model", cwd=tmp_path).returncode == 0
    assert (tmp_path / "link.model").is_symlink()
    assert (tmp_path / "0.model").read_text(encoding="utf-8") == NICE
    assert (tmp_path / "0.model").stat().st_mode & 0o777 == 0o640
