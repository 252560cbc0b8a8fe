"""The in-process ceiling: how fast the pair's arithmetic runs alone, as a share of the device's matrix rate.

    python -m benchmarks.ceiling [--device cpu] [--precision float32] [--seconds 3]

Full-size pair at 128x128 with seeded weights. The matrix rate is measured in the same run, twice: as a product of two
2048 x 2048 matrices (on a CPU that is another library than the one that convolves), and as a 1x1 convolution of 2048
channels, which is the same product through the library that does the networks' work. Results go to
benchmarks/results/ceiling_DEVICE_PRECISION.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.pairs import photographs, seeded_teacher
from benchmarks.record import machine_and_commit
from model.choices import MapForm
from model.detector import Detector
from model.networks.vgg import Student

GFLOP_OF_SCORE = 10.5
"""Teacher 10.0 and student 0.46 for one image at 128x128, two operations a multiply-accumulate."""

BATCHES = (1, 2, 4, 8, 16, 32, 64)


def best_seconds(work: Callable[[], object], seconds: float) -> float:
    """The shortest of many runs, after two that do not count."""
    work()
    work()
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def matrix_rates(device: torch.device, precision: torch.dtype, seconds: float) -> dict[str, float]:
    """Billions of floating-point operations a second."""
    side = 2048 if device.type == "cpu" else 8192
    a, b = torch.randn(2, side, side, device=device, dtype=precision).unbind()
    convolution = nn.Conv2d(side, side, 1, bias=False, device=device, dtype=precision).requires_grad_(False)
    convolution = convolution.to(memory_format=torch.channels_last)
    image = a.reshape(1, side, side // 32, 32).contiguous(memory_format=torch.channels_last)

    def timed(work: Callable[[], torch.Tensor]) -> float:
        def waited() -> None:
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return round(2 * side**3 / best_seconds(waited, seconds) / 1e9, 1)

    with torch.inference_mode():
        return {"matrix_product": timed(lambda: a @ b), "convolution": timed(lambda: convolution(image))}


def images_per_second(detector: Detector, batch: int, *, maps: MapForm | None, seconds: float) -> float:
    """Of whole calls, pixels in and arrays out; with maps the gradient, but not its smoothing."""
    images = photographs(batch)
    return batch / best_seconds(lambda: detector(images, maps=maps), seconds)


def main() -> None:
    """Measures everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    device, precision = torch.device(arguments.device), getattr(torch, arguments.precision)
    torch.manual_seed(0)
    detector = Detector(seeded_teacher(), Student(), device=device, precision=precision)
    rates = matrix_rates(device, precision, arguments.seconds)
    rows = []
    for batch in BATCHES:
        score = images_per_second(detector, batch, maps=None, seconds=arguments.seconds)
        with_map = images_per_second(detector, batch, maps=MapForm.GRADIENT, seconds=arguments.seconds)
        rows.append(
            {
                "batch": batch,
                "score_images_per_second": round(score, 2),
                "score_and_map_images_per_second": round(with_map, 2),
                "score_share_of_convolution_rate": round(score * GFLOP_OF_SCORE / rates["convolution"], 3),
                "score_and_map_share_of_convolution_rate": round(
                    2 * with_map * GFLOP_OF_SCORE / rates["convolution"], 3
                ),
                "map_cost_in_scores": round(score / with_map, 2),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    command = f"python -m benchmarks.ceiling --device {arguments.device} --precision {arguments.precision}"
    results = {"command": command, **machine_and_commit(), "gflops": rates, "rows": rows}
    name = f"ceiling_{device.type}_{arguments.precision}.json"
    (Path(__file__).parent / "results" / name).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
