"""BentoML: a service that decodes, and one with the model that it calls, each in its own process, as its pages advise.

Tuned:

- The model's method is batchable, in batches of 8. The dispatcher learns by itself how long to wait for more.
  `max_latency_ms` is a minute because requests that seem to take longer are refused, not sent off early.
- The model is loaded and run on one thread of its own. As a coroutine on the event loop it would answer some
  connections again and again and let others wait for seconds.
- The connection between the two is never renewed (`runner_connection`). By default the client closes it after 100
  requests, with those that are under way, which end as errors 500.
- No access log; the minute's timeout of requests is the default.
"""

import asyncio
import os
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType

from benchmarks.rivals import PATH
from benchmarks.rivals.pair import MAX_BATCH, announce, answer, load_warm, prepare
from model.store.version import read_card

SILENT = {"access": {"enabled": False}}


def weights_and_category() -> tuple[Path, str]:
    """What `main` was given, in the processes that BentoML starts."""
    arguments = bentoml.use_arguments()
    return Path(arguments.weights), arguments.category


@bentoml.service(runner_connection={"max_requests": 10**9, "max_age": 1e9}, logging=SILENT)
class Model:
    """Scores prepared images."""

    def __init__(self) -> None:
        self.device = ThreadPoolExecutor(1)
        _, self.detector = self.device.submit(load_warm, *weights_and_category()).result()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
    def score(self, images: np.ndarray) -> np.ndarray:
        """uint8 RGB ``[N, size, size, 3]`` to float32 ``[N]``."""
        return self.device.submit(self.detector, images).result().scores


@bentoml.service(logging=SILENT)
class Inspect:
    """Decodes, asks the model, answers."""

    model = bentoml.depends(Model)

    def __init__(self) -> None:
        weights, category = weights_and_category()
        self.card = read_card(weights / category)

    @bentoml.api(route=PATH)
    async def inspect(self, image: Annotated[bytes, ContentType("image/jpeg")], /) -> dict[str, object]:
        """The bytes of an image file to the answer."""
        pixels = await asyncio.to_thread(prepare, image, self.card.preprocessor)
        scores = await self.model.to_async.score(pixels[None])
        return answer(float(scores[0]), self.card)


def main() -> None:
    """Serves one category: WEIGHTS CATEGORY PORT."""
    weights, category, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"BENTOML_HOME": folder, "TMPDIR": folder, "BENTOML_DO_NOT_TRACK": "True"}
        tempfile.tempdir = folder
        arguments = {"weights": str(weights.absolute()), "category": category}
        with bentoml.serve(
            "benchmarks.rivals.bentoml_server:Inspect", host="127.0.0.1", port=port, args=arguments
        ):  # as the signals are handled by now, by BentoML: set handlers after it
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: sys.exit())
            announce(port, category)
            signal.pause()


if __name__ == "__main__":
    main()
