"""Choices that the API and the command line share. This module imports nothing slow."""

from enum import StrEnum
from typing import Literal


class Localize(StrEnum):
    """Whether to locate the fault. A map that needs a gradient takes about as long as the score; a distance map takes
    no extra time."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


DECISIONS = ("normal", "anomalous")
LABELS = (*DECISIONS, "unsure")

Action = Literal[
    "label", "reload", "rollback", "calibrate", "promote", "drop-candidate", "train", "cancel-training",
    "upload-training-image", "remove-training-images",
]  # fmt: skip
"""What a line of the log of changes is about."""


class Role(StrEnum):
    """What a key allows: ``inspect`` requests inspections, ``review`` also labels them, ``admin`` also changes what is
    served."""

    INSPECT = "inspect"
    REVIEW = "review"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether a key with this role may do what needs the role `needed`."""
        roles = list(Role)
        return roles.index(self) >= roles.index(needed)
