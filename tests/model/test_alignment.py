"""Where a part lies in a picture: poses that are known, pictures of nothing, and pictures of something else."""

import base64
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest

from model.alignment import LEAST_QUALITY, Alignment, Found, choose_reference
from model.choices import Align
from model.images import Photograph
from model.lab import bolts, synthetic
from model.preprocessing import Preprocessing
from model.region import Region, Zone

METHODS = (Align.TEMPLATE, Align.FEATURES)
PLACES = np.array([[60, 60], [180, 60], [60, 180], [180, 180]], float)


def panel(width: int = 240, height: int = 240, *, light: float = 1.0, seed: int = 0) -> np.ndarray:
    """A flat part with holes and print, RGB."""
    drawn = np.full((240, 240, 3), (110, 118, 125), np.uint8)
    cv2.rectangle(drawn, (45, 65), (195, 180), (170, 172, 168), cv2.FILLED)
    for x, y, radius in ((65, 85, 9), (175, 85, 9), (65, 160, 9), (140, 140, 19)):
        cv2.circle(drawn, (x, y), radius, (60, 60, 62), cv2.FILLED, cv2.LINE_AA)
    cv2.rectangle(drawn, (90, 75), (100, 120), (30, 60, 120), cv2.FILLED)
    noise = np.random.default_rng(seed).normal(0, 2, drawn.shape)
    seen = np.clip(cv2.GaussianBlur(drawn, (0, 0), 0.8) * light + noise, 0, 255).astype(np.uint8)
    return cv2.resize(seen, (width, height), interpolation=cv2.INTER_CUBIC)


def posed(image: np.ndarray, angle: float, shift: tuple[float, float], scale: float = 1.0) -> tuple[np.ndarray, ...]:
    """The picture of the part in another pose, and the matrix from the old pixels to the new."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += shift
    size = (width, height)
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), matrix


def off_by(found: np.ndarray, true: np.ndarray, places: np.ndarray = PLACES) -> float:
    """Largest distance in pixels."""
    distances = [(places @ one[:, :2].T + one[:, 2]) for one in (found, true)]
    return float(np.linalg.norm(distances[0] - distances[1], axis=1).max())


@pytest.mark.parametrize(
    ("method", "angle", "shift", "scale"),
    [
        (Align.TEMPLATE, 0, (0, 0), 1),
        (Align.TEMPLATE, 0, (17.3, -9.6), 1),
        (Align.TEMPLATE, 8, (-6, 11), 1),
        (Align.TEMPLATE, -3, (5, 5), 1.06),
        (Align.FEATURES, 33, (8, -4), 1),
        (Align.FEATURES, 95, (3, 9), 1),
        (Align.FEATURES, 180, (0, 0), 1),
        (Align.FEATURES, -140, (-7, 7), 0.94),
    ],
)
def test_a_known_pose_is_found_within_half_a_pixel_in_other_light(
    method: Align, angle: float, shift: tuple[float, float], scale: float
):
    picture, true = posed(panel(light=0.8, seed=1), angle, shift, scale)
    found = Alignment.to(panel(), method).find(picture)
    assert found.aligned
    assert off_by(found.matrix, true) < 0.5


def test_an_aligned_picture_shows_the_part_where_the_reference_does():
    reference = panel()
    alignment = Alignment.to(reference, Align.FEATURES)
    picture, _ = posed(panel(seed=1), 70, (9, -5))
    aligned = alignment.apply(picture, alignment.find(picture))
    assert aligned.shape == reference.shape
    middle = np.s_[40:200, 40:200]
    assert np.abs(aligned[middle].astype(int) - reference[middle]).mean() < 4
    assert np.abs(picture[middle].astype(int) - reference[middle]).mean() > 20


def test_a_part_that_is_turned_too_far_for_the_template_is_not_aligned_and_taken_as_it_is():
    picture, _ = posed(panel(seed=1), 90, (0, 0))
    found = Alignment.to(panel(), Align.TEMPLATE).find(picture)
    assert not found.aligned
    np.testing.assert_array_equal(found.matrix, np.eye(2, 3))


def test_a_picture_of_another_resolution_is_the_same_view():
    alignment = Alignment.to(panel(), Align.TEMPLATE)
    picture, true = posed(panel(seed=1), 5, (6, -3))
    larger = cv2.resize(picture, (720, 720), interpolation=cv2.INTER_CUBIC)
    found = alignment.find(larger)
    three = np.array([[3, 0, 1], [0, 3, 1]]) @ np.vstack((true, [0, 0, 1]))  # pixel centres at whole numbers
    assert off_by(found.matrix, three) < 1.5
    assert alignment.apply(larger, found).shape == (240, 240, 3)


@pytest.mark.parametrize("size", [(320, 200), (173, 251), (90, 60)])
@pytest.mark.parametrize("method", METHODS)
def test_pictures_of_any_shape_are_aligned(size: tuple[int, int], method: Align):
    width, height = size
    picture, true = posed(panel(width, height, seed=1), 0, (5.4, -3.2))
    found = Alignment.to(panel(width, height), method).find(picture)
    places = np.array([[0.3, 0.3], [0.7, 0.7]]) * size
    assert off_by(found.matrix, true, places) < 1


def test_a_round_part_is_not_turned():
    def ring(shift: tuple[int, int], seed: int) -> np.ndarray:
        drawn = np.full((240, 240, 3), 90, np.uint8)
        for radius, grey in ((80, 190), (45, 40), (18, 160)):
            cv2.circle(drawn, (120 + shift[0], 118 + shift[1]), radius, (grey,) * 3, cv2.FILLED, cv2.LINE_AA)
        return np.clip(drawn + np.random.default_rng(seed).normal(0, 3, drawn.shape), 0, 255).astype(np.uint8)

    for method in METHODS:
        alignment = Alignment.to(ring((0, 0), 0), method)
        for seed, shift in enumerate(((0, 0), (9, -7), (-4, 12)), start=1):
            found = alignment.find(ring(shift, seed))
            assert found.aligned
            np.testing.assert_array_equal(found.matrix[:, :2], np.eye(2))
            np.testing.assert_allclose(found.matrix[:, 2], shift, atol=0.3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((240, 240, 3), np.uint8),
        np.full((240, 240, 3), 200, np.uint8),
        np.full((1, 1, 3), 9, np.uint8),
        np.full((3, 3, 3), 9, np.uint8),
        np.random.default_rng(0).integers(0, 256, (1, 900, 3)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (900, 2, 3)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (240, 240, 3)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (2500, 3000)).astype(np.uint8),
        np.where(np.indices((240, 240))[0] % 16 < 8, 0, 255).astype(np.uint8),
        synthetic.normal_image(np.random.default_rng(0)),
        bolts.normal_image(np.random.default_rng(0)),
    ],
    ids=lambda one: "x".join(map(str, one.shape)),
)
def test_a_picture_of_nothing_or_of_something_else_is_not_aligned(picture: np.ndarray, method: Align):
    alignment = Alignment.to(panel(), method)
    found = alignment.find(picture)
    assert 0 <= found.quality < LEAST_QUALITY
    assert not found.aligned
    aligned = alignment.apply(picture, found)
    assert aligned.shape == (240, 240, *picture.shape[2:])
    assert aligned.dtype == np.uint8


@pytest.mark.parametrize("shape", [(240, 240, 3), (1, 1, 3), (2, 800, 3)])
def test_nothing_aligns_with_a_reference_that_shows_nothing(shape: tuple[int, ...]):
    alignment = Alignment.to(np.full(shape, 128, np.uint8), Align.FEATURES)
    for picture in (panel(), np.full(shape, 128, np.uint8)):
        assert alignment.find(picture).quality == 0


def test_half_a_part_has_a_lower_quality_than_the_whole():
    alignment = Alignment.to(panel(), Align.TEMPLATE)
    whole, _ = posed(panel(seed=1), 0, (10, 0))
    half, _ = posed(panel(seed=1), 0, (150, 0))
    assert alignment.find(half).quality < LEAST_QUALITY < alignment.find(whole).quality


def test_the_same_picture_is_always_aligned_in_the_same_way():
    picture, _ = posed(panel(seed=1), 50, (4, 4))
    first = Alignment.to(panel(), Align.FEATURES)
    again = pickle.loads(pickle.dumps(first))
    assert again == first
    assert hash(again) == hash(first)
    assert len(pickle.dumps(first)) < 1 << 17  # it goes to a decoder with every picture
    found = [alignment.find(picture) for alignment in (first, again, first)]
    for one in found[1:]:
        np.testing.assert_array_equal(one.matrix, found[0].matrix)
        assert one.quality == found[0].quality


def test_the_reference_is_the_picture_that_others_align_best_with():
    turned = [posed(panel(seed=seed), angle, (0, 0))[0] for seed, angle in enumerate((0, 3, 60, -4, 2, 5, -3))]
    chosen = choose_reference([np.zeros((240, 240, 3), np.uint8), *turned], Align.TEMPLATE)
    assert chosen not in (0, 3)
    assert choose_reference([panel()], Align.TEMPLATE) == 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"reference": "no PNG"}, "is no picture"),
        ({"reference": base64.b64encode(b"no PNG").decode()}, "is no picture"),
        ({"width": 100}, "pixels"),
        ({"height": 0}, "pixels"),
        ({"method": Align.NONE}, "method"),
    ],
)
def test_an_alignment_that_cannot_be_is_refused(changed: dict[str, object], reason: str):
    alignment = Alignment.to(panel(), Align.TEMPLATE)
    with pytest.raises(ValueError, match=reason):
        replace(alignment, **changed)


def test_rectangles_of_the_reference_become_rectangles_of_the_picture():
    assert Found(np.eye(2, 3), 1.0).around((3, 4, 10, 20), 100, 100) == (3, 4, 10, 20)
    assert Found(np.array([[1, 0, 5], [0, 1, -10.0]]), 1.0).around((3, 4, 10, 20), 100, 100) == (8, 0, 15, 10)
    quarter = np.array([[0, -1, 99], [1, 0, 0.0]])
    assert Found(quarter, 1.0).around((0, 0, 10, 20), 100, 100) == (80, 0, 100, 10)
    far = Found(np.array([[1, 0, 500], [0, 1, 0.0]]), 1.0).around((0, 0, 10, 20), 100, 100)
    assert far == (99, 0, 100, 20)


@pytest.mark.parametrize("method", METHODS)
def test_a_part_that_lies_partly_outside_of_the_picture_is_not_aligned(method: Align):
    alignment = Alignment.to(panel(), method)
    near, far = (alignment.find(posed(panel(seed=1), 0, (shift, 0))[0]) for shift in (12, 60))
    assert near.aligned
    assert near.seen > 0.95
    assert far.quality > 0.5
    assert far.seen == pytest.approx(0.8, abs=0.05)  # of an ellipse, whose ends are narrow
    assert not far.aligned
    assert off_by(far.matrix, np.array([[1, 0, 60], [0, 1, 0.0]])) < 1


def test_with_a_region_each_zone_must_lie_in_the_picture():
    def zone(name: str, left: int, right: int) -> Zone:
        return Zone(name, (((left, 80.0), (right, 80.0), (right, 160.0), (left, 160.0)),), (left, 80, right + 1, 161))

    def found(*zones: Zone) -> Found:
        alignment = Alignment.to(panel(), Align.TEMPLATE)
        preprocessing = Preprocessing(64, region=Region(240, 240, zones), alignment=alignment)
        pose = preprocessing.prepare(Photograph(posed(panel(seed=1), 0, (30, 0))[0])).pose
        assert pose is not None
        return pose

    assert found(zone("left", 10, 60), zone("middle", 100, 150)).seen == 1
    assert found(zone("left", 10, 60), zone("right", 180, 229)).seen == pytest.approx(0.6, abs=0.05)
    assert not found(zone("left", 10, 60), zone("right", 180, 229)).aligned
