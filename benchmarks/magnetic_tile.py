"""Trains, calibrates, evaluates and serves a category of real photographs: magnetic tile surfaces.

Get the data set of Huang et al., "Surface defect saliency of magnetic tile", and run

    python -m benchmarks.magnetic_tile --data PATH/TO/magnetic-tile

Splits are disjoint and drawn with seed 0: of the 952 normal images 500 to train (a fifth of them held out), 150 to
calibrate, 302 to test; of the 392 anomalous ones 30 % to calibrate, the rest to test. The test images are then sent,
every one, to the real server over HTTP, one after the other. Results go to benchmarks/results/magnetic_tile.json.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from benchmarks.record import machine_and_commit
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import Sample, split
from model.lifecycle.evaluate import evaluate_category
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import train_category
from model.store.store import Store
from model.store.teachers import load_teacher
from service.catalogue import Ready
from service.choices import Localize
from service.inspection import Limits, Wanted, inspect_offline
from service.settings import Settings

ROOT = Path(__file__).parent.parent
CATEGORY = "magnetic-tile"
SEED = 0
TRAIN, CALIBRATE = 500, 150


def read_splits(root: Path) -> dict[str, list[Sample]]:
    """The data set's own folders: ``MT_Free`` is normal, masks lie beside the images."""
    normal = [Sample(path) for path in sorted((root / "MT_Free" / "Imgs").glob("*.jpg"))]
    anomalous = [
        Sample(path, folder.name.removeprefix("MT_").lower(), path.with_suffix(".png"))
        for folder in sorted(root.glob("MT_*"))
        if folder.name != "MT_Free"
        for path in sorted((folder / "Imgs").glob("*.jpg"))
    ]
    order = np.random.default_rng(SEED).permutation(len(normal))
    shuffled = [normal[index] for index in order]
    calibrate_bad, test_bad = split(anomalous, 0.3, SEED)
    return {
        "train": shuffled[:TRAIN],
        "calibrate_normal": shuffled[TRAIN : TRAIN + CALIBRATE],
        "calibrate_anomalous": calibrate_bad,
        "test_normal": shuffled[TRAIN + CALIBRATE :],
        "test_anomalous": test_bad,
    }


def send_all(weights: Path, samples: list[Sample]) -> dict[str, object]:
    """Posts every image to the real server, one at a time, and compares each score with the offline one."""
    card, detector = Store(weights).load(CATEGORY)
    limits = Limits(Settings().max_image_bytes, Settings().max_image_pixels)
    command = [str(Path(sys.executable).with_name("eca-inspect")), "serve", "--port", "0", "--weights", str(weights)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stderr is not None
        address = next(match[1] for line in server.stderr if (match := re.search(r"running on (http://\S+)", line)))
        threading.Thread(target=server.stderr.read, daemon=True).start()  # else the pipe fills, and the server waits
        answers, seconds = [], []
        with httpx.Client(base_url=address, timeout=60) as client:
            for sample in samples:
                data = sample.path.read_bytes()
                started = time.perf_counter()
                response = client.post(
                    f"/v1/categories/{CATEGORY}/inspect", content=data, headers={"Content-Type": "image/jpeg"}
                )
                seconds.append(time.perf_counter() - started)
                answers.append(response.raise_for_status().json())
        server.send_signal(signal.SIGTERM)
    differences = []
    for sample, answer in zip(samples, answers, strict=True):
        offline, _ = inspect_offline(
            Ready(card, detector.teacher, lambda: detector),
            sample.path.read_bytes(),
            Wanted(Localize.NEVER),
            limits,
            with_overlay=False,
        )
        differences.append(abs(answer["score"] / offline.score - 1))

    def spread(values: list[float]) -> dict[str, float]:
        return {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95, 99)}

    def stages(decision: str) -> dict[str, object]:
        of_decision = [answer["timing_ms"] for answer in answers if answer["decision"] == decision]
        return {stage: spread([timing[stage] for timing in of_decision]) for stage in of_decision[0]}

    return {
        "images_sent": len(answers),
        "largest_relative_difference_to_offline_score": float(max(differences)),
        "request_ms_seen_by_the_client": spread([1000 * value for value in seconds]),
        "timing_ms_of_normal_decisions": stages("normal"),
        "timing_ms_of_anomalous_decisions": stages("anomalous"),
    }


def main() -> None:
    """Runs the whole of it and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set, with MT_Free in it")
    parser.add_argument("--teacher", default="compact")
    parser.add_argument("--teachers", type=Path, default=ROOT / "weights" / "teachers")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "magnetic_tile.json")
    arguments = parser.parse_args()
    splits = read_splits(arguments.data)
    paths = [sample.path for samples in splits.values() for sample in samples]
    assert len(paths) == len(set(paths)), "the splits overlap"
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder)
        (weights / "teachers").symlink_to(arguments.teachers.resolve())
        teacher = load_teacher(weights / "teachers", arguments.teacher)
        card, losses = train_category(
            CATEGORY, splits["train"], weights, arguments.teacher, teacher, Recipe(epochs=arguments.epochs, seed=SEED),
            on_epoch=lambda epoch: print(f"epoch {epoch.number}: loss {epoch.loss:.4f}", flush=True),
        )  # fmt: skip
        quantile_only = evaluate_category(
            weights, weights / "teachers", CATEGORY, splits["test_normal"], splits["test_anomalous"]
        )
        calibrate_category(
            weights, weights / "teachers", CATEGORY, splits["calibrate_normal"], splits["calibrate_anomalous"]
        )
        found = evaluate_category(
            weights, weights / "teachers", CATEGORY, splits["test_normal"], splits["test_anomalous"]
        )
        served = send_all(weights, splits["test_normal"] + splits["test_anomalous"])
    results = {
        "command": f"python -m benchmarks.magnetic_tile --data DATA --epochs {arguments.epochs} "
        f"--teacher {arguments.teacher}",
        **machine_and_commit(),
        "splits": {name: len(samples) for name, samples in splits.items()},
        "seed": SEED,
        "training_seconds": card.training.seconds,
        "first_and_last_loss": [losses[0], losses[-1]],
        "evaluation": found.as_dict(),
        "rates_at_the_first_threshold": {
            "method": quantile_only.calibration,
            "false_alarm_rate": quantile_only.image.false_alarm_rate._asdict(),
            "miss_rate": quantile_only.image.miss_rate._asdict(),
        },
        "served": served,
    }
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
