"""A picture that is not as those of good parts are is found by its brightness, contrast, sharpness and shape."""

import cv2
import numpy as np
import pytest

from model.choices import Reason
from model.lab.bolts import normal_image as bolt
from model.lab.synthetic import normal_image as plate
from model.preprocessing import Preprocessing
from model.quality import Look, PictureCheck, look_of
from tests.conftest import surface

PREPARED = Preprocessing(128)


def plates(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [plate(rng) for _ in range(count)]


def look(image: np.ndarray) -> Look:
    return look_of(PREPARED.apply(image), image.shape[1] / image.shape[0])


@pytest.fixture(scope="module")
def check() -> PictureCheck:
    return PictureCheck.of([look(image) for image in plates(20)])


def test_the_measures_are_what_they_are_called():
    flat = look_of(np.full((1, 32, 32, 3), 70, np.uint8), 0.5)
    assert flat == (pytest.approx(70), pytest.approx(0, abs=1e-4), pytest.approx(0, abs=1e-4), 0.5)
    halves = np.full((1, 32, 32, 3), 50, np.uint8)
    halves[:, :, 16:] = 150
    found = look_of(halves, 1)
    assert found.brightness == pytest.approx(100)
    assert found.contrast == pytest.approx(50)
    # Of 30 columns that count two have a Laplacian of 100 and -100, and one a gradient of 100.
    wanted = np.sqrt(2 * 100**2 / 30) / np.sqrt(100**2 / 30 + 1)
    assert found.sharpness == pytest.approx(wanted, rel=1e-5)


def test_light_and_contrast_do_not_change_the_sharpness():
    image = plates(1)[0]
    for changed in (image * 0.7, image * 0.6 + 60):
        assert look(np.rint(changed).astype(np.uint8)).sharpness == pytest.approx(look(image).sharpness, rel=0.02)
    assert look(cv2.GaussianBlur(image, (0, 0), 3)).sharpness < 0.7 * look(image).sharpness


def test_only_what_counts_is_measured():
    pixels = PREPARED.apply(surface(1, size=(128, 128)))
    masks = np.zeros((1, 128, 128), bool)
    masks[:, 20:90, 30:100] = True
    other = pixels.copy()
    other[~masks] = 255
    assert look_of(pixels, 1, masks) == look_of(other, 1, masks)
    assert look_of(pixels, 1, masks) != look_of(pixels, 1)
    assert look_of(pixels, 1, np.ones_like(masks)) == look_of(pixels, 1)


def test_a_place_too_narrow_for_neighbours_is_measured_nevertheless():
    masks = np.zeros((1, 128, 128), bool)
    masks[:, 5] = True
    found = look_of(PREPARED.apply(surface(1, size=(128, 128))), 1, masks)
    assert all(np.isfinite(found))
    assert found.sharpness > 0


def test_the_views_of_a_picture_are_measured_together():
    tiled = look_of(np.concatenate([PREPARED.apply(image) for image in plates(2)]), 1)
    one, other = (look(image) for image in plates(2))
    assert tiled.brightness == pytest.approx((one.brightness + other.brightness) / 2)
    assert min(one.sharpness, other.sharpness) <= tiled.sharpness <= max(one.sharpness, other.sharpness)


def test_new_pictures_of_good_parts_pass(check: PictureCheck):
    assert [image for image in plates(60, seed=1) if check.reasons(look(image))] == []
    rng = np.random.default_rng(2)
    of_bolts = [look(bolt(rng, rng.uniform())) for _ in range(60)]
    few = PictureCheck.of(of_bolts[:8])
    assert [one for one in of_bolts if few.reasons(one)] == []


def test_each_fault_of_a_picture_has_its_word(check: PictureCheck):
    image = plates(1, seed=3)[0]

    def reasons(changed: np.ndarray) -> list[Reason]:
        return check.reasons(look(np.rint(changed).clip(0, 255).astype(np.uint8)))

    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    assert reasons(image) == []
    assert Reason.TOO_DARK in reasons(image * 0.4)
    assert set(reasons(np.abs(noise))) == {Reason.TOO_DARK, Reason.TOO_LITTLE_CONTRAST}
    assert reasons(image * 0.5 + 165) == [Reason.TOO_BRIGHT]
    assert reasons(image.mean() + noise) == [Reason.TOO_LITTLE_CONTRAST]
    assert Reason.BLURRED in reasons(cv2.GaussianBlur(image, (0, 0), 4))
    assert reasons(np.zeros_like(image))[0] is Reason.TOO_DARK
    assert Reason.TOO_BRIGHT in reasons(np.full(image.shape, 255.0))


@pytest.mark.parametrize(("width", "height", "right"), [(100, 100, True), (4, 3, True), (16, 9, False), (1, 2, False)])
def test_a_picture_of_another_shape_than_those_of_good_parts_is_refused(width: int, height: int, right: bool):
    good = Look(100, 20, 1, 1)
    check = PictureCheck.of([good] * 10)
    assert check.reasons(good._replace(aspect_ratio=width / height)) == ([] if right else [Reason.WRONG_SHAPE])


def test_good_parts_of_many_shapes_let_more_shapes_pass():
    check = PictureCheck.of([Look(100, 20, 1, ratio) for ratio in (0.5, 0.6, 0.8, 1, 1.2, 1.6, 2)] * 4)
    assert check.reasons(Look(100, 20, 1, 0.4)) == check.reasons(Look(100, 20, 1, 2.5)) == []
    assert check.reasons(Look(100, 20, 1, 400)) == [Reason.WRONG_SHAPE]


def test_a_check_of_an_older_card_takes_every_shape():
    old = PictureCheck(50, 150, 10, 0.5)
    assert old.reasons(Look(100, 20, 1, 0.01)) == old.reasons(Look(100, 20, 1, 100)) == []
    assert old.widened([Look(40, 20, 1, 3)]) == PictureCheck(40, 150, 10, 0.5)


def test_the_less_is_known_of_good_parts_the_more_passes():
    looks = [look(image) for image in plates(60, seed=4)]
    narrow, wide = PictureCheck.of(looks), PictureCheck.of([looks[0]])
    factors = {
        "brightness": (narrow.most_brightness / narrow.least_brightness, 1.5**2),
        "one": (wide.most_brightness / wide.least_brightness, 1.5**2),
    }
    for found, wanted in factors.values():  # all plates are as bright, so the least factor holds
        assert found == pytest.approx(wanted, rel=1e-4)
    varied = [Look(level, 20, 1, 1) for level in (60, 80, 100, 120, 140, 160, 180, 200)]
    assert PictureCheck.of(varied[::4]).least_brightness < PictureCheck.of(4 * varied).least_brightness < 60


def test_a_check_is_widened_to_what_is_good_too(check: PictureCheck):
    odd = [Look(20, 30, 1.5, 0.3), Look(250, 1, 0.2, 4)]
    wide = check.widened(odd)
    assert [wide.reasons(one) for one in odd] == [[], []]
    assert wide == PictureCheck(20, 250, 1, 0.2, 0.3, 4)
    assert check.widened([look(plates(1)[0])]) == check
