"""Every code of the front end: what it says, a program that raises it, and the cure.

`compiler/codes.py` has those of types and shapes. A code keeps its meaning for good.
"""

from __future__ import annotations

from typing import NamedTuple

DATA = 'data D {\n    source = csv("points.csv")\n    field x: float[] = column("x")\n}\n'
NET = "module Net() {\n    l = Linear(1, 1)\n}\n"
RUN = "train r {\n    model = Net()\n    data = D\n    loss(batch) { return batch.x.mean() }\n    optimizer = SGD()\n"


class Code(NamedTuple):
    """`example` is a program with this mistake, beside a file `points.csv` with the columns `x`, `t` and `u`."""

    code: str
    title: str
    example: str
    cure: str


def run(rest: str, data: str = DATA) -> str:
    """A program whose run ends with `rest`."""
    return f"{NET}{data}{RUN}{rest}\n}}\n"


def _body(statement: str) -> str:
    return f"fn f(x: [B]) -> [B] {{\n    {statement}\n}}\n"


def _field(text: str) -> str:
    return f'data D {{\n    source = csv("points.csv")\n    {text}\n}}\n'


_ALL = (
    # Syntax
    Code("E001", "the file is not UTF-8", "const a = 1 # \udcff", "save it as UTF-8"),
    Code("E002", "the file is longer than 1 MiB", "#" * (1 << 20) + "#", "divide it, with `import`"),
    Code("E003", "nested too deeply", "const a = " + "(" * 65 + "1" + ")" * 65, "give inner parts a name"),
    Code("E004", "a number is too large", "const a = 9223372036854775808", "integers have 64 bits"),
    Code("E005", "an unexpected character", "const a = 1;", "remove it"),
    Code("E006", "a string is not closed", 'const a = "text', 'end it with `"` on the same line'),
    Code("E007", "an unknown escape", 'const a = "\\q"', r"the escapes are \" \\ \n \t"),
    Code("E008", "a malformed number", "const a = 12abc", "numbers look like 12, 1_000, 0.5, 3e-4"),
    Code("E010", "a bracket is not closed", "module M() {\n    l = Linear(1, 2\n}\n", "close it"),
    Code("E011", "a bracket closes nothing", "const a = 1)", "remove it, or open it"),
    Code("E012", "something else is expected", "const = 1", "write what the message names"),
    Code("E013", "an unknown dtype", "fn f(x: flaot[B]) -> [B] { return x }", "use one of the dtypes"),
    Code("E014", "an unknown kind of parameter", "module M(a: integer) { }", "int, float, bool, str, fn or module"),
    Code("E015", "a type without sizes", "fn f(x: float) -> [] { return x }", "a single number is `float[]`"),
    Code("E016", "a positional argument after a named one", _body("return f(a=1, x)"), "put it first"),
    Code("E017", "an argument given twice", _body("return f(a=1, a=2)"), "remove one"),
    Code("E018", "a pipe into what can't be called", _body("return x |> 3"), "pipe into a function or a module"),
    Code("E019", "Python that is not tdsl", "const a = True", "the cure is in the message"),
    Code("E020", "names and values differ in number", _body("a, b = 1, 2, 3"), "give each name one value"),
    Code("E021", "`=` and `==` mixed up", "const a == 1", "`=` gives a value, `==` compares"),
    Code("E022", "an assignment with an operator", _body("x += 1"), "write `x = x + 1`"),
    Code("E023", "a keyword as a name", "const if = 1", "choose another name"),
    Code("E024", "comparisons that chain", "const a = 1 < 2 < 3", "write `a < b and b < c`"),
    Code("E025", "a missing comma", "const a = [1 2]", "separate the values with a comma"),
    Code("E026", "a value that nothing uses", _body("f(x)"), "name it or return it"),
    Code("E027", "`{` on a line of its own", "module M()\n{\n}\n", "put it at the end of the line before"),
    # Names
    Code("E101", "declared twice", "const a = 1\nconst a = 2", "rename one"),
    Code("E102", "a name that emitted code can't have", "const torch = 1", "choose another name"),
    Code("E103", "imports in a circle", 'import "program.model"', "move what both need into a third file"),
    Code("E104", "a file that can't be read", 'import "absent.model"', "correct the path"),
    Code("E110", "an unknown name", "const a = b", "declare it, or correct its spelling"),
    Code("E111", "a constant defined by itself", "const a = b\nconst b = a", "give one of them a value"),
    Code("E112", "not a dataset", "const a = Digits.rows", "name a `data` declaration"),
    Code("E113", "not known of a dataset", f"{DATA}const a = D.classes", "num_classes, rows or vocab_size"),
    Code("E114", "an unknown field", _field("field x: float[] = column(\"x\")\n    transform y = []"), "name a field"),
    Code("E115", "an unknown split", _field("field x: float[] = column(\"x\")\n    transform dev x = []"),
         "train, val or test"),
    Code("E116", "an evaluation without a run", "evaluate r {\n    predict(batch) { return batch.x }\n}\n",
         "give it the name of a run"),
    Code("E120", "not a compile-time value", "module M() { }\nconst a = M", "use numbers, strings and constants"),
    Code("E121", "an exact division that leaves a remainder", "const a = 7 / 2", "use `//`, or a float"),
    Code("E122", "division by zero", "const a = 1 // 0", "divide by something else"),
    Code("E123", "a value that is too large", "const a = 10 ** 40", "stay within 64 bits"),
    Code("E124", "an operation that does not apply", 'const a = 1 + "b"', "use values that it applies to"),
    Code("E125", "an index out of range", "const a = [1, 2][2]", "count from 0"),
    # Run configuration
    Code("E301", "an unknown setting or section", run("    epochs = 1\n    momentun = 1"), "correct its spelling"),
    Code("E302", "an unknown argument", _field('field x: float[] = column("x")\n    split = random(trian=1.0)'),
         "correct its spelling"),
    Code("E303", "something required is missing", run("    seed = 1"), "add it"),
    Code("E304", "an argument given by position and by name", run("    epochs = 1\n    ema = EMA(0.9, decay=0.9)"),
         "remove one"),
    Code("E311", "a value of the wrong kind", run('    epochs = "ten"'), "give a value of the kind named"),
    Code("E312", "a number out of range", run("    epochs = 0"), "stay within the limits named"),
    Code("E313", "not what belongs here", run("    epochs = 1\n    scheduler = StepLr(step_size=1)"),
         "use one of the built-ins named"),
    Code("E314", "fractions that do not add up",
         _field('field x: float[] = column("x")\n    split = random(train=0.9, val=0.9)'),
         "at most 1 in all"),
    Code("E315", "a split with two sources", _field('field x: float[] = column("x")\n    val = csv("points.csv")\n'
         "    split = random(train=0.9, val=0.1)"), "leave it out of `split`"),
    Code("E316", "not a size", _field('field x: float[1.5] = column("x")'), "an integer of 0 or more"),
    Code("E317", "both `epochs` and `steps`", run("    epochs = 1\n    steps = 1"), "keep one"),
    Code("E318", "a batch that does not divide", run("    epochs = 1\n    batch_size = 10\n    accumulate = 3"),
         "choose a divisor"),
    Code("E319", "a monitor that is never logged", run('    epochs = 1\n    checkpoint { best = "val/acuracy" }'),
         "monitor a value that is logged"),
    Code("E320", "a split that has no rows", run('    epochs = 1\n    checkpoint { best = "val/loss" }'),
         "give the data that split"),
    # Data
    Code("E401", "a missing file whose facts are needed",
         'data D {\n    source = csv("absent.csv")\n    field x: float[] = column("x")\n}\nconst n = D.rows\n',
         "provide the file"),
    Code("E402", "an unknown column", _field('field y: float[] = column("y")'), "name a column of the file"),
    Code("E403", "a file that can't be used", 'data D {\n    source = csv("../points.csv")\n'
         '    field x: float[] = column("x")\n}\n', "the message tells"),
    Code("E404", "a fact that is not known beforehand",
         "data D {\n    source = synthetic(rows=3)\n    field x: float[] = column(\"x\")\n}\nconst n = D.num_classes\n",
         "write the number"),
    Code("E405", "no one field is the label", f"{DATA}const n = D.num_classes", "call the label `label`"),
    Code("E406", "a field whose type its columns do not have", _field('field x: float[3] = columns("x", "t")'),
         "declare the shape that they have"),
    Code("E407", "a column that holds no numbers", _field('field x: float[] = column("name")'), "use another column"),
    # The command line
    Code("E321", "an option that sets nothing", "", "name a setting: `--set batch_size=32`"),
    # Lints
    Code("W101", "a field that is never read",
         run("    epochs = 1", DATA.replace("}", '    field t: float[] = column("t")\n}')),
         "remove it"),
    Code("W301", "a schedule that ends long before or after the run",
         run("    epochs = 10\n    scheduler = CosineAnnealingLR(T_max=100)"), "make both as long"),
    Code("W401", "a missing file", 'data D {\n    source = csv("absent.csv")\n    field x: float[] = column("x")\n}\n',
         "provide the file before training"),
)  # fmt: skip
CODES = {each.code: each for each in _ALL}
