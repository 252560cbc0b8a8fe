"""No verdict is shown as current when it is not, in a real browser: what changes behind an open tab shows at once."""

import json
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import httpx
from playwright.sync_api import Locator, Page, Route, expect

from tests.conftest import Factory
from tests.end_to_end.browsing import Visits, announced, choose, expect_verdict, payload, sample, tiles
from tests.end_to_end.conftest import Server
from tests.end_to_end.test_browser import downloaded, show_only
from tests.service.cli.test_cli import run

CATEGORY = "machined-plate"
OTHER = "striped"
LATER = "No current verdict"
GONE = r"net::ERR_|status of 503"


def verdict(page: Page) -> Locator:
    """The large verdict and what stands beside it."""
    return page.get_by_role("article")


def inspect_good(page: Page) -> None:
    """Gives the page its first verdict, of the built-in category."""
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    page.get_by_role("button", name="good", exact=True).click()
    expect_verdict(page, "PASS")


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
    expect(verdict(page)).to_contain_text("The last one was: PASS.")
    visit.shot("not current, server gone")
    page.context.set_offline(False)
    expect_verdict(page, "PASS")
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
    expect_verdict(page, "PASS")


def test_a_verdict_is_not_current_when_no_image_has_come_for_two_minutes(browse: Visits, plates: Server):
    visit = browse(plates.url)
    page = visit.page
    start = datetime.now()
    page.clock.set_fixed_time(start)
    inspect_good(page)
    page.clock.set_fixed_time(start + timedelta(seconds=119))
    expect(verdict(page)).to_contain_text("1 min ago")
    expect_verdict(page, "PASS")
    page.clock.set_fixed_time(start + timedelta(seconds=121))
    expect(verdict(page)).to_contain_text("2 min ago")
    expect_verdict(page, LATER)
    expect(verdict(page)).to_contain_text("No image has come since.")
    page.get_by_role("button", name="good.png: normal").click()
    expect_verdict(page, "PASS")
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
    expect_verdict(page, "PASS")
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
    expect_verdict(page, "PASS")
    page.route("**/console/samples/*", lambda route: route.abort())
    page.get_by_role("button", name="scratch", exact=True).click()
    expect_verdict(page, "No verdict")
    expect(verdict(page)).to_contain_text("scratch.png")


def card_of(server: Server) -> dict:
    """The card that serves now."""
    return httpx.get(f"{server.url}/v1/categories/{OTHER}").raise_for_status().json()["card"]


def calibrate(weights: Path, normal: list[Path], anomalous: list[Path], folder: Path) -> None:
    """Calibrates ``striped`` on these images, with the command that a person uses."""
    for kind, paths in (("normal", normal), ("anomalous", anomalous)):
        (folder / kind).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, folder / kind)
    options = ["--normal", folder / "normal", "--anomalous", folder / "anomalous", "--weights", weights]
    run("calibrate", OTHER, *options)


def test_open_tabs_follow_a_calibration_at_once(
    browse: Visits, changing: tuple[Server, Path], factory: Factory, tmp_path: Path
):
    """The verdict before, the threshold, its slider and its histogram: all come from the card that serves now."""
    server, weights = changing
    old = card_of(server)
    visit = browse(server.url)
    page = visit.page
    page.clock.set_fixed_time(datetime.now())
    page.get_by_label("Category", exact=True).select_option(OTHER)
    part = payload("part.png", (factory.data / "good" / "000.png").read_bytes())
    choose(page, part)
    expect_verdict(page, "PASS")
    open_card = browse(f"{server.url}/#/categories/{OTHER}")
    card_page = open_card.page
    current = card_page.get_by_role("columnheader", name=re.compile("^current"))
    expect(current).to_have_text(f"current, {old['calibration']['threshold']:.4g}")
    slider = card_page.get_by_role("slider", name="Threshold")
    slider.press("End")

    good, bad = (sorted((factory.data / kind).iterdir())[:5] for kind in ("good", "bad"))
    calibrate(weights, good, bad, tmp_path / "few")
    expect_verdict(page, LATER)
    new = card_of(server)
    thresholds = old["calibration"]["threshold"], new["calibration"]["threshold"]
    assert thresholds[0] != thresholds[1]
    assert old["model_version"] != new["model_version"]
    expect(verdict(page)).to_contain_text(f"{OTHER} has another version now.")
    expect(verdict(page)).to_contain_text(
        f"It was version {old['model_version']} with the threshold {thresholds[0]:.3g}. "
        f"Now it is version {new['model_version']} with the threshold {thresholds[1]:.3g}."
    )
    expect(announced(page)).to_contain_text("The verdict is not current any more.")
    visit.shot("not current, new version")

    expect(current).to_have_text(f"current, {thresholds[1]:.4g}")
    expect(card_page.get_by_text(re.compile("^A new version came at"))).to_be_visible()
    expect(slider).to_be_focused()  # as it was before
    tried = card_page.get_by_role("status").filter(has_text=re.compile(r"^[\d.]+$"))
    expect(tried).to_have_text(f"{thresholds[1]:.4g}")
    edges = new["calibration"]["histogram"]["edges"]
    name = f"Histogram of the calibration scores, from {edges[0]:.3g} to {edges[-1]:.3g}"
    expect(card_page.get_by_role("img", name=name)).to_be_visible()
    slider.press("Home")
    lowest = min(edges[0], *new["calibration"]["roc"]["threshold"])
    expect(tried).to_have_text(f"{lowest:.4g}")
    expect(card_page.get_by_role("row", name=re.compile("^False alarms"))).to_contain_text("5 of 5")
    open_card.shot("new version of an open category")

    with page.expect_response(re.compile(f"/v1/categories/{OTHER}$")) as asked:  # for the new histogram
        page.get_by_role("button", name="Inspect it again").click()
    assert asked.value.json()["card"] == new
    expect(tiles(page)).to_have_count(2)
    expect(verdict(page)).to_contain_text(f"threshold {thresholds[1]:.3g}")
    expect(verdict(page)).not_to_contain_text("An earlier version decided this.")
    expect(verdict(page).get_by_role("heading", level=2)).not_to_have_text(LATER)

    tiles(page).last.click()  # the verdict before keeps what decided it
    expect(verdict(page)).to_contain_text("An earlier version decided this.")
    expect(verdict(page)).to_contain_text(f"threshold {thresholds[0]:.3g}")
    rows = downloaded(page)
    assert [row["model_version"] for row in rows] == [old["model_version"], new["model_version"]]
    assert [float(row["threshold"]) for row in rows] == list(thresholds)
    for tab in (page, card_page):
        tab.goto("about:blank")


def test_an_anomalous_part_without_a_region_shows_where_the_heat_map_is_strongest(
    browse: Visits, changing: tuple[Server, Path], factory: Factory
):
    server, weights = changing
    path = weights / OTHER / "card.json"
    card = json.loads(path.read_text())
    card["map_scale"] *= 1e4  # so that no map reaches the level of good parts
    card["other_map_scales"] = {form: scale * 1e4 for form, scale in card["other_map_scales"].items()}
    path.write_text(json.dumps(card))
    httpx.post(f"{server.url}/v1/categories/{OTHER}/reload").raise_for_status()
    faulty = (factory.data / "bad" / "000.png").read_bytes()
    url = f"{server.url}/v1/categories/{OTHER}/inspect"
    answer = httpx.post(url, content=faulty, headers={"Content-Type": "image/png"}).raise_for_status().json()
    assert answer["decision"] == "anomalous"
    assert answer["localization"]["regions"] == []
    peak = answer["localization"]["peak"]

    visit = browse(server.url)
    page = visit.page
    page.get_by_label("Category", exact=True).select_option(OTHER)
    choose(page, payload("part.png", faulty))
    expect_verdict(page, "REJECT")
    expect(verdict(page).get_by_role("heading", name="No region stands out")).to_be_visible()
    expect(verdict(page)).to_contain_text("The score is the mean of the largest differences at single places.")
    expect(verdict(page)).to_contain_text(f"It is strongest at {peak['x']}, {peak['y']},")
    ring = page.locator(".outlines circle").first
    assert ring.evaluate("circle => [circle.cx.baseVal.value, circle.cy.baseVal.value]") == [
        peak["x"] + 0.5,
        peak["y"] + 0.5,
    ]
    visit.shot("no region")
    page.get_by_label("Outlines").uncheck()
    expect(ring).to_be_hidden()
    page.goto("about:blank")


def test_the_figures_of_the_page_live_are_dated_while_the_server_does_not_answer(browse: Visits, plates: Server):
    visit = browse(plates.url + "/#/live", expected="ERR_INTERNET_DISCONNECTED")
    page = visit.page
    expect(page.get_by_text("Over the last")).to_be_visible()
    page.context.set_offline(True)
    expect(page.get_by_text(re.compile("^The figures below are of"))).to_be_visible()
    visit.shot("live, server gone")
    page.context.set_offline(False)
    expect(page.get_by_text(re.compile("^The figures below are of"))).to_be_hidden()


def test_a_category_that_does_not_separate_is_marked_wherever_it_is_shown(
    browse: Visits, changing: tuple[Server, Path], factory: Factory, tmp_path: Path
):
    """Most of its faulty parts look like the good ones, so its verdicts mean nothing."""
    server, weights = changing
    title, tag = "Does not separate faulty parts from good ones.", "does not separate"
    visit = browse(server.url)
    page = visit.page
    good = sorted((factory.data / "good").iterdir())
    calibrate(weights, good[::2], [*good[1::2], sorted((factory.data / "bad").iterdir())[1]], tmp_path / "useless")
    expect(page.get_by_role("option", name=f"{OTHER} ({tag})")).to_be_attached()
    page.get_by_label("Category", exact=True).select_option(OTHER)
    expect(page.get_by_role("main").get_by_text(title)).to_be_visible()
    for name, kind in (("000.png", "bad"), ("001.png", "good")):
        choose(page, payload(f"{kind}.png", (factory.data / kind / name).read_bytes()))
        expect(announced(page)).to_contain_text(f"{kind}.png: ")
        expect(announced(page)).to_contain_text(title)
        expect(verdict(page)).to_contain_text("Do not rely on this")
        expect(verdict(page)).to_contain_text("Look at the part itself: this category cannot tell.")
        expect(verdict(page).get_by_text(title)).to_be_visible()
        expect(verdict(page)).not_to_contain_text(re.compile("Reject this part|looks like the good ones"))
        assert not solid(page)
    visit.shot("does not separate")
    assert visit.findings() == []
    choose(page, *(payload(path.name, path.read_bytes()) for path in good[:2]))
    expect(announced(page)).to_contain_text("2 images: ")
    expect(verdict(page)).to_contain_text("Do not rely on this")
    expect(verdict(page).get_by_text(title)).to_be_visible()
    assert not solid(page)
    small = [*tiles(page).all(), *verdict(page).get_by_role("button", name=re.compile("^Show ")).all()]
    assert len(small) == 4 + 2
    background = page.evaluate("getComputedStyle(document.querySelector('.panel')).backgroundColor")
    for button in small:
        expect(button).to_have_attribute("aria-label", re.compile("(normal|anomalous), do not rely on this"))
        badge = button.locator(".badge")
        assert badge.evaluate("element => getComputedStyle(element).backgroundColor") == background
        expect(badge.locator("use")).to_have_attribute("href", "#failed")
    assert [row["separates"] for row in downloaded(page)] == ["false"] * 4
    page.get_by_role("link", name="About it").click()
    listed = page.get_by_role("navigation", name="Categories").get_by_role("link", name=re.compile(OTHER))
    expect(listed).to_contain_text(tag)
    expect(page.get_by_role("main").get_by_text(title).last).to_be_visible()
    expect(page.get_by_text(re.compile("^The server says: does not separate: the AUROC is"))).to_be_visible()
    visit.shot("category that does not separate")
    assert visit.findings() == []
    page.goto(server.url + "/#/live")
    expect(page.get_by_role("row", name=re.compile(f"^{OTHER} {tag}"))).to_be_visible()
    page.goto("about:blank")


def test_the_verdict_is_the_decision_of_the_answer(browse: Visits, plates: Server):
    """The page compares no score with a threshold: where the two seem to say otherwise, the decision counts."""
    page = browse(plates.url).page

    def turned(route: Route) -> None:
        response = route.fetch()
        answer = response.json()
        other = {"normal": ("anomalous", "fail"), "anomalous": ("normal", "pass")}[answer["decision"]]
        route.fulfill(response=response, json={**answer, "decision": other[0], "verdict": other[1]})

    page.route(re.compile(r"/inspect\?"), turned)
    for name, title, decision in (("scratch", "PASS", "normal"), ("good", "REJECT", "anomalous")):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.get_by_role("button", name=f"{name}.png: {decision}")).to_be_visible()
        expect_verdict(page, title)
    assert [row["decision"] for row in downloaded(page)] == ["normal", "anomalous"]
    show_only(page, "Anomalous")
    expect(tiles(page)).to_have_count(1)
    choose(page, *(payload(f"{name}.png", sample(name)) for name in ("good", "scratch", "pit")))
    expect_verdict(page, "1 of 3 anomalous")
