"""The list of trainings: what ran when the server ended is lost, and what cannot be read does no harm."""

import asyncio
from pathlib import Path

import pytest

from service.training_images import TrainingImages
from service.trainings import NoTrainingImagesError, TrainingRunningError, Trainings, _write_all
from tests.conftest import Factory


async def nothing() -> None:
    """There is no server to look."""


def trainings(factory: Factory, state: Path, images: Path | None = None) -> Trainings:
    uploaded = TrainingImages(state, 1 << 20, 100)
    return Trainings(state, images, uploaded, factory.weights, factory.teachers, nothing)


def test_a_job_that_ran_when_the_server_ended_is_lost(factory: Factory, tmp_path: Path):
    async def start_and_end() -> None:
        jobs = trainings(factory, tmp_path)
        with jobs.uploaded._lock:  # an upload that waits for the disk holds up nothing here
            jobs.start("fresh", ["a" * 64], {"a" * 64: b"\x89PNG, but no picture"}.get)
        with pytest.raises(TrainingRunningError):
            jobs.start("fresh", ["a" * 64], dict[str, bytes]().get)
        await jobs.close()

    asyncio.run(start_and_end())
    (job,) = trainings(factory, tmp_path).all()
    assert (job.status, job.category, job.labelled_images, job.with_original_images) == ("lost", "fresh", 1, False)
    assert "start it again" in (job.message or "")
    (tmp_path / "trainings" / "jobs.json").write_text("[{}]")
    assert trainings(factory, tmp_path).all() == []


def test_without_images_nothing_starts(factory: Factory, tmp_path: Path):
    jobs = trainings(factory, tmp_path, tmp_path / "images")
    with pytest.raises(NoTrainingImagesError, match="no images to train 'fresh' on"):
        jobs.start("fresh", [], dict[str, bytes]().get)


def test_the_original_images_are_in_either_layout(factory: Factory, tmp_path: Path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "mvtec" / "train" / "good").mkdir(parents=True)
    jobs = trainings(factory, tmp_path / "state", tmp_path)
    assert jobs.original_images("plain") == tmp_path / "plain"
    assert jobs.original_images("mvtec") == tmp_path / "mvtec" / "train" / "good"
    assert jobs.original_images("other") is None


def test_the_labelled_images_are_copied_under_names_of_their_type(tmp_path: Path):
    png, jpeg, gone = "a" * 64, "b" * 64, "c" * 64
    written = _write_all(tmp_path / "copies", [png, jpeg, gone], {png: b"\x89PNG", jpeg: b"\xff\xd8\xff"}.get)
    assert written == 2
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == [f"{png}.png", f"{jpeg}.jpg"]
