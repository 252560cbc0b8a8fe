"""No verdict is shown as current when it is not, in a real browser: what changes behind an open tab shows at once."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.conftest import ROOT, Factory
from tests.end_to_end.browsing import Visits, announced, choose, expect_verdict, payload
from tests.end_to_end.conftest import Server, running_server

CATEGORY = "machined-plate"
OTHER = "striped"
LATER = "No current verdict"
GONE = r"net::ERR_|status of 503"


@pytest.fixture
def changing(chromium: Browser, factory: Factory, tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server that looks at its own weights folder each second: the built-in category, and ``striped``."""
    weights = tmp_path / "weights"
    shutil.copytree(ROOT / "weights", weights)
    shutil.copytree(factory.weights / "teachers", weights / "teachers", dirs_exist_ok=True)
    shutil.copytree(factory.weights / OTHER, weights / OTHER)
    with running_server(weights, device="cpu", reload_seconds="1") as server:
        yield server, weights


def verdict(page: Page) -> Locator:
    """The large verdict and what stands beside it."""
    return page.get_by_role("article")


def inspect_good(page: Page) -> None:
    """Gives the page its first verdict, of the built-in category."""
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    page.get_by_role("button", name="good", exact=True).click()
    expect_verdict(page, "Normal")


def solid(page: Page) -> bool:
    """Whether the verdict fills its place with its colour, which is what is seen from far away."""
    place = verdict(page).get_by_role("heading", level=2).locator("xpath=../..")
    return place.evaluate("element => getComputedStyle(element).backgroundColor") != page.evaluate(
        "getComputedStyle(document.querySelector('.panel')).backgroundColor"
    )


def test_a_verdict_is_not_current_while_the_server_does_not_answer(browse: Visits, plates: Server):
    visit = browse(plates.url, expected="ERR_INTERNET_DISCONNECTED")
    page = visit.page
    page.clock.set_fixed_time(datetime.now())
    inspect_good(page)
    assert solid(page)
    page.context.set_offline(True)
    expect_verdict(page, LATER)
    assert not solid(page)
    expect(verdict(page)).to_contain_text("The server does not answer.")
    expect(verdict(page)).to_contain_text("The last one was: Normal.")
    visit.shot("not current, server gone")
    page.context.set_offline(False)
    expect_verdict(page, "Normal")
    assert solid(page)


def test_a_verdict_is_not_current_when_the_server_has_not_been_heard_of(browse: Visits, plates: Server):
    """As after the sleep of a tab or of the whole computer: nothing has failed, but nothing is known either."""
    visit = browse(plates.url)
    page = visit.page
    start = datetime.now()
    page.clock.set_fixed_time(start)
    inspect_good(page)
    held: list[Route] = []
    page.route("**/v1/categories", lambda route: held.append(route))  # asked, and not answered
    page.clock.set_fixed_time(start + timedelta(seconds=31))
    expect_verdict(page, LATER)
    expect(verdict(page)).to_contain_text("The server last answered at")
    page.unroute("**/v1/categories")
    for route in held:
        route.continue_()
    expect_verdict(page, "Normal")


def test_a_verdict_is_not_current_when_no_image_has_come_for_two_minutes(browse: Visits, plates: Server):
    visit = browse(plates.url)
    page = visit.page
    start = datetime.now()
    page.clock.set_fixed_time(start)
    inspect_good(page)
    page.clock.set_fixed_time(start + timedelta(seconds=119))
    expect(verdict(page)).to_contain_text("1 min ago")
    expect_verdict(page, "Normal")
    page.clock.set_fixed_time(start + timedelta(seconds=121))
    expect(verdict(page)).to_contain_text("2 min ago")
    expect_verdict(page, LATER)
    expect(verdict(page)).to_contain_text("No image has come since.")
    page.get_by_role("button", name="good.png: normal").click()
    expect_verdict(page, "Normal")
    expect(verdict(page)).to_contain_text("Picked from the list")
    assert not solid(page)


def test_a_verdict_is_not_current_when_the_next_image_is_for_another_category(
    browse: Visits, changing: tuple[Server, Path]
):
    visit = browse(changing[0].url)
    page = visit.page
    inspect_good(page)
    page.get_by_label("Category", exact=True).select_option(OTHER)
    expect_verdict(page, LATER)
    expect(verdict(page)).to_contain_text(f"The next image is for {OTHER}, not for {CATEGORY}.")
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    expect_verdict(page, "Normal")
    page.goto("about:blank")


def test_a_category_that_is_refused_takes_no_images_and_no_other_takes_its_place(
    browse: Visits, changing: tuple[Server, Path]
):
    server, weights = changing
    visit = browse(server.url)
    page = visit.page
    inspect_good(page)
    shutil.rmtree(weights / CATEGORY)
    assert httpx.post(f"{server.url}/v1/categories/{CATEGORY}/reload").status_code == 409
    expect_verdict(page, LATER)
    expect(verdict(page)).to_contain_text(f"The category {CATEGORY} is refused now.")
    expect(page.get_by_label("Category", exact=True)).to_have_value(CATEGORY)
    expect(page.get_by_text(f"The category {CATEGORY} is refused and takes no images.")).to_be_visible()
    expect(page.get_by_label("Choose images")).to_be_disabled()
    expect(announced(page)).to_contain_text("The verdict is not current any more.")
    visit.shot("not current, category refused")
    page.reload()
    expect(page.get_by_label("Category", exact=True)).to_have_value(CATEGORY)
    page.get_by_label("Category", exact=True).select_option(OTHER)
    expect(page.get_by_label("Choose images")).to_be_enabled()
    page.goto("about:blank")


def test_an_image_that_fails_after_one_that_was_normal_has_no_verdict(browse: Visits, plates: Server):
    page = browse(plates.url, expected="ERR_FAILED|status of 422").page
    inspect_good(page)
    choose(page, payload("broken.png", b"nonsense"))
    expect_verdict(page, "No verdict")
    page.get_by_role("button", name="good", exact=True).click()
    expect_verdict(page, "Normal")
    page.route("**/console/samples/*", lambda route: route.abort())
    page.get_by_role("button", name="scratch", exact=True).click()
    expect_verdict(page, "No verdict")
    expect(verdict(page)).to_contain_text("scratch.png")
