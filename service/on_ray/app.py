"""The same application on Ray Serve, in one process or many, on one machine or many. Needs the extra `ray`.

Every replica runs what `service.app.create_app` makes, with an engine, a device and a catalogue of its own. What
concerns all of them goes to all of them: reload, rollback, and the metrics.
"""

import asyncio
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app import create_app
from service.http.access import find_route
from service.http.calibrations import calibrate
from service.http.errors import response_of
from service.http.prefix import UnderPrefix
from service.http.routes import metrics, promote, reload, rollback
from service.observe import logs
from service.problems import Problem
from service.settings import Settings, read_settings

NAME = "inspect"
"""Of the application and of its one deployment."""
EXTRA_SECONDS = 5.0
"""Beyond our own deadlines, so that an answer is ours and not Ray Serve's."""
SPREAD_SECONDS = 60.0
"""For all other replicas to do what one has done."""

_METRICS = metrics.__name__
_CHANGES = (reload.__name__, rollback.__name__, promote.__name__, calibrate.__name__)
"""Names of the routes that concern all replicas."""

log = logging.getLogger(__name__)


def request_seconds(settings: Settings) -> float:
    """Ray Serve's own limit for a request: later than the upload's and the deadline together."""
    return settings.upload_seconds + settings.deadline_seconds + EXTRA_SECONDS


def build(args: dict[str, Any]) -> serve.Application:
    """The application for ``serve run service.on_ray.app:build`` and for a Serve config file.

    Args:
        args: settings by their names in small letters, such as ``weights``; what is not given is read from the
            environment here, and what that leaves out from each replica's own.

    Raises:
        ValueError: if a setting is impossible, or does not go with Ray.
    """
    settings = read_settings(**args)
    if settings.metrics_port is not None:
        raise ValueError("INSPECT_METRICS_PORT does not go with Ray: /metrics has those of all replicas")
    if settings.keys_file is None and not settings.allow_anonymous:
        raise ValueError(
            "Ray Serve may listen on an address that other machines can reach: name a file of keys in "
            "INSPECT_KEYS_FILE (eca-inspect key create makes one), or set INSPECT_ALLOW_ANONYMOUS=true"
        )
    given = settings.model_dump(exclude_unset=True)
    for name in ("weights", "teachers", "parts", "keys_file", "state"):
        if (path := getattr(settings, name)) is not None:
            given[name] = path.absolute()  # a replica runs in another folder
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        autoscaling_config={
            "min_replicas": settings.ray_min_replicas,
            "max_replicas": max(settings.ray_min_replicas, settings.ray_max_replicas),
            "target_ongoing_requests": settings.ray_target_requests,
        },
        ray_actor_options={"num_cpus": settings.ray_replica_cpus, "num_gpus": settings.ray_replica_gpus},
        max_ongoing_requests=_most_requests(settings),
        max_queued_requests=settings.queue_size,
        request_router_config=_router(settings),
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        graceful_shutdown_timeout_s=settings.deadline_seconds + EXTRA_SECONDS,
        health_check_period_s=5,
        health_check_timeout_s=30,
    )
    return deployment.bind(given)


def _most_requests(settings: Settings) -> int:
    """Of one replica at once. Beyond it the next replica is tried, and at last Ray Serve's own queue."""
    if settings.ray_by_category:
        return math.ceil(2 * settings.ray_target_requests)
    return 2 * settings.queue_size  # never reached: the engine itself says when it is full


def _router(settings: Settings) -> RequestRouterConfig:
    if settings.ray_by_category:  # `service.on_ray.proxy` names the category in a header
        return RequestRouterConfig(
            request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
        )
    return RequestRouterConfig()


class Replica:
    """One replica: the application, and what the other replicas may ask of it."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._settings = read_settings(**given)
        logs.configure(self._settings.log_level, self._settings.log_format)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Ray Serve sends requests to."""
        context = serve.get_replica_context()
        self._identity = {"node": ray.get_runtime_context().get_node_id(), "replica": context.replica_id.unique_id}
        self._application = create_app(self._settings, trainings=False)
        peers = serve.get_deployment_handle(context.deployment, context.app_name)
        application = OnAllReplicas(self._application, peers, self._identity["replica"])
        return DisconnectOnCancel(UnderPrefix(application, self._settings.root_path))

    def check_health(self) -> None:
        """Called by Ray Serve every few seconds; a replica that raises is replaced."""
        engine = self._application.state.parts.engine
        if engine.lost:
            raise RuntimeError("the device is lost")

    def exposition(self) -> tuple[dict[str, str], bytes]:
        """Who it is, and its metrics in Prometheus' text format."""
        return self._identity, self._application.state.parts.telemetry.exposition()

    async def follow(self, leader: str, change: str, category: str, version: str) -> str | None:
        """Does what another replica has just done.

        Args:
            leader: that replica.
            change: ``reload`` or ``rollback``.
            category: the one concerned.
            version: what that replica serves now.

        Returns:
            Why it cannot, or None.
        """
        if leader == self._identity["replica"]:
            return None
        parts = self._application.state.parts
        versions = parts.versions
        work = versions.reload(category) if change == "reload" else versions.roll_back(category, version)
        try:
            await asyncio.wrap_future(parts.engine.call_in_steps(work))
            await parts.shadow.look()
        except Exception as error:
            log.error("the %s of category %s cannot be followed: %s", change, category, error)
            return str(error) or type(error).__name__
        return None


class DisconnectOnCancel:
    """ASGI middleware that tells the application of a disconnected client, whose request Ray Serve cancels instead."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gone = asyncio.Event()

        async def received() -> Message:
            message, leaving = asyncio.ensure_future(receive()), asyncio.ensure_future(gone.wait())
            try:
                await asyncio.wait((message, leaving), return_when=asyncio.FIRST_COMPLETED)
                # It fails where the proxy has already forgotten the request.
                if message.done() and not message.cancelled() and message.exception() is None:
                    return message.result()
                return {"type": "http.disconnect"}
            finally:
                message.cancel()
                leaving.cancel()

        async def sent(message: Message) -> None:
            if not gone.is_set():
                await send(message)

        answering = asyncio.ensure_future(self._app(scope, received, sent))
        while not answering.done():
            try:
                await asyncio.shield(answering)
            except asyncio.CancelledError:
                gone.set()
        if gone.is_set():
            raise asyncio.CancelledError


class OnAllReplicas:
    """ASGI middleware that has all replicas do what concerns all of them, and answers for them together.

    Args:
        app: the application of this replica, which checks the key and does its own part first.
        peers: all replicas.
        replica: the name of this one.
    """

    def __init__(self, app: FastAPI, peers: DeploymentHandle, replica: str) -> None:
        self._app = app
        self._peers = peers
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, parameters = (scope["type"] == "http" and find_route(self._app.routes, scope)) or (None, {})
        name = getattr(route, "name", None)
        if name == _METRICS:
            status, headers, body = await self._answer(scope, receive)
            if status == 200:
                body = await asyncio.to_thread(merge, await self._all("exposition"))
            await _send(send, status, headers, body)
        elif name in _CHANGES:
            status, headers, body = await self._answer(scope, receive)
            if status == 200:
                status, headers, body = await self._spread(parameters["category"], name, headers, body)
            await _send(send, status, headers, body)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, MutableHeaders, bytes]:
        """This replica's own answer."""
        start: Message = {}
        parts: list[bytes] = []

        async def kept(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, kept)
        return start["status"], MutableHeaders(raw=list(start["headers"])), b"".join(parts)

    async def _spread(
        self, category: str, change: str, headers: MutableHeaders, body: bytes
    ) -> tuple[int, MutableHeaders, bytes]:
        """Has the others follow, and says so if one cannot."""
        answer = json.loads(body)
        if answer.get("dry_run"):
            return 200, headers, body
        if change in ("promote", "calibrate") or (change == "rollback" and answer["persistent"]):
            change = "reload"  # the disk has the version in place
        told = await self._all("follow", self._replica, change, category, answer["model_version"])
        refusals = [reason for reason in told if reason is not None]
        if not refusals:
            return 200, headers, body
        reason = f"{len(refusals)} of {len(told)} replicas serve the version before: {refusals[0]}"
        response = response_of(Problem("reload-refused", reason=reason))
        headers.update(response.headers)
        return response.status_code, headers, bytes(response.body)

    async def _all(self, method: str, *arguments: Any) -> list[Any]:
        """What every replica answers; a replica that ends meanwhile is left out."""
        response = self._peers.broadcast(method, *arguments)
        answers = await response.results_async(timeout_s=SPREAD_SECONDS, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                log.warning("a replica did not answer %s: %s", method, answer)
        return [answer for answer in answers if not isinstance(answer, BaseException)]


async def _send(send: Send, status: int, headers: MutableHeaders, body: bytes) -> None:
    headers["content-length"] = str(len(body))
    await send({"type": "http.response.start", "status": status, "headers": headers.raw})
    await send({"type": "http.response.body", "body": body})


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def merge(expositions: Sequence[tuple[Mapping[str, str], bytes]]) -> bytes:
    """One exposition of many in Prometheus' text format, each with labels that tell it from the others."""
    families: dict[str, Metric] = {}
    for labels, text in expositions:
        for family in text_string_to_metric_families(text.decode()):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            whole.samples += [one._replace(labels={**one.labels, **labels}) for one in family.samples]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(list(families.values())))
    return generate_latest(registry)
