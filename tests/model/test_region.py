"""What of a picture counts, and the views that it is cut into."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from model.choices import Fit, MapForm, Score
from model.detector import Detector, detect, scores_of
from model.images import ImageError
from model.networks.vgg import Student, Teacher, student_plan
from model.preprocessing import FILL, MAX_VIEWS, Preprocessing, Tiles
from model.region import Region, RegionError, Zone, frame_around
from model.store.card import PreprocessingRecord

SQUARE = ((20.0, 20.0), (59.0, 20.0), (59.0, 59.0), (20.0, 59.0))
"""40 pixels of 80 across and down."""
LEFT = ((0.0, 0.0), (39.0, 0.0), (39.0, 79.0), (0.0, 79.0))
RIGHT = ((40.0, 0.0), (79.0, 0.0), (79.0, 79.0), (40.0, 79.0))
WHOLE = (0, 0, 80, 80)


def region(*polygons: tuple, ignored: tuple = (), frame: tuple | None = None) -> Region:
    zones = (Zone(f"zone {index}", (one,), frame or frame_around((one,), 80, 80)) for index, one in enumerate(polygons))
    return Region(80, 80, tuple(zones), ignored)


def noise(seed: int, *size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(params=list(Score))
def detector(request: pytest.FixtureRequest, teacher: Teacher) -> Detector:
    torch.manual_seed(3)
    return Detector(teacher, Student(student_plan(teacher.plan)).eval(), score=request.param)


# Regions.


def test_a_polygon_counts_with_its_line_and_what_is_ignored_does_not():
    hole = ((30.0, 30.0), (39.0, 30.0), (39.0, 39.0), (30.0, 39.0))
    found = region(SQUARE, ignored=(hole,))
    wanted = np.zeros((80, 80), bool)
    wanted[20:60, 20:60] = True
    wanted[30:40, 30:40] = False
    np.testing.assert_array_equal(found.marked(found.zones[0], 80, 80), wanted)


def test_a_region_fits_pictures_of_its_shape_in_any_size():
    found = region(SQUARE)
    twice = found.marked(found.zones[0], 160, 160)
    assert twice.mean() == pytest.approx(0.25, abs=0.01)
    assert twice[41:119, 41:119].all()
    (view,) = Preprocessing(32, region=found).layout(160, 160).views
    assert view.box == (40, 40, 120, 120)


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("frame", [None, WHOLE], ids=["close", "whole"])
def test_what_does_not_count_changes_nothing(detector: Detector, fit: Fit, frame: tuple | None):
    triangle = ((22.0, 21.0), (70.0, 35.0), (30.0, 66.0))
    preparation = Preprocessing(64, resize=fit, region=region(triangle, frame=frame))
    picture, masks = noise(1, 80, 80), preparation.layout(80, 80).masks
    inside = cv2.fillPoly(np.zeros((80, 80), np.uint8), [np.array(triangle, np.int32)], 1).astype(bool)
    before = scores_of(detector, preparation.apply(picture), masks)
    for other in (noise(2, 80, 80), np.zeros_like(picture), np.full_like(picture, 255)):
        disturbed = np.where(inside[:, :, None], picture, other)
        np.testing.assert_array_equal(preparation.apply(disturbed), preparation.apply(picture))
        found = scores_of(detector, preparation.apply(disturbed), masks)
        assert abs(found / before - 1).max() < 1e-5
    changed = np.where(inside[:, :, None], noise(3, 80, 80), picture)
    assert abs(scores_of(detector, preparation.apply(changed), masks) / before - 1).max() > 1e-3


def test_maps_show_nothing_where_nothing_counts(teacher: Teacher):
    torch.manual_seed(3)
    pair = Detector(teacher, Student(student_plan(teacher.plan)).eval(), score=Score.WEIGHTED)
    preparation = Preprocessing(64, region=region(SQUARE, frame=WHOLE))
    masks = preparation.layout(80, 80).masks
    assert masks is not None
    for form in MapForm:
        (found,) = pair(preparation.apply(noise(1, 80, 80)), maps=form, masks=masks).maps
        assert (found[~masks[0]] == 0).all()
        assert found[masks[0]].max() > 0


def test_a_mask_of_everything_is_as_none(detector: Detector):
    pixels = noise(1, 3, 64, 64)
    everywhere = np.ones((3, 64, 64), bool)
    np.testing.assert_allclose(scores_of(detector, pixels, everywhere), scores_of(detector, pixels), rtol=1e-6)


def test_images_with_and_without_masks_share_a_batch(detector: Detector):
    pixels, mask = noise(1, 2, 64, 64), np.zeros((64, 64), bool)
    mask[:32] = True
    together = detect(pixels, [detector] * 2, masks=[mask, None]).scores
    alone = [*scores_of(detector, pixels[:1], mask[None]), *scores_of(detector, pixels[1:])]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    with pytest.raises(ValueError, match="need as many masks of that shape"):
        detect(pixels, [detector] * 2, masks=[mask[:5], None])


def test_a_picture_of_another_shape_is_refused():
    preparation = Preprocessing(32, region=region(SQUARE))
    assert preparation.apply(noise(0, 400, 403)).shape == (1, 32, 32, 3)  # within one per cent
    with pytest.raises(ImageError, match=r"has 90 x 80 pixels, and the region .* was drawn on one of 80 x 80"):
        preparation.apply(noise(0, 80, 90))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Zone("", (SQUARE,), WHOLE), "cannot be called"),
        (lambda: Zone("a" * 65, (SQUARE,), WHOLE), "cannot be called"),
        (lambda: Zone("a\nb", (SQUARE,), WHOLE), "cannot be called"),
        (lambda: Zone("a", (), WHOLE), "has no polygon"),
        (lambda: Zone("a", (SQUARE[:2],), WHOLE), "fewer than three points"),
        (lambda: Zone("a", (((0.0, float("nan")), *SQUARE),), WHOLE), "nowhere near a picture"),
        (lambda: Zone("a", (SQUARE,), (5, 5, 5, 6)), "frame of the zone 'a' is empty"),
        (lambda: Region(80, 80, ()), "1 to 32 zones"),
        (lambda: Region(80, 80, (Zone("a", (SQUARE,), WHOLE),) * 2), "two zones are called 'a'"),
        (lambda: Region(40, 40, (Zone("a", (SQUARE,), WHOLE),)), "reaches beyond the picture"),
        (lambda: Region(80, 80, (Zone("a", (SQUARE * 6000,), WHOLE),)), "24000 points"),
        (lambda: frame_around((tuple((x + 100, y) for x, y in SQUARE),), 80, 80), "outside of the picture"),
        (lambda: Preprocessing(32, region=region(SQUARE, ignored=(SQUARE,))), "nothing is left to judge"),
        (lambda: Tiles(0, 3), "1 to 1024 tiles, not 0x3"),
        (lambda: Tiles(64, 64), "1 to 1024 tiles, not 64x64"),
        (lambda: Tiles(2, 2, 0.6), "a share of 0 to 0.5"),
        (lambda: Preprocessing(2048, tiles=Tiles(3, 3)), "make 9 images of each picture; .* there can be 4"),
        (lambda: Tiles.for_fault(8000, 2000, 1, 32), "more than 1024; take larger images"),
        (lambda: Tiles.for_fault(8000, 2000, 0, 32), "a size above 0"),
    ],
)
def test_what_cannot_be_is_refused(make, reason: str):
    with pytest.raises(RegionError, match=reason):
        make()


def test_a_region_is_the_same_after_it_was_written_and_read():
    preparation = Preprocessing(32, resize=Fit.LETTERBOX, region=region(SQUARE, LEFT), tiles=Tiles(2, 1))
    record = PreprocessingRecord.of(preparation)
    read = PreprocessingRecord.model_validate_json(record.model_dump_json(), strict=True)
    assert Preprocessing(32, **dict(read)) == preparation
    assert read.model_dump_json() == record.model_dump_json()


# Views.


def test_tiles_cover_the_picture_and_overlap_as_asked():
    views = Preprocessing(32, tiles=Tiles(4, 3, overlap=0.25)).layout(1300, 1000).views
    covered = np.zeros((1000, 1300), int)
    for left, top, right, bottom in (view.box for view in views):
        covered[top:bottom, left:right] += 1
    assert len(views) == 12
    assert (covered >= 1).all()
    widths = {view.box[2] - view.box[0] for view in views}
    assert max(widths) - min(widths) <= 1
    overlaps = [first.box[2] - second.box[0] for first, second in pairwise(views[:4])]
    assert overlaps == pytest.approx([0.25 * max(widths)] * 3, abs=1.5)


@pytest.mark.parametrize(
    ("width", "height", "fault", "size"), [(5472, 3648, 12, 128), (8000, 2000, 30, 256), (90, 60, 9, 64)]
)
def test_the_grid_for_a_fault_shows_it_with_four_pixels(width: int, height: int, fault: float, size: int):
    tiles = Tiles.for_fault(width, height, fault, size)
    for view in Preprocessing(size, tiles=tiles).layout(width, height).views:
        for side in (view.box[2] - view.box[0], view.box[3] - view.box[1]):
            assert fault * size / side >= 4 - 0.05
    for fewer in (Tiles(max(1, tiles.columns - 1), tiles.rows), Tiles(tiles.columns, max(1, tiles.rows - 1))):
        if fewer != tiles:
            sides = [
                side
                for view in Preprocessing(size, tiles=fewer).layout(width, height).views
                for side in (view.box[2] - view.box[0], view.box[3] - view.box[1])
            ]
            assert fault * size / max(sides) < 4


def test_tiles_where_nothing_counts_are_left_out():
    corner = ((0.0, 0.0), (19.0, 0.0), (0.0, 19.0))
    whole = Preprocessing(32, region=region(corner, frame=WHOLE), tiles=Tiles(4, 4))
    assert whole.zones == ("zone 0",)
    assert whole.apply(noise(0, 80, 80)).shape == whole.apply(noise(0, 800, 800)).shape == (1, 32, 32, 3)
    assert len(Preprocessing(32, tiles=Tiles(32, 32)).zones) == MAX_VIEWS


def test_zones_may_overlap_and_each_is_seen_with_its_own_frame():
    layout = Preprocessing(32, region=region(LEFT, SQUARE)).layout(80, 80)
    assert [(view.zone, view.box) for view in layout.views] == [
        ("zone 0", (0, 0, 40, 80)),
        ("zone 1", (20, 20, 60, 60)),
    ]


def test_what_does_not_count_is_filled():
    triangle = ((0.0, 0.0), (79.0, 0.0), (0.0, 79.0))
    (pixels,) = Preprocessing(80, region=region(triangle)).apply(noise(0, 80, 80))
    assert (pixels[60:, 60:] == FILL).all()


@pytest.mark.parametrize("size", [(40, 80), (80, 40), (1, 80), (300, 40)])
def test_letterbox_keeps_the_aspect_ratio_and_pads_with_the_colour_of_the_border(size: tuple[int, int]):
    picture = np.zeros((*size, 3), np.uint8)
    picture[:] = (10, 120, 250)
    preparation = Preprocessing(64, resize=Fit.LETTERBOX)
    (pixels,), layout = preparation.apply(picture), preparation.layout(size[1], size[0])
    assert (pixels == (10, 120, 250)).all()
    left, top, right, bottom = layout.views[0].inside
    assert max(right - left, bottom - top) == 64
    assert min(right - left, bottom - top) == max(1, round(64 * min(size) / max(size)))
    assert layout.masks is not None
    assert layout.masks.sum() == (right - left) * (bottom - top)


def test_crop_takes_the_square_in_the_middle():
    picture = noise(0, 40, 100)
    (pixels,) = Preprocessing(40, resize=Fit.CROP).apply(picture)
    np.testing.assert_array_equal(pixels, picture[:, 30:70])


def test_maps_come_back_to_where_their_views_lie():
    layout = Preprocessing(32, tiles=Tiles(2, 2, overlap=0.0)).layout(200, 100)
    maps: list[np.ndarray | None] = [np.full((32, 32), value, np.float32) for value in (1, 2, 3)]
    found = layout.stitched([*maps, None], 100, 50)
    assert [found[10, 10], found[10, 90], found[40, 10], found[40, 90]] == [1, 2, 3, 0]
    overlapping = Preprocessing(32, tiles=Tiles(2, 1, overlap=0.5)).layout(90, 30)
    found = overlapping.stitched(maps[:2], 90, 30)
    assert [found[15, 10], found[15, 45], found[15, 80]] == [1, 2, 2]  # the larger one counts


def test_a_letterboxed_map_comes_back_without_its_border():
    layout = Preprocessing(32, resize=Fit.LETTERBOX).layout(64, 32)
    square = np.zeros((32, 32), np.float32)
    square[:8] = square[24:] = 9  # the border
    square[8:24, :16] = 1
    found = layout.stitched([square], 64, 32)
    assert found.max() == 1
    assert found[:, :30].min() == 1
