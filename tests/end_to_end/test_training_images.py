"""Training images are uploaded one by one over HTTP: each is checked, stored once, and survives the server."""

import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from model.store.store import Store
from service.choices import Role
from service.http.keys import create_key
from tests.conftest import Factory
from tests.end_to_end.conftest import running_server
from tests.end_to_end.test_refusals import problem

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


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 600
    while (found := client.get(f"/v1/jobs/{job['id']}").json())["status"] == "running":
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return dict(found)


def lines_of(client: httpx.Client, subject: str) -> list[tuple[str, str, Any, Any]]:
    """Of the log of changes: who, what, before and after, oldest first."""
    lines = client.get("/v1/audit", params={"subject": subject}).json()["lines"][::-1]
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


def test_only_an_admin_uploads_and_removes(uploads: Uploads, pictures: Sequence[bytes]):
    problem(put(uploads.line, "guarded", pictures[0]), 403, "forbidden")
    assert put(uploads.admin, "guarded", pictures[0]).status_code == 201
    problem(uploads.line.delete(images_of("guarded")), 403, "forbidden")
    problem(uploads.line.delete(f"{images_of('guarded')}/{name_of(pictures[0])}"), 403, "forbidden")
    url = str(uploads.admin.base_url)
    for response in (httpx.get(url + images_of("guarded")), httpx.put(f"{url}{images_of('guarded')}/{'a' * 64}")):
        problem(response, 401, "unauthenticated")
    assert uploads.admin.get(images_of("guarded")).json()["images"] == 1
    uploads.admin.delete(images_of("guarded"))


def test_what_an_inspection_would_refuse_is_refused(uploads: Uploads, pictures: Sequence[bytes]):
    admin, image = uploads.admin, pictures[0]
    problem(put(admin, "refusing", b""), 400, "empty-body")
    problem(put(admin, "refusing", b"no image"), 422, "not-decodable")
    problem(put(admin, "refusing", image[:-100]), 422, "not-decodable")
    problem(put(admin, "refusing", bytes(LARGEST + 1)), 413, "too-many-bytes")
    large = bytes(cv2.imencode(".png", np.zeros((101, 101), np.uint8))[1])
    problem(put(admin, "refusing", large), 413, "too-many-pixels")
    problem(put(admin, "refusing", image, **{"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    form = admin.put(f"{images_of('refusing')}/{name_of(image)}", files={"image": ("a.png", image)})
    problem(form, 415, "unsupported-media-type")
    other = admin.put(f"{images_of('refusing')}/{'0' * 64}", content=image)
    assert f"the SHA-256 of the body is {name_of(image)}" in problem(other, 422, "invalid-request")
    for name in ("a" * 63, "g" * 64, "a.png", "%2e%2e"):
        problem(admin.put(f"{images_of('refusing')}/{name}", content=image), 422, "invalid-request")
    problem(admin.put(f"{images_of('refusing')}/{name_of(image)}?replace=yes", content=image), 422, "invalid-request")
    assert admin.get(images_of("refusing")).json()["images"] == 0


@pytest.mark.parametrize("category", ["..%2e", "%2e%2e", "teachers", ".candidates", "-a", "a%20b", "x" * 65])
def test_a_name_that_no_category_can_have_is_refused(uploads: Uploads, pictures: Sequence[bytes], category: str):
    admin = uploads.admin
    answers = [
        admin.put(f"{images_of(category)}/{name_of(pictures[0])}", content=pictures[0]),
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


def test_many_uploads_of_the_same_image_at_once_store_it_once(uploads: Uploads, pictures: Sequence[bytes]):
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: put(uploads.admin, "twice", pictures[0]), range(8))]
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert uploads.admin.get(images_of("twice")).json()["images"] == 1
    uploads.admin.delete(images_of("twice"))


def test_where_there_is_no_room_the_answer_says_what_to_do(uploads: Uploads, pictures: Sequence[bytes]):
    admin = uploads.admin
    for image in pictures[:MOST]:
        assert put(admin, "full", image).status_code == 201
    sentence = problem(put(admin, "full", pictures[MOST]), 507, "image-not-stored")
    assert f"at most {MOST} (INSPECT_UPLOADED_IMAGES)" in sentence
    assert put(admin, "full", pictures[0]).status_code == 200
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


def test_what_was_uploaded_is_there_after_a_restart(factory: Factory, pictures: Sequence[bytes], tmp_path: Path):
    settings = {"device": "cpu", "state": str(tmp_path / "state"), "uploaded_images": "3"}
    with running_server(factory.weights, **settings) as server, httpx.Client(base_url=server.url) as client:
        for image in pictures[:2]:
            assert put(client, "kept", image).status_code == 201
        server.process.kill()
    with running_server(factory.weights, **settings) as server, httpx.Client(base_url=server.url) as client:
        assert client.get(images_of("kept")).json()["sha256"] == sorted(map(name_of, pictures[:2]))
        assert [put(client, "kept", image).status_code for image in pictures[:4]] == [200, 200, 201, 507]


def test_without_trainings_there_are_no_uploads(factory: Factory, pictures: Sequence[bytes]):
    with (
        running_server(factory.weights, device="cpu", database="none") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        problem(put(client, "tile", pictures[0]), 404, "trainings-off")
        problem(client.get(images_of("tile")), 404, "trainings-off")
