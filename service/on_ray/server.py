"""Starts the service on Ray Serve and ends it: ``eca-inspect serve --ray``. Needs the extra `ray`."""

import logging
import signal
import threading
from types import FrameType

import ray
from ray import serve
from ray.serve.schema import LoggingConfig

from service.http.server import KEEP_ALIVE_SECONDS
from service.on_ray.app import NAME, build, request_seconds
from service.on_ray.cluster import join
from service.settings import Settings

QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")
"""Of Ray Serve: the application logs every request itself."""
log = logging.getLogger(__name__)


def serve_on_ray(settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C, on the cluster of the settings, or else on one of this machine alone.

    Raises:
        ValueError: if a setting does not go with Ray.
    """
    end = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        end.set()

    application = build({**settings.model_dump(exclude_unset=True), "allow_anonymous": True})
    join(settings.ray_address)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        serve.start(
            proxy_location="EveryNode",
            http_options={
                "host": settings.host,
                "port": settings.port,
                "request_timeout_s": request_seconds(settings),
                "keep_alive_timeout_s": KEEP_ALIVE_SECONDS,
            },
            logging_config=QUIET,
        )
        serve.run(application, name=NAME, route_prefix="/", logging_config=QUIET)
        log.info("running on http://%s:%d (press CTRL+C to quit)", settings.host, settings.port)
        end.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
