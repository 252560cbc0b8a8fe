"""The commands of docs/backup.md bring everything back."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, Factory
from tests.end_to_end.conftest import running_server
from tests.end_to_end.test_history import HISTORY, in_history, inspected
from tests.postgres import Cluster

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "backup.md").read_text(), re.DOTALL)
PLACES, BACK_UP, DUMP, RESTORE, UNDUMP = (block for block in BLOCKS if "docker" not in block)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.remove()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_was_backed_up_is_there_again(kind: str, request: pytest.FixtureRequest, factory: Factory, tmp_path: Path):
    weights, state = Path(shutil.copytree(factory.weights, tmp_path / "weights")), tmp_path / "state"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INSPECT_")}
    path = [str(Path(sys.executable).parent)]
    settings, afterwards = [{"state": str(state), "keep_images": "all"}] * 2
    if kind == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        path.append(str(cluster.programs))
        settings, afterwards = (settings | {"database": cluster.new_database()} for _ in range(2))
    environment["PATH"] = ":".join([*path, environment["PATH"]])

    def run(*blocks: str, database: str | None) -> None:
        given = environment | ({} if database is None else {"INSPECT_DATABASE": database})
        command = ["bash", "-e", "-c", "\n".join((PLACES, *blocks))]
        done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    good = (factory.data / "good" / "000.png").read_bytes()
    with running_server(weights, **settings) as server:
        answers = [inspected(server.url, good, part_id=str(number)) for number in range(3)]
        said = {"label": "anomalous", "comment": "scratch"}
        assert httpx.put(f"{server.url}{HISTORY}/{answers[1]['id']}/label", json=said).status_code == 200
        wait_for_image(server.url, answers[0]["id"])
        before = httpx.get(server.url + HISTORY).json()
        extra = [] if kind == "sqlite" else [DUMP]
        run(BACK_UP, *extra, database=settings.get("database"))
        lost = inspected(server.url, good)
    shutil.rmtree(weights / "striped")
    extra = [] if kind == "sqlite" else [UNDUMP]
    run(RESTORE, *extra, database=afterwards.get("database"))
    with running_server(weights, **afterwards) as server:
        assert httpx.get(server.url + HISTORY).json() == before
        assert httpx.get(f"{server.url}{HISTORY}/{lost['id']}").status_code == 404
        detail = in_history(server.url, answers[1]["id"])
        assert (detail["label"], detail["labels"][0]["comment"]) == ("anomalous", "scratch")
        assert httpx.get(f"{server.url}{HISTORY}/{answers[0]['id']}/image").content == good
        assert inspected(server.url, good)["score"] == answers[0]["score"]


def wait_for_image(url: str, identity: str) -> None:
    """Returns when the image of the inspection is kept."""
    deadline = time.monotonic() + 120
    while not in_history(url, identity)["image"]["kept"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
