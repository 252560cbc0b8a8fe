"""What can go wrong with the history. This module imports nothing slow."""

from model.errors import ExpectedError


class DatabaseURLError(ExpectedError):
    """The address of the database cannot be used; the message says what is wrong."""


class HistoryUnavailableError(ExpectedError):
    """The database did not answer; the message says why."""
