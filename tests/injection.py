"""Names and strings that try to become code: `python -m tests.injection`.

Each name and each string of a program is replaced by hostile text. Either the program is refused with a located error,
or the syntax trees of all the Python that is emitted are those of the harmless program but for constants, and for the
identifiers that come of the name itself.
"""

from __future__ import annotations

import ast
import keyword
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tdsl.compiler import pipeline
from tdsl.compiler.driver import read
from tdsl.compiler.emit import project

# Where text of a program can reach what is emitted: names, each with its harmless value, and strings.
NAMES = {
    "module": "Zzmodule", "param": "zzparam", "rate": "zzrate", "member": "zzmember", "weight": "zzweight", "buffer": "zzbuffer",
    "blocks": "zzstack", "loop": "zzloop", "input": "zzinput", "size": "Zzsize", "local": "zzlocal", "fn": "zzfn", "inner": "zzinner",
    "dim": "Zzdim", "const": "zzconst", "data": "Zzdata", "field": "zzfield", "run": "zzrun", "batch": "zzbatch", "scores": "zzscores",
    "tracked": "zztracked", "row": "zzrow", "teacher": "zzteacher", "extern": "Zzextern", "width": "zzwidth",
}  # fmt: skip
STRINGS = {
    "doc": "zz doc", "path": "zzpath.csv", "pattern": "zzx*", "column": "zzcolumn", "group": "*.bias", "freeze": "zzteacher.*",
    "init": "zzinit.safetensors", "axes": "b d -> b d", "target": "package.module:Class", "mode": "fan_in", "best": "val/loss",
    "field_doc": "zz field", "run_doc": "zz run", "member_doc": "zz member",
}  # fmt: skip
PROGRAM = """
extern module {extern}({width}: int) : [B, {width}] -> [B, {width}] = "{target}"
const {const} = 3
# {doc}
module {module}({param}: int = 4, {rate}: float = 0.5) {{
    # {member_doc}
    {member} = Linear(2, {param})
    param {weight}: [{param}, 2] = kaiming_uniform(mode="{mode}")
    buffer {buffer}: [{param}] = ones()
    {blocks} = [Linear({param}, {param}) for i in range(2)]
    head = Linear({param}, {const})
    outer = {extern}({const})

    forward({input}: float[{size}, 2]) -> float[{size}, {const}] {{
        {local} = gelu({member}({input}) + {input} @ {weight}.T) + {buffer} * {rate}
        for {loop} in {blocks} {{
            {local} = {loop}({local})
        }}
        return outer(head({fn}(rearrange({local}, "{axes}"))))
    }}
}}
fn {fn}({inner}: [..., {dim}]) -> [..., {dim}] {{
    return tanh({inner}) * 2 + {inner}
}}
data {data} {{
    source = csv("{path}")
    split  = random(train=0.5, val=0.25, test=0.25, seed=0)
    # {field_doc}
    field {field}: float[2] = columns("{pattern}")
    field label: int[] = column("{column}")
}}
# {run_doc}
train {run} {{
    model = {module}()
    {teacher} = {module}({param}=8)
    data  = {data}
    loss({batch}) {{
        {scores} = model({batch}.{field})
        track {tracked} = {scores}.mean()
        return cross_entropy({scores}, {batch}.label) + mse_loss({scores}, {teacher}({batch}.{field}).detach())
    }}
    optimizer = SGD(lr=0.1)
    group "{group}" {{ weight_decay = 0 }}
    freeze = ["{freeze}"]
    init_from = "{init}"
    checkpoint {{ best = "{best}" }}
    epochs = 1
}}
evaluate {run} {{
    compare({row}) {{ return model({row}.{field}), {row}.label }}
    metrics = [Accuracy()]
}}
"""
IDENTIFIERS = """
    __class__ __init__ __import__ __name__ __builtins__ __dict__ _ __ ___ self cls super torch nn F math kernels triton tl tm launch
    Tensor Module forward training parameters buffers train eval state_dict to float half type device dtype shape
    import lambda class def return yield global nonlocal del pass raise None True False async await match case print exec eval
    compile open input globals locals vars list dict set tuple len range enumerate zip isinstance getattr setattr property object
    Exception int str bool bytes abs sum max min x y n i B ctx autograd grid mask offsets rows cols n_rows n_cols
    BLOCK N_COLS BLOCK_ROWS model data loss batch label head metrics optimizer scheduler args main run epoch step evaluate checkpoint
    settings os sys json Path functools tdsl runtime annotations __future__ O0 l1 Il weight bias in_features d_x saved grad backward
""".split()
TEXTS = [
    '"', "'", '"""', "'''", "\\", "\\\\", "\n", "\r\n", "\0", "#", "# noqa", ");import os;(", '"); import os; ("', "'); import os; ('",
    '"""\nimport os\n"""', "\nimport os\n", "{{ 7 * 7 }}", "{% raw %}", "{% include '/etc/passwd' %}", "{#", "{0}", "{x}", "%s", "%(x)s",
    "${x}", "`id`", "$(id)", "*/", "-->", "</script>", "<!--", "__import__('os')", "exec('x')", "f\"{1}\"", "\\N{DASH}", "\\x41",
    "\u202e", "\u2028", "\x85", "\x1b[31m", "\ufeff", "\ud800", "аdam", "ｘ", "x" * 5000, "../" * 40, "/etc/passwd", "C:\\x", "a.b:c.d",
    "os:system", "builtins:exec", "a;b:C", "a b:C", ":C", "a:", "a:b:c", "", " ", "\t", "*", "[", "[!", "**", "?", "a -> b", "(a -> a)",
]  # fmt: skip


def attempts() -> Iterator[tuple[str, str]]:
    """Each slot with each hostile text; strings once as they are and once escaped as the language escapes."""
    for slot in NAMES:
        for text in [*IDENTIFIERS[(len(slot) * 7) % 3 :: 3], *TEXTS[len(slot) % 9 :: 9]]:
            yield slot, text
    for slot in STRINGS:
        for text in TEXTS:
            yield slot, text
            if not slot.endswith("doc") and (escaped := _escaped(text)) != text:
                yield slot, escaped


def _escaped(text: str) -> str:
    for char, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(char, escape)
    return text


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"').replace("\\\\", "\\")


# One attempt ---------------------------------------------------------------------------------------------------------


def emitted(values: Mapping[str, str], folder: Path) -> dict[str, str] | None:
    """The Python files of the program with these names and strings; None where it is refused."""
    column, path = _unescaped(values["column"]), folder / _unescaped(values["path"])
    quoted = '"' + column.replace('"', '""') + '"'
    if _may_be_written(path, folder):
        rows = f"zzxa,zzxb,{quoted}\n" + "".join(f"{i}.5,{i},{i % 3}\n" for i in range(16))
        path.write_bytes(rows.encode("utf-8", "surrogatepass"))
    (folder / "program.model").write_bytes(PROGRAM.format(**values).encode("utf-8", "surrogatepass"))
    unit, told = read(str(folder / "program.model"))
    if unit is None:
        errors = [each for each in told if each.severity == "error"]
        assert errors, "refused without an error"
        assert all(each.span is not None for each in errors), "an error without a place"
        return None
    done = pipeline.run(unit)
    files = project.emit(done, project.Options(next(iter(done.runs)), "..", False, False))
    return {name: text for name, text in files.items() if name.endswith(".py")}


def _may_be_written(path: Path, folder: Path) -> bool:
    """Whether it is a new file of the folder itself: hostile paths name files all over the machine."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return path.parent == folder and path.name not in ("", ".", "..")
    except (OSError, ValueError):
        pass  # no name of a file: the program will say so
    return False


@cache
def harmless() -> dict[str, ast.Module]:
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        files = emitted({**NAMES, **STRINGS}, Path(folder))
    assert files is not None, "the harmless program is refused"
    return {name: ast.parse(text) for name, text in files.items()}


def attempt(slot: str, text: str) -> str:
    """`refused`, `harmless`, or what is wrong."""
    values = {**NAMES, **STRINGS, slot: text}
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        try:
            files = emitted(values, Path(folder))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    if files is None:
        return "refused"
    if files.keys() != harmless().keys():
        return f"other files: {sorted(files)}"
    for name, content in files.items():
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError) as error:
            return f"{name}: {error}"
        difference = _Comparison(slot, text).tree(harmless()[name], tree)
        if difference:
            return f"{name}: {difference}"
    return "harmless"


class _Comparison:
    """Two trees that may differ in constants, and in identifiers made of one name."""

    def __init__(self, slot: str, new: str) -> None:
        self.name, self.new = _folded(NAMES.get(slot, "")), _folded(new)
        self.target = slot == "target"  # whose parts are what the program imports

    def tree(self, old: ast.Module, new: ast.Module) -> str:
        """The first difference that there may not be; empty where there is none."""
        return self.node(old, new, {})

    def node(self, old: object, new: object, names: dict[str, str], field: str = "") -> str:
        if isinstance(old, ast.Constant) and isinstance(new, ast.Constant):
            return "" if type(old.value) is type(new.value) else f"{old.value!r} became {new.value!r}"
        if isinstance(old, ast.AST) and isinstance(new, ast.AST):
            return self.fields(old, new, names)
        if isinstance(old, list) and isinstance(new, list):
            return self.lists(old, new, names, field)
        if isinstance(old, str) and isinstance(new, str):
            return self.identifier(old, new, names if field in ("id", "arg") else None)
        return "" if old == new else f"{old!r} became {new!r}"

    def fields(self, old: ast.AST, new: ast.AST, names: dict[str, str]) -> str:
        if type(old) is not type(new):
            return f"{ast.unparse(old)} became {ast.unparse(new)}"
        own = {} if isinstance(old, (ast.FunctionDef, ast.ClassDef)) else names
        for field in old._fields:
            # What an annotation names is never looked up, and a keyword belongs to what is called.
            apart = field in ("annotation", "returns") or (isinstance(old, ast.keyword) and field == "arg")
            inner = {} if apart else own
            told = self.node(getattr(old, field, None), getattr(new, field, None), inner, field)
            if told:
                return told
        if own is not names and len(set(own.values())) < len(own):
            twice = Counter(own.values()).most_common(1)[0][0]
            return f"`{twice}` stands for {' and '.join(k for k, v in own.items() if v == twice)}"
        return ""

    def lists(self, old: list[object], new: list[object], names: dict[str, str], field: str) -> str:
        if field == "body":
            old, new = _undocumented(old), _undocumented(new)
        if old and isinstance(old[0], ast.alias):
            old = sorted(old, key=lambda alias: self.changed(alias.name))  # type: ignore[attr-defined]
            new = sorted(new, key=lambda alias: _folded(alias.name))  # type: ignore[attr-defined]
        if len(old) != len(new):
            return f"{len(old)} in {field} became {len(new)}"
        return next((told for a, b in zip(old, new) if (told := self.node(a, b, names, field))), "")

    def identifier(self, old: str, new: str, names: dict[str, str] | None) -> str:
        if names is not None and names.setdefault(old, new) != new:
            return f"`{old}` became both `{names[old]}` and `{new}`"
        if not all(part.isidentifier() and not keyword.iskeyword(part) for part in new.split(".")):
            return f"`{new}` is no identifier"
        made = re.escape(self.changed(old)).replace(re.escape(self.new), rf"{re.escape(self.new)}\d*", 1)
        # A name of the program's own, with a number where it is taken; or one of the compiler's that makes way for it;
        # or the variable of a loop over a list, which is named after the list.
        fits = old in (new, "layer") or re.fullmatch(rf"{made}\d*", _folded(new))
        if fits or (self.name and _folded(old) == self.new) or (self.target and old in ("package.module", "Class")):
            return ""
        return f"`{old}` became `{new}`"

    def changed(self, old: str) -> str:
        return _folded(old).replace(self.name, self.new) if self.name else _folded(old)


def _undocumented(body: list[object]) -> list[object]:
    """Statements without the string that documents them."""
    first = body[0] if body else None
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if documented else body


def _folded(name: str) -> str:
    """A name without what turns `encode_tokens` into `EncodeTokens`."""
    return name.replace("_", "").lower()


def main() -> int:
    outcomes: Counter[str] = Counter()
    for slot, text in attempts():
        outcome = attempt(slot, text)
        outcomes[outcome if outcome in ("refused", "harmless") else "broken"] += 1
        if outcome not in ("refused", "harmless"):
            print(f"{slot} = {text[:60]!r}: {outcome}")
    print(f"{outcomes.total()} attempts: {dict(outcomes)}")
    return 1 if outcomes["broken"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
