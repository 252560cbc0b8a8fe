"""What the engine asks of a device: which jobs share a batch, to run a batch, and to show that it works.

The engine knows nothing of images or networks. What a job is, and what comes out of it, is the backend's business.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

JobT = TypeVar("JobT", contravariant=True)
OutcomeT = TypeVar("OutcomeT", covariant=True)


class DeviceFailedError(Exception):
    """The device itself failed, not one of its jobs: the thread that owns it is to be replaced."""


class DeviceMemoryError(Exception):
    """The device has too little free memory for this work."""


@dataclass(frozen=True)
class Group:
    """Which batch a job may be part of: one of jobs with the same key, and of no more than `limit`."""

    key: Hashable
    limit: int


class Backend(Protocol[JobT, OutcomeT]):
    """One device and what runs on it. `run` and `probe` are called on the thread that owns it, `group` on any."""

    def group(self, job: JobT) -> Group:
        """The group of a job."""

    def run(self, jobs: Sequence[JobT]) -> Sequence[OutcomeT]:
        """Runs a batch: jobs of one group, at least one, no more than its limit.

        Returns:
            What comes out of each job, in the same order.

        Raises:
            DeviceFailedError: if the device itself failed.
            DeviceMemoryError: if this batch does not fit into its memory; a smaller one may.
            Exception: any other; the engine runs the jobs one by one to find the one that fails.
        """

    def probe(self) -> None:
        """Does a little work on the device. Raises `DeviceFailedError` if it fails."""
