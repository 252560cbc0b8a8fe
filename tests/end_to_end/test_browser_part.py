"""Several pictures of one part and their one verdict, on the console's page Part, in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from tests.conftest import ROOT, Factory
from tests.end_to_end.browsing import (
    LIST,
    Visits,
    announced,
    expect_verdict,
    held_back,
    overhang,
    payload,
    sample,
    tiles,
)
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.test_browser import downloaded
from tests.end_to_end.test_browser_early import PASTE, drop

PLATE = "machined-plate"
PHONE = {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def house(chromium: Browser, factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The built-in category and ``striped``, and a kind of part that has two views of the first."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "weights", folder / "weights")
    shutil.copytree(factory.weights / "teachers", folder / "weights" / "teachers", dirs_exist_ok=True)
    shutil.copytree(factory.weights / "striped", folder / "weights" / "striped")
    (folder / "parts").mkdir()
    card = {"views": [{"category": PLATE, "images": 2}]}
    (folder / "parts" / "both-sides.json").write_text(json.dumps(card))
    (folder / "parts" / "broken.json").write_text("{")
    with running_server(folder / "weights", device="cpu") as server:
        yield server


def bring(page: Page, *files: FilePayload | Path) -> None:
    page.get_by_label("Choose pictures").set_input_files(list(files))


def views(page: Page) -> Locator:
    return page.get_by_role("list", name="Pictures of this part").get_by_role("listitem")


def judge(page: Page) -> None:
    page.get_by_role("button", name="Judge this part").click()


def expect_title(page: Page, title: str) -> None:
    expect(page.get_by_role("heading", name=title, exact=True, level=2)).to_be_visible()


def test_the_views_of_a_part_stand_together_with_one_verdict(browse: Visits, house: Server):
    visit = browse(f"{house.url}/#/part")
    page = visit.page
    expect(page.get_by_role("heading", name="Part", level=1)).to_be_visible()
    expect(page.get_by_role("button", name="Judge this part")).to_be_disabled()
    bring(page, payload(f"{PLATE} left.png", sample("good")), payload(f"{PLATE} right.png", sample("scratch")))
    expect(page.get_by_label(f"{PLATE} left.png", exact=True)).to_have_value(PLATE)
    judge(page)
    expect_title(page, "REJECT")
    expect(views(page)).to_have_count(2)
    expect(views(page).nth(0)).to_contain_text("PASS, ")
    expect(views(page).nth(1)).to_contain_text("REJECT, ")
    expect(views(page).nth(1).locator("canvas.heat")).to_be_visible()
    expect(announced(page)).to_have_text("Part: REJECT. 2 views: 1 anomalous, 1 normal, 0 without a verdict.")
    assert visit.findings() == []
    visit.shot("part")
    page.get_by_role("button", name=f"Remove {PLATE} right.png").click()
    expect(page.get_by_role("heading", name="REJECT", level=2)).to_be_hidden()  # it was said of other pictures
    judge(page)
    expect_title(page, "PASS")
    page.get_by_role("button", name="Next part").click()
    expect(views(page)).to_have_count(0)
    expect(page.get_by_role("heading", name="PASS", level=2)).to_be_hidden()


def test_the_views_of_a_part_stand_in_the_list_of_the_session(browse: Visits, house: Server):
    visit = browse(f"{house.url}/#/part")
    page = visit.page
    page.get_by_label("Kind of part").select_option("both-sides")
    page.get_by_label("Part id, if it has one").fill("SN-0815 ")
    bring(page, payload("front.png", sample("scratch")), payload("back.png", sample("good")))
    judge(page)
    expect_title(page, "REJECT")
    page.get_by_role("button", name="Next part").click()
    expect(page.get_by_label("Part id, if it has one")).to_have_value("")
    bring(page, payload("alone.png", sample("good")))
    judge(page)
    expect_title(page, "INCOMPLETE")

    page.get_by_role("link", name="Inspect", exact=True).click()
    expect(tiles(page)).to_have_count(4)
    labels = tiles(page).evaluate_all("all => all.map(one => one.ariaLabel)")
    assert labels == [f"{PLATE}: no verdict", "alone.png: normal", "back.png: normal", "front.png: anomalous"]
    rows = downloaded(page)
    assert [row["file"] for row in rows] == ["front.png", "back.png", "alone.png", PLATE]
    assert [row["decision"] for row in rows] == ["anomalous", "normal", "normal", ""]
    assert [row["part_id"] for row in rows] == ["SN-0815", "SN-0815", "", ""]
    assert [row["part_decision"] for row in rows] == ["anomalous"] * 2 + ["incomplete"] * 2
    parts = [row["part_answer"] for row in rows]
    assert parts[0] == parts[1] != parts[2] == parts[3]
    assert all(len(part) == 36 for part in parts)
    assert "missing-view" in rows[3]["error"]
    assert len({row["request_id"] for row in rows}) == 2

    tiles(page).last.click()
    expect_verdict(page, "REJECT")
    expect(page.get_by_role("article")).to_contain_text("SN-0815, anomalous")
    tiles(page).first.click()
    expect_verdict(page, "No verdict")
    expect(page.get_by_role("button", name="Send it again")).to_have_count(0)
    expect(page.get_by_role("button", name=re.compile("failed again"))).to_be_hidden()
    assert visit.findings() == []
    visit.shot("views of parts in the list")


def test_a_part_with_a_missing_view_is_incomplete(browse: Visits, house: Server):
    visit = browse(f"{house.url}/#/part")
    page = visit.page
    kinds = page.get_by_label("Kind of part")
    expect(kinds.get_by_role("option", name="broken (refused)")).to_be_disabled()
    kinds.select_option("both-sides")
    bring(page, payload("front.png", sample("good")))  # the card has one category, so no name is needed
    expect(page.get_by_text(f"Still missing: 1 picture of {PLATE}.")).to_be_visible()
    judge(page)
    expect_title(page, "INCOMPLETE")
    expect(page.get_by_text("it has not passed")).to_be_visible()
    expect(views(page).nth(1)).to_contain_text("A picture that this part must have is missing.")
    assert visit.findings() == []
    visit.shot("part incomplete")
    bring(page, payload("back.png", sample("good")))
    judge(page)
    expect_title(page, "PASS")
    expect(views(page)).to_have_count(2)


def test_a_picture_that_cannot_be_read_leaves_the_part_incomplete(browse: Visits, house: Server):
    page = browse(f"{house.url}/#/part").page
    expect(page.get_by_label("Kind of part")).to_be_visible()
    bring(page, payload(f"{PLATE}.png", sample("good")), payload("notes.png", b"nothing"))
    expect(page.get_by_text("Choose the category of 1 picture.")).to_be_visible()
    expect(page.get_by_role("button", name="Judge this part")).to_be_disabled()
    choice = page.get_by_label("notes.png", exact=True)
    choice.focus()
    choice.select_option("striped")
    expect(choice).to_be_focused()
    judge(page)
    expect_title(page, "INCOMPLETE")
    expect(views(page).nth(0)).to_contain_text("PASS, ")
    expect(views(page).nth(1)).to_contain_text("This file cannot be read as an image.")


def test_what_is_dropped_or_pasted_here_belongs_to_the_part(browse: Visits, house: Server, tmp_path: Path):
    page = browse(f"{house.url}/#/part").page
    for name in ("left", "right"):
        (tmp_path / f"{PLATE}-{name}.png").write_bytes(sample("good"))
    with held_back(page, LIST):
        page.reload()
        expect(page.get_by_label("Choose pictures")).to_be_enabled()
        drop(page, *sorted(tmp_path.iterdir()))
        page.evaluate(PASTE, list(sample("pit")))
        expect(views(page)).to_have_count(3)
    expect(page.get_by_label(f"{PLATE}-right.png", exact=True)).to_have_value(PLATE)
    page.get_by_label("pasted.png", exact=True).select_option(PLATE)
    judge(page)
    expect_title(page, "REJECT")
    assert page.url.endswith("#/part")


def test_a_verdict_is_not_current_when_the_server_does_not_answer(browse: Visits, house: Server):
    page = browse(f"{house.url}/#/part", expected="ERR_FAILED").page
    expect(page.get_by_label("Kind of part")).to_be_visible()
    bring(page, payload(f"{PLATE}.png", sample("good")))
    judge(page)
    expect_title(page, "PASS")
    page.route(re.compile("/(readyz|v1/categories)$"), lambda route: route.abort())
    expect_title(page, "No current verdict")
    expect(page.get_by_text("The last one was: PASS.")).to_be_visible()


def test_the_page_fits_a_phone(browse: Visits, house: Server):
    visit = browse(f"{house.url}/#/part", **PHONE)
    page = visit.page
    expect(page.get_by_label("Kind of part")).to_be_visible()
    bring(page, payload(f"{PLATE}.png", sample("pit")))
    judge(page)
    expect_title(page, "REJECT")
    assert overhang(page) <= 0
    visit.shot("part phone")
