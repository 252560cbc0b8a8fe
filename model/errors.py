"""The one base of the failures that a user can put right."""


class ExpectedError(ValueError):
    """Something that the user gave or keeps on disk is wrong; the message says what, and what to do about it.

    Messages below `model/` name no command and no option. Where these help, a failure has a class of its own, and
    `service.hints` knows what to add.
    """


class MissingSetError(ExpectedError):
    """The files of a data set that torchvision can download are not there."""


class MissingExtraError(ExpectedError):
    """A package that only some commands need is not installed; the message says how to get it."""
