"""Masks are found by stated names, read exactly or refused, and fit their images."""

import io
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from model.lifecycle import datasets
from model.lifecycle.datasets import DatasetError, LoadedImages, Sample, load_images
from model.lifecycle.evaluate import read_masks
from model.lifecycle.masks import decode_mask, on_grid, read_mask
from model.lifecycle.remarks import Kind
from model.preprocessing import Preprocessing
from tests.conftest import surface, write_images

HEIGHT, WIDTH = 60, 80
TRUTH = np.zeros((HEIGHT, WIDTH), np.uint8)
TRUTH[10:20, 10:30] = 1
TRUTH[30:45, 50:55] = 3
"""Two faults, of the classes 1 and 3."""
MARKED = TRUTH != 0


def square(side: int):
    return lambda shape: (side, side)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pillow(values: np.ndarray, kind: str, **options: object) -> Callable[[], bytes]:
    return lambda: encoded(Image.fromarray(values), kind, **options)


def opencv(values: np.ndarray, suffix: str) -> Callable[[], bytes]:
    return lambda: cv2.imencode(suffix, values)[1].tobytes()


def palette(colours: list[int], index: np.ndarray = TRUTH, kind: str = "PNG", **options: object) -> Callable[[], bytes]:
    def write() -> bytes:
        image = Image.fromarray(index.astype(np.uint8)).convert("P")
        image.putpalette(colours)
        return encoded(image, kind, **options)

    return write


def grey_tiff(values: np.ndarray, photometric: int) -> Callable[[], bytes]:
    """A TIFF whose photometric interpretation says what is white; the pixels are written as they are."""
    return lambda: encoded(Image.fromarray(values), "TIFF", tiffinfo={262: photometric})


def channels(*planes: object) -> np.ndarray:
    return np.dstack([np.broadcast_to(plane, TRUTH.shape) for plane in planes])


WHITE = TRUTH.clip(0, 1) * 255
U16 = TRUTH.astype(np.uint16)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]

EXACT = {
    "white on black": pillow(WHITE, "PNG"),
    "classes": pillow(TRUTH, "PNG"),
    "classes up to 200": pillow(TRUTH * 60, "PNG"),
    "one bit": pillow(MARKED, "PNG"),
    "one bit BMP": pillow(MARKED, "BMP"),
    "one bit TIFF": pillow(MARKED, "TIFF", compression="group4"),
    "BMP": pillow(WHITE, "BMP"),
    "GIF": pillow(WHITE, "GIF"),
    "TIFF": pillow(TRUTH, "TIFF"),
    "compressed TIFF": pillow(TRUTH, "TIFF", compression="tiff_lzw"),
    "16-bit classes": pillow(U16, "PNG"),
    "16-bit ones": pillow(U16.clip(0, 1), "PNG"),
    "16-bit TIFF": pillow(U16.clip(0, 1), "TIFF"),
    "16-bit colours": opencv(channels(U16, U16, U16), ".png"),
    "16-bit colours TIFF": opencv(channels(U16, U16, U16), ".tif"),
    "16-bit colours with alpha": opencv(channels(U16, U16, U16, np.uint16(65535)), ".png"),
    "16-bit colours with a mask as alpha": opencv(channels(*[np.uint16(65535)] * 3, U16), ".png"),
    "32-bit integers": pillow(TRUTH.astype(np.int32), "TIFF"),
    "floats": pillow(TRUTH.astype(np.float32) / 4, "TIFF"),
    "colours": pillow(channels(WHITE, 0 * TRUTH, 0 * TRUTH), "PNG"),
    "blue, which is dark in grey": pillow(channels(0 * TRUTH, 0 * TRUTH, TRUTH), "PNG"),
    "white with a mask as alpha": pillow(channels(*[np.uint8(255)] * 3, WHITE), "PNG"),
    "grey with a mask as alpha": pillow(channels(np.uint8(255), WHITE), "PNG"),
    "faint alpha": pillow(channels(*[np.uint8(255)] * 3, MARKED.astype(np.uint8)), "PNG"),
    "opaque alpha": pillow(channels(WHITE, WHITE, WHITE, np.uint8(255)), "PNG"),
    "alpha of nothing everywhere": pillow(channels(WHITE, WHITE, WHITE, np.uint8(0)), "PNG"),
    "red on transparent": pillow(channels(np.uint8(255), np.uint8(0), np.uint8(0), WHITE), "PNG"),
    "black on transparent": pillow(channels(*[np.uint8(0)] * 3, WHITE), "PNG"),
    "half transparent white on opaque black": pillow(channels(WHITE, WHITE, WHITE, 255 - WHITE // 2), "PNG"),
    "palette": palette(VOC),
    "palette of two bits": palette(VOC, bits=2),
    "palette BMP": palette(VOC, kind="BMP"),
    "palette TIFF": palette(VOC, kind="TIFF"),
    "palette GIF": palette(VOC, kind="GIF"),
    "palette with a transparent ground": palette(VOC, transparency=0),
    "palette with white first": palette([255, 255, 255, 0, 0, 0], index=~MARKED),
    "palette without black": palette([255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255]),
    "palette all black": palette([0, 0, 0] * 4),
    "white with one transparent colour": pillow(channels(*[255 - WHITE] * 3), "PNG", transparency=(255, 255, 255)),
    "eXIf orientation": lambda: encoded(Image.fromarray(np.rot90(TRUTH)), "PNG", exif=orientation_tag(6)),
    "TIFF orientation": lambda: encoded(Image.fromarray(np.rot90(TRUTH)), "TIFF", exif=orientation_tag(6)),
}


def orientation_tag(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("layout", EXACT)
def test_every_value_but_zero_is_faulty_in_every_layout(tmp_path: Path, layout: str):
    path = tmp_path / "mask"
    path.write_bytes(EXACT[layout]())
    mask = decode_mask(path)
    np.testing.assert_array_equal(mask.marked, MARKED)
    assert not mask.shaded


REFUSED = {
    "JPEG": (pillow(WHITE, "JPEG"), "compressed with losses"),
    "WebP": (pillow(WHITE, "WEBP", lossless=True), "compressed with losses"),
    "JPEG in TIFF": (pillow(WHITE, "TIFF", compression="jpeg"), "compressed with losses"),
    "16-bit TIFF with white as zero": (grey_tiff(U16, 0), "not supported"),
    "CMYK": (lambda: encoded(Image.fromarray(channels(WHITE, WHITE, WHITE)).convert("CMYK"), "TIFF"), "not supported"),
    "no number": (pillow(np.where(MARKED, np.nan, 0).astype(np.float32), "TIFF"), "not numbers"),
    "several images": (
        lambda: encoded(Image.fromarray(WHITE), "TIFF", save_all=True, append_images=[Image.fromarray(TRUTH)]),
        "several images",
    ),
    "no image": (lambda: b"nonsense", "not an image"),
    "empty": (lambda: b"", "not an image"),
    "cut off": (lambda: pillow(TRUTH, "PNG")()[:60], "cannot read the mask"),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_a_mask_that_cannot_be_read_exactly_is_refused(tmp_path: Path, layout: str):
    write, message = REFUSED[layout]
    path = tmp_path / "000_mask.png"
    path.write_bytes(write())
    with pytest.raises(DatasetError, match=message) as refused:
        decode_mask(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("how", ["resized", "once a JPEG"])
def test_a_shaded_mask_marks_what_is_above_half(tmp_path: Path, how: str):
    if how == "resized":
        image = Image.fromarray(WHITE).resize((3 * WIDTH, 3 * HEIGHT), Image.Resampling.BICUBIC)
    else:
        large = cv2.resize(WHITE, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
        image = Image.open(io.BytesIO(encoded(Image.fromarray(large), "JPEG", quality=50)))
    image.save(tmp_path / "mask.png")
    mask = decode_mask(tmp_path / "mask.png")
    truth = cv2.resize(MARKED.astype(np.uint8), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST) > 0
    assert mask.shaded
    assert (mask.marked != truth).sum() < 0.05 * truth.sum()
    assert (np.asarray(image) != 0).sum() > 1.1 * truth.sum()  # what any value but zero would have been


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two images of one defect, and an empty folder of masks."""
    write_images(tmp_path / "bad" / "spot", [surface(seed, size=(HEIGHT, WIDTH), fault=True) for seed in range(2)])
    (tmp_path / "masks" / "spot").mkdir(parents=True)
    return tmp_path / "bad", tmp_path / "masks"


@pytest.mark.parametrize(
    "name",
    [
        "000_mask.png", "000.png", "000.PNG", "000.bmp", "000_gt.png", "000_GT.PNG", "000_Mask.tif", "000-mask.png",
        "000_label.bmp", "000.tiff", "000_mask.gif",
    ],
)  # fmt: skip
def test_masks_are_found_under_every_stated_name(folders: tuple[Path, Path], name: str):
    bad, masks = folders
    (masks / "spot" / name).write_bytes(EXACT["classes"]())
    listing = datasets.anomalous_samples(bad, masks)
    assert [sample.mask for sample in listing] == [masks / "spot" / name, None]
    assert not listing.remarks


def test_names_of_masks_match_whatever_the_case_and_the_unicode_form(tmp_path: Path):
    image = tmp_path / "bad" / "Kr\u00e4tzer" / "Pr\u00fcf.JPG"
    mask = tmp_path / "masks" / "kra\u0308tzer" / "pru\u0308f_mask.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True)
        path.touch()
    assert [sample.mask for sample in datasets.anomalous_samples(tmp_path / "bad", tmp_path / "masks")] == [mask]


@pytest.mark.parametrize("name", ["000_segmentation.png", "other.png", "spot/deeper/000.png"])
def test_masks_that_are_there_under_another_name_are_a_refusal_that_names_the_rule(
    folders: tuple[Path, Path], name: str
):
    bad, masks = folders
    path = masks / "spot" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(DatasetError, match=r"no mask for any image .*000_mask\.png\. The mask of NAME.*NAME_gt"):
        datasets.anomalous_samples(bad, masks)


def test_masks_that_belong_to_no_image_are_said(folders: tuple[Path, Path]):
    bad, masks = folders
    for name in ("000.png", "002.png", "readme.txt"):
        (masks / "spot" / name).touch()
    remarks = datasets.anomalous_samples(bad, masks).remarks
    assert remarks.lines() == [f"left out: 1 mask that belongs to no image: {masks / 'spot' / '002.png'}"]


def test_two_files_that_may_be_the_mask_are_refused(folders: tuple[Path, Path]):
    bad, masks = folders
    for name in ("000_mask.png", "000_mask.bmp", "000.png"):
        (masks / "spot" / name).touch()
    with pytest.raises(DatasetError, match=r"000_mask\.\w+ and 000_mask\.\w+ may both be the mask of .*000\.png"):
        datasets.anomalous_samples(bad, masks)
    (masks / "spot" / "000_mask.bmp").unlink()
    assert datasets.anomalous_samples(bad, masks)[0].mask == masks / "spot" / "000_mask.png"


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """Two kinds of defect in the MVTec AD layout, without masks."""
    for name in ("good", "spot", "dent"):
        write_images(tmp_path / "test" / name, [surface(seed, size=(HEIGHT, WIDTH)) for seed in range(2)])
    return tmp_path


@pytest.mark.parametrize("place", ["ground_truth/spot", "Ground_Truth/Spot"])
@pytest.mark.parametrize("name", ["000.PNG", "000_mask.bmp", "000_gt.png"])
def test_ground_truth_is_found_under_every_stated_name(mvtec: Path, place: str, name: str):
    (mvtec / place).mkdir(parents=True)
    (mvtec / place / name).touch()
    found = {sample.path.parent.name: sample.mask for sample in datasets.mvtec_test(mvtec) if sample.mask is not None}
    assert found == {"spot": mvtec / place / name}


@pytest.mark.parametrize("place", ["spot/000_seg.png", "spots/000_mask.png", "000_mask.png"])
def test_ground_truth_that_fits_no_image_is_refused_as_with_masks(mvtec: Path, place: str):
    path = mvtec / "ground_truth" / place
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(DatasetError, match="holds no mask for any image"):
        datasets.mvtec_test(mvtec)


def test_ground_truth_that_fits_one_kind_only_is_refused_or_said(mvtec: Path):
    for place in ("spot/000_mask.png", "dents/000_mask.png", "good/000_mask.png"):
        (mvtec / "ground_truth" / place).parent.mkdir(parents=True)
        (mvtec / "ground_truth" / place).touch()
    remarks = datasets.mvtec_test(mvtec).remarks
    assert remarks.of(Kind.UNUSED_MASK) == (str(mvtec / "ground_truth" / "dents" / "000_mask.png"),)
    (mvtec / "ground_truth" / "dents").rename(mvtec / "ground_truth" / "dent")
    (mvtec / "ground_truth" / "dent" / "000_mask.png").rename(mvtec / "ground_truth" / "dent" / "x.png")
    with pytest.raises(DatasetError, match="holds no mask for any image"):
        datasets.mvtec_test(mvtec)


@pytest.mark.parametrize("content", ["nothing", "an empty folder", "a hidden folder"])
def test_an_empty_ground_truth_is_none(mvtec: Path, content: str):
    (mvtec / "ground_truth").mkdir()
    if content == "an empty folder":
        (mvtec / "ground_truth" / "spot").mkdir()
    if content == "a hidden folder":
        write_images(mvtec / "ground_truth" / ".ipynb_checkpoints", [surface(1)])
    assert all(sample.mask is None for sample in datasets.mvtec_test(mvtec))


def loaded(tmp_path: Path, image: Image.Image, mask: Image.Image, **options: object) -> LoadedImages:
    """One image with its mask, and one without."""
    image.save(tmp_path / "a.jpg", **options)
    mask.save(tmp_path / "a_mask.png")
    Image.fromarray(surface(2)).save(tmp_path / "b.png")
    samples = [Sample(tmp_path / "a.jpg", "spot", tmp_path / "a_mask.png"), Sample(tmp_path / "b.png", "spot")]
    return load_images(samples, Preprocessing(32))


def photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(surface(1, size=(height, width), fault=True))


def drawn(width: int, height: int) -> Image.Image:
    """A mask of a fault in the upper left corner."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 4, : width // 4] = 255
    return Image.fromarray(mask)


@pytest.mark.parametrize("size", [(100, 80), (50, 40), (200, 160), (51, 40), (50, 41), (25, 20)])
def test_a_mask_of_another_resolution_is_taken(tmp_path: Path, size: tuple[int, int]):
    found, remarks = read_masks(loaded(tmp_path, photograph(100, 80), drawn(*size)), square(32))
    assert found[0][:7, :7].all()
    assert not found[0][9:].any()
    assert not found[0][:, 9:].any()
    assert remarks.lines() == [
        f"left out of the pixel measures: 1 anomalous image without a mask: {tmp_path / 'b.png'}"
    ]


@pytest.mark.parametrize("size", [(80, 100), (100, 100), (100, 50), (200, 100), (100, 77)])
def test_a_mask_of_another_aspect_ratio_is_refused_with_both_sizes(tmp_path: Path, size: tuple[int, int]):
    images = loaded(tmp_path, photograph(100, 80), drawn(*size))
    with pytest.raises(DatasetError, match=rf"a_mask\.png has {size[0]}x{size[1]} pixels.*a\.jpg 100x80"):
        read_masks(images, square(32))


def test_a_mask_on_the_stored_pixels_of_a_turned_photograph_is_refused(tmp_path: Path):
    turned = {"exif": orientation_tag(6)}
    images = loaded(tmp_path, photograph(100, 80), drawn(100, 80), **turned)
    with pytest.raises(DatasetError, match=r"has 100x80 pixels.* 80x100: .*turned by its EXIF orientation"):
        read_masks(images, square(32))
    found, _ = read_masks(loaded(tmp_path, photograph(100, 80), drawn(80, 100), **turned), square(32))
    assert found[0][:7, :7].all()


@pytest.mark.parametrize(("orientation", "size"), [(6, (80, 80)), (8, (80, 80)), (3, (100, 80)), (2, (100, 80))])
def test_a_mask_that_fits_with_and_without_the_turn_is_not_used_and_that_is_said(
    tmp_path: Path, orientation: int, size: tuple[int, int]
):
    images = loaded(tmp_path, photograph(*size), drawn(*size), exif=orientation_tag(orientation))
    found, remarks = read_masks(images, square(32))
    assert dict(found) == {}
    assert remarks.of(Kind.TURNED) == (str(tmp_path / "a.jpg"),)
    upright = loaded(tmp_path, photograph(*size), drawn(*size), exif=orientation_tag(1))
    assert list(read_masks(upright, square(32))[0]) == [0]


def test_a_mask_with_the_orientation_of_its_photograph_is_turned_like_it(tmp_path: Path):
    images = loaded(tmp_path, photograph(80, 80), drawn(80, 80), exif=orientation_tag(6))
    drawn(80, 80).save(tmp_path / "a_mask.png", exif=orientation_tag(6))
    found, _ = read_masks(images, square(32))
    assert found[0][:8, -8:].all()  # a quarter turn clockwise
    assert not found[0][:, :20].any()


@pytest.mark.parametrize("fault", [0.01, 0.08, 0.3])
def test_an_inverted_mask_is_refused_with_its_share(tmp_path: Path, fault: float):
    mask = np.full((80, 100), 255, np.uint8)
    side = round(np.sqrt(fault * 80 * 100))
    mask[10 : 10 + side, 10 : 10 + side] = 0
    images = loaded(tmp_path, photograph(100, 80), Image.fromarray(mask))
    with pytest.raises(DatasetError, match=rf"marks {(mask > 0).mean():.1%} of its image .* inverted"):
        read_masks(images, square(32))


def test_a_large_fault_is_not_taken_for_an_inverted_mask(tmp_path: Path):
    mask = np.zeros((80, 100), np.uint8)
    mask[5:75, 5:] = 255
    images = loaded(tmp_path, photograph(100, 80), Image.fromarray(mask))
    assert read_masks(images, square(64))[0][0].mean() == pytest.approx(0.83, abs=0.02)


def test_a_mask_that_marks_nothing_counts_as_none_and_is_said(tmp_path: Path):
    images = loaded(tmp_path, photograph(100, 80), drawn(100, 80))
    Image.new("L", (80, 80)).save(tmp_path / "b_mask.png")
    images.samples[1] = Sample(images.samples[1].path, "spot", tmp_path / "b_mask.png")
    found, remarks = read_masks(images, square(32))
    assert list(found) == [0]
    assert remarks.of(Kind.EMPTY_MASK) == (str(tmp_path / "b.png"),)
    Image.new("L", (100, 80)).save(tmp_path / "a_mask.png")
    with pytest.raises(DatasetError, match="none of the masks marks a pixel"):
        read_masks(images, square(32))


def test_thin_faults_are_kept_beside_large_ones(tmp_path: Path):
    marked = np.zeros((1000, 1000), bool)
    marked[100:400, 100:400] = marked[:, 777] = True
    small = on_grid(marked, 50, 50)
    assert small[:, 38].all()
    assert small[5:20, 5:20].all()
    assert small.sum() == 15 * 15 + 50
    cv2.imwrite(str(tmp_path / "a.png"), marked.astype(np.uint8))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", 50), small)


def test_masks_that_are_refused_are_counted(tmp_path: Path):
    images = loaded(tmp_path, photograph(100, 80), drawn(80, 100))
    drawn(10, 80).save(tmp_path / "b_mask.png")
    images.samples[1] = Sample(images.samples[1].path, "spot", tmp_path / "b_mask.png")
    with pytest.raises(DatasetError, match=r"a_mask\.png has 80x100 pixels.* \(1 more of the masks cannot be used\)"):
        read_masks(images, square(32))


def test_masks_of_many_pictures_take_the_memory_of_one(tmp_path: Path):
    width, height = 1600, 1200
    photograph(width, height).save(tmp_path / "a.jpg")
    drawn(width, height).save(tmp_path / "a_mask.png")
    one = load_images([Sample(tmp_path / "a.jpg", "spot", tmp_path / "a_mask.png")], Preprocessing(32))

    def peak(count: int) -> int:
        images = replace(one, samples=list(one.samples) * count, shapes=one.shapes * count)
        tracemalloc.start()
        found, _ = read_masks(images, lambda shape: shape[::-1])
        assert [found[index].shape for index in found] == [(height, width)] * count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(12) < peak(2) + 2 * width * height


def test_a_mask_that_is_gone_when_it_is_needed_is_an_error(tmp_path: Path):
    found, _ = read_masks(loaded(tmp_path, photograph(100, 80), drawn(100, 80)), square(32))
    (tmp_path / "a_mask.png").unlink()
    with pytest.raises(DatasetError, match=r"a_mask\.png"):
        found[0]
