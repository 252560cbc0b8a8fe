"""What is ours of Ray Serve, without a cluster."""

import asyncio
from importlib import import_module
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.headers import SecurityHeaders
from service.http.routes import router
from service.observe.telemetry import Telemetry
from service.on_ray import proxy as ray_proxy


@pytest.fixture
def ray_app(ray_installed: None) -> ModuleType:
    return import_module("service.on_ray.app")


def proxied(app: ASGIApp) -> httpx.AsyncClient:
    """The middlewares around an application that has, as Ray Serve's, added the request's id."""
    for middleware in ray_proxy.middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


@pytest.mark.parametrize(
    ("status", "ours", "kind"),
    [
        (408, 504, "deadline-passed"),
        (429, 429, "queue-full"),
        (503, 503, "no-replica"),
        (500, 503, "no-replica"),
        (404, 404, "not-found"),
    ],
)
def test_what_ray_serve_says_itself_becomes_a_problem(status: int, ours: int, kind: str):
    async def ask() -> httpx.Response:
        async with proxied(PlainTextResponse("Request 17 failed: a traceback", status)) as client:
            return await client.get("/v1/categories", headers={"X-Request-ID": "17"})

    answer = asyncio.run(ask())
    assert answer.status_code == ours
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:eca-inspect:problem:{kind}"
    assert ("retry-after" in answer.headers) == (ours in (429, 503))
    assert answer.headers["x-request-id"] == "17"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "traceback" not in answer.text


@pytest.mark.parametrize("error", [None, UnicodeDecodeError("utf-8", b"\xfc", 0, 1, "invalid start byte")])
def test_a_proxy_that_says_nothing_is_answered_for(error: Exception | None):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if error is not None:
            raise error

    async def ask() -> httpx.Response:
        async with proxied(app) as client:
            return await client.get("/v1/categories")

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("no-replica")


def test_what_the_application_says_passes_with_one_request_id():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"])[b"x-request-id"].decode()
        answer = JSONResponse({"headers": [name.decode() for name, _ in scope["headers"]]}, 503)
        for _ in range(2):
            answer.headers.append("x-request-id", given)
        await answer(scope, receive, send)

    async def ask() -> httpx.Response:
        given = {
            "X-Request-Timeout-Seconds": "0",
            "serve-multiplexed-model-id": "a",
            "X-Request-ID": "17",
            "Accept": "image/png",
        }
        async with proxied(SecurityHeaders(app)) as client:
            return await client.get("/v1/categories", headers=given)

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    assert answer.headers.get_list("x-request-id") == ["17"]
    assert "accept" in answer.json()["headers"]
    assert not {"x-request-timeout-seconds", "serve-multiplexed-model-id"} & set(answer.json()["headers"])


def test_ray_serves_own_endpoints_are_left_alone():
    async def ask() -> httpx.Response:
        async with proxied(PlainTextResponse("draining", 503)) as client:
            return await client.get("/-/healthz")

    assert asyncio.run(ask()).text == "draining"


def test_expositions_are_merged_with_their_labels(ray_app: ModuleType):
    telemetry = [Telemetry(), Telemetry()]
    telemetry[0].images.labels("a", "normal").inc(3)
    telemetry[1].images.labels("a", "normal").inc(4)
    telemetry[1].batch_size.observe(2)
    merged = ray_app.merge(
        [({"node": "n", "replica": str(index)}, one.exposition()) for index, one in enumerate(telemetry)]
    ).decode()
    assert merged.count("# TYPE inspect_images_total counter") == 1
    families = {family.name: family for family in text_string_to_metric_families(merged)}
    images = {one.labels["replica"]: one.value for one in families["inspect_images"].samples if one.name.endswith("l")}
    assert images == {"0": 3, "1": 4}
    assert families["inspect_batch_size_images"].type == "histogram"


def test_one_whom_the_proxy_has_forgotten_has_gone(ray_app: ModuleType):
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["type"])

    async def forgotten() -> Message:
        raise KeyError("Request ID 17 not found.")

    async def send(message: Message) -> None:
        seen.append(message["type"])

    asyncio.run(ray_app.DisconnectOnCancel(app)({"type": "http"}, forgotten, send))
    assert seen == ["http.disconnect"]


def test_who_is_cancelled_is_told_as_one_whose_client_has_gone(ray_app: ModuleType):
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 400, "headers": []})

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        seen.append(message["type"])

    async def ask() -> None:
        task = asyncio.create_task(ray_app.DisconnectOnCancel(app)({"type": "http"}, never, send))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert seen == ["http.disconnect"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"allow_anonymous": True, "wheights": "a"}, "wheights"),
        ({"allow_anonymous": True, "port": "x"}, "INSPECT_PORT is 'x'"),
        ({"allow_anonymous": True, "metrics_port": 9000}, "INSPECT_METRICS_PORT"),
        ({}, "INSPECT_KEYS_FILE"),
    ],
)
def test_settings_that_will_not_do_are_refused_before_anything_starts(ray_app: ModuleType, args: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ray_app.build(args)


def test_the_deployment_lets_the_engine_say_when_it_is_full(ray_app: ModuleType):
    application = ray_app.build(
        {"allow_anonymous": True, "queue_size": 40, "ray_max_replicas": 4, "weights": "w", "parts": "p"}
    )
    deployment = application._bound_deployment
    assert deployment.max_ongoing_requests > 40
    assert deployment._deployment_config.autoscaling_config.max_replicas == 4
    assert deployment.init_args[0]["weights"] == Path("w").absolute()
    assert deployment.init_args[0]["parts"] == Path("p").absolute()


class Peers:
    """Stands for all replicas: what they answer is given."""

    def __init__(self, answers: list[object]) -> None:
        self.answers = answers
        self.asked: list[tuple[object, ...]] = []

    def broadcast(self, *asked: object) -> "Peers":
        self.asked.append(asked)
        return self

    async def results_async(self, **options: object) -> list[object]:
        return self.answers


def answering(response: Response) -> Starlette:
    """An application with the routes of ours, which all give this answer."""

    async def endpoint(_: Request) -> Response:
        return response

    routes = [route for route in router.routes if isinstance(route, Route)]
    return Starlette(routes=[Route(route.path, endpoint, methods=route.methods, name=route.name) for route in routes])


@pytest.mark.parametrize(
    ("change", "answer", "told"),
    [
        ("reload", {"model_version": "second"}, "reload"),
        ("rollback", {"model_version": "second", "persistent": True}, "reload"),
        ("rollback", {"model_version": "second", "persistent": False}, "rollback"),
    ],
)
def test_what_one_replica_has_done_the_others_do(ray_app: ModuleType, change: str, answer: dict, told: str):
    peers = Peers([None, None])

    async def ask(answers: list[object]) -> httpx.Response:
        peers.answers = answers
        app = ray_app.OnAllReplicas(answering(JSONResponse(answer, headers={"x-request-id": "17"})), peers, "first")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.post(f"/v1/categories/tile/{change}")

    answered = asyncio.run(ask([None, None]))
    assert answered.json() == answer
    assert peers.asked == [("follow", "first", told, "tile", "second")]
    refused = asyncio.run(ask([None, "the disk is another"]))
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:eca-inspect:problem:reload-refused"
    assert "1 of 2 replicas" in refused.json()["detail"]
    assert "the disk is another" in refused.json()["detail"]
    assert refused.headers["x-request-id"] == "17"
    assert asyncio.run(ask([None, RuntimeError("it has ended")])).status_code == 200


def test_a_refused_change_goes_no_further(ray_app: ModuleType):
    peers = Peers([None])

    async def ask() -> httpx.Response:
        app = ray_app.OnAllReplicas(answering(JSONResponse({"status": 403}, 403)), peers, "first")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.post("/v1/categories/tile/reload")

    assert asyncio.run(ask()).status_code == 403
    assert peers.asked == []
