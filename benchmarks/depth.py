"""What reading one channel saves, and how near a 12-bit picture's score is to that of its 8-bit twin.

    python -m benchmarks.depth [--repeats 9] [--twins 100]

Processor time of reading a file and preparing it for a square of 128 pixels, median of the repeats, with one thread.
Twins are one generated plate that is rounded to 8 bits, and to 12 bits in a 16-bit PNG with the white level 4095; the
built-in category scores both. Results go to benchmarks/results/depth.json.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import process_time

import cv2
import numpy as np

from benchmarks.decoding import photograph
from benchmarks.record import machine_and_commit
from model.choices import Colour
from model.detector import scores_of
from model.images import decode_image
from model.lab.synthetic import defective_image, normal_image
from model.preprocessing import Preprocessing
from model.reading import Levels
from model.store.store import Store
from tools.pictures import CATEGORY, WEIGHTS

WIDTH, HEIGHT = 2448, 2048


def encoded(image: np.ndarray, suffix: str) -> bytes:
    """The file of grey or BGR values."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if suffix == ".jpg" else []
    data: bytes = cv2.imencode(suffix, image, options)[1].tobytes()
    return data


def milliseconds(data: bytes, preprocessing: Preprocessing, repeats: int) -> float:
    """Processor time of reading and preparing."""
    found = []
    for _ in range(repeats):
        started = process_time()
        preprocessing.apply(decode_image(data, reading=preprocessing.reading))
        found.append(1000 * (process_time() - started))
    return round(float(np.median(found)), 1)


def twins(count: int) -> dict[str, float]:
    """How far the scores of 12-bit pictures are from those of their 8-bit twins, relative to the latter."""
    card, detector = Store(WEIGHTS).load(CATEGORY)
    eight_bits = card.preprocessor
    twelve_bits = replace(eight_bits, levels=Levels(4095))
    rng = np.random.default_rng(12)
    differences = []
    for index in range(count):
        plate = normal_image(rng) if index % 2 else defective_image(rng, "scratch")[0]
        scene = (plate + rng.uniform(-0.5, 0.5, plate.shape)).clip(0, 255)[:, :, ::-1]
        files = (
            (encoded(np.rint(scene).astype(np.uint8), ".png"), eight_bits),
            (encoded(np.rint(scene / 255 * 4095).astype(np.uint16), ".png"), twelve_bits),
        )
        eight, twelve = (
            float(scores_of(detector, prepared.apply(decode_image(data, reading=prepared.reading)))[0])
            for data, prepared in files
        )
        differences.append(abs(twelve - eight) / eight)
    return {
        "median": round(float(np.median(differences)), 5),
        "largest": round(max(differences), 5),
        "within_2_percent": int((np.array(differences) <= 0.02).sum()),
        "pictures": count,
    }


def main() -> None:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--twins", type=int, default=100)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    colour = cv2.imdecode(np.frombuffer(photograph(WIDTH, HEIGHT), np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    files = {
        "colour JPEG": encoded(colour, ".jpg"),
        "grey JPEG": encoded(grey, ".jpg"),
        "grey PNG": encoded(grey, ".png"),
        "grey BMP": encoded(grey, ".bmp"),
    }
    rows = {
        name: {
            f"{channels.value}_ms": milliseconds(data, Preprocessing(128, channels), arguments.repeats)
            for channels in Colour
        }
        for name, data in files.items()
    }
    found = {"processor_time": rows, "twins": twins(arguments.twins)}
    command = f"python -m benchmarks.depth --repeats {arguments.repeats} --twins {arguments.twins}"
    results = {"command": command, "pixels": f"{WIDTH}x{HEIGHT}", **machine_and_commit(), **found}
    (Path(__file__).parent / "results" / "depth.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
