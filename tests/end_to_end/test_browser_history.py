"""The page History, in a real browser: finding an inspection again, looking at it, and saying what one thinks of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from service.choices import Role
from service.http.keys import create_key
from tests.conftest import ROOT
from tests.end_to_end.browsing import Visit, Visits, focus_is_visible, held_back, overhang, sample
from tests.end_to_end.conftest import running_server

CATEGORY = "machined-plate"
DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
MANY = 103
"""Failures of the lot ``many``: more than a page has."""
PNG = {"Content-Type": "image/png"}


@dataclass
class Line:
    """A server with a history that begins with these inspections."""

    url: str
    looker: str
    reviewer: str
    """Keys of the roles ``inspect`` and ``review``."""
    scratch: str
    good: str
    """Ids."""

    def inspect(self, data: bytes, content_type: str = "image/png", **query: str) -> httpx.Response:
        url = f"{self.url}/v1/categories/{CATEGORY}/inspect"
        headers = {"Content-Type": content_type, "X-API-Key": self.looker}
        return httpx.post(url, content=data, params=query, headers=headers, timeout=60)

    def ask(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}/v1/inspections{path}", headers={"X-API-Key": self.looker})

    def label(self, identity: str, label: dict[str, object]) -> None:
        headers = {"X-API-Key": self.reviewer, "If-Match": "*"}
        httpx.put(f"{self.url}/v1/inspections/{identity}/label", json=label, headers=headers).raise_for_status()


@pytest.fixture(scope="module")
def line(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    looker, reviewer = (create_key(keys, role.value, role) for role in (Role.INSPECT, Role.REVIEW))
    with running_server(ROOT / "weights", device="cpu", keys_file=str(keys), keep_images="anomalous") as server:
        made = Line(server.url, looker, reviewer, "", "")
        for _ in range(MANY):
            made.inspect(b"no image", lot="many")
        made.good = made.inspect(sample("good"), part_id="SN 1", lot="few", station="s1").json()["id"]
        query = {"part_id": "SN 2", "lot": "few", "station": "s2", "metadata": '{"shift": "b"}'}
        made.scratch = made.inspect(sample("scratch"), **query).json()["id"]
        wait_for(made, made.scratch)
        yield made


def wait_for(line: Line, identity: str) -> None:
    """Returns when the history has this inspection, and its image where it is to be kept."""
    deadline = datetime.now() + timedelta(seconds=120)
    while True:
        found = line.ask(f"/{identity}")
        if found.status_code == 200 and found.json()["image"]["kept"] == (found.json()["decision"] == "anomalous"):
            return
        assert datetime.now() < deadline, found.text


def enter(browse: Visits, line: Line, address: str, *, key: str = "", expected: str = "", **options: object) -> Visit:
    """Opens a part of the page History with a key, that of a reviewer if none is given."""
    refusals = "|".join(filter(None, ["status of 401", expected]))
    visit = browse(f"{line.url}/#/history{address}", expected=refusals, **(DESK | options))
    dialog = visit.page.get_by_role("dialog")
    dialog.get_by_label("API key").fill(key or line.reviewer)
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_be_hidden()
    return visit


def rows(page: Page) -> Locator:
    return page.get_by_role("list", name=re.compile("^Inspections, newest first")).get_by_role("link")


def said(page: Page) -> Locator:
    """What the page says of the list."""
    return page.locator("#history-said")


def expect_past(page: Page, verdict: str) -> Locator:
    """The inspection that is shown, when its verdict reads like this."""
    article = page.get_by_role("article", name=verdict, exact=True)
    expect(article).to_be_visible()
    return article


def asked(page: Page) -> str:
    """What the address says behind the name of the page."""
    return page.url.split("#/history")[1]


def test_an_inspection_is_found_by_its_part_and_shown_with_its_picture(browse: Visits, line: Line):
    visit = enter(browse, line, "")
    page = visit.page
    page.get_by_label("Part id", exact=True).fill("SN 2")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(1)
    answer = line.ask(f"/{line.scratch}").json()
    for words in ("REJECT", CATEGORY, "SN 2", "few", "s2", f"{answer['score']:.3g}", f"{answer['threshold']:.3g}"):
        expect(rows(page)).to_contain_text(words)
    expect(rows(page).locator(".thumb img")).to_have_js_property("complete", True)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all as CSV").click()
    lines = download.value.path().read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith("id,time,category")
    assert [text.split(",")[0] for text in lines[1:]] == [line.scratch]
    visit.shot("history found")
    rows(page).click()
    past = expect_past(page, "REJECT")
    picture = past.get_by_role("img", name="Photograph SN 2")
    expect(past.get_by_role("slider", name="Heat map")).to_be_visible()
    expect(picture).to_be_in_viewport(ratio=0.95)
    expect(past.get_by_role("heading", name="REJECT")).to_be_in_viewport(ratio=1)
    expect(past.locator(".outlines [data-region]")).to_have_count(len(answer["localization"]["regions"]))
    for words in (answer["model_version"], answer["request_id"], answer["id"], "shift", "From the history."):
        expect(past).to_contain_text(words)
    visit.shot("history inspection")
    past.get_by_role("link", name="Find it again").click()
    expect(page.get_by_text("The same image as")).to_be_visible()
    expect(rows(page)).to_have_count(1)
    assert asked(page) == f"?sha256={answer['image']['sha256']}"
    page.go_back()
    expect_past(page, "REJECT")
    page.get_by_role("link", name="Back to the list").click()
    expect(rows(page)).to_be_focused()
    expect(page.get_by_label("Part id", exact=True)).to_have_value("SN 2")


def test_filters_stand_in_the_address_and_back_works(browse: Visits, line: Line):
    page = enter(browse, line, "?lot=few").page
    expect(page.get_by_label("Lot", exact=True)).to_have_value("few")
    expect(rows(page)).to_have_count(2)
    verdict = page.get_by_role("combobox", name="Verdict", exact=True)
    verdict.focus()
    page.keyboard.press("p")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("PASS")
    expect(verdict).to_be_focused()
    page.get_by_label("Until", exact=True).fill("2020-01-01T00:00")
    page.get_by_role("button", name="Search").click()
    expect(said(page)).to_have_text("Nothing found.")
    assert "until=20" in asked(page)
    page.go_back()
    page.go_back()
    expect(verdict).to_have_value("")
    expect(rows(page)).to_have_count(2)
    verdict.select_option("none")
    page.get_by_label("Lot", exact=True).fill("many")
    page.keyboard.press("Enter")
    expect(rows(page).first).to_contain_text("This file cannot be read as an image.")
    page.get_by_role("link", name="Remove all filters").click()
    expect(page.get_by_label("Lot", exact=True)).to_have_value("")


def test_a_long_history_is_shown_in_pages(browse: Visits, line: Line):
    page = enter(browse, line, "?lot=many").page
    expect(rows(page)).to_have_count(100)
    expect(said(page)).to_have_text(re.compile("^100 inspections, .* There are older ones"))
    first = rows(page).first.get_attribute("href")
    page.get_by_role("link", name="Older").click()
    expect(rows(page)).to_have_count(MANY - 100)
    expect(said(page)).to_have_text(re.compile(f"^{MANY - 100} inspections, .* There are no older ones"))
    page.get_by_role("link", name="Newer", exact=True).click()
    expect(rows(page)).to_have_count(100)
    assert rows(page).first.get_attribute("href") == first
    rows(page).last.click()
    expect_past(page, "No verdict")
    last = asked(page)
    page.keyboard.press("ArrowRight")  # over the edge of the page
    page.wait_for_url(re.compile("cursor="))
    expect_past(page, "No verdict")
    expect(page.get_by_role("button", name="Newer")).to_be_enabled()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(lambda url: url.endswith(last))


def test_everything_can_be_done_with_the_keyboard(browse: Visits, line: Line):
    page = enter(browse, line, "?lot=few").page
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Until", exact=True).focus()
    for _ in range(20):  # the field of a time has several stops
        page.keyboard.press("Tab")
        if rows(page).first.evaluate("element => element === document.activeElement"):
            break
    expect(rows(page).first).to_be_focused()
    assert focus_is_visible(page)
    page.keyboard.press("ArrowDown")
    expect(rows(page).last).to_be_focused()
    page.keyboard.press("Enter")
    expect_past(page, "PASS")
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    expect_past(page, "REJECT")
    page.keyboard.press("ArrowRight")
    expect_past(page, "PASS")
    page.go_back()  # the steps between inspections are no steps back
    expect(rows(page).last).to_be_focused()


def test_the_inspection_before_cannot_be_labelled_while_the_next_one_comes(browse: Visits, line: Line):
    page = enter(browse, line, "?lot=few").page
    rows(page).first.click()
    expect_past(page, "REJECT")
    good = page.locator("[data-label=normal]")
    with held_back(page, re.compile(r"/v1/inspections/[^/?]+$")) as held:
        page.get_by_role("button", name="Older").click()
        expect(page.locator("#history-detail")).to_have_attribute("aria-busy", "true")
        good.evaluate("button => button.focus()")
        expect(good).not_to_be_focused()
        assert held
    expect_past(page, "PASS")
    good.focus()
    expect(good).to_be_focused()


def test_new_inspections_wait_until_they_are_asked_for(browse: Visits, line: Line):
    page = enter(browse, line, "?lot=news").page
    expect(said(page)).to_have_text("Nothing found.")
    line.inspect(b"no image", lot="news", part_id="first")
    page.get_by_role("button", name="Show 1 new").click()
    expect(rows(page)).to_have_count(1)
    line.inspect(b"no image", lot="news", part_id="second")
    expect(page.get_by_role("button", name="Show 1 new")).to_be_visible()
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="Show 1 new").click()
    expect(rows(page)).to_have_count(2)
    expect(rows(page).first).to_contain_text("second")
    expect(rows(page).first).to_be_focused()


def test_what_is_not_kept_and_what_is_not_there_is_said_in_words(browse: Visits, line: Line):
    visit = enter(browse, line, f"/{line.good}", expected="status of (404|422)")
    page = visit.page
    expect(expect_past(page, "PASS")).to_contain_text("The image was not kept. The server's rule")
    (failed,) = line.ask("?lot=many&limit=1").json()["inspections"]
    page.goto(f"{line.url}/#/history/{failed['id']}")
    past = expect_past(page, "No verdict")
    expect(past).to_contain_text("This file cannot be read as an image.")
    visit.shot("history failure")
    page.goto(f"{line.url}/#/history/00000000-0000-7000-8000-000000000000")
    expect(page.get_by_role("heading", name="The history does not have this inspection.")).to_be_visible()
    page.goto(f"{line.url}/#/history?since=yesterday")
    expect(page.get_by_role("heading", name="The server cannot search for this.")).to_be_visible()
    expect(page.get_by_text("The server says:")).to_be_visible()
    page.get_by_role("link", name="Remove all filters").click()
    expect(rows(page)).to_have_count(100)


def test_a_person_agrees_or_disagrees_with_a_key(browse: Visits, line: Line):
    visit = enter(browse, line, f"/{line.scratch}", expected="status of 412")
    page = visit.page
    past = expect_past(page, "REJECT")
    expect(past).to_contain_text("Nobody has labelled this yet.")
    past.get_by_label("Comment").fill("gouge")  # keys of a field are letters only
    past.get_by_label("Your name").fill("Ana")
    expect(past).to_contain_text("Nobody has labelled this yet.")
    past.get_by_role("heading", name="REJECT").click()
    page.keyboard.press("f")
    expect(past).to_contain_text("The label is “faulty”, by Ana")
    expect(past.get_by_role("button", name="Faulty")).to_have_attribute("aria-pressed", "true")
    expect(past.get_by_label("Comment")).to_have_value("gouge")
    line.label(line.scratch, {"label": "normal", "reviewer": "Bo"})
    past.get_by_role("button", name="Unsure").click()
    expect(past).to_contain_text("Another person has labelled this meanwhile.")
    expect(past).to_contain_text("The label is “good”, by Bo")
    visit.shot("history labelled meanwhile")
    assert visit.findings() == []
    page.keyboard.press("u")
    expect(past).to_contain_text("The label is “unsure”, by Ana")
    past.get_by_text("Earlier labels (2)").click()
    expect(past.get_by_role("listitem").first).to_contain_text("good, by Bo")
    labels = line.ask(f"/{line.scratch}").json()["labels"]
    assert [(one["label"], one["reviewer"]) for one in labels] == [
        ("unsure", "Ana"),
        ("normal", "Bo"),
        ("anomalous", "Ana"),
    ]
    page.goto(f"{line.url}/#/history?label=unsure")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("unsure")


def test_a_key_without_the_role_is_told_so(browse: Visits, line: Line):
    page = enter(browse, line, f"/{line.good}", key=line.looker, expected="status of 403").page
    past = expect_past(page, "PASS")
    page.keyboard.press("g")
    expect(past).to_contain_text("Your key is known, but it does not allow this.")
    expect(past).to_contain_text("review")
    expect(past).to_contain_text("Nobody has labelled this yet.")


def test_without_a_history_the_page_says_so(browse: Visits, tmp_path: Path):
    (tmp_path / "weights").mkdir()
    with running_server(tmp_path / "weights", device="cpu", database="none") as server:
        page = browse(f"{server.url}/#/history", expected="status of (404|503)").page
        expect(page.get_by_role("heading", name="This server keeps no history.")).to_be_visible()
        expect(page.get_by_text("INSPECT_DATABASE", exact=False).first).to_be_visible()
        page.goto("about:blank")  # so that it does not ask a server that ends


def test_while_the_database_is_away_the_page_says_so_and_goes_on_by_itself(browse: Visits, tmp_path: Path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "way").write_text("in the way")
    database = f"sqlite:///{tmp_path}/way/history.sqlite"
    with running_server(tmp_path / "weights", device="cpu", database=database) as server:
        page = browse(f"{server.url}/#/history", expected="status of 503").page
        expect(page.get_by_role("heading", name="The database of the history does not answer.")).to_be_visible()
        (tmp_path / "way").unlink()
        expect(said(page)).to_have_text("The server has no inspections yet.", timeout=60_000)
        page.goto("about:blank")


@pytest.mark.parametrize(
    ("screen", "options"),
    [("light", {}), ("dark", {"color_scheme": "dark"}), ("phone", PHONE)],
)
def test_list_and_inspection_are_accessible_and_fit(
    browse: Visits, line: Line, screen: str, options: dict[str, object]
):
    visit = enter(browse, line, "?lot=few", reduced_motion="reduce", **options)
    page = visit.page
    expect(rows(page)).to_have_count(2)
    for state in ("list", "inspection"):
        if state == "inspection":
            rows(page).first.click()
            expect(expect_past(page, "REJECT").get_by_role("slider", name="Heat map")).to_be_visible()
        assert overhang(page) <= 0, state
        assert visit.findings() == [], state
        visit.shot(f"history {state} {screen}")
