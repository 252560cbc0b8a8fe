"""What a caller and a key can be, as the API and the command line name it; imports nothing that takes time."""

from enum import StrEnum


class Localize(StrEnum):
    """Whether to find the place of the fault, which costs as much again as the score but for a map of distances."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Role(StrEnum):
    """What a key allows: ``inspect`` to ask, ``admin`` also to change what is served."""

    INSPECT = "inspect"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether this role is enough where another is needed."""
        return self is Role.ADMIN or self is needed
