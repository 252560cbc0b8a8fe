"""Real images over a real socket give what the command line gives offline, to the fifth digit."""

import base64
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Factory, surface
from tests.end_to_end.conftest import GatedServer, wait_for_metric
from tests.service.cli.test_cli import run

TYPES = {"jpg": "image/jpeg", "png": "image/png", "bmp": "image/bmp", "tif": "image/tiff", "webp": "image/webp"}


def post(client: httpx.Client, category: str, path: Path, **parameters: str) -> httpx.Response:
    return client.post(
        f"/v1/categories/{category}/inspect",
        content=path.read_bytes(),
        params=parameters,
        headers={"Content-Type": TYPES[path.suffix[1:]]},
    )


def same_verdict(online: dict[str, object], offline: dict[str, object]) -> None:
    assert online["score"] == pytest.approx(offline["score"], rel=1e-5)
    for name in ("category", "model_version", "threshold", "calibration", "decision", "image"):
        assert online[name] == offline[name], name


def mixed(factory: Factory, files: list[Path]) -> list[tuple[str, Path]]:
    """32 images of every format, in all categories by turns."""
    return [(factory.categories[index % 3], files[index % len(files)]) for index in range(32)]


def test_every_format_scores_like_offline(client: httpx.Client, files: list[Path], offline: dict, factory: Factory):
    for category in factory.categories:
        for path in files:
            response = post(client, category, path)
            assert response.status_code == 200, (path.name, response.text)
            same_verdict(response.json(), offline[category][path.name])


def test_thirty_two_requests_at_once_in_mixed_categories_score_like_offline(
    client: httpx.Client, files: list[Path], offline: dict, factory: Factory
):
    work = mixed(factory, files)
    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(lambda item: post(client, *item), work))
    for (category, path), response in zip(work, responses, strict=True):
        assert response.status_code == 200
        same_verdict(response.json(), offline[category][path.name])


@pytest.mark.parametrize("gated", [{"device_batch": 32}], indirect=True)
def test_categories_of_one_image_size_share_a_batch_and_score_like_offline(
    gated: GatedServer, files: list[Path], offline: dict, factory: Factory
):
    work = mixed(factory, files)
    with ThreadPoolExecutor(33) as pool, httpx.Client(base_url=gated.url, timeout=60) as client:
        first = pool.submit(post, client, "fresh", files[0])
        assert gated.gate.reached.acquire(timeout=30)
        answers = [pool.submit(post, client, category, path) for category, path in work]
        wait_for_metric(gated.url, "inspect_queue_depth_images 32.0")
        gated.gate.open.set()
        assert first.result().status_code == 200
        for (category, path), answer in zip(work, answers, strict=True):
            assert answer.result().status_code == 200
            same_verdict(answer.result().json(), offline[category][path.name])
    metrics = httpx.get(gated.url + "/metrics").text
    assert "inspect_batch_size_images_sum 33.0" in metrics
    assert "inspect_batch_size_images_count 3.0" in metrics  # the first, then one a size for three categories


def test_the_answer_has_everything_the_contract_names(client: httpx.Client, files: list[Path]):
    answer = post(client, "striped", files[0], localize="always").json()
    assert set(answer) == {
        "id",
        "part_id",
        "lot",
        "station",
        "metadata",
        "category",
        "model_version",
        "score",
        "threshold",
        "calibration",
        "separates",
        "decision",
        "verdict",
        "reasons",
        "alignment",
        "zones",
        "tiles",
        "localization",
        "image",
        "timing_ms",
    }
    assert set(answer["localization"]) == {"map", "scale", "heatmap_png", "mask_png", "regions", "peak"}
    assert set(answer["timing_ms"]) == {"decode", "queue", "inference", "localization", "total"}
    assert answer["image"] == {"width": 90, "height": 120, "sha256": hashlib.sha256(files[0].read_bytes()).hexdigest()}
    timing = answer["timing_ms"]
    parts = timing["decode"] + timing["queue"] + timing["inference"] + timing["localization"]
    assert 0 < parts <= timing["total"] + 0.01
    assert (answer["decision"] == "anomalous") == (answer["score"] >= answer["threshold"])
    assert answer["reasons"] == (["score"] if answer["decision"] == "anomalous" else [])
    assert answer["alignment"] is answer["zones"] is answer["tiles"] is None


@pytest.mark.parametrize("size", [(120, 90), (37, 301), (1, 64), (700, 40)])
def test_maps_have_the_size_of_the_image_that_was_sent(client: httpx.Client, size: tuple[int, int]):
    ok, data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    assert ok
    answer = client.post(
        "/v1/categories/striped/inspect?localize=always", content=data.tobytes(), headers={"Content-Type": "image/png"}
    ).json()
    for name in ("heatmap_png", "mask_png"):
        picture = cv2.imdecode(
            np.frombuffer(base64.b64decode(answer["localization"][name]), np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert picture.shape == size
    height, width = size
    for region in answer["localization"]["regions"]:
        box = region["box"]
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height


def test_turned_images_are_answered_upright(client: httpx.Client, files: list[Path]):
    (turned,) = (path for path in files if path.name == "turned.jpg")
    answer = post(client, "striped", turned, localize="always").json()
    assert (answer["image"]["width"], answer["image"]["height"]) == (120, 90)


def test_localize_decides_whether_there_is_a_map(client: httpx.Client, factory: Factory):
    good, bad = factory.data / "good" / "000.png", factory.data / "bad" / "000.png"
    assert post(client, "striped", bad).json()["decision"] == "anomalous"
    assert post(client, "striped", good).json()["decision"] == "normal"
    found = {
        (name, localize): post(client, "striped", path, localize=localize).json()["localization"] is not None
        for name, path in (("good", good), ("bad", bad))
        for localize in ("auto", "always", "never")
    }
    assert found == {
        ("good", "auto"): False, ("good", "always"): True, ("good", "never"): False,
        ("bad", "auto"): True, ("bad", "always"): True, ("bad", "never"): False,
    }  # fmt: skip


def test_every_form_of_map_finds_the_fault_and_says_what_it_is(client: httpx.Client, factory: Factory):
    bad = factory.data / "bad" / "001.png"
    own = post(client, "striped", bad).json()
    assert own["localization"]["map"] == "gradient-distance"
    pictures = set()
    for form in ("gradient", "gradient-distance", "distance"):
        answer = post(client, "striped", bad, map=form).json()
        assert answer["score"] == pytest.approx(own["score"], rel=1e-5)
        assert answer["localization"]["map"] == form
        assert answer["localization"]["regions"], form
        pictures.add(answer["localization"]["heatmap_png"])
    assert len(pictures) == 3
    data = [("image", ("bad.png", bad.read_bytes()))]
    (one,) = client.post("/v1/categories/striped/inspect-batch?map=distance", files=data).json()["results"]
    assert one["localization"]["map"] == "distance"


def test_the_picture_is_the_one_the_command_line_draws(client: httpx.Client, factory: Factory, tmp_path: Path):
    bad = factory.data / "bad" / "001.png"
    response = client.post(
        "/v1/categories/striped/inspect",
        content=bad.read_bytes(),
        headers={"Content-Type": "image/png", "Accept": "image/png"},
    )
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-anomaly-decision"] == "anomalous"
    assert response.headers["x-anomaly-verdict"] == "fail"
    assert float(response.headers["x-anomaly-score"]) >= float(response.headers["x-anomaly-threshold"])
    run("inspect", "striped", bad, "--overlay", tmp_path, "--weights", factory.weights)
    online = np.asarray(Image.open(io.BytesIO(response.content))).astype(int)
    drawn = np.asarray(Image.open(tmp_path / "001.png.overlay.png")).astype(int)
    assert online.shape == (80, 80, 3)
    assert np.abs(online - drawn).max() <= 2
    assert (online != np.asarray(Image.open(bad))).any()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/png", "image/png"),
        ("image/png, application/json;q=0.5", "image/png"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("image/png;q=0.1, application/json", "application/json"),
        ("text/html", "application/json"),
        ("image/png;q=nonsense", "application/json"),
        ("image/png;q=\u00b2", "application/json"),
    ],
)
def test_the_accept_header_chooses(client: httpx.Client, files: list[Path], accept: str, kind: str):
    response = client.post(
        "/v1/categories/striped/inspect",
        content=files[0].read_bytes(),
        headers={"Content-Type": "image/jpeg", "Accept": accept.encode("latin-1")},
    )
    assert response.headers["content-type"] == kind


def test_a_form_and_a_body_are_the_same(client: httpx.Client, files: list[Path], offline: dict):
    for path in files[:3]:
        response = client.post("/v1/categories/striped/inspect", files={"image": (path.name, path.read_bytes())})
        same_verdict(response.json(), offline["striped"][path.name])


def test_bytes_of_unknown_kind_are_looked_at(client: httpx.Client, files: list[Path], offline: dict):
    for headers in ({"Content-Type": "application/octet-stream"}, {}):
        response = client.post("/v1/categories/striped/inspect", content=files[0].read_bytes(), headers=headers)
        same_verdict(response.json(), offline["striped"][files[0].name])


def test_a_large_photograph_is_answered(client: httpx.Client):
    buffer = io.BytesIO()
    Image.fromarray(surface(3, size=(3000, 4000))).save(buffer, "JPEG")
    answer = client.post(
        "/v1/categories/striped/inspect?localize=always",
        content=buffer.getvalue(),
        headers={"Content-Type": "image/jpeg"},
    ).json()
    assert (answer["image"]["width"], answer["image"]["height"]) == (4000, 3000)


def test_a_batch_answers_in_order_and_a_bad_image_spoils_nothing(
    client: httpx.Client, files: list[Path], offline: dict
):
    parts = [("image", (path.name, path.read_bytes())) for path in files[:4]]
    parts.insert(2, ("image", ("broken.png", b"nonsense")))
    parts.insert(4, ("image", ("empty.png", b"")))
    response = client.post("/v1/categories/striped/inspect-batch", files=parts)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result.get("status", 200) for result in results] == [200, 200, 422, 200, 400, 200]
    for path, result in zip(files[:4], [results[index] for index in (0, 1, 3, 5)], strict=True):
        same_verdict(result, offline["striped"][path.name])


def test_a_full_batch_is_answered(client: httpx.Client, files: list[Path], offline: dict):
    parts = [("image", (path.name, path.read_bytes())) for path in files * 2]
    results = client.post("/v1/categories/fresh/inspect-batch?localize=never", files=parts).json()["results"]
    assert len(results) == 32
    for path, result in zip(files * 2, results, strict=True):
        same_verdict(result, offline["fresh"][path.name])


@pytest.mark.parametrize(
    "media_type",
    [
        "image/jpg",
        "image/pjpeg",
        "image/x-png",
        "image/tif",
        "image/x-ms-bmp",
        "binary/octet-stream",
        "",
        None,
        "image/gif",
    ],
)
def test_the_bytes_decide_what_an_image_is(client: httpx.Client, factory: Factory, media_type: str | None):
    data = (factory.data / "good" / "000.png").read_bytes()
    headers = {} if media_type is None else {"Content-Type": media_type}
    expected = post(client, "striped", factory.data / "good" / "000.png").json()["score"]
    answer = client.post("/v1/categories/striped/inspect", content=data, headers=headers)
    assert answer.json()["score"] == expected


def form_of(part_headers: str, data: bytes, *, before: bytes = b"") -> bytes:
    """A form of one part, written by hand."""
    return before + b"--sep\r\n" + part_headers.encode() + b"\r\n\r\n" + data + b"\r\n--sep--\r\n"


@pytest.mark.parametrize("route", ["inspect", "inspect-batch"])
@pytest.mark.parametrize(
    ("disposition", "before"),
    [
        ("form-data; name=\"image\"; filename*=UTF-8''pi%C3%A8ce.png", b""),
        ('form-data; name="image"; filename="a.png"', b"This is a message in MIME format.\r\n--not the boundary\r\n"),
        ('form-data; name="image"; filename="a.png"', b"\r\n"),
        ('form-data; name="image"; filename="a.png"', bytes(range(256)) * 600 + b"\r\n"),
    ],
    ids=["encoded file name", "preamble", "empty line", "long preamble"],
)
def test_forms_that_other_programs_write(
    client: httpx.Client, factory: Factory, route: str, disposition: str, before: bytes
):
    image = factory.data / "good" / "000.png"
    body = form_of(f"Content-Disposition: {disposition}", image.read_bytes(), before=before)
    headers = {"Content-Type": "multipart/form-data; boundary=sep"}
    answer = client.post(f"/v1/categories/striped/{route}", content=body, headers=headers).json()
    score = answer["score"] if route == "inspect" else answer["results"][0]["score"]
    assert score == post(client, "striped", image).json()["score"]


@pytest.mark.parametrize(
    "path", ["/v1/categories", "/v1/categories/striped", "/livez", "/readyz", "/metrics", "/", "/docs", "/openapi.json"]
)
def test_head_is_get_without_the_body(client: httpx.Client, path: str):
    asked, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == asked.headers["content-type"]
    if path != "/metrics":  # which has changed in between
        assert head.headers["content-length"] == asked.headers["content-length"]
    assert client.get("/livez").status_code == 200  # the connection is still good


def test_head_of_what_takes_no_get_says_so(client: httpx.Client):
    assert client.head("/v1/categories/striped/inspect").status_code == 405
    assert client.head("/v1/categories/none").status_code == 404
