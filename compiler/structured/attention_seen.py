"""What blocks of queries and of keys see of each other, under a causal mask and a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ranges:
    """What is walked over for a block of queries or of keys, `first` to `last`, and what is seen of it.

    Blocks of the others begin between `from` and `to`; `partly` tells whether one, from `start` on, holds what is not
    seen; `seen` is what is.
    """

    keys_from: str
    keys_to: str
    keys_partly: str
    keys_seen: str
    queries_from: str
    queries_to: str
    queries_partly: str
    queries_seen: str


@dataclass(frozen=True)
class Sight:
    """Which keys a query sees: those up to itself where `causal`; those less than `window` away unless that is ""."""

    causal: bool
    window: str

    @property
    def ahead(self) -> bool:
        """Whether a window ends ahead of a query, too."""
        return bool(self.window) and not self.causal

    def keys(self, first: str, last: str) -> tuple[str, str]:
        """From where to where the keys are that the queries `first` to `last` see."""
        stop = f"min({last} + {self.window}, n_keys)" if self.window else "n_keys"
        start = f"{self._back(first)} // BLOCK_S * BLOCK_S" if self.window else "0"
        return start, f"min({first} + BLOCK_T, n_keys)" if self.causal else stop

    def queries(self, first: str, last: str) -> tuple[str, str]:
        """From where to where the queries are that see the keys `first` to `last`."""
        start = first if self.causal else self._back(first) if self.window else ""
        stop = f"min({last} + {self.window}, n_queries)" if self.window else "n_queries"
        return f"{start} // BLOCK_T * BLOCK_T" if start else "0", stop

    def _back(self, first: str) -> str:
        """The first place in a window that ends at `first`."""
        if self.window == "1":
            return first
        return f"max({first} - {self._less(self.window)}, 0)"

    def _less(self, window: str) -> str:
        return str(int(window) - 1) if window.isdecimal() else f"({window} - 1)"

    def each(self) -> list[str]:
        """The conditions under which queries see keys."""
        found = ["(keys <= queries)"] if self.causal else []
        found += [f"(keys > queries - {self.window})"] if self.window else []
        return found + ([f"(keys < queries + {self.window})"] if self.ahead else [])

    def ranges(self) -> Ranges:
        """For the kernels that have a block of queries, or of keys."""
        keys = ["(start + BLOCK_S > n_keys)"]
        keys += ["(start + BLOCK_S > first + 1)"] if self.causal else []
        keys += [f"(start <= last - {self.window})"] if self.window else []
        keys += [f"(start + BLOCK_S > first + {self.window})"] if self.ahead else []
        queries = ["(start + BLOCK_T > n_queries)"]
        queries += ["(start < last)"] if self.causal else []
        queries += [f"(start + BLOCK_T > first + {self.window})"] if self.window else []
        queries += [f"(start <= last - {self.window})"] if self.ahead else []
        return Ranges(
            *self.keys("first", "last"),
            joined(keys, " | "),
            joined(["(keys < n_keys)", *self.each()], " & "),
            *self.queries("first", "last"),
            joined(queries, " | "),
            joined(["(queries < n_queries)", *self.each()], " & "),
        )

    def some(self) -> str:
        """Whether queries from `first_query` on see any of the keys from `first_key` on; "" where they always do."""
        found = ["(first_key < first_query + BLOCK_T)"] if self.causal else []
        found += [f"(first_key + BLOCK_S > first_query - {self._less(self.window)})"] if self.window else []
        found += [f"(first_key < first_query + BLOCK_T + {self._less(self.window)})"] if self.ahead else []
        return joined(found, " & ") if found else ""


def joined(conditions: Sequence[str], sign: str) -> str:
    """Conditions in parentheses, which one alone does not need."""
    return conditions[0][1:-1] if len(conditions) == 1 else sign.join(conditions)
