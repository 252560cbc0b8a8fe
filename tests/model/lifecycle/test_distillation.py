"""Training learns, its cache changes nothing, and stopping it loses nothing."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.detector import Detector
from model.lifecycle.distillation import Epoch, TrainingInterrupted, teacher_features, train
from model.lifecycle.recipe import Recipe, TrainingError
from model.networks.vgg import Teacher, vgg16_plan
from model.preprocessing import as_input
from tests.conftest import surface

RECIPE = Recipe(image_size=32, epochs=6, batch_size=4)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack([surface(seed, size=(32, 32)) for seed in range(10)])


def test_the_loss_falls_and_defects_score_higher(teacher: Teacher, pixels: np.ndarray):
    student, losses = train(teacher, pixels, replace(RECIPE, epochs=30))
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 2
    detector = Detector(teacher, student)
    good = np.stack([surface(seed, size=(32, 32)) for seed in range(50, 60)])
    bad = np.stack([surface(seed, size=(32, 32), fault=True) for seed in range(60, 70)])
    assert detector(bad).scores.mean() > detector(good).scores.mean()


def test_cached_features_are_the_teachers(teacher: Teacher, pixels: np.ndarray):
    with torch.no_grad():
        direct = teacher(as_input(torch.from_numpy(pixels)))
    for cached, taps in zip(teacher_features(teacher, pixels), direct, strict=True):
        torch.testing.assert_close(cached, taps)


def test_features_beyond_the_budget_go_to_a_file_that_is_gone_afterwards(
    teacher: Teacher, pixels: np.ndarray, tmp_path: Path
):
    in_memory = teacher_features(teacher, pixels)
    mapped = teacher_features(teacher, pixels, memory_bytes=0, spill_folder=tmp_path)
    open_files = [str(link.readlink()) for link in Path("/proc/self/map_files").iterdir()] if os.geteuid() == 0 else []
    if open_files:
        assert any(str(tmp_path) in name for name in open_files)
    for one, other in zip(in_memory, mapped, strict=True):
        torch.testing.assert_close(one, other)
    assert list(tmp_path.iterdir()) == []  # the file has no name, so nothing can be left behind


def test_training_from_the_file_is_training_from_memory(teacher: Teacher, pixels: np.ndarray, tmp_path: Path):
    _, in_memory = train(teacher, pixels, RECIPE)
    _, mapped = train(teacher, pixels, RECIPE, memory_bytes=0, spill_folder=tmp_path)
    assert mapped == in_memory


def test_a_stopped_and_resumed_run_ends_with_the_same_student(teacher: Teacher, pixels: np.ndarray, tmp_path: Path):
    whole, losses = train(teacher, pixels, RECIPE)
    checkpoint = tmp_path / "deeper" / "run.pt"

    def stop_in_the_fourth(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as stopped:
        train(teacher, pixels, RECIPE, checkpoint=checkpoint, on_epoch=stop_in_the_fourth)
    assert stopped.value.epochs_done == 3
    numbers: list[int] = []
    resumed, all_losses = train(
        teacher, pixels, RECIPE, checkpoint=checkpoint, on_epoch=lambda epoch: numbers.append(epoch.number)
    )
    assert numbers == [4, 5, 6]
    assert all_losses == losses
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_with_more_epochs_than_asked_for_is_refused_and_kept(
    teacher: Teacher, pixels: np.ndarray, tmp_path: Path
):
    checkpoint = tmp_path / "run.pt"
    student, _ = train(teacher, pixels, replace(RECIPE, epochs=3), checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(TrainingError, match="has 3 epochs already, 2 are asked for"):
        train(teacher, pixels, replace(RECIPE, epochs=2), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before
    again, losses = train(teacher, pixels, replace(RECIPE, epochs=3), checkpoint=checkpoint)  # only writing had failed
    assert len(losses) == 3
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in student.state_dict().items())


def test_the_seed_decides(teacher: Teacher, pixels: np.ndarray):
    _, first = train(teacher, pixels, RECIPE)
    _, again = train(teacher, pixels, RECIPE)
    _, other = train(teacher, pixels, replace(RECIPE, seed=1))
    assert first == again
    assert first != other


def test_a_checkpoint_of_another_run_is_refused(teacher: Teacher, pixels: np.ndarray, tmp_path: Path):
    checkpoint = tmp_path / "run.pt"

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        train(teacher, pixels, RECIPE, checkpoint=checkpoint, on_epoch=stop)
    with pytest.raises(TrainingError, match="run with other learning_rate"):
        train(teacher, pixels, replace(RECIPE, learning_rate=0.1), checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="run with other images"):
        train(teacher, pixels[:-1], RECIPE, checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="teacher"):
        train(Teacher(vgg16_plan((8, 12, 16, 20, 24))), pixels, RECIPE, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(TrainingError, match="cannot read the checkpoint"):
        train(teacher, pixels, RECIPE, checkpoint=checkpoint)


def test_a_loss_that_is_not_finite_stops_the_training(teacher: Teacher, pixels: np.ndarray):
    with pytest.raises(TrainingError, match="smaller learning rate"):
        train(teacher, pixels, replace(RECIPE, learning_rate=1e30))


@pytest.mark.cuda
def test_training_runs_on_the_gpu(teacher: Teacher, pixels: np.ndarray):
    fresh = Teacher(teacher.plan)
    fresh.load_state_dict(teacher.state_dict())
    student, losses = train(fresh, pixels, replace(RECIPE, epochs=30), device="cuda")
    assert losses[-1] < losses[0] / 2
    assert next(student.parameters()).device.type == "cpu"
