"""Below a path of a reverse proxy everything works as at the root: through a real nginx, in both of its usual ways."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import expect

from service.choices import Role
from service.http.keys import create_key
from tests import needs
from tests.conftest import Factory
from tests.end_to_end.browsing import Visits
from tests.end_to_end.conftest import Server, free_port, running_server
from tests.end_to_end.test_refusals import PNG, problem

INSPECT = "v1/categories/striped/inspect"
KEPT, TAKEN = "/plant/kept", "/taken"

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /plant/kept {{
            proxy_pass {kept};
            proxy_set_header Host $http_host;
        }}
        location /taken/ {{
            proxy_pass {taken}/;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Prefix /taken;
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def root_path_server(factory: Factory) -> Iterator[Server]:
    with running_server(factory.weights, root_path=KEPT + "/") as server:
        yield server


@pytest.fixture(scope="module")
def nginx(server: Server, root_path_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an nginx in front of a server that knows its path, and of one that is told it."""
    path, folder, port = needs.NGINX.program("nginx"), tmp_path_factory.mktemp("nginx"), free_port()
    text = CONFIGURATION.format(folder=folder, port=port, kept=root_path_server.url, taken=server.url)
    (folder / "nginx.conf").write_text(text)
    command = [path, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                httpx.get(url)
            except httpx.ConnectError:
                time.sleep(0.05)
            else:
                break
        yield url
    finally:
        process.terminate()
        process.wait(30)
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("prefix", [KEPT, TAKEN])
def test_the_api_works_below_the_path(nginx: str, prefix: str, factory: Factory):
    base = f"{nginx}{prefix}/"
    image = (factory.data / "good" / "000.png").read_bytes()
    assert httpx.post(base + INSPECT, content=image, headers=PNG).status_code == 200
    for path in ("livez", "readyz", "metrics", "v1/categories"):
        assert httpx.get(base + path).status_code == 200, path
    problem(httpx.get(base + "nothing"), 404, "not-found")


@pytest.mark.parametrize("prefix", [KEPT, TAKEN])
@pytest.mark.parametrize("page", ["", "docs"])
def test_pages_and_all_that_they_load_are_found_below_the_path(nginx: str, prefix: str, page: str):
    address = f"{nginx}{prefix}/{page}"
    found = httpx.get(address)
    assert found.status_code == 200
    loaded = re.findall(r"(?:src|href)=\"([^\"#]+)\"|url: '([^']+)'", found.text)
    assert len(loaded) >= 3
    for one in loaded:
        target = urljoin(address, one[0] or one[1])
        assert target.startswith(f"{nginx}{prefix}/"), target
        assert httpx.get(target).status_code == 200, target
    if page == "docs":
        assert "'sha256-" in found.headers["content-security-policy"]


@pytest.mark.parametrize("prefix", [KEPT, TAKEN])
def test_the_contract_names_the_path(nginx: str, prefix: str):
    document = httpx.get(f"{nginx}{prefix}/openapi.json").json()
    assert document["servers"] == [{"url": prefix}]


def test_the_path_of_one_request_does_not_stay_for_the_next(nginx: str, server: Server):
    httpx.get(f"{nginx}{TAKEN}/openapi.json")
    assert "servers" not in httpx.get(server.url + "/openapi.json").json()
    assert f'"{TAKEN}' not in httpx.get(server.url + "/docs").text


@pytest.mark.parametrize("prefix", [KEPT, TAKEN])
def test_without_the_last_slash_the_console_is_found_too(nginx: str, prefix: str):
    found = httpx.get(nginx + prefix, follow_redirects=True)
    assert (found.status_code, str(found.url)) == (200, f"{nginx}{prefix}/")


def test_a_server_that_knows_its_path_answers_without_it_too(root_path_server: Server):
    """Health checks ask the server itself, not the proxy."""
    for path in ("/readyz", "/docs", "/static-offline-docs/swagger-ui.css", "/console/main.js", "/"):
        assert httpx.get(root_path_server.url + path).status_code == 200, path
        assert httpx.get(root_path_server.url + KEPT + path).status_code == 200, path


@pytest.mark.parametrize(
    "named", ["//evil.example", "/a//b", "/../x", "https://evil.example", '/a"b', "/a b", "x", "/"]
)
def test_what_is_no_path_is_not_taken_for_one(client: httpx.Client, named: str):
    page = client.get("/docs", headers={"X-Forwarded-Prefix": named})
    assert page.text == client.get("/docs").text


def test_roles_hold_below_the_path(factory: Factory, tmp_path: Path):
    key = create_key(tmp_path / "keys", "line", Role.INSPECT)
    with running_server(factory.weights, keys_file=str(tmp_path / "keys"), root_path="/inspect") as server:
        for base in (server.url, server.url + "/inspect"):
            for headers in ({}, {"X-Forwarded-Prefix": "/livez"}, {"X-Forwarded-Prefix": "/docs"}):
                problem(httpx.get(base + "/v1/categories", headers=headers), 401, "unauthenticated")
                reload = httpx.post(base + "/v1/categories/striped/reload", headers=headers | {"X-API-Key": key})
                problem(reload, 403, "forbidden")
            assert httpx.get(base + "/livez").status_code == 200


def test_a_prefix_that_a_client_names_opens_nothing(factory: Factory, tmp_path: Path):
    create_key(tmp_path / "keys", "line", Role.INSPECT)
    with running_server(factory.weights, keys_file=str(tmp_path / "keys")) as server:
        for named in ("/v1", "/console", "/docs", "/livez", "/v1/categories"):
            for path in ("/v1/categories", "/metrics", "/v1/categories/striped/reload"):
                response = httpx.get(server.url + path, headers={"X-Forwarded-Prefix": named})
                assert response.status_code in (401, 308), (named, path)
                if response.status_code == 308:
                    assert response.headers["location"] == "categories/"


@pytest.mark.parametrize("prefix", [KEPT, TAKEN])
def test_the_console_and_the_documentation_work_in_a_browser(browse: Visits, nginx: str, prefix: str):
    console = browse(f"{nginx}{prefix}/")
    expect(console.page.get_by_text("Ready", exact=True)).to_be_visible()
    docs = browse(f"{nginx}{prefix}/docs")
    expect(docs.page.get_by_text("Inspect one image")).to_be_visible()
