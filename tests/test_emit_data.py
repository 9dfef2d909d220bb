"""The emitted `data.py`: its text, and what it reads when it is run."""

from __future__ import annotations

import ast as python
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from tdsl.compiler.emit.data import emit_data, unsupported
from tdsl.compiler.emit.expression import expression
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import ProgramError, Reporter, Source
from tdsl.dsl.parser import parse
from tdsl.dsl.program import Call, DataSpec, FieldSpec, TransformSpec
from tdsl.runtime.sources import Table

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def value(text: str) -> ast.Expr:
    reporter = Reporter()
    declared = parse(Source("a.model", f"const x = {text}\n"), reporter).declarations
    assert not reporter.errors
    assert isinstance(declared[0], ast.Const)
    return declared[0].value


SPAN = value("1").span


def call(name: str, /, **args: Any) -> Call:
    return Call(name, args, SPAN)


def digits(**changes: Any) -> DataSpec:
    fields = (
        FieldSpec("pixels", "float", (1, 1, 64), value('columns("p*")[:, none, none] / grey'), SPAN),
        FieldSpec("label", "int", (), value('column("label")'), SPAN, doc="0 to 9"),
    )
    spec: dict[str, Any] = {
        "name": "Digits",
        "sources": {"source": call("csv", path="data/digits.csv")},
        "split": call("random", train=0.7, val=0.15, test=0.15),
        "fields": fields,
        "transforms": (),
        "settings": {},
        "facts": {"num_classes": 10},
        "span": SPAN,
    }
    return DataSpec(**{**spec, **changes})


def run(spec: DataSpec, folder: Path, **options: Any) -> dict[str, Any]:
    text = emit_data(spec, {"grey": 16}, root=str(EXAMPLES), **options)
    (folder / "data.py").write_text(text)
    return runpy.run_path(str(folder / "data.py"))


@pytest.mark.parametrize(
    "text",
    [
        'column("a") - (column("b") - 1) - 2',
        '(column("a") + 1) * -column("b") ** 2',
        '2 ** (column("a") ** 2) / (column("b") * 3)',
        '(column("a") // 2) % 3 * column("b")',
        'columns("*")[:, 1] * columns("a", "b")[..., 0]',
        "(columns('*')[0:2, none] == 2) != false".replace("'", '"'),
        '-(column("a") + column("b"))',
        'exp(column("a") / 9) + log(column("b"))',
        'column("a").float().exp()',
        'columns("a", "b") - tensor([1.5, -2]) * tensor(3)',
        'columns("a", "b")[:, none].flatten(-2) + cumsum(columns("a", "b") * 2, dim=-1)',
        'flatten(-columns("a", "b")[:, none], -2).transpose(-1, -1)',
    ],
)
def test_an_expression_is_what_python_makes_of_the_same_text(text: str) -> None:
    table = Table({"a": torch.tensor([1, 2, 3]).numpy(), "b": torch.tensor([4, 5, 6]).numpy()}, (("t", 3),))
    names = {"column": table.column, "columns": table.columns, "exp": torch.exp, "log": torch.log}
    names |= {"tensor": torch.tensor, "cumsum": torch.cumsum, "flatten": torch.flatten}
    written = text.replace("none", "None").replace("false", "False")
    mine = eval(expression(value(text), {}), {"table": table, "torch": torch})
    assert torch.equal(mine, eval(written, names))


TENSORS = ["tensor()", 'tensor("a")', "tensor([[1, 2]])", 'tensor([column("a")])', "tensor(data=1)", "tensor(1, 2)"]


@pytest.mark.parametrize("text", ["lable", "Linear(3, 4)", 'column("a") |> exp', "nothing(1)", "1()", *TENSORS])
def test_what_a_field_can_not_be_is_a_located_error(text: str) -> None:
    with pytest.raises(ProgramError) as found:
        expression(value(text), {})
    assert found.value.diagnostic.span is not None


def test_digits(tmp_path: Path) -> None:
    data = run(digits(), tmp_path)
    splits = data["load"]()
    assert {name: len(split) for name, split in splits.items()} == {"train": 1258, "val": 270, "test": 269}
    batches = data["batches"]("train", 64, seed=1)
    batch = next(batches.epoch(0))
    assert batch.pixels.shape == (64, 1, 1, 64)
    assert batch.label.dtype == torch.int64
    assert batches.shuffle
    assert not data["batches"]("test", 64).shuffle


def test_sources_of_their_own_transforms_and_settings(tmp_path: Path) -> None:
    source = digits().sources["source"]
    normal, crop = call("Normalize", mean=(0.5,), std=(0.25,)), call("RandomCrop", size=(1, 64), padding=1)
    transforms = (
        TransformSpec("pixels", None, (normal,), SPAN),
        TransformSpec("pixels", "train", (crop, normal), SPAN),
    )
    spec = digits(
        sources={"source": source, "test": source},
        split=call("stratified", train=0.8, val=0.2, seed=3, by="label"),
        transforms=transforms,
        settings={"shuffle": False, "drop_last": True, "resident": "auto", "workers": 2, "prefetch": 3},
    )
    data = run(spec, tmp_path, allow_outside=True)
    assert data["SPLITS"] == ("train", "val", "test")
    assert len(data["load"]()["test"]) == 1797
    batch = next(iter(data["batches"]("test", 10)))
    raw = data["load"]()["test"].fields["pixels"][:10]
    assert torch.equal(batch.pixels, (raw - 0.5) / 0.25)
    train = data["batches"]("train", 1000)
    assert (train.shuffle, train.drop_last, len(train)) == (False, True, 1)
    assert (train.workers, train.prefetch, train.resident) == (2, 3, "auto")


def test_all_rows_train_where_nothing_is_split(tmp_path: Path) -> None:
    data = run(digits(split=None), tmp_path)
    assert data["SPLITS"] == ("train",)
    assert len(data["load"]()["train"]) == 1797


def test_strings_of_the_program_stay_strings(tmp_path: Path) -> None:
    bad = '"""\\"); raise SystemExit(1)\n{{ 7 * 7 }}{% raw %}\\'
    name = 'x\n"""; raise SystemExit(1)'
    span = ast.Literal(SPAN, 1).span.__class__(Source(name, "x"), 0, 1)
    column = ast.Call(SPAN, ast.Name(SPAN, "column"), (ast.Argument(SPAN, None, ast.Literal(SPAN, bad)),))
    evil = FieldSpec("label", "int", (), column, span, doc=bad)
    texts = [
        emit_data(digits(doc=doc, fields=(evil,), span=span, sources={"source": call("csv", path=path)}), {}, root=path)
        for doc, path in ((bad, bad), ("plain", "plain"))
    ]
    shapes = [[type(node) for node in python.walk(python.parse(text))] for text in texts]
    assert shapes[0] == shapes[1]
    found = python.parse(texts[0])
    constants = {node.value for node in python.walk(found) if isinstance(node, python.Constant)}
    assert bad in constants
    assert bad in str(python.get_docstring(found, clean=False))


def test_the_text_is_the_same_every_time() -> None:
    assert emit_data(digits(), {"grey": 16}) == emit_data(digits(), {"grey": 16})


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": {"source": call("python", target="dataset")}},
        {"sources": {"source": call("torchvision", name="MNIST", allow_outside=True)}},
        {"sources": {"source": call("torchvision", name="os:system")}},
        {"sources": {"source": call("text", path="a"), "test": call("text", path="b", tokenizer=call("hf", path="t"))}},
        {"settings": {"prefetch": 4}},
        {"settings": {"workers": 2, "resident": True}},
        {"fields": (FieldSpec("size", "float", (), value('column("p0")'), SPAN),)},
    ],
)
def test_what_can_not_be_run_is_refused_with_its_place(changes: dict[str, Any]) -> None:
    (found,) = unsupported(digits(**changes))
    assert found.span is not None
    assert found.code.startswith("E45")
    with pytest.raises(ProgramError):
        emit_data(digits(**changes), {})
