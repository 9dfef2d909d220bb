"""How `data.py` reads its sources: the calls, what they share, and what of them can't be run."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

from tdsl.compiler.emit.expression import constant
from tdsl.compiler.emit.render import layout
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.program import Call, Constant, DataSpec
from tdsl.dsl.signatures import READABLE

# Sources whose paths may lie outside of the program's folder, where that is allowed.
WITH_PATHS = frozenset((*READABLE, "torchvision", "huggingface"))
# Arguments that are given by position, behind the folder that paths are relative to; of others it is `path`.
POSITIONAL = {
    "idx": ("images", "labels"),
    "huggingface": ("name",),
    "torchvision": ("name",),
    "python": ("target",),
    "synthetic": (),
}


def source_arguments(call: Call, spec: DataSpec, allow_outside: bool) -> list[str]:
    """The arguments of the call that reads a source."""
    arguments = [] if call.name == "synthetic" else ["root"]
    arguments += [constant(call.args[name]) for name in _positional(call) if call.args.get(name) is not None]
    arguments += [f"{name}={constant(value)}" for name, value in _keywords(call, spec).items()]
    arguments += _shared_arguments(call, spec)
    arguments += ["allow_outside=True"] if allow_outside and call.name in WITH_PATHS else []
    return arguments


def _keywords(call: Call, spec: DataSpec) -> dict[str, Constant]:
    apart = (*_positional(call), *(["tokenizer"] if call.name == "text" else []))
    found = {name: value for name, value in call.args.items() if name not in apart}
    if call.name == "csv" and found.get("delimiter") == ",":
        del found["delimiter"]
    if (size := vocabulary(call, spec)) is not None:
        found["vocab_size"] = size
    found |= text_columns(call, spec)
    own = call.name in ("python", "torchvision")  # whose arguments are those of a class
    return {name: value for name, value in found.items() if own or value is not None}


def vocabulary(call: Call, spec: DataSpec) -> Constant:
    """The number that tokens of files are below; None where it is not known, and for other sources."""
    return spec.facts.get("vocab_size", call.args.get("vocab_size")) if call.name == "tokens" else None


def text_columns(call: Call, spec: DataSpec) -> dict[str, Constant]:
    """What a csv file does not tell: the columns whose categories are texts, though they may look like numbers."""
    texts = tuple(column for column, values in spec.categories.items() if isinstance(values[0], str))
    return {"text": texts} if call.name == "csv" and texts else {}


def _positional(call: Call) -> tuple[str, ...]:
    return POSITIONAL.get(call.name, ("path",))


# What sources of one dataset share -----------------------------------------------------------------------------------


def shared(spec: DataSpec, allow_outside: bool) -> Iterator[str]:
    """The statements that bind the vocabulary of texts, and the classes of folders of images."""
    outside = ["allow_outside=True"] if allow_outside else []
    if has_texts(spec):
        yield "tokenizer = tokenizer or make_tokenizer(root)"
    if len(folders := _called(spec, "image_folder")) > 1:
        arguments = ["root", constant(folders[0].args["path"]), *outside]
        yield layout("classes = sources.class_names", arguments, "", indent=4)


def has_texts(spec: DataSpec) -> bool:
    """Whether a dataset has texts, which a tokenizer numbers."""
    return bool(_called(spec, "text"))


def tokenizer(spec: DataSpec, allow_outside: bool) -> str:
    """The statement that returns what numbers the texts of a dataset; empty where there are none."""
    if not has_texts(spec):
        return ""
    outside = ["allow_outside=True"] if allow_outside else []
    own = _tokenizer(spec)
    if own is not None:
        return layout("return sources.hf", ["root", constant(own.args["path"]), *outside], "", indent=4)
    paths = [constant(text.args["path"]) for text in _called(spec, "text")]
    return layout("return sources.characters", ["root", *paths, *outside], "", indent=4)


def _shared_arguments(call: Call, spec: DataSpec) -> list[str]:
    if call.name == "text":
        return ["tokenizer=tokenizer"]
    if call.name == "image_folder" and len(_called(spec, "image_folder")) > 1:
        return ["classes=classes"]
    return []


def _called(spec: DataSpec, name: str) -> list[Call]:
    return [call for call in spec.sources.values() if call.name == name]


def _tokenizer(spec: DataSpec) -> Call | None:
    """The tokenizer of texts that is read from a file."""
    return next((found for text in _called(spec, "text") if (found := _own_tokenizer(text)) is not None), None)


def _own_tokenizer(text: Call) -> Call | None:
    found = text.args.get("tokenizer")
    return found if isinstance(found, Call) and found.name != "characters" else None


# What can't be run ---------------------------------------------------------------------------------------------------


def bad_sources(spec: DataSpec) -> Iterator[Diagnostic]:
    """Sources whose arguments make no sense, alone or together."""
    first = _called(spec, "text")[:1]
    for split, call in spec.sources.items():
        if call.name == "text" and _path(call) != _path(first[0]):
            help = "give each text of a dataset the same tokenizer"
            yield Diagnostic("E450", f"the tokenizer of `{split}` is another", call.span, help=help)
        if call.name in ("python", "torchvision"):
            yield from _bad_class(call)


def _path(text: Call) -> Constant:
    tokenizer = _own_tokenizer(text)
    return None if tokenizer is None else tokenizer.args["path"]


def _bad_class(call: Call) -> Iterator[Diagnostic]:
    named = str(call.args["target" if call.name == "python" else "name"])
    package, colon, name = named.partition(":") if call.name == "python" else ("torchvision", ":", named)
    if not colon or not all(_is_name(part) for part in (*package.split("."), name)):
        help = (
            'such as `python("package.module:Dataset")`' if call.name == "python" else 'such as `torchvision("MNIST")`'
        )
        yield Diagnostic("E450", f"`{named:.40}` names no class", call.span, help=help)
    for name in call.args:
        if not _is_name(name) or (name == "allow_outside" and call.name == "torchvision"):
            help = "rename the argument of the class"
            yield Diagnostic("E450", f"`{name}` can't be an argument here", call.span, help=help)


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII) is not None and not keyword.iskeyword(text)
