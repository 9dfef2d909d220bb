"""The weights that the models of a run begin with: what `init_from` says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tdsl.dsl.diagnostics import Diagnostic, Span
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.program import Call, TrainSpec


@dataclass(frozen=True)
class Start:
    """Weights for one model of a run, but for those that a glob of `without` names."""

    path: str
    model: str = "model"
    without: tuple[str, ...] = ()
    span: Span | None = None


def starts(spec: TrainSpec) -> Iterator[Start]:
    """Each in the order written."""
    found = spec.settings.get("init_from")
    for each in found if isinstance(found, tuple) else () if found is None else (found,):
        if isinstance(each, Call):
            without = each.args.get("without")
            names = tuple(map(str, without)) if isinstance(without, tuple) else ()
            yield Start(str(each.args["path"]), str(each.args.get("model", "model")), names, each.span)
        else:
            yield Start(str(each))


def strangers(spec: TrainSpec) -> Iterator[Diagnostic]:
    """An error for weights of what is no model of the run."""
    for each in starts(spec):
        if each.model not in spec.models:
            help = did_you_mean(each.model, spec.models) or f"the models are {', '.join(spec.models)}"
            message = f'the run has no model "{each.model}" that weights could be for'
            yield Diagnostic("E313", message, each.span or spec.span.word("init_from"), help=help)
