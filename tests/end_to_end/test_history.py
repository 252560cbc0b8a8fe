"""What the real server answers, it remembers: after `kill -9`, with the database away, and on a disk that is full."""

import csv
import io
import json
import shutil
import signal
import sqlite3
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from service.choices import Role
from service.history.records import first_id_at
from service.http.keys import create_key
from tests.conftest import Factory
from tests.end_to_end.conftest import GatedServer, Server, running_server, wait_for_metric
from tests.end_to_end.test_refusals import BATCH, PNG, URL, problem
from tests.postgres import Cluster

HISTORY = "/v1/inspections"


@pytest.fixture(scope="module")
def server(factory: Factory) -> Iterator[Server]:
    with running_server(factory.weights, keep_images="anomalous, fresh=all") as started:
        yield started


@pytest.fixture
def good(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


@pytest.fixture
def bad(factory: Factory) -> bytes:
    return (factory.data / "bad" / "000.png").read_bytes()


def in_history(url: str, identity: str) -> dict[str, Any]:
    """The inspection, when it is there."""
    deadline = time.monotonic() + 120
    while (response := httpx.get(f"{url}{HISTORY}/{identity}", timeout=60)).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def search(url: str, **query: object) -> list[dict[str, Any]]:
    response = httpx.get(url + HISTORY, params=query, timeout=60)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["inspections"]
    return found


def test_an_answer_is_remembered_as_it_was(server: Server, bad: bytes):
    query = {"part_id": "SN 1", "lot": "L7", "station": "s3", "metadata": '{"shift": "b"}'}
    response = httpx.post(server.url + URL, content=bad, params=query, headers=PNG | {"X-Request-ID": "mine"})
    answer = response.json()
    found = in_history(server.url, answer["id"])
    for picture in ("heatmap_png", "mask_png"):
        del answer["localization"][picture]
    assert found == answer | {
        "time": found["time"],
        "outcome": "anomalous",
        "part": None,
        "part_inspection": None,
        "request_id": "mine",
        "image": answer["image"] | {"bytes": len(bad), "kept": found["image"]["kept"], "kept_share": 1.0},
        "label": None,
        "labels": [],
        "problem": None,
        "look": found["look"],
    }
    pixels = cv2.imdecode(np.frombuffer(bad, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert found["look"]["brightness"] == pytest.approx(pixels.mean(), abs=5)
    assert found["look"]["sharpness"] > 0
    assert abs(datetime.fromisoformat(found["time"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_what_was_just_answered_is_waited_for(server: Server, good: bytes):
    for _ in range(3):
        answer = httpx.post(server.url + URL, content=good, headers=PNG).json()
        labelled = httpx.put(f"{server.url}{HISTORY}/{answer['id']}/label", json={"label": "normal"})
        assert labelled.status_code == 200, labelled.text
    answer = httpx.post(server.url + URL, content=good, headers=PNG).json()
    assert httpx.get(f"{server.url}{HISTORY}/{answer['id']}").json()["id"] == answer["id"]
    for never in (UUID(int=(1 << 128) - 1), UUID(int=0), first_id_at(datetime.now(UTC))):
        problem(httpx.get(f"{server.url}{HISTORY}/{never}"), 404, "unknown-inspection")


def test_failures_and_every_image_of_a_call_are_remembered(server: Server, good: bytes):
    lot = {"lot": "failures"}
    problem(httpx.post(server.url + URL, content=b"no image", params=lot, headers=PNG), 422, "not-decodable")
    files = [("image", ("a.png", good)), ("image", ("b.png", b"broken"))]
    answer = httpx.post(server.url + BATCH, files=files, params=lot).json()["results"]
    part = httpx.post(server.url + "/v1/parts/inspect", files=[("striped", ("a.png", good))], params=lot).json()
    picture = httpx.post(server.url + URL, content=good, params=lot, headers=PNG | {"Accept": "image/png"})
    in_history(server.url, picture.headers["X-Inspection-ID"])
    found = search(server.url, lot="failures")
    assert sorted(one["outcome"] for one in found) == [*(3 * ["normal"]), *(2 * ["not-decodable"])]
    by_id = {one["id"]: one for one in found}
    assert by_id[answer[0]["id"]]["score"] == answer[0]["score"]
    (view,) = search(server.url, part_inspection=part["id"])
    assert view["id"] == part["views"][0]["inspection"]["id"]
    (failed, other) = search(server.url, lot="failures", outcome="not-decodable")
    assert search(server.url, lot="failures", decision="none") == [failed, other]
    assert (failed["decision"], failed["score"], failed["image"]["width"]) == (None, None, None)
    assert failed["image"]["bytes"] in (6, 8)
    detail = in_history(server.url, failed["id"])
    assert detail["problem"]["type"].endswith(":not-decodable")
    assert detail["category"] == "striped"


def test_the_search_narrows_down_and_goes_on(server: Server, good: bytes, bad: bytes):
    start = datetime.now(UTC)
    for number in range(5):
        answer = httpx.post(
            server.url + URL, content=bad if number == 2 else good, headers=PNG, params={"lot": "search"}
        ).json()
    last = in_history(server.url, answer["id"])
    everything = search(server.url, lot="search")
    assert len(everything) == 5
    assert [one["id"] for one in everything] == sorted((one["id"] for one in everything), reverse=True)
    (anomalous,) = search(server.url, lot="search", decision="anomalous")
    above = search(server.url, lot="search", category="striped", min_score=anomalous["threshold"])
    assert above == [anomalous]
    same = search(server.url, sha256=anomalous["image"]["sha256"], lot="search", label="none")
    assert same == [anomalous]
    assert search(server.url, lot="search", since=start.isoformat(), model_version=last["model_version"]) == everything
    assert search(server.url, lot="search", until=start.isoformat()) == []
    pages, cursor = [], {}
    while True:
        page = httpx.get(server.url + HISTORY, params={"lot": "search", "limit": 2} | cursor).json()
        pages += page["inspections"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert pages == everything


def test_the_export_has_every_inspection_and_no_formula(server: Server, good: bytes):
    for number in range(3):
        last = inspected(server.url, good, lot="export", part_id=f"=SUM({number})", station="s, 1")
    response = httpx.get(server.url + HISTORY + "/export", params={"lot": "export", "format": "csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"].startswith('attachment; filename="inspections-')
    lines = list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"))))
    listed = search(server.url, lot="export")
    assert [line["id"] for line in lines] == [one["id"] for one in listed]
    assert [line["part_id"] for line in lines] == ["'=SUM(2)", "'=SUM(1)", "'=SUM(0)"]
    assert float(lines[0]["score"]) == last["score"]
    assert (lines[0]["station"], lines[0]["decision"], lines[0]["label"]) == ("s, 1", "normal", "")
    assert lines[0]["sha256"] == last["image"]["sha256"]
    empty = httpx.get(server.url + HISTORY + "/export", params={"lot": "nothing"}).content.decode("utf-8-sig")
    assert empty.startswith("id,time,category")
    assert len(empty.splitlines()) == 1
    problem(httpx.get(server.url + HISTORY + "/export", params={"format": "xml"}), 422, "invalid-request")
    response = httpx.get(server.url + HISTORY + "/export", params={"lot": "export", "format": "parquet"})
    assert response.headers["content-type"] == "application/vnd.apache.parquet"
    assert response.headers["content-disposition"].endswith('.parquet"')
    table = parquet.read_table(io.BytesIO(response.content))
    assert table.column_names == list(lines[0])
    rows = table.to_pylist()
    assert [row["part_id"] for row in rows] == ["=SUM(2)", "=SUM(1)", "=SUM(0)"]
    for row, one in zip(rows, listed, strict=True):
        assert (row["id"], row["score"], row["width"]) == (one["id"], one["score"], one["image"]["width"])
        assert row["time"] == datetime.fromisoformat(one["time"])


def test_without_pyarrow_the_answer_says_what_to_install(gated: GatedServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = httpx.get(gated.url + HISTORY + "/export", params={"format": "parquet"})
    assert "pip install 'eca-inspect[parquet]'" in problem(answer, 422, "invalid-request")


def test_a_picture_that_grows_dark_is_drift(factory: Factory):
    images = [cv2.imread(str(path)) for path in sorted((factory.data / "good").glob("*.png"))]
    with running_server(factory.weights) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for number in range(40):
            dark = cv2.imencode(".png", (0.4 * images[number % len(images)]).astype(np.uint8))[1].tobytes()
            last = client.post("/v1/categories/striped/inspect", content=dark, headers=PNG).json()
        in_history(server.url, last["id"])
        found = client.get("/v1/categories/striped/drift", params={"per": "hour", "points": 3}).json()
        assert found["drifted"]
        assert (found["model_version"], found["threshold"]) == (last["model_version"], last["threshold"])
        by_name = {one["measure"]: one for one in found["measures"]}
        assert list(by_name) == ["score", "brightness", "contrast", "sharpness", "aspect_ratio"]
        assert by_name["brightness"]["drifted"]
        assert by_name["brightness"]["text"].startswith("brightness fell from ")
        assert by_name["brightness"]["images"] == 40
        assert len(found["series"]) == 3
        assert sum(one["images"] for one in found["series"]) == 40
        medians = [one["brightness"] for one in found["series"] if one["images"]]
        assert by_name["brightness"]["median"] == pytest.approx(medians[-1], rel=0.2)
        assert next(one["brightness"] for one in found["series"] if not one["images"]) is None
        ratio = next(
            line for line in client.get("/metrics").text.splitlines()
            if line.startswith('inspect_drift_ratio{category="striped",measure="brightness"}')
        )  # fmt: skip
        assert float(ratio.split()[-1]) == pytest.approx(
            by_name["brightness"]["distance"] / by_name["brightness"]["limit"]
        )
        (few, *_) = client.get("/v1/categories/fresh/drift").json()["measures"]
        assert few["text"] == "0 images are too few; 20 are needed"
        narrow = client.get("/v1/categories/striped/drift", params={"window": 5, "points": 0}).json()
        assert (narrow["drifted"], narrow["series"]) == (False, [])
        assert narrow["measures"][1]["text"] == "5 images are too few; 20 are needed"
        problem(client.get("/v1/categories/nowhere/drift"), 404, "unknown-category")
        problem(client.get("/v1/categories/striped/drift?window=0"), 422, "invalid-request")
        problem(client.get("/v1/categories/striped/drift?per=week"), 422, "invalid-request")
    with running_server(factory.weights, database="none") as server:
        problem(httpx.get(server.url + "/v1/categories/striped/drift"), 404, "history-off")


def test_a_wrong_question_is_refused(server: Server):
    for query, message in (
        ("min_score=1", "give a category too"),
        ("limit=501", "less than or equal to 500"),
        ("limit=0", "greater than or equal to 1"),
        ("cursor=nonsense", "none that this server gave"),
        ("decision=bad", "decision"),
        ("decision=normal&outcome=anomalous", "has the same outcome"),
        ("decision=none&outcome=anomalous", "has a decision"),
        ("since=yesterday", "since"),
        ("sha256=xyz", "sha256"),
        ("categroy=x", "did you mean 'category'"),
        ("category=striped&min_score=nan", "finite"),
        ("lot=a&lot=b", "more than once"),
    ):
        assert message in problem(httpx.get(f"{server.url}{HISTORY}?{query}"), 422, "invalid-request"), query
    problem(httpx.get(f"{server.url}{HISTORY}/nonsense"), 422, "invalid-request")
    unknown = UUID(int=1)
    assert str(unknown) in problem(httpx.get(f"{server.url}{HISTORY}/{unknown}"), 404, "unknown-inspection")
    assert search(server.url, lot="'; DROP TABLE inspections; --") == []
    assert search(server.url, lot="%") == []


def inspected(url: str, image: bytes, category: str = "striped", **query: str) -> dict[str, Any]:
    """An answer that is in the history."""
    response = httpx.post(f"{url}/v1/categories/{category}/inspect", content=image, headers=PNG, params=query)
    answer: dict[str, Any] = response.json()
    in_history(url, answer["id"])
    return answer


def test_the_image_is_kept_as_the_rule_says_and_its_pictures_are_drawn_again(server: Server, good: bytes, bad: bytes):
    answer = inspected(server.url, bad, localize="always")
    there = f"{server.url}{HISTORY}/{answer['id']}"
    deadline = time.monotonic() + 120
    while not httpx.get(there).json()["image"]["kept"]:
        assert time.monotonic() < deadline
    image = httpx.get(there + "/image")
    assert image.content == bad
    assert image.headers["content-type"] == "image/png"
    assert image.headers["content-disposition"] == f'attachment; filename="{answer["id"]}.png"'
    assert image.headers["x-content-type-options"] == "nosniff"
    small = httpx.get(there + "/image", params={"width": 20})
    assert cv2.imdecode(np.frombuffer(small.content, np.uint8), cv2.IMREAD_COLOR).shape == (20, 20, 3)
    before = httpx.get(server.url + "/metrics").text
    heatmap = httpx.get(there + "/heatmap", timeout=60)
    assert heatmap.content == b64decode(answer["localization"]["heatmap_png"])
    overlay = httpx.get(there + "/overlay", timeout=60)
    drawn = httpx.post(
        server.url + URL, content=bad, headers=PNG | {"Accept": "image/png"}, params={"localize": "always"}
    )
    assert overlay.content == drawn.content
    images = [line for line in before.splitlines() if line.startswith('inspect_images_total{category="striped"')]
    assert sum(line not in httpx.get(server.url + "/metrics").text for line in images) == 1  # `drawn` alone was counted
    normal = inspected(server.url, good)
    detail = problem(httpx.get(f"{server.url}{HISTORY}/{normal['id']}/image"), 404, "image-not-kept")
    assert "the rule of INSPECT_KEEP_IMAGES leaves it out" in detail
    assert in_history(server.url, normal["id"])["image"]["kept_share"] == 0


def test_a_picture_of_a_version_that_does_not_serve_is_not_drawn(factory: Factory, bad: bytes, tmp_path: Path):
    weights = Path(shutil.copytree(factory.weights, tmp_path / "weights"))
    with running_server(weights, reload_seconds="0") as server:
        answer = inspected(server.url, bad)
        there = f"{server.url}{HISTORY}/{answer['id']}"
        shutil.rmtree(weights / "striped")
        shutil.copytree(weights / "brushed", weights / "striped")
        card = json.loads((weights / "striped" / "card.json").read_text())
        (weights / "striped" / "card.json").write_text(json.dumps(card | {"category": "striped"}))
        reloaded = httpx.post(server.url + "/v1/categories/striped/reload", timeout=60).json()
        for picture in ("overlay", "heatmap"):
            detail = problem(httpx.get(f"{there}/{picture}", timeout=60), 409, "version-not-served")
            assert answer["model_version"] in detail
        assert httpx.get(there + "/image").content == bad
        (line,) = httpx.get(server.url + "/v1/audit", params={"action": "reload"}).json()["lines"]
        assert (line["subject"], line["before"]) == ("striped", answer["model_version"])
        assert line["after"] == reloaded["model_version"] != line["before"]


def test_a_label_is_kept_with_its_history_and_not_overwritten_unseen(server: Server, bad: bytes):
    answer = inspected(server.url, bad)
    there = f"{server.url}{HISTORY}/{answer['id']}"
    assert httpx.get(there).headers["etag"] == '"0"'
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    said = {"label": "anomalous", "kind": "spot", "comment": "two lines\nü", "reviewer": "Ana", "boxes": [box]}
    first = httpx.put(there + "/label", json=said)
    assert first.status_code == 200, first.text
    assert first.json() == said | {"version": first.json()["version"], "time": first.json()["time"], "actor": None}
    refused = httpx.put(there + "/label", json={"label": "normal"})
    assert "'anomalous'" in problem(refused, 412, "label-changed")
    tag = {"If-Match": first.headers["etag"]}
    second = httpx.put(there + "/label", json={"label": "normal"}, headers=tag)
    assert second.status_code == 200
    problem(httpx.put(there + "/label", json={"label": "unsure"}, headers=tag), 412, "label-changed")
    found = httpx.get(there)
    assert found.headers["etag"] == second.headers["etag"]
    assert found.json()["label"] == "normal"
    assert found.json()["labels"] == [second.json(), first.json()]
    assert answer["id"] in [one["id"] for one in search(server.url, label="normal")]
    assert httpx.put(there + "/label", json=said, headers={"If-Match": "*"}).status_code == 200


def test_the_agreement_of_a_month_is_an_answer_and_a_page(server: Server, bad: bytes):
    answer = inspected(server.url, bad)
    httpx.put(f"{server.url}{HISTORY}/{answer['id']}/label", json={"label": "anomalous"}, headers={"If-Match": "*"})
    there = server.url + "/v1/categories/striped/agreement"
    found = httpx.get(there).json()
    assert found["month"] == f"{datetime.now(UTC):%Y-%m}"
    assert found["server"]["anomalous_anomalous"] >= 1
    page = httpx.get(there, params={"format": "html", "month": found["month"]})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Agreement on striped" in page.text
    policy = page.headers["content-security-policy"]
    style = page.text.split("<style>")[1].split("</style>")[0].encode()
    assert f"style-src 'sha256-{b64encode(sha256(style).digest()).decode()}'" in policy
    assert "unsafe" not in policy
    for query in ("month=2026-13", "month=may", "format=pdf"):
        problem(httpx.get(f"{there}?{query}"), 422, "invalid-request")
    problem(httpx.get(server.url + "/v1/categories/nowhere/agreement"), 404, "unknown-category")
    card = httpx.get(server.url + "/v1/categories/striped/model-card")
    assert card.headers["content-type"] == "text/html; charset=utf-8"
    assert answer["model_version"] in card.text
    assert "could not be read" not in card.text
    assert "style-src 'sha256-" in card.headers["content-security-policy"]
    problem(httpx.get(server.url + "/v1/categories/nowhere/model-card"), 404, "unknown-category")


def test_a_label_is_taken_back_and_stays_in_the_log(server: Server, bad: bytes):
    there = f"{server.url}{HISTORY}/{inspected(server.url, bad)['id']}"
    first = httpx.put(there + "/label", json={"label": "normal"})
    problem(httpx.delete(there + "/label"), 412, "label-changed")
    tag = {"If-Match": first.headers["etag"]}
    assert httpx.delete(there + "/label", headers=tag).status_code == 204
    found = httpx.get(there)
    assert (found.json()["label"], found.json()["labels"]) == (None, [])
    assert found.headers["etag"] != first.headers["etag"]
    problem(httpx.put(there + "/label", json={"label": "unsure"}, headers=tag), 412, "label-changed")
    lines = httpx.get(server.url + "/v1/audit", params={"subject": there.rpartition("/")[2]}).json()["lines"]
    assert [(line["before"] or {}).get("label") for line in lines] == ["normal", None]
    assert lines[0]["after"] is None
    assert (
        httpx.delete(there + "/label", headers={"If-Match": "*"}).status_code == 204
    )  # there is none: nothing changes
    again = httpx.put(there + "/label", json={"label": "unsure"})
    assert again.status_code == 200, again.text
    assert httpx.get(there).json()["labels"] == [again.json()]
    problem(httpx.delete(f"{server.url}{HISTORY}/{UUID(int=1)}/label"), 404, "unknown-inspection")
    problem(httpx.delete(there + "/label", headers={"If-Match": "new"}), 422, "invalid-request")


def test_boxes_that_cannot_be_the_place_of_a_fault_are_refused(server: Server, bad: bytes):
    answer = inspected(server.url, bad)
    there = f"{server.url}{HISTORY}/{answer['id']}"
    width, height = answer["image"]["width"], answer["image"]["height"]
    whole = {"x": 0, "y": 0, "width": width, "height": height}

    def put(boxes: str, label: str = "anomalous", url: str = there) -> httpx.Response:
        body = f'{{"label": "{label}", "boxes": {boxes}}}'
        return httpx.put(url + "/label", content=body, headers={"Content-Type": "application/json"})

    outside = f"boxes.1: it must lie within the image, which has {width} x {height} pixels"
    for change, message in (
        ({"x": 1}, outside),
        ({"y": 1}, outside),
        ({"width": width + 1}, outside),
        ({"height": 10**30}, outside),
        ({"x": -1}, "boxes.1.x: Input should be greater than or equal to 0"),
        ({"y": -1}, "boxes.1.y: Input should be greater than or equal to 0"),
        ({"width": 0}, "boxes.1.width: Input should be greater than or equal to 1"),
        ({"height": 0}, "boxes.1.height: Input should be greater than or equal to 1"),
        ({"x": 0.5}, "boxes.1.x: Input should be a valid integer, got a number with a fractional part"),
        ({"x": float("nan")}, "boxes.1.x: Input should be a finite number"),
        ({"width": float("inf")}, "boxes.1.width: Input should be a finite number"),
        ({"x": None}, "boxes.1.x: Input should be a valid integer"),
    ):
        answered = put(json.dumps([whole, whole | change]))
        assert message in problem(answered, 422, "invalid-request"), change
    assert "boxes.0.height: Field required" in problem(put('[{"x": 0, "y": 0, "width": 1}]'), 422, "invalid-request")
    assert "boxes.0.width: " in problem(put(json.dumps([whole]).replace(str(width), "1e999")), 422, "invalid-request")
    assert "boxes: List should have at most 100 items" in problem(
        put(json.dumps(101 * [whole])), 422, "invalid-request"
    )
    refused = problem(put(json.dumps([whole]), label="normal"), 422, "invalid-request")
    assert refused.startswith("boxes: a normal part has no fault; leave them out")
    assert httpx.get(there).json()["labels"] == []

    corner = {"x": width - 1, "y": height - 1, "width": 1, "height": 1}
    taken = put(json.dumps([whole, corner, *98 * [whole]]), label="unsure")
    assert taken.status_code == 200, taken.text
    assert httpx.get(there).json()["labels"][0]["boxes"][:2] == [whole, corner]

    lot = {"lot": "no places"}
    problem(httpx.post(server.url + URL, content=b"no image", params=lot, headers=PNG), 422, "not-decodable")
    deadline = time.monotonic() + 120
    while not (failed := search(server.url, **lot)):
        assert time.monotonic() < deadline
    there = f"{server.url}{HISTORY}/{failed[0]['id']}"
    refused = problem(put(json.dumps([corner]), url=there), 422, "invalid-request")
    assert refused == "boxes: this image could not be read, so it has no places"
    assert put("[]", url=there).status_code == 200


def test_boxes_are_pixels_of_the_picture_as_it_is_seen(server: Server, bad: bytes):
    tall = cv2.resize(cv2.imdecode(np.frombuffer(bad, np.uint8), cv2.IMREAD_COLOR), (30, 60))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees
    Image.fromarray(tall[:, :, ::-1]).save(turned, "JPEG", exif=exif)
    answer = httpx.post(
        server.url + URL, content=turned.getvalue(), headers={"Content-Type": "image/jpeg"}, params={"lot": "turned"}
    ).json()
    assert (answer["image"]["width"], answer["image"]["height"]) == (60, 30)
    there = f"{server.url}{HISTORY}/{answer['id']}/label"
    as_seen = {"x": 0, "y": 0, "width": 60, "height": 30}
    as_stored = {"x": 0, "y": 0, "width": 30, "height": 60}
    refused = httpx.put(there, json={"label": "anomalous", "boxes": [as_stored]})
    assert "60 x 30 pixels" in problem(refused, 422, "invalid-request")
    assert httpx.put(there, json={"label": "anomalous", "boxes": [as_seen]}).status_code == 200


@pytest.fixture(scope="module")
def empty(factory: Factory) -> Iterator[Server]:
    """A server whose history is empty, and which keeps all images."""
    with running_server(factory.weights, keep_images="all") as started:
        yield started


def test_the_nearest_good_part_is_labelled_good_or_was_accepted(empty: Server, good: bytes, bad: bytes):
    def changed(data: bytes) -> bytes:
        """Another image that looks the same."""
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        picture[0, 0] += 1
        return cv2.imencode(".png", picture)[1].tobytes()

    def kept(data: bytes) -> dict[str, Any]:
        answer = inspected(empty.url, data, "fresh")
        deadline = time.monotonic() + 120
        while not in_history(empty.url, answer["id"])["image"]["kept"]:
            assert time.monotonic() < deadline
        return answer

    answer = kept(bad)
    there = f"{empty.url}{HISTORY}/{answer['id']}/nearest-good"
    detail = problem(httpx.get(there), 404, "no-good-inspection")
    assert "the images of good parts of 'fresh' with 80 x 80 pixels are not kept" in detail
    accepted = kept(good)
    assert accepted["verdict"] == "pass"
    found = httpx.get(there)
    assert found.status_code == 200, found.text
    (listed,) = search(empty.url, sha256=accepted["image"]["sha256"])
    assert found.json() == listed | {"said": None}
    first = kept(changed(good))
    said = {"label": "normal", "reviewer": "Ana"}
    line = httpx.put(f"{empty.url}{HISTORY}/{first['id']}/label", json=said).json()
    found = httpx.get(there).json()
    assert (found["id"], found["said"], found["label"]) == (first["id"], line, "normal")
    httpx.delete(f"{empty.url}{HISTORY}/{first['id']}/label", headers={"If-Match": "*"}).raise_for_status()
    assert httpx.get(there).json()["said"] is None

    lot = {"lot": "nothing to compare"}
    problem(httpx.post(empty.url + URL, content=b"no image", params=lot, headers=PNG), 422, "not-decodable")
    deadline = time.monotonic() + 120
    while not (failed := search(empty.url, **lot)):
        assert time.monotonic() < deadline
    detail = problem(httpx.get(f"{empty.url}{HISTORY}/{failed[0]['id']}/nearest-good"), 404, "no-good-inspection")
    assert detail == "there is nothing to compare with: this image could not be read"
    problem(httpx.get(f"{empty.url}{HISTORY}/{UUID(int=1)}/nearest-good"), 404, "unknown-inspection")
    problem(httpx.get(f"{there}?size=any"), 422, "invalid-request")


def test_the_queue_for_review_has_what_people_should_look_at(server: Server, bad: bytes, good: bytes):
    queue = f"{server.url}{HISTORY}/review"
    answer = inspected(server.url, bad)
    deadline = time.monotonic() + 120
    while not in_history(server.url, answer["id"])["image"]["kept"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    unkept = inspected(server.url, good)
    for order in ("nearest", "random"):
        found = httpx.get(queue, params={"category": "striped", "order": order, "limit": 500}).json()
        by_id = {one["id"]: one for one in found["inspections"]}
        assert by_id[answer["id"]] == search(server.url, sha256=answer["image"]["sha256"])[0] | {"weight": 1.0}
        assert unkept["id"] not in by_id
        assert found["left"] == len(by_id) < found["searched"]
    accepted = httpx.get(queue, params={"category": "striped", "decision": "normal"}).json()
    assert (accepted["inspections"], accepted["left"]) == ([], 0)
    said = {"label": "normal", "reviewer": "Ana"}
    httpx.put(f"{server.url}{HISTORY}/{answer['id']}/label", json=said, headers={"If-Match": "*"}).raise_for_status()
    found = httpx.get(queue, params={"category": "striped", "order": "disagreements", "limit": 1}).json()
    assert [one["id"] for one in found["inspections"]] == [answer["id"]]
    assert "category" in problem(httpx.get(queue), 422, "invalid-request")
    for wrong in ({"order": "best"}, {"limit": 501}, {"decision": "none"}, {"category": ""}):
        problem(httpx.get(queue, params={"category": "striped"} | wrong), 422, "invalid-request")


def test_a_wrong_label_is_refused(server: Server, good: bytes):
    there = f"{server.url}{HISTORY}/{inspected(server.url, good)['id']}/label"
    for body, message in (
        (b"", "body"),
        (b"no JSON", "Invalid JSON"),
        (b'{"label": "bad"}', "label: Input should be 'normal', 'anomalous' or 'unsure'"),
        (b'{"label": "normal", "labell": 1}', "labell: Extra inputs"),
        (b'{"label": "normal", "kind": ""}', "kind"),
        (b'{"label": "normal", "comment": "\\u0000"}', "comment"),
        (b'{"label": "normal", "boxes": [{"x": -1, "y": 0, "width": 1, "height": 1}]}', "boxes.0.x"),
    ):
        answer = httpx.put(there, content=body, headers={"Content-Type": "application/json"})
        assert message in problem(answer, 422, "invalid-request"), body
    problem(httpx.put(there, content=b"{}", headers={"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    large = b'{"label": "normal", "comment": "' + b"x" * (65 << 10) + b'"}'
    problem(httpx.put(there, content=large, headers={"Content-Type": "application/json"}), 413, "too-many-bytes")
    problem(httpx.put(there, json={"label": "normal"}, headers={"If-Match": "new"}), 422, "invalid-request")
    unknown = f"{server.url}{HISTORY}/{UUID(int=1)}/label"
    problem(httpx.put(unknown, json={"label": "normal"}), 404, "unknown-inspection")
    foreign = {"Origin": "https://elsewhere.example"}
    problem(httpx.put(there, json={"label": "normal"}, headers=foreign), 403, "foreign-origin")


def test_labels_need_the_role_review_and_name_the_key(factory: Factory, bad: bytes, tmp_path: Path):
    keys = {role: {"X-API-Key": create_key(tmp_path / "keys", f"the-{role}", role)} for role in Role}
    with running_server(factory.weights, keys_file=str(tmp_path / "keys")) as server:
        answer = httpx.post(server.url + URL, content=bad, headers=PNG | keys[Role.INSPECT]).json()
        there = f"{server.url}{HISTORY}/{answer['id']}"
        deadline = time.monotonic() + 120
        while httpx.get(there, headers=keys[Role.REVIEW]).status_code != 200:
            assert time.monotonic() < deadline
        said = {"label": "normal"}
        refused = httpx.put(there + "/label", json=said, headers=keys[Role.INSPECT])
        assert "needs the role review" in problem(refused, 403, "forbidden")
        assert httpx.put(there + "/label", json=said, headers=keys[Role.REVIEW]).json()["actor"] == "the-review"
        problem(httpx.get(server.url + "/v1/audit", headers=keys[Role.REVIEW]), 403, "forbidden")
        (line,) = httpx.get(server.url + "/v1/audit", headers=keys[Role.ADMIN]).json()["lines"]
        assert (line["actor"], line["action"], line["subject"]) == ("the-review", "label", answer["id"])
        problem(httpx.get(there), 401, "unauthenticated")


def test_without_a_history_the_server_says_so(factory: Factory, good: bytes, tmp_path: Path):
    with running_server(factory.weights, database="none", state=str(tmp_path / "state")) as server:
        assert httpx.post(server.url + URL, content=good, headers=PNG).status_code == 200
        problem(httpx.get(server.url + HISTORY), 404, "history-off")
        assert "inspect_history_database_up" not in httpx.get(server.url + "/metrics").text
    assert not (tmp_path / "state").exists()


def keep_asking(url: str, image: bytes, answered: list[str], until: Callable[[], bool]) -> None:
    with httpx.Client() as client:
        while not until():
            try:
                answered.append(client.post(url + URL, content=image, headers=PNG).json()["id"])
            except httpx.HTTPError:
                return


def test_after_kill_9_under_load_every_answer_is_there_once(factory: Factory, good: bytes, tmp_path: Path):
    answered: list[str] = []
    with (
        running_server(factory.weights, state=str(tmp_path)) as server,
        ThreadPoolExecutor(8) as clients,
    ):
        asking = [clients.submit(keep_asking, server.url, good, answered, lambda: False) for _ in range(8)]
        deadline = time.monotonic() + 120
        while len(answered) < 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGKILL)
        for one in asking:
            one.result()
    assert len(answered) >= 200
    with running_server(factory.weights, state=str(tmp_path)) as server:
        wait_for_metric(server.url, "inspect_history_database_up 1.0")
        for identity in answered[-8:]:
            in_history(server.url, identity)
        wait_for_metric(server.url, "inspect_history_waiting_records 0.0")
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        kept = [str(UUID(one)) for (one,) in connection.execute("SELECT id FROM inspections")]
    assert set(answered) <= set(kept)
    assert len(kept) == len(set(kept))


def test_while_the_database_is_away_inspection_goes_on_and_nothing_is_lost(factory: Factory, good: bytes):
    cluster = Cluster()
    try:
        url = cluster.new_database()
        with running_server(factory.weights, database=url) as server:

            def inspect() -> str:
                response = httpx.post(server.url + URL, content=good, headers=PNG, params={"lot": "away"})
                assert response.status_code == 200
                identity: str = response.json()["id"]
                return identity

            answered = [inspect()]
            in_history(server.url, answered[0])
            cluster.stop()
            answered += [inspect() for _ in range(3)]
            detail = problem(httpx.get(server.url + HISTORY, timeout=60), 503, "history-unavailable")
            assert "inspection goes on" in detail
            wait_for_metric(server.url, "inspect_history_waiting_records 3.0")
            wait_for_metric(server.url, "inspect_history_database_up 0.0")
            assert httpx.get(server.url + "/readyz").status_code == 200
            cluster.start()
            answered.append(inspect())
            in_history(server.url, answered[-1])
            assert [one["id"] for one in search(server.url, lot="away")] == answered[::-1]
    finally:
        cluster.remove()


def test_a_state_folder_that_cannot_be_written_keeps_nobody_from_inspecting(
    factory: Factory, good: bytes, tmp_path: Path
):
    (tmp_path / "file").write_text("in the way")
    with running_server(factory.weights, state=str(tmp_path / "file" / "state")) as server:
        assert httpx.post(server.url + URL, content=good, headers=PNG).status_code == 200
        wait_for_metric(server.url, 'inspect_history_lost_total{reason="disk"} 1.0')
        problem(httpx.get(server.url + HISTORY), 503, "history-unavailable")
        server.wait_for_log("INSPECT_STATE cannot be written")
