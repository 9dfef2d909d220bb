"""Programs over every source: checked, emitted, and their `data.py` run on the files."""

from __future__ import annotations

import ast as python
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tdsl.compiler.emit.data import emit_data, unsupported
from tdsl.compiler.probe import probe
from tdsl.dsl.program import Program
from tdsl.dsl.resolve import load
from tdsl.runtime.loader import Batches, Split

Loaded = Mapping[str, Split]


def resolved(folder: Path, body: str, after: str = "") -> tuple[Program, list[str]]:
    program, reporter = load(folder / "p.model", text=f"data D {{\n{body}\n}}\n{after}", probe=probe)
    assert program is not None
    return program, [f"{each.code} {each.message}" for each in reporter.diagnostics]


def text_of(folder: Path, body: str, after: str = "", **options: Any) -> str:
    program, told = resolved(folder, body, after)
    assert told == []
    assert unsupported(program.data["D"], program.consts) == []
    return emit_data(program.data["D"], program.consts, root=".", **options)


def loaded(folder: Path, body: str, after: str = "") -> Loaded:
    space: dict[str, Any] = {"__file__": str(folder / "data.py"), "__name__": "data"}
    exec(compile(text_of(folder, body, after), "data.py", "exec"), space)
    found: Loaded = space["load"]()
    return found


def batch_of(folder: Path, body: str, size: int) -> Any:
    """The first batch of the training split, transformed."""
    space: dict[str, Any] = {"__file__": str(folder / "data.py"), "__name__": "data"}
    exec(compile(text_of(folder, body + "\n    shuffle = false"), "data.py", "exec"), space)
    return next(iter(space["batches"]("train", size)))


def batch(split: Split, size: int = 4) -> Any:
    return next(iter(Batches(split, size)))


TOKENS = '\n    field tokens: int[4] = column("tokens")\n    field targets: int[4] = column("targets")'


def test_jsonl(tmp_path: Path) -> None:
    rows = [{"x": [[i, 1], [2, 3]], "label": i % 3} for i in range(10)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    body = """    source = jsonl("a.jsonl")
    split = sequential(train=0.8, test=0.2)
    field x: float[2, 2] = column("x") / 2
    field label: int[] = column("label")"""
    splits = loaded(tmp_path, body, "const n = D.num_classes * D.rows")
    assert batch(splits["test"]).x.tolist() == [[[4.0, 0.5], [1, 1.5]], [[4.5, 0.5], [1, 1.5]]]
    assert resolved(tmp_path, body.replace("[2, 2]", "[4]"))[1][0].startswith("E406")


XY = '    field x: float[2] = columns("x*")\n    field y: int[] = column("y")'


@pytest.mark.parametrize("written", [";", "\\t", "|"])
def test_a_csv_with_another_delimiter(tmp_path: Path, written: str) -> None:
    delimiter = written.replace("\\t", "\t")
    lines = [["x0", "x1", "y"], ["1", "2.5", "0"], ["3", "4", "1"]]
    (tmp_path / "a.csv").write_text("".join(delimiter.join(line) + "\n" for line in lines))
    body = f'    source = csv("a.csv", delimiter="{written}")\n{XY}'
    assert f'sources.csv(root, "a.csv", delimiter="{written}")' in text_of(tmp_path, body)
    split = loaded(tmp_path, body)["train"]
    assert batch(split, 2).x.tolist() == [[1, 2.5], [3, 4]]
    assert batch(split, 2).y.tolist() == [0, 1]


def test_a_comma_is_not_written_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x0,x1,y\n1,2,0\n")
    assert 'sources.csv(root, "a.csv"))' in text_of(tmp_path, f'    source = csv("a.csv", delimiter=",")\n{XY}')


@pytest.mark.parametrize(("header", "given"), [("x0;x1;y", ""), ("x0\tx1\ty", ""), ("x0,x1,y", ', delimiter=";"')])
def test_a_header_of_one_column_tells_its_delimiter(tmp_path: Path, header: str, given: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n1\n")
    delimiter = json.dumps(header[2])
    body = f'    source = csv("a.csv"{given})\n{XY}'
    _, reporter = load(tmp_path / "p.model", text=f"data D {{\n{body}\n}}\n", probe=probe)
    told = {each.code: each.help for each in reporter.diagnostics}
    cure = f'its header is one column, {json.dumps(header)}: write `csv("a.csv", delimiter={delimiter})`'
    assert told["E402"] == cure
    (tmp_path / "a.csv").write_text(f"{header}\na\n")  # `x*` is the name of the one column, which is no number
    _, reporter = load(tmp_path / "p.model", text=f"data D {{\n{body}\n}}\n", probe=probe)
    assert {each.code: each.help for each in reporter.diagnostics} == {"E402": cure, "E407": cure}


@pytest.mark.parametrize("value", ['";;"', '""', "none", "1", '"é"', '"\\n"', '"\\""'])
def test_a_delimiter_is_one_character(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.csv").write_text("x0,x1,y\n1,2,0\n")
    body = f'    source = csv("a.csv", delimiter={value})\n{XY}'
    _, reporter = load(tmp_path / "p.model", text=f"data D {{\n{body}\n}}\n", probe=probe)
    (found,) = (each for each in reporter.diagnostics if each.code.startswith("E3"))
    assert (found.code, found.span.text) == ("E311", value)


def test_safetensors(tmp_path: Path) -> None:
    save_file({"x": torch.arange(12.0).reshape(4, 3), "y": torch.tensor([2, 0, 1, 1])}, tmp_path / "a.safetensors")
    body = '    source = safetensors("a.safetensors")\n    field x: float[3] = column("x")\n    field y: int[] = column("y")'
    splits = loaded(tmp_path, body, "const n = D.num_classes")
    assert torch.equal(batch(splits["train"]).x, torch.arange(12.0).reshape(4, 3))
    assert "classes=3" in text_of(tmp_path, body, "const n = D.num_classes")


def test_tokens(tmp_path: Path) -> None:
    np.arange(41, dtype="<u2").tofile(tmp_path / "train.bin")
    np.arange(9, dtype="<u2").tofile(tmp_path / "val.bin")
    body = f'    source = tokens("train.bin", window=4)\n    val = tokens("val.bin", window=4){TOKENS}'
    splits = loaded(tmp_path, body, "const n = D.vocab_size")
    assert {name: len(split) for name, split in splits.items()} == {"train": 10, "val": 2}
    assert batch(splits["train"], 2).targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert 'sources.tokens(root, "val.bin", window=4, vocab_size=41)' in text_of(
        tmp_path, body, "const n = D.vocab_size"
    )
    (tmp_path / "val.bin").write_bytes(np.array([1, 2, 50, 3, 4], dtype="<u2").tobytes())
    with pytest.raises(Exception, match=r"val\.bin, row 1, `tokens`: the token 50 is not in the vocabulary of 41"):
        loaded(tmp_path, body, "const n = D.vocab_size")


def test_texts_share_their_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcabcabcabc")
    (tmp_path / "b.txt").write_text("xyzxyzabcabc")
    body = f'    source = text("a.txt", window=4)\n    test = text("b.txt", window=4){TOKENS}'
    program, told = resolved(tmp_path, body, "const n = D.vocab_size")
    assert (told, program.consts["n"]) == ([], 6)
    splits = loaded(tmp_path, body)
    assert batch(splits["train"]).tokens[0].tolist() == [0, 1, 2, 0]
    assert batch(splits["test"]).tokens[0].tolist() == [3, 4, 5, 3]
    assert 'return sources.characters(root, "a.txt", "b.txt")' in text_of(tmp_path, body)
    (tmp_path / "b.txt").unlink()
    told = resolved(tmp_path, body, "const n = D.vocab_size")[1]
    assert sorted(told) == ["E401 no such file: b.txt", "W401 no such file: b.txt"]


def test_a_text_with_a_tokenizer(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("a b c d " * 5)
    body = f'    source = text("a.txt", hf("tokenizer.json"), window=4){TOKENS}'
    program, told = resolved(tmp_path, body, "const n = D.vocab_size")
    assert (told, program.consts["n"]) == ([], 4)
    assert batch(loaded(tmp_path, body)["train"]).tokens.tolist() == [[1, 2, 3, 0]] * 4
    assert 'return sources.hf(root, "tokenizer.json")' in text_of(tmp_path, body)


def test_synthetic_rows(tmp_path: Path) -> None:
    body = """    source = synthetic(rows=50, classes=3)
    split = stratified(train=0.8, val=0.2, by="label")
    field x: float[2, 3] = columns("p*")[:, :6] / 255
    field label: int[] = column("label")"""
    program, told = resolved(tmp_path, body, "const n = D.num_classes + D.rows")
    assert (told, program.consts["n"]) == ([], 53)
    splits = loaded(tmp_path, body)
    assert {name: len(split) for name, split in splits.items()} == {"train": 40, "val": 10}
    assert batch(splits["val"]).x.shape == (4, 2, 3)


def test_a_folder_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for split, count in (("train", 6), ("test", 2)):
        for i in range(count):
            file = tmp_path / split / ("cat", "dog")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(np.full((4, 5, 3), 10 * i, dtype=np.uint8)).save(file)
    body = """    source = image_folder("train")
    test = image_folder("test")
    field image: float[3, 4, 5] = column("image") / 10
    field label: int[] = column("label")"""
    splits = loaded(tmp_path, body, "const n = D.num_classes * D.rows")
    found = batch(splits["train"], 6)
    assert found.label.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.image[:, 0, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    text = text_of(tmp_path, body, "const n = D.num_classes")
    assert 'classes = sources.class_names(root, "train")' in text
    assert 'test = fields(sources.image_folder(root, "test", classes=classes))' in text
    other = body.replace("[3, 4, 5]", "[3, 8, 8]")
    assert resolved(tmp_path, other)[1] == [
        "E406 `image` is declared as float[3, 8, 8], and its columns give [3, 4, 5] a row"
    ]
    (told,) = resolved(tmp_path, f"{other}\n    transform image = [Resize([8, 9])]")[1]
    assert told.startswith("E454")
    (tmp_path / "train/dog/5.png").write_bytes(b"")
    split = loaded(tmp_path, body)["train"]
    with pytest.raises(Exception, match=r"train/dog/5\.png, `image`: can't be read"):
        batch(split, 6)
    assert resolved(tmp_path, body.replace('"train"', '"absent"'))[1] == ["W401 no such file: absent"]


def test_images_of_several_sizes_are_resized(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("torchvision")
    for i, shape in enumerate([(4, 5, 3), (9, 7, 3), (4, 4, 3)]):
        file = tmp_path / f"train/{'ab'[i % 2]}/{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full(shape, 10 * i, dtype=np.uint8)).save(file)
    for size in ([4, 5], [8, 8]):  # the first image has the declared size, or has not
        body = f"""    source = image_folder("train")
    field image: float[3, {size[0]}, {size[1]}] = column("image") / 10
    transform image = [Resize({size})]"""
        assert "resized=True" in text_of(tmp_path, body)
        found = batch_of(tmp_path, body, 3).image
        assert found.shape == (3, 3, *size)
        assert found[:, 0, 0, 0].round().tolist() == [0, 2, 1]


def test_a_dataset_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "waves_of_a_test.py").write_text(
        "import torch\nclass Waves:\n    def __init__(self, length, shift=0.0): self.length, self.shift = length, shift\n"
        "    def __len__(self): return 5\n"
        "    def __getitem__(self, i): return torch.arange(self.length) * i + self.shift, i % 2\n"
    )
    body = """    source = python("waves_of_a_test:Waves", length=3)
    test = python("waves_of_a_test:Waves", length=3, shift=0.5)
    field wave: float[3] = column("0")
    field label: int[] = column("1")"""
    splits = loaded(tmp_path, body)
    assert batch(splits["test"]).wave.tolist() == [[0.5, 0.5, 0.5], [0.5, 1.5, 2.5], [0.5, 2.5, 4.5], [0.5, 3.5, 6.5]]
    assert batch(splits["train"]).label.tolist() == [0, 1, 0, 1]
    assert resolved(tmp_path, body, "const n = D.rows")[1][0].startswith("E404")


def test_classes_of_well_known_datasets(tmp_path: Path) -> None:
    body = """    source = torchvision("CIFAR100", root="files", train=false)
    field image: float[3, 32, 32] = column("image") / 255
    field label: int[] = column("label")"""
    program, told = resolved(tmp_path, body, "const n = D.num_classes")
    assert (told, program.consts["n"]) == ([], 100)
    assert 'sources.torchvision(root, "CIFAR100", root="files", train=False)' in text_of(tmp_path, body)


def test_a_saved_dataset_has_a_header_and_one_of_the_hub_has_none(tmp_path: Path) -> None:
    (tmp_path / "sub/saved").mkdir(parents=True)
    features = {"x": {"dtype": "float32", "_type": "Value"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    (tmp_path / "sub/saved/dataset_info.json").write_text(json.dumps({"features": features}))
    body = """    source = huggingface("sub/saved")
    field x: float[] = column("x")
    field label: int[] = column("label")"""
    program, told = resolved(tmp_path, body, "const n = D.num_classes")
    assert (told, program.consts["n"]) == ([], 2)
    assert resolved(tmp_path, body.replace('column("x")', 'column("y")'))[1] == ["E402 the file has no column `y`"]
    assert resolved(tmp_path, body.replace("sub/saved", "user/name").replace('column("x")', 'column("y")'))[1] == []
    told = resolved(tmp_path, body.replace("sub/saved", "user/name"), "const n = D.num_classes")[1]
    assert told == ["E404 `num_classes` of `huggingface(...)` is not known before it is read"]
    (tmp_path / "sub/d.model").write_text(f"data D {{\n{body.replace('sub/', '')}\n}}\n")
    program, _ = load(tmp_path / "m.model", text='import "sub/d.model"\n', probe=probe)
    assert program is not None
    assert program.data["D"].sources["source"].args["name"] == "sub/saved"


@pytest.mark.parametrize(
    "source",
    [
        'python("own")',
        'python("a b:C")',
        'torchvision("MNIST", allow_outside=true)',
        'python("own:import")',
        'torchvision("os.system")',
        'torchvision("MNIST", lambda=1)',
    ],
)
def test_what_is_no_class_is_refused_with_its_place(tmp_path: Path, source: str) -> None:
    program, told = load(tmp_path / "p.model", text=f'data D {{\n source = {source}\n field x: int[] = column("0")\n}}')
    if told.errors:
        return  # no Python name may be an argument
    assert program is not None
    (found,) = unsupported(program.data["D"], program.consts)
    assert found.code == "E450"
    assert found.span is not None


def test_arguments_of_a_class_are_plain(tmp_path: Path) -> None:
    told = resolved(tmp_path, '    source = python("a:B", x=ddp())\n    field x: int[] = column("0")')[1]
    assert told[0][:4] in ("E120", "E311", "E313")


def test_paths_of_imported_data_are_those_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, source in (
        ("A", 'torchvision("MNIST")'),
        ("B", 'text("t.txt", hf("tokenizer.json"))'),
        ("C", 'python("a:B", path="x")'),
    ):
        (tmp_path / "sub" / "d.model").write_text(
            f'data {name} {{\n source = {source}\n field x: int[] = column("x")\n}}\n'
        )
        program, _ = load(tmp_path / "m.model", text='import "sub/d.model"\n')
        assert program is not None
        args = program.data[name].sources["source"].args
        if name == "A":
            assert args["root"] == "sub/data"
        elif name == "B":
            assert (args["path"], args["tokenizer"].args["path"]) == ("sub/t.txt", "sub/tokenizer.json")  # type: ignore[union-attr]
        else:
            assert args["path"] == "x"


def test_a_check_of_every_source_imports_no_library(tmp_path: Path) -> None:
    sources = ["jsonl", "safetensors", "tokens", "image_folder", "synthetic", "torchvision", "huggingface", "python"]
    np.arange(99, dtype="<u2").tofile(tmp_path / "t.bin")
    (tmp_path / "i/a").mkdir(parents=True)
    (tmp_path / "i/a/1.png").touch()
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    save_file({"x": torch.zeros(3)}, tmp_path / "a.safetensors")
    arguments = ['"a.jsonl"', '"a.safetensors"', '"t.bin", window=4', '"i"', "", '"MNIST"', '"x"', '"a:B"']
    fields = {"tokens": "tokens", "image_folder": "label"}
    text = "".join(
        f'data D{i} {{\n source = {name}({args})\n field x: float{"[4]" if name == "tokens" else "[]"} = column("{fields.get(name, "x")}")\n}}\n'
        for i, (name, args) in enumerate(zip(sources, arguments, strict=True))
    )
    (tmp_path / "p.model").write_text(text)
    code = """
import sys
from tdsl.compiler.cli import main
status = main(["check", sys.argv[1]])
print(status, sorted({"torch", "numpy", "pyarrow", "PIL", "torchvision", "datasets"} & set(sys.modules)))
"""
    source = str(Path(__file__).resolve().parents[1] / "src")
    command = [sys.executable, "-c", code, str(tmp_path / "p.model")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source})
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


EVIL = ['\\"); raise SystemExit(1) #', "{{ 7 * 7 }}", "{% raw %}", '\\n\\"\\"\\"', "__import__('os')", "${x}", "é\\\\"]


@pytest.mark.parametrize("evil", EVIL)
def test_strings_stay_strings(tmp_path: Path, evil: str) -> None:
    shapes = []
    for text in ("plain", evil):
        body = f"""    source = text("{text}", hf("{text}"), window=4)
    val = torchvision("MNIST", root="{text}", kind="{text}", sizes=["{text}", 1])
    test = python("a.b:C", path="{text}", mode=none, tokenizer=1, base=2)
    field tokens: int[4] = column("{text}")"""
        program, _ = load(tmp_path / "p.model", text=f"data D {{\n{body}\n}}\n")
        assert program is not None
        found = emit_data(program.data["D"], program.consts, root=".")
        shapes.append([type(node) for node in python.walk(python.parse(found))])
    assert shapes[0] == shapes[1]
    assert "path=" in found
    assert "mode=None" in found
