"""The page Inspect as a person uses it, in a real browser, with the built-in category."""

import csv
import json
import re
import time
from io import StringIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from model.lab.synthetic import DEFECTS
from service.choices import Role
from service.http.keys import create_key
from tests.conftest import ROOT, Factory
from tests.end_to_end.browsing import (
    Visits,
    announced,
    choose,
    expect_verdict,
    payload,
    pixels,
    sample,
    tab_to,
    tiles,
)
from tests.end_to_end.conftest import GatedServer, Server, running_server

CATEGORY = "machined-plate"
GONE = r"net::ERR_|status of 503"
"""What a browser may report of a server that ends or has ended."""


def answer_of(server: Server, data: bytes) -> dict:
    """What the API answers of an image, asked without a browser."""
    url = f"{server.url}/v1/categories/{CATEGORY}/inspect"
    return httpx.post(url, content=data, headers={"Content-Type": "image/png"}, timeout=60).raise_for_status().json()


def downloaded(page: Page) -> list[dict[str, str]]:
    """The rows of the CSV file that the page gives."""
    with page.expect_download() as begun:
        page.get_by_role("button", name="Download CSV").click()
    assert re.fullmatch(r"inspection-[\dT-]+\.csv", begun.value.suggested_filename)
    data = Path(begun.value.path()).read_bytes()
    return list(csv.DictReader(StringIO(data.decode("utf-8-sig"), newline="")))


def show_only(page: Page, filter_name: str) -> None:
    page.get_by_role("group", name="Show").get_by_text(filter_name).click()


def test_a_newcomer_has_found_a_defect_after_one_click(browse: Visits, plates: Server):
    visit = browse(plates.url)
    page = visit.page
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    expect(page.get_by_label("Category", exact=True)).to_have_value(CATEGORY)
    for name in ("good", *DEFECTS):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()
    visit.shot("first visit")
    with page.expect_response(re.compile("/inspect")) as arrived:
        page.get_by_role("button", name="scratch", exact=True).click()
    expect_verdict(page, "REJECT")
    result = page.get_by_role("article")
    answer = arrived.value.json()
    expect(result).to_contain_text("Reject this part")
    expect(result.get_by_role("img", name=re.compile("^Score .+ histogram"))).to_be_visible()
    expect(result).to_contain_text(f"threshold {answer['threshold']:.3g}")
    expect(result.get_by_text(f"{answer['score']:.3g}", exact=True)).to_be_visible()
    for stage in ("read", "wait", "score", "locate"):
        expect(result.get_by_role("term").filter(has_text=re.compile(f"^{stage}$"))).to_be_visible()
    request_id = arrived.value.headers["x-request-id"]
    expect(result).to_contain_text(request_id)
    expect(announced(page)).to_contain_text("scratch.png: REJECT.")
    visit.shot("found defect")
    deadline = time.monotonic() + 120
    while not any(json.loads(line).get("request_id") == request_id for line in plates.log):
        assert time.monotonic() < deadline, "the log does not know the request id"
        time.sleep(0.05)
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(result.get_by_role("heading", name="REJECT")).to_be_in_viewport(ratio=1)
    expect(result.get_by_role("img", name="Photograph scratch.png")).to_be_in_viewport(ratio=0.99)
    result.get_by_role("link", name="Show it in the history").click()
    expect(page.get_by_role("article", name="REJECT").get_by_text(answer["id"])).to_be_visible()


def test_the_regions_are_those_of_the_answer(browse: Visits, plates: Server):
    page = browse(plates.url).page
    for name in DEFECTS:
        regions = answer_of(plates, sample(name))["localization"]["regions"]
        page.get_by_role("button", name=name, exact=True).click()
        expect(announced(page)).to_contain_text(f"{name}.png: REJECT.")
        table = page.get_by_role("region", name="Regions, in pixels")
        expect(table.get_by_role("row")).to_have_count(1 + len(regions))
        for index, region in enumerate(regions):
            box = region["box"]
            expected = [
                str(index + 1),
                f"{box['x']}, {box['y']}",
                f"{box['width']} × {box['height']}",  # noqa: RUF001
                f"{region['area']:,}",
            ]
            row = table.get_by_role("row").nth(index + 1)
            assert row.locator("th, td").all_inner_texts()[:4] == expected
            shown = float(row.get_by_role("cell").last.inner_text().rstrip("×"))  # noqa: RUF001
            assert shown == pytest.approx(region["peak"]["value"], abs=0.051)


def test_the_heat_map_lies_over_the_fault_and_its_slider_changes_the_picture(browse: Visits, plates: Server):
    visit = browse(plates.url)
    page = visit.page
    page.get_by_role("button", name="stain", exact=True).click()
    expect_verdict(page, "REJECT")
    photograph = page.get_by_role("img", name="Photograph stain.png")
    expect(photograph).to_be_visible()
    slider, outlines = page.get_by_role("slider", name="Heat map"), page.get_by_label("Outlines")

    def seen(opacity: str) -> np.ndarray:
        slider.fill(opacity)
        return pixels(photograph.screenshot(caret="initial"))

    page.mouse.move(0, 0)
    outlined = seen("0")
    outlines.uncheck()
    bare, half, full = seen("0"), seen("50"), seen("100")
    assert np.abs(outlined - bare).max() > 100  # the outlines were there
    height, width = bare.shape[:2]
    answer = answer_of(plates, sample("stain"))
    scale = width / answer["image"]["width"]
    peak = answer["localization"]["regions"][0]["peak"]
    y, x = int(peak["y"] * scale), int(peak["x"] * scale)
    assert 0 <= y < height
    assert 0 <= x < width
    changes = [np.abs(image[y, x] - bare[y, x]).max() for image in (half, full)]
    assert 30 < changes[0] < changes[1] - 30
    assert full[y, x].argmax() == 0  # red
    assert np.abs(full - bare).mean() < 25  # most of the plate is as it was
    original = pixels(sample("stain"))
    assert np.abs(bare.mean((0, 1)) - original.mean((0, 1))).max() < 3


def test_a_normal_part_reads_as_normal_and_gets_a_heat_map_if_wanted(browse: Visits, plates: Server):
    visit = browse(plates.url)
    page = visit.page
    page.get_by_role("button", name="good", exact=True).click()
    expect_verdict(page, "PASS")
    expect(page.get_by_role("slider", name="Heat map")).to_be_hidden()
    visit.shot("normal part")
    page.get_by_label("Heat map for normal parts too").check()
    page.get_by_role("button", name="good", exact=True).click()
    expect(tiles(page)).to_have_count(2)
    expect(page.get_by_role("slider", name="Heat map")).to_be_visible()


def test_many_images_at_once_and_their_csv(browse: Visits, plates: Server):
    awkward = ['plate "7", left.png', "=1+1.png", "Prüfling-Nr. 4.png"]
    files = {name: sample("good") for name in awkward} | {f"{name}.png": sample(name) for name in ("good", *DEFECTS)}
    truth = {name: answer_of(plates, data) for name, data in files.items()}
    assert {answer["decision"] for answer in truth.values()} == {"normal", "anomalous"}
    visit = browse(plates.url)
    page = visit.page
    choose(page, *(payload(name, data) for name, data in files.items()))
    expect(announced(page)).to_have_text("9 images: 5 anomalous, 4 normal, 0 without a verdict.")
    expect(tiles(page)).to_have_count(9)
    labels = tiles(page).evaluate_all("all => all.map(one => one.ariaLabel)")
    assert labels == [f"{name}: {truth[name]['decision']}" for name in reversed(files)]
    visit.shot("many images")

    rows = downloaded(page)
    assert [row["file"].removeprefix("'") for row in rows] == list(files)
    assert rows[1]["file"] == "'=1+1.png", "a spreadsheet would take it for a formula"
    for row in rows:
        answer = truth[row["file"].removeprefix("'")]
        assert (row["decision"], row["category"], row["error"]) == (answer["decision"], CATEGORY, "")
        assert row["model_version"] == answer["model_version"]
        assert float(row["threshold"]) == answer["threshold"]
        assert float(row["score"]) == pytest.approx(answer["score"], rel=1e-4)
    assert len({row["request_id"] for row in rows}) == 9

    for name, number in (("Anomalous", 5), ("Normal", 4), ("Failed", 0)):
        expect(page.get_by_role("radio", name=f"{name} {number}")).to_be_attached()
        show_only(page, name)
        expect(tiles(page)).to_have_count(number)
    assert downloaded(page) == rows  # the whole session, whatever is shown
    show_only(page, "All")
    page.get_by_role("button", name="Clear", exact=True).click()
    asks = page.get_by_role("dialog", name="Clear the list?")
    expect(asks).to_contain_text("9 images go from this list.")
    assert visit.findings() == []
    page.keyboard.press("Escape")
    expect(tiles(page)).to_have_count(9)
    page.get_by_role("button", name="Clear", exact=True).click()
    asks.get_by_role("button", name="Keep the list").click()
    expect(tiles(page)).to_have_count(9)
    page.get_by_role("button", name="Clear", exact=True).click()
    asks.get_by_role("button", name="Clear the list").click()
    expect(tiles(page)).to_have_count(0)
    expect(page.get_by_role("article")).to_be_hidden()


def test_a_wrong_file_gets_a_sentence_and_the_others_their_verdict(browse: Visits, plates: Server, tmp_path: Path):
    large = tmp_path / "large.png"
    large.write_bytes(sample("good") + bytes(33 << 20))
    visit = browse(plates.url, expected="status of (400|413|415|422)")
    page = visit.page
    wrong = {
        "half.png": (sample("good")[:20_000], "This file cannot be read as an image."),
        "notes.txt": (b"not a picture", "This file cannot be read as an image."),
        "empty.png": (b"", "The file is empty."),
    }
    choose(
        page,
        payload("good.png", sample("good")),
        *(
            payload(name, data, "text/plain" if name.endswith("txt") else "image/png")
            for name, (data, _) in wrong.items()
        ),
        payload("scratch.png", sample("scratch")),
    )
    expect(announced(page)).to_have_text("5 images: 1 anomalous, 1 normal, 3 without a verdict.")
    choose(page, large)
    expect(announced(page)).to_contain_text("large.png: no verdict. The file is larger than the server takes.")
    for name, (_, sentence) in wrong.items():
        page.get_by_role("button", name=f"{name}: no verdict").click()
        expect_verdict(page, "No verdict")
        expect(page.get_by_role("article")).to_contain_text(sentence)
        expect(page.get_by_role("button", name="Send it again")).to_be_visible()
    visit.shot("wrong file")
    page.get_by_role("button", name="scratch.png: anomalous").click()
    expect_verdict(page, "REJECT")
    page.get_by_role("button", name="good.png: normal").click()
    expect_verdict(page, "PASS")
    errors = {row["file"]: row["error"] for row in downloaded(page)}
    assert errors.pop("good.png") == errors.pop("scratch.png") == ""
    assert errors["empty.png"].startswith("empty-body: ")
    assert errors["large.png"].startswith("too-many-bytes: ")
    expect(page.get_by_role("button", name="Send 4 failed again")).to_be_visible()


def test_a_picture_that_was_copied_can_be_pasted(browse: Visits, plates: Server):
    page = browse(plates.url, permissions=["clipboard-read", "clipboard-write"]).page
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    page.evaluate(
        """async () => {
            const picture = await (await fetch("console/samples/pit.png")).blob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }"""
    )
    page.keyboard.press("Control+V")
    expect_verdict(page, "REJECT")
    expect(tiles(page)).to_have_count(1)


def test_files_can_be_dropped_anywhere_on_the_page(browse: Visits, plates: Server):
    visit = browse(plates.url + "/#/categories")
    page = visit.page
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    hand = page.context.new_cdp_session(page)
    files = [str(ROOT / "samples" / f"{name}.png") for name in ("good", "dent")]
    for step in ("dragEnter", "dragOver", "drop"):
        carried = {"items": [], "files": files, "dragOperationsMask": 1}
        hand.send("Input.dispatchDragEvent", {"type": step, "x": 600, "y": 500, "data": carried})
    expect(page).to_have_url(re.compile("#/inspect$"))
    expect(announced(page)).to_have_text("2 images: 1 anomalous, 1 normal, 0 without a verdict.")


def test_a_server_that_goes_and_comes_back(browse: Visits):
    weights = ROOT / "weights"
    with running_server(weights, device="cpu") as server:
        visit = browse(server.url, expected=GONE)
        page = visit.page
        page.get_by_role("button", name="good", exact=True).click()
        expect_verdict(page, "PASS")
    choose(page, payload("pit.png", sample("pit")))
    banner = page.get_by_role("alert")
    expect(banner).to_contain_text("The server does not answer.")
    expect(banner).to_contain_text("goes on by itself when it is back")
    expect(page.get_by_text("Not answering")).to_be_visible()
    expect(page.get_by_role("button", name="pit.png: waiting")).to_be_visible()
    expect_verdict(page, "Waiting for the verdict")
    visit.shot("server gone")
    with running_server(weights, device="cpu", port=httpx.URL(server.url).port):
        expect(page.get_by_role("button", name="pit.png: anomalous")).to_be_visible()
        expect_verdict(page, "REJECT")
        expect(banner).to_be_hidden()
        expect(page.get_by_text("Ready", exact=True)).to_be_visible()
        page.goto("about:blank")  # so that it does not ask a server that ends


@pytest.mark.parametrize("gated", [{"queue_size": 1, "max_batch_images": 1}], indirect=True)
def test_a_full_server_is_asked_again(browse: Visits, gated: GatedServer, factory: Factory):
    visit = browse(gated.url, expected="status of (429|503)")
    page = visit.page
    page.get_by_label("Category", exact=True).select_option("striped")
    good = (factory.data / "good" / "000.png").read_bytes()
    with page.expect_response(lambda response: response.status == 429):
        choose(page, *(payload(f"{number}.png", good) for number in range(4)))
    expect(page.get_by_text("0 of 4 images")).to_be_visible()
    expect(page.get_by_role("radio", name="Failed 0")).to_be_attached()
    gated.gate.open.set()
    expect(announced(page)).to_have_text("4 images: 0 anomalous, 4 normal, 0 without a verdict.")


def test_a_key_is_asked_for_and_kept_for_the_session_only(browse: Visits, tmp_path: Path):
    key = create_key(tmp_path / "keys", "line", Role.INSPECT)
    with running_server(ROOT / "weights", device="cpu", keys_file=str(tmp_path / "keys")) as server:
        visit = browse(server.url, expected="status of 401")
        page = visit.page
        dialog = page.get_by_role("dialog", name="The server asks for a key")
        expect(dialog.get_by_label("API key")).to_be_focused()
        visit.shot("key wanted")
        dialog.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("The server does not know this key.")
        dialog.get_by_label("API key").fill(key)
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="scratch", exact=True).click()
        expect_verdict(page, "REJECT")
        page.reload()
        expect(page.get_by_text("Ready", exact=True)).to_be_visible()
        expect(dialog).to_be_hidden()
        assert page.evaluate("Object.values(sessionStorage)").count(key) == 1
        assert page.evaluate("localStorage.length") == 0
        assert page.evaluate("indexedDB.databases()") == []
        assert page.context.cookies() == []
        assert key not in page.url
        page.get_by_role("button", name="Forget key").click()
        expect(dialog).to_be_visible()
        assert key not in page.evaluate("Object.values(sessionStorage)")

        another = browse(server.url, expected="status of 401").page
        expect(another.get_by_role("dialog")).to_be_visible()
        another.keyboard.press("Escape")
        expect(another.get_by_role("dialog")).to_be_hidden()
        expect(another.get_by_role("alert")).to_contain_text("The server asks for a key.")
        another.get_by_role("button", name="Enter key").click()
        expect(another.get_by_role("dialog")).to_be_visible()
        another.get_by_role("button", name="Not now").click()
        expect(another.get_by_role("dialog")).to_be_hidden()
        for tab in (page, another):
            tab.goto("about:blank")  # so that it does not ask a server that ends


def test_everything_can_be_done_with_the_keyboard_and_the_focus_is_seen(browse: Visits, plates: Server):
    visit = browse(plates.url, reduced_motion="reduce")
    page = visit.page
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="scratch", exact=True)).to_be_visible()
    page.on("filechooser", lambda chooser: chooser.set_files([payload("dent.png", sample("dent"))]))
    before, still = b"", page.screenshot(caret="initial")
    while before != still:  # until nothing is being drawn any more, so that only the focus makes a difference
        before, still = still, page.screenshot(caret="initial")
    tab_to(page, page.get_by_role("link", name="Skip to the content"))
    tab_to(page, page.get_by_label("Choose images"))
    page.keyboard.press("Enter")
    expect(announced(page)).to_contain_text("dent.png: REJECT.")
    tab_to(page, page.get_by_role("button", name="scratch", exact=True))
    page.keyboard.press("Enter")
    expect(announced(page)).to_contain_text("scratch.png: REJECT.")
    expect_verdict(page, "REJECT")

    slider = page.get_by_role("slider", name="Heat map")
    tab_to(page, slider)
    page.keyboard.press("Home")
    expect(slider).to_have_value("0")
    tab_to(page, page.get_by_role("radio", name="All"))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Anomalous")).to_be_checked()
    tab_to(page, page.get_by_role("button", name="Download CSV"))
    tab_to(page, page.get_by_role("button", name="scratch.png: anomalous"))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="dent.png: anomalous")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_contain_text("dent.png")
    visit.shot("keyboard")
