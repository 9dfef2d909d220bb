"""Whether weights are those of a model, and what keeps them from being so, told by name."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from os.path import normpath
from pathlib import Path
from shlex import quote

from safetensors import SafetensorError
from torch import Tensor

from tdsl.runtime.run import Failure

# Weights that do not fit are named, as far as a line holds them.
SHOWN = 4
# How the files of `torch.save` begin: an archive, or an older format.
PICKLES = (b"PK", b"\x80\x02")


def check(
    path: Path,
    wanted: Mapping[str, Sequence[int]],
    given: Mapping[str, Tensor],
    *,
    known: Container[str],
    partly: bool = False,
) -> None:
    """Raise `Failure` unless the tensors of a file are those of a model.

    `wanted` are the shapes of the model's tensors by one name of each, `known` all names. `partly`: the model may begin
    with some of the file's.
    """
    if wrong := list(_differences(wanted, given, known)):
        what = f"the weights in `{normpath(path)}` are of another model: {'; '.join(wrong)}"
        help = f"`tdsl diff {quote(normpath(path))} PROGRAM` tells it weight by weight"
        raise Failure(what, help + (_without(wanted, given, known) if partly else ""))


def _without(wanted: Mapping[str, Sequence[int]], given: Mapping[str, Tensor], known: Container[str]) -> str:
    """How to leave out what does not fit, where that is a part of the model."""
    fits = {name for name, shape in wanted.items() if name in given and list(given[name].shape) == list(shape)}
    others = [name for name in (*wanted, *given) if name not in fits and (name in wanted or name not in known)]
    modules = dict.fromkeys(name.partition(".")[0] for name in others)
    if not fits or any(name.partition(".")[0] in modules for name in fits):
        return ""
    listed = ", ".join(f'"{name}"' for name in modules)
    return f"; to begin with the others: `init_from = weights(PATH, without=[{listed}])`"


def is_named(name: str, pattern: str) -> bool:
    """Whether a glob matches a parameter's name or that of a module that it is in: `blocks.0` of `blocks.0.weight`."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Within, what keeps a file from being read is told as a `Failure`."""
    try:
        yield
    except FileNotFoundError:
        raise Failure(f"there is no file `{normpath(path)}`") from None
    except SafetensorError as error:
        raise _unreadable(path, error) from None
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise Failure(f"the weights in `{normpath(path)}` are of another model: {what}") from None


def _unreadable(path: Path, error: SafetensorError) -> Failure:
    """Why a file has no weights: it is another format, or not whole."""
    with path.open("rb") as file:
        pickled = file.read(2) in PICKLES
    if pickled:
        help = 'save the weights as safetensors: `save_file(torch.load("a.pt", weights_only=True), "a.safetensors")`'
        return Failure(f"`{normpath(path)}` is a pickle, which is never read here: it could run anything", help)
    return Failure(f"`{normpath(path)}` is no safetensors file, or is damaged: {error}")


def _differences(
    wanted: Mapping[str, Sequence[int]], given: Mapping[str, Tensor], known: Container[str]
) -> Iterator[str]:
    lacking = [name for name in wanted if name not in given]
    others = sorted(name for name in given if name not in known)
    if prefix := _prefix(lacking, others):
        yield f"their names begin with `{prefix}`, as those of a model that is wrapped do: take that off"
        return
    if lacking:
        yield f"they lack {listed(lacking)}"
    if others:
        yield f"they have {listed(others)}, which it has not"
    both = ((name, list(given[name].shape), list(shape)) for name, shape in wanted.items() if name in given)
    shapes = [f"`{name}` of shape {mine} for {theirs}" for name, mine, theirs in both if mine != theirs]
    if shapes:
        yield f"they have {', '.join(shapes[:SHOWN])}{_more(shapes)}"


def _prefix(lacking: Sequence[str], others: Sequence[str]) -> str:
    """What stands before all names alike; empty where that is not all that keeps them from fitting."""
    prefix = others[0].partition(".")[0] + "." if others else ""
    return prefix if lacking and {f"{prefix}{name}" for name in lacking} <= set(others) else ""


def listed(names: Sequence[str]) -> str:
    """Names, as far as a line holds them."""
    return ", ".join(f"`{name}`" for name in names[:SHOWN]) + _more(names)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
