"""Pictures and regions in the pixels of the image that was sent."""

import base64

import cv2
import numpy as np
import pytest

from model.alignment import Found
from model.choices import MapForm
from model.preprocessing import Preprocessing
from service.rendering import (
    HEAT_OF_NORMAL,
    MAX_DRAWN_PIXELS,
    MAX_DRAWN_SIDE,
    Heat,
    back,
    drawn_size,
    heat_of,
    localization_of,
    overlay_of,
    png,
    regions_of,
)

FLAT = np.full((128, 128, 3), 120, dtype=np.uint8)
"""A photograph that shows no outline: masks are what the map says."""


def spot_map(size: int = 64) -> np.ndarray:
    """A map that is calm but for two spots, the upper left one stronger."""
    anomaly_map = np.full((size, size), 0.2, dtype=np.float32)
    anomaly_map[8:16, 4:12] = 6.0
    anomaly_map[48:52, 40:56] = 3.0
    return anomaly_map


def heat(anomaly_map: np.ndarray, pixels: np.ndarray, map_scale: float, width: int, height: int) -> Heat:
    """Of a picture that is one view."""
    return heat_of(Preprocessing(len(anomaly_map)).layout(width, height), [anomaly_map], pixels[None], map_scale)


def decoded(text: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (640, 320), (31, 97), (1, 500), (2000, 3)])
def test_heat_map_and_mask_have_the_images_size(width: int, height: int):
    found = localization_of(heat(spot_map(), FLAT[:64, :64], 2.0, width, height), MapForm.GRADIENT)
    heatmap, mask = decoded(found.heatmap_png), decoded(found.mask_png)
    assert heatmap.shape == mask.shape == (height, width)
    assert heatmap.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}
    assert (heatmap[mask == 255] > HEAT_OF_NORMAL).all()
    assert sum(region.area for region in found.regions) == (mask > 0).sum()


def test_regions_are_boxes_areas_and_peaks_in_image_pixels():
    strong, weak = regions_of(heat(spot_map(), FLAT[:64, :64], 2.0, 640, 320))  # ten times wider, five times higher
    assert (strong.peak.value, weak.peak.value) == (pytest.approx(3.0), pytest.approx(1.5))
    assert strong.box.x == pytest.approx(40, abs=8)
    assert strong.box.y == pytest.approx(40, abs=4)
    assert strong.box.width == pytest.approx(80, abs=16)
    assert strong.box.height == pytest.approx(40, abs=8)
    assert strong.area == pytest.approx(80 * 40, rel=0.4)
    for region in (strong, weak):
        assert region.box.x <= region.peak.x < region.box.x + region.box.width
        assert region.box.y <= region.peak.y < region.box.y + region.box.height


@pytest.mark.parametrize(("width", "height"), [(64, 1_000_000), (1_000_000, 64), (8000, 8000), (1, 1_000_000)])
def test_of_a_huge_image_smaller_pictures_are_drawn_and_regions_keep_its_pixels(width: int, height: int):
    found = localization_of(heat(spot_map(), FLAT[:64, :64], 2.0, width, height), MapForm.GRADIENT)
    heatmap, mask = decoded(found.heatmap_png), decoded(found.mask_png)
    assert heatmap.shape == mask.shape == drawn_size(width, height)[::-1]
    assert heatmap.size <= MAX_DRAWN_PIXELS
    assert max(heatmap.shape) <= MAX_DRAWN_SIDE
    assert 0 < found.scale < 1
    assert max(heatmap.shape) == pytest.approx(max(width, height) * found.scale, abs=1)
    for region in found.regions:
        assert 0 <= region.box.x <= region.peak.x < region.box.x + region.box.width <= width
        assert 0 <= region.box.y <= region.peak.y < region.box.y + region.box.height <= height
        assert 0 < region.area <= region.box.width * region.box.height
    if min(width, height) > 1000:  # the stronger spot: 4 to 12 of 64 across, 8 to 16 down
        box = found.regions[0].box
        edges = (box.x / width, (box.x + box.width) / width, box.y / height, (box.y + box.height) / height)
        assert edges == pytest.approx((4 / 64, 12 / 64, 8 / 64, 16 / 64), abs=0.01)


@pytest.mark.parametrize(("width", "height"), [(4096, 4096), (16_384, 1024), (5472, 3066)])
def test_up_to_sixteen_megapixels_pictures_have_the_images_size(width: int, height: int):
    assert drawn_size(width, height) == (width, height)
    found = localization_of(heat(spot_map(), FLAT[:64, :64], 2.0, 5472, 30), MapForm.GRADIENT)
    assert found.scale == 1


def test_a_good_part_shows_a_calm_map_and_no_region_but_its_strongest_point():
    calm = np.full((64, 64), 1.5, dtype=np.float32)
    calm[20, 50] = 1.9
    found = localization_of(heat(calm, FLAT[:64, :64], 2.0, 128, 128), MapForm.GRADIENT)
    assert found.regions == []
    assert (found.peak.x, found.peak.y) == (pytest.approx(100, abs=1), pytest.approx(40, abs=1))
    assert 0.8 < found.peak.value < 1
    assert decoded(found.heatmap_png).max() <= HEAT_OF_NORMAL
    assert decoded(found.mask_png).max() == 0


def test_heat_saturates_at_four_times_normal():
    hot = heat(np.full((64, 64), 100.0, dtype=np.float32), FLAT[:64, :64], 2.0, 64, 64)
    heatmap = decoded(localization_of(hot, MapForm.GRADIENT).heatmap_png)
    assert (heatmap == 255).all()


def test_the_number_of_regions_is_bounded_and_the_strongest_are_kept():
    noisy = np.zeros((64, 64), dtype=np.float32)
    noisy[::4, ::4] = np.linspace(2, 5, 256).reshape(16, 16)
    found = regions_of(heat(noisy, FLAT[:64, :64], 1.0, 64, 64))
    assert len(found) == 100
    assert found[0].peak.value == pytest.approx(5)
    assert found[-1].peak.value > 3.5


def test_the_overlay_leaves_a_calm_part_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay_of(image, None), image)
    calm = heat(np.full((64, 64), 0.4, dtype=np.float32), FLAT[:64, :64], 1.0, 70, 50)
    np.testing.assert_array_equal(overlay_of(image, calm), image)


def test_the_overlay_paints_the_fault_and_only_near_it():
    image = np.full((64, 64, 3), 120, dtype=np.uint8)
    picture = overlay_of(image, heat(spot_map(), FLAT[:64, :64], 2.0, 64, 64))
    assert (picture[11, 8] != 120).any()
    assert (picture[32, 32] == 120).all()


def test_png_keeps_colours():
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[:, :, 0] = 200  # red
    assert (cv2.imdecode(np.frombuffer(png(image), np.uint8), cv2.IMREAD_COLOR)[0, 0] == (0, 0, 200)).all()


def test_a_mask_ends_near_the_edge_of_a_fault_that_the_map_has_blurred():
    fault = np.zeros((128, 128), np.float32)
    cv2.circle(fault, (60, 70), 14, 100.0, -1)
    blurred = cv2.GaussianBlur(fault, (0, 0), 6)
    mask = heat(blurred, FLAT, 1.0, 256, 256).mask
    truth = cv2.resize(fault, (256, 256)) > 50
    assert 0.5 < mask.sum() / truth.sum() < 2
    assert (mask & truth).sum() / (mask | truth).sum() > 0.5
    assert (blurred > 1).sum() * 4 > 2 * truth.sum()  # what lies above the level of normal parts is far larger


def test_a_faint_fault_beside_a_plain_one_keeps_its_place():
    y, x = np.mgrid[:128, :128]
    plain = 20 * np.exp(-((x - 40) ** 2 + (y - 64) ** 2) / 200)
    faint = 5 * np.exp(-((x - 90) ** 2 + (y - 64) ** 2) / 200)
    strong, weak = regions_of(heat((plain + faint).astype(np.float32), FLAT, 1.0, 128, 128))
    assert (strong.peak.x, weak.peak.x) == (pytest.approx(40, abs=2), pytest.approx(90, abs=2))
    assert weak.box.x > strong.box.x + strong.box.width


def test_one_fault_of_uneven_strength_is_one_region():
    y, x = np.mgrid[:128, :128]
    ridge = np.exp(-((y - 64) ** 2) / 50) * (10 + 2 * np.sin(x / 4)) * ((x > 20) & (x < 110))
    assert len(regions_of(heat(ridge.astype(np.float32), FLAT, 1.0, 128, 128))) == 1


@pytest.mark.parametrize(("width", "height"), [(200, 160), (6000, 4000)])
def test_the_heat_of_an_aligned_picture_goes_back_to_where_the_part_lies(width: int, height: int):
    # The reference has 400 x 400 pixels; in the photograph the part is turned by a right angle, and smaller.
    matrix = np.array([[0, -0.3, 150.0], [0.3, 0, 20.0]]) * (width / 200)
    aligned = heat(spot_map(), np.full((64, 64, 3), 120, np.uint8), 1.0, 400, 400)
    found = back(aligned, Found(matrix, 0.9), width, height)
    assert (found.width, found.height) == (width, height)
    assert found.relative.shape == found.mask.shape == drawn_size(width, height)[::-1]
    strong, weak = regions_of(found)
    for region, (x, y) in ((strong, (8, 12)), (weak, (48, 50))):
        there = matrix[:, :2] @ (np.array([x, y]) * 400 / 64) + matrix[:, 2]
        middle = (region.box.x + region.box.width / 2, region.box.y + region.box.height / 2)
        assert middle == pytest.approx(there, abs=3 * width / 200)
    assert strong.box.width == pytest.approx(strong.box.height, abs=4 * width / 200)
    assert weak.box.height > 2 * weak.box.width  # it was wide
    outside = np.ones(found.relative.shape, bool)
    scale = found.relative.shape[1] / width
    y0, y1, x0, x1 = (int(v * scale * width / 200) for v in (18, 142, 28, 152))
    outside[y0:y1, x0:x1] = False
    assert not found.relative[outside].any()
