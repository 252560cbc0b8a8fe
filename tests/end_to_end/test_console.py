"""The console: small, complete in itself, open to all, and asking only what the API answers."""

import re
from collections.abc import Iterator
from itertools import pairwise

import cv2
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model.lab.synthetic import DEFECTS, sample_image
from model.store.version import read_card
from service.choices import Role
from service.console import FOLDER
from service.http.keys import create_key
from service.problems import KINDS
from tests.conftest import ROOT, Factory
from tests.end_to_end.conftest import Server, running_server, wait_for_metric

FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".png"))
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
NAMES = {"http://www.w3.org/2000/svg"}
"""What stands in the files like an address, and nothing fetches."""


@pytest.fixture(scope="module")
def guarded(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("console") / "keys"
    create_key(file, "line", Role.INSPECT)
    with running_server(factory.weights, keys_file=str(file)) as server:
        yield server


def test_the_page_and_everything_it_loads_is_there(client: httpx.Client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = re.findall(r"(?:src|href)=\"(console/[^\"]+)\"", page.text)
    assert "console/main.js" in loaded
    for path in loaded:
        assert client.get("/" + path).status_code == 200, path
    for path in FILES:
        if path.name != "index.html":
            response = client.get("/console/" + path.relative_to(FOLDER / "files").as_posix())
            assert response.content == path.read_bytes()
            if path.suffix in TYPES:
                assert response.headers["content-type"].startswith(TYPES[path.suffix])


def test_scripts_import_what_is_there():
    for path in FILES:
        for name in re.findall(r"from \"(.+?)\"", path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


def test_it_is_under_300_kilobytes():
    assert sum(path.stat().st_size for path in FILES) < 300_000


def test_nothing_comes_from_another_host_and_nothing_needs_a_weaker_policy(client: httpx.Client):
    for path in FILES:
        addresses = set(re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z0-9.-]+[^\s\"')]*", path.read_text()))
        assert addresses <= NAMES, path
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", page)
    for path in FILES:
        assert not re.search(
            r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage|cookie\b", path.read_text()
        )
    policy = client.get("/").headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "connect-src 'self';" in policy


def test_browsers_keep_the_files_and_ask_whether_they_have_changed(client: httpx.Client):
    for path in ("/", "/console/main.js"):
        first = client.get(path)
        assert first.headers["cache-control"] == "no-cache"
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert "script-src 'self';" in again.headers["content-security-policy"]
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert client.post(path).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["", "nothing.js", "samples/", "../index.html", "..%2f__init__.py", "..%2f..%2fapp.py", "%2fetc%2fpasswd",
     "samples/nothing.png", "x" * 5000, "%00"],
)  # fmt: skip
def test_only_the_files_are_served(server: Server, path: str):
    url = httpx.URL(server.url, raw_path=f"/console/{path}".encode())
    response = httpx.get(url)
    assert response.status_code == 404
    assert response.json()["type"] == "urn:eca-inspect:problem:not-found"


def test_the_samples_are_those_of_the_repository(client: httpx.Client):
    script = (FOLDER / "files" / "inspect.js").read_text()
    (names,) = re.findall(r"SAMPLES = \{ category: \"machined-plate\", names: \[(.+?)\]", script)
    samples = ("good", *DEFECTS)
    assert set(re.findall(r"\"(\w+)\"", names)) == set(samples) == {path.stem for path in (ROOT / "samples").iterdir()}
    for name in samples:
        response = client.get(f"/console/samples/{name}.png")
        assert response.headers["content-type"] == "image/png"
        assert response.content == (ROOT / "samples" / f"{name}.png").read_bytes()
        served = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(cv2.cvtColor(served, cv2.COLOR_BGR2RGB), sample_image(name))


def test_with_keys_the_console_is_open_and_the_api_is_not(guarded: Server):
    for path in ("/", "/console/main.js", "/console/charts.js", "/console/samples/good.png"):
        assert httpx.get(guarded.url + path).status_code == 200, path
    for path in ("/v1/categories", "/metrics", "/consoles", "/console"):
        assert httpx.get(guarded.url + path).status_code == 401, path


def test_it_is_counted_as_one_endpoint_and_is_no_part_of_the_contract(client: httpx.Client):
    def counted() -> float:
        families = text_string_to_metric_families(client.get("/metrics").text)
        return sum(
            one.value
            for family in families
            for one in family.samples
            if one.name == "inspect_requests_total" and one.labels == {"endpoint": "console", "status": "200"}
        )

    paths = ("/", "/console/main.js", "/console/samples/good.png")
    before = counted()
    for path in paths:
        assert client.get(path).status_code == 200
    wait_for_metric(  # a file is counted when all of it has been sent
        str(client.base_url).rstrip("/"),
        f'inspect_requests_total{{endpoint="console",status="200"}} {before + len(paths)}',
    )
    assert not any("console" in path or path == "/" for path in client.get("/openapi.json").json()["paths"])


def test_there_is_a_sentence_for_every_problem():
    text = (FOLDER / "files" / "errors.js").read_text()
    known = set(re.findall(r"^  \"?([a-z-]+)\"?: \[\".+?\", .+?\],$", text, re.MULTILINE))
    assert set(KINDS) <= known


def test_the_histogram_and_the_curve_of_a_card_tell_of_the_same_scores(factory: Factory):
    """The console's slider joins the two, so together they must never fall back."""
    for folder in (ROOT / "weights" / "machined-plate", factory.weights / "striped"):
        calibration = read_card(folder).calibration
        curve, bins = calibration.roc, calibration.histogram
        assert curve is not None
        points = [
            (threshold, round(alarms * calibration.normal_images), round(found * calibration.anomalous_images))
            for threshold, alarms, found in zip(
                curve.threshold, curve.false_alarm_rate, curve.detection_rate, strict=True
            )
        ]
        points += [
            (edge, sum(bins.normal[index:]), sum(bins.anomalous[index:])) for index, edge in enumerate(bins.edges[:-1])
        ]
        points.sort()
        for (_, alarms, found), (_, fewer_alarms, fewer_found) in pairwise(points):
            assert fewer_alarms <= alarms
            assert fewer_found <= found
