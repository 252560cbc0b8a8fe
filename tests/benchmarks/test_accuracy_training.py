"""The ways to train differ in what they say they do, and a run is looked at where it was asked to be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.accuracy.sets import Data
from benchmarks.accuracy.training import WAYS, WEIGHTS, damaged, has, loss, moved, read, run
from model.networks.vgg import Student, Teacher, student_plan, vgg16_plan
from model.score import distillation_score, distillation_terms


@pytest.fixture
def maps() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of two networks and four images; they differ much at one location of each layer."""
    torch.manual_seed(0)
    teacher = [torch.rand(4, 8, side, side) for side in (8, 4)]
    student = [layer + 0.01 for layer in teacher]
    for layer in student:
        layer[1, :, 2, 3] += 1
    return teacher, student


def test_the_loss_of_all_locations_is_equation_13(maps):
    equation = distillation_score(distillation_terms(*maps), WEIGHTS).mean()
    assert loss(*maps, hardest=1).item() == pytest.approx(equation.item())


def test_the_hardest_locations_alone_count(maps):
    direction = WEIGHTS.direction * distillation_terms(*maps)[..., 1].sum(dim=1).mean().item()
    assert loss(*maps, hardest=0.001).item() == pytest.approx(2 * 1.01**2 + direction, rel=1e-4)
    of_two = 1.01**2 + (1.01**2 + 0.01**2) / 2  # 1 of the 64 locations of the coarse layer, 2 or 3 of 256
    assert loss(*maps, hardest=2 / 256).item() == pytest.approx(of_two + direction, rel=1e-4)


def test_damaged_pictures_are_damaged_in_part_and_the_same_again():
    pixels = np.full((40, 32, 32, 3), 128, np.uint8)
    found = damaged(pixels, np.random.default_rng(0))
    untouched = (found == pixels).all(axis=(1, 2, 3)).sum()
    assert 0 < untouched < 20
    assert np.array_equal(found, damaged(pixels, np.random.default_rng(0)))


def test_moved_pictures_keep_what_they_show():
    part = np.zeros((8, 64, 64, 3), np.uint8)
    part[:, 28:36, 28:36] = 100
    found = moved(part, np.random.default_rng(0))
    assert found.shape == part.shape
    assert ((found > 80).sum(axis=(1, 2, 3)) == 8 * 8 * 3).all()
    assert len(np.unique(found.max(axis=(1, 2, 3)))) > 4  # other light


@pytest.mark.parametrize("way", ["plain", "hardest-1", "denoising", "moved"])
def test_a_run_is_looked_at_after_the_steps_that_were_asked_for(way: str, tmp_path: Path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((8, 32, 32), bool)
    masks[:, 8:16, 8:16] = True
    data = Data(pixels, pixels[:8], 255 - pixels[:8], masks)
    torch.manual_seed(0)
    teacher = Teacher(vgg16_plan((4, 4, 4, 4, 4)))
    found = list(run(teacher, data, WAYS[way], 0, (1, 3), tmp_path / "student"))
    assert [look["steps"] for look in found] == [1, 3]
    Student(student_plan(teacher.plan)).load_state_dict(load_file(tmp_path / "student"))
    assert found[0]["held_out"] != found[1]["held_out"]
    assert all(0 <= value <= 1 for value in found[1]["auroc"].values())
    assert {"pixel_auroc", "aupro"} <= found[1].keys()


def test_a_falling_rate_is_looked_at_at_its_end_alone(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    data = Data(pixels, pixels[:8], 255 - pixels[:8], None)
    found = list(run(Teacher(vgg16_plan((4, 4, 4, 4, 4))), data, WAYS["one-cycle-0.003"], 0, (1, 3), tmp_path / "s"))
    assert [look["steps"] for look in found] == [3]


def test_a_real_set_without_a_folder_is_refused():
    with pytest.raises(SystemExit, match="casting needs --data"):
        read("casting", None, 32)


def test_only_a_run_that_came_to_its_last_look_is_known(tmp_path):
    key = {"teacher": "compact", "set": "tile", "way": "plain", "seed": 0}
    lines = tmp_path / "training.jsonl"
    assert not has(lines, key, 300)
    lines.write_text(json.dumps({**key, "steps": 150}) + "\n")
    assert not has(lines, key, 300)
    lines.write_text(lines.read_text() + json.dumps({**key, "steps": 300}) + "\n")
    assert has(lines, key, 300)
    assert not has(lines, {**key, "seed": 1}, 300)
