"""Choices that the API and the command line share. This module imports nothing slow."""

from enum import StrEnum


class Localize(StrEnum):
    """Whether to locate the fault. A map that needs a gradient takes about as long as the score; a distance map takes
    no extra time."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Role(StrEnum):
    """What a key allows: ``inspect`` requests inspections, ``admin`` also changes what is served."""

    INSPECT = "inspect"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether a key with this role may do what needs the role `needed`."""
        return self is Role.ADMIN or self is needed
