"""Score and map against an independent float64 reference, and what must not depend on the batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from model.choices import MapForm, Score, TermWeights
from model.detector import Detector, detect
from model.networks.vgg import Student, Teacher, student_plan
from model.score import distillation_score, distillation_terms, largest_distances, layer_distances
from tests.conftest import terms_of


def trained_looking(student: Student, seed: int) -> Student:
    """Gives BatchNorm statistics and scales that are not the trivial ones."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in student.state_dict().items():
        if name.endswith(("running_var", "running_mean")) or (value.ndim == 1 and value.is_floating_point()):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return student


@pytest.fixture
def students(teacher: Teacher) -> list[Student]:
    torch.manual_seed(1)
    plan = student_plan(teacher.plan)
    return [
        trained_looking(Student(plan), 1),
        trained_looking(Student(plan), 2),
        trained_looking(Student(plan, weigh_distillation_layers=False), 3),
        trained_looking(Student(plan), 4),
    ]


WEIGHTS = [TermWeights(direction=0.1), TermWeights(squared=0.5, direction=0.01), TermWeights(), TermWeights()]


@pytest.fixture
def detectors(teacher: Teacher, students: list[Student]) -> list[Detector]:
    scores = (Score.GLOBAL, Score.GLOBAL, Score.LOCAL, Score.WEIGHTED)
    return [
        Detector(teacher, student, weights, score=score)
        for student, weights, score in zip(students, WEIGHTS, scores, strict=True)
    ]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)


def reference_maps(state: dict[str, torch.Tensor], x: torch.Tensor, *, student: bool) -> list[torch.Tensor]:
    """The networks written out once more, from their tensors alone, in float64."""
    state = {name: value.double() for name, value in state.items()}
    before_pool = {1, 3, 6, 9, 12}
    index, maps = 0, []

    def attention(y: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        pooled = y.mean(dim=(2, 3))[:, None]
        return torch.sigmoid(F.conv1d(pooled, kernel, padding=kernel.shape[-1] // 2))[:, 0, :, None, None]

    for convolution in range(13):
        x = F.conv2d(x, state[f"features.{index}.weight"], state.get(f"features.{index}.bias"), padding=1)
        if student and convolution not in before_pool:
            norm = f"features.{index + 1}"
            mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
            x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
            x = x * state[f"{norm}.weight"][:, None, None] + state[f"{norm}.bias"][:, None, None]
            x = x * attention(x, state[f"features.{index + 2}.conv.weight"])
            index += 3
        else:
            x = x.clamp(min=0)
            index += 2
        if convolution in before_pool:
            x = F.max_pool2d(x, 2)
            index += 1
            if convolution > 1:
                omega = state.get(f"omega.{len(maps)}.conv.weight") if student else None
                maps.append(x if omega is None else x * attention(x, omega))
    return maps


def reference(detector: Detector, student: Student, image: np.ndarray) -> tuple[float, dict[MapForm, np.ndarray]]:
    """The score and every form of map of one image in float64."""
    teacher, weights = detector.teacher, detector.weights
    x = torch.from_numpy(image).double().permute(2, 0, 1)[None].div(255).requires_grad_()
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    inputs = (x - mean) / std
    teacher_maps = reference_maps(dict(teacher.state_dict()), inputs, student=False)
    student_maps = reference_maps(dict(student.state_dict()), inputs, student=True)
    score, distances = torch.zeros((), dtype=torch.float64), torch.zeros((16, 16), dtype=torch.float64)
    for t, s in zip(teacher_maps, student_maps, strict=True):
        a, b = t.flatten(), s.flatten()
        score = score + weights.squared * ((a - b) ** 2).sum() / a.numel()
        score = score + weights.direction * (1 - a @ b / (a.norm() * b.norm()))
        energies = t.square().sum(1), s.square().sum(1)
        lower_median = energies[0].detach().flatten().sort().values[(energies[0].numel() - 1) // 2]
        more = 3 * lower_median if detector.score is Score.WEIGHTED else 0
        lengths = (energies[0] + more).sqrt() * (energies[1] + more).sqrt()
        distance = 1 - ((t * s).sum(1) + more) / lengths.clamp(min=1e-30)
        grow = torch.from_numpy(bilinear(distance.shape[-1], 16))
        if distance.shape[-1] > 2:  # all layers but the coarsest
            distances = distances + grow @ distance[0] @ grow.T
        largest = distances if distance.shape[-1] > 2 else distances + grow @ distance[0] @ grow.T

    def filtered(objective: torch.Tensor) -> np.ndarray:
        (gradient,) = torch.autograd.grad(objective, x, retain_graph=True)
        attribution = gradient[0].abs().sum(0).numpy()
        smooth = ndimage.gaussian_filter(attribution, sigma=4 * 64 / 128, mode="mirror")
        cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
        return ndimage.grey_opening(smooth, footprint=cross)

    grow = bilinear(16, 64)
    large = grow @ distances.detach().numpy() @ grow.T
    maps = {
        MapForm.GRADIENT: filtered(score),
        MapForm.DISTANCE: large,
        MapForm.GRADIENT_DISTANCE: np.sqrt(filtered((distances**4).mean() ** 0.25) * large),
    }
    # Half a per cent of 16 x 16 locations is one.
    return score.item() if detector.score is Score.GLOBAL else largest.max().item(), maps


def bilinear(few: int, many: int) -> np.ndarray:
    """The matrix ``[many, few]`` that interpolates linearly between the centres of pixels."""
    place = ((np.arange(many) + 0.5) * few / many - 0.5).clip(0, few - 1)
    return np.array([np.interp(place, np.arange(few), one) for one in np.eye(few)]).T


def test_score_and_map_are_those_of_the_float64_reference(
    teacher: Teacher, students: list[Student], detectors: list[Detector], images: np.ndarray
):
    for detector, student in zip(detectors, students, strict=True):
        expected = [reference(detector, student, image) for image in images]
        for form in MapForm:
            found = detector(images, maps=form)
            assert found.scores.dtype == found.maps.dtype == np.float32
            for index, (score, maps) in enumerate(expected):
                assert found.scores[index] == pytest.approx(score, rel=1e-5)
                inner = (slice(8, -8), slice(8, -8))  # the two libraries treat the border of an opening differently
                np.testing.assert_allclose(
                    found.maps[index][inner], maps[form][inner], rtol=2e-3, atol=2e-3 * maps[form].max()
                )


def test_one_by_one_equals_the_batch(detectors: list[Detector], images: np.ndarray):
    batch = detectors[0](images, maps=MapForm.GRADIENT)
    for index in range(len(images)):
        alone = detectors[0](images[index : index + 1], maps=MapForm.GRADIENT)
        assert alone.scores[0] == pytest.approx(batch.scores[index], rel=1e-6)
        np.testing.assert_allclose(alone.maps[0], batch.maps[index], rtol=1e-3, atol=1e-6)


def test_categories_may_be_mixed_in_one_batch(detectors: list[Detector], images: np.ndarray):
    mixed = [detectors[index] for index in (0, 2, 1, 0, 2, 0)]
    forms = [MapForm(form) for form in ("gradient", "distance", "gradient-distance") * 2]
    found = detect(images, mixed, maps=forms)
    for index, detector in enumerate(mixed):
        alone = detector(images[index : index + 1], maps=forms[index])
        assert found.scores[index] == pytest.approx(alone.scores[0], rel=1e-6)
        np.testing.assert_allclose(found.maps[index], alone.maps[0], rtol=1e-3, atol=1e-6)


def test_maps_cost_nothing_unless_asked_for(detectors: list[Detector], images: np.ndarray):
    without = detectors[0](images)
    assert without.maps is None
    np.testing.assert_allclose(without.scores, detectors[0](images, maps=MapForm.GRADIENT).scores, rtol=1e-6)


def test_terms_add_up_to_the_score(detectors: list[Detector], images: np.ndarray):
    terms = terms_of(detectors[1], images)
    assert terms.shape == (6, 4, 2)
    np.testing.assert_allclose(
        detectors[1](images).scores, terms[..., 0].sum(1) * 0.5 + terms[..., 1].sum(1) * 0.01, rtol=1e-5
    )


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 64, 64, 3), dtype=np.float32),
        np.zeros((64, 64, 3), dtype=np.uint8),
        np.zeros((1, 3, 64, 64), dtype=np.uint8),
        np.zeros((0, 64, 64, 3), dtype=np.uint8),
    ],
)
def test_other_images_are_refused(detectors: list[Detector], wrong: np.ndarray):
    with pytest.raises(ValueError, match="must be uint8"):
        detectors[0](wrong)


def test_detectors_must_fit_the_batch(detectors: list[Detector], images: np.ndarray):
    with pytest.raises(ValueError, match="need as many"):
        detect(images, detectors[:2])
    stranger = Detector(Teacher(detectors[0].teacher.plan), Student(student_plan(detectors[0].teacher.plan)))
    with pytest.raises(ValueError, match="share one teacher"):
        detect(images[:2], [detectors[0], stranger])


def test_identical_maps_score_zero_and_opposite_ones_two():
    maps = [torch.rand(3, 4, 5, 5) + 0.1]
    assert distillation_terms(maps, maps).abs().max() < 1e-6
    opposite = distillation_terms(maps, [-maps[0]])
    torch.testing.assert_close(opposite[:, 0, 1], torch.full((3,), 2.0))


def test_a_map_of_zeros_has_cosine_zero():
    zeros, ones = [torch.zeros(1, 2, 3, 3)], [torch.ones(1, 2, 3, 3)]
    assert distillation_terms(zeros, ones)[0, 0, 1] == 1
    assert distillation_terms(ones, zeros)[0, 0, 1] == 1
    assert distillation_terms(zeros, zeros)[0, 0, 1] == 1


def test_float32_keeps_its_digits_where_maps_almost_agree():
    torch.manual_seed(0)
    t = torch.rand(1, 64, 16, 16)
    s = t + 1e-3 * torch.rand_like(t)
    exact = 1 - F.cosine_similarity(t.double().flatten(1), s.double().flatten(1))
    assert distillation_terms([t], [s])[0, 0, 1].item() == pytest.approx(exact.item(), rel=1e-4)


def test_local_distances_are_zero_to_two_a_layer_and_found_at_one_place():
    teacher, student = torch.rand(1, 4, 8, 8) + 0.1, [torch.rand(1, 6, 4, 4) + 0.1]
    other = teacher.clone()
    other[0, :, 2, 5] *= -1
    fine, coarse = layer_distances([teacher, student[0]], [other, student[0]])
    assert fine.shape == coarse.shape == (1, 8, 8)
    assert min(fine.min(), coarse.min()) >= 0
    assert fine[0, 2, 5].item() == pytest.approx(2, rel=1e-5)
    assert (fine > 1e-5).sum() == 1
    assert coarse.max() < 1e-5


def test_a_floor_weighs_a_location_by_how_much_the_teacher_sees_there():
    """The same change of direction counts fully where the energy is high, and hardly where it is low."""
    energies = torch.full((8, 8), 1.0)
    energies[1, 1], energies[6, 6] = 100.0, 0.01
    teacher = torch.stack((energies.sqrt(), torch.zeros(8, 8)))[None]
    student = teacher.clone()
    for y, x in ((1, 1), (3, 4), (6, 6)):
        student[0, :, y, x] = teacher[0, :, y, x].flip(0)  # a right angle
    (plain,), (floored,) = (layer_distances([teacher], [student], floor) for floor in (0.0, 3.0))
    for found, expected in ((plain, (1, 1, 1)), (floored, (100 / 103, 1 / 4, 0.01 / 3.01))):
        places = found[0, 1, 1].item(), found[0, 3, 4].item(), found[0, 6, 6].item()
        assert places == pytest.approx(expected, rel=1e-3)
        assert (found > 1e-3).sum() == 3


def test_a_floor_is_relative_so_a_teacher_on_another_scale_scores_the_same():
    torch.manual_seed(0)
    teacher, student = torch.rand(2, 6, 8, 8), torch.rand(2, 6, 8, 8)
    floors = torch.tensor([0.0, 5.0])
    (found,), (scaled,) = (layer_distances([k * teacher], [k * student], floors) for k in (1, 1000))
    torch.testing.assert_close(found, scaled, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("floor", [0.0, 5.0])
def test_maps_of_zeros_have_finite_distances_and_gradients(floor: float):
    teacher, student = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8, requires_grad=True)
    (found,) = layer_distances([teacher], [student], floor)
    assert found.isfinite().all()
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert gradient.isfinite().all()


def test_the_weighted_score_is_the_mean_of_the_largest_half_per_cent():
    distances = torch.arange(2048, dtype=torch.float32).reshape(2, 32, 32)
    assert largest_distances(distances).values.tolist() == [
        [1023, 1022, 1021, 1020, 1019],
        [2047, 2046, 2045, 2044, 2043],
    ]
    assert largest_distances(distances[:, :4, :4]).values.shape == (2, 1)  # at least one


@pytest.mark.parametrize("score", [Score.LOCAL, Score.WEIGHTED])
def test_the_gradient_of_identical_networks_is_finite(teacher: Teacher, images: np.ndarray, score: Score):
    found = Detector(teacher, teacher, score=score)(images, maps=MapForm.GRADIENT_DISTANCE)
    assert np.abs(found.scores).max() < 1e-5
    assert np.isfinite(found.maps).all()


def test_a_map_for_each_image(detectors: list[Detector], images: np.ndarray):
    with pytest.raises(ValueError, match="6 images need as many forms of maps, got 1"):
        detect(images, [detectors[0]] * 6, maps=[MapForm.DISTANCE])


def test_weights_are_one_number_a_term():
    terms = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert distillation_score(terms, TermWeights(squared=1, direction=0.1)).item() == pytest.approx(4.6)


def test_the_students_that_training_keeps_are_left_as_they_were(teacher: Teacher, students: list[Student]):
    before = {name: value.clone() for name, value in students[0].state_dict().items()}
    Detector(teacher, students[0])
    for name, value in students[0].state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("score", "form"),
    [
        (Score.GLOBAL, MapForm.GRADIENT),
        (Score.LOCAL, MapForm.GRADIENT_DISTANCE),
        (Score.WEIGHTED, MapForm.GRADIENT_DISTANCE),
    ],
)
@pytest.mark.parametrize(
    ("precision", "largest_error", "alike"), [(torch.float16, 0.003, 0.995), (torch.bfloat16, 0.02, 0.98)]
)
def test_reduced_precision_keeps_the_scores(
    teacher: Teacher,
    students: list[Student],
    images: np.ndarray,
    precision: torch.dtype,
    largest_error: float,
    alike: float,
    score: Score,
    form: MapForm,
):
    exact = Detector(teacher, students[0], score=score)(images, maps=form)
    narrow = Teacher(teacher.plan)
    narrow.load_state_dict(teacher.state_dict())
    found = Detector(narrow, students[0], precision=precision, score=score)(images, maps=form)
    assert {found.scores.dtype, found.distances.dtype, found.maps.dtype} == {np.dtype(np.float32)}
    assert (found.scores != exact.scores).any()
    np.testing.assert_allclose(found.scores, exact.scores, rtol=largest_error)
    assert np.corrcoef(found.maps.ravel(), exact.maps.ravel())[0, 1] > alike
