"""``serve``."""

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.errors import UsageError, ray_or_the_extra
from service.cli.options import torch_device
from service.settings import read_settings

if TYPE_CHECKING:
    from service.settings import Settings

log = logging.getLogger(__name__)
EXIT_NOT_STARTED = 3
EXIT_DEVICE_LOST = 4


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: INSPECT_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. Default: INSPECT_PORT.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of categories. Default: INSPECT_WEIGHTS.")] = None,
    on_ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Serve many replicas with Ray Serve, on the cluster INSPECT_RAY_ADDRESS or here. Needs an extra.",
        ),
    ] = False,
) -> None:
    """Serve all categories over HTTP. Every setting is an environment variable INSPECT_...; see docs/deploying.md."""
    from service.app import create_app
    from service.http.server import Server
    from service.observe import logs

    settings = read_settings(host=host, port=port, weights=weights)
    torch_device(settings.device)
    if settings.is_open_to_others and not settings.allow_anonymous:
        raise UsageError(
            f"other machines can reach {settings.host}, and anyone could call the server: set INSPECT_KEYS_FILE to a "
            "file of keys (`eca-inspect key create` makes one), or set INSPECT_ALLOW_ANONYMOUS=true"
        )
    logs.configure(settings.log_level, settings.log_format)
    if on_ray:
        _serve_on_ray(settings)
        return
    application = create_app(settings)
    if settings.is_open_to_others:
        log.warning("other machines can reach %s, and the server does not ask who is calling", settings.host)
    # After a normal shutdown uvicorn sends itself SIGTERM again; that must not look like a failure.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Server(application, settings)
    with suppress(KeyboardInterrupt):
        server.run()
    if server.device_lost:
        logging.shutdown()
        os._exit(EXIT_DEVICE_LOST)  # the ordinary end would wait for a device that does not answer
    if not server.started:
        raise typer.Exit(EXIT_NOT_STARTED)


def _serve_on_ray(settings: "Settings") -> None:
    with ray_or_the_extra():
        from service.on_ray.server import serve_on_ray
    if settings.port == 0:
        raise UsageError("with --ray, INSPECT_PORT must not be 0; choose a port")
    if settings.is_open_to_others:
        log.warning("other machines can reach %s, and the server does not ask who is calling", settings.host)
    try:
        serve_on_ray(settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
