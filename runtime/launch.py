"""Launching emitted kernels: when they can run, and with what tiles."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Programs that sum over rows each leave a row of partial sums. Constants, not the number of multiprocessors, so that
# sums come out the same on every GPU: two for each of an H100's 132, eight where each still has many blocks to add up.
FEW_PROGRAMS, MOST_PROGRAMS = 264, 1056
MANY_BLOCKS = 32
# Rows that do not fit in registers are walked over in blocks of this many columns.
CHUNK = 2048
# How many programs count what a loss is a mean over; a power of two.
COUNTS = 32
# Threads of a program: 1,024 at most, in warps of 32 or, on AMD's GPUs, of 64.
MOST_WARPS = 16 if torch.version.hip else 32


# Whether kernels may be used here and now.
_KERNELS = ContextVar("_KERNELS", default=True)


class Tile(NamedTuple):
    """A tile of rows by columns (powers of two) and the warps that work on it."""

    rows: int
    cols: int
    warps: int


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def use_kernels(*tensors: Tensor, float32: tuple[Tensor, ...] = (), writes: torch.dtype | None = None) -> bool:
    """Whether kernels can take these tensors: on a GPU (or in the interpreter), floats all of one supported dtype.

    Those of `float32` are parameters, which stay in that beside activations of a lower precision; `writes` is that
    precision, where they write it and read none. The interpreter computes bfloat16 wrongly, so there it goes to the
    reference.
    """
    # On a CPU each call asks this: the answer is to cost next to nothing.
    if not interpreted() and not all(t.is_cuda for t in (*tensors, *float32)):
        return False
    if not _KERNELS.get() or any(t.dtype != torch.float32 for t in float32):
        return False
    floats = {t.dtype for t in tensors if t.is_floating_point()}
    if not floats and float32:
        floats = {torch.float32}
    if len(floats) != 1 or not floats <= set(KERNEL_DTYPES):
        return False
    return not interpreted() or torch.bfloat16 not in {*floats, writes}


def falls_back_to(reference: Callable[..., Any] | None) -> Callable[[type[Function]], type[Function]]:
    """A decorator: where the kernels of an autograd function do not build on a device, `reference` computes instead.

    None is the function itself, to which `use_kernels` then says no.
    A warning tells it, once for each device and kind of arguments; with `TDSL_STRICT=1` the kernel's error is raised.
    """

    def decorated(function: type[Function]) -> type[Function]:
        kernels: Callable[..., Any] = function.apply
        instead = reference or partial(_without_kernels, kernels)
        known: dict[object, bool] = {}

        def apply(*arguments: Any) -> Any:
            on_gpu = any(isinstance(a, Tensor) and a.is_cuda for a in arguments)
            if not on_gpu or on_bytes is not None or torch.cuda.is_current_stream_capturing():
                return kernels(*arguments)
            key = tuple((a.device, a.dtype, a.shape[1:]) if isinstance(a, Tensor) else type(a) for a in arguments)
            if key not in known:
                known[key] = _builds(kernels, function.__name__, arguments)
            return kernels(*arguments) if known[key] else instead(*arguments)

        function.apply = staticmethod(apply)  # type: ignore[method-assign]
        return function

    return decorated


def _without_kernels(function: Callable[..., Any], *arguments: Any) -> Any:
    token = _KERNELS.set(False)
    try:
        return function(*arguments)
    finally:
        _KERNELS.reset(token)


def _builds(kernels: Callable[..., Any], name: str, arguments: Sequence[Any]) -> bool:
    """Whether kernels run in both directions: they are tried on the arguments themselves, whose gradients stay."""
    try:
        # Hooks are told nothing of a trial: activation checkpointing counts what a forward keeps.
        with torch.enable_grad(), saved_tensors_hooks(_kept, _kept):
            tried = [_trial(a) for a in arguments]
            found = kernels(*tried)
            results = [r for r in (found if isinstance(found, tuple) else (found,)) if r.requires_grad]
            leaves = [t for t in tried if isinstance(t, Tensor) and t.requires_grad]
            if results and leaves:
                torch.autograd.grad(results, leaves, [torch.zeros_like(r) for r in results], allow_unused=True)
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if os.environ.get("TDSL_STRICT") == "1":
            raise
        told = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        warnings.warn(
            f"the kernels of `{name.lstrip('_')}` do not build here, plain PyTorch computes it, more slowly ({told}); "
            "TDSL_STRICT=1 makes this an error",
            RuntimeWarning,
            stacklevel=4,
        )
        return False
    return True


def _kept(tensor: Tensor) -> Tensor:
    return tensor


def _trial(argument: Any) -> Any:
    """A tensor whose gradient stays with it; a copy of a layer or its like, whose state a call may change."""
    if isinstance(argument, Tensor):
        return argument.detach().requires_grad_(argument.requires_grad)
    return copy.deepcopy(argument) if isinstance(argument, nn.Module) or hasattr(argument, "__deepcopy__") else argument


def dense(tensor: Tensor) -> Tensor:
    """The tensor where its elements lie without gaps, in whatever order; else a contiguous one."""
    return tensor if tensor.is_contiguous() or _without_gaps(tensor) else tensor.contiguous()


def alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one shape whose elements lie in one order, without gaps: themselves, else contiguous ones.

    So what is laid out with its channels last stays so.
    """
    first = tensors[0]
    same = all(t.shape == first.shape and t.stride() == first.stride() for t in tensors)
    if same and (first.is_contiguous() or _without_gaps(first)):
        return tensors
    return tuple(t.contiguous() for t in tensors)


def _without_gaps(tensor: Tensor) -> bool:
    """Whether the elements fill their memory, each in a place of its own."""
    extent = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape)):
        if size != 1:
            if stride != extent:
                return False
            extent *= size
    return True


# Set while launches are counted: takes the bytes that the next one moves.
on_bytes: Callable[[int], None] | None = None


def note_bytes(count: Callable[[], int]) -> None:
    """Tell who counts launches that the next one moves `count()` bytes, instead of its arguments' own.

    For kernels that reach tensors by tables of addresses, or a part of one alone. `count` is called only then.
    """
    if on_bytes is not None:
        on_bytes(count())


def power_of_two(n: int) -> int:
    """The least power of two that is `n` or more (1 for 0)."""
    return 1 << max(n - 1, 0).bit_length()


def flat_tile() -> Tile:
    """For elementwise kernels: 16 bytes of float32 a thread and load, two loads in flight."""
    return Tile(1, 1024, 4)


def row_tile(n_cols: int, live: int, longest: int = 16384) -> Tile:
    """For kernels that hold whole rows of `n_cols`: `live` is how many blocks of a row are in registers at once.

    Narrow rows share a program, 2,048 elements in it, fewer where much is live; wide ones get more warps, so that a
    thread holds about 64 values, as long as each has some columns of its own. Rows of more than `longest` columns are
    walked in blocks of that many.
    """
    cols = min(power_of_two(n_cols), longest)
    elements = 2048 if live <= 10 else 1024
    rows = max(1, min(elements // cols, 64))
    values = rows * cols * max(live, 1)
    # Compiled with 16 warps, kernels had 64 registers a thread, and those with more to hold spilled.
    most = 16 if values <= 16 * 32 * 52 else 8
    return Tile(rows, cols, max(1, min(power_of_two(values // (32 * 64)), max(cols // 256, 4), most)))


def column_tile(n_cols: int) -> Tile:
    """For kernels without sums over a row: columns are split among programs."""
    cols = min(power_of_two(n_cols), 1024)
    return Tile(max(1, min(2048 // cols, 64)), cols, 4)


class Runs(NamedTuple):
    """Stretches of `length` rows, each summed by one of `programs` programs, in blocks of columns; and their warps."""

    programs: int
    length: int
    cols: int
    warps: int


def runs(n_rows: int, n_cols: int) -> Runs:
    """For sums over runs of rows that belong together, one row after another: some 2,048 programs, or more.

    Stretches are long enough that the parts of runs which cross from one to the next are few beside the rows.
    """
    length = max(16, min(power_of_two(n_rows // 2048), 256))
    cols = min(power_of_two(n_cols), 512)
    return Runs(-(-n_rows // length), length, cols, max(1, cols // 256))


def class_tile(rows: Tensor, blocks: int = 1) -> Tile:
    """For rows of class scores: those that fit in one program all go to one, of short rows a program takes several.

    Long rows are walked in blocks, twice, and the second walk is to find them in the L2 cache, of which an H100 has
    50 MB: up to 128 KB three or two programs share a multiprocessor, each with half its threads; of longer rows there
    is one. A thread has 16 scores of a block, half as many where registers are few: with all threads at work on
    float32, and where rows do not begin at multiples of 16 bytes and are read number by number. `blocks` says how many
    such tensors a program has.
    """
    n_rows, n_classes = rows.shape
    size = rows.element_size()
    aligned = rows.stride(0) * size % 16 == 0
    long = n_classes * size > 1 << 17
    each = 16 if aligned and not (long and size > 2) else 8
    cols = min(max(power_of_two(n_classes), 8), (16384 if aligned and long and size < 4 else 8192) // blocks)
    alone = power_of_two(n_rows) * cols * blocks <= 8192
    together = power_of_two(n_rows) if alone else max(4096 // (cols * blocks), 1)
    return Tile(together, cols, max(1, min(together * cols * blocks // (32 * each), MOST_WARPS)))


def matrix(x: Tensor, n_rows: int, n_cols: int) -> Tensor:
    """`x` as [n_rows, n_cols], each row in one piece of memory; copied only where it does not lie so."""
    found = x.reshape(n_rows, n_cols)
    return found if found.stride(1) == 1 or n_cols < 2 else found.contiguous()


def programs(count: int, block: int) -> int:
    """How many programs share so many rows (or elements), `block` at once, and add up what each takes; 0 of none."""
    blocks = -(-count // block)
    return min(blocks, max(FEW_PROGRAMS, blocks // MANY_BLOCKS), MOST_PROGRAMS)


def reference_backward(
    reference: Callable[..., Any], inputs: Sequence[Tensor], numbers: Sequence[float], grads: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """What the backward of a fused function returns where it is itself differentiated: the gradient of its reference.

    `inputs` and `numbers` are the arguments, in order, `grads` the gradients of the results.
    """
    with torch.enable_grad():
        # One tensor given for two arguments has two gradients.
        views = [each.view_as(each) for each in inputs]
        results = reference(*views, *numbers)
        several = results if isinstance(results, tuple) else (results,)
        used = [(result, grad) for result, grad in zip(several, grads, strict=True) if result.requires_grad]
        wanted = [each for each in views if each.requires_grad]
        found = iter(
            torch.autograd.grad(
                [result for result, _ in used],
                wanted,
                [grad for _, grad in used],
                create_graph=True,
                materialize_grads=True,
            )
        )
    return (*(next(found) if each.requires_grad else None for each in views), *(None for _ in numbers))


def rows_together(tensor: Tensor) -> Tensor:
    """The tensor with the numbers of each row side by side: itself, but where it is transposed or expanded."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def architecture() -> str:
    """What kernels are compiled for, `sm_90` or `gfx942`; the least that is served where there is no GPU."""
    return _architecture()


@cache
def _architecture() -> str:
    if not torch.cuda.is_available():
        return "sm_80"
    if torch.version.hip is not None:
        return str(torch.cuda.get_device_properties().gcnArchName).partition(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability())
