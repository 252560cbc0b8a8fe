"""Ray Serve: its proxy for HTTP, one replica with the model, and Serve's own batching.

Tuned:

- Batches of 8 and a wait of at most 10 ms for more.
- One replica that has all cores; decoding in two threads, the model on one thread of its own, where it was loaded.
- At most 256 requests at the replica, no dashboard, no access log.
"""

import asyncio
import os
import secrets
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import JSONResponse

from benchmarks.rivals.pair import MAX_BATCH, announce, answer, load_warm, prepare

BATCH_WAIT_SECONDS = 0.01
CORES = os.cpu_count() or 1


@serve.deployment(
    num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": CORES}, graceful_shutdown_timeout_s=5
)
class Inspect:
    """Decodes, scores in batches, answers."""

    def __init__(self, weights: str, category: str) -> None:
        self.device = ThreadPoolExecutor(1)
        self.card, self.detector = self.device.submit(load_warm, Path(weights), category).result()
        self.decoders = ThreadPoolExecutor(2)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_SECONDS)
    async def score(self, images: list[np.ndarray]) -> list[float]:
        """Prepared images that Serve has gathered, to their scores."""
        found = await asyncio.get_running_loop().run_in_executor(self.device, self.detector, np.stack(images))
        return found.scores.tolist()

    async def __call__(self, request: Request) -> JSONResponse:
        """The bytes of an image file to the answer."""
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self.decoders, prepare, await request.body(), self.card.preprocessor)
        return JSONResponse(answer(await self.score(pixels), self.card))


def main() -> None:
    """Serves one category: WEIGHTS CATEGORY PORT."""
    weights, category, port = str(Path(sys.argv[1]).absolute()), sys.argv[2], int(sys.argv[3])
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_TOKEN=secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            num_cpus=CORES,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 << 20,
            _temp_dir=folder,
            _node_ip_address="127.0.0.1",
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit())
        try:
            quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
            serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=quiet)
            serve.run(Inspect.bind(weights, category), logging_config=quiet)
            announce(port, category)
            signal.pause()
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
