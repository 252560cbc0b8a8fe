"""Makes what is built in, from nothing but this repository's code, and measures it on images with unseen seeds.

Run `make builtin`. It writes the category into weights/, sample images into samples/ (a link into the console), the
pages' pictures into docs/images/, the API documentation's examples into service/http/examples/, and the figures into
benchmarks/results/.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from benchmarks.record import machine_and_commit
from model.lab.synthetic import DEFECTS, sample_image, write_dataset
from model.lifecycle.datasets import mvtec_test
from model.lifecycle.evaluate import evaluate_category
from service.app import create_app
from service.choices import Role
from service.device.engine import MAX_RESTARTS, Engine
from service.device.torch_backend import TorchBackend
from service.http.keys import create_key
from service.settings import Settings
from tools.pictures import CATEGORY, ROOT, TEST_SEED, WEIGHTS, make_pictures

EPOCHS = 60
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


def record_examples(client: httpx.Client, samples: list[Path], folder: Path) -> None:
    """Real answers for the API's documentation, other than problems."""
    url = f"/v1/categories/{CATEGORY}"
    inspect = f"{url}/inspect"
    png = {"Content-Type": "image/png"}
    images = {path.stem: path.read_bytes() for path in samples}
    answers = {
        "inspection": client.post(inspect, content=images["scratch"], headers=png),
        "batch": client.post(
            f"{url}/inspect-batch?localize=never",
            files=[("image", ("good.png", images["good"])), ("image", ("broken.png", b"not an image"))],
        ),
        "categories": client.get("/v1/categories"),
        "category": client.get(url),
    }
    for name, response in answers.items():
        assert response.status_code == 200, response.text
        (folder / f"{name}.json").write_text(json.dumps(response.json(), indent=1) + "\n")


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
    app = create_app(Settings(weights=WEIGHTS, device="cpu"))
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
    with TestClient(create_app(Settings(weights=WEIGHTS, device="cpu"))) as client:
        with patch.object(TorchBackend, "run", side_effect=SystemExit):
            for _ in range(MAX_RESTARTS + 1):
                client.post(inspect, content=image, headers=png)
        dead = client.get("/livez")
    with TemporaryDirectory() as folder_of_versions:
        weights = Path(folder_of_versions)
        shutil.copytree(WEIGHTS / CATEGORY, weights / CATEGORY)
        settings = Settings(weights=weights, teachers=WEIGHTS / "teachers", device="cpu", reload_seconds=0)
        with TestClient(create_app(settings)) as client:
            first = client.post(f"/v1/categories/{CATEGORY}/rollback").json()
            (weights / CATEGORY / "student.safetensors").unlink()
            refused = client.post(f"/v1/categories/{CATEGORY}/reload").json()
            refused["detail"] = refused["detail"].replace(folder_of_versions, "/weights")
    with TestClient(create_app(Settings(weights=WEIGHTS, device="cpu", deadline_seconds=1e-6))) as client:
        answers.append(client.post(inspect, content=image, headers=png))
    app = create_app(Settings(weights=WEIGHTS, device="cpu", upload_seconds=1))
    with TestClient(app):
        answers.append(asyncio.run(upload_slowly(app, inspect)))
    with TemporaryDirectory() as folder_of_keys:
        keys = Path(folder_of_keys) / "keys"
        shown = {"X-API-Key": create_key(keys, "line-3", Role.INSPECT)}
        with TestClient(create_app(Settings(weights=WEIGHTS, device="cpu", keys_file=keys))) as client:
            answers.append(client.get("/v1/categories"))
            answers.append(client.post(f"/v1/categories/{CATEGORY}/reload", headers=shown))
    problems = {str(answer.status_code): answer.json() for answer in answers}
    assert len(problems) == len(answers), problems.keys()
    for problem, route in ((dead.json(), " livez"), (first, " rollback"), (refused, "")):
        problems[f"{problem['status']}{route}"] = problem
    (folder / "problems.json").write_text(json.dumps(dict(sorted(problems.items())), indent=1) + "\n")


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
    with TestClient(create_app(Settings(weights=WEIGHTS, device="cpu"))) as client:
        record_examples(client, samples, ROOT / "service" / "http" / "examples")
    record_problems(samples[0], ROOT / "service" / "http" / "examples")
    make_pictures(build / "test", samples)


if __name__ == "__main__":
    main()
