"""Records the examples of the API's documentation again, with the built-in category that is there.

Run `make examples`. It writes service/http/examples/.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from unittest.mock import patch

import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.app import create_app
from service.choices import Role
from service.device.engine import MAX_RESTARTS, Engine
from service.device.torch_backend import TorchBackend
from service.http.keys import create_key
from service.settings import Settings
from tools.pictures import CATEGORY, ROOT, WEIGHTS, sample_paths

EXAMPLES = ROOT / "service" / "http" / "examples"


def record_examples(client: httpx.Client, samples: list[Path], folder: Path) -> None:
    """Real answers for the API's documentation, other than problems."""
    url = f"/v1/categories/{CATEGORY}"
    inspect = f"{url}/inspect"
    png = {"Content-Type": "image/png"}
    images = {path.stem: path.read_bytes() for path in samples}
    for data in images.values():  # the first one starts what decodes, which takes a second
        client.post(inspect, content=data, headers=png)
    answers = {
        "inspection": client.post(inspect, content=images["scratch"], headers=png),
        "batch": client.post(
            f"{url}/inspect-batch?localize=never",
            files=[("image", ("good.png", images["good"])), ("image", ("broken.png", b"not an image"))],
        ),
        "categories": client.get("/v1/categories"),
        "category": client.get(url),
    }
    answers |= record_parts(images)
    answers |= record_history(images["scratch"])
    del answers["label-changed"]  # a problem
    for name, response in answers.items():
        assert response.status_code == 200, response.text
        (folder / f"{name}.json").write_text(json.dumps(response.json(), indent=1) + "\n")


def record_parts(images: dict[str, bytes]) -> dict[str, httpx.Response]:
    """Real answers for a part that has two views, of which one comes."""
    with TemporaryDirectory() as folder:
        card = {"views": [{"category": CATEGORY, "images": 2}]}
        (Path(folder) / "plate-both-sides.json").write_text(json.dumps(card))
        settings = Settings(weights=WEIGHTS, parts=Path(folder), database="none", device="cpu")
        with TestClient(create_app(settings)) as client:
            query = "part=plate-both-sides&part_id=SN-0815&lot=L7&localize=never"
            files = [(CATEGORY, ("front.png", images["good"]))]
            return {"part": client.post(f"/v1/parts/inspect?{query}", files=files), "parts": client.get("/v1/parts")}


def record_history(image: bytes) -> dict[str, httpx.Response]:
    """Real answers of the history, after one image and two labels, of which the second is refused."""
    with TemporaryDirectory() as folder:
        settings = Settings(weights=WEIGHTS, state=Path(folder), keep_images="all", device="cpu")
        with TestClient(create_app(settings)) as client:
            query = "part_id=SN-0815&lot=L7&station=line-3"
            sent = client.post(
                f"/v1/categories/{CATEGORY}/inspect?{query}", content=image, headers={"Content-Type": "image/png"}
            )
            there = f"/v1/inspections/{sent.json()['id']}"
            while client.get(there).status_code == 404:
                sleep(0.1)
            said = {"label": "anomalous", "kind": "scratch", "reviewer": "Ana"}
            label = client.put(f"{there}/label", json=said)
            return {
                "label": label,
                "label-changed": client.put(f"{there}/label", json={"label": "normal"}),
                "inspections": client.get("/v1/inspections"),
                "past_inspection": client.get(there),
                "audit": client.get("/v1/audit"),
            }


async def upload_slowly(app: FastAPI, path: str) -> httpx.Response:
    """The answer to a body that pauses for two seconds."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(2)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inspect") as client:
        return await client.post(path, content=body())


def record_problems(sample: Path, folder: Path) -> None:
    """Real answers of servers that are asked wrongly, full, failing, ending or late, one for each status."""
    inspect = f"/v1/categories/{CATEGORY}/inspect"
    png = {"Content-Type": "image/png"}
    image = sample.read_bytes()
    app = create_app(Settings(weights=WEIGHTS, database="none", device="cpu"))
    with TestClient(app) as client:
        answers = [
            client.post(inspect, content=b"", headers=png),
            client.get("/v1/categories/bottle"),
            client.post(inspect, content=bytes(33 << 20), headers=png),
            client.post(inspect, content=b"x", headers={"Content-Type": "text/plain"}),
            client.post(inspect, content=b"not an image", headers=png),
        ]
        engine: Engine = app.state.parts.engine
        with engine.admit(app.state.parts.settings.queue_size):
            answers.append(client.post(inspect, content=image, headers=png))
        with patch.object(TorchBackend, "run", side_effect=RuntimeError("a failure for the documentation")):
            answers.append(client.post(inspect, content=image, headers=png))
        engine.close()
        answers.append(client.post(inspect, content=image, headers=png))
    with TestClient(create_app(Settings(weights=WEIGHTS, database="none", device="cpu"))) as client:
        with patch.object(TorchBackend, "run", side_effect=SystemExit):
            for _ in range(MAX_RESTARTS + 1):
                client.post(inspect, content=image, headers=png)
        dead = client.get("/livez")
    with TemporaryDirectory() as folder_of_versions:
        weights = Path(folder_of_versions)
        shutil.copytree(WEIGHTS / CATEGORY, weights / CATEGORY)
        settings = Settings(
            weights=weights, teachers=WEIGHTS / "teachers", database="none", device="cpu", reload_seconds=0
        )
        with TestClient(create_app(settings)) as client:
            first = client.post(f"/v1/categories/{CATEGORY}/rollback").json()
            (weights / CATEGORY / "student.safetensors").unlink()
            refused = client.post(f"/v1/categories/{CATEGORY}/reload").json()
            refused["detail"] = refused["detail"].replace(folder_of_versions, "/weights")
    with TestClient(
        create_app(Settings(weights=WEIGHTS, database="none", device="cpu", deadline_seconds=1e-6))
    ) as client:
        answers.append(client.post(inspect, content=image, headers=png))
    app = create_app(Settings(weights=WEIGHTS, database="none", device="cpu", upload_seconds=1))
    with TestClient(app):
        answers.append(asyncio.run(upload_slowly(app, inspect)))
    with TemporaryDirectory() as folder_of_keys:
        keys = Path(folder_of_keys) / "keys"
        shown = {"X-API-Key": create_key(keys, "line-3", Role.INSPECT)}
        with TestClient(create_app(Settings(weights=WEIGHTS, database="none", device="cpu", keys_file=keys))) as client:
            answers.append(client.get("/v1/categories"))
            answers.append(client.post(f"/v1/categories/{CATEGORY}/reload", headers=shown))
    answers.append(record_history(image)["label-changed"])
    with TemporaryDirectory() as folder_of_state:
        settings = Settings(weights=WEIGHTS, state=Path(folder_of_state), uploaded_images=0, device="cpu")
        with TestClient(create_app(settings)) as client:
            named = f"/v1/categories/{CATEGORY}/training-images/{sha256(image).hexdigest()}"
            answers.append(client.put(named, content=image, headers=png))
    problems = {str(answer.status_code): answer.json() for answer in answers}
    assert len(problems) == len(answers), problems.keys()
    for problem, route in ((dead.json(), " livez"), (first, " rollback"), (refused, "")):
        problems[f"{problem['status']}{route}"] = problem
    (folder / "problems.json").write_text(json.dumps(dict(sorted(problems.items())), indent=1) + "\n")


def make_examples(samples: list[Path]) -> None:
    """All examples.

    Args:
        samples: one plate of each kind, the good one first.
    """
    with TestClient(create_app(Settings(weights=WEIGHTS, database="none", device="cpu"))) as client:
        record_examples(client, samples, EXAMPLES)
    record_problems(samples[0], EXAMPLES)


if __name__ == "__main__":
    make_examples(sample_paths())
