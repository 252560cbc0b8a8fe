"""Makes the web application."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from model.detector import BEST_BATCH
from model.errors import MissingExtraError
from model.store.parts import PartCards
from model.store.store import Store
from service import console
from service.catalogue import Catalogue, VersionRefusedError
from service.decoding.pool import Decoders
from service.device.allowance import MEMORY_SHARE, TIME_SHARE, Allowance
from service.device.backend import Backend
from service.device.engine import Engine
from service.device.jobs import Job, Outcome
from service.device.memory import available_bytes
from service.device.students import Students
from service.device.torch_backend import TorchBackend
from service.history.database import Database
from service.history.history import History
from service.history.images import Images
from service.http.access import RequireKey, document_keys, endpoint_behind, open_to_all, role_of
from service.http.calibrations import calibration_router
from service.http.connections import OpenConnections, most_connections
from service.http.errors import AnswerErrors, answer_errors, drop_foreign_errors
from service.http.examples import add_examples
from service.http.head import HeadAsGet
from service.http.headers import SecurityHeaders
from service.http.history import audit_router
from service.http.history import router as history_router
from service.http.keys import KeyRing
from service.http.origin import AllowOrigins, RefuseForeignRequests
from service.http.prefix import UnderPrefix
from service.http.protocol import BoundedProtocol, protocol_with
from service.http.routes import metrics_router, no_metrics_router, router
from service.http.trainings import training_router
from service.http.uploads import BoundUploads, UploadMemory
from service.http.watch import router as watch_router
from service.inspection import Inspector, Limits
from service.keeping import parse_policy
from service.observe.observation import Observation, endpoint_of, is_probe
from service.observe.telemetry import Telemetry
from service.rendering import MAX_DRAWN_PIXELS
from service.settings import Settings
from service.shadow import Shadow
from service.state import State
from service.training_images import TrainingImages
from service.trainings import Trainings
from service.versions import Versions

if TYPE_CHECKING:
    from service.observe.tracing import Tracing

AUTOMATIC = "automatic"
"""Who has done it, in the log of changes, where the server did it by itself."""
CLOSE_SECONDS = 2.0
"""Longest wait for the device at shutdown, when every request has been answered. A device that hangs is dropped."""

log = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """The torch device of a name; ``auto`` is the first GPU if there is one, else the CPU.

    Raises:
        ValueError: if there is no such device here, or it is neither a CPU nor a CUDA GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} cannot be used here: {error}") from None
    if device.type not in BEST_BATCH:
        raise ValueError(f"the device {name!r} cannot be used: it is not one of {', '.join(BEST_BATCH)}")
    return device


def _versions(
    settings: Settings, catalogue: Catalogue, device: torch.device, allowance: Allowance, telemetry: Telemetry
) -> Versions:
    return Versions(
        Store(settings.weights, settings.teachers_folder),
        catalogue,
        Students(settings.student_memory_bytes, telemetry.students_evicted.inc),
        device,
        settings.dtype,
        allowance,
        max_views=settings.queue_size,
        on_load=telemetry.students_loaded.inc,
        on_refuse=telemetry.reloads_refused.inc,
    )


def _allowance(settings: Settings, device: torch.device) -> Allowance:
    return Allowance(
        images=settings.device_batch or BEST_BATCH[device.type],
        memory_bytes=settings.device_memory_bytes or int(MEMORY_SHARE * available_bytes(device)),
        seconds=TIME_SHARE * settings.device_timeout_seconds,
        bytes_per_value=settings.dtype.itemsize,
    )


def _tracing(endpoint: str) -> "Tracing":
    try:
        from service.observe.tracing import Tracing
    except ModuleNotFoundError:
        raise MissingExtraError("INSPECT_OTLP_ENDPOINT needs the extra: pip install 'eca-inspect[otel]'") from None
    return Tracing(endpoint)


def _history(settings: Settings, database: Database, telemetry: Telemetry) -> History:
    images = Images(
        settings.state_folder / "images",
        settings.images_bytes,
        settings.images_days,
        database.labelled_images,
        lambda reason: telemetry.images_not_kept.labels(reason).inc(),
    )
    history = History(
        database,
        settings.state_folder,
        settings.spool_bytes,
        parse_policy(settings.keep_images),
        images,
        settings.history_days,
        on_lose=lambda reason, count: telemetry.history_lost.labels(reason).inc(count),
        on_late=telemetry.history_late.inc,
        on_write=telemetry.history_written.inc,
        on_refuse=telemetry.history_refused.inc,
    )
    telemetry.watch_history(
        lambda: history.database_up, lambda: history.waiting, lambda: history.spool_bytes, lambda: images.bytes
    )
    return history


async def _reload_what_changes(
    versions: Versions,
    engine: Engine[Job, Outcome],
    catalogue: Catalogue,
    history: History | None,
    shadow: Shadow,
    seconds: float,
) -> None:
    """Looks for new versions and candidates in the weights folder until it is cancelled, and notes new versions in the
    log of changes."""
    while True:
        await asyncio.sleep(seconds)
        try:
            for category in await asyncio.to_thread(versions.changed):
                before = catalogue.version_of(category)
                with suppress(VersionRefusedError):  # already logged, with the reason
                    entry = await asyncio.wrap_future(engine.call_in_steps(versions.reload(category)))
                    if history is not None and entry.card.model_version != before:
                        await history.note(AUTOMATIC, "reload", category, before, entry.card.model_version)
            await shadow.look()
        except Exception:
            log.exception("looking for new versions failed")


def create_app(
    settings: Settings,
    backend: Callable[[torch.device, Allowance], Backend[Job, Outcome]] = TorchBackend,
    *,
    trainings: bool = True,
) -> FastAPI:
    """An application with these settings. Its categories are loaded when it starts.

    Args:
        settings: of the application.
        backend: creates the backend for a device, with the given limits per batch.
        trainings: whether it may run trainings.

    Raises:
        KeyFileError: if the key file is damaged or missing.
        MissingExtraError: if traces are requested and the extra `otel` is not installed, or the driver of the database
            is not.
        DatabaseURLError: if the address of the database cannot be used.
    """
    database = None if settings.database_url is None else Database(settings.database_url)
    upload_memory = UploadMemory(settings.upload_memory_bytes)
    ring = None if settings.keys_file is None else KeyRing(settings.keys_file)
    most = most_connections(settings.max_connections)
    connections = OpenConnections(most, settings.answer_memory_bytes, monotonic)
    tracing = None if settings.otlp_endpoint is None else _tracing(settings.otlp_endpoint)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        telemetry = Telemetry()
        device = choose_device(settings.device)
        allowance = _allowance(settings, device)
        engine = Engine(
            backend(device, allowance),
            settings.queue_size,
            lambda size: telemetry.batch_size.observe(size),
            timeout_seconds=settings.device_timeout_seconds,
            on_restart=telemetry.device_restarts.inc,
        )
        catalogue = Catalogue()
        versions = _versions(settings, catalogue, device, allowance, telemetry)
        log.info("loading the categories of %s onto %s", settings.weights, device)
        await asyncio.wrap_future(engine.call(versions.load, timeout_seconds=math.inf))
        telemetry.describe_build(app.version, device, settings.precision)
        telemetry.watch_device(device, lambda: engine.running)
        telemetry.watch_queue(lambda: engine.depth, lambda: engine.admitted, settings.queue_size)
        telemetry.watch_uploads(lambda: upload_memory.held)
        telemetry.watch_connections(lambda: connections.count, lambda: connections.unread_bytes, most)
        telemetry.watch_categories(catalogue.summaries)
        telemetry.watch_drift(lambda: [ready.card for ready in catalogue.ready()])
        for route in app.routes:
            if isinstance(route, APIRoute) and not is_probe(route):
                telemetry.announce_endpoint(endpoint_of(route), {200, *map(int, route.responses)})
        decoders = Decoders(
            settings.decode_threads,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
            max_answer_bytes=3 * MAX_DRAWN_PIXELS,
            cpu_seconds=settings.decode_cpu_seconds,
            on_restart=telemetry.decoder_restarts.inc,
        )
        pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="pictures")
        with decoders, pool:
            limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
            history = None if database is None else _history(settings, database, telemetry)
            shadow = Shadow(
                engine, versions, decoders, limits, telemetry, history, settings.shadow_inspections,
                settings.deadline_seconds,
            )  # fmt: skip
            inspector = Inspector(
                engine, pool, decoders, limits, settings.deadline_seconds, telemetry, history, shadow.offer
            )
            await shadow.look()
            jobs = None
            if trainings and history is not None:
                jobs = Trainings(
                    settings.state_folder,
                    settings.training_images,
                    TrainingImages(settings.state_folder, settings.uploaded_bytes, settings.uploaded_images),
                    settings.weights.absolute(),
                    settings.teachers_folder.absolute(),
                    shadow.look,
                )
            cards = PartCards(settings.parts_folder)
            if settings.parts is not None and not settings.parts.is_dir():
                log.error("there is no folder of cards of parts %s", settings.parts)
            app.state.parts = State(
                settings, catalogue, cards, versions, engine, inspector, history, shadow, jobs, telemetry, tracing
            )
            tasks = [asyncio.create_task(shadow.run())]
            if settings.reload_seconds > 0:
                tasks.append(
                    asyncio.create_task(
                        _reload_what_changes(versions, engine, catalogue, history, shadow, settings.reload_seconds)
                    )
                )
            if history is not None:
                history.start()
            try:
                yield
            finally:
                if history is not None:
                    await asyncio.to_thread(history.close)
                if jobs is not None:
                    await jobs.close()
                for task in tasks:
                    task.cancel()
                engine.close(timeout_seconds=CLOSE_SECONDS)
                if tracing is not None:
                    tracing.close()

    app = FastAPIOffline(
        title="eca-inspect",
        summary="How unusual does this part look, should it be rejected, and where is the fault?",
        version=version("eca-inspect"),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # the target of a redirect would come from the client's Host header
    )
    for route in app.routes:  # at this point only the routes of the documentation
        open_to_all(endpoint_behind(route))
    for one in (
        router,
        history_router,
        audit_router,
        watch_router,
        calibration_router,
        training_router,
        console.router,
        metrics_router if settings.metrics_port is None else no_metrics_router,
    ):
        app.router.routes.extend(one.routes)
    for route in app.routes:
        role_of(route)  # raises if a route does not declare who may call it
    app.state.connections = connections
    answer_errors(app)
    app.user_middleware = [  # the first is the outermost
        Middleware(Observation),
        Middleware(UnderPrefix, prefix=settings.root_path),
        *_outside(settings),
        *([Middleware(RequireKey, ring=ring, routes=app.routes)] if ring else []),
        Middleware(BoundUploads, memory=upload_memory, seconds=settings.upload_seconds),
    ]
    _document(app, [drop_foreign_errors, *([document_keys] if ring else []), add_examples])
    return app


def http_protocol(app: FastAPI, settings: Settings) -> type[BoundedProtocol]:
    """The HTTP protocol class that uvicorn uses for this application."""

    def count(kind: str) -> None:
        app.state.parts.telemetry.rejections.labels(kind).inc()

    return protocol_with(settings.header_seconds, count, app.state.connections)


def _outside(settings: Settings) -> list[Middleware]:
    """The middleware that every application has; the first is the outermost."""
    hosts = (*settings.allowed_hosts, settings.host)
    return [
        Middleware(HeadAsGet),  # outside all middleware that looks at the body
        Middleware(SecurityHeaders),
        *([Middleware(AllowOrigins, origins=settings.allowed_origins)] if settings.allowed_origins else []),
        Middleware(AnswerErrors),
        Middleware(RefuseForeignRequests, allowed_hosts=hosts, allowed_origins=settings.allowed_origins),
    ]


def metrics_app(app: FastAPI, settings: Settings) -> Starlette:
    """An application that serves only the metrics of `app`, for a separate port."""

    async def metrics(_: Request) -> Response:
        return Response(app.state.parts.telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", metrics)], middleware=_outside(settings))


def _document(app: FastAPI, corrections: Sequence[Callable[[dict[str, Any], Iterable[BaseRoute]], None]]) -> None:
    """Corrects the OpenAPI document and adds to it, when it is first requested."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for correct in corrections:
                correct(generate(), app.routes)
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]
