"""Texts and files of tokens, against NumPy's slices and the library `tokenizers`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tdsl.compiler.probe import ProbeError, probe
from tdsl.runtime import sources
from tdsl.runtime.columns import Column
from tdsl.runtime.sources import DataError

IDS = np.random.default_rng(0).integers(0, 50_000, size=1003)
ALL = torch.arange(20)


@pytest.mark.parametrize("dtype", ["u16", "u32", "i32", "i64"])
def test_windows_are_slices_of_the_file(tmp_path: Path, dtype: str) -> None:
    IDS.astype(f"<{dtype[0]}{int(dtype[1:]) // 8}").tofile(tmp_path / "a.bin")
    table = sources.tokens(tmp_path, "a.bin", dtype=dtype, window=50)
    tokens, targets = table.column("tokens"), table.column("targets")
    assert isinstance(tokens, Column)
    assert isinstance(targets, Column)
    assert (table.rows, len(tokens)) == (20, 20)
    assert np.array_equal(tokens.take(ALL), IDS[:1000].reshape(20, 50))
    assert np.array_equal(targets.take(ALL), IDS[1:1001].reshape(20, 50))
    some = torch.tensor([19, 0, 7, 7])
    assert torch.equal(pickle.loads(pickle.dumps(tokens)).take(some), tokens.take(some))
    assert tokens.take(some[:0]).shape == (0, 50)
    found = probe("tokens", {"path": "a.bin", "dtype": dtype, "window": 50}, tmp_path)
    assert (found.rows, found.vocab_size, found.columns["targets"].shape) == (20, IDS.max() + 1, (50,))


def test_no_window_spans_two_files(tmp_path: Path) -> None:
    IDS[:103].astype("<u2").tofile(tmp_path / "a.bin")
    np.save(tmp_path / "b.bin", IDS[103:].astype(">i4"))
    (tmp_path / "b.bin.npy").rename(tmp_path / "b.bin")
    table = sources.tokens(tmp_path, "*.bin", window=25)
    first, second = IDS[:100].reshape(4, 25), IDS[103 : 103 + 875].reshape(35, 25)
    tokens = table.column("tokens")
    assert isinstance(tokens, Column)
    assert table.files == (("a.bin", 4), ("b.bin", 35))
    assert np.array_equal(tokens.take(torch.arange(39)), np.concatenate([first, second]))
    assert np.array_equal(tokens.take(torch.tensor([38, 2, 5])), np.stack([second[34], first[2], second[1]]))
    found = probe("tokens", {"path": "*.bin", "window": 25}, tmp_path)
    assert (found.rows, found.vocab_size) == (39, max(IDS[:103].max(), IDS[103:].max()) + 1)


def test_the_file_stays_on_disk(tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as opened:
        opened.truncate(1 << 40)  # a hole of a terabyte
    table = sources.tokens(tmp_path, "large.bin", window=1000)
    tokens = table.field("tokens", table.column("tokens"), torch.int64, (1000,))
    assert len(tokens) == (2**39 - 1) // 1000
    assert not tokens.take(torch.tensor([len(tokens) - 1, 0])).any()


def test_a_token_beyond_the_vocabulary_is_located(tmp_path: Path) -> None:
    ids = np.arange(100)
    ids[57] = 200
    np.save(tmp_path / "a.npy", ids)
    table = sources.tokens(tmp_path, "a.npy", window=10, vocab_size=100)
    tokens = table.field("tokens", table.column("tokens"), torch.int64, (10,))
    targets = table.field("targets", table.column("targets"), torch.int64, (10,))
    tokens.take(torch.tensor([4, 6]))
    with pytest.raises(DataError, match=r"token 200 is not in the vocabulary of 100 \(position 57") as found:
        tokens.take(torch.tensor([4, 5]))
    assert (found.value.file, found.value.row, found.value.field) == ("a.npy", 6, "tokens")
    with pytest.raises(DataError, match="position 57"):
        targets.take(torch.tensor([5]))
    small = table.field("tokens", table.column("tokens"), torch.uint8, (10,), classes=60)
    with pytest.raises(DataError, match="60 is not one of the classes 0 to 59"):
        small.take(torch.tensor([6]))
    args = {"path": "a.npy", "window": 10}
    assert probe("tokens", args, tmp_path).vocab_size == 201
    assert probe("tokens", {**args, "vocab_size": 100}, tmp_path).vocab_size == 100


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"abc", "has 3 bytes, which are no whole number of tokens of type u16"),
        (b"abcd", "2 tokens are too few for a window of 8"),
        (b"\x93NUMPY\x01\x00", "NumPy file|npy file"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError, match=told) as found:
        sources.tokens(tmp_path, "a.bin", window=8)
    with pytest.raises(ProbeError, match=told) as checked:
        probe("tokens", {"path": "a.bin", "window": 8}, tmp_path)
    assert found.value.file == checked.value.file == "a.bin"


def test_an_npy_file_of_floats_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(99))
    with pytest.raises(DataError, match="float64 of shape"):
        sources.tokens(tmp_path, "a.npy", window=8)
    with pytest.raises(ProbeError, match="holds '<f8' of shape"):
        probe("tokens", {"path": "a.npy", "window": 8}, tmp_path)


# Texts ---------------------------------------------------------------------------------------------------------------


def test_texts_share_a_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello world")
    (tmp_path / "b.txt").write_text("zebra, hello")
    tokenizer = sources.characters(tmp_path, "a.txt", "b.txt")
    letters = sorted(set("hello worldzebra, hello"))
    for name, text in (("a.txt", "hello world"), ("b.txt", "zebra, hello")):
        tokens = sources.text(tmp_path, name, tokenizer=tokenizer, window=5).column("tokens")
        assert "".join(letters[i] for i in tokens.flatten().tolist()) == text[:10]
    found = probe("text", {"path": "a.txt", "window": 5, "shared": ("b.txt",)}, tmp_path)
    assert (found.vocab_size, found.rows) == (len(letters), 2)


def test_a_character_that_is_not_in_the_vocabulary_is_located(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcabc")
    (tmp_path / "b.txt").write_text("ab\nad")
    with pytest.raises(DataError, match=r"b\.txt: the character '\\n' in line 1 is not in the vocabulary"):
        sources.text(tmp_path, "b.txt", tokenizer=sources.characters(tmp_path, "a.txt"), window=2)


def test_a_tokenizer_of_the_library(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    text = "the cat sat on the mat, and the cat was fat\n" * 20
    (tmp_path / "a.txt").write_text(text)
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=60, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    made.train_from_iterator([text], trainer)
    made.add_tokens(["<extra>"])
    made.save(str(tmp_path / "tokenizer.json"))
    ids = made.encode(text, add_special_tokens=False).ids
    table = sources.text(tmp_path, "a.txt", tokenizer=sources.hf(tmp_path, "tokenizer.json"), window=16)
    assert table.column("tokens").flatten().tolist() == ids[: table.rows * 16]
    found = probe("text", {"path": "a.txt", "window": 16, "tokenizer": hf()}, tmp_path)
    assert (found.vocab_size, found.rows) == (made.get_vocab_size(), table.rows)


class hf:
    """As the front end hands over `hf("tokenizer.json")`."""

    name = "hf"
    args = {"path": "tokenizer.json"}  # noqa: RUF012


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ({"vocab": {"a": 0, "b": 5}}, 6),
        ({"vocab": [["a", -1.0], ["b", -2.0]]}, 4),
        ({"vocab": 3}, None),
        (None, None),
    ],
)
def test_the_size_of_a_vocabulary_needs_no_library(tmp_path: Path, model: object, size: int | None) -> None:
    (tmp_path / "a.txt").write_text("abc" * 200)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": [{"id": 3, "content": "c"}]}))
    look = lambda: probe("text", {"path": "a.txt", "tokenizer": hf()}, tmp_path)  # noqa: E731
    if size is not None:
        assert look().vocab_size == size
        return
    with pytest.raises(ProbeError, match=r"tokenizer\.json: is no tokenizer"):
        look()


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    for content in ("{", "{}", '{"model": 3}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(DataError, match=r"tokenizer\.json: is no tokenizer"):
            sources.hf(tmp_path, "tokenizer.json")
