"""The measurements behind the engine's choices on a CPU: layout, compiler, threads, waiting, gathering, mixed
batches, bodies.

    python -m benchmarks.choices [--seconds 3]

Full-size networks at 128x128. Every group is a comparison within one run; the first row of each is what the project
does. Results go to benchmarks/results/choices.json.
"""

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import torch
from fastapi import Request
from torch.func import functional_call, stack_module_state, vmap
from torch.utils import mkldnn

from benchmarks.ceiling import best_seconds
from benchmarks.pairs import jpeg, photographs, seeded_teacher
from benchmarks.record import machine_and_commit
from model.choices import MapForm
from model.detector import BEST_BATCH, Detector
from model.images import decode_image
from model.networks.vgg import Student, Teacher, fold_batch_norm
from model.preprocessing import Preprocessing
from service.choices import Localize
from service.device import engine as engine_module
from service.device.allowance import Allowance
from service.device.engine import Engine
from service.device.jobs import Job
from service.device.torch_backend import TorchBackend
from service.http.bodies import FIELD, read_image_body

LAYOUT = torch.channels_last
WAITING = {
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OpenMP's default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}


def milliseconds(work: Callable[[], object], seconds: float) -> float:
    """Of the fastest run."""
    return round(1000 * best_seconds(work, seconds), 2)


def layouts(seconds: float) -> dict[str, dict[str, float]]:
    """The teacher, ms an image."""
    plain, last = Teacher(), Teacher().to(memory_format=LAYOUT)
    packed = mkldnn.to_mkldnn(Teacher().features)
    compiled = torch.compile(Teacher().to(memory_format=LAYOUT))
    found: dict[str, dict[str, float]] = {}
    for batch in (1, 8):
        x = torch.rand(batch, 3, 128, 128)
        x_last, x_packed = x.contiguous(memory_format=LAYOUT), x.to_mkldnn()
        with torch.inference_mode():
            found[f"batch {batch}"] = {
                name: round(milliseconds(partial(network, pixels), seconds) / batch, 2)
                for name, network, pixels in (
                    ("channels-last", last, x_last),
                    ("channels first", plain, x),
                    ("weights packed for oneDNN", packed, x_packed),
                    ("torch.compile", compiled, x_last),
                )
            }
    return found


def mixed(seconds: float) -> dict[str, float]:
    """Eight students, each on an image of its own, ms a batch."""
    students = [fold_batch_norm(Student()).to(memory_format=LAYOUT) for _ in range(8)]
    x = torch.rand(8, 3, 128, 128).contiguous(memory_format=LAYOUT)
    tensors, _ = stack_module_state(students)
    with torch.inference_mode():
        return {
            "one after the other": milliseconds(lambda: [s(x[i : i + 1]) for i, s in enumerate(students)], seconds),
            "stacked (torch.func)": milliseconds(
                lambda: vmap(lambda t, one: functional_call(students[0], t, (one[None],)))(tensors, x), seconds
            ),
            "one category": milliseconds(lambda: students[0](x), seconds),
        }


def threads(seconds: float) -> dict[str, float]:
    """Scoring batches of eight, images a second."""
    detector = Detector(seeded_teacher(), Student())
    images = photographs(8)
    cores = torch.get_num_threads()
    found = {f"one batch on {cores} cores": round(8 / best_seconds(lambda: detector(images), seconds), 2)}
    done = [0] * cores
    until = time.perf_counter() + 3 * seconds

    def lane(index: int) -> None:
        torch.set_num_threads(1)
        while time.perf_counter() < until:
            detector(images)
            done[index] += 8

    lanes = [threading.Thread(target=lane, args=(index,)) for index in range(cores)]
    started = time.perf_counter()
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    found[f"{cores} batches at once, a core each"] = round(sum(done) / (time.perf_counter() - started), 2)
    return found


def waiting(seconds: float) -> dict[str, dict[str, float]]:
    """One image, median ms, on an idle machine and beside a process that keeps one core busy."""
    script = f"from benchmarks.choices import _median; print(_median({seconds}))"
    found: dict[str, dict[str, float]] = {}
    for name, environment in WAITING.items():
        row = {}
        for beside in ("idle machine", "beside a busy process"):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside != "idle machine" else None
            try:
                kept = {
                    key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
                }
                done = subprocess.run(
                    [sys.executable, "-c", script], env=kept | environment, capture_output=True, text=True, check=True
                )
                row[beside] = float(done.stdout)
            finally:
                if busy is not None:
                    busy.kill()
                    busy.wait()
        found[name] = row
    return found


def _median(seconds: float) -> float:
    detector, images = Detector(seeded_teacher(), Student()), photographs(1)
    times, until = [], time.perf_counter() + 3 * seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        detector(images)
        times.append(time.perf_counter() - started)
    return round(1000 * float(np.median(times[3:])), 1)


def gathering(seconds: float) -> dict[str, dict[str, float]]:
    """Images a second of clients that decode a JPEG of 512x512 after each answer; the device waits for them, or not."""
    script = f"import json; from benchmarks.choices import _gathering; print(json.dumps(_gathering({seconds})))"
    environment = os.environ | WAITING["GOMP_SPINCOUNT=1000"]
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def _gathering(seconds: float) -> dict[str, dict[str, float]]:
    engine = Engine(TorchBackend(torch.device("cpu"), Allowance(BEST_BATCH["cpu"], 1 << 33, math.inf)), max_admitted=64)
    detector = engine.call(lambda: Detector(seeded_teacher(), Student())).result()
    photograph = jpeg(512)
    share = engine_module.GATHERING_SHARE
    found: dict[str, dict[str, float]] = {}
    for clients in (1, 2, 4, 8, 16):
        found[f"{clients} clients"] = row = {}
        for name, value in (("waits", share), ("does not wait", 0.0)):
            engine_module.GATHERING_SHARE = value
            answered = [0] * clients
            until = time.perf_counter() + 3 * seconds

            def client(index: int, answered: list[int] = answered, until: float = until) -> None:
                while time.perf_counter() < until:
                    pixels = Preprocessing(128).apply(decode_image(photograph))[0]
                    engine.submit(
                        Job(
                            pixels,
                            detector.teacher,
                            lambda: detector,
                            lambda score: False,
                            Localize.NEVER,
                            MapForm.GRADIENT,
                        )
                    ).result()
                    answered[index] += 1

            threads = [threading.Thread(target=client, args=(index,)) for index in range(clients)]
            started = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            row[name] = round(sum(answered) / (time.perf_counter() - started), 2)
    engine.close()
    return found


def bodies(seconds: float) -> dict[str, float]:
    """Receiving a photograph of 1024x1024 pixels in pieces of 64 KiB, ms."""
    image = jpeg(1024)
    form = httpx.Request("POST", "http://test/", files={FIELD: ("part.jpg", image, "image/jpeg")})
    form.read()

    def receive(body: bytes, content_type: str) -> None:
        async def once() -> None:
            async def pieces() -> AsyncIterator[dict[str, object]]:
                for start in range(0, len(body), 65536):
                    yield {"type": "http.request", "body": body[start : start + 65536], "more_body": True}
                yield {"type": "http.request", "body": b"", "more_body": False}

            scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
            assert await read_image_body(Request(scope, pieces().__anext__), 32 << 20) == image

        asyncio.run(once())

    return {
        "the body itself": milliseconds(lambda: receive(image, "image/jpeg"), seconds),
        "multipart form": milliseconds(lambda: receive(form.content, form.headers["content-type"]), seconds),
        "kilobytes": round(len(image) / 1000, 1),
    }


def localization(seconds: float) -> dict[str, float]:
    """A batch of eight of which some are anomalous, ms: scoring all and then those again with the gradient, or all."""
    detector, images = Detector(seeded_teacher(), Student()), photographs(8)
    found = {}
    for anomalous in (1, 2, 4, 8):

        def both(anomalous: int = anomalous) -> None:
            detector(images)
            detector(images[:anomalous], maps=MapForm.GRADIENT)

        found[f"score all, gradient of {anomalous}"] = milliseconds(both, seconds)
    found["gradient of all in one pass"] = milliseconds(lambda: detector(images, maps=MapForm.GRADIENT), seconds)
    return found


def main() -> None:
    """Measures everything and writes the results."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    results: dict[str, object] = {
        "command": f"python -m benchmarks.choices --seconds {arguments.seconds:g}",
        **machine_and_commit(),
    }
    for group in (waiting, gathering, layouts, mixed, threads, localization, bodies):
        results[group.__name__] = {"what": (group.__doc__ or "").strip(), **group(arguments.seconds)}
        print(json.dumps({group.__name__: results[group.__name__]}), flush=True)
    (Path(__file__).parent / "results" / "choices.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
