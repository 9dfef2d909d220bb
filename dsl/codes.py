"""Every code of the front end: what it says, a program that raises it, why, and the cure.

`compiler/codes.py` has those of types and shapes, `compiler/emit/codes.py` those of what can't be emitted. A code keeps
its meaning for good.
"""

from __future__ import annotations

from typing import NamedTuple

DATA = 'data D {\n    source = csv("points.csv")\n    field x: float[] = column("x")\n}\n'
NET = (
    "module Net() {\n    l = Linear(1, 1)\n    forward(x: float[B]) -> float[B, 1] {\n"
    "        return l(x.unsqueeze(-1))\n    }\n}\n"
)
RUN = (
    "train r {\n    model = Net()\n    data = D\n    loss(batch) { return model(batch.x).mean() }\n"
    "    optimizer = SGD()\n"
)


class Code(NamedTuple):
    """`example` is a program with this mistake, beside a file `points.csv` with the columns `x`, `t`, `u` and `name`.

    `why` says what the rule is and what it is for; `more` are programs that raise the code with other messages.
    """

    code: str
    title: str
    example: str
    cure: str
    why: str = ""
    more: tuple[str, ...] = ()


def run(rest: str, data: str = DATA) -> str:
    """A program whose run ends with `rest`."""
    return f"{NET}{data}{RUN}{rest}\n}}\n"


def body(statement: str) -> str:
    """A function with this body."""
    return f"fn f(x: [B]) -> [B] {{\n    {statement}\n}}\n"


def field(text: str) -> str:
    """Data with this field."""
    return f'data D {{\n    source = csv("points.csv")\n    {text}\n}}\n'


def _images(transform: str) -> str:
    """Data of grey images of 1 x 3, transformed."""
    return field(
        'field x: float[1, 1, 3] = columns("x", "t", "u").reshape(-1, 1, 1, 3)\n    transform x = [' + transform + "]"
    )


X = 'field x: float[] = column("x")'
_SCALED = 'field x: float[] = standardized(column("x"))'
_ABSENT = f'data D {{\n    source = csv("absent.csv")\n    {X}\n}}\n'
_CLASS = (
    "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.up = nn.Linear(64, 10)\n"
    "\n    def forward(self, x):\n        return self.up(x)\n"
)
_MODULE = "module Net() {{\n    up = {}\n    forward(x: float[B, 64]) -> float[B, 10] {{ return {} }}\n}}\n"

_SYNTAX = (
    Code("E001", "the file is not UTF-8", "const a = 1 # \udcff", "save it as UTF-8",
         "A program is UTF-8 text. The place is that of the first byte that is not."),
    Code("E002", "the file is longer than 1 MiB", "#" * (1 << 20) + "#", "divide it, with `import`",
         "No program that people write is as long; what is has usually been written by a program gone astray."),
    Code("E003", "nested too deeply", "const a = " + "(" * 65 + "1" + ")" * 65, "give inner parts a name",
         "Brackets and blocks nest up to 64 levels, operations up to 200."),
    Code("E004", "a number is too large", "const a = 9223372036854775808", "stay within 64 bits",
         "Integers have 64 bits, as PyTorch's `int64` has; other numbers are those of `float64`.",
         ("const a = 1e999",)),
    Code("E005", "an unexpected character", "const a = 1;", "remove it, or write what the message names",
         "A character, or a way to write a string or a comment, that the language does not have.",
         ("const a = 'text'", body("// doubles\n    return x * 2"), body("return x ^ 2"), "const a = true && false",
          "const größe = 1")),
    Code("E006", "a string is not closed", 'const a = "text', 'end it with `"` on the same line',
         "A string ends on the line it begins on."),
    Code("E007", "an unknown escape", 'const a = "\\q"', r"the escapes are \" \\ \n \t",
         "A backslash in a string begins one of four escapes; a backslash itself is written twice."),
    Code("E008", "a malformed number", "const a = 12abc", "numbers look like 12, 1_000, 0.5, 3e-4",
         "A number begins with a digit, and so does what follows its point."),
    Code("E010", "a bracket is not closed", "module M() {\n    l = Linear(1, 2\n}\n", "close it",
         "The caret is under the bracket that stayed open; the note says where that was noticed.",
         (f"module M() {{\n    l = Linear(1, 2)\n\n{DATA}",)),
    Code("E011", "a bracket closes nothing", "const a = 1)", "remove it, or open it",
         "Each `)`, `]` and `}` closes the nearest bracket of its kind that is open."),
    Code("E012", "something else is expected", "const = 1", "write what the message names",
         "What stands there can't continue what stands before it. The message names what could.",
         ("module M(dim) { }", "module M() {\n    forward(x) -> [B] { return x }\n}\n",
          "module M() {\n    forward(x: [B]) { return x }\n}\n", "module M {\n}\n", run("    epochs: 10"),
          body("return x +"), body("return x[]"))),
    Code("E013", "an unknown dtype", "fn f(x: flaot[B]) -> [B] { return x }", "use one of the dtypes",
         "`float` is the precision that the run chooses; `f64 f32 f16 bf16` are floating-point numbers of one size; "
         "`int` is `i64`, and there are `i32 i16 i8 u8` and `bool`.",
         ("fn f(x: float32[B]) -> [B] { return x }", "fn f(x: torch.Tensor) -> [B] { return x }")),
    Code("E014", "an unknown kind of parameter", "module M(a: integer) { }", "int, float, bool, str, fn or module",
         "Parameters of a module are compile-time values; tensors are inputs of its `forward`. A `fn` takes both.",
         ("fn f(x: [B], eps: [] = 1e-5) -> [B] { return x }", "fn f(x: [B], layer: module) -> [B] { return x }")),
    Code("E015", "a type without sizes", "fn f(x: [B]) -> float { return sum(x) }", "a single number is `float[]`",
         "The type of a tensor says its sizes, so that shapes can be proved. What has none is a parameter, of a module "
         "or of a `fn`; the inputs of `forward` are tensors.",
         ("module M() { forward(x: [B], causal: bool) -> [B] { return x if causal else -x } }",)),
    Code("E016", "a positional argument after a named one", body("return f(a=1, x)"), "put it first",
         "As in Python, arguments without a name come first, in the order of the signature."),
    Code("E017", "an argument given twice", body("return f(a=1, a=2)"), "remove one",
         "An argument has one value."),
    Code("E018", "a pipe into what can't be called", body("return x |> 3"), "pipe into a function or a module",
         "`x |> f(a)` is `f(x, a)`, and `x |> m` calls a module or a list of modules."),
    Code("E019", "Python that is not tdsl", "const a = True", "write what the message names",
         "The word, prefix or form is Python's or PyTorch's, and the language has another for it. What is only spelt "
         "otherwise is taken for what it means, so that the rest of the program is checked.",
         ("import torch", _CLASS, _MODULE.format("nn.Linear(64, 10)", "up(x)"),
          _MODULE.format("Linear(64, 10)", "self.up(x)"), _MODULE.format("Linear(64, 10)", "F.gelu(up(x))"),
          body("y = lambda t: t + 1\n    return y(x)"), body("return x * math.pi"),
          body("return cast(x, dtype=torch.float32)"), body("for i in range(3):\n        x = x + i\n    return x"),
          body("y: float[B] = x\n    return y"), body('return rearrange(x, f"b -> b")'),
          body('"""Doubles."""\n    return x * 2'), "@torch.compile\nfn f(x: [B]) -> [B] { return x }",
          "const a = 3 not in [1, 2]", body("with torch.no_grad():\n        y = x\n    return x"),
          run("    epochs = 1").replace("SGD()", "optim.Adam(model.parameters(), lr=1e-3)"))),
    Code("E020", "names and values differ in number", body("a, b = 1, 2, 3"), "give each name one value",
         "`a, b = x, y` binds each name to one value; a single value on the right must be several results of a call."),
    Code("E021", "`=` and `==` mixed up", "const a == 1", "`=` gives a value, `==` compares",
         "`=` gives a value and stands once in a statement; `==` is an operator of expressions.",
         (body("if x = 1 {\n        return x\n    }\n    return x"), body("a = b = x\n    return a"))),
    Code("E022", "an assignment with an operator", body("x += 1\n    return x"), "write `x = x + 1`",
         "Tensors are not changed in place. A name may be bound again, which costs nothing: the compiler fuses it."),
    Code("E023", "a keyword as a name", "const if = 1", "choose another name",
         "Of the keywords, `import return for in if else and or not true false none` are never names."),
    Code("E024", "comparisons that chain", "const a = 1 < 2 < 3", "write `a < b and b < c`",
         "`a < b < c` means something else in PyTorch than in Python; here it is written out."),
    Code("E025", "a missing comma", "const a = [1 2]", "separate the values with a comma",
         "Two values stand side by side with nothing between them."),
    Code("E026", "a value that nothing uses", body("f(x)\n    return x"), "name it or return it",
         "Statements have no effect but the names they bind, so an expression alone does nothing.",
         (body("x[0] = 1\n    return x"), body("print(x)\n    return x"))),
    Code("E027", "`{` on a line of its own", "module M()\n{\n}\n", "put it at the end of the line before",
         "A newline ends what stands on a line."),
)  # fmt: skip

_NAMES = (
    Code("E101", "declared twice", "const a = 1\nconst a = 2", "rename one",
         "A name at the top of a program, and within one list of parameters, members, fields or settings, stands for "
         "one thing. A name within a body may be bound again.", ("module M(a: int, a: int) { }",)),
    Code("E102", "a name that emitted code can't have", "const torch = 1", "choose another name",
         "Names are kept in what is emitted, never changed in silence; so a name that Python or PyTorch needs there "
         "can't be declared.", ("module M() {\n    lambda = 1\n}\n", "module M() {\n    parameters = 1\n}\n")),
    Code("E103", "imports in a circle", 'import "program.model"', "move what both need into a third file",
         "A file can't be read before itself."),
    Code("E104", "a file that can't be read", 'import "absent.model"', "correct the path",
         "The path of an import is relative to the file that it stands in."),
    Code("E110", "an unknown name", "const a = b", "declare it, or correct its spelling",
         "Nothing of this name is declared, bound before this place, or built in.",
         (body("return gleu(x)"), body("return x.cuda()"), body("return x.numpy()"), body("return x.relu_()"),
          "fn f(x: [B]) -> [C] { return x }", "fn f(x: [b]) -> [b] { return x }",
          "module M() {\n    layers = ModuleList([ReLU()])\n}\n",
          run("    epochs = 1").replace("model(batch.x).mean()", "MSELoss()(model(batch.x), batch.x)"))),
    Code("E111", "a constant defined by itself", "const a = b\nconst b = a", "give one of them a value",
         "Constants may stand in any order, but not in a circle; the note shows it."),
    Code("E112", "not a dataset", "const a = Digits.rows", "name a `data` declaration",
         "`NAME.rows` and the like are known of what `data NAME { ... }` declares.",
         (run("    epochs = 1").replace("data = D", "data = Dd"),)),
    Code("E113", "not known of a dataset", f"{DATA}const a = D.classes", "num_classes, rows or vocab_size",
         "Of a dataset three numbers are compile-time values: the classes of its label, its rows, and the size of its "
         "vocabulary."),
    Code("E114", "an unknown field", field(f"{X}\n    transform y = []"), "name a field",
         "The fields are those that the data declare.",
         (run("    epochs = 1").replace("batch.x", "batch.y"),)),
    Code("E115", "an unknown split", field(f"{X}\n    transform dev x = []"), "train, val or test",
         "The splits have these three names everywhere."),
    Code("E116", "an evaluation without a run", "evaluate r {\n    predict(batch) { return batch.x }\n}\n",
         "give it the name of a run", "`evaluate NAME` says how the run of that name is evaluated."),
    Code("E120", "not a compile-time value", "module M() { }\nconst a = M", "use numbers, strings and constants",
         "It is needed before the program runs, and made of literals, constants, facts of data and arithmetic."),
    Code("E121", "an exact division that leaves a remainder", "const a = 7 / 2", "use `//`, or a float",
         "Between integers `/` is exact, because a size rounded down in silence is the commonest wrong shape."),
    Code("E122", "division by zero", "const a = 1 // 0", "divide by something else",
         "The divisor is zero whatever the run does."),
    Code("E123", "a value that is too large", "const a = 10 ** 40", "stay within 64 bits",
         "Results of compile-time arithmetic have 64 bits, as literals have."),
    Code("E124", "an operation that does not apply", 'const a = 1 + "b"', "use values that it applies to",
         "Compile-time arithmetic is that of numbers; strings and lists can be joined and compared.",
         ("const a = not 3", 'const a = sqrt("four")')),
    Code("E125", "an index out of range", "const a = [1, 2][2]", "count from 0, or back from -1",
         "A list of n values has the indices 0 to n - 1, and -n to -1 from its end."),
)  # fmt: skip

_RUNS = (
    Code("E301", "an unknown setting or section", run("    epochs = 1\n    momentun = 1"), "correct its spelling",
         "A setting that has no effect is more often a typo than a wish; so an unknown one is an error.",
         (run("    epoch = 1"), run("    epochs = 1\n    lr = 0.1"), run("    epochs = 1\n    checkpoint { evry = 1 }"),
          run("    epochs = 1").replace("loss(batch) { return model(batch.x).mean() }", "loss = mse_loss"))),
    Code("E302", "an unknown argument", field(f"{X}\n    split = random(trian=1.0)"), "correct its spelling",
         "Arguments are those of PyTorch, torchvision and torchmetrics.",
         (run("    epochs = 1").replace("SGD()", "Adam(momentum=0.9)"),)),
    Code("E303", "something required is missing", run("    seed = 1"), "add it",
         "A run has a model, data, a loss, an optimizer, and a length; a dataset has a source and a field.",
         (field(f"{X}\n    split = stratified(train=0.8, test=0.2)"),)),
    Code("E304", "an argument given by position and by name", run("    epochs = 1\n    ema = EMA(0.9, decay=0.9)"),
         "remove one", "An argument has one value."),
    Code("E311", "a value of the wrong kind", run('    epochs = "ten"'), "give a value of the kind named",
         "Each setting takes values of one kind.", (run("    epochs = 1\n    precision = fp16"),)),
    Code("E312", "a number out of range", run("    epochs = 0"), "stay within the limits named",
         "The number is of the right kind, but no run can mean it."),
    Code("E313", "not what belongs here", run("    epochs = 1\n    scheduler = StepLr(step_size=1)"),
         "use one of the built-ins named", "The setting takes one of a few built-ins, or a module of the program.",
         (run("    epochs = 1").replace("SGD()", "SGD"), run("    epochs = 1").replace("= Net()", "= Net"))),
    Code("E314", "fractions that do not add up", field(f"{X}\n    split = random(train=0.9, val=0.9)"),
         "at most 1 in all", "Each row is in at most one split. What is left over is in none."),
    Code("E315", "a split with two sources",
         field(f'{X}\n    val = csv("points.csv")\n    split = random(train=0.9, val=0.1)'), "leave it out of `split`",
         "A split has a source of its own, or a share of `source`."),
    Code("E316", "not a size", field('field x: float[1.5] = column("x")'), "an integer of 0 or more",
         "The sizes of a field are those of one row, and known."),
    Code("E317", "both `epochs` and `steps`", run("    epochs = 1\n    steps = 1"), "keep one",
         "The one that a run has is what its schedules, checkpoints and validations count in."),
    Code("E318", "a batch that does not divide", run("    epochs = 1\n    batch_size = 10\n    accumulate = 3"),
         "choose a divisor", "`batch_size` is the whole batch of a step; `accumulate` takes it in equal parts."),
    Code("E319", "a monitor that is never logged", run('    epochs = 1\n    checkpoint { best = "val/acuracy" }'),
         "monitor a value that is logged",
         "Logged are the loss, what `track` names, and of held-out rows the metrics of the run's "
         "`evaluate`, each as `val/NAME` or `train/NAME`."),
    Code("E320", "a split that has no rows", run('    epochs = 1\n    checkpoint { best = "val/loss" }'),
         "give the data that split", "What is monitored on a split, or evaluated on it, needs rows there.",
         (run("    epochs = 1") + "evaluate r {\n    predict(batch) { return model(batch.x) }\n}\n",)),
    Code("E321", "an option that sets nothing", "", "name a setting: `--set batch_size=32`",
         "`--set` changes settings of a run (`batch_size`), of its sections (`checkpoint.every`), arguments of its "
         "calls (`optimizer.lr`), and settings of the data (`data.workers`) and the evaluation (`evaluate.metrics`)."),
)  # fmt: skip

_DATA = (
    Code("E401", "a missing file whose facts are needed", f"{_ABSENT}const n = D.rows\n", "provide the file",
         "The program needs a number that only the file knows. Where it does not, a missing file is a warning: W401."),
    Code("E402", "an unknown column", field('field y: float[] = column("y")'), "name a column of the file",
         "Columns are compared with the header of the file.",
         (field('field y: float[] = column("nmae")'), field('field y: float[2] = columns("p*")'))),
    Code("E403", "a file that can't be used", f'data D {{\n    source = csv("../points.csv")\n    {X}\n}}\n',
         "do what the message says", "The file is damaged, not of its format, or lies where programs may not read."),
    Code("E404", "a fact that is not known beforehand",
         f'data D {{\n    source = huggingface("points")\n    {X}\n}}\nconst n = D.num_classes\n', "write the number",
         "The header or the rows of this source are not read when a program is checked."),
    Code("E405", "no one field is the label", f"{DATA}const n = D.num_classes", "call the label `label`",
         "`num_classes` counts the classes of the field `label`, or of the only field that is one integer a row."),
    Code("E406", "a field whose type its columns do not have", field('field x: float[3] = columns("x", "t")'),
         "declare the shape that they have", "A field has the shape of its columns; several columns are stacked."),
    Code("E407", "a column that holds no numbers", field('field x: float[] = column("name")'),
         "number its values by `categories`, or use another column",
         "Tensors hold numbers and booleans. A column with few texts is told with the list that numbers them."),
    Code("E408", "categories that can't be", field('field y: int[] = categories("name", ["a", "b", "a"])'),
         "list each value once, as the file has it",
         "`categories` numbers the values of a column by their places in a list of strings, or of whole numbers. A "
         "dataset reads a column in one way.",
         (field('field y: int[] = categories("name", ["a", 1])'), field('field y: int[] = categories("name", [1])'))),
    Code("E409", "statistics that can't be had", field('field y: float[] = column("x", missing="median")'),
         "do what the message says",
         'The means of `missing="mean"` and what `standardized` divides by are those of the rows of the train split: '
         "they need a source whose rows are in memory, rows in that split, and a field of floating-point numbers.",
         (field('field y: int[] = column("t", missing="mean")'),
          field(f"{_SCALED}\n    split = random(val=1.0)"),
          f'data D {{\n    source = huggingface("points")\n    {_SCALED}\n}}\n',
          field('field y: float[] = standardized(column("x")) - standardized(column("t"))'))),
    Code("E454", "a transform that does not fit its field",
         DATA.replace("\n}", "\n    transform x = [Normalize(mean=[0.5], std=[1.0])]\n}"),
         "give it what the field's shape needs",
         "Transforms of images take [channels, height, width]. A field is declared as it is behind its transforms, "
         "which is the same in every split.",
         (_images("Resize([7, 7])"), _images("RandomRotation(9, expand=true)"), _images("Grayscale(2)"))),
)  # fmt: skip

_PLATEAU = run(
    '    epochs = 1\n    scheduler = ReduceLROnPlateau(monitor="val/r2_score")',
    DATA.replace("\n}", "\n    split = random(train=0.8, val=0.2)\n}"),
) + (
    "evaluate r {\n    compare(batch) { return model(batch.x)[:, 0], batch.x }\n"
    '    metrics = [R2Score()]\n    split = "val"\n}\n'
)

_LINTS = (
    Code("W101", "a field that is never read",
         run("    epochs = 1", DATA.replace("}", '    field t: float[] = column("t")\n}')), "remove it",
         "Reading and converting a column costs time in each batch."),
    Code("W301", "a schedule that ends long before or after the run",
         run("    epochs = 10\n    scheduler = CosineAnnealingLR(T_max=100)"), "make both as long",
         "A schedule cut off early leaves the rate high, one that ends early trains on at a rate of nothing."),
    Code("W302", "a plateau that is watched the wrong way", _PLATEAU, "say what is better",
         "As PyTorch has it, `ReduceLROnPlateau` takes what it monitors for a loss: `mode` is `min` unless written."),
    Code("W303", "a cycle of rates that is counted in epochs",
         run("    epochs = 10\n    scheduler = OneCycleLR(max_lr=0.1)"), "say what it counts",
         "`OneCycleLR` and `CyclicLR` of PyTorch are stepped after every batch, and made for that."),
    Code("W401", "a missing file", _ABSENT, "provide the file before training",
         "The program is checked as far as it goes without the file. Weights of `init_from` that another run of the "
         "program writes are not missed.",
         (run('    epochs = 1\n    init_from = "absent.safetensors"'),)),
)  # fmt: skip
CODES = {each.code: each for each in (*_SYNTAX, *_NAMES, *_RUNS, *_DATA, *_LINTS)}
