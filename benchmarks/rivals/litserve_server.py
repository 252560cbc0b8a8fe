"""LitServe: one process for HTTP and decoding, one for the model, which takes batches from a queue between them.

Tuned:

- Batches of 8, and no wait for more (the default): the worker looks into the queue when it has answered, and requests
  gather meanwhile. With JPEGs of 128x128, waits of 1 to 20 ms answered fewer images with 1 and 4
  clients, and as many with 16 and 64.
- One worker that has all cores, on whose main thread the model is loaded and run.
- Images are decoded in a dependency of the endpoint. LitServe's own place for it, `decode_request`, is in the model's
  process, one image after the other, while the model waits.
- No timeout of requests, no access log. `fast_queue` has no effect in 0.2.19: the server passes it on under a name
  that its transport does not read.
"""

import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import litserve
import numpy as np
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from benchmarks.rivals import PATH
from benchmarks.rivals.pair import MAX_BATCH, announce, answer, load_warm, prepare
from model.preprocessing import Preprocessing
from model.store.version import read_card


def decoder(preprocessing: Preprocessing) -> Callable[[Request], Awaitable[np.ndarray]]:
    """A dependency that gives the request's image, prepared."""

    async def decode(request: Request) -> np.ndarray:
        return await run_in_threadpool(prepare, await request.body(), preprocessing)

    return decode


class Inspect(litserve.LitAPI):
    """What the model's process does; LitServe calls `setup` there, then the other methods for each batch."""

    def __init__(self, weights: Path, category: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=0, api_path=PATH)
        self.weights, self.category = weights, category

    def setup(self, device: str) -> None:
        self.card, self.detector = load_warm(self.weights, self.category)

    def decode_request(self, request: np.ndarray) -> np.ndarray:
        return request

    def predict(self, x: np.ndarray) -> list[float]:
        return self.detector(x).scores.tolist()

    def encode_response(self, output: float) -> dict[str, object]:
        return answer(output, self.card)


def main() -> None:
    """Serves one category: WEIGHTS CATEGORY PORT."""
    weights, category, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    decode = decoder(read_card(weights / category).preprocessor)
    Inspect.decode_request.__annotations__["request"] = Annotated[np.ndarray, Depends(decode)]  # the endpoint's, too
    server = litserve.LitServer(Inspect(weights, category), accelerator="cpu", timeout=False)
    main_process = os.getpid()

    def stop(signum: int, frame: object) -> None:
        if os.getpid() == main_process:  # LitServe forks, and stops its processes on Ctrl-C only
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=announce, args=(port, category), daemon=True).start()
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False, access_log=False)


if __name__ == "__main__":
    main()
