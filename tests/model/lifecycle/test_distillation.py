"""Training learns, its cache changes nothing, and stopping it loses nothing."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.choices import Schedule
from model.detector import Detector
from model.lifecycle.distillation import Epoch, TrainingInterrupted, student_of, teacher_features, train
from model.lifecycle.recipe import RISING, Recipe, TrainingError
from model.networks.vgg import Student, Teacher, vgg16_plan
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


@pytest.mark.parametrize("schedule", Schedule)
def test_a_stopped_and_resumed_run_ends_with_the_same_student(
    teacher: Teacher, pixels: np.ndarray, tmp_path: Path, schedule: Schedule
):
    recipe = replace(RECIPE, schedule=schedule)
    whole, losses = train(teacher, pixels, recipe)
    checkpoint = tmp_path / "deeper" / "run.pt"

    def stop_in_the_fourth(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as stopped:
        train(teacher, pixels, recipe, checkpoint=checkpoint, on_epoch=stop_in_the_fourth)
    assert stopped.value.epochs_done == 3
    numbers: list[int] = []
    resumed, all_losses = train(
        teacher, pixels, recipe, checkpoint=checkpoint, on_epoch=lambda epoch: numbers.append(epoch.number)
    )
    assert numbers == [4, 5, 6]
    assert all_losses == losses
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_from_before_there_were_schedules_had_a_constant_rate(
    teacher: Teacher, pixels: np.ndarray, tmp_path: Path
):
    checkpoint, constant = tmp_path / "run.pt", replace(RECIPE, schedule=Schedule.CONSTANT)
    train(teacher, pixels, replace(constant, epochs=2), checkpoint=checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    del state["identity"]["schedule"]
    torch.save(state, checkpoint)
    with pytest.raises(TrainingError, match="run with other schedule"):
        train(teacher, pixels, replace(RECIPE, schedule=Schedule.ONE_CYCLE), checkpoint=checkpoint)
    _, resumed = train(teacher, pixels, constant, checkpoint=checkpoint)
    assert resumed == train(teacher, pixels, constant)[1]


def test_the_rate_is_used(teacher: Teacher, pixels: np.ndarray):
    """The last step of one cycle has no rate, so the student of one step less is the same but for its statistics."""
    recipe = replace(RECIPE, epochs=2, batch_size=len(pixels), schedule=Schedule.ONE_CYCLE)
    before: list[dict[str, torch.Tensor]] = []

    def build(teacher: Teacher, recipe: Recipe) -> Student:
        student = student_of(teacher, recipe)
        student.register_forward_pre_hook(lambda module, inputs: before.append(copy.deepcopy(module.state_dict())))
        return student

    student, _ = train(teacher, pixels, recipe, build=build)
    first, second = ({name: value for name, value in state.items() if "running" not in name} for state in before)
    weights = [name for name, value in first.items() if value.is_floating_point()]
    assert all(torch.equal(student.state_dict()[name], second[name]) for name in weights)
    assert not all(torch.equal(first[name], second[name]) for name in weights)


@pytest.mark.parametrize("steps", [30, 100, 255])
def test_one_cycle_is_that_of_torch(steps: int):
    recipe = Recipe(learning_rate=0.003, schedule=Schedule.ONE_CYCLE)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, steps, pct_start=RISING, cycle_momentum=False)
    for step in range(steps):
        assert recipe.rate_at(step, steps) == pytest.approx(cycle.get_last_lr()[0], abs=1e-7)
        optimizer.step()
        if step < steps - 1:
            cycle.step()


@pytest.mark.parametrize("steps", [1, 2, 10, 20])
def test_one_cycle_of_few_steps_begins_above_nothing_and_ends_with_it(steps: int):
    recipe = Recipe(learning_rate=0.003, schedule=Schedule.ONE_CYCLE)
    rates = [recipe.rate_at(step, steps) for step in range(steps)]
    assert max(rates) == pytest.approx(0.003)
    assert rates[0] > 0
    assert steps == 1 or rates[-1] == pytest.approx(0)


def test_a_constant_rate_stays():
    recipe = Recipe(learning_rate=0.002, schedule=Schedule.CONSTANT)
    assert {recipe.rate_at(step, 100) for step in range(100)} == {0.002}


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
