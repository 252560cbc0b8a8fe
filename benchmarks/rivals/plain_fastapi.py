"""The rival that everyone writes first: a synchronous endpoint that calls the model in FastAPI's thread pool."""

import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from model.images import decode_image
from model.store.store import Store


def main() -> None:
    """Serves one category: WEIGHTS CATEGORY PORT."""
    weights, category, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    card, detector = Store(weights).load(category, torch.device("cpu"))
    app = FastAPI()

    def judge(data: bytes) -> dict[str, object]:
        score = float(detector(card.preprocessor.apply(decode_image(data))).scores[0])
        return {"score": score, "anomalous": card.calibration.rejects(score)}

    @app.post("/v1/categories/{name}/inspect")
    async def inspect(name: str, request: Request) -> dict[str, object]:
        return await run_in_threadpool(judge, await request.body())

    uvicorn.run(app, port=port, log_level="info", access_log=False)


if __name__ == "__main__":
    main()
