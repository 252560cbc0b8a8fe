"""With a file of keys nobody gets in who should not, and keys change while the server runs."""

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.choices import Role
from service.http.keys import create_key, revoke_key
from tests.conftest import Factory
from tests.end_to_end.conftest import COMMAND, Server, running_server
from tests.end_to_end.test_refusals import BATCH, PNG, URL, problem

RELOAD = "/v1/categories/striped/reload"


@dataclass
class Guarded:
    server: Server
    file: Path
    inspect: str
    admin: str


@pytest.fixture(scope="module")
def guarded(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    file, weights = folder / "keys", folder / "weights"
    shutil.copytree(factory.weights, weights)  # for an admin may roll categories back
    inspect, admin = create_key(file, "line", Role.INSPECT), create_key(file, "ops", Role.ADMIN)
    with running_server(weights, keys_file=str(file)) as server:
        yield Guarded(server, file, inspect, admin)


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


def test_401_without_a_key_and_with_a_wrong_one(guarded: Guarded, png: bytes):
    url = guarded.server.url
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"Authorization": f"Basic {guarded.inspect}"},
        {"X-API-Key": guarded.inspect[:-1]},
    ):
        for response in (
            httpx.get(url + "/v1/categories", headers=headers),
            httpx.post(url + URL, content=png, headers=PNG | headers),
            httpx.post(url + BATCH, files={"image": ("a.png", png)}, headers=headers),
            httpx.post(url + RELOAD, headers=headers),
            httpx.get(url + "/metrics", headers=headers),
            httpx.get(url + "/nothing", headers=headers),
        ):
            problem(response, 401, "unauthenticated")
            assert response.headers["www-authenticate"] == "Bearer"


def test_a_key_opens_by_either_header(guarded: Guarded, png: bytes):
    url = guarded.server.url
    for key in (guarded.inspect, guarded.admin):
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            assert httpx.post(url + URL, content=png, headers=PNG | headers).status_code == 200
            assert httpx.get(url + "/metrics", headers=headers).status_code == 200


def test_403_a_role_that_is_too_low(guarded: Guarded):
    for call in ("reload", "rollback", "candidate/promote"):
        url = f"{guarded.server.url}/v1/categories/striped/{call}"
        refused = httpx.post(url, headers={"X-API-Key": guarded.inspect})
        assert "'line' has the role inspect" in problem(refused, 403, "forbidden")
        assert httpx.post(url, headers={"X-API-Key": guarded.admin}).status_code not in (401, 403)
        problem(httpx.post(url.replace("/v1", "//v1"), headers={}), 401, "unauthenticated")


def test_403_however_the_path_of_an_administrator_is_written(guarded: Guarded):
    """The router takes a path that ends with a newline for the path without it."""
    for end in ("reload%0a", "rollback%0a", "reload%0d%0a", "%72eload", "reload/", "reload%2f", "reload%00", "RELOAD"):
        url = f"{guarded.server.url}/v1/categories/striped/{end}"
        problem(httpx.post(url, headers={"X-API-Key": guarded.inspect}), 403, "forbidden")
    for method in ("PUT", "DELETE", "PATCH"):
        response = httpx.request(method, guarded.server.url + RELOAD, headers={"X-API-Key": guarded.inspect})
        problem(response, 403, "forbidden")


def test_probes_and_documentation_are_open(guarded: Guarded):
    for path in ("/", "/livez", "/readyz", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
        assert httpx.get(guarded.server.url + path).status_code == 200, path


def test_keys_change_without_a_restart(guarded: Guarded):
    def status(key: str) -> int:
        return httpx.get(guarded.server.url + "/v1/categories", headers={"X-API-Key": key}).status_code

    new = create_key(guarded.file, "new", Role.INSPECT)
    assert status(new) == 200
    revoke_key(guarded.file, "new")
    assert status(new) == 401
    good = guarded.file.read_text()
    guarded.file.write_text("damaged\n")
    assert status(guarded.inspect) == 200
    assert status(new) == 401
    guarded.file.write_text(good)
    assert status(guarded.inspect) == 200
    guarded.server.wait_for_log("the last good keys stay valid")
    assert not any(key in line for line in guarded.server.log for key in (new, guarded.inspect, guarded.admin))


def test_a_file_of_keys_that_cannot_be_read_for_a_moment_is_read_again(factory: Factory, tmp_path: Path):
    file = tmp_path / "keys"
    key = create_key(file, "line", Role.INSPECT)
    with (
        running_server(factory.weights, keys_file=str(file)) as server,
        httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client,
    ):
        assert client.get("/v1/categories").status_code == 200
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        revoke_key(file, "line")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))  # as when a flood has taken all descriptors
        assert client.get("/v1/categories").status_code == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        problem(client.get("/v1/categories"), 401, "unauthenticated")
        server.wait_for_log("Too many open files")


def test_the_contract_tells_of_keys_only_where_there_are_some(guarded: Guarded, client: httpx.Client):
    document = httpx.get(guarded.server.url + "/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            open_to_all = path in ("/livez", "/readyz")
            assert ("security" in operation) is ("401" in operation["responses"]) is not open_to_all
    for answer in document["paths"]["/v1/categories"]["get"]["responses"].values():
        assert "example" in next(iter(answer["content"].values()))
    plain = client.get("/openapi.json").json()
    assert "securitySchemes" not in plain["components"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_metrics_on_a_port_of_their_own(factory: Factory, guarded: Guarded):
    port = free_port()
    with running_server(factory.weights, keys_file=str(guarded.file), metrics_port=str(port)) as server:
        assert "inspect_images_total" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        problem(httpx.get(server.url + "/metrics"), 404, "not-found")
        assert "/metrics" not in httpx.get(server.url + "/openapi.json").json()["paths"]
    assert server.process.returncode == 0


def test_slow_clients_of_the_port_for_metrics_are_not_waited_for(factory: Factory):
    port = free_port()
    with running_server(factory.weights, metrics_port=str(port), header_seconds="0.3") as server:
        slow = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(20)]
        for connection in slow:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert metrics.headers["x-content-type-options"] == "nosniff"
        assert [connection.recv(1) for connection in slow] == [b""] * 20
        for connection in slow:
            connection.close()
        problem(httpx.get(server.url + "/metrics"), 404, "not-found")
        assert httpx.get(f"http://127.0.0.1:{port}/v1/categories").status_code == 404


def test_a_port_for_metrics_that_is_taken_is_said_and_ends_the_start(factory: Factory):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = os.environ | {"INSPECT_METRICS_PORT": str(port), "INSPECT_PORT": "0", "INSPECT_DATABASE": "none"}
        found = subprocess.run(
            [str(COMMAND), "serve", "--weights", str(factory.weights)],
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert found.returncode == 3
    assert "the metrics cannot be served" in found.stderr
    assert "Traceback" not in found.stderr


def test_an_open_address_without_keys_is_said_loudly(factory: Factory):
    with running_server(factory.weights, host="0.0.0.0", allow_anonymous="true") as server:
        assert httpx.get(server.url.replace("0.0.0.0", "127.0.0.1") + "/v1/categories").status_code == 200
        assert any("warning" in line.lower() and "does not ask who is calling" in line for line in server.log)
