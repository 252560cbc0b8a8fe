"""Pages of other origins neither change the server nor read from it, whatever name they reach it by, unless named."""

import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from service.choices import Role
from service.http.keys import create_key
from tests.conftest import Factory
from tests.end_to_end.conftest import Server, free_port, running_chromium, running_server, wait_for_metric
from tests.end_to_end.test_bounds import connect, read_to_the_end
from tests.end_to_end.test_refusals import BATCH, PNG, URL, problem

RELOAD = "/v1/categories/striped/reload"
MES = "https://mes.example"
REFUSED = 'inspect_rejections_total{reason="foreign-origin"}'
STRANGER = {"Origin": "https://evil.example"}


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


@pytest.fixture(scope="module")
def allowing(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with keys that names an origin and host names, and a key."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    key = create_key(file, "mes", Role.INSPECT)
    allowed = {"allowed_origins": f"{MES}, http://127.0.0.1:1", "allowed_hosts": "Inspect.Example"}
    with running_server(factory.weights, keys_file=str(file), **allowed) as server:
        yield server, key


def metric(url: str, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (.+)$", httpx.get(url + "/metrics").text, re.MULTILINE)
    return float(found)


def loaded(url: str) -> float:
    """How many students have been read: one more after each reload."""
    return metric(url, "inspect_students_loaded_total")


# Host names.


def test_421_a_name_that_is_not_this_servers(client: httpx.Client, png: bytes):
    before = loaded(str(client.base_url))
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example"):
        wrong = {"Host": host}
        for response in (
            client.get("/v1/categories", headers=wrong),
            client.get("/metrics", headers=wrong),
            client.get("/", headers=wrong),
            client.get("/livez", headers=wrong),
            client.post(URL, content=png, headers=PNG | wrong),
            client.post(RELOAD, headers=wrong),
        ):
            assert "INSPECT_ALLOWED_HOSTS" in problem(response, 421, "unknown-host")
            assert response.headers["x-content-type-options"] == "nosniff"
    assert loaded(str(client.base_url)) == before


def test_the_name_in_a_whole_url_counts_and_not_the_header(server: Server):
    head = b"GET http://evil.example/v1/categories HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connect(server.url) as connection:
        connection.sendall(head)
        assert read_to_the_end(connection).startswith(b"HTTP/1.1 421")


def test_clients_without_a_name_and_with_names_of_the_own_network_are_answered(server: Server, client: httpx.Client):
    for host in ("localhost", "inspect:8000", "10.0.0.7", "[::1]:8000", "line3.local"):
        assert client.get("/readyz", headers={"Host": host}).status_code == 200, host
    for head in (b"GET /readyz HTTP/1.0\r\n\r\n", b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n"):
        with connect(server.url) as connection:
            connection.sendall(head)
            assert read_to_the_end(connection).startswith(b"HTTP/1.1 200")


def test_named_hosts_are_answered_and_others_are_refused_before_the_key(allowing: tuple[Server, str]):
    server, key = allowing
    shown = {"X-API-Key": key}
    listed = httpx.get(server.url + "/v1/categories", headers=shown | {"Host": "inspect.example:443"})
    assert listed.status_code == 200
    problem(httpx.get(server.url + "/v1/categories", headers={"Host": "evil.example"}), 421, "unknown-host")


def test_the_port_of_the_metrics_knows_its_names_too(factory: Factory):
    port = free_port()
    with running_server(factory.weights, metrics_port=str(port)):
        url = f"http://127.0.0.1:{port}/metrics"
        assert httpx.get(url).status_code == 200
        problem(httpx.get(url, headers={"Host": "evil.example"}), 421, "unknown-host")


# Origins.


def test_403_what_a_page_of_another_origin_sends(client: httpx.Client, png: bytes):
    before = loaded(str(client.base_url))
    for sent in (
        STRANGER,
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        STRANGER | {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        for response in (
            client.post(RELOAD, headers=sent),
            client.post("/v1/categories/striped/rollback", headers=sent),
            client.post(URL, content=png, headers=PNG | sent),
            client.post(BATCH, files={"image": ("a.png", png)}, headers=sent),
            client.request("DELETE", "/v1/categories/striped", headers=sent),
        ):
            assert "INSPECT_ALLOWED_ORIGINS" in problem(response, 403, "foreign-origin")
            assert "access-control-allow-origin" not in response.headers
    assert loaded(str(client.base_url)) == before


def test_the_servers_own_pages_may_send(client: httpx.Client, png: bytes):
    own = str(client.base_url).rstrip("/")
    for sent in ({"Origin": own}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert client.post(URL, content=png, headers=PNG | sent).status_code == 200


def preflight(url: str, origin: str, method: str = "POST", **more: str) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "x-api-key"}
    return httpx.options(url, headers=asked | more)


def test_a_named_origin_may_ask_and_read(allowing: tuple[Server, str], png: bytes):
    server, key = allowing
    private = {"Access-Control-Request-Private-Network": "true"}
    for allowed in (preflight(server.url + URL, MES), preflight(server.url + URL, MES, **private)):
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == MES
        for method in ("POST", "PUT"):
            assert method in allowed.headers["access-control-allow-methods"]
        assert "x-api-key" in allowed.headers["access-control-allow-headers"].lower()
    sent = PNG | {"Origin": MES, "Sec-Fetch-Site": "cross-site"}
    answer = httpx.post(server.url + URL, content=png, headers=sent | {"X-API-Key": key})
    assert answer.status_code == 200
    keyless = httpx.post(server.url + URL, content=png, headers=sent)
    problem(keyless, 401, "unauthenticated")  # the page may read why
    for response in (answer, keyless):
        assert response.headers["access-control-allow-origin"] == MES
        assert "X-Request-ID" in response.headers["access-control-expose-headers"]
        assert "Origin" in response.headers["vary"]


def test_an_origin_that_is_not_named_may_not(allowing: tuple[Server, str], png: bytes):
    server, key = allowing
    for origin in ("https://evil.example", "http://mes.example", "null"):
        asked = preflight(server.url + URL, origin)
        problem(asked, 403, "foreign-origin")
        sent = {"Origin": origin, "X-API-Key": key}
        problem(httpx.post(server.url + URL, content=png, headers=PNG | sent), 403, "foreign-origin")
        read = httpx.get(server.url + "/v1/categories", headers=sent)
        for response in (asked, read):
            assert "access-control-allow-origin" not in response.headers


def test_without_named_origins_nobody_is_told_that_he_may(client: httpx.Client):
    for response in (preflight(str(client.base_url) + URL, MES), client.get("/v1/categories", headers={"Origin": MES})):
        assert not any(name.startswith("access-control-") for name in response.headers)


# In a browser.


@dataclass
class Stage:
    """A browser in which two names lead to this machine, the page of a stranger, and the servers that it tries."""

    browser: Browser
    strangers: str
    closed: Server
    open: Server

    def visit(self, url: str) -> Page:
        page = self.browser.new_context().new_page()
        page.goto(url)
        return page


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a stranger</title>")

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def stage(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    origin = f"http://mes.example:{pages.server_port}"
    weights = Path(shutil.copytree(factory.weights, tmp_path_factory.mktemp("stage") / "weights"))
    with (
        running_chromium("--host-resolver-rules=MAP *.example 127.0.0.1") as browser,
        running_server(weights) as closed,
        running_server(weights, allowed_origins=origin) as opened,
    ):
        yield Stage(browser, f":{pages.server_port}", closed, opened)
    pages.shutdown()
    pages.server_close()


SEND = """async ([url, mode]) => {
  try { return (await fetch(url, { method: "POST", mode, body: "" })).type; } catch (error) { return String(error); }
}"""
SUBMIT = """(url) => {
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", action: url, target: "_blank", enctype: "text/plain" });
  document.body.append(form);
  form.submit();
}"""
READ = """async (url) => {
  try { return await (await fetch(url)).text(); } catch (error) { return String(error); }
}"""


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_a_strangers_page_changes_nothing_and_reads_nothing(stage: Stage, host: str):
    page = stage.visit(f"http://{host}{stage.strangers}/")
    for server in (stage.closed, stage.open):
        before, refusals = loaded(server.url), metric(server.url, REFUSED)
        for mode in ("no-cors", "cors"):
            assert "Failed to fetch" in page.evaluate(SEND, [server.url + RELOAD, mode])
        page.evaluate(SUBMIT, server.url + RELOAD)
        wait_for_metric(server.url, f"{REFUSED} {refusals + 3}")  # all three have been sent
        for path in ("/v1/categories", "/metrics", "/livez"):
            assert "Failed to fetch" in page.evaluate(READ, server.url + path)
        assert loaded(server.url) == before
    page.context.close()


def test_a_page_whose_name_leads_to_the_server_reads_nothing(stage: Stage):
    """DNS rebinding: the stranger's name now stands for the server's address, so that the page is of its origin."""
    before = loaded(stage.closed.url)
    page = stage.visit(stage.closed.url.replace("127.0.0.1", "evil.example"))
    for path in ("/v1/categories", "/metrics"):
        assert "unknown-host" in page.evaluate(READ, path)
    page.evaluate(SEND, [RELOAD, "same-origin"])
    assert loaded(stage.closed.url) == before
    page.context.close()


def test_a_named_page_may_use_the_api(stage: Stage):
    page = stage.visit(f"http://mes.example{stage.strangers}/")
    assert '"striped"' in page.evaluate(READ, stage.open.url + "/v1/categories")
    before = loaded(stage.open.url)
    assert page.evaluate(SEND, [stage.open.url + RELOAD, "cors"]) == "cors"
    assert loaded(stage.open.url) != before
    assert "Failed to fetch" in page.evaluate(READ, stage.closed.url + "/v1/categories")
    page.context.close()


def test_the_console_may_use_its_own_server(stage: Stage):
    page = stage.visit(stage.closed.url)
    before = loaded(stage.closed.url)
    assert page.evaluate(SEND, [RELOAD, "cors"]) == "basic"
    assert loaded(stage.closed.url) != before
    page.context.close()
