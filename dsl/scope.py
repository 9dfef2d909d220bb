"""What the names at the top of a program stand for, found out when asked, so that order does not matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tdsl.dsl import ast
from tdsl.dsl.categories import is_categories, numbering
from tdsl.dsl.constants import FUNCTIONS, fold
from tdsl.dsl.diagnostics import ProgramError, Reporter, Span, fail
from tdsl.dsl.facts import KNOWN_CLASSES, Probe, Prober
from tdsl.dsl.habits import unknown_name
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.program import Call, Constant
from tdsl.dsl.signatures import DATA_SETTINGS, FACTS, PATHS, READABLE
from tdsl.dsl.values import evaluate

INTEGERS = ("int", "i64", "i32", "i16", "i8", "u8")


VALUES = "such a value is made of numbers, strings, lists, constants and facts of data such as `Digits.num_classes`"


class Silent(Exception):
    """A value that depends on a mistake which has been reported where it was made."""


class Scope:
    """Constants and facts of data by name. `broken` are names whose declaration is lost to a syntax error."""

    def __init__(self, reporter: Reporter, folder: Path, probe: Prober | None, allow_outside: bool) -> None:
        self.reporter = reporter
        self.folder = folder
        self.probe = probe
        self.allow_outside = allow_outside
        self.declarations: dict[str, ast.Declaration] = {}
        self.prefixes: dict[str, str] = {}
        self.broken: set[str] = set()
        self.constants: dict[str, Constant | ProgramError] = {}
        self.folding: list[str] = []
        self.calls: dict[tuple[str, str], Call | None] = {}
        self.probes: dict[tuple[str, str], Probe | None] = {}
        self.told: dict[str, dict[str, int]] = {}
        self.absent: set[str] = set()  # datasets whose missing file is an error already

    # Constants

    def lookup(self, expr: ast.Expr) -> Constant:
        """The compile-time value of a name, an attribute or a call; raises ProgramError, or Silent."""
        if isinstance(expr, ast.Name):
            return self.name(expr)
        if isinstance(expr, ast.Attribute) and isinstance(expr.value, ast.Name):
            return self.attribute(expr, expr.value)
        if isinstance(expr, ast.Call) and isinstance(expr.function, ast.Name):
            help = did_you_mean(expr.function.id, FUNCTIONS) or VALUES
            fail("E120", f"`{expr.function.id}(...)` is not a compile-time value", expr.span, help=help)
        owner = expr.function.value if isinstance(expr, ast.Call) and isinstance(expr.function, ast.Attribute) else None
        cure = unknown_name(owner.id) if isinstance(owner, ast.Name) else None
        return fail("E120", "this is not a compile-time value", expr.span, help=cure or VALUES)

    def name(self, name: ast.Name) -> Constant:
        if name.id in self.broken:
            raise Silent
        declaration = self.declarations.get(name.id)
        if isinstance(declaration, ast.Const):
            return self.constant(declaration, name.span)
        if declaration is not None:
            note = _declared(declaration)
            fail("E120", f"`{name.id}` is not a compile-time value", name.span, notes=(note,), help=VALUES)
        constants = [key for key, value in self.declarations.items() if isinstance(value, ast.Const)]
        help = unknown_name(name.id) or did_you_mean(name.id, constants) or f"declare it: `const {name.id} = ...`"
        return fail("E110", f"unknown name `{name.id}`", name.span, help=help)

    def constant(self, declaration: ast.Const, asked: Span) -> Constant:
        name = declaration.name
        with self.finding(name, asked):
            if name not in self.constants:
                try:
                    self.constants[name] = fold(declaration.value, self.lookup)
                except ProgramError as error:
                    self.reporter.add(error.diagnostic)
                    self.constants[name] = error
        value = self.constants[name]
        if isinstance(value, ProgramError):
            raise Silent
        return value

    @contextmanager
    def finding(self, name: str, asked: Span) -> Iterator[None]:
        """Within, the value of a name is looked for, which it can't itself be part of."""
        if name in self.folding:
            chain = " -> ".join([*self.folding[self.folding.index(name) :], name])
            fail("E111", f"`{name}` is defined by itself", asked, notes=(chain,), help="give one of them a value")
        self.folding.append(name)
        try:
            yield
        finally:
            self.folding.pop()

    # Facts of data

    def attribute(self, expr: ast.Attribute, owner: ast.Name) -> int:
        """`Digits.num_classes` and the like."""
        if owner.id in self.broken:
            raise Silent
        data = self.declarations.get(owner.id)
        if not isinstance(data, ast.Data):
            known = [name for name, found in self.declarations.items() if isinstance(found, ast.Data)]
            help = did_you_mean(owner.id, known) or f"declare it: `data {owner.id} {{ ... }}`"
            fail("E112", f"`{owner.id}` is no dataset", owner.span, help=help)
        if expr.name not in FACTS:
            help = did_you_mean(expr.name, FACTS) or f"a dataset knows {', '.join(FACTS)}"
            fail("E113", f"a dataset has no `{expr.name}`", expr.name_span, help=help)
        told = self.told.setdefault(owner.id, {})
        if expr.name not in told:
            with self.finding(f"{owner.id}.{expr.name}", expr.span):
                told[expr.name] = self.fact(data, expr)
        return told[expr.name]

    def fact(self, data: ast.Data, expr: ast.Attribute) -> int:
        labels = _labels(data) if expr.name == "num_classes" else []
        if len(labels) == 1 and is_categories(label := labels[0].value):
            return len(numbering(label, self.lookup)[1])
        probe = self.probed(data, "source")
        if probe is None:
            call = self.source(data, "source")
            if call is None or self.readable(call):
                raise Silent
            known = _without_a_look(call, expr.name)
            if known is not None:
                return known
            fail("E404", f"`{expr.name}` of `{call.name}(...)` is not known before it is read", expr.span,
                 help="write the number in its place")  # fmt: skip
        if probe.missing:
            self.absent.add(data.name)
            note = f"`{expr.name}` is read from the file when the program is checked"
            help = "put the file there, by its path from the program's folder, or write the number"
            fail("E401", f"no such file: {probe.missing[0]}", expr.span, notes=(note,), help=help)
        try:
            if expr.name == "rows":
                return probe.rows
            if expr.name == "vocab_size":
                return self.vocabulary(data, probe, expr)
            column = self.label(data, expr)
            if column not in probe.columns or probe.columns[column].kind == "text":
                raise Silent  # which the field tells
            return probe.num_classes(column)
        except (ProgramError, Silent):
            raise
        except Exception as error:
            refused(error, expr.span)

    def vocabulary(self, data: ast.Data, probe: Probe, expr: ast.Attribute) -> int:
        """The size of the vocabulary, which texts of one dataset share."""
        calls = [call for which in ("source", "val", "test") if (call := self.source(data, which)) is not None]
        texts = [call for call in calls if call.name == "text" and not _tokenized(call)]
        if len(texts) < 2 or texts[0] is not calls[0] or self.probe is None:
            return probe.vocab_size
        first, *others = texts
        shared = Call(first.name, {**first.args, "shared": tuple(call.args["path"] for call in others)}, first.span)
        found = self.ask(shared, self.probe)
        if found.missing:
            help = "put the file there, by its path from the program's folder, or write the number"
            note = "texts of one dataset share a vocabulary: the characters of all"
            fail("E401", f"no such file: {found.missing[0]}", expr.span, notes=(note,), help=help)
        return found.vocab_size

    def label(self, data: ast.Data, expr: ast.Attribute) -> str:
        """The column whose classes are counted: of the field `label`, or of the only field with an integer a row."""
        found = _labels(data)
        if len(found) != 1:
            help = "call it `label`" if found else 'declare one: `field label: int[] = column("...")`'
            fail("E405", f"`{data.name}` has {len(found)} fields that could be the label", expr.span, help=help)
        column = column_of(found[0].value)
        if column is None:
            help = "count them in a `const`"
            fail("E405", f"the classes of `{found[0].name}` are not those of a column", expr.span, help=help)
        return column

    # Sources

    def source(self, data: ast.Data, which: str) -> Call | None:
        """The source, or the `val` or `test` source, of a dataset; None where it has none, or a wrong one."""
        key = data.name, which
        if key not in self.calls:
            self.calls[key] = None
            kind = next(arg.kind for arg in DATA_SETTINGS if arg.name == which)
            for setting in data.settings:
                if setting.name == which:
                    with self.guard():
                        call = evaluate(setting.value, kind, f"`{which}`", self.lookup)
                        self.calls[key] = self.placed(call, data.name) if isinstance(call, Call) else None
        return self.calls[key]

    def placed(self, call: Call, data: str) -> Call:
        """A source with its paths relative to the program's folder, where another file declares it."""
        prefix = self.prefixes.get(data, "")
        if call.name == "python":
            return call
        moved: dict[str, Constant] = {}
        for key, value in call.args.items():
            saved = call.name == "huggingface" and key == "name" and self.is_folder(f"{prefix}{value}")
            path = (key in PATHS and isinstance(value, str)) or saved
            moved[key] = self.placed(value, data) if isinstance(value, Call) else f"{prefix}{value}" if path else value
        if call.name == "torchvision" and prefix:
            moved.setdefault("root", f"{prefix}data")
        return Call(call.name, moved, call.span)

    def probed(self, data: ast.Data, which: str) -> Probe | None:
        """What the files of a source hold; None where they can't be told, the reason being reported."""
        key = data.name, which
        if key not in self.probes:
            self.probes[key] = None
            call = self.source(data, which)
            if call is not None and self.probe is not None and self.readable(call):
                with self.guard():
                    self.probes[key] = self.ask(call, self.probe)
        return self.probes[key]

    def readable(self, call: Call) -> bool:
        """Whether a source has headers: a dataset of Hugging Face has, where it is a folder here."""
        return call.name in READABLE or (call.name == "huggingface" and self.is_folder(str(call.args["name"])))

    def is_folder(self, path: str) -> bool:
        try:
            return (self.folder / path).is_dir()
        except (OSError, ValueError):
            return False

    def is_there(self, path: str) -> bool:
        """Whether a path from the program's folder names anything."""
        try:
            return (self.folder / path).exists()
        except (OSError, ValueError):
            return False

    def ask(self, call: Call, probe: Prober) -> Probe:
        try:
            return probe(call.name, call.args, self.folder, allow_outside=self.allow_outside)
        except Exception as error:
            refused(error, call.span)

    def guard(self) -> Guard:
        return Guard(self.reporter)


class Guard:
    """Reports the mistake that its body raises, and goes on after it."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, ProgramError):
            self.reporter.add(error.diagnostic)
        return isinstance(error, (ProgramError, Silent))


def refused(error: Exception, span: Span) -> NoReturn:
    """Raise what a prober says about files as a mistake of the program's; another exception goes on as it is."""
    message = getattr(error, "message", None)
    if message is None or not hasattr(error, "file"):
        raise error
    row = getattr(error, "row", None)
    where = f"{error.file}{'' if row is None else f', row {row}'}"
    fail("E403", f"{where}: {message}", span, help=getattr(error, "help", None))


def _tokenized(call: Call) -> bool:
    """Whether a text has a tokenizer with a vocabulary of its own."""
    tokenizer = call.args.get("tokenizer")
    return isinstance(tokenizer, Call) and tokenizer.name != "characters"


def _without_a_look(call: Call, fact: str) -> int | None:
    """What a source's own arguments tell."""
    if call.name == "torchvision" and fact == "num_classes":
        return KNOWN_CLASSES.get(str(call.args["name"]))
    if call.name != "synthetic":
        return None
    name, default = ("rows", 1000) if fact == "rows" else ("classes", 10)
    found = call.args.get(name, default)
    assert isinstance(found, int)
    return found


def _labels(data: ast.Data) -> list[ast.Field]:
    """The field `label`, or all that could be it: those with an integer a row."""
    found = [field for field in data.fields if field.type.dtype in INTEGERS and field.type.dims == ()]
    return [field for field in found if field.name == "label"] or found


def column_of(expr: ast.Expr) -> str | None:
    """The name in `column("name")`; None of another expression."""
    if isinstance(expr, ast.Call) and isinstance(expr.function, ast.Name) and expr.function.id == "column":
        value = expr.args[0].value if len(expr.args) == 1 else None
        if isinstance(value, ast.Literal) and isinstance(value.value, str):
            return value.value
    return None


def _declared(declaration: ast.Declaration) -> str:
    return f"`{declaration.name}` is declared at {declaration.name_span}"


def declared(declarations: Mapping[str, ast.Declaration], kind: type[ast.Declaration]) -> list[str]:
    return [name for name, found in declarations.items() if isinstance(found, kind)]
