"""The HTTP server, and how it ends: requests that have arrived are answered, later ones refused, then it closes."""

import asyncio
import math
import socket
from time import monotonic
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.app import http_protocol
from service.settings import Settings

EXTRA_SECONDS = 5
"""Beyond the deadline, for answers on their way."""


class Server(uvicorn.Server):
    """Serves an application of `service.app.create_app` until SIGTERM or Ctrl-C.

    uvicorn would close its socket at once. This one first lets readiness fail and answers new requests with 503, as
    long as requests that came before are being worked on.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                http=http_protocol(app, settings),
                ws="none",
                # Who has not sent his image by the deadline is not waited for.
                timeout_graceful_shutdown=math.ceil(settings.deadline_seconds) + EXTRA_SECONDS,
            )
        )
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if (parts := getattr(self._app.state, "parts", None)) is not None:  # None: it is still loading
            parts.engine.drain()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for the requests that have arrived, and then does what uvicorn does, in the time that is left."""
        limit = self.config.timeout_graceful_shutdown
        assert limit is not None
        end = monotonic() + limit
        pending = set(self.server_state.tasks)
        while pending and not self.force_exit and monotonic() < end:
            _, pending = await asyncio.wait(pending, timeout=0.1)
        self.config.timeout_graceful_shutdown = max(1, math.ceil(end - monotonic()))
        await super().shutdown(sockets)
