"""Versions come from the disk into service: a bad one is refused with its reason, and all others serve."""

import errno
import gc
import json
import math
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import ref

import numpy as np
import pytest
import torch

from model.detector import Detector
from model.networks.vgg import Teacher, vgg16_plan
from model.store.card import Card
from model.store.store import Store
from model.store.teachers import save_teacher
from model.store.version import read_card, read_seen
from service import versions as versions_module
from service.catalogue import (
    Catalogue,
    CategoryRefusedError,
    NoSuchCandidateError,
    NoSuchVersionError,
    Ready,
    Refused,
    UnknownCategoryError,
    VersionRefusedError,
)
from service.device.allowance import Allowance
from service.device.students import Students
from service.problems import problem_of
from service.versions import Versions
from tests.conftest import Factory

CPU = torch.device("cpu")
T = TypeVar("T")


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    """Three categories of one version each, free to be changed."""
    return Path(shutil.copytree(factory.weights, tmp_path / "weights", ignore=shutil.ignore_patterns(".versions")))


def build(weights: Path, category: str) -> Detector:
    return Store(weights).load(category)[1]


@dataclass
class Served:
    """What serves, and what brings it there."""

    catalogue: Catalogue
    versions: Versions

    def statuses(self) -> dict[str, str]:
        return {summary.category: summary.status for summary in self.catalogue.summaries()}

    def reason(self, category: str) -> str:
        entry = self.catalogue.find(category)
        assert isinstance(entry, Refused)
        return entry.reason

    def reload(self, category: str) -> Ready:
        return to_the_end(self.versions.reload(category))

    def roll_back(self, category: str, to: str | None = None) -> bool:
        return to_the_end(self.versions.roll_back(category, to))


def to_the_end(steps: Generator[None, None, T]) -> T:
    """As the engine does it: one step after the other."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def start(weights: Path, student_bytes: int = 1 << 30) -> Served:
    """A server's categories. A batch may have two images, and take 1 GiB."""
    catalogue, allowance = Catalogue(), Allowance(2, 1 << 30, math.inf)
    versions = Versions(Store(weights), catalogue, Students(student_bytes), CPU, torch.float32, allowance)
    versions.load()
    return Served(catalogue, versions)


@pytest.fixture
def not_for_this_user(factory: Factory) -> Iterator[Path]:
    """A weights folder that its owner alone can read; this user is neither the owner nor root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        weights = shutil.copytree(factory.weights, Path(folder, "weights"))
        user = os.geteuid()
        weights.chmod(0o700 if user == 0 else 0)
        if user == 0:
            os.seteuid(65534)
        yield weights
        os.seteuid(user)
        weights.chmod(0o755)


def test_a_weights_folder_that_cannot_be_read_is_in_the_log_and_is_read_later(
    not_for_this_user: Path, caplog: pytest.LogCaptureFixture
):
    served = start(not_for_this_user)
    assert served.statuses() == {}
    (line,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert f"the weights folder {not_for_this_user} cannot be read by this user" in line.getMessage()
    os.seteuid(os.getuid())
    not_for_this_user.chmod(0o755)
    assert "fresh" in served.versions.changed()
    assert served.reload("fresh").category == "fresh"


def test_categories_share_one_teacher(weights: Path):
    served = start(weights)
    entries = served.catalogue.ready()
    assert len({id(entry.teacher) for entry in entries}) == 1
    assert all(entry.detector().teacher is entry.teacher for entry in entries)


def test_a_damaged_category_is_refused_and_the_other_serves(weights: Path):
    student = weights / "striped" / "student.safetensors"
    student.write_bytes(student.read_bytes()[:-10])
    served = start(weights)
    assert served.statuses() == {"brushed": "ready", "fresh": "ready", "striped": "refused"}
    assert "not the file its card was written for" in served.reason("striped")
    with pytest.raises(CategoryRefusedError, match=r"'striped' cannot be served: .* not the file"):
        served.catalogue.require("striped")


@pytest.mark.parametrize("plan", [[16, "M"], [], [0] * 18, [16, 16, "M", 16, 13, "M"]])
def test_a_plan_that_is_no_students_is_refused_and_the_other_serves(weights: Path, plan: list[int | str]):
    path = weights / "striped" / "card.json"
    card = json.loads(path.read_text())
    card["architecture"]["plan"] = plan
    path.write_text(json.dumps(card))
    served = start(weights)
    assert served.statuses() == {"brushed": "ready", "fresh": "ready", "striped": "refused"}
    assert "architecture.plan" in served.reason("striped")


def test_another_teacher_is_refused_with_the_way_to_the_right_one(weights: Path):
    shutil.rmtree(weights / "teachers")
    save_teacher(Teacher(vgg16_plan((8, 12, 16, 20, 24))), weights / "teachers", "narrow")
    served = start(weights)
    assert set(served.statuses().values()) == {"refused"}
    assert "not the one this student learned from" in served.reason("fresh")
    assert "eca-inspect teacher fetch" in served.reason("fresh")


def test_a_missing_teacher_is_refused(weights: Path):
    shutil.rmtree(weights / "teachers")
    assert "is not in" in start(weights).reason("fresh")


def test_folders_that_are_no_category_are_refused_or_passed_over(weights: Path):
    (weights / ".training").mkdir(exist_ok=True)
    (weights / "README.md").write_text("about")
    (weights / "empty").mkdir()
    (weights / "bad name").mkdir()
    (weights / "bad name" / "card.json").touch()
    (weights / "lost+found").mkdir(mode=0)
    (weights / "System Volume Information").mkdir()
    served = start(weights)
    bad, good = ("bad name", "empty"), ("brushed", "fresh", "striped")
    assert served.statuses() == dict.fromkeys(bad, "refused") | dict.fromkeys(good, "ready")


def test_a_folder_whose_name_is_not_utf_8_is_refused_and_can_be_listed(weights: Path):
    shutil.copytree(weights / "striped", weights / os.fsdecode(b"\xff\n"))
    served = start(weights)
    assert served.statuses()[r"\xff\n"] == "refused"
    for summary in served.catalogue.summaries():
        assert summary.model_dump_json()
    with pytest.raises(UnknownCategoryError) as error:
        served.catalogue.find("nothing")
    assert problem_of(error.value).body().model_dump_json()


def test_a_missing_folder_is_an_empty_catalogue(tmp_path: Path):
    assert start(tmp_path / "nothing").catalogue.names() == []


def test_students_beyond_the_budget_leave_and_come_back(weights: Path):
    served = start(weights, student_bytes=0)
    brushed, fresh, striped = served.catalogue.ready()
    kept = striped.detector()
    assert striped.detector() is kept  # the last one in, and one is kept always
    image = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    before = brushed.detector()(image).scores
    fresh.detector()
    again = striped.detector()
    assert again is not kept
    assert np.array_equal(kept(image).scores, again(image).scores)
    assert np.array_equal(brushed.detector()(image).scores, before)


def test_a_student_damaged_since_the_start_is_refused_when_it_is_read_again(weights: Path):
    served = start(weights, student_bytes=0)
    brushed = served.catalogue.require("brushed")
    (weights / "brushed" / "student.safetensors").write_bytes(b"other")
    with pytest.raises(CategoryRefusedError, match="not the file its card was written for"):
        brushed.detector()
    assert served.statuses() == {"brushed": "refused", "fresh": "ready", "striped": "ready"}
    with pytest.raises(CategoryRefusedError, match="not the file its card was written for"):
        served.catalogue.require("brushed")


def newer(weights: Path, version: str) -> None:
    folder = weights / "striped"
    card = read_card(folder).model_copy(update={"model_version": version})
    store = Store(weights)
    student = (folder / "student.safetensors").read_bytes()
    store.write(card, student, read_seen(folder), replace=store.in_place("striped"))


def test_a_version_that_was_replaced_still_answers_what_it_accepted(weights: Path):
    served = start(weights, student_bytes=0)
    accepted = served.catalogue.require("striped")
    newer(weights, "second")
    assert served.versions.changed() == ["striped"]
    served.catalogue.require("brushed").detector()  # so that the student of striped leaves memory
    assert accepted.detector()(np.zeros((1, 64, 64, 3), np.uint8)).scores > 0  # from where it is kept
    assert served.reload("striped").card.model_version == "second"
    assert served.versions.changed() == []
    newer(weights, "third")
    served.reload("striped")
    assert accepted.detector().teacher is served.catalogue.require("striped").teacher
    assert served.catalogue.require("striped").card.model_version == "third"


def test_where_the_disk_cannot_be_written_the_server_goes_back_in_memory(
    weights: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    served = start(weights)
    first = served.catalogue.require("striped").card.model_version
    newer(weights, "second")
    served.reload("striped")
    newer(weights, "third")
    served.reload("striped")
    fresh_start = start(weights)
    monkeypatch.setattr(Store, "roll_back", fail)
    for one in (served, fresh_start):
        assert not one.roll_back("striped")
        assert one.catalogue.require("striped").card.model_version == "second"
        assert not one.roll_back("striped")
        assert one.catalogue.require("striped").card.model_version == first
        assert one.versions.changed() == []
        with pytest.raises(NoSuchVersionError, match="no version before"):
            one.roll_back("striped")
        assert not one.roll_back("striped", to="third")
        assert one.catalogue.require("striped").card.model_version == "third"


def test_a_previous_version_that_is_refused_leaves_all_as_it_was(weights: Path):
    newer(weights, "second")
    served = start(weights)
    damaged = weights / ".versions" / "striped" / "1" / "student.safetensors"
    damaged.unlink()
    damaged.write_bytes(b"damaged")
    with pytest.raises(VersionRefusedError, match="not the file its card was written for"):
        served.roll_back("striped")
    assert served.catalogue.require("striped").card.model_version == "second"
    assert read_card(weights / "striped").model_version == "second"
    assert served.versions.changed() == []


def test_a_pair_that_is_being_replaced_is_read_once_more(weights: Path, monkeypatch: pytest.MonkeyPatch):
    """The card is read, then the pair is replaced, then the student of the other version is there."""
    served = start(weights)
    second = weights / "brushed"
    card = read_card(second).model_copy(update={"category": "striped", "model_version": "second"})
    read = versions_module.read_card

    def replaced_meanwhile(folder: Path, category: str) -> Card:
        found = read(folder, category)
        if found.model_version != "second":
            store, student = Store(weights), (second / "student.safetensors").read_bytes()
            store.write(card, student, read_seen(second), replace=store.in_place("striped"))
        return found

    monkeypatch.setattr(versions_module, "read_card", replaced_meanwhile)
    assert served.reload("striped").card.model_version == "second"


def test_a_step_back_is_refused_when_another_version_has_come_meanwhile(weights: Path, monkeypatch: pytest.MonkeyPatch):
    """It was asked for on the screen of the second version. Meanwhile a calibration has put the third in place."""
    first = read_card(weights / "striped").model_version
    newer(weights, "second")
    served = start(weights)
    read = versions_module.read_card

    def calibrated_meanwhile(folder: Path, category: str) -> Card:
        if read_card(weights / "striped").model_version == "second":
            newer(weights, "third")
        return read(folder, category)

    monkeypatch.setattr(versions_module, "read_card", calibrated_meanwhile)
    with pytest.raises(VersionRefusedError, match="version second was in place, now it is version third"):
        served.roll_back("striped")
    assert served.catalogue.require("striped").card.model_version == "second"
    assert read_card(weights / "striped").model_version == "third"
    assert served.reload("striped").card.model_version == "third"
    assert served.roll_back("striped", to=first)
    assert served.catalogue.require("striped").card.model_version == first
    assert [one.version for one in Store(weights).kept("striped")] == ["third", "second"]


def test_a_category_that_the_device_cannot_afford_is_refused_and_the_others_serve(weights: Path):
    path = weights / "striped" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 2048}))
    served = start(weights)
    assert served.statuses() == {"brushed": "ready", "fresh": "ready", "striped": "refused"}
    assert "2048x2048 pixels would take about 3.2 GB of memory, more than the 1.1 GB" in served.reason("striped")


def test_a_version_that_the_device_cannot_afford_is_refused_and_the_one_before_serves_on(weights: Path):
    served = start(weights)
    path = weights / "striped" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 2048}))
    with pytest.raises(VersionRefusedError, match="2048x2048 pixels would take about"):
        served.reload("striped")
    assert served.catalogue.require("striped").card.image_size == 64


def test_a_version_whose_trial_is_given_up_changes_nothing(weights: Path):
    served = start(weights)
    path = weights / "striped" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 128}))
    trial = served.versions.reload("striped")
    next(trial)  # one step of several
    trial.close()
    assert served.catalogue.require("striped").card.image_size == 64
    assert served.reload("striped").card.image_size == 128  # asked again it is tried again


def test_what_is_neither_in_the_folder_nor_known_cannot_be_reloaded_or_rolled_back(weights: Path):
    served = start(weights)
    for name in ("nothing", "teachers", ".versions", "..", ""):
        with pytest.raises(UnknownCategoryError):
            served.reload(name)
        with pytest.raises(UnknownCategoryError):
            served.roll_back(name)


def test_the_candidate_of_a_new_category_becomes_its_first_version(weights: Path):
    (weights / ".candidates").mkdir()
    (weights / "striped").rename(weights / ".candidates" / "striped")
    served = start(weights)
    assert served.statuses() == {"brushed": "ready", "fresh": "ready"}
    assert not served.versions.on_disk("striped")
    with pytest.raises(NoSuchCandidateError, match="not 'another'"):
        to_the_end(served.versions.promote("striped", "another"))
    assert served.catalogue.get("striped") is None
    entry = to_the_end(served.versions.promote("striped"))
    assert served.catalogue.require("striped") is entry
    assert (served.versions.changed(), served.versions.kept("striped")) == ([], [])
    assert served.versions.on_disk("striped")
    assert entry.detector()(np.zeros((1, 64, 64, 3), np.uint8)).scores.shape == (1,)
    for name in ("nothing", "teachers", "..", ""):
        with pytest.raises(UnknownCategoryError):
            to_the_end(served.versions.promote(name))


def test_a_teacher_that_no_version_needs_any_more_leaves_memory(weights: Path):
    served = start(weights)
    kept = ref(served.catalogue.require("fresh").teacher)
    for category in served.catalogue.names():
        shutil.rmtree(weights / category)
        with pytest.raises(VersionRefusedError):
            served.reload(category)
    served.versions = None
    gc.collect()
    assert kept() is None
