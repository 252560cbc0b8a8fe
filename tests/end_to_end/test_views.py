"""Categories with zones, tiles and a fit, over HTTP: each answer is that of ``eca-inspect inspect``."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from model.choices import Fit
from model.lifecycle.datasets import Sample
from model.lifecycle.recipe import Recipe
from model.lifecycle.regions import DrawnRegion
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.preprocessing import Preprocessing, Tiles
from model.store.store import Store
from model.store.teachers import save_teacher
from tests.conftest import surface, write_images
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.test_refusals import PNG, problem
from tests.service.cli.test_cli import run

LEFT = ((0.0, 0.0), (49.0, 0.0), (49.0, 79.0), (0.0, 79.0))
RIGHT = ((50.0, 0.0), (99.0, 0.0), (99.0, 79.0), (50.0, 79.0))
CATEGORIES = ("zoned", "tiled", "letterboxed", "plain")
SPOT = (75, 40)
"""Across and down in the photographs with a fault."""


@dataclass(frozen=True)
class Line:
    """Categories, and photographs by name."""

    weights: Path
    photographs: dict[str, Path]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, teacher: Teacher) -> Line:
    root = tmp_path_factory.mktemp("views")
    weights = root / "weights"
    save_teacher(teacher, weights / "teachers", "narrow")
    train = write_images(root / "train", [surface(seed, size=(80, 100)) for seed in range(10)])
    region = DrawnRegion({"left": (LEFT,), "right": (RIGHT,)}).on(100, 80)
    preparations = {
        "zoned": Preprocessing(64, region=region),
        "tiled": Preprocessing(64, tiles=Tiles(3, 2)),
        "letterboxed": Preprocessing(64, resize=Fit.LETTERBOX),
        "plain": Preprocessing(64),
    }
    recipe = Recipe(image_size=64, epochs=12, batch_size=8)
    for category, preprocessing in preparations.items():
        own = {"left": 50.0} if category == "zoned" else {}
        train_category(
            category, train, weights, "narrow", teacher, recipe, preprocessing=preprocessing, zone_thresholds=own
        )
    good = surface(300, size=(80, 100))
    bad = cv2.circle(good.copy(), SPOT, 7, (10, 10, 10), -1)
    samples: list[Sample] = write_images(root / "photographs", [good, bad])
    return Line(weights, {"good": samples[0].path, "bad": samples[1].path})


@pytest.fixture(scope="module")
def server(line: Line) -> Iterator[Server]:
    with running_server(line.weights) as started:
        yield started


def inspected(server: Server, category: str, path: Path, **query: str) -> dict:
    url = f"{server.url}/v1/categories/{category}/inspect"
    response = httpx.post(url, content=path.read_bytes(), headers=PNG, params=query, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def offline(line: Line, category: str) -> dict[str, dict]:
    done = run("inspect", category, *line.photographs.values(), "--json", "--weights", line.weights)
    return dict(zip(line.photographs, json.loads(done.stdout), strict=True))


def decided(answer: dict) -> list[tuple[float, str]]:
    """All scores and decisions of an answer."""
    return [(one["score"], one["decision"]) for one in (answer, *(answer["zones"] or ()), *(answer["tiles"] or ()))]


def test_alone_and_in_mixed_batches_they_score_as_offline(line: Line, server: Server):
    wanted = {category: offline(line, category) for category in CATEGORIES}
    work = [(category, name) for category in CATEGORIES for name in line.photographs] * 4
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: inspected(server, one[0], line.photographs[one[1]]), work))
    answers += [inspected(server, category, line.photographs[name]) for category, name in work[:8]]
    for (category, name), answer in zip(work + work[:8], answers, strict=True):
        expected = decided(wanted[category][name])
        assert [one for _, one in decided(answer)] == [one for _, one in expected]
        assert [one for one, _ in decided(answer)] == pytest.approx([one for one, _ in expected], rel=1e-5)


def test_the_answer_names_the_zones(line: Line, server: Server):
    card = Store(line.weights).card("zoned")
    answer = inspected(server, "zoned", line.photographs["bad"])
    left, right = answer["zones"]
    assert (left["name"], right["name"]) == ("left", "right")
    assert (left["threshold"], right["threshold"]) == (50.0, card.calibration.threshold)
    assert (left["decision"], right["decision"]) == ("normal", "anomalous")
    assert answer["decision"] == "anomalous"
    assert answer["score"] == max(right["score"], left["score"] * answer["threshold"] / 50)
    assert answer["tiles"] is None
    for region in answer["localization"]["regions"]:
        assert region["box"]["x"] >= 50  # nothing is marked in a zone that accepts


def test_the_answer_has_the_tiles_and_the_fault_lies_where_it_is(line: Line, server: Server):
    answer = inspected(server, "tiled", line.photographs["bad"], localize="always")
    assert answer["zones"] is None
    boxes = [tile["box"] for tile in answer["tiles"]]
    assert len(boxes) == 6
    assert max(box["x"] + box["width"] for box in boxes) == 100
    assert max(box["y"] + box["height"] for box in boxes) == 80
    assert answer["score"] == max(tile["score"] for tile in answer["tiles"])
    highest = max(answer["tiles"], key=lambda tile: tile["score"])["box"]
    assert highest["x"] <= SPOT[0] < highest["x"] + highest["width"]
    peak = answer["localization"]["peak"]
    assert abs(peak["x"] - SPOT[0]) <= 9
    assert abs(peak["y"] - SPOT[1]) <= 9
    heat = cv2.imdecode(np.frombuffer(base64.b64decode(answer["localization"]["heatmap_png"]), np.uint8), -1)
    assert heat.shape == (80, 100)


def test_without_a_reason_there_is_none(line: Line, server: Server):
    for category in CATEGORIES:
        for name in line.photographs:
            answer = inspected(server, category, line.photographs[name])
            assert answer["reasons"] == (["score"] if answer["decision"] == "anomalous" else [])


def test_outside_of_the_region_nothing_counts_over_http(line: Line, server: Server, tmp_path: Path, teacher: Teacher):
    good = cv2.imread(str(line.photographs["good"]))
    assert good is not None
    triangle = ((10.0, 10.0), (80.0, 15.0), (40.0, 70.0))
    weights = tmp_path / "weights"
    save_teacher(teacher, weights / "teachers", "narrow")
    preprocessing = Preprocessing(64, region=DrawnRegion({"part": (triangle,)}).on(100, 80))
    train = [Sample(path) for path in sorted((line.weights.parent / "train").glob("*.png"))]
    train_category("part", train, weights, "narrow", teacher, Recipe(64, 2), preprocessing=preprocessing)
    inside = cv2.fillPoly(np.zeros((80, 100), np.uint8), [np.array(triangle, np.int32)], 1).astype(bool)
    noise = np.random.default_rng(0).integers(0, 256, good.shape, dtype=np.uint8)
    disturbed = tmp_path / "disturbed.png"
    assert cv2.imwrite(str(disturbed), np.where(inside[:, :, None], good, noise))
    with running_server(weights) as started:
        before, after = (
            inspected(started, "part", path, localize="always") for path in (line.photographs["good"], disturbed)
        )
    assert after["score"] == pytest.approx(before["score"], rel=1e-5)
    assert after["localization"]["regions"] == before["localization"]["regions"]


def test_a_picture_of_another_shape_is_refused(server: Server, tmp_path: Path):
    (wide,) = write_images(tmp_path / "wide", [surface(1, size=(80, 120))])
    url = f"{server.url}/v1/categories/zoned/inspect"
    response = httpx.post(url, content=wide.path.read_bytes(), headers=PNG)
    problem(response, 422, "not-decodable")
    assert "120 x 80" in response.json()["detail"]
    assert "100 x 80" in response.json()["detail"]


def test_the_queue_counts_every_view(line: Line):
    with running_server(line.weights, queue_size="5", max_batch_images="5") as few:
        answer = httpx.get(f"{few.url}/v1/categories/tiled").json()
        assert answer["status"] == "refused"
        assert "makes 6 images" in answer["reason"]
        assert "INSPECT_QUEUE_SIZE" in answer["reason"]
        files = [("image", ("a.png", line.photographs["good"].read_bytes()))] * 3
        response = httpx.post(f"{few.url}/v1/categories/zoned/inspect-batch", files=files)
        problem(response, 413, "too-many-images")
        assert "6 images" in response.json()["detail"]
        answer = httpx.post(f"{few.url}/v1/categories/zoned/inspect-batch", files=files[:2], timeout=60).json()
        assert [one["decision"] for one in answer["results"]] == ["normal"] * 2
        assert "inspect_in_flight_images 0.0" in httpx.get(f"{few.url}/metrics").text


def test_the_overlay_shows_the_picture(line: Line, server: Server):
    url = f"{server.url}/v1/categories/tiled/inspect"
    response = httpx.post(
        url, content=line.photographs["bad"].read_bytes(), headers=PNG | {"Accept": "image/png"}, timeout=60
    )
    assert response.headers["X-Anomaly-Decision"] == inspected(server, "tiled", line.photographs["bad"])["decision"]
    picture = cv2.imdecode(np.frombuffer(response.content, np.uint8), -1)
    assert picture is not None
    assert picture.shape == (80, 100, 3)
