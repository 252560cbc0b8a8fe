"""The page Review, in a real browser: one part after the other, with a key for each answer."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from service.choices import Role
from service.http.keys import create_key
from tests.conftest import ROOT
from tests.end_to_end.browsing import Visit, Visits, announced, overhang, sample
from tests.end_to_end.conftest import running_server
from tests.end_to_end.test_browser_history import CATEGORY, DESK, Line

NAMES = ("good", "scratch", "pit", "stain", "dent")
TABLET = {"viewport": {"width": 810, "height": 1080}, "has_touch": True}


@pytest.fixture(scope="module")
def line(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A server whose history has an inspection with its image of each of `NAMES`."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    looker, reviewer = (create_key(keys, role.value, role) for role in (Role.INSPECT, Role.REVIEW))
    with running_server(ROOT / "weights", device="cpu", keys_file=str(keys), keep_images="all") as server:
        made = Line(server.url, looker, reviewer, "", "")
        for name in NAMES:
            inspect(made, name, name)
        yield made


def inspect(line: Line, name: str, part_id: str) -> None:
    """Returns when the part is in the queue."""
    line.inspect(sample(name), part_id=part_id)
    deadline = datetime.now() + timedelta(seconds=120)
    while part_id not in [one["part_id"] for one in queue(line)]:
        assert datetime.now() < deadline


def queue(line: Line, order: str = "nearest") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = line.ask(f"/review?category={CATEGORY}&order={order}").json()["inspections"]
    return found


def labels_of(line: Line, one: dict[str, Any]) -> list[tuple[str, str | None]]:
    labels = line.ask(f"/{one['id']}").json()["labels"]
    return [(said["label"], said["reviewer"]) for said in labels]


def enter(browse: Visits, line: Line, expected: str = "", **options: object) -> Visit:
    refusals = "|".join(filter(None, ["status of 401", expected]))
    visit = browse(f"{line.url}/#/review", expected=refusals, **(DESK | options))
    dialog = visit.page.get_by_role("dialog")
    dialog.get_by_label("API key").fill(line.reviewer)
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_be_hidden()
    return visit


def expect_part(page: Page, one: dict[str, Any]) -> None:
    """Returns when this part is shown with its picture and its heat map."""
    expect(page.get_by_role("img", name=f"Photograph {one['part_id']}")).to_be_visible()
    expect(page.locator("#review-stage .heat")).to_have_count(1)
    expect(page.locator("#review-label")).not_to_be_empty()


def test_parts_are_labelled_one_after_the_other_with_the_keyboard(browse: Visits, line: Line):
    first, second, third, fourth, fifth = queue(line)
    opposite = {"normal": "anomalous", "anomalous": "normal"}
    visit = enter(browse, line, "status of 412")
    page = visit.page
    left = page.locator("#review-left")
    expect(left).to_have_text("5 left")
    expect_part(page, first)
    assert page.get_by_role("button", name=re.compile("^Agree")).bounding_box()["y"] < 740  # type: ignore[index]
    page.get_by_label("Your name").fill("Ana")
    page.keyboard.press("a")  # a letter of the name
    page.get_by_label("Your name").fill("Ana")
    page.get_by_role("heading", name="Review", exact=True).click()
    page.keyboard.press("a")
    expect_part(page, second)
    expect(left).to_have_text("4 left")
    expect(announced(page)).to_contain_text("4 left")
    assert labels_of(line, first) == [(first["decision"], "Ana")]

    page.keyboard.press("ArrowRight")
    expect_part(page, third)
    page.keyboard.press("ArrowLeft")
    expect_part(page, second)
    page.keyboard.press("d")
    expect_part(page, third)
    assert labels_of(line, second) == [(opposite[second["decision"]], "Ana")]
    page.keyboard.press("Control+z")
    expect_part(page, second)
    expect(announced(page)).to_have_text("The label is taken back.")
    expect(page.get_by_text("Nobody has labelled this yet.")).to_be_visible()
    expect(left).to_have_text("4 left")
    assert labels_of(line, second) == []
    page.keyboard.press("Enter")
    expect_part(page, third)

    line.label(third["id"], {"label": "unsure", "reviewer": "Bo"})
    page.keyboard.press("d")
    expect(page.locator("#review-said")).to_contain_text("Another person has labelled this meanwhile.")
    expect(page.get_by_text("The label is “unsure”, by Bo")).to_be_visible()
    assert labels_of(line, third) == [("unsure", "Bo")]
    visit.shot("review labelled meanwhile")
    assert visit.findings() == []
    page.get_by_role("button", name="Go on without a label").click()

    expect_part(page, fourth)
    page.get_by_role("button", name=re.compile("^Disagree")).click()
    expect_part(page, fifth)
    heat = page.locator("#review-stage .heat")
    page.keyboard.press("h")
    expect(heat).to_be_hidden()
    page.get_by_role("checkbox", name="Heat map h").check()
    expect(heat).to_be_visible()
    page.get_by_role("button", name="Unsure").click()
    expect(page.get_by_role("heading", name="Nothing is left to review here.")).to_be_visible()
    expect(page.get_by_text("4 parts are labelled, 1 passed over.", exact=True)).to_be_visible()

    page.get_by_label("Show").select_option("where people and service differ")
    expect_part(page, fourth)
    expect(page.get_by_text(re.compile("^The label is .*by Ana"))).to_be_visible()
    assert "order=disagreements" in page.url
    page.get_by_role("link", name="Show it in the history").click()
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    page.go_back()
    expect_part(page, fourth)


def test_a_random_sample_is_shown_with_its_weight_on_a_tablet(browse: Visits, line: Line):
    inspect(line, "good", "again")
    accepted = [one for one in queue(line, "random") if one["decision"] == "normal"]
    visit = enter(browse, line, **TABLET)
    page = visit.page
    page.get_by_label("Show").select_option("random sample of accepted parts")
    expect_part(page, accepted[0])
    expect(page.get_by_text("1: in an estimate it counts for so many parts")).to_be_visible()
    expect(page.locator("#review-left")).to_have_text(f"{len(accepted)} left")
    assert overhang(page) <= 0
    assert visit.findings() == []
    visit.shot("review tablet")
    page.get_by_role("button", name=re.compile("^Agree: good")).tap()
    expect(page.locator("#review-left")).to_have_text(f"{len(accepted) - 1} left")
    page.get_by_role("button", name="Undo the last label").tap()
    expect_part(page, accepted[0])
    assert labels_of(line, accepted[0]) == []
    for one in accepted:
        if one["part_id"] == "again":
            line.label(one["id"], {"label": "normal"})


def test_the_picture_is_zoomed_with_wheel_double_click_and_keys(browse: Visits, line: Line):
    inspect(line, "scratch", "to be zoomed")
    page = enter(browse, line).page
    page.get_by_label("Show").select_option("random sample of rejected parts")
    picture = page.get_by_role("img", name=re.compile("^Photograph"))
    expect(picture).to_be_visible()
    expect(page.locator("#review-stage .heat")).to_have_count(1)

    def box() -> dict[str, float]:
        return picture.bounding_box()  # type: ignore[return-value]

    whole = box()
    x, y = whole["x"] + 0.25 * whole["width"], whole["y"] + 0.75 * whole["height"]
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    expect(page.locator("#review-stage")).to_have_class(re.compile("zoomed"))
    large = box()
    assert large["width"] > 2 * whole["width"]
    assert (x - large["x"]) / large["width"] == pytest.approx(0.25, abs=0.01)
    assert (y - large["y"]) / large["height"] == pytest.approx(0.75, abs=0.01)
    heat = page.locator("#review-stage .heat").bounding_box()
    assert heat is not None
    assert heat["width"] == pytest.approx(large["width"])
    page.mouse.down()
    page.mouse.move(x + 40, y - 30)
    page.mouse.up()
    assert (box()["x"] - large["x"], box()["y"] - large["y"]) == pytest.approx((40, -30), abs=0.5)
    page.keyboard.press("Shift+ArrowRight")
    assert box()["x"] - large["x"] == pytest.approx(-20, abs=0.5)
    page.keyboard.press("0")
    assert box() == pytest.approx(whole)
    page.mouse.dblclick(x, y)
    assert box()["width"] == pytest.approx(3 * whole["width"])
    page.mouse.dblclick(x, y)
    page.keyboard.press("+")
    assert box()["width"] == pytest.approx(1.5 * whole["width"])
    page.keyboard.press("-")
    assert box()["width"] == pytest.approx(whole["width"])
    page.mouse.wheel(0, 100)  # it cannot be smaller; the page scrolls
    assert box()["width"] == whole["width"]
