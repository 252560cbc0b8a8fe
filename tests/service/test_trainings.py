"""The list of trainings: what ran when the server ended is lost, and what cannot be read does no harm."""

import asyncio
from pathlib import Path

import pytest

from service.trainings import NoTrainingImagesError, TrainingRunningError, Trainings, ending_of
from tests.conftest import Factory


async def nothing() -> None:
    """There is no server to look."""


def trainings(factory: Factory, state: Path, images: Path | None = None) -> Trainings:
    return Trainings(state, images, factory.weights, factory.teachers, nothing)


def test_a_job_that_ran_when_the_server_ended_is_lost(factory: Factory, tmp_path: Path):
    async def start_and_end() -> None:
        jobs = trainings(factory, tmp_path)
        await jobs.start("fresh", [b"\x89PNG, but no picture"])
        with pytest.raises(TrainingRunningError):
            await jobs.start("fresh", [b"\x89PNG"])
        await jobs.close()

    asyncio.run(start_and_end())
    (job,) = trainings(factory, tmp_path).all()
    assert (job.status, job.category, job.labelled_images, job.with_original_images) == ("lost", "fresh", 1, False)
    assert "start it again" in (job.message or "")
    (tmp_path / "trainings" / "jobs.json").write_text("[{}]")
    assert trainings(factory, tmp_path).all() == []


def test_without_images_nothing_starts(factory: Factory, tmp_path: Path):
    with pytest.raises(NoTrainingImagesError, match="no images to train 'fresh' on"):
        asyncio.run(trainings(factory, tmp_path, tmp_path / "images").start("fresh", [b"no picture"]))


def test_the_original_images_are_in_either_layout(factory: Factory, tmp_path: Path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "mvtec" / "train" / "good").mkdir(parents=True)
    jobs = trainings(factory, tmp_path / "state", tmp_path)
    assert jobs.original_images("plain") == tmp_path / "plain"
    assert jobs.original_images("mvtec") == tmp_path / "mvtec" / "train" / "good"
    assert jobs.original_images("other") is None


def test_files_are_named_after_what_they_are(factory: Factory):
    png = (factory.data / "good" / "000.png").read_bytes()
    assert (ending_of(png), ending_of(b"\xff\xd8\xff"), ending_of(b"text")) == ("png", "jpg", None)
