"""The page Review, in a real browser: one part after the other, with a key for each answer."""

import io
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from service.choices import Role
from service.http.keys import create_key
from tests.conftest import ROOT
from tests.end_to_end.browsing import LIST, Visit, Visits, announced, held_back, overhang, sample, tab_to
from tests.end_to_end.conftest import running_server
from tests.end_to_end.test_browser_history import CATEGORY, DESK, Line

NAMES = ("good", "scratch", "pit", "stain", "dent")
TIMES = "\u00d7"
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


def inspect(line: Line, name: str, part_id: str) -> dict[str, Any]:
    """The part, when it is in the queue."""
    line.inspect(sample(name), part_id=part_id)
    return in_queue(line, part_id)


def in_queue(line: Line, part_id: str) -> dict[str, Any]:
    deadline = datetime.now() + timedelta(seconds=120)
    while True:
        for one in queue(line):
            if one["part_id"] == part_id:
                return one
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


def test_what_is_chosen_before_the_categories_are_known_is_kept(browse: Visits, line: Line):
    inspect(line, "good", "early")
    page = enter(browse, line).page
    expect(page.locator("#review-label")).not_to_be_empty()
    page.evaluate("sessionStorage.removeItem('eca-inspect-category')")  # as in a tab that has just been opened
    with held_back(page, LIST):
        page.reload()
        page.get_by_label("Show").select_option("random sample of accepted parts")
        page.wait_for_url("**category=&order=random&decision=normal")
    expect(page.get_by_text("1: in an estimate it counts for so many parts")).to_be_visible()
    expect(page.get_by_label("Show")).to_have_value("random normal")


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


def turned(name: str) -> bytes:
    """JPEG of a wide picture that is stored on its side, with the note that it has to be turned."""
    picture = cv2.imdecode(np.frombuffer(sample(name), np.uint8), cv2.IMREAD_COLOR)
    wide = cv2.resize(picture, (400, 240))[:, :, ::-1]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    file = io.BytesIO()
    Image.fromarray(np.rot90(wide)).save(file, "JPEG", exif=exif, quality=95)
    return file.getvalue()


def at(page: Page, one: dict[str, Any], x: float, y: float) -> tuple[float, float]:
    """Where the middle of a pixel of the picture is in the window."""
    box = page.get_by_role("img", name=f"Photograph {one['part_id']}").bounding_box()
    assert box is not None
    width, height = one["image"]["width"], one["image"]["height"]
    return box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height


def drag(page: Page, one: dict[str, Any], first: tuple[float, float], last: tuple[float, float]) -> None:
    page.mouse.move(*at(page, one, *first))
    page.mouse.down()
    page.mouse.move(*at(page, one, *last), steps=4)
    page.mouse.up()


def boxes_of(line: Line, one: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    """Of the label: x, y, width, height."""
    (now, *_) = line.ask(f"/{one['id']}").json()["labels"]
    return [tuple(box[name] for name in ("x", "y", "width", "height")) for box in now["boxes"]]  # type: ignore[misc]


def drawn_boxes(page: Page, name: str = "mark") -> list[tuple[float, ...]]:
    found: list[list[float]] = page.locator(f".marks .{name} .line").evaluate_all(
        "lines => lines.map((line) => ['x', 'y', 'width', 'height'].map((name) => Number(line.getAttribute(name))))"
    )
    return [tuple(box) for box in found]


def go_to(page: Page, one: dict[str, Any]) -> None:
    """Goes through the queue to a part."""
    wanted = page.get_by_role("img", name=f"Photograph {one['part_id']}")
    any_part = page.locator("#review-stage").get_by_role("img", name=re.compile("^Photograph"))
    for _ in range(20):
        expect(page.locator("#review-label")).not_to_be_empty()
        expect(any_part).to_be_visible()
        if wanted.is_visible():
            break
        shown = any_part.get_attribute("alt")
        page.get_by_role("button", name="Go on without a label").click()
        expect(page.get_by_role("img", name=shown or "", exact=True)).to_have_count(0)
    expect_part(page, one)


def marked(page: Page) -> Locator:
    return page.get_by_role("list", name="Marked places").get_by_role("listitem")


def test_the_fault_is_marked_with_the_mouse_on_a_picture_that_the_browser_turns(browse: Visits, line: Line):
    line.inspect(turned("dent"), part_id="turned", content_type="image/jpeg")
    one = in_queue(line, "turned")
    assert (one["image"]["width"], one["image"]["height"]) == (400, 240)
    visit = enter(browse, line)
    page = visit.page
    go_to(page, one)
    mark = page.get_by_role("button", name="Mark the fault")
    mark.click()
    expect(page.get_by_role("figure").get_by_text("Drag over the fault, or click two corners.")).to_be_visible()
    drag(page, one, (100, 50), (159, 89))
    expect(marked(page)).to_contain_text([f"Box 1: 60 {TIMES} 40 pixels at 100, 50"])
    expect(announced(page)).to_have_text(f"Box 1: 60 {TIMES} 40 pixels at 100, 50.")
    drag(page, one, (390, 230), (380, 220))  # from right to left
    page.mouse.click(*at(page, one, 10, 20))  # two corners
    expect(announced(page)).to_have_text("Corner at 10, 20. Set the opposite one.")
    page.mouse.click(*at(page, one, 30, 60))
    page.mouse.click(*at(page, one, 200, 200))  # twice the same place is no box
    page.mouse.click(*at(page, one, 200, 200))
    drag(page, one, (370, 200), (1000, 1000))  # no farther than the edge
    expected = [(100, 50, 60, 40), (380, 220, 11, 11), (10, 20, 21, 41), (370, 200, 30, 40)]
    assert drawn_boxes(page) == expected
    expect(marked(page)).to_have_count(4)
    page.get_by_role("button", name="Remove box 2").click()
    expect(marked(page)).to_have_count(3)
    del expected[1]

    page.get_by_role("button", name=re.compile("^(Agree|Disagree): good")).click()
    expect(page.locator("#review-said")).to_contain_text("You have marked a fault, and a good part has none.")
    assert labels_of(line, one) == []
    visit.shot("review marked")
    assert visit.findings() == []

    page.mouse.move(*at(page, one, 300, 100))
    page.mouse.wheel(0, -500)
    expect(page.locator("#review-stage")).to_have_class(re.compile("zoomed"))
    before = at(page, one, 0, 0)
    drag(page, one, (290, 90), (305, 107))  # it draws, and does not move the picture
    assert at(page, one, 0, 0) == pytest.approx(before)
    expected.append((290, 90, 16, 18))
    assert drawn_boxes(page) == expected
    page.get_by_label("Your name").fill("Ana")
    page.get_by_role("button", name=re.compile("^(Agree|Disagree): faulty")).click()
    expect(page.get_by_role("img", name="Photograph turned")).to_have_count(0)
    assert boxes_of(line, one) == expected
    page.get_by_role("button", name="Undo the last label").click()
    expect_part(page, one)
    assert labels_of(line, one) == []
    assert drawn_boxes(page) == expected  # what was marked stays
    page.keyboard.press("u")
    expect(page.get_by_role("img", name="Photograph turned")).to_have_count(0)
    assert boxes_of(line, one) == expected
    page.goto(f"{line.url}/#/history/{one['id']}")
    expect(page.get_by_text("The label is “unsure”, by Ana")).to_be_visible()
    expect(marked(page)).to_have_count(4)
    assert drawn_boxes(page) == expected


def test_the_fault_is_marked_with_keys_alone(browse: Visits, line: Line):
    one = inspect(line, "scratch", "with keys")
    visit = enter(browse, line)
    page = visit.page
    go_to(page, one)
    width, height = one["image"]["width"], one["image"]["height"]
    x, y, stride = width // 2, height // 2, round(max(width, height) / 50)
    page.keyboard.press("b")
    expect(page.get_by_role("application", name="Picture, to mark the fault")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(announced(page)).to_have_text(f"{x - stride}, {y}")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Space")
    expect(announced(page)).to_have_text(f"Corner at {x - stride}, {y - 1}. Set the opposite one.")
    page.keyboard.press("Escape")  # that one is given up
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(announced(page)).to_have_text(f"{stride + 1} {TIMES} {stride + 1} pixels at {x - stride}, {y - 1}")
    page.keyboard.press("Enter")
    expected = (x - stride, y - 1, stride + 1, stride + 1)
    assert drawn_boxes(page) == [expected]
    page.keyboard.press("Space")
    page.keyboard.press("Space")  # a single pixel
    expect(marked(page)).to_have_count(2)
    visit.shot("review marked with keys")
    page.keyboard.press("Backspace")
    expect(announced(page)).to_have_text("Box 2 is removed.")
    assert drawn_boxes(page) == [expected]
    expect(page.get_by_role("img", name="Photograph with keys")).to_be_visible()
    page.keyboard.press("Escape")
    button = page.get_by_role("button", name="Mark the fault")
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-pressed", "false")
    tab_to(page, page.get_by_role("button", name="Remove box 1"))
    page.keyboard.press("Enter")
    expect(marked(page)).to_have_count(0)
    expect(button).to_be_focused()
    page.keyboard.press("b")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    page.keyboard.press("a" if one["decision"] == "anomalous" else "d")
    expect(page.get_by_role("img", name="Photograph with keys")).to_have_count(0)
    assert boxes_of(line, one) == [(x, y - stride, 1, stride + 1)]


def test_the_fault_is_marked_with_a_finger_and_another_person_sees_it(browse: Visits, line: Line):
    one = inspect(line, "pit", "with a finger")
    visit = enter(browse, line, "status of 412", **TABLET)
    page = visit.page
    go_to(page, one)
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        given = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    page.get_by_role("button", name="Mark the fault").tap()
    page.locator("#review-stage").scroll_into_view_if_needed()
    fingers("touchStart", at(page, one, 60, 60))
    fingers("touchMove", at(page, one, 90, 80))
    fingers("touchMove", at(page, one, 139, 109))
    fingers("touchEnd")
    expect(marked(page)).to_have_count(1)
    ((x, y, width, height),) = drawn_boxes(page)
    assert (x, y, width, height) == pytest.approx((60, 60, 80, 50), abs=1)
    middle = at(page, one, 128, 128)
    fingers("touchStart", middle)
    fingers("touchStart", middle, (middle[0] + 40, middle[1]))
    fingers("touchMove", (middle[0] - 60, middle[1]), (middle[0] + 100, middle[1]))
    fingers("touchEnd")
    expect(page.locator("#review-stage")).to_have_class(re.compile("zoomed"))
    assert len(drawn_boxes(page)) == 1  # two fingers zoom
    visit.shot("review marked tablet")
    assert overhang(page) <= 0

    theirs = {"x": 5, "y": 6, "width": 7, "height": 8}
    line.label(one["id"], {"label": "anomalous", "reviewer": "Bo", "boxes": [theirs]})
    faulty = page.get_by_role("button", name=re.compile("^(Agree|Disagree): faulty"))
    faulty.tap()
    expect(page.locator("#review-said")).to_contain_text("Another person has labelled this meanwhile.")
    expect(marked(page)).to_contain_text(["Box 1: ", f"Bo: 7 {TIMES} 8 pixels at 5, 6"])
    assert drawn_boxes(page, "other") == [(5, 6, 7, 8)]
    assert drawn_boxes(page) == [(x, y, width, height)]
    visit.shot("review marked by two")
    assert visit.findings() == []
    page.get_by_label("Your name").fill("Ana")
    faulty.tap()
    expect(page.get_by_role("img", name="Photograph with a finger")).to_have_count(0)
    assert boxes_of(line, one) == [(x, y, width, height)]

    other = enter(browse, line).page
    other.goto(f"{line.url}/#/history/{one['id']}")
    expect(marked(other)).to_contain_text(["Box 1: ", f"Bo: 7 {TIMES} 8 pixels at 5, 6"])
    other.get_by_text("Earlier labels (1)").click()
    expect(other.get_by_text(re.compile("^faulty, by Bo.*: 1 box$"))).to_be_visible()
    other.get_by_role("textbox", name="Your name").fill("Cy")
    other.get_by_role("heading", name="What do you say?").click()
    other.keyboard.press("b")
    other.get_by_role("button", name="Remove box 1").click()
    other.keyboard.press("g")
    expect(other.get_by_text("The label is “good”, by Cy")).to_be_visible()
    assert boxes_of(line, one) == []
    expect(marked(other)).to_have_count(2)  # what Ana and Bo say
    assert drawn_boxes(other) == []


def test_a_good_part_is_shown_beside_with_the_same_zoom(browse: Visits, line: Line):
    for one in queue(line):
        line.label(one["id"], {"label": "unsure"})
    one = inspect(line, "stain", "to compare")
    visit = enter(browse, line, "status of 404")
    page = visit.page
    expect_part(page, one)
    beside = page.get_by_role("figure", name="A good part", exact=True)
    line.inspect(turned("good"), part_id="of another size", content_type="image/jpeg")
    for good in line.ask("?label=normal&limit=500").json()["inspections"]:
        line.label(good["id"], {"label": "unsure"})
    alone = page.get_by_role("img", name="Photograph to compare").bounding_box()
    assert alone is not None
    page.keyboard.press("c")
    expect(beside).to_contain_text("There is no picture of a good part to compare with.")
    expect(announced(page)).to_contain_text("There is no picture of a good part to compare with.")
    button = page.get_by_role("button", name="Compare with a good part")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(beside).to_be_hidden()
    assert page.get_by_role("img", name="Photograph to compare").bounding_box() == pytest.approx(alone)

    accepted = fresh_good(line, "accepted")
    button.click()
    expect(beside).to_contain_text("Accepted, nobody has labelled it. Inspected ")
    line.label(accepted["id"], {"label": "normal", "reviewer": "Ana"})
    button.click()
    page.keyboard.press("c")
    expect(beside).to_contain_text("Labelled good by Ana, key review, ")
    photographs = [
        page.get_by_role("img", name="Photograph to compare", exact=True),
        beside.get_by_role("img", name="Photograph of a good part, part accepted", exact=True),
    ]

    def boxes() -> list[dict[str, float]]:
        found = [photograph.bounding_box() for photograph in photographs]
        assert None not in found
        return found  # type: ignore[return-value]

    expect(photographs[1]).to_be_visible()
    left, right = boxes()
    assert left["y"] == pytest.approx(right["y"])
    assert right["x"] >= left["x"] + left["width"]
    assert left["width"] == pytest.approx(right["width"])
    visit.shot("review compared")
    assert visit.findings() == []

    def same_place() -> bool:
        """Both pictures are as large, and as far from where they were."""
        (a, b), (width, _) = boxes(), (left["width"], 0)
        assert a["width"] > 1.4 * width
        return a == pytest.approx(b | {"x": b["x"] - right["x"] + left["x"]}, abs=0.5)

    page.mouse.move(left["x"] + 20, left["y"] + 40)
    page.mouse.wheel(0, -400)
    assert same_place()
    page.mouse.move(right["x"] + 50, right["y"] + 60)
    page.mouse.down()
    page.mouse.move(right["x"] + 20, right["y"] + 30)
    page.mouse.up()
    assert same_place()
    page.mouse.wheel(0, 200)
    assert same_place()
    page.keyboard.press("c")
    page.keyboard.press("c")
    expect(photographs[1]).to_be_visible()
    assert same_place()  # what is shown later takes over the view
    page.keyboard.press("0")
    assert boxes() == [pytest.approx(left), pytest.approx(right)]

    page.set_viewport_size({"width": 390, "height": 844})
    left, right = boxes()
    assert left["x"] == pytest.approx(right["x"])
    assert right["y"] >= left["y"] + left["height"]
    assert overhang(page) <= 0
    visit.shot("review compared phone")
    page.set_viewport_size({"width": 1280, "height": 800})

    other = inspect(line, "pit", "to compare as well")
    page.get_by_role("button", name="Unsure").click()
    page.get_by_role("button", name="Look again").click()
    go_to(page, other)
    expect(photographs[1]).to_be_visible()  # it stays on for the next part
    beside.get_by_role("link", name="part accepted").click()
    expect(page.get_by_role("article").get_by_text("From the history.")).to_be_visible()
    page.goto(f"{line.url}/#/history/{one['id']}")
    expect(page.get_by_role("img", name="Photograph to compare")).to_be_visible()
    page.get_by_role("button", name="Compare with a good part").click()
    expect(page.get_by_role("img", name="Photograph of a good part, part accepted")).to_be_visible()
    visit.shot("history compared")


def fresh_good(line: Line, part_id: str) -> dict[str, Any]:
    """A good part with a picture that no other inspection has, when it is in the queue."""
    picture = cv2.imdecode(np.frombuffer(sample("good"), np.uint8), cv2.IMREAD_COLOR)
    picture[0, 0] = len(part_id)
    line.inspect(cv2.imencode(".png", picture)[1].tobytes(), part_id=part_id)
    one = in_queue(line, part_id)
    assert one["verdict"] == "pass"
    return one
