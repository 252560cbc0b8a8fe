"""What the commands say about folders as they really are: what was left out, why, and what it means."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from model.store.version import read_card, read_seen
from tests.conftest import Factory, surface, write_images
from tests.service.cli.test_cli import run


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    return Path(shutil.copytree(factory.weights, tmp_path / "weights"))


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """A category in the MVTec AD layout: 10 images to train on, 12 good and 12 faulty ones with masks to judge."""
    root = tmp_path / "bolt"
    write_images(root / "train" / "good", [surface(seed) for seed in range(1000, 1010)])
    write_images(root / "test" / "good", [surface(seed) for seed in range(1100, 1112)])
    faulty = [surface(seed, fault=True) for seed in range(1200, 1212)]
    write_images(root / "test" / "spot", faulty)
    (root / "ground_truth" / "spot").mkdir(parents=True)
    for index, image in enumerate(faulty):
        cv2.imwrite(str(root / "ground_truth" / "spot" / f"{index:03}_mask.png"), np.where(image[..., 0] < 30, 255, 0))
    return root


def clutter(folder: Path) -> None:
    """What machines leave in folders of images."""
    write_images(folder / ".ipynb_checkpoints", [surface(1)])
    (folder / "@eaDir").mkdir()
    (folder / "Thumbs.db").touch()
    (folder / "notes.txt").touch()
    (folder / "gone.png").symlink_to("/nowhere.png")


CLUTTER = (
    "left out: 2 hidden or system folders: ",
    "left out: 1 hidden or system file: ",
    "left out: 1 file of another type: 1 .txt",
    "left out: 1 link that leads nowhere: ",
)


def test_training_and_calibration_say_what_they_left_out(weights: Path, mvtec: Path):
    options = ("--weights", weights, "--data", mvtec)
    clutter(mvtec / "train" / "good")
    trained = run("train", "new", "--teacher", "narrow", "--epochs", 1, "--image-size", 32, *options).stderr
    assert "8 images to train on, 2 held out" in trained
    clutter(mvtec / "test" / "good")
    calibrated = run("calibrate", "striped", *options).stderr
    for said in (trained, calibrated):
        for line in CLUTTER:
            assert line in said


def test_evaluation_says_what_it_left_out_in_table_json_and_report(factory: Factory, mvtec: Path, tmp_path: Path):
    clutter(mvtec / "test" / "good")
    shutil.copy(mvtec / "test" / "good" / "000.png", mvtec / "test" / "good" / "copy.png")
    Image.open(mvtec / "test" / "spot" / "000.png").save(mvtec / "test" / "spot" / "saved-again.bmp")
    (mvtec / "ground_truth" / "spot" / "005_mask.png").unlink()
    judged = ("evaluate", "striped", "--data", mvtec, "--weights", factory.weights)
    result = run(*judged, "--json", "--report", tmp_path / "report")
    expected = (
        *CLUTTER,
        "left out: 1 copy of another file: ",
        "left out: 1 image with the same pixels as another, in another file: ",
        f"left out of the pixel measures: 1 anomalous image without a mask: {mvtec / 'test' / 'spot' / '005.png'}",
    )
    for line in expected:
        assert line in result.stderr
    found = json.loads(result.stdout)
    assert (found["normal_images"], found["anomalous_images"], found["pixel_images"]) == (12, 12, 11)
    assert {one["kind"]: one["count"] for one in found["remarks"]} == {
        "system-folder": 2, "system-file": 1, "other-type": 1, "broken-link": 1, "same-content": 1, "same-pixels": 1,
        "no-mask": 1,
    }  # fmt: skip
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    assert numbers["remarks"] == found["remarks"]
    page = (tmp_path / "report" / "report.html").read_text()
    for line in expected:
        assert line.split(": ")[1] in page


def test_train_many_says_what_it_left_out_of_which_category(factory: Factory, mvtec: Path, tmp_path: Path):
    root = tmp_path / "categories"
    root.mkdir()
    mvtec.rename(root / "bolt")
    clutter(root / "bolt" / "train" / "good")
    clutter(root)
    shutil.copytree(factory.teachers, tmp_path / "new" / "teachers")
    result = run(
        "train-many", root, "--teacher", "narrow", "--epochs", 1, "--image-size", 32, "--weights", tmp_path / "new",
        "--device", "cpu",
    )  # fmt: skip
    assert "left out: 2 hidden or system folders: " + str(root / ".ipynb_checkpoints") in result.stderr
    assert "bolt: trained (1 of 1)" in result.stderr
    after = result.stderr.split("bolt: trained")[1]
    for line in CLUTTER:
        assert line in after
    assert result.stdout.count("\n") == 2


def test_twelve_copies_of_one_picture_are_one_picture(weights: Path, tmp_path: Path):
    folder = tmp_path / "copies"
    folder.mkdir()
    image = Image.fromarray(surface(5))
    for number, options in enumerate(({}, {"compress_level": 1}, {"optimize": True}, {"dpi": (72, 72)})):
        image.save(folder / f"{number}.png", **options)
        image.save(folder / f"1{number}.bmp", dpi=(number + 1, 1))
        shutil.copy(folder / f"{number}.png", folder / f"2{number}.png")
    train = ("train", "new", "--normal", folder, "--teacher", "narrow", "--weights", weights)
    refused = run(*train, status=1).stderr
    assert "1 different images are too few to train on, 8 at least" in refused
    assert "left out: 4 copies of other files" in refused
    assert "left out: 7 images with the same pixels as others, in other files" in refused


def test_a_saved_again_copy_of_a_training_image_is_known_as_seen(weights: Path, factory: Factory, tmp_path: Path):
    folder = Path(shutil.copytree(factory.data / "train", tmp_path / "train"))
    Image.open(folder / "000.png").save(folder / "again.bmp")
    run("train", "new", "--normal", folder, "--teacher", "narrow", "--epochs", 1, "--weights", weights)
    seen = read_seen(weights / "new")
    assert len({*seen.training, *seen.held_out}) == 21
    assert read_card(weights / "new").training.images + read_card(weights / "new").training.held_out == 20


def test_a_picture_given_under_both_labels_is_refused_though_it_was_saved_again(
    weights: Path, factory: Factory, tmp_path: Path
):
    bad = Path(shutil.copytree(factory.data / "bad", tmp_path / "bad"))
    Image.open(factory.data / "good" / "003.png").save(bad / "again.bmp")
    refused = run(
        "calibrate", "striped", "--normal", factory.data / "good", "--anomalous", bad, "--weights", weights, status=1
    ).stderr
    assert f"given both as normal and as anomalous (first: {factory.data / 'good' / '003.png'} and" in refused


def test_images_behind_links_and_of_every_suffix_are_used(weights: Path, tmp_path: Path):
    folder, other = tmp_path / "photos", tmp_path / "other"
    write_images(folder, [surface(seed) for seed in range(2000, 2005)])
    write_images(other, [surface(seed) for seed in range(2010, 2015)])
    (folder / "more").symlink_to(other)
    for number, suffix in enumerate((".jfif", ".JPE")):
        Image.fromarray(surface(2020 + number)).save(folder / f"x{suffix}", "JPEG")
    result = run(
        "train", "new", "--normal", folder, "--teacher", "narrow", "--epochs", 1, "--image-size", 32, "--weights",
        weights,
    )  # fmt: skip
    assert "10 images to train on, 2 held out" in result.stderr
    assert "left out" not in result.stderr


@pytest.mark.parametrize("how", ["named otherwise", "turned", "inverted", "of another shape", "as JPEG"])
def test_masks_that_do_not_fit_stop_the_evaluation(factory: Factory, mvtec: Path, how: str):
    mask = mvtec / "ground_truth" / "spot" / "003_mask.png"
    values = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
    match how:
        case "named otherwise":
            for path in mask.parent.iterdir():
                path.rename(path.with_name(f"mask_{path.name}"))
            message = "holds no mask for any image"
        case "inverted":
            cv2.imwrite(str(mask), 255 - values)
            message = "it seems to be inverted"
        case "of another shape":
            cv2.imwrite(str(mask), values[:40])
            message = "has 80x40 pixels"
        case "turned":
            image = mvtec / "test" / "spot" / "003.png"
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(surface(7, size=(60, 80), fault=True)).save(image, exif=exif)
            cv2.imwrite(str(mask), values[:60])
            message = "turned by its EXIF orientation"
        case _:
            Image.fromarray(values).save(mask.with_suffix(".jpg"))
            mask.unlink()
            message = "compressed with losses"
    refused = run("evaluate", "striped", "--data", mvtec, "--weights", factory.weights, status=1)
    assert message in refused.stderr
    assert refused.stdout == ""


def test_masks_of_all_kinds_measure_the_same(factory: Factory, mvtec: Path):
    evaluate = ("evaluate", "striped", "--data", mvtec, "--json", "--weights", factory.weights)
    reference = json.loads(run(*evaluate).stdout)
    folder = mvtec / "ground_truth" / "spot"
    writers = [
        lambda mask, path: Image.fromarray(mask.astype(np.uint16)).save(path.with_suffix(".PNG")),
        lambda mask, path: Image.fromarray(np.dstack([mask * 0 + 255] * 3 + [mask * 255])).save(path),
        lambda mask, path: Image.fromarray(mask * 3).save(path.with_name(path.name.replace("_mask.png", "_gt.bmp"))),
    ]
    for number, path in enumerate(sorted(folder.iterdir())):
        mask = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
        path.unlink()
        writers[number % 3](mask, path)
    found = json.loads(run(*evaluate).stdout)
    assert reference["pixel_images"] == 12
    assert {name: found[name] for name in ("pixel_images", "pixel_auroc", "aupro")} == {
        name: reference[name] for name in ("pixel_images", "pixel_auroc", "aupro")
    }


def test_names_that_are_not_utf_8_reach_the_report(factory: Factory, mvtec: Path, tmp_path: Path):
    odd = Path(os.fsdecode(bytes(mvtec / "test") + b"/sp\xf6t"))
    (mvtec / "test" / "spot").rename(odd)
    (odd / "000.png").rename(os.fsdecode(bytes(odd) + b"/\xff<b>.png"))
    shutil.rmtree(mvtec / "ground_truth")
    run("evaluate", "striped", "--data", mvtec, "--report", tmp_path / "report", "--weights", factory.weights)
    numbers = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert list(numbers["auroc_by_defect"]) == [r"sp\xf6t"]
    assert any(one["path"].endswith(r"sp\xf6t/\xff<b>.png") for one in numbers["scores"])
    assert r"sp\xf6t" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_calibration_needs_no_masks_so_it_does_not_stop_at_them(weights: Path, mvtec: Path):
    for path in (mvtec / "ground_truth" / "spot").iterdir():
        path.rename(path.with_name(f"mask_{path.name}"))
    assert "6 normal and 6 anomalous" in run("calibrate", "striped", "--data", mvtec, "--weights", weights).stdout


def test_a_perfect_calibration_with_one_image_of_each_is_not_called_good(
    weights: Path, factory: Factory, tmp_path: Path
):
    for label in ("good", "bad"):
        (tmp_path / label).mkdir()
        shutil.copy(factory.data / label / "000.png", tmp_path / label)
    result = run(
        "calibrate", "striped", "--normal", tmp_path / "good", "--anomalous", tmp_path / "bad", "--weights", weights
    )
    assert "1 normal and 1 anomalous images" in result.stdout
    assert "AUROC 1.0000, 95 % [0.2065, 1.0000]" in result.stdout
    assert "1 normal image is too few to rely on: even if none of them is rejected" in result.stderr
    assert "the false-alarm rate may still be 98%" in result.stderr
    assert "the miss rate may still be 98%" in result.stderr


def test_an_evaluation_of_few_images_says_what_they_are_worth(factory: Factory, tmp_path: Path):
    for label, fault in (("good", False), ("bad", True)):
        write_images(tmp_path / label, [surface(seed, fault=fault) for seed in range(3000, 3009)])
    result = run(
        "evaluate", "striped", "--normal", tmp_path / "good", "--anomalous", tmp_path / "bad", "--weights",
        factory.weights,
    )  # fmt: skip
    assert "9 normal images are too few to rely on" in result.stderr
    assert "may still be 34%" in result.stderr
    assert "pixel AUROC and AUPRO were not measured" in result.stdout
    write_images(tmp_path / "more", [surface(3100)])
    shutil.copy(tmp_path / "more" / "000.png", tmp_path / "good" / "new.png")
    more = run(
        "evaluate", "striped", "--normal", tmp_path / "good", "--anomalous", tmp_path / "bad", "--weights",
        factory.weights,
    )  # fmt: skip
    assert "normal images are too few" not in more.stderr
    assert "9 anomalous images are too few" in more.stderr
