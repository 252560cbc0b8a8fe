"""A category is made in a real browser alone: photographs are uploaded, a candidate is trained, and put in force."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from service.choices import Role
from service.http.keys import create_key
from tests.conftest import Factory
from tests.end_to_end.browsing import Visit, Visits, announced, choose, overhang, payload
from tests.end_to_end.conftest import running_server
from tests.end_to_end.test_browser_categories import CATEGORY, PHONE, SLOW_MS, Plant, answer, enter, section
from tests.end_to_end.test_browser_early import drop

pytestmark = pytest.mark.timeout(1000)  # on a busy machine

MOST = 14
UPLOADS = re.compile(r"/training-images$")
EXPECTED = "status of (400|401|403|404|409|413|415|422|507)|ERR_FAILED"


@pytest.fixture(scope="module")
def plant(chromium: Browser, factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """It has room for 14 uploaded images."""
    folder = tmp_path_factory.mktemp("new category")
    weights = folder / "weights"
    shutil.copytree(factory.weights, weights, ignore=shutil.ignore_patterns(".versions"))
    keys = {role: create_key(folder / "keys", role.value, role) for role in Role}
    settings = {"keys_file": str(folder / "keys"), "uploaded_images": str(MOST), "max_image_bytes": "30000"}
    with running_server(weights, device="cpu", **settings) as server:
        yield Plant(server.url, weights, keys)


@pytest.fixture(scope="module")
def photographs(factory: Factory) -> list[Path]:
    return sorted((factory.data / "train").iterdir())


def upload(page: Page, *files: Path) -> None:
    page.get_by_label("Choose photographs").set_input_files(list(files))


def uploaded(plant: Plant, category: str) -> int:
    found: int = plant.ask("GET", f"/v1/categories/{category}/training-images").json()["images"]
    return found


def begin(browse: Visits, plant: Plant, category: str, **options: object) -> tuple[Visit, Locator]:
    """The page of a category that is not there, and its section for uploads."""
    visit = enter(browse, plant, f"categories/{category}", expected=EXPECTED, **options)
    part = section(visit.page, "Upload and train")
    expect(part).to_contain_text(re.compile(r"\d+ images? (is|are) uploaded"))
    return visit, part


def test_a_category_from_nothing_to_its_first_inspection(
    browse: Visits, plant: Plant, photographs: list[Path], tmp_path: Path
):
    visit = enter(browse, plant, "categories", expected=EXPECTED)
    page = visit.page
    page.get_by_role("navigation", name="Categories").get_by_role("link", name="New category").click()
    name = page.get_by_label("Name of the new category")
    for wrong in ("", "two words", "-a", "teachers", "ä"):
        name.fill(wrong)
        name.press("Enter")
        expect(page.get_by_text("A name has 1 to 64 letters, digits, “_” or “-”", exact=False).last).to_be_visible()
        expect(name).to_be_focused()
    name.fill(CATEGORY)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("main").get_by_text(f"There is a category {CATEGORY} already.")).to_be_visible()
    assert visit.findings() == []
    visit.shot("new category name")
    name.fill("made")
    name.press("Enter")
    expect(page.get_by_role("heading", name="made", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Categories", exact=True)).to_be_focused()
    part, candidate = section(page, "Upload and train"), section(page, "Candidate")
    expect(part).to_contain_text("0 images are uploaded")
    expect(candidate).to_contain_text("There is none yet.")
    expect(candidate.get_by_role("button")).to_have_count(0)

    (tmp_path / "notes.txt").write_text("these are no pictures")
    (tmp_path / "broken.png").write_bytes(photographs[0].read_bytes()[:-100])
    (tmp_path / "large.png").write_bytes(bytes(30_001))
    (tmp_path / "empty.png").touch()
    unfit = [tmp_path / one for one in ("notes.txt", "broken.png", "large.png", "empty.png")]
    upload(page, photographs[0], *unfit, *photographs[1:12])
    expect(part).to_contain_text("12 of 16 files uploaded. 4 refused.")
    expect(announced(page)).to_contain_text("12 of 16 files uploaded. 4 refused.")
    expect(part.get_by_role("listitem")).to_have_text(
        [
            re.compile(r"^notes\.txt: This is not a kind of file that can be inspected\. .*'text/plain'"),
            re.compile(r"^broken\.png: This file cannot be read as an image\."),
            re.compile(r"^large\.png: The file is larger than the server takes\."),
            re.compile(r"^empty\.png: The file is empty\."),
        ]
    )
    expect(part).to_contain_text("12 images are uploaded")
    assert uploaded(plant, "made") == 12
    expect(part.get_by_label("Choose photographs")).to_be_enabled()
    assert visit.findings() == []
    visit.shot("new category uploaded")
    upload(page, *photographs[:12])
    expect(part).to_contain_text("12 of 12 files uploaded, 12 of them there before.")
    expect(part.get_by_role("listitem")).to_have_count(0)
    assert uploaded(plant, "made") == 12

    part.get_by_label("Teacher").fill("unknown")
    part.get_by_role("button", name="Train").click()
    expect(part).to_contain_text("This server has no teacher 'unknown'; it has compact, narrow;")
    part.get_by_label("Epochs").fill("0")
    part.get_by_role("button", name="Train").click()
    expect(part.get_by_label("Epochs")).to_be_focused()  # the browser itself says why
    part.get_by_label("Teacher").fill("narrow")
    part.get_by_label("Epochs").fill("2")
    part.get_by_label("Epochs").press("Enter")
    expect(part).to_contain_text("It trains on 12 uploaded images, since", timeout=SLOW_MS)
    page.reload()  # nothing is lost
    expect(part).to_contain_text("it is done, and its candidate is there", timeout=SLOW_MS)
    expect(part).to_contain_text("It did 2 of 2 epochs")
    expect(part).to_contain_text("2 training steps are too few")

    expect(candidate).to_contain_text("There is no version in force to compare it with.")
    expect(candidate).to_contain_text("10 images, and 2 held out; 2 epochs")
    found = plant.ask("GET", "/v1/categories/made/candidate").json()
    expect(candidate).to_contain_text(found["error_rates"]["text"])
    expect(candidate).to_contain_text(found["model_version"])
    assert visit.findings() == []
    visit.shot("new category candidate")
    candidate.get_by_role("button", name="Put it in force").click()
    expect(page.get_by_role("dialog")).not_to_contain_text("The version of now")
    answer(page, "Put it in force", "Put the candidate in force?")
    shadow = section(page, "Candidate in the shadow")
    expect(shadow).to_contain_text("There is none.")
    expect(shadow.get_by_role("heading")).to_be_focused()
    expect(section(page, "Versions")).to_contain_text(found["model_version"])
    expect(section(page, "Train again")).to_contain_text("12 images are uploaded")
    listed = page.get_by_role("navigation", name="Categories").get_by_role("link", name=re.compile("^made"))
    expect(listed).to_have_attribute("aria-current", "page")
    visit.shot("new category in force")

    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Inspect").click()
    page.get_by_label("Category", exact=True).select_option("made")
    choose(page, payload("part.png", photographs[-1].read_bytes()))
    verdict = page.get_by_role("article", name=re.compile("^(PASS|REJECT)$"))
    expect(verdict).to_be_visible()
    plant.ask("DELETE", "/v1/categories/made/training-images")


def test_a_candidate_that_is_dropped_leaves_the_images(browse: Visits, plant: Plant, photographs: list[Path]):
    visit, part = begin(browse, plant, "dropped")
    page = visit.page
    part.get_by_role("button", name="Train").click()
    expect(part).to_contain_text("There are no images to train on.")
    upload(page, *photographs[:8])
    expect(part).to_contain_text("8 of 8 files uploaded.")
    part.get_by_label("Teacher").fill("narrow")
    part.get_by_label("Epochs").fill("1")
    part.get_by_role("button", name="Train").click()
    candidate = section(page, "Candidate")
    expect(candidate.get_by_role("button", name="Drop it")).to_be_visible(timeout=SLOW_MS)  # without a reload
    candidate.get_by_role("button", name="Drop it").click()
    answer(page, "Drop it", "Drop the candidate?")
    expect(candidate).to_contain_text("The candidate is dropped.")
    expect(candidate).to_contain_text("There is none yet.")
    expect(part).to_contain_text("8 images are uploaded")

    remove = part.get_by_role("button", name="Remove uploaded images")
    remove.click()
    page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
    assert uploaded(plant, "dropped") == 8
    remove.click()
    answer(page, "Remove them", "Remove uploaded images?")
    expect(part).to_contain_text("They are removed.")
    expect(part).to_contain_text("0 images are uploaded")
    expect(remove).to_be_hidden()
    expect(part.get_by_label("Choose photographs")).to_be_focused()
    assert uploaded(plant, "dropped") == 0


def test_an_upload_goes_on_after_a_stop_a_lost_connection_and_a_full_server(
    browse: Visits, plant: Plant, photographs: list[Path]
):
    visit, part = begin(browse, plant, "stopped")
    page = visit.page
    held: list[Route] = []
    most, lost = 3, False

    def pass_on(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
        elif lost:
            route.abort()
        elif len(held) < most:
            held.append(route)
            route.continue_()
        # all others wait until they are given up

    page.route(UPLOADS, pass_on)
    upload(page, *photographs[:6])
    expect(part.get_by_role("progressbar", name="Files that were sent")).to_have_js_property("value", 3)
    stop = part.get_by_role("button", name="Stop the upload")
    expect(part.get_by_label("Choose photographs")).to_be_hidden()
    expect(part.get_by_role("button", name="Remove uploaded images")).to_be_hidden()
    part.get_by_role("button", name="Train").click()
    expect(part).to_contain_text("Wait until the images are uploaded, or stop the upload.")
    visit.shot("uploading")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Live").click()
    page.go_back()
    stop.click()  # it has gone on meanwhile
    expect(part).to_contain_text("Stopped. 3 of 6 files uploaded. Choose the same files again to go on")
    expect(part.get_by_label("Choose photographs")).to_be_focused()
    assert uploaded(plant, "stopped") == 3

    lost = True
    upload(page, *photographs[:6])
    expect(part).to_contain_text("The server does not answer. 0 of 6 files uploaded. Choose the same files again")
    lost, most = False, 1000
    upload(page, *photographs[:6])
    expect(part).to_contain_text("6 of 6 files uploaded, 3 of them there before.")
    assert uploaded(plant, "stopped") == 6

    upload(page, *photographs[: MOST + 1])
    expect(part).to_contain_text(f"{photographs[MOST].name}: The server has no room for this image.")
    expect(part).to_contain_text(f"at most {MOST} (INSPECT_UPLOADED_IMAGES)")
    expect(part).to_contain_text(f"{MOST} of {MOST + 1} files uploaded, 6 of them there before.")
    assert uploaded(plant, "stopped") == MOST
    plant.ask("DELETE", "/v1/categories/stopped/training-images")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_photographs_are_dropped_on_a_phone_and_on_a_category_that_exists(
    browse: Visits, plant: Plant, photographs: list[Path], tmp_path: Path, scheme: str
):
    visit, part = begin(browse, plant, "dropping", color_scheme=scheme, reduced_motion="reduce", **PHONE)
    (tmp_path / f"{'a long name of a file ' * 4}.png").write_text("no picture")
    upload(visit.page, photographs[0], *tmp_path.iterdir())
    expect(part).to_contain_text("1 of 2 files uploaded. 1 refused.")
    assert overhang(visit.page) <= 0
    assert visit.findings() == []
    visit.shot(f"phone new category {scheme}")
    visit.page.goto(f"{plant.url}/#/categories/?new")
    expect(visit.page.get_by_label("Name of the new category")).to_be_visible()
    assert overhang(visit.page) <= 0
    assert visit.findings() == []
    plant.ask("DELETE", "/v1/categories/dropping/training-images")

    page = enter(browse, plant, expected=EXPECTED, color_scheme=scheme).page
    part = section(page, "Train again")
    expect(part).to_contain_text("0 images are uploaded")
    area = part.get_by_text("Drop photographs of good parts here")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    drop(page, *photographs[:2], x=box["x"] + 5, y=box["y"] + 5)
    expect(part).to_contain_text("2 of 2 files uploaded.")
    assert uploaded(plant, CATEGORY) == 2
    plant.ask("DELETE", f"/v1/categories/{CATEGORY}/training-images")


def test_a_key_without_the_role_admin_uploads_nothing(browse: Visits, plant: Plant, photographs: list[Path]):
    visit, part = begin(browse, plant, "guarded", role=Role.REVIEW)
    upload(visit.page, *photographs[:3])
    expect(part).to_contain_text("Your key is known, but it does not allow this.")
    expect(part).to_contain_text("has the role review; this call needs the role admin.")
    expect(part).to_contain_text("0 of 3 files uploaded.")
    assert uploaded(plant, "guarded") == 0


def test_an_address_that_no_category_can_have_and_a_server_without_trainings_say_so(browse: Visits, factory: Factory):
    with running_server(factory.weights, device="cpu", database="none") as server:
        visit = browse(f"{server.url}/#/categories/no%20name", expected="status of (404|422)")
        page = visit.page
        expect(page.get_by_role("heading", name="This category is not there any more.")).to_be_visible()
        page.goto(f"{server.url}/#/categories/made")
        part = section(page, "Upload and train")
        expect(part).to_contain_text("This server runs no trainings.")
        expect(part.get_by_role("button")).to_have_count(0)
        expect(part.get_by_role("textbox")).to_have_count(0)
        page.goto("about:blank")
