"""Compile every kernel of an emitted `kernels.py` ahead of time, for GPUs that need not be there.

The launches are recorded as the autograd functions make them, on tensors without memory, then compiled for each target.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tdsl.runtime import launch
from tdsl.runtime.verify import cases, load
from tdsl.runtime.verify_inputs import Case, Input, is_layer, learns, made_layer

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float64: "*fp64",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int16: "*i16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}


# What Triton's own launcher compiles with, unless a launch says otherwise.
STAGES = 3


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel, its arguments in order, its constants by name, its warps and stages; if a backward's."""

    kernel: Any
    args: tuple[Any, ...]
    constants: tuple[tuple[str, object], ...]
    warps: int
    stages: int = STAGES
    backward: bool = False

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    def key(self) -> object:
        kinds = tuple((_kind(arg), _hints(arg)) for arg in self.args)
        return (self.name, kinds, self.constants, self.warps, self.stages)


@dataclass(frozen=True)
class Compiled:
    """What came of a kernel on a target: registers, bytes spilled, and bytes of shared memory."""

    kernel: str
    target: str
    dtype: str
    registers: int
    spilled: int
    shared: int


class _Recorder:
    """Stands for a kernel: `recorder[grid](*args, **constants)` is noted, not run."""

    def __init__(self, kernel: Any, found: list[Launch]) -> None:
        self.kernel = kernel
        self.found = found

    def __getitem__(self, grid: object) -> Callable[..., None]:
        def note(*args: Any, num_warps: int = 4, num_stages: int = STAGES, **constants: object) -> None:
            self.found.append(Launch(self.kernel, args, tuple(constants.items()), num_warps, num_stages))

        return note


@contextmanager
def recording(module: ModuleType, target: str = "") -> Iterator[list[Launch]]:
    """Within, the module's kernels are recorded instead of run, as they are launched on a target."""
    found: list[Launch] = []
    kernels = {n: k for n, k in vars(module).items() if isinstance(k, triton.runtime.jit.JITFunction)}
    usable, architecture = launch.use_kernels, launch.architecture
    try:
        vars(module).update({n: _Recorder(k, found) for n, k in kernels.items() if n.startswith("_")})
        launch.use_kernels = lambda *tensors, **others: True
        launch.architecture = (lambda: target) if target else architecture
        yield found
    finally:
        vars(module).update(kernels)
        launch.use_kernels, launch.architecture = usable, architecture


def launches(module: ModuleType, case: Case, dtype: torch.dtype, target: str = "") -> list[Launch]:
    """The launches of one case, forward and backward, as they are on a target."""
    with recording(module, target) as found:
        inputs = [_input(s, d, dtype, case.layout) for s, d in zip(case.shapes, case.dtypes)]
        outputs = getattr(module, case.group)(*inputs, *case.scalars)
        forward = len(found)
        floats = [o for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if o.is_floating_point()]
        torch.autograd.backward(floats, [torch.zeros_like(o) for o in floats])
    return [replace(each, backward=i >= forward) for i, each in enumerate(found)]


def _input(shape: tuple[int, ...], kind: str, dtype: torch.dtype, layout: str) -> Input:
    if is_layer(kind):
        return made_layer(kind, shape[0], torch.Generator()).to("meta")
    if kind.endswith(("float", "f32")) or kind == "state":
        made = torch.zeros(shape, dtype=dtype if kind.endswith("float") else torch.float32, device="meta")
        last = layout == "channels_last" and len(shape) == 4
        made = made.contiguous(memory_format=torch.channels_last) if last else made
        return made.requires_grad_(learns(kind))
    return torch.zeros(shape, dtype=torch.int64, device="meta")


def _kind(arg: object) -> Any:
    """Its type as Triton's compiler is told it; strides are a tuple of them."""
    if isinstance(arg, Tensor):
        return POINTERS[arg.dtype]
    if isinstance(arg, tuple):
        return tuple(map(_kind, arg))
    if isinstance(arg, int):
        return "constexpr" if arg == 1 else "i32" if -(1 << 31) <= arg < 1 << 31 else "i64"
    return "fp32"


def _hints(arg: object) -> Any:
    """What the compiler may count on: as Triton's launcher tells it, that a number is 1, or a multiple of 16."""
    if isinstance(arg, tuple):
        return tuple(map(_hints, arg))
    if isinstance(arg, int):
        return 1 if arg == 1 else 16 if arg % 16 == 0 else None
    return 16 if isinstance(arg, Tensor) else None


def _told(hints: Any, wanted: int, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Where among the arguments a hint stands."""
    if isinstance(hints, tuple):
        for i, each in enumerate(hints):
            yield from _told(each, wanted, (*path, i))
    elif hints == wanted:
        yield path


def binary(each: Launch, target: str) -> Any:
    """A launch compiled for a target; addresses are taken to be aligned to 16 bytes, as PyTorch's are."""
    names = [n for n in each.kernel.arg_names if n not in dict(each.constants)]
    given = dict(zip(names, each.args))
    signature = {n: _kind(given[n]) if n in given else "constexpr" for n in each.kernel.arg_names}
    hints = tuple(_hints(given.get(n)) for n in each.kernel.arg_names)
    constants: dict[tuple[int, ...], Any] = dict.fromkeys(_told(hints, 1, ()), 1)
    constants |= {(each.kernel.arg_names.index(n),): v for n, v in each.constants}
    aligned = {path: [["tt.divisibility", 16]] for path in _told(hints, 16, ())}
    source = ASTSource(each.kernel, signature, constants, aligned)
    # A program has 1,024 threads at most.
    warps = min(each.warps, 1024 // TARGETS[target].warp_size)
    return triton.compile(source, target=TARGETS[target], options={"num_warps": warps, "num_stages": each.stages})


def compiled(each: Launch, target: str, dtype: torch.dtype) -> Compiled:
    """What comes of compiling a launch for a target."""
    made = binary(each, target)
    registers, spilled = _resources(made)
    shared = int(made.metadata.shared)
    return Compiled(each.name, target, str(dtype).removeprefix("torch."), registers, spilled, shared)


def _resources(made: Any) -> tuple[int, int]:
    if "ptx" in made.asm:
        return _cuda_resources(made.asm["ptx"])
    text = made.asm["amdgcn"]
    registers = re.search(r"\.vgpr_count:\s*(\d+)", text)
    spilled = re.search(r"\.vgpr_spill_count:\s*(\d+)", text)
    assert registers is not None
    assert spilled is not None
    # Scalar registers spill into lanes of vector registers, not into memory.
    return int(registers[1]), int(spilled[1])


def _cuda_resources(ptx: str) -> tuple[int, int]:
    """Registers and bytes spilled, as the assembler of Triton's package reports them.

    The stack that `cuobjdump` tells also holds the tables of large arguments of sines, which are no spills.
    """
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    target = re.search(r"^\.target (sm_(\d+)\w*)", ptx, re.MULTILINE)
    assert target is not None
    newer = tools / "ptxas-blackwell"
    tool = newer if int(target[2]) >= 100 and newer.exists() else tools / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [str(tool), "-v", f"--gpu-name={target[1]}", str(source), "-o", str(Path(folder, "kernel.cubin"))]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", told)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", told)
    assert registers is not None, told
    assert spilled is not None, told
    return int(registers[1]), int(spilled[1]) + int(spilled[2])


def compile_all(
    folder: Path, targets: Sequence[str], dtypes: Sequence[torch.dtype], every_size: bool = False
) -> list[Compiled]:
    """Each distinct launch of the folder's cases, for each target: at the declared sizes, or at every size."""
    module = load(folder / "kernels.py")
    seen: dict[object, tuple[Launch, str, torch.dtype]] = {}
    declared: set[str] = set()
    for case in cases(folder / "cases.json"):
        if case.layout != "contiguous" or case.special or (case.group in declared and not every_size):
            continue
        declared.add(case.group)
        for target, dtype in product(targets, dtypes):
            for each in launches(module, case, dtype, target):
                seen.setdefault((each.key(), target, dtype), (each, target, dtype))
    return [compiled(*each) for each in seen.values()]


def main(argv: Sequence[str] | None = None) -> int:
    """Compile the kernels of a folder for all targets; 1 where one spills."""
    parser = argparse.ArgumentParser(description="Compile kernels ahead of time.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--every-size", action="store_true", help="at awkward sizes too")
    options = parser.parse_args(argv)
    targets = options.target or list(TARGETS)
    found = compile_all(options.folder, targets, [torch.float32, torch.bfloat16], options.every_size)
    spilled = [c for c in found if c.spilled]
    for c in spilled:
        print(f"spills: {c.kernel} {c.target} {c.dtype}: {c.spilled} bytes, {c.registers} registers")
    kernels = len({c.kernel for c in found})
    print(
        f"{kernels} kernels, {len(found)} variants compiled, {len(spilled)} spill, at most "
        f"{max((c.registers for c in found), default=0)} registers"
    )
    return 1 if spilled else 0


if __name__ == "__main__":
    raise SystemExit(main())
