"""`run.json`: what a run was started with, on what, and how it has gone. The report is made of it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tdsl.runtime import ranks, timing
from tdsl.runtime.columns import Field, Values
from tdsl.runtime.conversion import type_name
from tdsl.runtime.examples import table_of
from tdsl.runtime.files import write_text
from tdsl.runtime.loader import Split

if TYPE_CHECKING:
    from tdsl.runtime.training import Training

RECORD = "run.json"
PACKAGES = ("torch", "triton", "torchmetrics", "numpy", "tdsl")
# What is done in the rest of a run's time.
STEPS = "steps"


def begin(state: Training) -> None:
    """Writes what is known as a run begins, or goes on."""
    before = read(state.job.out) if state.step else {}
    timing.start(before.get("seconds"))
    _write(state, before | _known(state) | {"ended": None})


def end(state: Training, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Writes what is known as a run ends, `splits` being its data."""
    found = _known(state) | {"ended": _why(state), "data": data(splits), "seconds": timing.summary(STEPS)}
    found["memory"] = max(found["memory"], read(state.job.out).get("memory") or 0)
    return _write(state, found)


def _write(state: Training, found: Mapping[str, Any]) -> dict[str, Any]:
    text = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
    write_text(state.job.out / RECORD, f"{{\n{text}\n}}\n")
    return dict(found)


def read(folder: Path) -> dict[str, Any]:
    """What the record of a run says; nothing where there is none that can be read."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _known(state: Training) -> dict[str, Any]:
    job, length = state.job, state.schedule.length
    return {
        "run": job.name,
        "settings": {key: _value(value) for key, value in job.settings.items()},
        "changed": {key: _value(value) for key, value in job.settings.before.items()},
        "optimizer": type(state.optimizer).__name__,
        "schedule": [stage.kind.__name__ for stage in state.schedule.stages],
        "groups": list(_groups(state)),
        "step": state.step,
        "steps": length.steps,
        "steps_per_epoch": length.epoch,
        "best": None if state.best is None else dict(vars(state.best)),
        "environment": environment(job.device) | {"processes": ranks.count()},
        "memory": memory(job.device),
        "parameters": [row for name, model in state.models.items() for row in parameters(name, model)],
    }


def _value(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else list(value)


def _why(state: Training) -> str:
    if state.ended:
        return "early stopping"
    return "finished" if state.step >= state.schedule.length.steps else "stopped"


def _groups(state: Training) -> Iterator[dict[str, Any]]:
    """The groups of the optimizer: the parameters of each, and the arguments that are not alike in all."""
    groups = state.optimizer.param_groups
    plain = [{k: _value(v) for k, v in group.items() if _is_plain(v) and k != "param_names"} for group in groups]
    alike = {key for key in plain[0] if all(group.get(key) == plain[0][key] for group in plain)}
    for number, (group, arguments) in enumerate(zip(groups, plain, strict=True)):
        names = list(group.get("param_names", ()))
        own = {key: value for key, value in arguments.items() if key not in alike and key not in ("lr", "initial_lr")}
        count = sum(parameter.numel() for parameter in group["params"])
        yield {"names": names, "count": count, "lr": state.schedule.base[number], "arguments": own}


def _is_plain(value: Any) -> bool:
    single = (str, int, float, bool, type(None))
    return isinstance(value, single) or (isinstance(value, (tuple, list)) and all(isinstance(v, single) for v in value))


def parameters(name: str, model: nn.Module) -> Iterator[dict[str, Any]]:
    """Each parameter of the model `name` of a run: its module and the class of that, shape, size and whether it trains.

    One that several modules share is told of once.
    """
    for path, parameter in model.named_parameters():
        module, _, own = path.rpartition(".")
        yield {
            "model": name,
            "module": module,
            "kind": type(model.get_submodule(module)).__name__,
            "name": own,
            "shape": list(parameter.shape),
            "count": parameter.numel(),
            "bytes": parameter.nbytes,
            "trains": parameter.requires_grad,
        }


# Data ---------------------------------------------------------------------------------------------------------------


def data(splits: Mapping[str, Split]) -> dict[str, Any]:
    """The rows of each split, the files they are from and the rows of each, and the type and size of a row's fields."""
    first = next(iter(splits.values()))
    tables = {id(table): table for split in splits.values() if (table := table_of(split)) is not None}
    files = [{"file": file, "rows": rows} for table in tables.values() for file, rows in table.files]
    fields = (first.origin or first).fields
    return {
        "splits": {name: len(split) for name, split in splits.items()},
        "files": files,
        "fields": {name: _field(value) for name, value in fields.items()},
        "names": {column: list(names) for table in tables.values() for column, names in table.names.items()},
    }


def _field(value: Values) -> dict[str, Any]:
    if isinstance(value, Field):
        return {"type": type_name(value.dtype, value.shape), "bytes": value.row_bytes}
    row = value[:1]
    return {"type": type_name(value.dtype, tuple(value.shape[1:])), "bytes": row.nbytes}


# Hardware and versions ----------------------------------------------------------------------------------------------


def environment(device: torch.device) -> dict[str, Any]:
    """What numbers are made with: hardware and versions."""
    found: dict[str, Any] = {"device": _processor()}
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device)
        found = {
            "device": torch.cuda.get_device_name(device),
            "device_memory": whole.total_memory,
            "host": _processor(),
        }
    return {
        **found,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
        **({"cuda": torch.version.cuda} if device.type == "cuda" and torch.version.cuda else {}),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    cores = os.cpu_count() or 1
    told = f"{cores} core{'s' if cores > 1 else ''}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{names[0] if names else platform.processor() or 'CPU'}, {told}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def memory(device: torch.device) -> int:
    """The most bytes that tensors have taken on a GPU so far, or else this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # where there is no such count
        return 0
    # macOS counts bytes, others KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
