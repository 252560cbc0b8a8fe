"""The page Categories changes the server, in a real browser: calibration, trainings, candidates, rollbacks."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.thresholds import Rule
from service.choices import Role
from service.http.keys import create_key
from tests.conftest import Factory
from tests.end_to_end.browsing import LIST, Visit, Visits, announced, choose, held_back, overhang, payload, tab_to
from tests.end_to_end.conftest import running_server
from tests.end_to_end.test_calibrations import png

CATEGORY = "striped"
DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
WANTED = 24
"""Inspections that a candidate is to score."""
SLOW_MS = 240_000
"""A training on a busy machine."""


@dataclass
class Plant:
    """A server with its folder of weights, and a key of each role."""

    url: str
    weights: Path
    keys: dict[Role, str]

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, headers={"X-API-Key": self.keys[Role.ADMIN]}, **options)

    def category(self, name: str = CATEGORY) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/v1/categories/{name}").json()
        return found

    def inspect(self, *images: bytes, category: str = CATEGORY) -> list[dict[str, Any]]:
        """Returns when the history has all of them with their images."""
        path, headers = f"/v1/categories/{category}/inspect", {"Content-Type": "image/png"}
        key = {"X-API-Key": self.keys[Role.ADMIN]}
        found = [httpx.post(self.url + path, content=image, headers=headers | key).json() for image in images]
        for one in found:
            until(lambda one=one: self._is_kept(one["id"]))  # type: ignore[misc]
        return found

    def _is_kept(self, identity: str) -> bool:
        found = self.ask("GET", f"/v1/inspections/{identity}")
        return found.status_code == 200 and bool(found.json()["image"]["kept"])

    def label(self, identity: str, label: str) -> None:
        assert self.ask("PUT", f"/v1/inspections/{identity}/label", json={"label": label}).status_code == 200


def until(condition: Callable[[], bool]) -> None:
    deadline = datetime.now() + timedelta(seconds=120)
    while not condition():
        assert datetime.now() < deadline


@pytest.fixture(scope="module")
def plant(chromium: Browser, factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """It has the original images of ``striped`` alone."""
    folder = tmp_path_factory.mktemp("categories")
    weights = folder / "weights"
    shutil.copytree(factory.weights, weights, ignore=shutil.ignore_patterns(".versions"))
    shutil.copytree(factory.data / "train", folder / "images" / CATEGORY / "train" / "good")
    keys = {role: create_key(folder / "keys", role.value, role) for role in Role}
    settings = {
        "keys_file": str(folder / "keys"),
        "keep_images": "all",
        "training_images": str(folder / "images"),
        "shadow_inspections": str(WANTED),
    }
    with running_server(weights, device="cpu", **settings) as server:
        yield Plant(server.url, weights, keys)


def enter(
    browse: Visits, plant: Plant, address: str = f"categories/{CATEGORY}", *, role: Role = Role.ADMIN, **options: object
) -> Visit:
    visit = browse(f"{plant.url}/#/{address}", **({"expected": "status of (401|403|409|422)"} | DESK | options))
    dialog = visit.page.get_by_role("dialog")
    dialog.get_by_label("API key").fill(plant.keys[role])
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_be_hidden()
    return visit


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def answer(page: Page, verb: str, title: str) -> None:
    """Says yes to what the page asks."""
    dialog = page.get_by_role("dialog", name=title)
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name=verb).click()
    expect(dialog).to_be_hidden()


def test_parts_are_inspected_and_labelled_and_the_labels_set_the_threshold(browse: Visits, plant: Plant):
    visit = enter(browse, plant, "inspect")
    page = visit.page
    page.get_by_label("Category", exact=True).select_option(CATEGORY)
    parts = {
        f"{kind}{number}": png(7000 + number, fault=kind == "faulty")
        for kind in ("good", "faulty")
        for number in range(5)
    }
    choose(page, *(payload(f"{name}.png", data) for name, data in parts.items()))
    expect(announced(page)).to_contain_text("10 images")

    page.goto(f"{plant.url}/#/review/?category={CATEGORY}&order=nearest")
    left = page.locator("#review-left")
    for number in range(10, 0, -1):
        expect(left).to_have_text(f"{number} left")
        expect(page.locator("#review-label")).not_to_be_empty()
        page.keyboard.press("a")
    expect(page.get_by_role("heading", name="Nothing is left to review here.")).to_be_visible()
    accepted = sum(one["decision"] == "normal" for one in plant.ask("GET", "/v1/inspections").json()["inspections"])
    assert 0 < accepted < 10

    page.goto(f"{plant.url}/#/categories/{CATEGORY}")
    before = plant.category()
    part = section(page, "Calibrate from labels")
    page.get_by_role("button", name="Calibrate from labels").press("Enter")
    expect(part.get_by_role("heading")).to_be_focused()
    share = part.get_by_label("False alarms, percent")
    share.fill("1")
    expect(part.get_by_role("radio", name=re.compile("^where at most"))).to_be_checked()
    share.press("Enter")
    refused = part.get_by_text(re.compile("^The labels do not give this threshold"))
    expect(refused).to_contain_text("takes 99 good parts, and 299 with 95 % confidence")
    expect(refused).to_contain_text("Label more inspections, or ask for less.")
    expect(announced(page)).to_contain_text("takes 99 good parts")
    expect(part.get_by_role("button", name="Put it in force")).to_be_hidden()
    visit.shot("calibrate refused")
    share.fill("100")
    share.press("Enter")
    expect(part.get_by_text("The share must be above 0 % and below 100 %.")).to_be_visible()

    part.get_by_role("radio", name=re.compile("Youden")).check()
    part.get_by_role("button", name="Try it").click()
    put = part.get_by_role("button", name="Put it in force")
    expect(put).to_be_visible()
    expect(announced(page)).to_contain_text("nothing is changed")
    expect(part.get_by_text(f"{accepted} good parts and {10 - accepted} faulty parts count")).to_be_visible()
    expect(part.get_by_text(re.compile("^Of new good parts, about .* with 95 % confidence at most"))).to_be_visible()
    thresholds = part.get_by_role("row", name=re.compile("^Threshold")).get_by_role("cell")
    expect(thresholds.first).to_have_text(f"{before['threshold']:.4g}")
    tried = thresholds.last.inner_text()
    assert plant.category()["model_version"] == before["model_version"]
    assert visit.findings() == []
    visit.shot("calibrate tried")

    share.fill("5")  # another order: what was tried does not count for it
    expect(put).to_be_hidden()
    part.get_by_role("radio", name=re.compile("Youden")).check()
    part.get_by_role("button", name="Try it").click()
    part.get_by_label("Why, for the log of changes").fill("a better light")
    put.click()
    expect(part.get_by_text(re.compile(f"^The threshold {tried} is in force, as version"))).to_be_visible()
    now = plant.category()
    assert f"{now['threshold']:.4g}" == tried
    assert now["calibration"] == "youden"
    (line,) = plant.ask("GET", "/v1/audit", params={"action": "calibrate"}).json()["lines"]
    assert line["after"]["reason"] == "a better light"

    kept = section(page, "Versions")
    expect(kept.get_by_role("listitem").first).to_contain_text(f"{now['model_version']}")
    expect(kept.get_by_role("listitem").first).to_contain_text("in force")
    back = kept.get_by_role("button", name=f"Go back to {before['model_version']}")
    back.click()
    page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
    assert plant.category()["model_version"] == now["model_version"]
    back.click()
    answer(page, "Go back", "Go back to this version?")
    expect(kept.get_by_text(f"{before['model_version']} is in force now.")).to_be_visible()
    expect(kept.get_by_role("listitem").first).to_contain_text(before["model_version"])
    expect(kept.get_by_role("heading")).to_be_focused()  # its button is gone
    assert plant.category()["model_version"] == before["model_version"]


def test_a_threshold_that_a_person_chooses_needs_a_reason(browse: Visits, plant: Plant):
    visit = enter(browse, plant)
    page = visit.page
    part = section(page, "Calibrate from labels")
    value = part.get_by_label("Threshold", exact=True)
    expect(value).to_have_value(re.compile(r"\d"))
    wanted = 2 * plant.category()["threshold"]
    value.fill(str(wanted))
    value.press("Enter")
    put = part.get_by_role("button", name="Put it in force")
    put.click()
    expect(part.get_by_text(re.compile("^Write why, for the log of changes"))).to_be_visible()
    expect(part.get_by_label("Why, for the log of changes")).to_be_focused()
    page.keyboard.type("good parts were rejected")
    put.click()
    expect(part.get_by_text(re.compile("is in force, as version"))).to_be_visible()
    assert plant.category()["threshold"] == pytest.approx(wanted)
    assert plant.ask("POST", f"/v1/categories/{CATEGORY}/rollback").status_code == 200


def rejecting_everything(plant: Plant) -> str:
    """Version of a candidate that rejects every part."""
    teachers, rule = plant.weights / "teachers", Rule(threshold=1e-9)
    calibrate_category(plant.weights, teachers, CATEGORY, [], [], rule=rule, candidate=True)
    assert plant.ask("POST", f"/v1/categories/{CATEGORY}/reload").status_code == 200
    version: str = plant.ask("GET", f"/v1/categories/{CATEGORY}/candidate").json()["model_version"]
    return version


def test_a_candidate_is_compared_on_labelled_pictures_and_dropped(browse: Visits, plant: Plant):
    visit = enter(browse, plant)
    page = visit.page
    part = section(page, "Candidate in the shadow")
    expect(part).to_contain_text("There is none.")
    expect(part.get_by_role("button")).to_have_count(0)
    version = rejecting_everything(plant)
    expect(part).to_contain_text(version)  # without a reload of the page
    expect(announced(page)).to_contain_text(f"has the candidate {version} now")
    expect(part).to_contain_text(f"0 of {WANTED} inspections scored")
    expect(part).to_contain_text("No inspection has been judged by both yet.")

    sent = plant.inspect(*(png(seed) for seed in range(7100, 7108)))
    accepted = [one for one in sent if one["decision"] == "normal"]
    assert len(accepted) > 5
    expect(part).to_contain_text(f"8 of {WANTED} inspections scored")
    expect(part).to_contain_text(f"Only the candidate rejects {len(accepted)}, only the version in force rejects 0.")
    expect(part).to_contain_text("None of them is labelled yet")
    changed = part.get_by_role("list", name=re.compile("^Changed decisions")).get_by_role("link")
    expect(changed).to_have_count(len(accepted))
    newest = changed.first
    expect(newest).to_have_attribute("href", f"#/history/{accepted[-1]['id']}")
    expect(newest).to_have_accessible_name(re.compile("^In force PASS, candidate REJECT, not labelled, "))
    expect(part.locator(".thumb img")).to_have_count(len(accepted))
    for one in sent:
        plant.label(one["id"], "normal")
    expect(part).to_contain_text(
        f"only the candidate is right about 0, and only the version in force about {len(accepted)}"
    )
    expect(part).to_contain_text("the version in force is better, and that is hardly chance")
    alarms = part.get_by_role("row", name=re.compile("^False alarms")).get_by_role("cell")
    expect(alarms.last).to_have_text("8 of 8 (100 %)")
    expect(newest).to_have_accessible_name(re.compile(", good, "))
    visit.shot("candidate compared")
    assert visit.findings() == []
    newest.click()
    expect(page.get_by_role("article", name="PASS", exact=True)).to_be_visible()
    drop = page.locator("#candidate-drop")
    with held_back(page, re.compile("/candidate$")):
        with held_back(page, LIST):
            page.go_back()
            expect(drop).to_be_visible()
            drop.evaluate("button => button.focus()")
            expect(drop).not_to_be_focused()  # it stays from before, and the server has not answered yet
        expect(drop).to_be_hidden()  # it is drawn anew, and whether there is a candidate is not known yet
    part.get_by_role("button", name="Drop it").click()
    page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
    expect(part.get_by_role("button", name="Drop it")).to_be_focused()
    page.keyboard.press("Enter")
    answer(page, "Drop it", "Drop the candidate?")
    expect(part).to_contain_text("The candidate is dropped.")
    expect(part.get_by_role("heading")).to_be_focused()
    expect(part).to_contain_text("There is none.")
    assert plant.ask("GET", f"/v1/categories/{CATEGORY}/candidate").status_code == 404


def test_a_training_is_watched_and_its_candidate_scores_and_is_promoted(browse: Visits, plant: Plant):
    visit = enter(browse, plant)
    page = visit.page
    training = section(page, "Train again")
    training.get_by_role("button", name="Train again").click()
    expect(training).to_contain_text(re.compile(r"It trains on the original images and \d+ labelled images, since"))
    cancel = training.get_by_role("button", name="Cancel the training")
    cancel.click()
    answer(page, "Cancel the training", "Cancel the training?")
    expect(training).to_contain_text("it was cancelled")
    expect(announced(page)).to_have_text(f"The training of {CATEGORY}: it was cancelled.")

    training.get_by_role("button", name="Train again").click()
    expect(training).to_contain_text("The training runs. You can leave this page; it goes on.")
    page.goto("about:blank")  # the tab is closed, and opened again
    page.goto(f"{plant.url}/#/categories/{CATEGORY}")
    expect(cancel).to_be_visible()
    expect(training).to_contain_text(re.compile(r"epoch \d+ of 30, loss [\d.]+"), timeout=SLOW_MS)
    visit.shot("training")
    bar = training.get_by_role("progressbar", name="Epochs of the training")
    expect(bar).to_have_attribute("max", "30")
    expect(training).to_contain_text("it is done, and its candidate is there", timeout=SLOW_MS)
    expect(training).to_contain_text("It did 30 of 30 epochs")

    before, part = plant.category(), section(page, "Candidate in the shadow")
    version = plant.ask("GET", f"/v1/categories/{CATEGORY}/candidate").json()["model_version"]
    expect(part).to_contain_text(version)
    plant.inspect(*(png(seed, fault=seed % 4 == 0) for seed in range(7200, 7200 + WANTED)))
    expect(part).to_contain_text(f"It has scored all {WANTED} inspections", timeout=SLOW_MS)
    expect(part).to_contain_text(re.compile(rf"Both have judged {WANTED} inspections and agree on [\d.]+ %"))
    visit.shot("candidate complete")
    part.get_by_role("button", name="Put it in force").click()
    expect(page.get_by_role("dialog")).to_contain_text("The labels do not show that it is better.")
    assert visit.findings() == []
    answer(page, "Put it in force", "Put the candidate in force?")
    expect(part).to_contain_text(f"{version} is in force now.")
    expect(part.get_by_role("heading")).to_be_focused()
    expect(part).to_contain_text("There is none.")
    assert plant.category()["model_version"] == version
    kept = section(page, "Versions")
    expect(kept.get_by_role("button", name=f"Go back to {before['model_version']}")).to_be_visible()


def test_drift_is_told_for_each_measure_with_a_chart(browse: Visits, plant: Plant):
    if (counted := plant.ask("GET", f"/v1/categories/{CATEGORY}/drift").json()["measures"][0]["images"]) < 20:
        plant.inspect(*(png(seed) for seed in range(7300, 7320 - counted)))
    visit = enter(browse, plant)
    page = visit.page
    part = section(page, "Drift")
    told = plant.ask("GET", f"/v1/categories/{CATEGORY}/drift").json()
    for one in told["measures"]:
        expect(part).to_contain_text(one["text"])
    title = "unlike those of the calibration" if told["drifted"] else "No measure is shown to have changed"
    expect(part).to_contain_text(title)
    expect(part.get_by_role("img", name="Median of score per day, over 30 days")).to_be_visible()
    part.get_by_label("Median of", exact=True).select_option("Brightness")
    part.get_by_label("per", exact=True).select_option("hour")
    chart = part.get_by_role("img", name="Median of brightness per hour, over 30 hours")
    expect(chart).to_be_visible()
    expect(chart.locator('path[stroke-dasharray="6 4"]')).to_have_count(1)  # the median of the calibration
    visit.shot("drift")


def test_a_key_without_the_role_admin_changes_nothing_and_is_told_so(browse: Visits, plant: Plant):
    visit = enter(browse, plant, role=Role.REVIEW)
    page = visit.page
    before = plant.category()
    calibration = section(page, "Calibrate from labels")
    calibration.get_by_label("Threshold", exact=True).fill("1")
    calibration.get_by_role("button", name="Try it").click()
    training = section(page, "Train again")
    training.get_by_role("button", name="Train again").click()
    versions = section(page, "Versions")
    versions.get_by_role("button", name=re.compile("^Go back to")).first.click()
    answer(page, "Go back", "Go back to this version?")
    for part in (calibration, training, versions):
        expect(part).to_contain_text("Your key is known, but it does not allow this.")
        expect(part).to_contain_text("has the role review; this call needs the role admin.")
    visit.shot("not allowed")
    assert plant.category()["model_version"] == before["model_version"]
    assert not any(one["status"] == "running" for one in plant.ask("GET", "/v1/jobs").json()["jobs"])


def test_what_fails_is_told_with_its_reason(browse: Visits, plant: Plant):
    """Too few pictures to train on, none at all, and a folder of weights that cannot be written."""
    (one,) = plant.inspect(png(7400), category="brushed")
    plant.label(one["id"], "normal")
    visit = enter(browse, plant, "categories/brushed")
    page = visit.page
    training = section(page, "Train again")
    training.get_by_role("button", name="Train again").click()
    expect(training).to_contain_text("1 labelled image, of", timeout=SLOW_MS)
    expect(training).to_contain_text("it failed", timeout=SLOW_MS)
    expect(training).to_contain_text("1 different images are too few to train on, 8 at least")
    page.goto(f"{plant.url}/#/categories/fresh")
    expect(page.get_by_role("heading", name="fresh", exact=True)).to_be_visible()
    training.get_by_role("button", name="Train again").click()
    expect(training).to_contain_text("There are no images to train on.")
    expect(training).to_contain_text("no kept image of it is labelled normal.")

    (plant.weights / ".versions").mkdir(exist_ok=True)
    (plant.weights / ".versions" / "fresh").write_text("no folder")  # so the version before cannot be kept
    calibration = section(page, "Calibrate from labels")
    calibration.get_by_label("Threshold", exact=True).fill("1")
    calibration.get_by_label("Why, for the log of changes").fill("a test")
    calibration.get_by_role("button", name="Try it").click()
    calibration.get_by_role("button", name="Put it in force").click()
    expect(calibration).to_contain_text("The server cannot change the folder of weights.")
    expect(calibration).to_contain_text("eca-inspect calibrate fresh --from-history")
    visit.shot("not writable")
    (plant.weights / ".versions" / "fresh").unlink()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_sections_fit_a_phone_and_are_accessible(browse: Visits, plant: Plant, scheme: str):
    version = rejecting_everything(plant)
    plant.inspect(png(7500), png(7501))
    visit = enter(browse, plant, color_scheme=scheme, reduced_motion="reduce", **PHONE)
    page = visit.page
    expect(section(page, "Candidate in the shadow")).to_contain_text(version)
    expect(section(page, "Candidate in the shadow")).to_contain_text("Only the candidate rejects")
    calibration = section(page, "Calibrate from labels")
    calibration.get_by_label("Threshold", exact=True).fill("1")
    calibration.get_by_role("button", name="Try it").tap()
    expect(calibration.get_by_role("button", name="Put it in force")).to_be_visible()
    expect(section(page, "Drift").get_by_role("img")).to_be_visible()
    assert overhang(page) <= 0
    assert visit.findings() == []
    visit.shot(f"phone categories {scheme}")
    section(page, "Candidate in the shadow").get_by_role("button", name="Put it in force").tap()
    expect(page.get_by_role("dialog")).to_contain_text("It has scored only")
    assert visit.findings() == []
    visit.shot(f"phone ask {scheme}")


def test_the_sections_are_reached_with_the_keyboard(browse: Visits, plant: Plant):
    page = enter(browse, plant).page
    links = page.get_by_role("navigation", name=f"Sections of {CATEGORY}").get_by_role("button")
    expect(links).to_have_count(5)
    page.get_by_role("heading", name="Categories", exact=True).focus()
    tab_to(page, links.last)
    page.keyboard.press("Enter")
    expect(section(page, "Drift").get_by_role("heading")).to_be_focused()
    expect(section(page, "Drift").get_by_role("heading")).to_be_in_viewport()


def test_without_a_history_the_sections_say_so(browse: Visits, factory: Factory):
    with running_server(factory.weights, device="cpu", database="none") as server:
        visit = browse(f"{server.url}/#/categories/{CATEGORY}", expected="status of 404")
        page = visit.page
        expect(section(page, "Train again")).to_contain_text("This server runs no trainings.")
        expect(section(page, "Train again").get_by_role("button")).to_have_count(0)
        expect(section(page, "Drift")).to_contain_text("This server keeps no history.")
        section(page, "Calibrate from labels").get_by_role("button", name="Try it").click()
        expect(section(page, "Calibrate from labels")).to_contain_text("This server keeps no history.")
        page.goto("about:blank")
