"""The loop on real photographs: inspect, label, calibrate from labels, train again, compare in the shadow, promote.

Get the data set of Huang et al., "Surface defect saliency of magnetic tile", and run

    python -m benchmarks.loop --data PATH/TO/magnetic-tile [--epochs 250] [--seed 0]

A category is trained on 60 normal photographs and served with a history. Then, over HTTP alone: 60 others (40 good, 20
faulty) are inspected and labelled with the truth; Youden's threshold is taken from these labels; the server trains a
candidate from the first 60 and the 40 that are labelled normal; 300 others (200 good, 100 faulty) are inspected and
labelled while the candidate scores them in the shadow; the candidate is promoted. At the beginning, after the
calibration and after the promotion the category in force is evaluated on 500 more photographs (300 good, 200 faulty)
that no step has seen. Results go to benchmarks/results/loop.json.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.load import serving
from benchmarks.magnetic_tile import CATEGORY, ROOT, read_splits
from benchmarks.record import machine_and_commit
from model.lifecycle.datasets import Sample
from model.lifecycle.evaluate import evaluate_category
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import train_category
from model.store.teachers import load_teacher

GOOD = {"start": 60, "labelled": 40, "shadow": 200, "test": 300}
FAULTY = {"start": 0, "labelled": 20, "shadow": 100, "test": 200}
"""How many photographs each step takes."""
RESULT = ROOT / "benchmarks" / "results" / "loop.json"


def divide(samples: Sequence[Sample], counts: dict[str, int], seed: int) -> dict[str, list[Sample]]:
    """Disjoint parts of these sizes, drawn by chance."""
    order = iter(np.random.default_rng(seed).permutation(len(samples)))
    return {name: [samples[next(order)] for _ in range(count)] for name, count in counts.items()}


class Line:
    """A client that sends photographs and knows the truth.

    Args:
        client: of the server.
        seed: of the order in which photographs come.
    """

    def __init__(self, client: httpx.Client, seed: int) -> None:
        self._client = client
        self._rng = np.random.default_rng(seed)

    def ask(self, method: str, path: str, **what: Any) -> Any:
        """The JSON of an answer that is no refusal."""
        response = self._client.request(method, path, **what)
        return response.raise_for_status().json()

    def inspect_and_label(self, good: Sequence[Sample], faulty: Sequence[Sample], pause: float) -> None:
        """In an order by chance, with this pause in seconds after each."""
        work = [*((one, "normal") for one in good), *((one, "anomalous") for one in faulty)]
        for index in self._rng.permutation(len(work)):
            sample, truth = work[index]
            headers = {"Content-Type": "image/jpeg"}
            path = f"/v1/categories/{CATEGORY}/inspect?localize=never"
            answer = self.ask("POST", path, content=sample.path.read_bytes(), headers=headers)
            self.ask("PUT", f"/v1/inspections/{answer['id']}/label", json={"label": truth, "reviewer": "truth"})
            time.sleep(pause)

    def train(self) -> dict[str, Any]:
        """Has the server train a candidate, and waits for it."""
        job = self.ask("POST", f"/v1/categories/{CATEGORY}/trainings")
        while job["status"] == "running":
            time.sleep(2)
            job = self.ask("GET", f"/v1/jobs/{job['id']}")
        assert job["status"] == "done", job
        return dict(job)

    def compared(self) -> dict[str, Any]:
        """The candidate without the list of changed decisions, when no image waits for it any more."""
        found: dict[str, Any] = {"wanted": 1, "scored": 0, "skipped": 0, "failed": 0}
        while found["scored"] + found["skipped"] + found["failed"] < found["wanted"]:
            time.sleep(1)
            found = self.ask("GET", f"/v1/categories/{CATEGORY}/candidate")
        del found["comparison"]["changed"]
        return found


def run(data: Path, teachers: Path, teacher: str, epochs: int, seed: int) -> dict[str, object]:
    """Everything once. Returns what was found at each step."""
    splits = read_splits(data)
    good = divide([one for name in splits if "anomalous" not in name for one in splits[name]], GOOD, seed)
    faulty = divide([one for name in splits if "anomalous" in name for one in splits[name]], FAULTY, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, images = folder / "weights", folder / "images" / CATEGORY
        weights.mkdir()
        images.mkdir(parents=True)
        (weights / "teachers").symlink_to(teachers.resolve())
        for sample in good["start"]:
            shutil.copy(sample.path, images)

        def evaluated() -> dict[str, object]:
            found = evaluate_category(weights, weights / "teachers", CATEGORY, good["test"], faulty["test"])
            rates = {name: estimate._asdict() for name, estimate in vars(found.image).items()}
            return {"model_version": found.model_version, "threshold": found.threshold, **rates}

        network = load_teacher(weights / "teachers", teacher)
        train_category(CATEGORY, good["start"], weights, teacher, network, Recipe(epochs=epochs, seed=seed))
        start = evaluated()
        environment = {
            "INSPECT_WEIGHTS": str(weights),
            "INSPECT_STATE": str(folder / "state"),
            "INSPECT_DATABASE": f"sqlite:///{folder / 'history.sqlite'}",
            "INSPECT_DEVICE": "cpu",
            "INSPECT_KEEP_IMAGES": "all",
            "INSPECT_TRAINING_IMAGES": str(folder / "images"),
            "INSPECT_SHADOW_INSPECTIONS": str(GOOD["shadow"] + FAULTY["shadow"]),
        }
        command = [str(Path(sys.executable).with_name("eca-inspect")), "serve", "--port", "0"]
        with (
            serving(command, **environment) as (address, _),
            httpx.Client(base_url=f"http://{address}", timeout=120) as client,
        ):
            line = Line(client, seed)
            line.inspect_and_label(good["labelled"], faulty["labelled"], pause=0)
            calibrated = line.ask("POST", f"/v1/categories/{CATEGORY}/calibrations", json={"method": "youden"})
            after_calibration = evaluated()
            job = line.train()
            line.inspect_and_label(good["shadow"], faulty["shadow"], pause=0.3)
            candidate = line.compared()
            line.ask("POST", f"/v1/categories/{CATEGORY}/candidate/promote")
            after_promotion = evaluated()
    return {
        "photographs": {"good": GOOD, "faulty": FAULTY},
        "start": start,
        "calibration": {
            name: calibrated[name] for name in ("threshold", "before", "error_rates", "left_out", "remarks")
        },
        "after_calibration": after_calibration,
        "training": {name: job[name] for name in ("labelled_images", "epochs", "loss", "started", "ended")},
        "candidate": candidate,
        "after_promotion": after_promotion,
    }


def main() -> None:
    """Runs the loop and writes what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set, with MT_Free in it")
    parser.add_argument("--teacher", default="compact")
    parser.add_argument("--teachers", type=Path, default=ROOT / "weights" / "teachers")
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    results = {
        "command": f"python -m benchmarks.loop --data DATA --teacher {given.teacher} --epochs {given.epochs} "
        f"--seed {given.seed}",
        **machine_and_commit(),
        **run(given.data, given.teachers, given.teacher, given.epochs, given.seed),
    }
    RESULT.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
