"""Candidates lie beside the versions in place, and take their place in one step."""

import shutil
from pathlib import Path

import pytest

from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.thresholds import Rule
from model.lifecycle.train import InterruptedTrainingError, NoCategoryError, NotNewError, check_trainable
from model.store.card import Card
from model.store.store import ChangedMeanwhileError, InPlace, NoCandidateError, Store
from model.store.version import StoreError
from tests.conftest import Factory


@pytest.fixture
def store(factory: Factory, tmp_path: Path) -> Store:
    """One category without a candidate, free to be changed."""
    shutil.copytree(factory.weights / "striped", tmp_path / "weights" / "striped")
    return Store(tmp_path / "weights", factory.teachers)


def propose(store: Store, threshold: float) -> Card:
    card, _ = calibrate_category(
        store.weights, store.teachers, "striped", [], [], rule=Rule(threshold=threshold), candidate=True
    )
    return card


def leftovers(store: Store) -> set[str]:
    return {path.name for path in store.weights.iterdir()} - {"striped", ".versions", ".candidates"}


def test_a_candidate_leaves_what_serves_alone_until_it_is_promoted(store: Store):
    before, stamp = store.card("striped"), store.stamp("striped")
    candidate = propose(store, 0.5)
    assert store.names() == ["striped"]
    assert (store.card("striped"), store.stamp("striped")) == (before, stamp)
    assert store.candidates.card("striped") == candidate
    assert store.promote("striped", candidate.model_version) == candidate
    assert store.card("striped") == candidate
    assert store.candidates.names() == []
    assert leftovers(store) == set()
    assert store.load("striped")[0] == candidate
    assert store.roll_back("striped") == before


def test_a_candidate_is_calibrated_again_from_itself(store: Store):
    first, second = propose(store, 0.5), propose(store, 0.25)
    assert first.model_version != second.model_version
    assert store.candidates.card("striped") == second
    store.drop_candidate("striped")
    assert store.candidates.names() == []
    assert not (store.candidates.weights / ".versions" / "striped").exists()


def test_only_the_candidate_that_was_meant_is_promoted_or_dropped(store: Store):
    for change in (store.promote, store.drop_candidate):
        with pytest.raises(NoCandidateError, match="no candidate of 'striped'"):
            change("striped")
    before, candidate = store.card("striped"), propose(store, 0.5)
    for change in (store.promote, store.drop_candidate):
        with pytest.raises(NoCandidateError, match=f"is version {candidate.model_version}, not 'another'"):
            change("striped", "another")
    with pytest.raises(ChangedMeanwhileError):
        store.promote("striped", replace=InPlace("another"))
    assert store.card("striped") == before
    assert store.drop_candidate("striped", candidate.model_version) == candidate.model_version


def test_a_damaged_candidate_is_not_promoted_and_can_be_dropped(store: Store):
    before = store.card("striped")
    propose(store, 0.5)
    folder = store.candidates.folder("striped")
    (folder / "student.safetensors").write_bytes(b"half")
    with pytest.raises(StoreError, match="damaged"):
        store.promote("striped")
    (folder / "card.json").write_text("{")
    with pytest.raises(StoreError):
        store.promote("striped")
    assert store.card("striped") == before
    assert store.drop_candidate("striped") is None


def test_a_crash_leaves_the_candidate_or_has_promoted_it(store: Store):
    """The folders are those that are there while `promote` works."""
    before, candidate = store.card("striped"), propose(store, 0.5)
    half = store.weights / ".striped-abcdefgh"
    shutil.copytree(store.candidates.folder("striped"), half / "new")
    store.recover()
    assert (store.card("striped"), store.candidates.card("striped")) == (before, candidate)
    assert leftovers(store) == set()
    place = store.candidates.folder("striped")
    copy = shutil.copytree(place, store.weights.parent / "copy")
    store.promote("striped")
    shutil.copytree(copy, place)  # in place, and not taken away yet
    assert store.promote("striped") == candidate
    assert [one.version for one in store.kept("striped")] == [before.model_version]
    assert store.candidates.names() == []


def test_a_candidate_needs_a_category_and_nobodys_permission_to_replace(store: Store, factory: Factory):
    with pytest.raises(NoCategoryError, match="no category 'new'"):
        check_trainable(store.weights, "new", candidate=True)
    assert check_trainable(store.weights, "new", candidate=True, new=True) == InPlace(None)
    with pytest.raises(NotNewError, match="there is a category 'striped' already"):
        check_trainable(store.weights, "striped", candidate=True, new=True)
    assert store.card("striped").calibration.anomalous_images  # a new version in its place would need to be told
    assert check_trainable(store.weights, "striped", candidate=True) == InPlace(None)
    candidate = propose(store, 0.5)
    assert check_trainable(store.weights, "striped", candidate=True) == InPlace(candidate.model_version)
    store.candidates.checkpoint("striped").parent.mkdir()
    store.candidates.checkpoint("striped").touch()
    with pytest.raises(InterruptedTrainingError):
        check_trainable(store.weights, "striped", candidate=True)
