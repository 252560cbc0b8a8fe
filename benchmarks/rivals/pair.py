"""What the rivals do alike: load the pair, prepare an image, answer, say that they are there."""

import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.rivals import PATH
from model.detector import BEST_BATCH, Detector
from model.images import decode_image
from model.preprocessing import Preprocessing
from model.store.card import Card
from model.store.store import Store

MAX_BATCH = BEST_BATCH["cpu"]
WARM_UP_REQUESTS = 16
START_SECONDS = 120


def load_warm(weights: Path, category: str) -> tuple[Card, Detector]:
    """Loads a category and runs each batch size once.

    To be called on the thread that will compute: a second one that computes in torch, be it only to load, makes OpenMP
    count more threads than cores, and every image takes longer from then on.
    """
    card, detector = Store(weights).load(category, torch.device("cpu"))
    for batch in range(1, MAX_BATCH + 1):
        detector(np.zeros((batch, card.image_size, card.image_size, 3), np.uint8))
    return card, detector


def prepare(data: bytes, preprocessing: Preprocessing) -> np.ndarray:
    """The bytes of an image file to uint8 RGB ``[size, size, 3]``."""
    return preprocessing.apply(decode_image(data))[0]


def answer(score: float, card: Card) -> dict[str, object]:
    """The body of the answer."""
    return {"score": score, "anomalous": card.calibration.rejects(score)}


def announce(port: int, category: str) -> None:
    """Sends requests until enough were answered to have warmed up every part, then prints the address.

    Raises:
        TimeoutError: if that takes longer than two minutes.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{PATH.format(name=category)}",
        cv2.imencode(".jpg", np.zeros((256, 256, 3), np.uint8))[1].tobytes(),
        {"Content-Type": "image/jpeg"},
    )
    answered, until = 0, time.monotonic() + START_SECONDS
    while answered < WARM_UP_REQUESTS:
        if time.monotonic() > until:
            raise TimeoutError(f"port {port} did not answer {WARM_UP_REQUESTS} requests in {START_SECONDS} s")
        try:
            with urllib.request.urlopen(request):
                answered += 1
        except OSError:  # not there yet, or not ready
            time.sleep(0.1)
    print(f"running on http://127.0.0.1:{port}", flush=True)
