"""Values brought to the type that a field declares, and checked one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

# The language's names of the types that a field may have.
DTYPES = {
    torch.float32: "float",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int64: "int",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "bool",
}
# The label that PyTorch's losses leave out (`ignore_index`).
IGNORED = -100
# Makes the error of a row (from 0, of the values at hand) from a message and a cure.
Complain = Callable[[int, str, str], Exception]


@dataclass(frozen=True)
class Limit:
    """What numbers may be that are indices: 0 to `count` - 1, and `ignored` (None: no other).

    They are classes, or, where `looked_up`, entries of a table.
    """

    count: int
    ignored: int | None = IGNORED
    looked_up: bool = False

    @classmethod
    def of(cls, classes: int | None, entries: int | None, ignored: int | None) -> Limit | None:
        """That of a field's arguments; None where they name neither classes nor entries."""
        if classes is not None:
            return cls(classes, ignored)
        return None if entries is None else cls(entries, None, looked_up=True)

    def beyond(self, found: Tensor) -> Tensor | None:
        """Where `found` (integers) has other numbers, as a mask; None where it has none."""
        if not found.numel():
            return None
        # Nearly always that is all that it takes. NumPy's two passes take half the time of torch's `aminmax`.
        numbers = found.numpy()
        if numbers.min() >= 0 and numbers.max() < self.count:
            return None
        found = found.long()  # narrower types would compare with 300 or -100 as what those wrap around to
        wrong = (found < 0) | (found >= self.count)
        return wrong if self.ignored is None else wrong & (found != self.ignored)

    @property
    def message(self) -> str:
        if self.looked_up:
            return f"is not one of the entries 0 to {self.count - 1} of the table that it is looked up in"
        return f"is not one of the classes 0 to {self.count - 1}"

    def cure(self, found: Tensor) -> str:
        """What to do about numbers beyond it, some of which `found` has."""
        found = found.long()
        kept = found if self.ignored is None else found[found != self.ignored]
        least, largest = int(kept.min()), int(kept.max())
        what = "entries" if self.looked_up else "labels"
        if least == 1 and largest == self.count:
            return f"{what} count from 0: where the file's count from 1, write `column(...) - 1`"
        if largest >= self.count:
            more = f"the table {largest + 1} entries" if self.looked_up else f"the model {largest + 1} outputs"
            return f"correct it, or give {more}: they count from 0"
        left_out = "" if self.ignored is None else f", and {self.ignored} is left out of the loss"
        return f"correct it: {what} count from 0{left_out}"


def converted(
    value: Tensor, dtype: torch.dtype, shape: tuple[int, ...], limit: Limit | None, complain: Complain
) -> Tensor:
    """`value` [rows, *shape] as `dtype`.

    Raises what `complain` makes for values that `dtype` can't hold (NaN, a fraction in an integer, a number out of
    range) and for those beyond `limit`.
    """

    def check(wrong: Tensor, what: str, help: str) -> None:
        if wrong.any():
            row = int(torch.nonzero(wrong)[0, 0])
            shown = value[row][wrong[row]].flatten()[0].item()
            raise complain(row, f"{shown!r} {what}" if shown == shown else what, help)

    if value.dtype.is_floating_point:
        check(torch.isnan(value), "is NaN or missing", "remove the row, or fill in a value: `column(..., missing=0)`")
    found = value.to(dtype)
    if found.dtype != value.dtype:
        lost, what, help = _lost(value, found)
        check(lost, f"{what} {type_name(dtype, shape)}", help)
    wrong = limit.beyond(found) if limit is not None else None
    if limit is not None and wrong is not None and wrong.any():
        check(wrong, limit.message, limit.cure(found))
    return found


def no_category(value: Any, values: Sequence[str] | Sequence[int]) -> tuple[str, str]:
    """What to tell of a value that is not in the list that numbers a column: what is wrong, and a cure."""
    if value is None or value != value:
        return "is missing", "remove the row, or fill in a value"
    close = get_close_matches(str(value), map(str, values), 1)
    told = f"`{close[0]}` is" if close else f"they are {', '.join(map(str, values[:8]))}{', ...' * (len(values) > 8)}"
    return f"{value!r:.40} is not among the categories", f"correct it, or add it to the categories: {told}"


def type_name(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    """The language's name of a type: `float[3, 32, 32]`."""
    return f"{DTYPES.get(dtype, dtype)}[{', '.join(map(str, shape))}]"


def _lost(value: Tensor, converted: Tensor) -> tuple[Tensor, str, str]:
    """Where the conversion lost the value, what happened to it, and a cure."""
    if converted.dtype.is_floating_point:
        lost = torch.isfinite(value) & ~torch.isfinite(converted)
        return lost, "is too large for", "scale the column, or declare a wider type"
    if converted.dtype == torch.bool:
        return (value != 0) & (value != 1), "is neither 0 nor 1, as needed for", "compare: `column(...) > 0`"
    fraction = value != value.round() if value.dtype.is_floating_point else torch.zeros_like(value, dtype=torch.bool)
    if (fraction & torch.isfinite(value)).any():
        return fraction & torch.isfinite(value), "has a fraction, and the type is", "round it, or declare a float type"
    info = torch.iinfo(converted.dtype)
    wide = value.double() if value.dtype.is_floating_point else value.long()
    # 2**63 - 1 has no float64: compared as floats, its neighbour 2**63 would pass.
    above = wide >= 2.0 ** (info.bits - (info.min < 0)) if wide.is_floating_point() else wide > info.max
    return (wide < info.min) | above, "is out of the range of", "declare a wider type"
