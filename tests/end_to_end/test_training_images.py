"""From images that are uploaded one by one over HTTP to a new category and its first verdict."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from model.choices import IMAGENET
from model.lifecycle.recipe import Recipe
from model.store.store import Store
from service.choices import Role
from service.http.keys import create_key
from tests.conftest import ROOT, Factory
from tests.end_to_end.conftest import running_server
from tests.end_to_end.test_refusals import problem

pytestmark = pytest.mark.timeout(1000)  # on a busy machine

MOST = 12
LARGEST = 30_000


@dataclass
class Uploads:
    """A server with keys and little room, and a client for each role."""

    store: Store
    admin: httpx.Client
    line: httpx.Client


@pytest.fixture(scope="module")
def uploads(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uploads]:
    weights = tmp_path_factory.mktemp("uploads") / "weights"
    shutil.copytree(factory.weights, weights, ignore=shutil.ignore_patterns(".versions"))
    file = weights.with_name("keys")
    limits = {"max_image_bytes": str(LARGEST), "max_image_pixels": "10000", "uploaded_images": str(MOST)}
    keys = {role: create_key(file, role.value, role) for role in Role}
    with running_server(weights, device="cpu", keys_file=str(file), **limits) as server:
        admin, line = (
            httpx.Client(base_url=server.url, headers={"X-API-Key": keys[role]}, timeout=60)
            for role in (Role.ADMIN, Role.INSPECT)
        )
        with admin, line:
            yield Uploads(Store(weights), admin, line)


@pytest.fixture(scope="module")
def pictures(factory: Factory) -> list[bytes]:
    return [path.read_bytes() for path in sorted((factory.data / "train").iterdir())]


def images_of(category: str) -> str:
    return f"/v1/categories/{category}/training-images"


def name_of(data: bytes) -> str:
    return sha256(data).hexdigest()


def put(client: httpx.Client, category: str, data: bytes, **headers: str) -> httpx.Response:
    return client.put(f"{images_of(category)}/{name_of(data)}", content=data, headers=headers)


def post(client: httpx.Client, category: str, data: bytes, **headers: str) -> httpx.Response:
    return client.post(images_of(category), content=data, headers=headers)


Upload = Callable[..., httpx.Response]
both_ways = pytest.mark.parametrize("upload", [put, post])


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 600
    while (found := client.get(f"/v1/jobs/{job['id']}").json())["status"] == "running":
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return dict(found)


def lines_of(client: httpx.Client, subject: str) -> list[tuple[str, str, Any, Any]]:
    """Of the log of changes: who, what, before and after, oldest first. Each is found by what it is about, too."""
    lines = client.get("/v1/audit", params={"subject": subject}).json()["lines"][::-1]
    for line in lines:
        found = client.get("/v1/audit", params={"subject": subject, "action": line["action"]}).json()["lines"]
        assert line in found
    return [(line["actor"], line["action"], line["before"], line["after"]) for line in lines]


def test_images_are_stored_listed_and_removed(uploads: Uploads, pictures: Sequence[bytes]):
    admin, (first, second) = uploads.admin, pictures[:2]
    answer = put(admin, "listed", first)
    assert (answer.status_code, answer.json()) == (
        201,
        {"category": "listed", "images": 1, "bytes": len(first), "sha256": name_of(first), "is_new": True},
    )
    again = admin.put(f"{images_of('listed')}/{name_of(first).upper()}", content=first)  # as Windows writes it
    assert (again.status_code, again.json()) == (200, answer.json() | {"is_new": False})
    assert put(admin, "listed", second, **{"Content-Type": "image/png"}).status_code == 201
    there = uploads.line.get(images_of("listed")).json()
    assert there == {
        "category": "listed",
        "images": 2,
        "bytes": len(first) + len(second),
        "sha256": sorted(map(name_of, (first, second))),
    }
    one = f"{images_of('listed')}/{name_of(first)}"
    assert admin.delete(one).status_code == 204
    problem(admin.delete(one), 404, "not-found")
    assert admin.get(images_of("listed")).json()["sha256"] == [name_of(second)]
    assert admin.delete(images_of("listed")).status_code == 204
    assert admin.delete(images_of("listed")).status_code == 204
    assert admin.get(images_of("listed")).json() == {"category": "listed", "images": 0, "bytes": 0, "sha256": []}
    assert lines_of(admin, "listed") == [
        ("admin", "upload-training-image", None, name_of(first)),
        ("admin", "upload-training-image", None, name_of(second)),
        ("admin", "remove-training-images", name_of(first), None),
        ("admin", "remove-training-images", 1, None),
    ]


def test_the_server_names_an_image_that_comes_without_its_name(uploads: Uploads, pictures: Sequence[bytes]):
    admin, (first, second) = uploads.admin, pictures[:2]
    answer = post(admin, "named", first)
    assert (answer.status_code, answer.json()) == (
        201,
        {"category": "named", "images": 1, "bytes": len(first), "sha256": name_of(first), "is_new": True},
    )
    location = answer.url.join(answer.headers["Location"])
    assert location.path == f"{images_of('named')}/{name_of(first)}"
    again = post(admin, "named", first, **{"Content-Type": "image/png"})
    assert (again.status_code, again.json()) == (200, answer.json() | {"is_new": False})
    assert "Location" not in again.headers
    assert put(admin, "named", first).status_code == 200
    assert (put(admin, "named", second).status_code, post(admin, "named", second).status_code) == (201, 200)
    assert admin.delete(location).status_code == 204
    assert admin.get(images_of("named")).json()["sha256"] == [name_of(second)]
    admin.delete(images_of("named"))
    assert [line[1:] for line in lines_of(admin, "named")] == [
        ("upload-training-image", None, name_of(first)),
        ("upload-training-image", None, name_of(second)),
        ("remove-training-images", name_of(first), None),
        ("remove-training-images", 1, None),
    ]


def test_only_an_admin_uploads_and_removes(uploads: Uploads, pictures: Sequence[bytes]):
    problem(put(uploads.line, "guarded", pictures[0]), 403, "forbidden")
    problem(post(uploads.line, "guarded", pictures[0]), 403, "forbidden")
    assert put(uploads.admin, "guarded", pictures[0]).status_code == 201
    problem(uploads.line.delete(images_of("guarded")), 403, "forbidden")
    problem(uploads.line.delete(f"{images_of('guarded')}/{name_of(pictures[0])}"), 403, "forbidden")
    url = str(uploads.admin.base_url)
    for response in (
        httpx.get(url + images_of("guarded")),
        httpx.put(f"{url}{images_of('guarded')}/{'a' * 64}"),
        httpx.post(url + images_of("guarded")),
    ):
        problem(response, 401, "unauthenticated")
    assert uploads.admin.get(images_of("guarded")).json()["images"] == 1
    uploads.admin.delete(images_of("guarded"))


@both_ways
def test_what_an_inspection_would_refuse_is_refused(uploads: Uploads, pictures: Sequence[bytes], upload: Upload):
    admin, image = uploads.admin, pictures[0]
    problem(upload(admin, "refusing", b""), 400, "empty-body")
    problem(upload(admin, "refusing", b"no image"), 422, "not-decodable")
    problem(upload(admin, "refusing", image[:-100]), 422, "not-decodable")
    problem(upload(admin, "refusing", bytes(LARGEST + 1)), 413, "too-many-bytes")
    large = bytes(cv2.imencode(".png", np.zeros((101, 101), np.uint8))[1])
    problem(upload(admin, "refusing", large), 413, "too-many-pixels")
    problem(upload(admin, "refusing", image, **{"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    packed = upload(admin, "refusing", image, **{"Content-Encoding": "gzip"})
    problem(packed, 415, "unsupported-media-type")
    assert admin.get(images_of("refusing")).json()["images"] == 0


def test_a_wrong_name_or_a_form_is_refused(uploads: Uploads, pictures: Sequence[bytes]):
    admin, image = uploads.admin, pictures[0]
    form = {"image": ("a.png", image)}
    problem(admin.put(f"{images_of('refusing')}/{name_of(image)}", files=form), 415, "unsupported-media-type")
    problem(admin.post(images_of("refusing"), files=form), 415, "unsupported-media-type")
    other = admin.put(f"{images_of('refusing')}/{'0' * 64}", content=image)
    assert f"the SHA-256 of the body is {name_of(image)}" in problem(other, 422, "invalid-request")
    for name in ("a" * 63, "g" * 64, "a.png", "%2e%2e"):
        problem(admin.put(f"{images_of('refusing')}/{name}", content=image), 422, "invalid-request")
    problem(admin.put(f"{images_of('refusing')}/{name_of(image)}?replace=yes", content=image), 422, "invalid-request")
    problem(admin.post(f"{images_of('refusing')}?name=a", content=image), 422, "invalid-request")
    assert admin.get(images_of("refusing")).json()["images"] == 0


@pytest.mark.parametrize("category", ["..%2e", "%2e%2e", "teachers", ".candidates", "-a", "a%20b", "x" * 65])
def test_a_name_that_no_category_can_have_is_refused(uploads: Uploads, pictures: Sequence[bytes], category: str):
    admin = uploads.admin
    answers = [
        admin.put(f"{images_of(category)}/{name_of(pictures[0])}", content=pictures[0]),
        post(admin, category, pictures[0]),
        admin.get(images_of(category)),
        admin.delete(images_of(category)),
        admin.delete(f"{images_of(category)}/{'a' * 64}"),
    ]
    for answer in answers:
        assert "cannot name a category" in problem(answer, 422, "invalid-request")


def test_an_upload_that_breaks_off_leaves_nothing_and_can_be_repeated(uploads: Uploads, pictures: Sequence[bytes]):
    admin, image = uploads.admin, pictures[0]
    host, port = str(admin.base_url.host), admin.base_url.port
    head = (
        f"PUT {images_of('broken')}/{name_of(image)} HTTP/1.1\r\nHost: {host}\r\n"
        f"X-API-Key: {admin.headers['X-API-Key']}\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(head.encode() + image[: len(image) // 2])
    assert admin.get(images_of("broken")).json()["images"] == 0
    assert put(admin, "broken", image).status_code == 201
    admin.delete(images_of("broken"))


@both_ways
def test_many_uploads_of_the_same_image_at_once_store_it_once(
    uploads: Uploads, pictures: Sequence[bytes], upload: Upload
):
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: upload(uploads.admin, "twice", pictures[0]), range(8))]
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert uploads.admin.get(images_of("twice")).json()["images"] == 1
    uploads.admin.delete(images_of("twice"))


def test_where_there_is_no_room_the_answer_says_what_to_do(uploads: Uploads, pictures: Sequence[bytes]):
    admin = uploads.admin
    for image in pictures[:MOST]:
        assert put(admin, "full", image).status_code == 201
    sentence = problem(put(admin, "full", pictures[MOST]), 507, "image-not-stored")
    assert f"at most {MOST} (INSPECT_UPLOADED_IMAGES)" in sentence
    assert problem(post(admin, "full", pictures[MOST]), 507, "image-not-stored") == sentence
    assert put(admin, "full", pictures[0]).status_code == 200
    assert post(admin, "full", pictures[0]).status_code == 200
    assert admin.get(images_of("full")).json()["images"] == MOST
    admin.delete(f"{images_of('full')}/{name_of(pictures[0])}")
    assert put(admin, "full", pictures[MOST]).status_code == 201
    admin.delete(images_of("full"))


def test_uploaded_images_train_a_category_that_exists(uploads: Uploads, pictures: Sequence[bytes]):
    admin = uploads.admin
    problem(admin.post("/v1/categories/fresh/trainings"), 409, "no-training-images")
    for image in pictures[:8]:
        put(admin, "fresh", image)
    started = admin.post("/v1/categories/fresh/trainings").json()
    problem(admin.delete(images_of("fresh")), 409, "training-running")
    problem(admin.delete(f"{images_of('fresh')}/{name_of(pictures[0])}"), 409, "training-running")
    job = ended(admin, started)
    assert (job["status"], job["uploaded_images"], job["labelled_images"]) == ("done", 8, 0), job
    seen = uploads.store.candidates.seen("fresh")
    assert {*seen.training, *seen.held_out} == {*map(name_of, pictures[:8])}
    assert admin.delete(images_of("fresh")).status_code == 204


ORDER = {"teacher": "narrow", "epochs": 2, "image_size": 64, "seed": 3}


def test_a_category_from_nothing_to_its_first_verdict(uploads: Uploads, pictures: Sequence[bytes]):
    admin, category = uploads.admin, "/v1/categories/made"
    for image in pictures[:MOST]:
        assert put(admin, "made", image).status_code == 201
    started = admin.post(f"{category}/trainings", json=ORDER)
    assert started.status_code == 202, started.text
    problem(admin.post("/v1/categories/striped/trainings"), 409, "training-running")
    job = ended(admin, started.json())
    assert (job["status"], job["is_new"], job["uploaded_images"]) == ("done", True, MOST), job
    assert (job["epochs_done"], job["epochs"], job["with_original_images"]) == (2, 2, False)
    assert "2 training steps are too few" in job["message"]

    problem(admin.get(category), 404, "unknown-category")  # nothing is in force that nobody has looked at
    assert "made" not in {one["category"] for one in admin.get("/v1/categories").json()["categories"]}
    found = uploads.line.get(f"{category}/candidate").json()
    card = uploads.store.candidates.card("made")
    assert (found["status"], found["comparison"], found["model_version"]) == ("alone", None, job["model_version"])
    assert (found["threshold"], found["calibration"]) == (card.calibration.threshold, "synthetic")
    assert found["training"] == card.training.model_dump(mode="json")
    assert (found["training"]["images"], found["training"]["held_out"], found["training"]["seed"]) == (10, 2, 3)
    assert found["error_rates"]["false_alarms"]["parts"] == 2
    assert found["error_rates"]["text"] == card.promise
    assert (card.image_size, card.teacher.name) == (64, "narrow")

    problem(uploads.line.post(f"{category}/candidate/promote"), 403, "forbidden")
    problem(admin.post(f"{category}/candidate/promote", params={"version": "another"}), 404, "no-candidate")
    promoted = admin.post(f"{category}/candidate/promote", params={"version": found["model_version"]})
    assert promoted.status_code == 200, promoted.text
    assert promoted.json()["model_version"] == job["model_version"]
    verdict = uploads.line.post(f"{category}/inspect", content=pictures[-1]).json()
    assert verdict["model_version"] == job["model_version"]
    assert verdict["threshold"] == found["threshold"]
    assert verdict["decision"] in ("normal", "anomalous")
    assert admin.get(category).json()["kept_versions"] == []
    problem(admin.post(f"{category}/rollback"), 409, "no-previous-version")
    problem(admin.get(f"{category}/candidate"), 404, "no-candidate")
    actions = [(action, after) for _, action, _, after in lines_of(admin, "made")]
    assert actions[-2:] == [("train", job["id"]), ("promote", job["model_version"])]

    again = ended(admin, admin.post(f"{category}/trainings", json={"epochs": 3}).json())
    assert (again["status"], again["is_new"], again["epochs"]) == ("done", False, 3), again
    changed = uploads.store.candidates.card("made")
    assert (changed.image_size, changed.teacher, changed.training.seed) == (64, card.teacher, 3)
    compared = admin.get(f"{category}/candidate").json()
    assert (compared["status"], compared["comparison"]["model_version"]) == ("scoring", job["model_version"])
    admin.delete(images_of("made"))


def test_the_candidate_of_a_new_category_can_be_dropped(uploads: Uploads, pictures: Sequence[bytes]):
    admin, category = uploads.admin, "/v1/categories/dropped"
    problem(admin.delete(f"{category}/candidate"), 404, "unknown-category")
    for image in pictures[:8]:
        put(admin, "dropped", image)
    job = ended(admin, admin.post(f"{category}/trainings", json=ORDER).json())
    assert job["status"] == "done", job
    assert admin.delete(f"{category}/candidate").status_code == 204
    for answer in (admin.get(f"{category}/candidate"), admin.post(f"{category}/candidate/promote")):
        problem(answer, 404, "unknown-category")
    admin.delete(images_of("dropped"))


def test_a_training_that_was_asked_for_wrongly_does_not_begin(uploads: Uploads, pictures: Sequence[bytes]):
    admin, url = uploads.admin, "/v1/categories/wrong/trainings"
    put(admin, "wrong", pictures[0])
    before = len(admin.get("/v1/jobs").json()["jobs"])
    for order in (
        {"epoch": 3}, {"epochs": 0}, {"epochs": "3"}, {"epochs": 2.5}, {"image_size": 31}, {"image_size": 2049},
        {"seed": -1}, {"seed": 2**32}, {"teacher": "../narrow"}, {"teacher": "/etc/passwd.pth"}, [], "narrow",
    ):  # fmt: skip
        problem(admin.post(url, json=order), 422, "invalid-request")
    problem(admin.post(url, content=b"{", headers={"Content-Type": "application/json"}), 422, "invalid-request")
    problem(admin.post(url, content=b"{}"), 415, "unsupported-media-type")
    problem(admin.post(url, content=b"{}", headers={"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    sentence = problem(admin.post(url), 422, "invalid-request")  # the default is not there
    assert "no teacher 'imagenet'; it has compact, narrow;" in sentence
    problem(admin.post("/v1/categories/teachers/trainings", json=ORDER), 422, "invalid-request")
    problem(uploads.line.post(url, json=ORDER), 403, "forbidden")
    missing = problem(admin.post("/v1/categories/nothing/trainings"), 409, "no-training-images")
    assert "there is no category 'nothing' yet" in missing
    assert len(admin.get("/v1/jobs").json()["jobs"]) == before
    few = ended(admin, admin.post(url, json=ORDER).json())
    assert few["status"] == "failed"
    assert "1 different images are too few to train on, 8 at least" in few["message"]
    problem(admin.get("/v1/categories/wrong/candidate"), 404, "unknown-category")
    admin.delete(images_of("wrong"))


def test_the_documented_defaults_are_those_of_the_command(uploads: Uploads):
    document = uploads.admin.get("/openapi.json").json()
    body = document["paths"]["/v1/categories/{category}/trainings"]["post"]["requestBody"]
    fields = body["content"]["application/json"]["schema"]["properties"]
    said = {name: field["description"].rpartition("New: ")[2] for name, field in fields.items()}
    recipe = Recipe()
    assert said == {
        "teacher": IMAGENET,
        "epochs": str(recipe.epochs),
        "image_size": str(recipe.image_size),
        "seed": str(recipe.seed),
    }
    assert body["required"] is False


PAGE = (ROOT / "docs" / "new-category.md").read_text()


def test_the_commands_of_the_page_lead_to_a_category(uploads: Uploads, pictures: Sequence[bytes], tmp_path: Path):
    """As they stand, but for the address, the key, the names of photographs and the time that they take."""
    admin, key = uploads.admin, uploads.admin.headers["X-API-Key"]
    good = tmp_path / "photos" / "good"
    good.mkdir(parents=True)
    for number, image in enumerate(pictures[:MOST]):
        (good / f"part {number}.png").write_bytes(image)
    (tmp_path / "part.jpg").write_bytes(pictures[-1])
    places, *blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert "http://127.0.0.1:8000" in places
    places = places.replace("http://127.0.0.1:8000", str(admin.base_url).rstrip("/"))

    def run(block: str) -> str:
        assert '"epochs": 300' in block or "trainings" not in block
        strict = 'curl() { command curl -sS --fail-with-body "$@"; }'
        text = "\n".join((strict, places, block.replace('"epochs": 300', '"epochs": 2')))
        environment = {"PATH": os.environ["PATH"], "KEY": key}
        done = subprocess.run(["bash", "-e", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    upload, train, look, activate, inspect = blocks
    assert run(upload).count('"is_new":true') == MOST
    assert run(upload).count('"is_new":false') == MOST  # what is there is not stored again
    assert admin.get(images_of("bottle")).json()["images"] == MOST
    assert '"status":"running"' in run(train)
    assert ended(admin, admin.get("/v1/jobs").json()["jobs"][0])["status"] == "done"
    assert '"status":"alone"' in run(look)
    assert '"status":"ready"' in run(activate)
    assert '"decision":' in run(inspect)
    admin.delete(images_of("bottle"))


def test_a_server_without_anything_is_stopped_while_images_come_and_gets_its_first_category(
    factory: Factory, pictures: Sequence[bytes], tmp_path: Path
):
    weights = tmp_path / "weights"  # is not there
    settings = {
        "device": "cpu", "teachers": str(factory.teachers), "state": str(tmp_path / "state"), "uploaded_images": "8",
    }  # fmt: skip
    with running_server(weights, **settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for image in pictures[:3]:
            assert put(client, "first", image).status_code == 201
        server.process.kill()
    with running_server(weights, **settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get(images_of("first")).json()["sha256"] == sorted(map(name_of, pictures[:3]))
        assert [put(client, "first", image).status_code for image in pictures[:9]] == [200] * 3 + [201] * 5 + [507]
        problem(client.get("/readyz"), 503, "no-category")
        job = ended(client, client.post("/v1/categories/first/trainings", json=ORDER).json())
        assert job["status"] == "done", job
    with running_server(weights, **settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/v1/jobs").json()["jobs"] == [job]
        assert client.get("/v1/categories/first/candidate").json()["status"] == "alone"
        assert client.post("/v1/categories/first/candidate/promote").status_code == 200
        assert client.get("/readyz").status_code == 200
        verdict = client.post("/v1/categories/first/inspect", content=pictures[-1]).json()
        assert verdict["model_version"] == job["model_version"]


def test_without_trainings_there_are_no_uploads(factory: Factory, pictures: Sequence[bytes]):
    with (
        running_server(factory.weights, device="cpu", database="none") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        problem(put(client, "tile", pictures[0]), 404, "trainings-off")
        problem(post(client, "tile", pictures[0]), 404, "trainings-off")
        problem(client.get(images_of("tile")), 404, "trainings-off")
