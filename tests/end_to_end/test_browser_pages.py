"""The console's other pages, its looks on other screens, and its accessibility, in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from service.choices import Role
from service.http.keys import create_key
from tests.conftest import ROOT, Factory
from tests.end_to_end.browsing import (
    Visit,
    Visits,
    announced,
    brightness,
    choose,
    expect_verdict,
    overhang,
    payload,
    sample,
    tiles,
)
from tests.end_to_end.conftest import Server, running_server

CATEGORY = "machined-plate"
CARD = json.loads((ROOT / "weights" / CATEGORY / "card.json").read_text())
PHONE = {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True}
TABLET = {"viewport": {"width": 820, "height": 1180}, "is_mobile": True, "has_touch": True}
UNCALIBRATED = "Not calibrated with real faults."
PASTED = "defects that the software itself pasted on their images"


@pytest.fixture(scope="module")
def mixed(chromium: Browser, factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The built-in category, ``brushed`` without defects in its calibration, and ``fresh``, which is damaged."""
    weights = tmp_path_factory.mktemp("mixed") / "weights"
    shutil.copytree(ROOT / "weights", weights)
    shutil.copytree(factory.weights, weights, dirs_exist_ok=True, ignore=shutil.ignore_patterns("striped"))
    (weights / "fresh" / "student.safetensors").write_bytes(b"damaged")
    with running_server(weights, device="cpu") as server:
        yield server


def figure(page: Page, name: str) -> str:
    """A number of the page Live."""
    return page.get_by_role("term").filter(has_text=re.compile(f"^{name}$")).locator("+ dd").inner_text()


def of(part: int, whole: int) -> str:
    """A count as the page writes it, without the share that follows."""
    return f"{part} of {whole} "


def corner_at(threshold: float) -> tuple[int, int]:
    """False alarms and misses of a threshold, from the ROC curve of the card: the last corner at or above it."""
    calibration = CARD["calibration"]
    curve = calibration["roc"]
    corners = zip(curve["threshold"], curve["false_alarm_rate"], curve["detection_rate"], strict=True)
    alarms, found = [(alarms, found) for at, alarms, found in corners if at >= threshold][-1]
    normal, anomalous = calibration["normal_images"], calibration["anomalous_images"]
    return round(alarms * normal), anomalous - round(found * anomalous)


def bins_from(edge: float) -> tuple[int, int]:
    """False alarms and misses of a threshold that is an edge of the histogram's bins."""
    bins = CARD["calibration"]["histogram"]
    at = bins["edges"].index(edge)
    return sum(bins["normal"][at:]), sum(bins["anomalous"][:at])


def test_the_slider_tells_what_the_card_says_of_each_threshold(browse: Visits, plates: Server):
    calibration = CARD["calibration"]
    normal, anomalous = calibration["normal_images"], calibration["anomalous_images"]
    known = {f"{at:.4g}": corner_at(at) for at in calibration["roc"]["threshold"]}
    for edge in calibration["histogram"]["edges"][:-1]:
        known.setdefault(f"{edge:.4g}", bins_from(edge))
    current = corner_at(calibration["threshold"])
    known[f"{calibration['threshold']:.4g}"] = current

    visit = browse(f"{plates.url}/#/categories/{CATEGORY}")
    page = visit.page
    slider = page.get_by_role("slider", name="Threshold")
    tried = page.get_by_role("status").filter(has_text=re.compile(r"^[\d.]+$"))
    alarms = page.get_by_role("row", name=re.compile("^False alarms")).get_by_role("cell")
    misses = page.get_by_role("row", name=re.compile("^Misses")).get_by_role("cell")
    expect(tried).to_have_text(f"{calibration['threshold']:.4g}")
    for cells, number, whole in ((alarms, current[0], normal), (misses, current[1], anomalous)):
        for cell in cells.all():
            expect(cell).to_contain_text(of(number, whole))
    visit.shot("category")

    slider.press("Home")
    seen = []
    for _ in range(200):
        threshold = tried.inner_text()
        expected = known[threshold]
        shown = alarms.last.inner_text(), misses.last.inner_text()
        assert shown[0].startswith(of(expected[0], normal)), threshold
        assert shown[1].startswith(of(expected[1], anomalous)), threshold
        seen.append((float(threshold), *expected))
        slider.press("ArrowRight")
        if tried.inner_text() == threshold:
            break
    assert {f"{threshold:.4g}" for threshold, *_ in seen} == set(known)
    assert seen == sorted(seen)
    assert [found[1] for found in seen] == sorted((found[1] for found in seen), reverse=True)
    assert [found[2] for found in seen] == sorted(found[2] for found in seen)
    page.get_by_role("button", name="Back").click()
    expect(tried).to_have_text(f"{calibration['threshold']:.4g}")


def test_a_category_shows_its_record(browse: Visits, plates: Server):
    page = browse(plates.url).page
    page.get_by_role("link", name="About it").click()
    detail = page.get_by_role("main")
    for text in (
        CARD["model_version"],
        CARD["teacher"]["name"],
        CARD["student_sha256"][:16],
        f"{CARD['training']['epochs']} of batches of {CARD['training']['batch_size']}",
        "Youden index",
    ):
        expect(detail.get_by_text(text).first).to_be_visible()
    area = f"{CARD['calibration']['auroc']:.4g}"
    expect(detail.get_by_text("area under the curve").locator("..")).to_have_text(re.compile(rf"^{area}\s*area"))
    expect(detail.get_by_role("term").get_by_text("Score", exact=True).locator("..")).to_contain_text(CARD["score"])
    expect(page.get_by_role("img", name=re.compile("^ROC curve, area"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Histogram of the calibration scores"))).to_be_visible()
    expect(page.get_by_text(UNCALIBRATED)).to_be_hidden()


def test_charts_have_numbers_and_marks_and_fit_the_window(browse: Visits, plates: Server):
    page = browse(f"{plates.url}/#/categories/{CATEGORY}").page
    scores = page.get_by_role("img", name=re.compile("^Histogram of the calibration scores"))
    written = scores.locator("text")
    expect(written.filter(has_text=re.compile("^current$"))).to_have_count(1)
    texts = written.all_text_contents()
    assert {"score", "images", "0", "60"} <= set(texts)  # all normal images lie in the first bin
    assert len([one for one in texts if re.fullmatch(r"[\d.]+", one)]) >= 6
    expect(written.filter(has_text="tried")).to_have_count(0)
    page.get_by_role("slider", name="Threshold").press("End")
    expect(written.filter(has_text=re.compile("^tried$"))).to_have_count(1)
    curve = page.get_by_role("img", name=re.compile("^ROC curve, area"))
    assert [one for one in curve.locator("text").all_text_contents() if one == "0.4"] == ["0.4", "0.4"]
    expect(curve.locator("circle")).to_have_count(2)
    page.set_viewport_size({"width": 390, "height": 844})
    for chart in (scores, curve):
        expect(chart.locator("svg")).to_have_attribute("width", str(chart.evaluate("element => element.clientWidth")))
    assert overhang(page) <= 0


def test_a_category_that_no_defect_calibrated_is_shown_with_a_warning(browse: Visits, mixed: Server, factory: Factory):
    visit = browse(mixed.url)
    page = visit.page
    page.get_by_label("Category", exact=True).select_option("brushed")
    expect(page.get_by_text(UNCALIBRATED)).to_be_visible()
    choose(page, payload("part.png", (factory.data / "bad" / "000.png").read_bytes()))
    expect(announced(page)).to_contain_text("part.png: ")
    expect(page.get_by_role("article").get_by_text(UNCALIBRATED)).to_be_visible()
    expect(page.get_by_role("article").get_by_text(PASTED)).to_be_visible()
    visit.shot("not calibrated")
    warnings = page.get_by_role("main").get_by_text(UNCALIBRATED)
    expect(warnings).to_have_count(2)
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    expect(warnings).to_have_count(1)  # beside the verdict that was given before
    page.goto(mixed.url + "/#/categories/brushed")
    expect(page.get_by_role("heading", name="brushed")).to_be_visible()
    expect(page.get_by_role("main").get_by_text(UNCALIBRATED).last).to_be_visible()
    expect(page.get_by_role("main").get_by_text(PASTED).last).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^Misses"))).to_contain_text("unknown")
    calibration = httpx.get(mixed.url + "/v1/categories/brushed").json()["card"]["calibration"]
    current = f"^{calibration['threshold']:.4g}$"
    expect(page.get_by_role("status").filter(has_text=re.compile(current))).to_be_visible()
    rate = calibration["false_alarms"]
    expect(page.get_by_role("row", name=re.compile("^False alarms"))).to_contain_text(
        f"{rate['errors']} of {rate['parts']}"
    )
    expect(
        page.get_by_text(re.compile("^Now: Of new good parts, about .* with 95 % confidence at most"))
    ).to_be_visible()
    visit.shot("category not calibrated")


def test_a_refused_category_is_shown_with_its_reason(browse: Visits, mixed: Server):
    visit = browse(mixed.url)
    page = visit.page
    refused = page.get_by_role("option", name="fresh (refused)")
    expect(refused).to_be_disabled()
    reason = httpx.get(mixed.url + "/v1/categories/fresh").json()["reason"]
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Categories").click()
    listed = page.get_by_role("navigation", name="Categories").get_by_role("link")
    for name, tag in ((CATEGORY, "ready"), ("brushed", "not calibrated with real faults"), ("fresh", "refused")):
        expect(listed.filter(has_text=re.compile(f"^{name} ?{tag}$"))).to_be_visible()
    listed.filter(has_text="fresh").click()
    expect(page.get_by_role("heading", name="This category is refused")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text(reason)
    visit.shot("category refused")


def test_the_page_live_shows_the_numbers_of_what_is_inspected(browse: Visits, plates: Server):
    visit = browse(plates.url + "/#/live")
    page = visit.page
    expect(page.get_by_role("img", name="Images per second over time")).to_be_visible()
    url = f"{plates.url}/v1/categories/{CATEGORY}/inspect"
    for name in ("good", "scratch", "pit"):
        httpx.post(url, content=sample(name), headers={"Content-Type": "image/png"}).raise_for_status()
    httpx.post(url, content=b"nonsense", headers={"Content-Type": "image/png"})
    row = page.get_by_role("row", name=re.compile(f"^{CATEGORY}"))
    expect(row.get_by_role("cell")).to_have_text(["1", "2", "1", re.compile("^67 %")])
    assert float(figure(page, "Throughput")) > 0
    for name in ("p50", "p99"):
        assert re.fullmatch(r"[\d.]+ m?s", figure(page, name))
    assert figure(page, "Queue") == "0"
    assert float(figure(page, "Batch")) >= 1
    assert figure(page, "Problems") == "1"
    visit.shot("live")


def states_of(visit: Visit, server: Server) -> Iterator[str]:
    """Brings a page into its states, one after the other, and tells their names."""
    page = visit.page
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    yield "first visit"
    page.get_by_role("button", name="scratch", exact=True).click()
    expect_verdict(page, "REJECT")
    expect(page.get_by_role("article").get_by_role("img", name=re.compile("^Score"))).to_be_visible()
    yield "anomalous"
    choose(page, payload("good with a long name of a camera 2026-11-24.png", sample("good")))
    expect_verdict(page, "PASS")
    yield "normal"
    choose(
        page, payload("broken.png", b"nonsense"), *(payload(f"{name}.png", sample(name)) for name in ("pit", "dent"))
    )
    expect(announced(page)).to_contain_text("3 images")
    expect_verdict(page, "2 of 3 anomalous")
    yield "batch"
    page.get_by_label("Category", exact=True).select_option("brushed")
    expect_verdict(page, "No current verdict")
    yield "not current"
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    page.get_by_role("button", name="pit.png: anomalous").click()
    expect_verdict(page, "REJECT")
    yield "picked"
    page.get_by_role("button", name="broken.png: no verdict").click()
    expect_verdict(page, "No verdict")
    yield "no verdict"
    page.get_by_label("Category", exact=True).select_option("brushed")
    expect(page.get_by_text(UNCALIBRATED)).to_be_visible()
    yield "not calibrated"
    for name, heading in ((CATEGORY, "ROC curve"), ("brushed", "ROC curve"), ("fresh", "This category is refused")):
        page.goto(f"{server.url}/#/categories/{name}")
        expect(page.get_by_role("heading", name=name)).to_be_visible()
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        yield f"category {name}"
    page.goto(server.url + "/#/live")
    expect(page.get_by_text("Over the last")).to_be_visible()
    yield "live"
    page.goto(server.url + "/#/inspect")
    page.context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    yield "server gone"
    page.context.set_offline(False)
    expect(page.get_by_role("alert")).to_be_hidden()


EXPECTED = "status of 422|ERR_INTERNET_DISCONNECTED"


@pytest.mark.parametrize(("screen", "options"), [("phone", PHONE), ("tablet", TABLET)])
def test_nothing_hangs_over_the_edge_of_a_narrow_screen(
    browse: Visits, mixed: Server, screen: str, options: dict[str, object]
):
    visit = browse(mixed.url, expected=EXPECTED, **options)
    for state in states_of(visit, mixed):
        visit.shot(f"{screen} {state}")
        assert overhang(visit.page) <= 0, state
    expect(visit.page.get_by_label("Take a photo")).to_be_attached()
    expect(visit.page.get_by_text("Take a photo")).to_be_visible()
    assert tiles(visit.page).count() == 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_and_state_is_accessible_in_light_and_dark(browse: Visits, mixed: Server, scheme: str):
    visit = browse(mixed.url, expected=EXPECTED, color_scheme=scheme, reduced_motion="reduce")
    for state in states_of(visit, mixed):
        assert visit.findings() == [], state
        level = brightness(visit.page)
        assert level < 60 if scheme == "dark" else level > 200, (state, level)
        visit.shot(f"{scheme} {state}")


def test_the_dialog_for_the_key_and_an_empty_server_are_accessible(browse: Visits, tmp_path: Path):
    (tmp_path / "weights").mkdir()
    key = create_key(tmp_path / "keys", "line", Role.INSPECT)
    with running_server(tmp_path / "weights", device="cpu", keys_file=str(tmp_path / "keys")) as server:
        for scheme in ("light", "dark"):
            visit = browse(server.url, expected="status of (401|503)", color_scheme=scheme, reduced_motion="reduce")
            page = visit.page
            dialog = page.get_by_role("dialog")
            expect(dialog).to_be_visible()
            assert visit.findings() == [], scheme
            visit.shot(f"{scheme} key")
            dialog.get_by_label("API key").fill(key)
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", name="No category is ready yet")).to_be_visible()
            expect(page.get_by_text("No category", exact=True)).to_be_visible()
            assert visit.findings() == [], scheme
            visit.shot(f"{scheme} no category")
            page.goto(server.url + "/#/categories")
            expect(page.get_by_role("heading", name="There is no category yet")).to_be_visible()
            assert visit.findings() == [], scheme
            page.goto("about:blank")  # so that it does not ask a server that ends


def test_the_interactive_documentation_works_under_its_policy(browse: Visits, plates: Server):
    visit = browse(plates.url + "/docs")
    page = visit.page
    paths = httpx.get(plates.url + "/openapi.json").json()["paths"]
    expect(page.get_by_role("button", name=re.compile("readyz")).first).to_be_visible()
    shown = page.locator("body").inner_text().replace("\u200b", "")  # where it may break
    for path in paths:
        assert path in shown
    page.get_by_role("button", name=re.compile("readyz")).first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.get_by_text('"ready"').first).to_be_visible()
    visit.shot("docs")
