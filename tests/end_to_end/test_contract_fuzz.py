"""A real server is asked what its own OpenAPI document allows, and what it does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.choices import Role
from service.http.keys import create_key
from tests.conftest import Factory
from tests.end_to_end.conftest import running_server

pytestmark = pytest.mark.timeout(1000)  # on a busy machine
COMMAND = Path(sys.executable).with_name("schemathesis")
CONFIG = Path(__file__).with_name("schemathesis.toml")
# A body that the document allows need not be an image; and of two headers for keys one that is right is enough.
NOT_CHECKED = "positive_data_acceptance,ignored_auth"


def fuzz(url: str, folder: Path, *options: str) -> None:
    """Asks with a fixed seed and without a clock, so that every run asks the same."""
    found = subprocess.run(
        [str(COMMAND), "--config-file", str(CONFIG), "run", url + "/openapi.json", "--seed", "20231115",
         "--generation-deterministic", "--phases", "examples,coverage,fuzzing", "--exclude-checks", NOT_CHECKED,
         "--continue-on-failure", "--request-timeout", "30", "--no-color", *options],
        capture_output=True, text=True, check=False, timeout=800, cwd=folder,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    assert "generated" in found.stdout


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    """A copy, for whoever is admin may roll categories back."""
    return Path(shutil.copytree(factory.weights, tmp_path / "weights"))


def test_the_contract_holds_whatever_is_asked(weights: Path, tmp_path: Path):
    with running_server(weights, max_image_bytes="100000", max_batch_images="4", queue_size="32") as server:
        fuzz(server.url, tmp_path, "--max-examples", "20")
        assert not any("Traceback" in line for line in server.log)


def test_the_contract_holds_with_a_key_and_with_a_wrong_one(weights: Path, tmp_path: Path):
    file = tmp_path / "keys"
    key = create_key(file, "fuzz", Role.ADMIN)
    with running_server(weights, keys_file=str(file), max_image_bytes="100000") as server:
        fuzz(server.url, tmp_path, "--max-examples", "5", "--header", f"X-API-Key: {key}")
        fuzz(server.url, tmp_path, "--max-examples", "5", "--header", "X-API-Key: wrong")
        assert not any("Traceback" in line for line in server.log)
