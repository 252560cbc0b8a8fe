"""Makes what is built in, from nothing but this repository's code, and measures it on images with unseen seeds.

Run `make builtin`. It writes the category into weights/, sample images into samples/ (a link into the console), the
pages' pictures into docs/images/, the API documentation's examples into service/http/examples/, and the figures into
benchmarks/results/.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from benchmarks.record import machine_and_commit
from model.lab.synthetic import DEFECTS, sample_image, write_dataset
from model.lifecycle.datasets import mvtec_test
from model.lifecycle.evaluate import evaluate_category
from tools.examples import make_examples
from tools.pictures import CATEGORY, ROOT, TEST_SEED, WEIGHTS, make_pictures

EPOCHS = 90
TRAINING_SEED = 1


def eca_inspect(*arguments: str) -> None:
    """Runs the command line, as a user would."""
    command = [str(Path(sys.executable).with_name("eca-inspect")), *arguments]
    print("$ eca-inspect", *arguments, flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def make_category(data: Path) -> None:
    """Trains on 200 generated plates (40 more are held out) and calibrates on 60 good and 60 faulty ones."""
    write_dataset(data, train=240, test_good=60, test_each=60 // len(DEFECTS), seed=TRAINING_SEED)
    eca_inspect(
        "train", CATEGORY, "--data", str(data), "--teacher", "compact", "--epochs", str(EPOCHS), "--replace",
        "--without-anomalous",
        "--device", "cpu",
    )  # fmt: skip
    eca_inspect("calibrate", CATEGORY, "--data", str(data), "--share", "1", "--device", "cpu")


def measure(data: Path) -> dict[str, object]:
    """Evaluates on 100 good and 25 faulty plates of each kind, all of unseen seeds."""
    write_dataset(data, train=0, test_good=100, test_each=25, seed=TEST_SEED)
    samples = mvtec_test(data)
    found = evaluate_category(
        WEIGHTS, WEIGHTS / "teachers", CATEGORY,
        [one for one in samples if one.defect is None], [one for one in samples if one.defect is not None],
    )  # fmt: skip
    return found.as_dict()


def make_samples(folder: Path) -> list[Path]:
    """One good plate and one of each fault, of another seed."""
    paths = []
    for name in ("good", *DEFECTS):
        path = folder / f"{name}.png"
        Image.fromarray(sample_image(name)).save(path)
        paths.append(path)
    return paths


def main() -> None:
    """Makes and measures everything that is built in."""
    build = ROOT / "build" / "builtin"
    shutil.rmtree(build, ignore_errors=True)
    make_category(build / "training")
    results = {"command": "make builtin", **machine_and_commit(), **measure(build / "test")}
    (ROOT / "benchmarks" / "results").mkdir(exist_ok=True)
    (ROOT / "benchmarks" / "results" / "builtin.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    samples = make_samples(ROOT / "samples")
    make_examples(samples)
    make_pictures(build / "test", samples)


if __name__ == "__main__":
    main()
