"""The HTTP server, and how it ends: requests that have arrived are answered, later ones refused, then it closes."""

import asyncio
import logging
import math
import socket
import sys
from time import monotonic
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from service.app import http_protocol, metrics_app
from service.settings import Settings

EXTRA_SECONDS = 5
"""Beyond the deadline, for answers on their way."""
KEEP_ALIVE_SECONDS = 75
"""For an idle connection; longer than proxies keep theirs (nginx, AWS: 60), so that none sends into one that closes."""

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves an application of `service.app.create_app` until SIGTERM or Ctrl-C, or until the device is given up.

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
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                # Who has not sent his image by the deadline is not waited for.
                timeout_graceful_shutdown=math.ceil(settings.deadline_seconds) + EXTRA_SECONDS,
            )
        )
        self._app = app
        self._settings = settings
        self.device_lost = False
        """Whether it has ended because the device was given up: only a new process helps then."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens; on the port of the metrics too if there is one, with the same bounds on what a client may cost."""
        if (port := self._settings.metrics_port) is None:
            await super().startup(sockets)
            return
        config = uvicorn.Config(
            metrics_app(self._app, self._settings),
            log_config=None,
            access_log=False,
            server_header=False,
            http=self.config.http,
            ws="none",
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        config.load()

        def protocol() -> asyncio.Protocol:
            return config.http_protocol_class(config=config, server_state=self.server_state, app_state={})  # type: ignore[call-arg]

        host = self._settings.host
        try:
            metrics = await asyncio.get_running_loop().create_server(protocol, host, port, start_serving=False)
        except OSError as error:
            log.error("the metrics cannot be served: %s", error)
            sys.exit(STARTUP_FAILURE)
        await super().startup(sockets)
        await metrics.start_serving()
        self.servers.append(metrics)
        log.info("metrics are at http://%s:%d/metrics", host, port)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        self.device_lost = self._app.state.parts.engine.lost
        return await super().on_tick(counter) or self.device_lost

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
