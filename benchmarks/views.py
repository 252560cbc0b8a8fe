"""A part instead of a picture, measured: tiles of large pictures, regions, and pictures that are not square.

    python -m benchmarks.views panel    [--seeds 2] [--steps 200]
    python -m benchmarks.views leather  --data FOLDER
    python -m benchmarks.views fits     --data FOLDER
    python -m benchmarks.views region   --data FOLDER
    python -m benchmarks.views outside  --data FOLDER
    python -m benchmarks.views cost     [--networks compact|full]

- ``panel``: generated panels of 20 megapixels with faults of about 12 pixels (`model.lab.panels`), in the tiles that
  ``--tiles auto --smallest-fault 12`` chooses, and as a whole.
- ``leather``: the few pictures of MVTec AD's leather at hand, as a whole and in 4x4 and 8x8 tiles.
- ``fits``: magnetic tile, whose pictures are not square, stretched and letterboxed.
- ``region``: casting, with a circle around the part and without.
- ``outside``: casting, everything outside of the circle replaced by noise: by how much the scores move.
- ``cost``: tiles a second of the real server for a panel in 6x4 tiles and a line scan of 8000x2000 pixels in 12x3,
  beside single images of 128x128; processor time, and peak memory.

``--data`` is a folder with the real sets: ``mvtec-leather/``, ``magnetic-tile/`` and ``casting/``. A student is trained
for as many epochs as make ``--steps`` steps; an epoch of pictures in tiles has a step for every 32 tiles. Rows are
printed as lines of JSON and written to benchmarks/results/views_PART.json.
"""

import argparse
import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import torch

from benchmarks.accuracy.sets import ROOT, compact_teacher
from benchmarks.decoding import family, own_seconds, processor_seconds
from benchmarks.load import Connection, batch_counts, closed_loop, request, serving
from benchmarks.magnetic_tile import read_splits
from benchmarks.pairs import CATEGORY, jpeg, make_category
from benchmarks.record import machine_and_commit
from benchmarks.service import COMMAND
from model.choices import COMPACT, DEFAULT_SCORE, Fit, SeenPolicy
from model.detector import Detector, scores_of
from model.images import decode_image
from model.lab import panels, synthetic
from model.lifecycle.datasets import Sample, load_images, mvtec_test, mvtec_training, pick
from model.lifecycle.distillation import train
from model.lifecycle.evaluate import Judged, judge_category, maps_of_pictures
from model.lifecycle.masks import decode_mask
from model.lifecycle.recipe import Recipe
from model.lifecycle.regions import DrawnRegion, prepared
from model.lifecycle.train import HELD_OUT_SHARE, train_category
from model.measures import PixelCurve, auroc_estimate, false_alarm_rate, miss_rate
from model.preprocessing import Preprocessing, Tiles
from model.store.card import SCHEMA_VERSION, PreprocessingRecord
from model.store.store import Store
from tools.pictures import CATEGORY as BUILTIN
from tools.pictures import WEIGHTS

SIDE = 128
FAULT = 12
TRAIN, TEST_GOOD, TEST_EACH = 8, 8, 4
"""Panels."""
CIRCLE = 146
"""Radius of the circle around a casting, in pixels of pictures of 300x300 with the part in their middle."""
LINE_SCAN = 8000, 2000
GRIDS = {"panel": Tiles(6, 4), "line scan": Tiles(12, 3)}
MEBIBYTE = 1 << 20

Row = dict[str, object]


def of_steps(steps: int, images: int, batch_size: int = Recipe.batch_size) -> int:
    """The number of epochs that makes so many steps, rounded up."""
    return -(-steps // -(-images // batch_size))


def seconds_of(what: Callable[[], object]) -> float:
    """Processor time of this process."""
    started = time.process_time()
    what()
    return time.process_time() - started


def costs(detector: Detector, preprocessing: Preprocessing, samples: Sequence[Sample]) -> Row:
    """Processor time of a picture: median of a few."""
    rows = []
    for sample in samples[:5]:
        data = sample.path.read_bytes()
        photograph = preprocessing.read(data)
        pixels = preprocessing.prepare(photograph).pixels
        masks = preprocessing.layout(photograph.width, photograph.height).masks
        rows.append(
            (
                seconds_of(lambda: preprocessing.read(data)),  # noqa: B023
                seconds_of(lambda: preprocessing.prepare(photograph)),  # noqa: B023
                seconds_of(lambda: scores_of(detector, pixels, masks)),  # noqa: B023
            )
        )
    decode, cut, score = (round(1000 * value, 1) for value in np.median(rows, axis=0))
    return {"decode_ms": decode, "cut_ms": cut, "score_ms": score}


def trained(
    training: Sequence[Sample],
    good: Sequence[Sample],
    bad: Sequence[Sample],
    preprocessing: Preprocessing,
    seed: int,
    steps: int,
) -> tuple[Row, Judged]:
    """Trains a category as `eca-inspect train` does, and judges it."""
    views = len(preprocessing.zones)
    held_out = max(2, round(HELD_OUT_SHARE * len(training)))
    epochs = of_steps(steps, (len(training) - held_out) * views)
    with TemporaryDirectory() as folder:
        weights, teachers = Path(folder), ROOT / "weights" / "teachers"
        started = time.process_time()
        card, losses = train_category(
            "views", training, weights, COMPACT, compact_teacher(), Recipe(image_size=SIDE, seed=seed, epochs=epochs),
            preprocessing=preprocessing,
        )  # fmt: skip
        trained_for = time.process_time() - started
        judged = judge_category(weights, teachers, "views", good, bad, seen_policy=SeenPolicy.SKIP)
    area, threshold = auroc_estimate(judged.normal_scores, judged.anomalous_scores), card.calibration.threshold
    row: Row = {
        "views": views,
        "seed": seed,
        "trained_on": card.training.images,
        "epochs": epochs,
        "last_loss": round(losses[-1], 4),
        "training_processor_s": round(trained_for, 1),
        "training_s": card.training.seconds,
        "judged": [len(judged.normal_scores), len(judged.anomalous_scores)],
        "auroc": round(area.value, 4),
        "interval": [round(area.low, 4), round(area.high, 4)],
        "by_defect": {
            name: round(auroc_estimate(judged.normal_scores, judged.anomalous_scores[places]).value, 4)
            for name, places in judged.of_defect().items()
        },
        "false_alarms_at_first_threshold": round(false_alarm_rate(judged.normal_scores, threshold), 4),
        "misses_at_first_threshold": round(miss_rate(judged.anomalous_scores, threshold), 4),
        **costs(judged.detector, preprocessing, good),
    }
    return row, judged


def pixel_measures(judged: Judged) -> Row:
    """Pixel AUROC and AUPRO on the pixels of the pictures themselves, however the networks see them."""

    def own(shape: tuple[int, int]) -> tuple[int, int]:
        return shape[1], shape[0]

    curve = PixelCurve()
    for anomaly_map in maps_of_pictures(judged.card, judged.detector, judged.good, own):
        curve.add(anomaly_map)
    masks = {index: sample.mask for index, sample in enumerate(judged.bad.samples) if sample.mask is not None}
    of_masked = maps_of_pictures(judged.card, judged.detector, pick(judged.bad, masks), own)
    for anomaly_map, path in zip(of_masked, masks.values(), strict=True):
        curve.add(anomaly_map, decode_mask(path).marked)
    return {"pixel_auroc": round(curve.auroc(), 4), "aupro": round(curve.aupro(), 4)}


def apart(test: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Good and faulty ones."""
    return [one for one in test if one.defect is None], [one for one in test if one.defect is not None]


def panel(arguments: argparse.Namespace) -> Iterator[Row]:
    """Panels of 20 megapixels."""
    with TemporaryDirectory() as folder:
        root = arguments.panels or Path(folder)
        if len(list(root.rglob("*.jpg"))) < TRAIN + TEST_GOOD + TEST_EACH * len(panels.DEFECTS):
            panels.write_dataset(root, train=TRAIN, test_good=TEST_GOOD, test_each=TEST_EACH, seed=0)
        training, (good, bad) = mvtec_training(root), apart(mvtec_test(root))
        for seed in range(arguments.seeds):
            for look, fault in (("auto", FAULT), ("whole", None)):
                preprocessing = prepared(training, SIDE, smallest_fault=fault)
                row, judged = trained(training, good, bad, preprocessing, seed, arguments.steps)
                yield {"look": look, "tiles": grid(preprocessing), **row, **pixel_measures(judged)}


def grid(preprocessing: Preprocessing) -> str:
    """Columns and rows, for people."""
    return "" if preprocessing.tiles is None else f"{preprocessing.tiles.columns}x{preprocessing.tiles.rows}"


def leather(arguments: argparse.Namespace) -> Iterator[Row]:
    """Four training pictures are fewer than `eca-inspect train` takes, so the student is trained without it."""
    root = arguments.data / "mvtec-leather"
    training, (good, bad) = mvtec_training(root), apart(mvtec_test(root))
    teacher = compact_teacher()
    for side in (1, 4, 8):
        preprocessing = Preprocessing(SIDE, tiles=None if side == 1 else Tiles(side, side))
        pixels, *judged = (load_images(samples, preprocessing).pixels for samples in (training, good, bad))
        for seed in range(arguments.seeds):
            recipe = Recipe(image_size=SIDE, seed=seed, epochs=of_steps(arguments.steps, len(pixels)))
            student, losses = train(teacher, pixels, recipe)
            detector = Detector(teacher, student, recipe.term_weights, score=DEFAULT_SCORE)
            normal, anomalous = (scores_of(detector, one).reshape(-1, side * side).max(axis=1) for one in judged)
            area = auroc_estimate(normal, anomalous)
            yield {
                "tiles": grid(preprocessing) or "whole",
                "seed": seed,
                "epochs": recipe.epochs,
                "last_loss": round(losses[-1], 4),
                "judged": [len(normal), len(anomalous)],
                "auroc": round(area.value, 4),
                "interval": [round(area.low, 4), round(area.high, 4)],
                **costs(detector, preprocessing, good),
            }


def fits(arguments: argparse.Namespace) -> Iterator[Row]:
    """Magnetic tile stretched and letterboxed."""
    splits = read_splits(arguments.data / "magnetic-tile")
    good = splits["calibrate_normal"] + splits["test_normal"]
    bad = splits["calibrate_anomalous"] + splits["test_anomalous"]
    for seed in range(arguments.seeds):
        for fit in (Fit.STRETCH, Fit.LETTERBOX):
            row, judged = trained(splits["train"], good, bad, Preprocessing(SIDE, resize=fit), seed, arguments.steps)
            yield {"fit": fit.value, **row, **pixel_measures(judged)}


@cache
def circle() -> DrawnRegion:
    """The region of a casting."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    polygon = tuple((float(149.5 + CIRCLE * np.cos(one)), float(149.5 + CIRCLE * np.sin(one))) for one in angles)
    return DrawnRegion({"part": (polygon,)}, size=(300, 300))


def region(arguments: argparse.Namespace) -> Iterator[Row]:
    """Casting with a circle around the part, and without."""
    root = arguments.data / "casting"
    training, (good, bad) = mvtec_training(root), apart(mvtec_test(root))
    for seed in range(arguments.seeds):
        for name, drawn in (("none", None), ("circle", circle())):
            row, _ = trained(training, good, bad, prepared(training, SIDE, region=drawn), seed, arguments.steps)
            yield {"region": name, **row}


def outside(arguments: argparse.Namespace) -> Iterator[Row]:
    """Noise in place of all that lies outside of the region, on every fourth picture.

    The pair is the built-in category's: what leaks in from outside does not depend on what a student has learned.
    """
    root = arguments.data / "casting"
    pictures = list(mvtec_test(root))[::4]
    rng = np.random.default_rng(0)
    _, detector = Store(WEIGHTS).load(BUILTIN)
    for name, cut in (("whole", None), ("2x2 tiles", (2, 2)), ("3x3 tiles", (3, 3))):
        for fit in (Fit.STRETCH, Fit.LETTERBOX):
            preprocessing = prepared(pictures, SIDE, region=circle(), grid=cut, fit=fit)
            drawn = preprocessing.region
            assert drawn is not None
            counts = drawn.marked(drawn.zones[0], 300, 300)[:, :, None]
            masks = preprocessing.layout(300, 300).masks
            moved, whole = [], []
            for sample in pictures:
                image = decode_image(sample.path.read_bytes(), reading=preprocessing.reading)
                noise = rng.integers(0, 256, image.shape, np.uint8)
                before, outer, inner = (
                    float(scores_of(detector, preprocessing.apply(one), masks).max())
                    for one in (image, np.where(counts, image, noise), np.where(counts, noise, image))
                )
                moved.append(abs(outer / before - 1))
                whole.append(abs(inner / before - 1))
            yield {
                "look": name,
                "fit": fit.value,
                "pictures": len(moved),
                "replaced": round(1 - float(counts.mean()), 3),
                "largest_relative_change": max(moved),
                "smallest_with_noise_inside": round(min(whole), 3),
            }


def make_pairs(weights: Path, networks: str) -> dict[str, str]:
    """Writes a category of single images, and the same pair for each of `GRIDS`; their names by what they are for."""
    if networks == "full":
        make_category(weights)
    else:
        (weights / "teachers").symlink_to(ROOT / "weights" / "teachers")
        with TemporaryDirectory() as data:
            synthetic.write_dataset(Path(data, "plates"), train=8, test_good=0, test_each=0, seed=0)
            samples, recipe = mvtec_training(Path(data, "plates")), Recipe(epochs=1)
            train_category(CATEGORY, samples, weights, COMPACT, compact_teacher(), recipe)
    store = Store(weights)
    card, seen = store.card(CATEGORY), store.seen(CATEGORY)
    encoded = store.encoded_student(CATEGORY, card)
    names = {"single": CATEGORY}
    for what, tiles in GRIDS.items():
        names[what] = what.replace(" ", "-")
        record = PreprocessingRecord.of(Preprocessing(card.image_size, tiles=tiles, scaled_decoding=True))
        changed = {"category": names[what], "schema_version": SCHEMA_VERSION, "preprocessing": record}
        store.write(card.model_copy(update=changed).named(), encoded, seen, store.traces(CATEGORY), replace=None)
    return names


def peak_mebibytes(process: int) -> dict[str, float]:
    """The largest resident memory so far of a server's own process, and of its decoders together."""
    own, *decoders = (
        int(Path(f"/proc/{one}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024 for one in family(process)
    )
    return {"server_peak_mib": round(own, 1), "decoders_peak_mib": round(sum(decoders), 1)}


def cost(arguments: argparse.Namespace) -> Iterator[Row]:
    """The real server: one that all kinds take turns with for speed, and one each for memory."""
    rng = np.random.default_rng(0)
    bodies = {
        "single": jpeg(SIDE),
        "panel": panels.jpeg(panels.normal_image(rng)),
        "line scan": panels.jpeg(panels.normal_image(rng, *LINE_SCAN)),
    }
    with TemporaryDirectory() as folder:
        weights = Path(folder)
        names = make_pairs(weights, arguments.networks)
        messages = {
            what: request("service", f"/v1/categories/{name}/inspect?localize=never", bodies[what])
            for what, name in names.items()
        }
        command = [*COMMAND, str(weights)]
        memory = {}
        for what, message in messages.items():
            with serving(command, INSPECT_DEVICE="cpu") as (address, process):
                clients = 16 if what == "single" else arguments.clients
                asyncio.run(closed_loop(address, lambda: message, clients, arguments.seconds))  # noqa: B023
                memory[what] = peak_mebibytes(process.pid)
        with serving(command, INSPECT_DEVICE="cpu") as (address, process):
            found: dict[str, list[dict[str, float]]] = {what: [] for what in messages}
            for number in range(arguments.rounds + 1):
                for what, message in messages.items():
                    row = one_round(address, process.pid, message, what, arguments)
                    if number:  # the first warms up
                        found[what].append(row)
        for what, rows in found.items():
            tiles = GRIDS.get(what)
            views = 1 if tiles is None else tiles.columns * tiles.rows
            median = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
            ratios = {
                f"{name}_ratio": round(
                    float(np.median([row[name] / one[name] for row, one in zip(rows, found["single"], strict=True)])), 3
                )
                for name in ("images_per_second", "device_images_per_second", "server_processor_ms_per_image")
            }
            yield {
                "networks": arguments.networks,
                "picture": what,
                "views": views,
                "file_bytes": len(bodies[what]),
                **{name: round(value, 3) for name, value in median.items()},
                **ratios,
                **memory[what],
            }


def one_round(address: str, process: int, message: bytes, what: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Images for the networks a second: of all with several clients, and of the device alone.

    The time on the device is what the server itself says. Single images share batches, so theirs is that of a batch. Of
    a picture in tiles it is the time from the first batch to the last, with one client, so that no other comes between.
    """
    clients = 16 if what == "single" else arguments.clients
    before, stage = batch_counts(address), inference_seconds(address)
    used, own = processor_seconds(process), own_seconds(process)
    tally = asyncio.run(closed_loop(address, lambda: message, clients, arguments.seconds))
    images, batches = (now - then for now, then in zip(batch_counts(address), before, strict=True))
    seconds, count = (now - then for now, then in zip(inference_seconds(address), stage, strict=True))
    used, own = processor_seconds(process) - used, own_seconds(process) - own
    found = {
        "images_per_second": images / tally.seconds,
        "mean_batch": images / batches,
        "server_processor_ms_per_image": 1000 * own / images,
        "decoders_processor_ms_per_image": 1000 * (used - own) / images,
    }
    timing = asyncio.run(_timings(address, message, 5))
    device = images / batches / (seconds / count)
    if what != "single":
        device = 1000 * images / tally.statuses[200] / timing["inference"]
    return {**found, "device_images_per_second": device, **{f"alone_{name}_ms": timing[name] for name in timing}}


def inference_seconds(address: str) -> tuple[float, float]:
    """Sum and number of the times on the device, from the server's own metrics."""
    text = httpx.get(f"http://{address}/metrics").text
    pattern = r'^inspect_stage_duration_seconds_%s{stage="inference"} (\S+)$'
    found = [re.search(pattern % part, text, re.MULTILINE) for part in ("sum", "count")]
    total, count = (float(match[1]) if match else 0.0 for match in found)
    return total, count


async def _timings(address: str, message: bytes, count: int) -> dict[str, float]:
    """Medians of what the answers to one client say of their time, milliseconds."""
    connection, found = Connection(address), []
    for _ in range(count):
        status, body = await connection.send(message)
        assert status == 200, body
        found.append(json.loads(body)["timing_ms"])
    connection.close()
    return {name: float(np.median([one[name] for one in found])) for name in ("decode", "inference", "total")}


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "panel": panel, "leather": leather, "fits": fits, "region": region, "outside": outside, "cost": cost,
}  # fmt: skip


def main() -> None:
    """Measures one part and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, help="folder with the real sets")
    parser.add_argument("--panels", type=Path, help="folder to draw the panels in, or where they are drawn already")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--networks", choices=("compact", "full"), default="compact", help="of cost")
    parser.add_argument("--seconds", type=float, default=6, help="of each loop of cost")
    parser.add_argument("--rounds", type=int, default=3, help="of cost")
    parser.add_argument("--clients", type=int, default=3, help="of cost, for pictures in tiles")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = f"--seeds {arguments.seeds} --steps {arguments.steps}"
    name = f"views_{arguments.part}"
    if arguments.part == "cost":
        options = f"--networks {arguments.networks} --seconds {arguments.seconds:g} --rounds {arguments.rounds} "
        options += f"--clients {arguments.clients}"
        name += f"_{arguments.networks}"
    elif arguments.part == "outside":
        options = "--data FOLDER"
    elif arguments.part != "panel":
        options = f"--data FOLDER {options}"
    rows: list[Row] = []
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    for row in PARTS[arguments.part](arguments):
        rows.append(row)
        print(json.dumps(row), flush=True)
        results = {"command": f"python -m benchmarks.views {arguments.part} {options}", **machine_and_commit()}
        path.write_text(json.dumps({**results, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
