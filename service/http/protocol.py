"""uvicorn's HTTP protocol with what it has not: bounds on what a connection may cost, and requests read to their end.

uvicorn has no setting for any of this, so `BoundedProtocol` overrides callbacks of its protocol and reads attributes
that are not part of its public interface (`cycle`, `pipeline`, `flow`, `_start_asgi_task`,
`_unset_keepalive_if_required`). `pyproject.toml` therefore allows uvicorn only up to the version that this was tested
with: before raising the limit, compare `uvicorn/protocols/http/httptools_impl.py`, and run `test_bounds.py` and
`test_protocol.py`.

The application never sees the requests that are refused here, so they are answered here, as problems all the same.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http import heads
from service.http.connections import OpenConnections
from service.http.errors import HEADERS, MEDIA_TYPE
from service.http.headers import headers_for
from service.problems import Problem

LINGER_SECONDS = 5.0
"""How long the rest of a body is read and dropped after its request was answered: a client that is closed on while it
sends would not see the answer."""
UNREAD_SECONDS = 60.0
"""How long an answer may wait without the client taking any of it."""
PIPELINED = 100
"""Most requests of a connection that wait for the answer to the one before."""
log = logging.getLogger(__name__)


class _At(Enum):
    """What comes next on a connection."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. What is only declared here is set by `protocol_with`."""

    head_seconds: float
    on_refusal: Callable[[str], None]
    open_connections: OpenConnections

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._at = _At.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None  # what the application answers now or has answered last
        self._next_waits = False  # until the answer to `_running` has been taken
        self._refused = False
        self._refusal: Problem | None = None  # to be answered after the requests before it
        self._close_after = False
        self._upgrade_offered = False
        self._progress = False
        self._unused_bytes = 0  # received since the last of which a head, a body or an end was made

    # What the connection tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.open_connections.add(self):
            self._arm(self.head_seconds, self._head_is_late)
        else:
            self._refuse(Problem("too-many-connections"))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._stop_waiting()
        self.open_connections.remove(self)
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:  # uvicorn tells the last one only
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._progress = False
        self._parse(data)
        self._unused_bytes = 0 if self._progress else self._unused_bytes + len(data)
        if self._unused_bytes > heads.HEAD_BYTES:
            self._refuse(Problem("headers-too-large", limit=f"{heads.HEAD_BYTES} bytes"))
        waiting = self._at is _At.HEAD or (self._at is _At.IDLE and not self._answering)
        if waiting and self._timer is None:
            self._arm(self.head_seconds, self._head_is_late)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_until_taken()
        self.open_connections.waits(self)

    def resume_writing(self) -> None:
        self._stop_waiting()
        self.open_connections.taken(self)
        super().resume_writing()
        if self._next_waits:
            self._next_waits = False
            self._conclude()

    # What the parser tells. An exception ends the parsing of this connection.

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._read_on_without_upgrade(data[stop.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Problem | httptools.HttpParserError):
                log.error("unexpected error", exc_info=cause)
            self._refuse(cause if isinstance(cause, Problem) else _malformed(str(cause)))
        except httptools.HttpParserError as error:
            self._refuse(_malformed(str(error)))

    def _read_on_without_upgrade(self, rest: bytes) -> None:
        """Reads a request to its end that offers another protocol.

        The parser takes all that follows the head for the other protocol, so another parser has the head without the
        offer, and what follows. A server may ignore the offer (RFC 9110, 7.8).
        """
        head = heads.without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self._upgrade_offered = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._parse(head)
        if not self._refused:
            self._parse(rest)

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINED:
            raise _malformed(f"more than {PIPELINED} requests wait for the answer to the one before")
        self._progress = True
        self._at = _At.HEAD
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._at is _At.HEAD:  # else it is a trailer, which is not read
            super().on_header(name, value)
            heads.check_count(self.headers)

    def on_headers_complete(self) -> None:
        self._progress = True
        heads.check(self.parser.get_http_version(), self.url, self.headers)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _malformed("this server is no proxy")
            self._upgrade_offered = True
            return
        self._at = _At.BODY
        self._disarm()
        self.headers[:] = heads.with_host_of(self.url, self.headers)
        super().on_headers_complete()
        # We close ourselves, when the body has been read.
        self._close_after = not self.cycle.keep_alive
        self.cycle.keep_alive = True

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        if self._upgrade_offered:
            return  # its body is still to come
        self._at = _At.IDLE
        super().on_message_complete()
        if self.cycle.response_complete:  # the answer was early, and its body has been read now
            self._answered()

    # What the application tells.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.open_connections.used(self)
        if self.pipeline:
            # Later in this turn of the loop it is known whether the client takes the answer. Until it has, the next
            # request is not answered, because that answer would wait in memory as well.
            self.loop.call_soon(self._conclude_when_taken)
        else:
            self._conclude()

    def _conclude_when_taken(self) -> None:
        if self.flow.write_paused:
            self._next_waits = True
        else:
            self._conclude()

    def _conclude(self) -> None:
        super().on_response_complete()
        if not self._answering:  # else it is the turn of the next in a pipeline
            self._answered()

    # Ends.

    @property
    def is_idle(self) -> bool:
        """Whether it has no request that is being received or answered."""
        return self._at is not _At.BODY and not self._answering and not self._refused

    @property
    def unread_bytes(self) -> int:
        """How much of its answers the client has not taken."""
        return self.transport.get_write_buffer_size()

    def close_idle(self) -> None:
        """Ends it, in order."""
        self.transport.close()

    def drop(self) -> None:
        """Ends it at once, with what the client has not taken."""
        self.transport.abort()

    @property
    def _answering(self) -> bool:
        return self._running is not None and not (self._running.response_complete and not self.pipeline)

    def _answered(self) -> None:
        if self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif self._at is _At.BODY:
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

    def _refuse(self, problem: Problem) -> None:
        """Answers in the application's place, after the requests before. What still comes is dropped."""
        if self._refused:
            return
        self._refused = True
        self.on_refusal(problem.kind)
        self._unset_keepalive_if_required()
        if self._at is _At.BODY and not self._take_back():
            self._close()
        elif self._answering:
            self._refusal = problem
        else:
            self._answer_refusal(problem)

    def _take_back(self) -> bool:
        """Takes back the request whose body is being received; whether it may still be answered otherwise."""
        if self.pipeline:
            self.pipeline.popleft()
            assert self._running is not None
            self.cycle = self._running
            return True
        if self.cycle.response_started:
            return False
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._running = None
        return True

    def _answer_refusal(self, problem: Problem) -> None:
        self._unset_keepalive_if_required()
        body = problem.body().model_dump_json().encode()
        head = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
            **HEADERS.get(problem.status, {}),
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
        before = self.unread_bytes

        def look() -> None:
            if self.unread_bytes < before:
                self._wait_until_taken()
            else:
                self.transport.abort()

        self._stop_waiting()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, look)

    def _stop_waiting(self) -> None:
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


def _malformed(reason: str) -> Problem:
    return Problem("malformed-request", reason=reason)


def protocol_with(
    head_seconds: float, on_refusal: Callable[[str], None], open_connections: OpenConnections
) -> type[BoundedProtocol]:
    """The protocol for uvicorn's ``http``.

    Args:
        head_seconds: time for the head of a request to arrive.
        on_refusal: told the kind of each problem that is answered here.
        open_connections: counts all connections.
    """
    own = {
        "head_seconds": head_seconds,
        "on_refusal": staticmethod(on_refusal),
        "open_connections": open_connections,
    }
    return type("BoundedProtocol", (BoundedProtocol,), own)
