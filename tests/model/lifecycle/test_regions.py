"""Files of regions, and a region that is changed after training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest

from model.calibration import CalibrationError
from model.choices import SeenPolicy
from model.detector import scores_of
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import DatasetError, load_images, normal_samples
from model.lifecycle.evaluate import evaluate_category, grid_of
from model.lifecycle.recipe import Recipe
from model.lifecycle.regions import DrawnRegion, prepared, read_region
from model.lifecycle.remarks import Kind, Remarks
from model.lifecycle.thresholds import Rule
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.preprocessing import Preprocessing, Tiles
from model.region import RegionError
from model.store.card import Card
from model.store.store import Store
from model.store.teachers import read_teacher, save_teacher
from tests.conftest import surface, write_images

LEFT = [[0, 0], [39, 0], [39, 79], [0, 79]]
RIGHT = [[40, 0], [79, 0], [79, 79], [40, 79]]
STAMP = [[60, 60], [75, 60], [75, 75], [60, 75]]


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_polygons_as_json(tmp_path: Path):
    content = {
        "width": 80,
        "height": 80,
        "zones": [{"name": "left", "polygon": LEFT}, {"name": "right", "polygon": RIGHT, "threshold": 2.5}],
        "ignored": [STAMP],
    }
    drawn = read_region(written(tmp_path / "region.json", content))
    assert list(drawn.outlines) == ["left", "right"]
    assert drawn.thresholds == {"right": 2.5}
    region = drawn.on(80, 80)
    assert [zone.frame for zone in region.zones] == [(0, 0, 40, 80), (40, 0, 80, 80)]
    assert not region.marked(region.zones[1], 80, 80)[60:76, 60:76].any()
    larger = drawn.on(160, 160)
    assert [zone.frame for zone in larger.zones] == [(1, 1, 80, 160), (81, 1, 160, 160)]
    np.testing.assert_array_equal(larger.marked(larger.zones[1], 80, 80), region.marked(region.zones[1], 80, 80))
    with pytest.raises(RegionError, match="drawn on a picture of 80 x 80 pixels, and the images have 90 x 80"):
        drawn.on(90, 80)


def test_a_list_of_polygons_is_one_zone(tmp_path: Path):
    region = read_region(written(tmp_path / "region.json", [LEFT, STAMP])).on(80, 80)
    (zone,) = region.zones
    assert (zone.name, len(zone.outlines), zone.frame) == ("part", 2, (0, 0, 76, 80))


def test_a_zone_of_several_polygons(tmp_path: Path):
    zones = [{"name": "pads", "polygons": [LEFT, STAMP]}, {"name": "right", "polygon": RIGHT}]
    drawn = read_region(written(tmp_path / "region.json", {"zones": zones}))
    assert [len(outlines) for outlines in drawn.outlines.values()] == [2, 1]
    assert drawn.on(80, 80).zones[0].frame == (0, 0, 76, 80)
    for outlines in ({"polygons": []}, {"polygon": LEFT, "polygons": [STAMP]}):
        path = written(tmp_path / "wrong.json", {"zones": [{"name": "pads", **outlines}]})
        with pytest.raises(RegionError, match="a zone has either a polygon or polygons"):
            read_region(path)


def test_only_places_to_ignore_leave_the_rest(tmp_path: Path):
    region = read_region(written(tmp_path / "region.json", {"ignored": [STAMP]})).on(80, 80)
    marked = region.marked(region.zones[0], 80, 80)
    assert (~marked).sum() == 16 * 16
    assert region.zones[0].frame == (0, 0, 80, 80)


def test_a_picture_that_is_white_where_the_part_counts(tmp_path: Path):
    mask = cv2.circle(np.zeros((120, 160), np.uint8), (70, 60), 45, 255, -1)
    cv2.circle(mask, (70, 60), 12, 0, -1)
    mask[5:15, 140:155] = 255
    path = tmp_path / "region.png"
    path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    region = read_region(path).on(160, 120)
    found = region.marked(region.zones[0], 160, 120)
    assert (found != (mask > 0)).sum() <= 0.01 * (mask > 0).sum()
    with pytest.raises(RegionError, match="drawn on a picture of 160 x 120"):
        read_region(path).on(320, 200)


def test_whole_and_broken_numbers_make_the_same_region(tmp_path: Path):
    whole = read_region(written(tmp_path / "whole.json", [LEFT])).on(80, 80)
    broken = read_region(written(tmp_path / "broken.json", [[[float(x), float(y)] for x, y in LEFT]])).on(80, 80)
    assert Preprocessing(32, region=whole) == Preprocessing(32, region=broken)
    assert all(isinstance(value, float) for point in whole.zones[0].outlines[0] for value in point)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "neither zones nor places to ignore"),
        ([], "has no polygon"),
        ({"zones": [{"name": "a", "polygon": LEFT}] * 2}, "two zones of the name 'a'"),
        ({"zones": [{"name": "a", "polygon": LEFT}], "width": 80}, "both width and height"),
        ({"zones": [{"name": "a"}]}, "zones.0: Value error, a zone has either a polygon"),
        ({"zones": [{"name": "a", "polygon": LEFT, "treshold": 1}]}, "zones.0.treshold: Extra inputs"),
        ({"zones": [{"name": "a", "polygon": LEFT, "threshold": 0}]}, "zones.0.threshold: Input should be greater"),
        ({"zones": [{"name": "a", "polygon": LEFT, "threshold": 1e-310}]}, "threshold: Input should be greater"),
        ({"zones": [{"name": "a", "polygon": LEFT, "threshold": "1.5"}]}, "threshold: Input should be a valid number"),
        ([[["1", "2"], [3, 4], [5, 6]]], "valid number"),
        ({"polygon": LEFT}, "polygon: Extra inputs"),
        ([[["a", 1]]], "valid number"),
        ([[[1, 2, 3]]], "at most 2 items"),
        ("text", "is no region"),
    ],
)
def test_what_is_no_region_is_refused(tmp_path: Path, content: object, reason: str):
    with pytest.raises(RegionError, match=reason):
        read_region(written(tmp_path / "region.json", content))


def test_a_polygon_has_three_points(tmp_path: Path):
    for points in ([], [[1, 1]], [[1, 1], [5, 5]]):
        drawn = read_region(written(tmp_path / "region.json", {"zones": [{"name": "a", "polygon": points}]}))
        with pytest.raises(RegionError, match="a polygon of a zone has fewer than three points"):
            drawn.on(80, 80)


def test_json_as_windows_editors_write_it_and_names_that_stand_twice(tmp_path: Path):
    path = tmp_path / "region.json"
    path.write_text(json.dumps([LEFT]), encoding="utf-8-sig")
    assert list(read_region(path).outlines) == ["part"]
    path.write_text('{"zones": [], "ignored": [], "zones": []}')
    with pytest.raises(RegionError, match="'zones' stands there twice"):
        read_region(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path):
    (tmp_path / "region.json").write_text("{")
    with pytest.raises(RegionError, match="is not JSON: Expecting property name"):
        read_region(tmp_path / "region.json")
    with pytest.raises(DatasetError, match=r"cannot read .*nowhere.json: No such file"):
        read_region(tmp_path / "nowhere.json")
    with pytest.raises(DatasetError, match=r"nowhere.png"):
        read_region(tmp_path / "nowhere.png")
    (tmp_path / "black.png").write_bytes(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    with pytest.raises(RegionError, match="marks nothing: what counts must be white"):
        read_region(tmp_path / "black.png")


# Categories with a region.


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Striped surfaces; the bad ones have a fault on the right half, and all of them a stamp that changes."""
    root = tmp_path_factory.mktemp("photographs")

    def picture(seed: int, fault: bool) -> np.ndarray:
        image = surface(seed)
        rng = np.random.default_rng(seed)
        cv2.putText(image, str(rng.integers(99)), (60, 74), cv2.FONT_HERSHEY_PLAIN, 0.8, (0, 0, 0))
        if fault:
            cv2.circle(image, (int(rng.integers(48, 58)), int(rng.integers(15, 45))), 6, (10, 10, 10), -1)
        return image

    write_images(root / "train", [picture(seed, False) for seed in range(16)])
    write_images(root / "good", [picture(seed, False) for seed in range(100, 112)])
    write_images(root / "bad", [picture(seed, True) for seed in range(200, 212)])
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, photographs: Path, teacher: Teacher) -> Path:
    """``plain`` without a region, ``zoned`` with two zones of two tiles each."""
    folder = tmp_path_factory.mktemp("weights")
    save_teacher(teacher, folder / "teachers", "narrow")
    samples = normal_samples(photographs / "train")
    recipe = Recipe(image_size=64, epochs=20, batch_size=8)
    train_category("plain", samples, folder, "narrow", teacher, recipe)
    drawn = DrawnRegion(
        {"left": (polygon(LEFT),), "right": (polygon(RIGHT),)}, (polygon(STAMP),), thresholds={"left": 100.0}
    )
    preprocessing = prepared(samples, 64, region=drawn, grid=(1, 2))
    train_category(
        "zoned",
        samples,
        folder,
        "narrow",
        teacher,
        recipe,
        preprocessing=preprocessing,
        zone_thresholds={"left": 100.0},
    )
    return folder


def polygon(points: list[list[int]]) -> tuple:
    return tuple((float(x), float(y)) for x, y in points)


def test_a_category_is_trained_calibrated_and_evaluated_by_its_zones(weights: Path, photographs: Path):
    good = normal_samples(photographs / "good")
    bad = [replace(one, defect="spot") for one in normal_samples(photographs / "bad")]
    card, _ = calibrate_category(weights, weights / "teachers", "zoned", good[:6], bad[:6])
    assert card.schema_version == 5
    assert card.preprocessor.zones == ("left", "left", "right", "right")
    assert card.sensitivities[2:].tolist() == [1, 1]
    assert card.sensitivities[:2] == pytest.approx([card.calibration.threshold / 100] * 2)
    assert card.calibration.auroc is not None
    assert card.promise == f"{card.calibration.promise} Zones with a threshold of their own are not counted here: left."
    found = evaluate_category(weights, weights / "teachers", "zoned", good[6:], bad[6:])
    assert found.promise == card.promise
    assert (found.normal_images, found.anomalous_images) == (6, 6)
    assert found.image.auroc.value >= 0.9


def test_faults_outside_of_the_region_are_not_measured(weights: Path, photographs: Path, tmp_path: Path):
    good = normal_samples(photographs / "good")
    stamped = [write_mask(tmp_path / f"{index}.png", STAMP) for index in range(6)]
    bad = [replace(one, defect="spot") for one in normal_samples(photographs / "bad")][6:]
    bad = [replace(one, mask=mask) for one, mask in zip(bad, stamped, strict=True)]
    plain, zoned = (
        evaluate_category(weights, weights / "teachers", name, good[6:], bad, seen_policy=SeenPolicy.SKIP)
        for name in ("plain", "zoned")
    )
    assert plain.pixel_auroc is not None
    assert zoned.pixel_auroc is None
    assert zoned.aupro is None


def write_mask(path: Path, polygon: list[list[int]]) -> Path:
    mask = np.zeros((80, 80), np.uint8)
    (left, top), (right, bottom) = polygon[0], polygon[2]
    mask[top : bottom + 1, left : right + 1] = 255
    assert cv2.imwrite(str(path), mask)
    return path


def test_large_pictures_in_tiles_are_measured_on_their_own_pixels(weights: Path):
    zoned, plain = (Store(weights).card(name) for name in ("zoned", "plain"))
    assert grid_of(zoned, (3648, 5472)) == (5472, 3648)
    assert grid_of(zoned, (2000, 8000)) == (8000, 2000)
    assert grid_of(zoned, (16384, 8192)) == (4096, 8192)
    assert grid_of(plain, (3648, 5472)) == (256, 256)


def test_a_threshold_of_a_zone_names_another_version(weights: Path):
    card = Store(weights).card("zoned")
    other = card.model_copy(update={"zone_thresholds": {"left": 99.0}})
    assert other.fingerprint() != card.fingerprint()


def test_a_region_is_changed_after_training(weights: Path, photographs: Path):
    good = normal_samples(photographs / "good")
    before = Store(weights).card("plain")
    drawn = DrawnRegion({"right": (polygon(RIGHT),)}, (polygon(STAMP),))
    card, _ = calibrate_category(weights, weights / "teachers", "plain", good, [], region=drawn)
    region = card.preprocessing.region
    assert region is not None
    assert region.zones[0].frame == (0, 0, 80, 80)  # what the student knows
    assert card.student_sha256 == before.student_sha256
    assert card.model_version != before.model_version
    assert card.map_scale != before.map_scale
    again, _ = calibrate_category(weights, weights / "teachers", "plain", good, [], region="all")
    assert again.preprocessing == before.preprocessing
    assert again.preprocessor.zones == (None,)


def test_a_region_beyond_what_the_student_has_seen_is_refused(weights: Path, photographs: Path):
    good = normal_samples(photographs / "good")
    middle = DrawnRegion({"middle": (polygon([[20, 0], [60, 0], [60, 79]]),)})
    with pytest.raises(
        RegionError, match=r"'middle' reaches beyond what the student has seen .* train the category again"
    ):
        calibrate_category(weights, weights / "teachers", "zoned", good, [], region=middle, without_anomalous=True)
    inside = DrawnRegion({"lower right": (polygon([[45, 50], [70, 50], [70, 79]]),)})
    card, _ = calibrate_category(
        weights, weights / "teachers", "zoned", good, [], region=inside, without_anomalous=True
    )
    assert card.preprocessing.region is not None
    assert card.preprocessing.region.zones[0].frame == (40, 0, 80, 80)
    assert card.zone_thresholds == {}


def test_places_that_were_ignored_in_training_cannot_count_afterwards(weights: Path, photographs: Path):
    good = normal_samples(photographs / "good")

    def changed(region: DrawnRegion | Literal["all"]) -> Card:
        folders, names = (weights, weights / "teachers"), "zoned"
        return calibrate_category(*folders, names, good, [], region=region, without_anomalous=True)[0]

    card = changed(DrawnRegion({"lower right": (polygon([[45, 50], [70, 50], [70, 79]]),)}))
    assert card.preprocessing.region is not None
    assert card.preprocessing.region.ignored == (polygon(STAMP),)
    again = changed("all")
    assert again.preprocessing.region == again.training.region
    assert again.preprocessing.region is not None
    assert again.preprocessing.region.ignored == (polygon(STAMP),)


def test_faults_that_a_zone_with_its_own_threshold_rejects_do_not_move_the_others(weights: Path, photographs: Path):
    good = normal_samples(photographs / "good")
    bad = [replace(one, defect="spot") for one in normal_samples(photographs / "bad")]
    folders = (weights, weights / "teachers")
    drawn = {"left": (polygon(LEFT),), "right": (polygon(RIGHT),)}, (polygon(STAMP),)

    def calibrated(thresholds: dict[str, float], **options: Any) -> tuple[Card, Remarks]:
        region = DrawnRegion(*drawn, thresholds=thresholds)
        return calibrate_category(*folders, "zoned", good, bad, region=region, **options)

    usual, _ = calibrated({"left": 1e6})
    assert usual.calibration.anomalous_images == 12
    images = load_images(bad, usual.preprocessor)
    scores = scores_of(Store(weights).load("zoned")[1], images.pixels, images.masks).reshape(12, 4)[:, 2:].max(axis=1)
    median = float(np.median(scores))
    card, remarks = calibrated({"right": median})
    assert len(remarks.of(Kind.OTHER_ZONE)) == (scores >= median).sum() == 6
    assert card.calibration.anomalous_images == 6
    with pytest.raises(
        CalibrationError, match=r"all 12 anomalous images are rejected by zones with a threshold of their own"
    ):
        calibrated({"right": 1e-6})


def test_where_every_zone_has_a_threshold_its_errors_are_those_of_the_zones(weights: Path, photographs: Path):
    good = normal_samples(photographs / "good")
    folders = (weights, weights / "teachers")
    drawn = {"left": (polygon(LEFT),), "right": (polygon(RIGHT),)}, (polygon(STAMP),)

    def calibrated(thresholds: dict[str, float], **options: Any) -> Card:
        region = DrawnRegion(*drawn, thresholds=thresholds)
        return calibrate_category(*folders, "zoned", good, [], region=region, without_anomalous=True, **options)[0]

    strict, lax = calibrated({"left": 1e-6, "right": 1e6}), calibrated({"left": 1e6, "right": 2e6})
    assert (strict.calibration.method, lax.calibration.method) == ("manual", "manual")
    assert strict.promise == strict.calibration.promise  # all of it is counted
    assert strict.calibration.false_alarms is not None
    assert lax.calibration.false_alarms is not None
    assert strict.calibration.false_alarms.errors == len(good)
    assert lax.calibration.false_alarms.errors == 0
    with pytest.raises(CalibrationError, match="every zone has a threshold of its own"):
        calibrated({"left": 1.0, "right": 2.0}, rule=Rule(threshold=3.0))


def test_places_outside_of_the_polygons_of_training_cannot_count_afterwards(weights: Path, photographs: Path):
    good = normal_samples(photographs / "good")
    samples, recipe = normal_samples(photographs / "train"), Recipe(image_size=64, epochs=1, batch_size=8)
    triangle = DrawnRegion({"triangle": (polygon([[0, 0], [79, 0], [0, 79]]),)})
    teachers = weights / "teachers"
    train_category(
        "triangle", samples, weights, "narrow", read_teacher(teachers / "narrow.safetensors"), recipe,
        preprocessing=prepared(samples, 64, region=triangle),
    )  # fmt: skip
    square = DrawnRegion({"square": (polygon([[10, 10], [70, 10], [70, 70], [10, 70]]),)})
    with pytest.raises(RegionError, match="'square' places would count that did not count in training"):
        calibrate_category(weights, teachers, "triangle", good, [], region=square)


def test_a_region_needs_images_to_set_the_threshold(weights: Path):
    with pytest.raises(CalibrationError, match="needs images of normal parts"):
        calibrate_category(weights, weights / "teachers", "plain", [], [], region="all", rule=Rule(threshold=1.0))


def test_images_of_another_shape_are_named(weights: Path, photographs: Path, tmp_path: Path):
    samples = normal_samples(photographs / "train")
    drawn = read_region(written(tmp_path / "region.json", [LEFT]))
    wide = write_images(tmp_path / "wide", [surface(1, size=(80, 120))])
    with pytest.raises(DatasetError, match=r"wide/000.png: the picture has 120 x 80 pixels, and the region"):
        load_images([*samples, *wide], prepared(samples, 64, region=drawn))


def test_the_grid_is_found_from_the_smallest_fault(photographs: Path):
    samples = normal_samples(photographs / "train")
    assert prepared(samples, 32, smallest_fault=5).tiles == Tiles(3, 3)
    drawn = DrawnRegion({"left": (polygon(LEFT),)})
    assert prepared(samples, 32, smallest_fault=5, region=drawn).tiles == Tiles(1, 3)
    with pytest.raises(DatasetError, match="none of the images can be read"):
        prepared([], 32, smallest_fault=5)


def test_tiles_cost_epochs_not_steps(weights: Path):
    assert Recipe(epochs=500).for_views(24) == Recipe(epochs=21)
    assert Recipe(epochs=5).for_views(24) == Recipe(epochs=1)
    card = Store(weights).card("zoned")
    assert card.training.images == 13  # of 16, three are held out
    assert card.training.steps == 20 * 7  # 13 images of four views in batches of eight
