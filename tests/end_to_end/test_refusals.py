"""Every way a request can be wrong gets its status, a problem document and a sentence a person can act on."""

import base64
import io
import json
import shutil
import signal
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.conftest import Factory
from tests.end_to_end.conftest import GatedServer, Server, running_server, wait_for_metric

URL = "/v1/categories/striped/inspect"
BATCH = "/v1/categories/striped/inspect-batch"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


@pytest.fixture(scope="module")
def small(factory: Factory) -> Iterator[Server]:
    """A server with small limits."""
    with running_server(
        factory.weights, max_image_bytes="40000", max_image_pixels="10000", max_batch_images="3"
    ) as started:
        yield started


def raw_request(url: str, body: bytes, declared: int) -> socket.socket:
    """Sends a request by hand, perhaps not all of its body, and leaves the connection open."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {declared}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def problem(response: httpx.Response, status: int, kind: str) -> str:
    """Checks the whole form of a problem and returns its sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == f"urn:eca-inspect:problem:{kind}"
    assert body["status"] == status
    assert body["title"]
    assert "Traceback" not in response.text
    assert ("retry-after" in response.headers) == (status in (429, 503))
    return str(body["detail"])


@pytest.mark.parametrize(
    "sent",
    [{"content": b"", "headers": PNG}, {"files": {"image": ("empty.png", b"")}}],
    ids=["body", "form"],
)
def test_400_nothing_sent(client: httpx.Client, sent: dict):
    assert "empty" in problem(client.post(URL, **sent), 400, "empty-body")


def test_400_form_without_the_field(client: httpx.Client, png: bytes):
    for url in (URL, BATCH):
        assert "no field 'image'" in problem(client.post(url, files={"photo": ("a.png", png)}), 400, "no-image")
        assert "must be a file" in problem(client.post(url, files={"image": (None, "text")}), 400, "no-image")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_400_malformed_form(client: httpx.Client, content_type: str):
    for url in (URL, BATCH):
        response = client.post(url, content=b"--y\r\nnot a form", headers={"Content-Type": content_type})
        assert "form" in problem(response, 400, "malformed-form")


def test_404_unknown_category_lists_the_known(client: httpx.Client, png: bytes):
    for response in (
        client.post("/v1/categories/bottle/inspect", content=png, headers=PNG),
        client.post("/v1/categories/bottle/inspect-batch", files={"image": ("a.png", png)}),
        client.get("/v1/categories/bottle"),
    ):
        assert "known: brushed, fresh, striped" in problem(response, 404, "unknown-category")
        assert response.json()["categories"] == ["brushed", "fresh", "striped"]


def test_404_and_405_elsewhere_are_problems_too(client: httpx.Client):
    problem(client.get("/v2/nothing"), 404, "not-found")
    problem(client.get(URL), 405, "method-not-allowed")
    several = client.put("/v1/categories/striped/candidate")
    assert several.headers["Allow"] == "DELETE, GET"
    assert problem(several, 405, "method-not-allowed").endswith("it takes DELETE, GET")
    problem(client.post("/v1/categories/..%2F..%2Fetc/inspect", content=b"x", headers=PNG), 404, "not-found")


def test_413_too_many_bytes_declared(small: Server):
    response = httpx.post(small.url + URL, content=bytes(40_001), headers=PNG)
    assert "40000" in problem(response, 413, "too-many-bytes")


def test_413_is_answered_before_the_body_is_sent(small: Server):
    host, port = small.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n\r\n".encode()
        )
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_413_too_many_bytes_undeclared(small: Server):
    chunks = (bytes(10_000) for _ in range(5))
    assert "40000" in problem(httpx.post(small.url + URL, content=chunks, headers=PNG), 413, "too-many-bytes")


def test_413_too_many_bytes_in_a_form(small: Server, png: bytes):
    problem(httpx.post(small.url + URL, files={"image": ("a.png", bytes(50_000))}), 413, "too-many-bytes")
    problem(httpx.post(small.url + URL, files={"image": ("a.png", bytes(500_000))}), 413, "too-many-bytes")
    results = httpx.post(
        small.url + BATCH, files=[("image", ("a.png", bytes(50_000))), ("image", ("b.png", png))]
    ).json()["results"]
    assert [result.get("status", 200) for result in results] == [413, 200]


def test_413_too_many_pixels(small: Server):
    buffer = io.BytesIO()
    Image.new("L", (101, 100)).save(buffer, "PNG")
    assert "101x100" in problem(
        httpx.post(small.url + URL, content=buffer.getvalue(), headers=PNG), 413, "too-many-pixels"
    )


def test_413_a_bomb_is_not_decoded(client: httpx.Client):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert "64000000" in problem(client.post(URL, content=bomb, headers=PNG), 413, "too-many-pixels")


def test_413_too_many_images(small: Server, png: bytes):
    parts = [("image", ("a.png", png))] * 4
    assert "at most 3" in problem(httpx.post(small.url + BATCH, files=parts), 413, "too-many-images")
    assert "at most 3" in problem(httpx.post(small.url + BATCH, files=parts * 3), 413, "too-many-images")
    assert "exactly one" in problem(httpx.post(small.url + URL, files=parts[:2]), 413, "too-many-images")


@pytest.mark.parametrize("media_type", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_415_other_media_types(client: httpx.Client, png: bytes, media_type: str):
    sentence = problem(
        client.post(URL, content=png, headers={"Content-Type": media_type}), 415, "unsupported-media-type"
    )
    assert media_type in sentence
    assert "image/jpeg" in sentence


@pytest.mark.parametrize("url", [URL, BATCH])
@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity"])
def test_415_a_compressed_body_names_its_encoding(client: httpx.Client, png: bytes, url: str, coding: str):
    headers = PNG | {"Content-Encoding": coding}
    sentence = problem(client.post(url, content=png, headers=headers), 415, "unsupported-media-type")
    assert repr(coding) in sentence


def test_415_a_batch_is_a_form(client: httpx.Client, png: bytes):
    problem(client.post(BATCH, content=png, headers=PNG), 415, "unsupported-media-type")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_422_an_image_as_text_is_told_so(client: httpx.Client, png: bytes, file_format: str):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, file_format)
    text = base64.b64encode(buffer.getvalue())
    for body, word in ((text, "base64"), (b'"' + text + b'"', "base64"), (b"data:image/x;base64," + text, "data URL")):
        assert word in problem(client.post(URL, content=body, headers=PNG), 422, "not-decodable")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("localise=always", "did you mean 'localize'?"),
        ("Map=distance", "did you mean 'map'?"),
        ("localize=always&zzz=1", "there is 'localize', 'lot', 'map', 'metadata', 'part_id', 'station'"),
        ("localize=always&localize=never", "'localize' is given more than once"),
    ],
)
def test_422_a_query_parameter_that_is_not_known(client: httpx.Client, png: bytes, query: str, sentence: str):
    for url in (URL, BATCH):
        assert sentence in problem(client.post(f"{url}?{query}", content=png, headers=PNG), 422, "invalid-request")


@pytest.mark.parametrize("path", ["/v1/categories", "/v1/categories/striped", "/livez", "/readyz", "/metrics"])
def test_422_a_query_parameter_where_there_is_none(client: httpx.Client, path: str):
    assert "there is none here" in problem(client.get(path, params={"pretty": "1"}), 422, "invalid-request")


def test_422_not_decodable(client: httpx.Client, png: bytes):
    for data in (b"nonsense", png[: len(png) // 2], b"GIF89a" + bytes(100)):
        problem(client.post(URL, content=data, headers=PNG), 422, "not-decodable")


def test_422_wrong_parameter(client: httpx.Client, png: bytes):
    sentence = problem(client.post(URL + "?localize=maybe", content=png, headers=PNG), 422, "invalid-request")
    assert "localize" in sentence
    assert "auto" in sentence
    assert "gradient-distance" in problem(client.post(URL + "?map=x", content=png, headers=PNG), 422, "invalid-request")


def test_422_a_map_that_an_old_card_knows_nothing_of(factory: Factory, png: bytes, tmp_path: Path):
    weights = tmp_path / "weights"
    shutil.copytree(factory.weights, weights)
    card = json.loads((weights / "striped" / "card.json").read_text())
    del card["score"], card["other_map_scales"], card["picture_check"]
    for field in ("auroc_interval", "false_alarms", "misses"):
        del card["calibration"][field]
    (weights / "striped" / "card.json").write_text(json.dumps(card | {"schema_version": 1}))
    with TestClient(create_app(Settings(weights=weights, database="none", device="cpu"))) as old:
        sentence = problem(old.post(URL + "?map=distance", content=png, headers=PNG), 422, "unknown-map")
        assert "calibrate the category with --score" in sentence
        problem(old.post(BATCH + "?map=distance", files=[("image", png)]), 422, "unknown-map")
        answer = old.post(URL + "?localize=always&map=gradient", content=png, headers=PNG).json()
        assert answer["localization"]["map"] == "gradient"
        assert (
            old.post(URL + "?localize=always", content=png, headers=PNG).json()["localization"]
            == answer["localization"]
        )


@pytest.mark.parametrize("gated", [{"queue_size": 4, "max_batch_images": 4, "device_batch": 1}], indirect=True)
def test_429_queue_full_and_the_accepted_are_answered(gated: GatedServer, png: bytes):
    with ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(httpx.post, gated.url + URL, content=png, headers=PNG, timeout=60) for _ in range(4)]
        assert gated.gate.reached.acquire(timeout=30)
        wait_for_metric(gated.url, "inspect_in_flight_images 4.0")
        problem(httpx.post(gated.url + URL, content=png, headers=PNG), 429, "queue-full")
        problem(httpx.post(gated.url + BATCH, files={"image": ("a.png", png)}), 429, "queue-full")
        gated.gate.open.set()
        assert [future.result().status_code for future in accepted] == [200] * 4
    metrics = httpx.get(gated.url + "/metrics").text
    assert "inspect_in_flight_images 0.0" in metrics
    assert 'inspect_images_total{category="striped",outcome="queue-full"} 2.0' in metrics


@pytest.mark.parametrize("gated", [{"device_batch": 1}], indirect=True)
def test_a_client_that_goes_frees_its_place_and_the_device_never_sees_its_image(gated: GatedServer, png: bytes):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, gated.url + URL, content=png, headers=PNG, timeout=60)
        assert gated.gate.reached.acquire(timeout=30)
        second = raw_request(gated.url, png, len(png))
        wait_for_metric(gated.url, "inspect_queue_depth_images 1.0")
        second.close()
        wait_for_metric(gated.url, "inspect_in_flight_images 1.0")
        gated.gate.open.set()
        assert first.result().status_code == 200
    metrics = httpx.get(gated.url + "/metrics").text
    assert "inspect_batch_size_images_sum 1.0" in metrics
    assert 'inspect_images_total{category="striped",outcome="client-gone"} 1.0' in metrics
    assert "inspect_in_flight_images 0.0" in metrics
    assert "inspect_queue_depth_images 0.0" in metrics


def test_an_upload_that_breaks_off_is_not_an_internal_error(gated: GatedServer, png: bytes):
    raw_request(gated.url, png[:100], len(png)).close()
    wait_for_metric(gated.url, 'inspect_images_total{category="striped",outcome="client-gone"} 1.0')
    metrics = httpx.get(gated.url + "/metrics").text
    assert 'inspect_images_total{category="striped",outcome="internal-error"} 0.0' in metrics


def test_a_stalled_upload_does_not_keep_the_server_from_ending(factory: Factory, png: bytes):
    with (
        running_server(factory.weights, deadline_seconds="0.5") as server,
        raw_request(server.url, png[:100], len(png)),
    ):
        httpx.get(server.url + "/readyz")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0


@pytest.mark.parametrize("gated", [{"deadline_seconds": 0.3}], indirect=True)
def test_504_deadline_passed(gated: GatedServer, png: bytes):
    problem(httpx.post(gated.url + URL, content=png, headers=PNG, timeout=30), 504, "deadline-passed")
    results = httpx.post(gated.url + BATCH, files={"image": ("a.png", png)}, timeout=30).json()["results"]
    assert results[0]["status"] == 504
    gated.gate.open.set()
    assert httpx.post(gated.url + URL, content=png, headers=PNG, timeout=30).status_code in (200, 504)


def test_500_an_internal_error_tells_nothing_of_the_inside(gated: GatedServer, png: bytes):
    gated.gate.failure = RuntimeError("secret path /etc/keys")
    gated.gate.open.set()
    response = httpx.post(gated.url + URL, content=png, headers=PNG, timeout=30)
    assert "log" in problem(response, 500, "internal-error")
    assert "secret" not in response.text
    assert httpx.get(gated.url + "/readyz").status_code == 200


def test_503_a_refused_category_and_the_others_serve(factory: Factory, png: bytes, tmp_path: Path):
    weights = Path(shutil.copytree(factory.weights, tmp_path / "weights"))
    card = json.loads((weights / "striped" / "card.json").read_text())
    (weights / "striped" / "card.json").write_text(json.dumps(card | {"schema_version": 99}))
    with running_server(weights) as server:
        response = httpx.post(server.url + URL, content=png, headers=PNG)
        assert "schema version 99" in problem(response, 503, "category-refused")
        listed = {one["category"]: one for one in httpx.get(server.url + "/v1/categories").json()["categories"]}
        assert listed["striped"]["status"] == "refused"
        assert "schema version 99" in listed["striped"]["reason"]
        assert listed["fresh"]["status"] == "ready"
        assert httpx.get(server.url + "/readyz").status_code == 200
        other = httpx.post(server.url + "/v1/categories/fresh/inspect", content=png, headers=PNG)
        assert other.status_code == 200
        server.wait_for_log("schema version 99")


def test_503_not_ready_without_a_category(tmp_path: Path):
    with running_server(tmp_path) as server:
        problem(httpx.get(server.url + "/readyz"), 503, "no-category")
        assert httpx.get(server.url + "/livez").status_code == 200
        assert httpx.get(server.url + "/v1/categories").json() == {"categories": []}


def test_503_shutting_down(gated: GatedServer, png: bytes):
    """The engine closes first; a connection that is still open is told so."""
    with httpx.Client(base_url=gated.url, timeout=30) as client:
        assert client.get("/readyz").status_code == 200
        gated.gate.open.set()
        gated.app.state.parts.engine.close()
        problem(client.post(URL, content=png, headers=PNG), 503, "shutting-down")
        problem(client.get("/readyz"), 503, "shutting-down")
        assert client.get("/livez").status_code == 200  # it ends by itself
