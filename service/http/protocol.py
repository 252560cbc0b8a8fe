"""uvicorn's HTTP protocol with the bounds it has not: on a request's head, and on how long a connection is waited for.

The application never sees these requests, so they are answered here, as problems all the same.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.errors import MEDIA_TYPE
from service.http.headers import headers_for
from service.problems import Problem

HEAD_BYTES = 64 << 10
LINGER_SECONDS = 5.0
"""How long the rest of a body is read and dropped after its request was answered: a client that is closed on while it
sends would not see the answer."""
UNREAD_SECONDS = 60.0
"""How long an answer may wait without the client taking any of it."""


class _At(Enum):
    """What comes next on a connection."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. What is only declared here is set by `protocol_with`."""

    head_seconds: float
    on_refusal: Callable[[str], None]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._at = _At.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._close_after = False
        self._progress = False
        self._unused_bytes = 0  # received since the last of which a head, a body or an end was made

    # What the connection tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(self.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._progress = False
        super().data_received(data)
        self._unused_bytes = 0 if self._progress else self._unused_bytes + len(data)
        if self._unused_bytes > HEAD_BYTES:
            self._refuse_head()
        waiting = self._at is _At.HEAD or (self._at is _At.IDLE and not self._answering)
        if waiting and self._timer is None:
            self._arm(self.head_seconds, self._head_is_late)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_until_taken()

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    # What the parser tells.

    def on_message_begin(self) -> None:
        self._progress = True
        self._at = _At.HEAD
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._at is _At.HEAD:  # else it is a trailer, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._progress = True
        self._at = _At.BODY
        self._disarm()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            self._refuse_head()
            return
        super().on_headers_complete()
        # We close ourselves, when the body has been read.
        self._close_after = not self.cycle.keep_alive
        self.cycle.keep_alive = True

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        self._at = _At.IDLE
        if self._refused:
            return
        super().on_message_complete()
        if self.cycle.response_complete:  # the answer was early, and its body has been read now
            self._answered()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem("malformed-request"))

    # What the application tells.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else it is the turn of the next in a pipeline
            self._answered()

    # Ends.

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _answered(self) -> None:
        if self._at is _At.BODY:
            self._arm(LINGER_SECONDS, self._close)
        elif self._close_after or self.transport.is_closing():
            self._close()
        else:
            self._disarm()
            if self.timeout_keep_alive_task is None:
                self._arm(self.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._answering:
            self._arm(self.head_seconds, self._head_is_late)
        else:
            self._close()

    def _refuse_head(self) -> None:
        self._refuse(Problem("headers-too-large", limit=HEAD_BYTES))

    def _refuse(self, problem: Problem) -> None:
        """Answers in the application's place. What still comes is dropped, and the connection ends soon."""
        if self._refused:
            return
        self._refused = True
        self.on_refusal(problem.kind)
        self._unset_keepalive_if_required()
        if self._answering:
            if self.cycle.response_started:
                self._close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = problem.body().model_dump_json().encode()
        head = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
            **headers_for(""),
        }
        lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.write_eof()
        self._arm(LINGER_SECONDS, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._arm(UNREAD_SECONDS, self.transport.abort)

    def _wait_until_taken(self) -> None:
        before = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < before:
                self._wait_until_taken()
            else:
                self.transport.abort()

        self._taken()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, look)

    def _taken(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _arm(self, seconds: float, action: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, action)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol_with(head_seconds: float, on_refusal: Callable[[str], None]) -> type[BoundedProtocol]:
    """The protocol for uvicorn's ``http``.

    Args:
        head_seconds: time for the head of a request to arrive.
        on_refusal: told the kind of each problem that is answered here.
    """
    own = {"head_seconds": head_seconds, "on_refusal": staticmethod(on_refusal)}
    return type("BoundedProtocol", (BoundedProtocol,), own)
