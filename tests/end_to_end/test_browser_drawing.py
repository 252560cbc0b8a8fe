"""The page Region in a real browser: a region is drawn, downloaded, and read by the command line's own reader."""

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from model.lifecycle.regions import DrawnRegion, read_region
from model.networks.vgg import Teacher
from model.region import Region, Zone
from tests.end_to_end.browsing import Visits, announced, choose, expect_verdict, overhang, payload, tab_to, tiles
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.regions import CATEGORY, REGION, SIZE, THRESHOLDS, part, png, train_panel

HEIGHT, WIDTH = SIZE
FACE = ((10, 10), (90, 20), (60, 100))
SCREENS = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "tablet": {"viewport": {"width": 820, "height": 1180}, "is_mobile": True, "has_touch": True},
    "phone": {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True},
}


@pytest.fixture(scope="module")
def panels(chromium: Browser, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(train_panel(tmp_path_factory.mktemp("panels"), teacher), device="cpu") as server:
        yield server


def begin(page: Page, data: bytes | None = None) -> None:
    """Goes to the page with a picture."""
    page.get_by_label("Choose a picture").set_input_files([payload("good.png", data or png(part(400)))])
    expect(said(page)).to_contain_text("good.png, ")


def said(page: Page) -> Locator:
    return page.locator("#region-said")


def board(page: Page) -> Locator:
    return page.get_by_role("application", name="Drawing area")


def place_of(page: Page, point: tuple[float, float], size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, float]:
    """Where the middle of a pixel of the picture is on the drawing area, CSS pixels."""
    box = board(page).bounding_box()
    assert box is not None
    return {"x": (point[0] + 0.5) / size[0] * box["width"], "y": (point[1] + 0.5) / size[1] * box["height"]}


def click_at(page: Page, *points: tuple[float, float], size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    for point in points:
        board(page).click(position=place_of(page, point, size))
        expect(said(page)).to_contain_text(re.compile(f"(at {point[0]}, {point[1]}\\.)|Closed: "))


def field(page: Page, name: str, number: int = 0) -> Locator:
    return page.get_by_role("region", name="What is drawn").get_by_label(name).nth(number)


def saved(page: Page) -> DrawnRegion:
    """What the command line reads of the file that the page gives."""
    with page.expect_download() as begun:
        page.get_by_role("button", name="Download region.json").click()
    assert begun.value.suggested_filename == "region.json"
    path = Path(begun.value.path()).with_suffix(".json")
    begun.value.save_as(path)
    return read_region(path)


def of_floats(*points: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points)


def test_a_region_is_drawn_and_the_command_line_reads_the_same_polygons(browse: Visits, panels: Server):
    visit = browse(panels.url + "/#/region", **SCREENS["desk"])
    page = visit.page
    begin(page)
    click_at(page, *FACE, FACE[0])
    expect(field(page, "Name")).to_be_focused()
    expect(field(page, "Name")).to_have_value("zone 1")
    page.keyboard.type("face")
    rim = ((110, 12), (188, 12), (188, 104), (112, 104))
    click_at(page, *rim)
    page.get_by_role("button", name="Close the polygon").click()
    field(page, "Name", 1).fill("left rim.2")
    field(page, "Threshold", 1).fill("0.25")
    page.get_by_text("Place to ignore", exact=True).click()
    stamp = ((30, 40), (50, 40), (50, 60))
    click_at(page, *stamp, stamp[0])
    expect(page.get_by_text("Ignored place 1", exact=True)).to_be_visible()
    visit.shot("drawn region")

    drawn = saved(page)
    assert drawn.outlines == {"face": (of_floats(*FACE),), "left rim.2": (of_floats(*rim),)}
    assert drawn.ignored == (of_floats(*stamp),)
    assert drawn.thresholds == {"left rim.2": 0.25}
    assert drawn.size == (WIDTH, HEIGHT)
    assert [zone.name for zone in drawn.on(WIDTH, HEIGHT).zones] == ["face", "left rim.2"]
    commands = page.get_by_role("region", name="The file").locator("pre").all_inner_texts()
    assert commands == [
        "eca-inspect train my-part --normal photos/good --region region.json",
        f"eca-inspect region {CATEGORY} region.json --normal photos/more-good",
    ]


def test_a_region_is_drawn_with_the_keyboard_alone(browse: Visits, panels: Server):
    visit = browse(panels.url + "/#/region", reduced_motion="reduce", **SCREENS["desk"])
    page = visit.page
    page.on("filechooser", lambda chooser: chooser.set_files([payload("good.png", png(part(400)))]))
    tab_to(page, page.get_by_label("Choose a picture"))
    page.keyboard.press("Enter")
    expect(said(page)).to_contain_text("good.png, ")
    tab_to(page, board(page))
    page.keyboard.press("ArrowLeft")
    expect(announced(page)).to_have_text("96, 60")
    page.keyboard.press("Space")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Space")
    for _ in range(7):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("Backspace")
    visit.shot("keyboard drawing")
    page.keyboard.press("Enter")
    expect(field(page, "Name")).to_be_focused()
    page.keyboard.type("rim")
    page.keyboard.press("Enter")
    expect(board(page)).to_be_focused()
    assert saved(page).outlines == {"rim": (of_floats((96, 60), (116, 61), (116, 89)),)}

    board(page).focus()
    tab_to(page, page.get_by_role("button", name="Corner 2 of zone rim, at 116, 61"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    expect(page.get_by_role("button", name="Corner 2 of zone rim, at 120, 60")).to_be_focused()
    assert saved(page).outlines == {"rim": (of_floats((96, 60), (120, 60), (116, 89)),)}
    page.get_by_role("button", name="Delete zone rim").press("Enter")
    expect(page.get_by_text("Nothing is drawn yet.")).to_be_visible()
    page.keyboard.press("Control+z")
    expect(field(page, "Name")).to_have_value("rim")


def test_corners_are_dragged_and_every_step_can_be_undone(browse: Visits, panels: Server):
    page = browse(panels.url + "/#/region", **SCREENS["desk"]).page
    begin(page)
    click_at(page, *FACE, FACE[0])
    corner = page.get_by_role("button", name="Corner 3 of zone zone 1, at 60, 100")
    box = board(page).bounding_box()
    assert box is not None
    target = place_of(page, (40, 90))
    corner.hover()
    page.mouse.down()
    page.mouse.move(box["x"] + target["x"] + 20, box["y"] + target["y"])
    page.mouse.move(box["x"] + target["x"], box["y"] + target["y"])
    page.mouse.up()
    expect(said(page)).to_have_text("Corner 3 at 40, 90.")
    assert saved(page).outlines == {"zone 1": (of_floats(*FACE[:2], (40, 90)),)}
    board(page).click(position=place_of(page, (150, 50)))  # a move ends with its own click only
    expect(page.get_by_text("A polygon is not closed yet.")).to_be_visible()
    expect(page.get_by_role("button", name="Download region.json")).to_be_disabled()
    undo = page.get_by_role("button", name="Undo")
    undo.click()
    undo.click()
    assert saved(page).outlines == {"zone 1": (of_floats(*FACE),)}
    undo.click()  # the polygon is open again
    expect(page.get_by_role("button", name="Close the polygon")).to_be_enabled()
    for _ in FACE:
        undo.click()
    expect(undo).to_be_disabled()
    expect(page.get_by_text("Nothing is drawn yet.")).to_be_visible()


def test_what_cannot_be_a_region_is_said_and_gives_no_file(browse: Visits, panels: Server):
    visit = browse(panels.url + "/#/region", **SCREENS["desk"])
    page = visit.page
    page.get_by_label("Choose a picture").set_input_files([payload("notes.png", b"no picture")])
    expect(said(page)).to_contain_text("This browser cannot show this kind of file.")
    begin(page)
    click_at(page, *FACE[:2])
    expect(page.get_by_role("button", name="Close the polygon")).to_be_disabled()
    board(page).press("Enter")
    expect(said(page)).to_have_text("A polygon needs three corners.")
    board(page).press("Escape")
    expect(page.get_by_text("Nothing is drawn yet.")).to_be_visible()
    for start in (10, 110):
        click_at(page, (start, 10), (start + 70, 10), (start + 70, 100), (start, 10))
    download = page.get_by_role("button", name="Download region.json")
    for number, name, text, sentence in (
        (0, "Name", "zone 2", "Two zones are called “zone 2”."),
        (0, "Name", "", "“” is no name for a zone."),
        (0, "Name", "Öse", "“Öse” is no name for a zone."),
        (0, "Name", "x" * 65, "is no name for a zone."),
        (1, "Threshold", "-1", "The threshold of “zone 2” is no number above 0: “-1”."),
        (1, "Threshold", "1,5", "The threshold of “zone 2” is no number above 0: “1,5”."),
    ):
        before = field(page, name, number).input_value()
        field(page, name, number).fill(text)
        field(page, name, number).blur()
        expect(page.get_by_role("region", name="The file")).to_contain_text(sentence)
        expect(download).to_be_disabled()
        field(page, name, number).fill(before)
        field(page, name, number).blur()
        expect(download).to_be_enabled()
    field(page, "Name").fill("Öse")
    field(page, "Name").blur()
    expect(field(page, "Name")).to_have_attribute("aria-invalid", "true")
    visit.shot("wrong name")
    assert visit.findings() == []


def test_the_region_of_a_category_is_the_start_and_comes_back_as_it_was(browse: Visits, panels: Server):
    page = browse(panels.url).page
    page.get_by_role("link", name="Region", exact=True).click()
    expect(page.get_by_role("combobox", name="or begin with the region of")).to_have_value(CATEGORY)
    page.get_by_role("button", name="Load it").click()
    expect(said(page)).to_contain_text(f"The region of {CATEGORY}: 2 zones and 1 ignored place.")
    drawn = saved(page)
    assert drawn.outlines == {zone.name: zone.outlines for zone in REGION.zones}
    assert drawn.ignored == REGION.ignored
    assert drawn.thresholds == THRESHOLDS
    assert drawn.on(WIDTH, HEIGHT, REGION) == REGION

    larger = cv2.resize(part(400), (2 * WIDTH, 2 * HEIGHT))
    begin(page, png(larger))  # the same shape, so the zones stay in their own pixels
    page.get_by_role("button", name="Delete ignored place 1").click()
    click_at(page, (20, 70), (60, 70), (60, 110))
    page.get_by_text("Place to ignore", exact=True).click()
    page.get_by_role("button", name="Close the polygon").click()
    drawn = saved(page)
    assert drawn.size == (WIDTH, HEIGHT)
    assert drawn.ignored == (of_floats((20, 70), (60, 70), (60, 110)),)

    page.get_by_label("Choose a picture").set_input_files([payload("square.png", png(part(400)[:, :HEIGHT]))])
    expect(said(page)).to_contain_text(f"what is drawn belongs on one of the shape {WIDTH} × {HEIGHT}")  # noqa: RUF001
    assert saved(page) == drawn
    page.get_by_role("button", name="Start again").click()
    page.get_by_label("Choose a picture").set_input_files([payload("square.png", png(part(400)[:, :HEIGHT]))])
    expect(said(page)).to_contain_text("square.png, ")
    page.get_by_role("button", name="Load it").click()
    expect(said(page)).to_contain_text("this picture has another shape")


def test_a_zone_of_several_polygons_stays_one_zone(browse: Visits, panels: Server):
    pads = Zone(
        "pads", (of_floats((5, 5), (40, 5), (40, 40)), of_floats((60, 60), (90, 60), (90.5, 99.25))), (0, 0, 99, 99)
    )
    region = Region(WIDTH, HEIGHT, (pads,))
    page = browse(panels.url + "/#/region").page

    def other(route) -> None:
        response = route.fetch()
        detail = response.json()
        zones = [{"name": zone.name, "outlines": zone.outlines, "frame": zone.frame} for zone in region.zones]
        detail["card"]["preprocessing"]["region"] = {"width": WIDTH, "height": HEIGHT, "zones": zones, "ignored": []}
        detail["card"]["zone_thresholds"] = {}
        route.fulfill(response=response, json=detail)

    page.route(re.compile(rf"/v1/categories/{CATEGORY}$"), other)
    page.get_by_role("button", name="Load it").click()
    expect(page.get_by_text("2 polygons, 6 corners, from 5, 5 to 90.5, 99.3")).to_be_visible()
    assert saved(page).outlines == {"pads": pads.outlines}


def test_a_picture_can_be_dropped_and_stays_out_of_the_inspection(browse: Visits, panels: Server, tmp_path: Path):
    path = tmp_path / "dropped.png"
    path.write_bytes(png(part(401)))
    page = browse(panels.url + "/#/region").page
    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    hand = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        carried = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        hand.send("Input.dispatchDragEvent", {"type": step, "x": 600, "y": 500, "data": carried})
    expect(said(page)).to_contain_text("dropped.png, ")
    expect(page).to_have_url(re.compile("#/region$"))
    click_at(page, *FACE)
    page.get_by_role("link", name="Inspect", exact=True).click()
    expect(tiles(page)).to_have_count(0)
    choose(page, payload("part.png", png(part(401))))
    expect_verdict(page, "PASS")
    page.get_by_role("link", name="Region", exact=True).click()
    expect(page.get_by_text("A polygon is not closed yet.")).to_be_visible()  # it waits here


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_fits_the_screen_and_is_accessible(browse: Visits, panels: Server, screen: str, scheme: str):
    visit = browse(panels.url + "/#/region", color_scheme=scheme, reduced_motion="reduce", **SCREENS[screen])
    page = visit.page
    expect(page.get_by_role("combobox", name="or begin with the region of")).to_have_value(CATEGORY)
    assert visit.findings() == []
    begin(page, png(np.ascontiguousarray(part(400))))
    page.get_by_role("button", name="Load it").click()
    expect(said(page)).to_contain_text("2 zones")
    page.get_by_role("button", name="Show the corners of zone face").click()
    visit.shot(f"region {screen} {scheme}")
    assert overhang(page) <= 0
    assert visit.findings() == []
    if screen != "desk":
        place = place_of(page, (150, 60))
        board(page).tap(position=place)
        expect(said(page)).to_contain_text("Corner 1 at ")
