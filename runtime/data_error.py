"""The one error of data that can't be used."""

from __future__ import annotations


class DataError(Exception):
    """What is wrong with a data file: `file`, `row` (from 1, headers not counted), `field`, `message`, `help`."""

    def __init__(
        self, message: str, *, file: str, row: int | None = None, field: str | None = None, help: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.row = row
        self.field = field
        self.help = help

    def __str__(self) -> str:
        where = [self.file]
        where += [f"row {self.row}"] if self.row is not None else []
        where += [f"`{self.field}`"] if self.field is not None else []
        return f"{', '.join(where)}: {self.message}" + (f"\n  help: {self.help}" if self.help else "")

    def __reduce__(self) -> tuple[object, ...]:
        # Workers send errors to the process that waits for their rows.
        return _again, (self.message, self.file, self.row, self.field, self.help)


def _again(message: str, file: str, row: int | None, field: str | None, help: str | None) -> DataError:
    return DataError(message, file=file, row=row, field=field, help=help)
