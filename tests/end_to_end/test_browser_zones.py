"""Zones, places that are ignored, and tiles, as the page Inspect shows them in a real browser."""

import re
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from model.networks.vgg import Teacher
from tests.end_to_end.browsing import (
    Visits,
    announced,
    choose,
    expect_verdict,
    overhang,
    payload,
    pixels,
    tab_to,
    tiles,
)
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.regions import CATEGORY, REGION, THRESHOLDS, part, png, train_panel
from tests.end_to_end.test_history import in_history

SCREENS = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "tablet": {"viewport": {"width": 820, "height": 1180}, "is_mobile": True, "has_touch": True},
}
ON_RIM, ON_FACE, ON_IGNORED = (150, 50), (50, 50), (45, 90)


@pytest.fixture(scope="module")
def panels(chromium: Browser, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(train_panel(tmp_path_factory.mktemp("panels"), teacher), device="cpu") as server:
        yield server


def answer_of(server: Server, data: bytes) -> dict:
    url = f"{server.url}/v1/categories/{CATEGORY}/inspect"
    return httpx.post(url, content=data, headers={"Content-Type": "image/png"}, timeout=60).raise_for_status().json()


def show(page: Page, name: str, data: bytes, title: str) -> None:
    choose(page, payload(f"{name}.png", data))
    expect(announced(page)).to_contain_text(f"{name}.png: {title}.")
    expect_verdict(page, title)


def layer(page: Page) -> Locator:
    """The drawing over the picture."""
    return page.get_by_role("img", name=re.compile("^Zones: "))


def test_the_zone_that_rejected_is_in_the_verdict_the_table_and_the_picture(browse: Visits, panels: Server):
    data = png(part(300, ON_RIM))
    answer = answer_of(panels, data)
    assert [zone["decision"] for zone in answer["zones"]] == ["normal", "anomalous"]
    assert [zone["threshold"] for zone in answer["zones"]] == [THRESHOLDS["face"], answer["threshold"]]
    rejected = [tile for tile in answer["tiles"] if tile["decision"] == "anomalous"]
    assert 0 < len(rejected) < len(answer["tiles"]) == 4

    visit = browse(panels.url, **SCREENS["desk"])
    page = visit.page
    show(page, "part", data, "REJECT")
    expect(page.get_by_role("article")).to_contain_text("Reject this part, or look at it. The zone “rim” rejected it.")
    expect(announced(page)).to_contain_text("The zone “rim” rejected it.")
    table = page.get_by_role("region", name="Zones", exact=True)
    for row, zone in zip(table.get_by_role("row").all()[1:], answer["zones"], strict=True):
        shown = [zone["name"], f"{zone['score']:.3g}", f"{zone['threshold']:.3g}", zone["decision"]]
        assert row.locator("th, td").all_inner_texts() == shown

    drawn = layer(page)
    expect(drawn).to_have_attribute(
        "aria-label", f"Zones: face normal, rim anomalous. 1 place ignored. {len(rejected)} of 4 tiles rejected."
    )
    assert drawn.locator("text").all_text_contents() == ["face", "✕ rim"]
    face, rim = drawn.locator(".zone").all()
    widths = [
        zone.locator(".line").evaluate("line => parseFloat(getComputedStyle(line).strokeWidth)") for zone in (face, rim)
    ]
    assert widths[1] >= 2 * widths[0]
    for zone, place in zip(REGION.zones, (face, rim), strict=True):
        expected = [[x + 0.5, y + 0.5] for x, y in zone.outlines[0]]
        assert place.locator(".line").evaluate("line => [...line.points].map(({ x, y }) => [x, y])") == expected
    boxes = drawn.locator(".tile .line").evaluate_all(
        "all => all.map(({ x, y, width, height }) => "
        "({ x: x.baseVal.value, y: y.baseVal.value, width: width.baseVal.value, height: height.baseVal.value }))"
    )
    assert boxes == [tile["box"] for tile in rejected]
    visit.shot("zone that rejected")

    table.get_by_role("row", name=re.compile("^face")).hover()
    expect(face).to_have_class(re.compile(r"\bon\b"))


def test_the_outlines_lie_where_the_region_is_and_can_be_hidden(browse: Visits, panels: Server):
    page = browse(panels.url, **SCREENS["desk"]).page
    show(page, "part", png(part(301, ON_FACE)), "REJECT")
    page.get_by_role("slider", name="Heat map").fill("0")
    page.get_by_label("Outlines").uncheck()
    expect(layer(page)).to_be_visible()
    photograph = page.get_by_role("img", name="Photograph part.png")

    def seen() -> np.ndarray:
        page.mouse.move(0, 0)
        return pixels(photograph.screenshot(caret="initial"))

    with_zones = seen()
    switch = page.get_by_label("Zones and tiles")
    switch.uncheck()
    expect(layer(page)).to_be_hidden()
    change = np.abs(with_zones - seen()).max(axis=2)
    scale = change.shape[1] / REGION.width

    def changed(x: float, y: float, reach: int = 3) -> float:
        """The largest change near a point of the picture."""
        across, down = round((x + 0.5) * scale), round((y + 0.5) * scale)
        return float(change[max(0, down - reach) : down + reach + 1, max(0, across - reach) : across + reach + 1].max())

    for zone in REGION.zones:
        for (x, y), (u, v) in zip(zone.outlines[0], zone.outlines[0][1:], strict=False):
            assert changed((x + u) / 2, (y + v) / 2) > 60
    (left, top), _, (right, bottom), _ = REGION.ignored[0]
    inside = change[round(top * scale) : round(bottom * scale), round(left * scale) : round(right * scale)]
    assert (inside > 20).mean() > 0.5  # hatched all over
    assert changed(100, 60) == changed(150, 40) == 0
    switch.check()
    expect(layer(page)).to_be_visible()


def test_a_fault_in_an_ignored_place_is_normal_and_every_zone_says_so(browse: Visits, panels: Server):
    visit = browse(panels.url)
    page = visit.page
    show(page, "stamped", png(part(302, ON_IGNORED)), "PASS")
    expect(page.get_by_role("article")).to_contain_text("This part looks like the good ones.")
    expect(page.get_by_role("article")).not_to_contain_text("rejected it")
    expect(page.get_by_role("article")).to_contain_text("None of 4 tiles rejected.")
    expect(layer(page)).to_have_attribute(
        "aria-label", "Zones: face normal, rim normal. 1 place ignored. 0 of 4 tiles rejected."
    )
    expect(page.get_by_label("Zones and tiles")).to_be_visible()  # there is no heat map to be shown beside it
    expect(page.get_by_role("slider", name="Heat map")).to_be_hidden()
    visit.shot("ignored place")


def test_several_zones_are_named_and_of_many_images_the_worst_has_its_zones(browse: Visits, panels: Server):
    page = browse(panels.url).page
    show(page, "both", png(part(303, ON_RIM, ON_FACE)), "REJECT")
    expect(page.get_by_role("article")).to_contain_text("The zones “face” and “rim” rejected it.")
    choose(page, *(payload(f"{n}.png", png(part(304 + n, *([ON_RIM] if n == 1 else [])))) for n in range(3)))
    expect_verdict(page, "1 of 3 anomalous")
    expect(page.get_by_text("The worst: 1.png")).to_be_visible()
    expect(layer(page)).to_have_attribute("aria-label", re.compile("^Zones: face normal, rim anomalous"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_zones_fit_the_screen_and_are_accessible(browse: Visits, panels: Server, screen: str, scheme: str):
    visit = browse(panels.url, color_scheme=scheme, reduced_motion="reduce", **SCREENS[screen])
    page = visit.page
    show(page, "part", png(part(300, ON_RIM)), "REJECT")
    expect(layer(page)).to_be_visible()
    expect(page.get_by_role("article").get_by_role("img", name=re.compile("^Score"))).to_be_visible()
    visit.shot(f"zones {screen} {scheme}")
    assert overhang(page) <= 0
    assert visit.findings() == []


def test_the_zones_are_hidden_with_the_keyboard(browse: Visits, panels: Server):
    page = browse(panels.url, reduced_motion="reduce", **SCREENS["desk"]).page
    show(page, "part", png(part(300, ON_RIM)), "REJECT")
    expect(tiles(page)).to_have_count(1)
    expect(layer(page)).to_be_visible()
    page.get_by_label("Outlines").focus()
    tab_to(page, page.get_by_label("Zones and tiles"))
    page.keyboard.press("Space")
    expect(layer(page)).to_be_hidden()


def test_zones_of_a_version_that_is_gone_stay_in_the_table(browse: Visits, panels: Server):
    page = browse(panels.url).page

    def newer(route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "model_version": "20300101-0123456789ab"})

    page.route(re.compile(rf"/v1/categories/{CATEGORY}$"), newer)
    show(page, "part", png(part(300, ON_RIM)), "REJECT")
    expect(page.get_by_text("The outlines of this version are not at hand any more.")).to_be_visible()
    expect(page.get_by_role("region", name="Zones", exact=True).get_by_role("row")).to_have_count(3)
    assert layer(page).locator(".zone").count() == 0


def test_a_past_inspection_shows_its_zones(browse: Visits, panels: Server):
    data = png(part(303, ON_RIM))
    query = {"part_id": "past"}
    url = f"{panels.url}/v1/categories/{CATEGORY}/inspect"
    answer = httpx.post(url, content=data, params=query, headers={"Content-Type": "image/png"}, timeout=60).json()
    in_history(panels.url, answer["id"])
    page = browse(f"{panels.url}/#/history?part_id=past").page
    page.get_by_role("link", name=re.compile("^REJECT, .* part past")).click()
    expect(layer(page)).to_have_attribute("aria-label", re.compile("Zones: .* anomalous"))
    zones = page.get_by_role("region", name="Zones").get_by_role("row")
    expect(zones).to_have_count(1 + len(REGION.zones))
    page.get_by_role("checkbox", name="Zones").uncheck()
    expect(layer(page)).to_be_hidden()


def test_the_page_of_the_category_names_its_zones_and_leads_to_the_drawing(browse: Visits, panels: Server):
    page = browse(panels.url + f"/#/categories/{CATEGORY}").page
    record = page.get_by_role("main")
    expect(record.get_by_text("face, rim; 1 place ignored")).to_be_visible()
    expect(record.get_by_text("1 × 2 of each zone, overlap 10 %")).to_be_visible()  # noqa: RUF001
    page.get_by_role("link", name="Draw it").click()
    expect(page.get_by_role("heading", name="Region", exact=True)).to_be_visible()
    expect(page.get_by_label("or begin with the region of")).to_have_value(CATEGORY)


def test_the_views_of_a_part_show_their_zones(browse: Visits, panels: Server):
    page = browse(panels.url + "/#/part").page
    files = [
        payload(f"{CATEGORY} {side}.png", png(part(310, *faults))) for side, faults in (("a", ()), ("b", (ON_RIM,)))
    ]
    page.get_by_label("Choose pictures").set_input_files(files)
    page.get_by_role("button", name="Judge this part").click()
    expect(page.get_by_role("heading", name="REJECT", exact=True)).to_be_visible()
    views = page.get_by_role("list", name="Pictures of this part").get_by_role("listitem")
    expect(views.nth(0).get_by_role("img", name=re.compile("^Zones: face normal, rim normal"))).to_be_visible()
    expect(views.nth(1).get_by_role("img", name=re.compile("^Zones: face normal, rim anomalous"))).to_be_visible()
    expect(views.nth(0)).not_to_contain_text("rejected it")
    expect(views.nth(1)).to_contain_text("The zone “rim” rejected it.")
