"""Malformed programs by the thousand: `python -m tests.fuzz N [SEED]`.

Programs of the repository are cut, spliced, mutated by tokens and by bytes, nested deep and blown up. Whatever comes of
it: no exception; diagnostics with known codes whose places lie in their files; an answer within twenty seconds of the
processor. A program without mistakes is compiled and its files emitted, which may not fail either. What does is made
small and printed.
"""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tdsl.compiler import pipeline
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.codes import CODES as OF_TYPES
from tdsl.compiler.driver import read
from tdsl.compiler.emit import project
from tdsl.compiler.emit.codes import CODES as OF_EMISSION
from tdsl.compiler.ops import OPS
from tdsl.dsl.codes import CODES as OF_FRONT_END
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.habits import LOSSES, METHODS, NAMES
from tdsl.dsl.render import render, to_json

ROOT = Path(__file__).resolve().parent.parent
CODES = OF_FRONT_END | OF_TYPES | OF_EMISSION
TOKEN = re.compile(
    r'"(?:[^"\\\n]|\\.)*"?|[A-Za-z_]\w*|\d[\w.]*|\|>|\*\*|//|\.\.\.|[=!<>]=|->|\n|[ \t]+|#[^\n]*|.', re.DOTALL
)
KEYWORDS = """
    import extern const fn module data train evaluate param buffer forward return for in if else and or not true false
    none track assume no_grad training range _ B H W T dim x y batch model label loss compare predict metrics split
    source field transform group checkpoint epochs steps float int bool str f32 bf16 f16 i64 u8 self torch nn F True None
    lambda def class size reshape view flatten transpose permute cat stack chunk unbind softmax cross_entropy mse_loss
    linear Linear Conv2d LSTM GRU MultiheadAttention Embedding BatchNorm1d LayerNorm Dropout Sequential ReLU MaxPool2d
    Upsample rearrange reduce repeat einsum attention rope grad detach where masked_fill topk sort cumsum zeros ones rand
    randn arange full tensor eye one_hot interpolate pad gather scatter index_select norm var std mean sum max min argmax
    matmul bmm AdamW SGD StepLR LinearLR csv npz idx text random Normalize Accuracy AUROC num_classes rows vocab_size
"""
WORDS = [*OPS, *LAYERS, *NAMES, *METHODS, *LOSSES, *KEYWORDS.split()]
ODD = [
    "(", ")", "[", "]", "{", "}", "{ }", "[]", "()", ",", ",,", ":", "::", ".", "..", "...", "|>", "->", "=", "==", "+=", "+",
    "-", "*", "**", "/", "//", "%", "@", "<", ">", "<=", "!=", "!", "?", ";", "'", '"', '"""', "\\", "#", "\n", "\n\n", "\t",
    "\r\n", "\r", "\0", "\x0b", "\x1b[31m", "\u2028", "\u200b", "\u202e", "\ufeff", "é", "ℝ", "x\u0301", "日本", "\U0001f600",
    "0", "1", "-1", "2", "3", "1.5", "1e400", "1e-400", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "99999999999999999999", "1_000", "0x10", "1e", "1__0", "12abc", "4294967296", "65536", '""', '"a"', '"b -> b"', '"(a b) -> a b"',
    '"x*"', '"\\q"', '"{{ x }}"', '"../x.csv"', '"val/loss"', "_", "__", "__class__", "none", "true", "B", "H // 2", "dim * 2",
    "[Linear(2, 2) for i in range(3)]", "if training {", "assume B % 8 == 0", "no_grad {", "x.shape[0]", "x[..., none]", "x[:, 0]",
    "x.sum(dim=-1)", "grad(y.sum(), x)", "Linear(_, 64)",
]  # fmt: skip
SLOWEST = 20.0  # seconds of the processor: neighbours do not count


# Programs ------------------------------------------------------------------------------------------------------------


@cache
def corpus() -> tuple[str, ...]:
    """The programs of the repository, those of its tests and references, and the examples of its errors."""
    files = [*sorted(ROOT.glob("examples/*.model")), *sorted(ROOT.glob("tests/**/*.model"))]
    files += sorted((ROOT.parent / "shared" / "conformance").glob("*.model"))
    whole = [path.read_text(encoding="utf-8") for path in files]
    found = [example for code in CODES.values() for example in (code.example, *code.more) if 0 < len(example) < 5000]
    for document in sorted(ROOT.glob("docs/*.md")):
        blocks = re.findall(r"^```\w*\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        found += [block for block in blocks if re.search(r"^(module|data|train|fn) ", block, re.MULTILINE)]
    # Half of them without mistakes, so that some of what comes of one change has none either.
    return (*whole * (len(found) // len(whole) + 1), *found)


def mutated(random: random.Random) -> bytes:
    """A program after one to six changes."""
    text = random.choice(corpus())
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 6))):
        text = random.choice(CHANGES)(text, random)[:200_000]
    content = text.encode("utf-8", "surrogatepass")
    for change in BYTES:
        if random.random() < 0.02:
            content = change(content, random)
    return content


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def _at(tokens: list[str], random: random.Random) -> int:
    solid = [i for i, token in enumerate(tokens) if not token.isspace()]
    return random.choice(solid) if solid else 0


def _replaced(text: str, random: random.Random) -> str:
    tokens = _tokens(text) or [""]
    tokens[_at(tokens, random)] = _word(tokens, random)
    return "".join(tokens)


def _inserted(text: str, random: random.Random) -> str:
    tokens = _tokens(text)
    tokens.insert(
        random.randint(0, len(tokens)), random.choice((" ", "")) + _word(tokens, random) + random.choice((" ", ""))
    )
    return "".join(tokens)


def _word(tokens: list[str], random: random.Random) -> str:
    return random.choice((random.choice(ODD), random.choice(WORDS), random.choice(tokens or ["x"])))


def _removed(text: str, random: random.Random) -> str:
    tokens = _tokens(text) or [""]
    start = _at(tokens, random)
    del tokens[start : start + random.choice((1, 1, 1, 2, 5, 20))]
    return "".join(tokens)


def _swapped(text: str, random: random.Random) -> str:
    tokens = _tokens(text) or [""]
    i, j = _at(tokens, random), _at(tokens, random)
    tokens[i], tokens[j] = tokens[j], tokens[i]
    return "".join(tokens)


def _repeated(text: str, random: random.Random) -> str:
    tokens = _tokens(text) or [""]
    start = _at(tokens, random)
    part = tokens[start : start + random.choice((1, 3, 10, 40))]
    return "".join([*tokens[:start], *part * random.choice((2, 2, 3, 70, 300)), *tokens[start:]])


def _number(text: str, random: random.Random) -> str:
    """Another number: sizes, counts and rates of every order."""
    numbers = list(re.finditer(r"\b\d[\w.]*", text))
    if not numbers:
        return text
    match = random.choice(numbers)
    new = random.choice(("0", "1", "-1", "2", "3", "7", "0.5", "1e300", "10000", "1000000", str(2**31), str(2**63 - 1)))
    return text[: match.start()] + new + text[match.end() :]


def _called(text: str, random: random.Random) -> str:
    """Another function where one is called, or one more around a name."""
    names = list(re.finditer(r"\b[A-Za-z_]\w*(?=\()", text)) if random.random() < 0.6 else []
    names = names or list(re.finditer(r"(?<=[ (])[a-z]\w*\b(?![(\w:=])", text))
    if not names:
        return text
    match = random.choice(names)
    extra = random.choice(
        ("", "", "", ", 1", ", dim=-1", ", 2, 3", ", x", ", keepdim=true", ", dim=0", ", p=0.5", ", none")
    )
    new = random.choice(list(LAYERS) if match[0][0].isupper() else list(OPS))
    if text[match.end() : match.end() + 1] != "(":
        new = f"{new}({match[0]}{extra})"
    return text[: match.start()] + new + text[match.end() :]


def _misspelt(text: str, random: random.Random) -> str:
    words = list(re.finditer(r"[A-Za-z_]\w*", text))
    if not words:
        return text
    match = random.choice(words)
    at = random.randint(match.start(), match.end() - 1)
    return text[:at] + random.choice(("", text[at] * 2, "x", text[at].swapcase())) + text[at + 1 :]


def _spliced(text: str, random: random.Random) -> str:
    """Lines of another program within this one."""
    lines, others = text.split("\n"), random.choice(corpus()).split("\n")
    at, start = random.randint(0, len(lines)), random.randint(0, len(others))
    end = min(len(lines), at + random.choice((0, 0, 1, 5)))
    lines[at:end] = others[start : start + random.choice((1, 2, 5, 30))]
    return "\n".join(lines)


def _moved(text: str, random: random.Random) -> str:
    lines = text.split("\n")
    line = lines.pop(random.randrange(len(lines)))
    lines.insert(random.randint(0, len(lines)), line)
    return "\n".join(lines)


def _truncated(text: str, random: random.Random) -> str:
    return text[: random.randint(0, len(text))]


def _nested(text: str, random: random.Random) -> str:
    """An expression or a block within many of its kind."""
    depth = random.choice((3, 20, 63, 64, 65, 200, 3000))
    left, right = random.choice(
        (("(", ")"), ("[", "]"), ("{", "}"), ("-", ""), ("not ", ""), ("relu(", ")"), ("x + ", ""), ("", ".relu()"), ("", "[0]"),
         ("if true {\n", "\n}"), ("for i in range(2) {\n", "\n}"), ("module M() {", "}"), ("1 if true else ", ""), ("", " |> relu"), ("2 ** ", ""))
    )  # fmt: skip
    tokens = _tokens(text) or [""]
    at = _at(tokens, random)
    tokens[at] = left * depth + tokens[at] + right * depth
    return "".join(tokens)


def _lengthened(text: str, random: random.Random) -> str:
    tokens = _tokens(text) or [""]
    at = _at(tokens, random)
    tokens[at] += random.choice(("x", " ", "9", ", x", " + 1", "_", '"')) * random.choice((100, 5_000, 50_000))
    return "".join(tokens)


def _unlined(text: str, random: random.Random) -> str:
    return text.replace("\n", random.choice(("\r\n", "\r", " ", "\n\n\n", "\u2028", "")), random.choice((1, -1)))


CHANGES: tuple[Callable[[str, random.Random], str], ...] = (
    _replaced, _replaced, _replaced, _called, _called, _called, _called, _called, _called, _inserted, _inserted, _removed, _removed, _swapped, _swapped, _repeated, _number,
    _number, _number, _misspelt, _misspelt, _spliced, _spliced, _moved, _moved, _truncated, _nested, _lengthened, _unlined,
)  # fmt: skip


def _flipped(content: bytes, random: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    for _ in range(random.choice((1, 2, 30))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flipped,
    lambda content, random: random.randbytes(random.choice((0, 1, 100, 3000))),
    lambda content, random: b"\xef\xbb\xbf" + content,
    lambda content, random: content.replace(b"a", b"\xed\xa0\x80", 1),  # half of a surrogate pair
    lambda content, random: content + b"\0" * random.choice((1, 100)),
    lambda content, random: content.decode("utf-8", "replace").encode("utf-16"),
)


# One program ---------------------------------------------------------------------------------------------------------


def check(content: bytes, path: Path, emit: bool = True) -> tuple[list[Diagnostic], str]:
    """What is told of a program, and the first rule that this breaks, or nothing."""
    path.write_bytes(content)
    began = time.process_time()
    try:
        unit, told = read(str(path), allow_outside=True)
        text, data = render(told), to_json(told)
        problem = _broken(unit, told, path, text, data)
        if unit is not None and emit and not problem:
            _emit(unit, path.parent)
    except Exception:
        return [], _shortest_trace()
    if time.process_time() - began > SLOWEST:
        problem = problem or f"took {time.process_time() - began:.1f} s"
    return told, problem


def _shortest_trace() -> str:
    error = sys.exc_info()[1]
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    at = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))
    return f"{type(error).__name__}: {str(error)[:200]} ({at})"


def _broken(unit: Unit | None, told: list[Diagnostic], path: Path, text: str, data: str) -> str:
    if (unit is None) != any(each.severity == "error" for each in told):
        return "neither built nor an error" if unit is None else "built with errors"
    for each in told:
        if each.code not in CODES:
            return f"an unknown code {each.code}"
        if each.span is None:
            return f"{each.code} has no place"
        source = each.span.source
        line, column = source.position(each.span.start)
        if not 1 <= line <= len(source.starts) or not 1 <= column <= len(source.line(line)) + 2:
            return f"{each.code} is outside of the file: {line}:{column}"
        if not each.message or "\n" in each.message:
            return f"{each.code} has no message of one line"
    if "Traceback" in text or "object at 0x" in text or any(not each.isprintable() for each in text.split("\n")):
        return "text that no person can read"
    return "" if data.startswith("[") else "no JSON"


def _emit(unit: Unit, folder: Path) -> None:
    """Compile what has no mistakes: its text must be Python."""
    done = pipeline.run(unit)
    run = next(iter(done.runs), None)
    for name, text in project.emit(done, project.Options(run, "..", False, True)).items():
        if name.endswith(".py"):
            compile(text, name, "exec")


def minimised(content: bytes, path: Path, problem: str) -> bytes:
    """A smaller program with the same problem: lines, then characters, left out as long as it stays."""

    def fails(part: bytes) -> bool:
        return _kind(check(part, path)[1]) == _kind(problem)

    began = time.perf_counter()
    for split, join in ((b"\n", b"\n"), (None, b"")):
        parts = content.split(split) if split else [content[i : i + 1] for i in range(len(content))]
        size = max(1, len(parts) // 2)
        while size and time.perf_counter() - began < 60:
            for start in range(0, len(parts), size):
                rest = parts[:start] + parts[start + size :]
                if len(rest) < len(parts) and fails(join.join(rest)):
                    parts = rest
                    break
            else:
                size //= 2
        content = join.join(parts)
    return content


def _kind(problem: str) -> str:
    """A problem without what differs from one program to the next."""
    return re.sub(r"\d+", "", problem.split("(")[-1] or problem)


# Many ----------------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of some programs; `failures` are problems with the programs that show them."""

    programs: int = 0
    compiled: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, bytes] = field(default_factory=dict)

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.programs + other.programs, self.compiled + other.compiled, self.seconds + other.seconds,
            max(self.slowest, other.slowest), self.codes + other.codes, {**other.failures, **self.failures},
        )  # fmt: skip

    def __str__(self) -> str:
        each = 1000 * self.seconds / max(self.programs, 1)
        unseen = ", ".join(sorted(CODES.keys() - self.codes.keys()))
        return (
            f"{self.programs} programs, {self.compiled} compiled, {len(self.failures)} failures, {each:.1f} ms each, "
            f"{self.slowest:.2f} s the slowest\n{len(self.codes)} codes seen; not seen: {unseen or 'none'}"
        )


def some(count: int, seed: int) -> Outcome:
    """The outcome of `count` programs drawn from a seed."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="tdsl-fuzz-") as folder:
        path = prepared(Path(folder))
        for i in range(count):
            content = mutated(random.Random(f"{seed}/{i}"))
            began = time.perf_counter()
            told, problem = check(content, path)
            took = time.perf_counter() - began
            outcome.programs += 1
            outcome.compiled += not problem and not any(each.severity == "error" for each in told)
            outcome.seconds += took
            outcome.slowest = max(outcome.slowest, took)
            outcome.codes.update({each.code for each in told})
            if problem and _kind(problem) not in map(_kind, outcome.failures) and len(outcome.failures) < 20:
                outcome.failures[problem] = minimised(content, path, problem)
    return outcome


def prepared(folder: Path) -> Path:
    """Where the program goes: beside the data that the examples and the errors speak of."""
    rows = "".join(f"{i}.5,{i},{i % 7},abc\n" for i in range(20))
    (folder / "points.csv").write_text(f"x,t,u,name\n{rows}", encoding="utf-8")
    (folder / "data").symlink_to(ROOT / "examples" / "data")
    shared = ROOT.parent / "shared" / "conformance"
    for other in shared.iterdir() if shared.exists() else ():
        if other.suffix != ".model" and other.name != "points.csv":
            (folder / other.name).symlink_to(other)
    return folder / "program.model"


def many(count: int, seed: int, processes: int = 2) -> Outcome:
    """The outcome of `count` programs, shared among processes."""
    share = max(1, min(2000, count // processes))
    jobs = [(min(share, count - start), seed * 1_000_003 + start) for start in range(0, count, share)]
    with ProcessPoolExecutor(processes) as pool:
        return sum(pool.map(some, *zip(*jobs)), Outcome())


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began = time.perf_counter()
    outcome = many(count, seed, min(2, os.cpu_count() or 1))
    for problem, content in outcome.failures.items():
        print(f"\n{problem}\n{content[:1500]!r}")
    print(f"{outcome}\n{time.perf_counter() - began:.0f} s in all, seed {seed}")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
