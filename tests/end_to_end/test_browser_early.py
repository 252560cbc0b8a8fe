"""What a person does before an answer has come is neither lost nor done to something else, in a real browser."""

import re
import shutil
from pathlib import Path

import httpx
from playwright.sync_api import Page, Route, expect

from tests.conftest import ROOT
from tests.end_to_end.browsing import LIST, Visits, announced, choose, expect_verdict, held_back, payload, sample, tiles
from tests.end_to_end.conftest import Server

CATEGORY = "machined-plate"
OTHER = "striped"
PASTE = """bytes => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
  dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""


def drop(page: Page, *files: Path, x: float = 600, y: float = 500) -> None:
    """Drops files on the page, as from a window of the desktop."""
    hand = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        carried = {"items": [], "files": [str(path) for path in files], "dragOperationsMask": 1}
        hand.send("Input.dispatchDragEvent", {"type": step, "x": x, "y": y, "data": carried})


def test_images_that_come_before_the_list_of_categories_wait_for_it(browse: Visits, plates: Server):
    visit = browse(plates.url)
    page = visit.page
    with held_back(page, LIST):
        page.reload()
        expect(page.get_by_label("Choose images")).to_be_enabled()
        choose(page, payload("chosen.png", sample("good")))
        expect(page.get_by_role("main").get_by_text("1 image waits for the list of categories.")).to_be_visible()
        expect(announced(page)).to_contain_text("1 image waits for the list of categories.")
        drop(page, ROOT / "samples" / "scratch.png", ROOT / "samples" / "dent.png")
        page.evaluate(PASTE, list(sample("pit")))
        expect(page.get_by_role("main").get_by_text("4 images wait for the list of categories.")).to_be_visible()
        expect(tiles(page)).to_have_count(0)
        visit.shot("before the list of categories")
        assert visit.findings() == []
    expect(announced(page)).to_have_text("4 images: 3 anomalous, 1 normal, 0 without a verdict.")
    labels = tiles(page).evaluate_all("all => all.map(one => one.ariaLabel)")
    assert labels == ["pasted.png: anomalous", "dent.png: anomalous", "scratch.png: anomalous", "chosen.png: normal"]
    expect(page.get_by_text("wait for the list of categories")).to_be_hidden()


def test_images_that_come_early_are_not_judged_by_another_category_than_the_chosen_one(
    browse: Visits, changing: tuple[Server, Path]
):
    """The category that was chosen last is refused when the list comes: they wait until another one is chosen."""
    server, weights = changing
    page = browse(server.url).page
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    shutil.rmtree(weights / CATEGORY)
    assert httpx.post(f"{server.url}/v1/categories/{CATEGORY}/reload").status_code == 409
    with held_back(page, LIST):
        page.reload()
        choose(page, payload("early.png", sample("good")))
        expect(page.get_by_role("main").get_by_text("1 image waits for the list")).to_be_visible()
    notice = page.get_by_role("main").get_by_text("1 image waits. Choose another one")
    expect(notice).to_be_visible()
    expect(tiles(page)).to_have_count(0)
    with page.expect_request(re.compile(f"/v1/categories/{OTHER}/inspect")):
        page.get_by_label("Category", exact=True).select_option(OTHER)
    expect(tiles(page)).to_have_count(1)
    page.goto("about:blank")


def test_a_sample_is_inspected_by_the_category_that_it_was_clicked_for(browse: Visits, changing: tuple[Server, Path]):
    page = browse(changing[0].url).page
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    with (
        page.expect_request(re.compile(r"/inspect\?")) as sent,
        held_back(page, re.compile("/console/samples/")) as held,
    ):
        page.evaluate("document.images.length")
        with page.expect_request(re.compile("/console/samples/scratch")):
            page.get_by_role("button", name="scratch", exact=True).click()
        page.get_by_label("Category", exact=True).select_option(OTHER)
        assert held
    assert f"/v1/categories/{CATEGORY}/inspect" in sent.value.url
    expect(page.get_by_role("button", name="scratch.png: anomalous")).to_be_visible()
    page.goto("about:blank")


def test_an_image_is_inspected_again_by_its_own_category(browse: Visits, changing: tuple[Server, Path]):
    page = browse(changing[0].url).page
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    page.get_by_role("button", name="good", exact=True).click()
    expect_verdict(page, "PASS")

    def with_another_threshold(route: Route) -> None:
        response = route.fetch()
        categories = response.json()["categories"]
        for one in categories:
            one["threshold"] *= 2
        route.fulfill(response=response, json={"categories": categories})

    page.route(LIST, with_another_threshold)
    page.get_by_role("button", name="scratch", exact=True).click()
    expect(page.get_by_role("button", name="scratch.png: anomalous")).to_be_visible()
    page.get_by_role("button", name="good.png: normal").click()
    expect(page.get_by_role("button", name="Inspect it again")).to_be_visible()
    page.get_by_label("Category", exact=True).select_option(OTHER)
    again = page.get_by_role("button", name="Inspect it again")
    with page.expect_request(re.compile(r"/inspect\?")) as sent:
        again.click()
    assert f"/v1/categories/{CATEGORY}/inspect" in sent.value.url
    page.goto("about:blank")
