"""Outlines lie on the part, in whatever pose it is: on the page Inspect and on the page Part, in a real browser."""

import re
from collections.abc import Iterator
from dataclasses import replace

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from model.alignment import Alignment
from model.choices import Align
from model.lifecycle.recipe import Recipe
from model.lifecycle.regions import DrawnRegion
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.preprocessing import Preprocessing, Tiles
from model.region import Polygon
from model.store.teachers import save_teacher
from tests.conftest import write_images
from tests.end_to_end.browsing import Visits, announced, choose, payload
from tests.end_to_end.conftest import Server, running_server
from tests.model.test_alignment import off_by, panel, posed
from tests.model.test_reading import encoded

CATEGORY = "turned"
PART: Polygon = ((45.0, 65.0), (195.0, 65.0), (195.0, 180.0), (45.0, 180.0))
STAMP: Polygon = ((60.0, 130.0), (85.0, 130.0), (85.0, 150.0), (60.0, 150.0))
FAULT = (112, 150)
POSE = 100.0, (6.0, -9.0)
"""A turn in degrees and a shift in pixels."""


@pytest.fixture(scope="module")
def turned(chromium: Browser, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("turned")
    save_teacher(teacher, root / "weights" / "teachers", "narrow")
    rng = np.random.default_rng(0)
    poses = [(float(rng.uniform(-180, 180)), tuple(rng.uniform(-9, 9, 2).tolist())) for _ in range(12)]
    samples = write_images(root / "train", [posed(panel(seed=seed), *pose)[0] for seed, pose in enumerate(poses)])
    preprocessing = Preprocessing(
        64,
        region=DrawnRegion({"part": (PART,)}, (STAMP,)).on(240, 240),
        tiles=Tiles(2, 1),
        alignment=Alignment.to(panel(), Align.FEATURES),
    )
    recipe = replace(Recipe(image_size=64, epochs=6, batch_size=8), align=Align.FEATURES)
    train_category(CATEGORY, samples, root / "weights", "narrow", teacher, recipe, preprocessing=preprocessing)
    with running_server(root / "weights", device="cpu") as server:
        yield server


def part() -> tuple[bytes, np.ndarray]:
    """A faulty part in its pose, and the matrix to it from the reference."""
    image = panel(seed=50)
    cv2.circle(image, FAULT, 9, (15, 15, 20), cv2.FILLED, cv2.LINE_AA)
    picture, matrix = posed(image, *POSE)
    return encoded(picture), matrix


def points_of(polygon: Locator) -> np.ndarray:
    """Its corners in pixels of the picture, whose middles are whole numbers as in a card."""
    return np.array(polygon.evaluate("one => [...one.points].map(({ x, y }) => [x - 0.5, y - 0.5])"))


def check(layer: Locator, answer: dict, true: np.ndarray) -> None:
    """The outlines are where the answer says that the part lies, and that is where it does lie."""
    found = np.array(answer["alignment"]["matrix"])
    corners = np.array(PART)
    assert off_by(found, true, corners) < 2
    drawn = points_of(layer.locator(".zone .line"))
    np.testing.assert_allclose(drawn, corners @ found[:, :2].T + found[:, 2], atol=0.01)
    ignored = points_of(layer.locator(".ignored .line"))
    np.testing.assert_allclose(ignored, np.array(STAMP) @ found[:, :2].T + found[:, 2], atol=0.01)
    rejected = [tile["box"] for tile in answer["tiles"] if tile["decision"] == "anomalous"]
    boxes = layer.locator(".tile .line").evaluate_all(
        "all => all.map(({ x, y, width, height }) => "
        "({ x: x.baseVal.value, y: y.baseVal.value, width: width.baseVal.value, height: height.baseVal.value }))"
    )
    assert boxes == rejected
    x, y = true[:, :2] @ FAULT + true[:, 2]
    assert any(b["x"] <= x < b["x"] + b["width"] and b["y"] <= y < b["y"] + b["height"] for b in boxes)


def layer_in(place: Page | Locator) -> Locator:
    return place.get_by_role("img", name=re.compile("^Zones: part anomalous"))


def test_outlines_follow_the_part(browse: Visits, turned: Server):
    data, true = part()
    url = f"{turned.url}/v1/categories/{CATEGORY}/inspect"
    answer = httpx.post(url, content=data, headers={"Content-Type": "image/png"}, timeout=60).json()
    assert answer["decision"] == "anomalous"

    visit = browse(turned.url)
    page = visit.page
    choose(page, payload("part.png", data))
    expect(announced(page)).to_contain_text("part.png: REJECT.")
    expect(layer_in(page)).to_be_visible()
    check(layer_in(page), answer, true)
    regions = page.locator("#stage .outlines rect.line").evaluate_all(
        "all => all.map(({ x, y }) => [x.baseVal.value, y.baseVal.value])"
    )
    assert regions == [[one["box"]["x"], one["box"]["y"]] for one in answer["localization"]["regions"]]
    visit.shot("aligned part")

    page.get_by_role("link", name="Part", exact=True).click()
    page.get_by_label("Choose pictures").set_input_files([payload(f"{CATEGORY}.png", data)])
    page.get_by_role("button", name="Judge this part").click()
    views = page.get_by_role("list", name="Pictures of this part").get_by_role("listitem")
    expect(layer_in(views.nth(0))).to_be_visible()
    check(layer_in(views.nth(0)), answer, true)
    visit.shot("aligned part among views")

    page.get_by_role("link", name="Inspect", exact=True).click()
    page.get_by_role("button", name=f"{CATEGORY}.png: anomalous").click()
    expect(layer_in(page.get_by_role("article"))).to_be_visible()
    check(layer_in(page.get_by_role("article")), answer, true)
