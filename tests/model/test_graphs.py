"""Batches as CUDA graphs see them. Without a GPU the same code runs with a recorder that runs the work again."""

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch

from model import graphs
from model.choices import MapForm, Score, TermWeights
from model.detector import Detector, detect
from model.graphs import PairGraphs, graphs_of
from model.networks.vgg import Student, Teacher, student_plan, vgg16_plan
from model.score import Scored

PLAN = vgg16_plan((8, 12, 16, 20, 24))


def run_again(work: Callable[[], Scored], _: torch.device, pool: object) -> tuple[Callable[[], None], Scored]:
    outputs = work()

    def replay() -> None:
        for place, fresh in zip(outputs, work(), strict=True):
            if place is not None and fresh is not None:
                place.copy_(fresh)

    return replay, outputs


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Puts `run_again` in the place of the capture; one entry for each."""
    made: list[torch.device] = []

    def recorded(work, device, pool):
        made.append(device)
        return run_again(work, device, pool)

    monkeypatch.setattr(graphs, "capture", recorded)
    return made


def make_detectors(teacher: Teacher, device: str = "cpu", precision: torch.dtype = torch.float32) -> list[Detector]:
    torch.manual_seed(2)
    plan = student_plan(teacher.plan)
    return [
        Detector(teacher, Student(plan), TermWeights(direction=0.1), device, precision),
        Detector(teacher, Student(plan), TermWeights(squared=0.5, direction=0.01), device, precision),
        Detector(teacher, Student(plan), TermWeights(), device, precision, Score.LOCAL),
        Detector(teacher, Student(plan), TermWeights(), device, precision, Score.WEIGHTED),
        Detector(teacher, Student(plan, weigh_distillation_layers=False), TermWeights(), device, precision),
    ]


@pytest.fixture
def detectors(teacher: Teacher) -> list[Detector]:
    return make_detectors(teacher)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def assert_like_the_plain_way(
    made: PairGraphs, detectors: list[Detector], images: np.ndarray, *, maps: MapForm | None
) -> None:
    gradient = maps is not None and maps is not MapForm.DISTANCE
    objectives = np.float32([one.objective(maps) for one in detectors]) if gradient else None
    students, weights = [one.student for one in detectors], np.float32([one.score_weights for one in detectors])
    found = made.run(detectors[0].teacher, images, students, weights, objectives)
    plain = detect(images, detectors, maps=None if maps is None else [maps] * len(images))
    np.testing.assert_allclose(found.scores, plain.scores, rtol=1e-5)
    np.testing.assert_allclose(found.distances, plain.distances, rtol=1e-4, atol=1e-6)
    if gradient:
        for index, one in enumerate(plain.evidence):
            np.testing.assert_allclose(
                found.gradients[index], one.gradient, rtol=1e-3, atol=1e-3 * float(one.gradient.max())
            )
    else:
        assert found.gradients is None


@pytest.mark.parametrize("maps", [None, *MapForm])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_one_category_padded_to_the_next_size(
    captures: list[torch.device], detectors: list[Detector], count: int, maps: MapForm | None
):
    assert_like_the_plain_way(PairGraphs(), [detectors[0]] * count, pictures(count), maps=maps)
    assert len(captures) == 1


@pytest.mark.parametrize("maps", [None, *MapForm])
def test_many_categories_run_as_one(captures: list[torch.device], detectors: list[Detector], maps: MapForm | None):
    mixed = [detectors[index] for index in (0, 0, 1, 2, 2, 3)]
    assert_like_the_plain_way(PairGraphs(), mixed, pictures(6), maps=maps)
    assert len(captures) == 1


def test_a_graph_serves_other_categories_and_other_images(captures: list[torch.device], detectors: list[Detector]):
    made = PairGraphs()
    for seed, detector in enumerate((detectors[0], detectors[1], detectors[1], detectors[0])):
        assert_like_the_plain_way(made, [detector] * 2, pictures(2, seed), maps=None)
    for seed, pair in enumerate(((0, 1), (2, 1), (1, 0))):
        assert_like_the_plain_way(made, [detectors[index] for index in pair], pictures(2, seed), maps=None)
    assert len(captures) == 2  # one category, and several


def test_what_lay_in_a_larger_batch_before_does_no_harm(captures: list[torch.device], detectors: list[Detector]):
    made = PairGraphs()
    assert_like_the_plain_way(made, [detectors[0]] * 8, np.full_like(pictures(8), 255), maps=MapForm.GRADIENT)
    assert_like_the_plain_way(made, [detectors[0]] * 5, pictures(5), maps=MapForm.GRADIENT)
    assert len(captures) == 1


def test_students_with_other_layers_run_on_their_own(captures: list[torch.device], detectors: list[Detector]):
    assert_like_the_plain_way(
        PairGraphs(), [detectors[index] for index in (0, 1, 4, 4)], pictures(4), maps=MapForm.GRADIENT
    )
    assert len(captures) == 2


def test_a_batch_beyond_the_largest_size_is_cut(
    captures: list[torch.device], detectors: list[Detector], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graphs, "BATCH_SIZES", (1, 2))
    assert_like_the_plain_way(PairGraphs(), [detectors[0]] * 5, pictures(5), maps=MapForm.GRADIENT)
    assert len(captures) == 2


def test_results_are_not_overwritten_by_the_next_batch(captures: list[torch.device], detectors: list[Detector]):
    made = PairGraphs()
    arguments = [detectors[0].student], np.float32([[1, 0.1, 0, 0]]), np.float32([[1, 0.1, 0, 0]])
    first, _, gradient = made.run(detectors[0].teacher, pictures(1, 1), *arguments)
    kept = first.copy(), gradient.copy()
    made.run(detectors[0].teacher, pictures(1, 2), *arguments)
    assert np.array_equal(first, kept[0])
    assert np.array_equal(gradient, kept[1])


def test_graphs_go_when_their_teacher_goes():
    teacher = Teacher(PLAN)
    made = graphs_of(teacher)
    assert graphs_of(teacher) is made
    before = len(graphs._graphs.of)
    del teacher
    gc.collect()
    assert len(graphs._graphs.of) == before - 1


@pytest.mark.cuda
@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16])
def test_the_gpu_scores_like_the_cpu(teacher: Teacher, precision: torch.dtype):
    on_gpu = Teacher(PLAN)
    on_gpu.load_state_dict(teacher.state_dict())
    here, there = make_detectors(teacher), make_detectors(on_gpu, "cuda", precision)
    exact = precision is torch.float32
    for plan in ((0,), (0, 0, 0), (0, 1, 2, 1, 3), (0, 1, 4)):
        images = pictures(len(plan), sum(plan))
        for maps in (None, *MapForm):
            forms = None if maps is None else [maps] * len(plan)
            expected = detect(images, [here[index] for index in plan], maps=forms)
            found = detect(images, [there[index] for index in plan], maps=forms)
            np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3 if exact else 0.02)
            if maps is not None:
                together = np.corrcoef(found.maps.ravel(), expected.maps.ravel())[0, 1]
                assert together > (0.9999 if exact else 0.98)
