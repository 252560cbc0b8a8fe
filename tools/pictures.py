"""Makes the pictures of README.md and docs/: what the built-in category says of plates it has never seen.

Run `make pictures`. It writes docs/images/. Those of the console need a Chromium, and stay as they are without one.
"""

import io
import re
import shutil
from pathlib import Path

import cv2
import httpx
import numpy as np
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw, ImageFont

from model.images import read_image
from model.lab.features import layers_of
from model.lab.synthetic import DEFECTS, write_dataset
from model.lifecycle import figures, report
from model.lifecycle.datasets import mvtec_test
from model.lifecycle.evaluate import judge_category, measure_judged
from model.store.store import Store
from service.app import create_app
from service.settings import Settings
from tools.part_pictures import make_part_pictures

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "weights"
IMAGES = ROOT / "docs" / "images"
CATEGORY = "machined-plate"
TEST_SEED = 2
WINDOW = {"width": 1360, "height": 1180}
"""Of the browser that shows the console."""


DRAWN = (
    ("Zone", "face", ((0.07, 0.08), (0.6, 0.08), (0.6, 0.92), (0.07, 0.92))),
    ("Zone", "edge", ((0.66, 0.08), (0.93, 0.08), (0.93, 0.92), (0.66, 0.92))),
    ("Place to ignore", None, ((0.12, 0.7), (0.34, 0.7), (0.34, 0.86), (0.12, 0.86))),
)
"""What is drawn on the picture of the page Region: kind, name, and corners as shares of the picture."""


def make_picture(client: httpx.Client, samples: list[Path], path: Path) -> None:
    """A row of samples above the row of what the server answers for them, with its verdicts."""
    font = ImageFont.load_default(size=15)
    side, gap, caption = 256, 4, 48
    step = side + gap
    sheet = Image.new("RGB", (step * len(samples) - gap, 2 * step + caption), "white")
    draw = ImageDraw.Draw(sheet)
    for column, sample in enumerate(samples):
        response = client.post(
            f"/v1/categories/{CATEGORY}/inspect", content=sample.read_bytes(),
            headers={"Content-Type": "image/png", "Accept": "image/png"},
        )  # fmt: skip
        overlay = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)
        sheet.paste(Image.open(sample), (column * step, 0))
        sheet.paste(Image.fromarray(cv2.cvtColor(overlay, cv2.COLOR_BGR2RGB)), (column * step, step))
        headers = response.headers
        verdict = f"{sample.stem}: {headers['x-anomaly-decision']}"
        scores = f"score {float(headers['x-anomaly-score']):.3g}, threshold {float(headers['x-anomaly-threshold']):.3g}"
        draw.text((column * step + 6, 2 * step), verdict, "black", font)
        draw.text((column * step + 6, 2 * step + 20), scores, "black", font)
    sheet.save(path, quality=88, optimize=True)


def make_report_picture(data: Path, folder: Path, path: Path) -> None:
    """The hardest faulty plates, from a whole report that stays in the folder."""
    samples = mvtec_test(data)
    judged = judge_category(
        WEIGHTS, WEIGHTS / "teachers", CATEGORY,
        [one for one in samples if one.defect is None], [one for one in samples if one.defect is not None],
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    with report.new_folder(folder):
        report.write_report(folder, judged, measure_judged(judged))
    as_jpeg((folder / "worst-anomalous.png").read_bytes(), path)


def make_features_picture(sample: Path, path: Path) -> None:
    """What student and teacher make of one sample."""
    card, detector = Store(WEIGHTS).load(CATEGORY)
    (pixels,) = card.preprocessor.apply(read_image(sample))
    as_jpeg(figures.png(figures.features(pixels, layers_of(detector, pixels), f"{CATEGORY}, {sample.name}")), path)


def make_console_pictures(samples: list[Path], found: Path, batch: Path, region: Path, past: Path) -> None:
    """The console with a scratch that it has found, after a batch, with a region, and with a past inspection; only
    where there is a Chromium.

    Args:
        samples: one plate of each kind.
        found: picture of the scratch.
        batch: picture of the batch: the samples, the good one once more, and a file that is no image.
        region: picture of a region that is drawn on the good one.
        past: picture of the scratch in the history.
    """
    from playwright.sync_api import expect, sync_playwright

    from tests.end_to_end.browsing import choose, expect_verdict, find_chromium, payload, start_chromium
    from tests.end_to_end.conftest import running_server

    with sync_playwright() as playwright:
        path = find_chromium(playwright)
        if path is None:
            print("no Chromium: the pictures of the console stay as they are")
            return
        expect.set_options(timeout=120_000)
        with (
            running_server(WEIGHTS, device="cpu") as server,
            start_chromium(playwright, path) as browser,
        ):
            page = browser.new_page(viewport=WINDOW, reduced_motion="reduce")
            page.goto(server.url)
            page.get_by_role("button", name="scratch", exact=True).click()
            expect_verdict(page, "REJECT")
            expect(page.get_by_role("img", name="Photograph scratch.png")).to_be_visible()
            as_jpeg(page.screenshot(), found, width=1000)
            page.get_by_role("button", name="Clear", exact=True).click()
            page.get_by_role("button", name="Clear the list").click()
            good = next(one for one in samples if one.stem == "good").read_bytes()
            files = [payload(one.name, one.read_bytes()) for one in samples]
            choose(page, *files, payload("last.png", good), payload("notes.png", b"not an image"))
            expect_verdict(page, f"{len(DEFECTS)} of {len(files) + 2} anomalous")
            expect(page.get_by_role("heading", name="The worst first")).to_be_visible()
            page.mouse.move(0, 0)
            page.evaluate("scrollTo(0, 0)")
            as_jpeg(page.screenshot(), batch, width=1000)
            page.goto(f"{server.url}/#/region")
            page.get_by_label("Choose a picture").set_input_files([payload("good.png", good)])
            board = page.get_by_role("application", name="Drawing area")
            for kind, name, corners in DRAWN:
                box = board.bounding_box()
                assert box is not None
                page.get_by_text(kind, exact=True).click()
                for x, y in (*corners, corners[0]):
                    board.click(position={"x": x * box["width"], "y": y * box["height"]})
                if name is not None:
                    page.keyboard.type(name)
            page.get_by_role("button", name="Show the corners of zone edge").click()
            page.mouse.move(0, 0)
            page.evaluate("scrollTo(0, 0)")
            as_jpeg(page.screenshot(), region, width=1000)
            page.goto(f"{server.url}/#/history?decision=anomalous")
            page.get_by_role("list", name=re.compile("^Inspections")).get_by_role("link").last.click()
            expect(page.get_by_role("slider", name="Heat map")).to_be_visible()
            page.mouse.move(0, 0)
            as_jpeg(page.screenshot(), past, width=1000)


def as_jpeg(png: bytes, path: Path, *, width: int | None = None) -> None:
    """A drawn figure as a small file for the pages, reduced to a width in pixels if one is given."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if width is not None:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    picture.save(path, quality=88, optimize=True)


def sample_paths() -> list[Path]:
    """The samples that are there, the good one first."""
    return [ROOT / "samples" / f"{name}.png" for name in ("good", *DEFECTS)]


def make_pictures(data: Path, samples: list[Path]) -> None:
    """All pictures of the pages.

    Args:
        data: test images in the MVTec AD layout.
        samples: one plate of each kind.
    """
    IMAGES.mkdir(parents=True, exist_ok=True)
    with TestClient(create_app(Settings(weights=WEIGHTS, database="none", device="cpu"))) as client:
        make_picture(client, samples, IMAGES / "result.jpg")
    make_report_picture(data, ROOT / "build" / "report", IMAGES / "report.jpg")
    make_part_pictures(IMAGES)
    make_features_picture(next(path for path in samples if path.stem == "scratch"), IMAGES / "features.jpg")
    make_console_pictures(
        samples,
        IMAGES / "console.jpg",
        IMAGES / "console-batch.jpg",
        IMAGES / "console-region.jpg",
        IMAGES / "console-history.jpg",
    )


def main() -> None:
    """Makes the pictures with the category and the samples that are there."""
    data = ROOT / "build" / "pictures"
    shutil.rmtree(data, ignore_errors=True)
    write_dataset(data, train=0, test_good=100, test_each=25, seed=TEST_SEED)
    make_pictures(data, sample_paths())


if __name__ == "__main__":
    main()
