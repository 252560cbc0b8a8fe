"""What can go wrong with the history. This module imports nothing slow."""

from model.errors import ExpectedError


class DatabaseURLError(ExpectedError):
    """The address of the database cannot be used; the message says what is wrong."""


class HistoryUnavailableError(ExpectedError):
    """The database did not answer; the message says why."""


class LabelChangedError(ExpectedError):
    """There is another label than the one that is to be replaced: this one, of this version."""

    def __init__(self, label: str | None, version: int) -> None:
        super().__init__(f"the label is {label!r}, version {version}")
        self.label = label
        self.version = version
