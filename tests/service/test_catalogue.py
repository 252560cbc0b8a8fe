"""A bad category is refused with its reason; the others serve."""

import errno
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model.detector import Detector
from model.networks.vgg import Teacher, vgg16_plan
from model.store.card import Card
from model.store.store import Store
from model.store.teachers import save_teacher
from model.store.version import read_card, read_seen
from service import catalogue as catalogue_module
from service.catalogue import Catalogue, Refused
from service.device.allowance import Allowance
from service.problems import Problem
from tests.conftest import Factory

CPU = torch.device("cpu")


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    """Three categories of one version each, free to be changed."""
    return Path(shutil.copytree(factory.weights, tmp_path / "weights", ignore=shutil.ignore_patterns(".versions")))


def build(weights: Path, category: str) -> Detector:
    return Store(weights).load(category)[1]


def statuses(catalogue: Catalogue) -> dict[str, str]:
    return {summary.category: summary.status for summary in catalogue.summaries()}


def reason(catalogue: Catalogue, category: str) -> str:
    entry = catalogue.find(category)
    assert isinstance(entry, Refused)
    return entry.reason


def test_categories_share_one_teacher(weights: Path):
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    entries = catalogue.ready()
    assert len({id(entry.teacher) for entry in entries}) == 1
    assert all(entry.detector().teacher is entry.teacher for entry in entries)
    catalogue.warm_up(Allowance(2, 1 << 30, math.inf))


def test_a_damaged_category_is_refused_and_the_other_serves(weights: Path):
    student = weights / "striped" / "student.safetensors"
    student.write_bytes(student.read_bytes()[:-10])
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    assert statuses(catalogue) == {"brushed": "ready", "fresh": "ready", "striped": "refused"}
    assert "not the file its card was written for" in reason(catalogue, "striped")
    with pytest.raises(Problem) as problem:
        catalogue.require("striped")
    assert problem.value.status == 503


@pytest.mark.parametrize("plan", [[16, "M"], [], [0] * 18, [16, 16, "M", 16, 13, "M"]])
def test_a_plan_that_is_no_students_is_refused_and_the_other_serves(weights: Path, plan: list[int | str]):
    path = weights / "striped" / "card.json"
    card = json.loads(path.read_text())
    card["architecture"]["plan"] = plan
    path.write_text(json.dumps(card))
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    assert statuses(catalogue) == {"brushed": "ready", "fresh": "ready", "striped": "refused"}
    assert "architecture.plan" in reason(catalogue, "striped")


def test_another_teacher_is_refused_with_the_way_to_the_right_one(weights: Path):
    shutil.rmtree(weights / "teachers")
    save_teacher(Teacher(vgg16_plan((8, 12, 16, 20, 24))), weights / "teachers", "narrow")
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    assert set(statuses(catalogue).values()) == {"refused"}
    assert "not the one this student learned from" in reason(catalogue, "fresh")
    assert "eca-inspect teacher fetch" in reason(catalogue, "fresh")


def test_a_missing_teacher_is_refused(weights: Path):
    shutil.rmtree(weights / "teachers")
    assert "is not in" in reason(Catalogue(weights, weights / "teachers", CPU), "fresh")


def test_folders_that_are_no_category_are_refused_or_passed_over(weights: Path):
    (weights / ".training").mkdir(exist_ok=True)
    (weights / "README.md").write_text("about")
    (weights / "empty").mkdir()
    (weights / "bad name").mkdir()
    (weights / "bad name" / "card.json").touch()
    (weights / "lost+found").mkdir(mode=0)
    (weights / "System Volume Information").mkdir()
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    bad, good = ("bad name", "empty"), ("brushed", "fresh", "striped")
    assert statuses(catalogue) == dict.fromkeys(bad, "refused") | dict.fromkeys(good, "ready")


def test_a_folder_whose_name_is_not_utf_8_is_refused_and_can_be_listed(weights: Path):
    shutil.copytree(weights / "striped", weights / os.fsdecode(b"\xff\n"))
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    assert statuses(catalogue)[r"\xff\n"] == "refused"
    for summary in catalogue.summaries():
        assert summary.model_dump_json()
    with pytest.raises(Problem) as problem:
        catalogue.find("nothing")
    assert problem.value.body().model_dump_json()


def test_an_unknown_category_names_the_known(weights: Path):
    with pytest.raises(Problem, match="no category 'nothing'; known: brushed, fresh, striped") as problem:
        Catalogue(weights, weights / "teachers", CPU).find("nothing")
    assert problem.value.status == 404


def test_a_missing_folder_is_an_empty_catalogue(tmp_path: Path):
    assert Catalogue(tmp_path / "nothing", tmp_path, CPU).names() == []


def test_students_beyond_the_budget_leave_and_come_back(weights: Path):
    catalogue = Catalogue(weights, weights / "teachers", CPU, student_bytes=0)
    brushed, fresh, striped = catalogue.ready()
    kept = striped.detector()
    assert striped.detector() is kept  # the last one in, and one is kept always
    image = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    before = brushed.detector()(image).scores
    fresh.detector()
    again = striped.detector()
    assert again is not kept
    assert np.array_equal(kept(image).scores, again(image).scores)
    assert np.array_equal(brushed.detector()(image).scores, before)


def test_the_student_wanted_least_lately_leaves_first(weights: Path):
    one = sum(tensor.nbytes for tensor in build(weights, "striped").student.state_dict().values())
    catalogue = Catalogue(weights, weights / "teachers", CPU, student_bytes=2 * one + one // 2)
    brushed, fresh, striped = catalogue.ready()
    kept_striped, kept_fresh = striped.detector(), fresh.detector()
    brushed.detector()
    assert fresh.detector() is kept_fresh
    assert striped.detector() is not kept_striped


def test_a_student_damaged_since_the_start_is_refused_when_it_is_read_again(weights: Path):
    catalogue = Catalogue(weights, weights / "teachers", CPU, student_bytes=0)
    brushed = catalogue.require("brushed")
    (weights / "brushed" / "student.safetensors").write_bytes(b"other")
    with pytest.raises(Problem, match="not the file its card was written for") as problem:
        brushed.detector()
    assert problem.value.status == 503
    assert statuses(catalogue) == {"brushed": "refused", "fresh": "ready", "striped": "ready"}
    with pytest.raises(Problem, match="not the file its card was written for"):
        catalogue.require("brushed")


def newer(weights: Path, version: str) -> None:
    folder = weights / "striped"
    card = read_card(folder).model_copy(update={"model_version": version})
    Store(weights).write(card, (folder / "student.safetensors").read_bytes(), read_seen(folder), replace=True)


def test_a_version_that_was_replaced_still_answers_what_it_accepted(weights: Path):
    catalogue = Catalogue(weights, weights / "teachers", CPU, student_bytes=0)
    accepted = catalogue.require("striped")
    newer(weights, "second")
    assert catalogue.changed() == ["striped"]
    catalogue.require("brushed").detector()  # so that the student of striped leaves memory
    assert accepted.detector()(np.zeros((1, 64, 64, 3), np.uint8)).scores > 0  # from where it is kept
    assert catalogue.reload("striped").card.model_version == "second"
    assert catalogue.changed() == []
    newer(weights, "third")
    catalogue.reload("striped")
    assert accepted.detector().teacher is catalogue.require("striped").teacher
    assert catalogue.require("striped").card.model_version == "third"


def test_where_the_disk_cannot_be_written_the_server_goes_back_in_memory(
    weights: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    catalogue = Catalogue(weights, weights / "teachers", CPU)
    first = catalogue.require("striped").card.model_version
    newer(weights, "second")
    catalogue.reload("striped")
    newer(weights, "third")
    catalogue.reload("striped")
    fresh_start = Catalogue(weights, weights / "teachers", CPU)
    monkeypatch.setattr(Store, "roll_back", fail)
    for one in (catalogue, fresh_start):
        assert not one.roll_back("striped")
        assert one.require("striped").card.model_version == "second"
        assert not one.roll_back("striped")
        assert one.require("striped").card.model_version == first
        assert one.changed() == []
        with pytest.raises(Problem, match="no version before") as problem:
            one.roll_back("striped")
        assert problem.value.kind == "no-previous-version"
        assert not one.roll_back("striped", to="third")
        assert one.require("striped").card.model_version == "third"


def test_a_previous_version_that_is_refused_leaves_all_as_it_was(weights: Path):
    newer(weights, "second")
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    damaged = weights / ".versions" / "striped" / "1" / "student.safetensors"
    damaged.unlink()
    damaged.write_bytes(b"damaged")
    with pytest.raises(Problem, match="not the file its card was written for") as problem:
        catalogue.roll_back("striped")
    assert problem.value.kind == "reload-refused"
    assert catalogue.require("striped").card.model_version == "second"
    assert read_card(weights / "striped").model_version == "second"
    assert catalogue.changed() == []


def test_a_pair_that_is_being_replaced_is_read_once_more(weights: Path, monkeypatch: pytest.MonkeyPatch):
    """The card is read, then the pair is replaced, then the student of the other version is there."""
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    second = weights / "brushed"
    card = read_card(second).model_copy(update={"category": "striped", "model_version": "second"})
    read = catalogue_module.read_card

    def replaced_meanwhile(folder: Path, category: str) -> Card:
        found = read(folder, category)
        if found.model_version != "second":
            Store(weights).write(card, (second / "student.safetensors").read_bytes(), read_seen(second), replace=True)
        return found

    monkeypatch.setattr(catalogue_module, "read_card", replaced_meanwhile)
    assert catalogue.reload("striped").card.model_version == "second"


def test_a_category_that_the_device_cannot_afford_is_refused_and_the_others_serve(weights: Path):
    path = weights / "striped" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 2048}))
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    catalogue.warm_up(Allowance(8, 1 << 30, math.inf))
    assert statuses(catalogue) == {"brushed": "ready", "fresh": "ready", "striped": "refused"}
    assert "2048x2048 pixels would take about 3.2 GB of memory, more than the 1.1 GB" in reason(catalogue, "striped")


def test_a_version_that_the_device_cannot_afford_is_refused_and_the_one_before_serves_on(weights: Path):
    catalogue = Catalogue(weights, weights / "teachers", CPU)
    catalogue.warm_up(Allowance(8, 1 << 30, math.inf))
    path = weights / "striped" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 2048}))
    with pytest.raises(Problem, match="2048x2048 pixels would take about") as problem:
        catalogue.reload("striped")
    assert problem.value.kind == "reload-refused"
    assert catalogue.require("striped").card.image_size == 64
