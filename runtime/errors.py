"""What ends a run with a message instead of a traceback."""

from __future__ import annotations


class RunError(Exception):
    """A mistake of the user's or a failure of the run: `message`, `help` (the cure), and the exit `status`.

    The status is 1 where the run failed, and 2 where an option or a setting is wrong.
    """

    def __init__(self, message: str, *, help: str | None = None, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.status = status

    def __str__(self) -> str:
        return self.message + (f"\n  help: {self.help}" if self.help else "")
