"""All connections of a server: how many there may be, and how much of their answers may wait in memory."""

import logging
import resource
from collections.abc import Callable
from typing import Protocol

RESERVED_FILES = 128
"""File descriptors that are kept for everything else but connections: weights, log, sockets that listen."""
QUIET_SECONDS = 60.0
"""Between two lines of the log about the same."""

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What is asked of a connection."""

    @property
    def is_idle(self) -> bool:
        """Whether it has no request that is being received or answered."""

    @property
    def unread_bytes(self) -> int:
        """How much of its answers the client has not taken."""

    def close_idle(self) -> None:
        """Ends it, in order."""

    def drop(self) -> None:
        """Ends it at once, with what the client has not taken."""


def most_connections(wanted: int) -> int:
    """How many connections the system lets this process have, at most those that are wanted."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or wanted <= allowed - RESERVED_FILES:
        return wanted
    possible = max(1, allowed - RESERVED_FILES)
    log.warning(
        "at most %d connections at once, not %d: the process may open %d files (ulimit -n)", possible, wanted, allowed
    )
    return possible


class OpenConnections:
    """The connections of a server, in the order in which they were last used. Belongs to the event loop's thread.

    Args:
        most: connections at once. Past it the one that has been idle longest is closed for a new one.
        most_unread_bytes: of answers that clients have not taken. Past it the answer that has waited longest is
            dropped, with its connection.
        clock: seconds.
    """

    def __init__(self, most: int, most_unread_bytes: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._most_unread_bytes = most_unread_bytes
        self._clock = clock
        self._all: dict[Connection, None] = {}
        self._unread: dict[Connection, None] = {}
        self._logged: dict[str, float] = {}

    @property
    def count(self) -> int:
        """Connections that are open."""
        return len(self._all)

    @property
    def unread_bytes(self) -> int:
        """Of all answers that clients have not taken."""
        return sum(one.unread_bytes for one in self._unread)

    def add(self, connection: Connection) -> bool:
        """Counts a new connection in, if need be in the place of an idle one; whether there was a place."""
        if len(self._all) >= self._most:
            self._warn("as many connections are open as INSPECT_MAX_CONNECTIONS allows: %d", self._most)
            idle = next((one for one in self._all if one.is_idle), None)
            if idle is None:
                return False
            self.remove(idle)
            idle.close_idle()
        self._all[connection] = None
        return True

    def used(self, connection: Connection) -> None:
        """Notes that a connection has just had an answer."""
        if connection in self._all:
            del self._all[connection]
            self._all[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forgets a connection that has ended or will."""
        self._all.pop(connection, None)
        self._unread.pop(connection, None)

    def waits(self, connection: Connection) -> None:
        """Notes that a client does not take its answer as fast as it is written."""
        self._unread.setdefault(connection)
        while self.unread_bytes > self._most_unread_bytes and len(self._unread) > 1:
            longest = next(iter(self._unread))
            self._warn(
                "clients have not taken more than INSPECT_ANSWER_MEMORY_BYTES, %d bytes, of their answers; "
                "the one that has waited longest is dropped",
                self._most_unread_bytes,
            )
            del self._unread[longest]
            longest.drop()

    def taken(self, connection: Connection) -> None:
        """Notes that a client has taken its answer."""
        self._unread.pop(connection, None)

    def _warn(self, message: str, *arguments: object) -> None:
        now = self._clock()
        if now >= self._logged.get(message, now):
            self._logged[message] = now + QUIET_SECONDS
            log.warning(message, *arguments)
