"""The image's packages: each with its hash, of the version that everything is tested with, and none missing."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from service.decoding.pool import BYTES_PER_PIXEL
from service.settings import Settings
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"image": ("otel", "parquet", "postgres"), "image-ray": ("otel", "parquet", "postgres", "ray")}
"""The extras that each lock has."""


def name_of(requirement: str) -> str:
    return re.sub("[-_.]+", "-", Requirement(requirement).name).lower()


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Of each package in a lock: what is required, and the hashes of its files."""
    text = re.sub("^#.*$", "", (ROOT / "lock" / f"{name}.txt").read_text(), flags=re.MULTILINE)
    found = {}
    for entry in text.replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement, *hashes = re.split(r"\s+--hash=sha256:", entry.strip())
            found[name_of(requirement)] = (Requirement(requirement), hashes)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes_and_the_pinned_version(name: str):
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {name_of(package): version for package, version in pins.items()}
    on_linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    for package, (requirement, hashes) in locked(name).items():
        assert hashes, package
        assert all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes), package
        if requirement.marker is None or requirement.marker.evaluate(on_linux):
            assert str(requirement.specifier) == f"=={pinned[package]}"


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_every_dependency_of_the_image_is_locked_in_a_version_that_it_allows(name: str, extras: tuple[str, ...]):
    wanted = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    packages = locked(name)
    for one in wanted:
        requirement, _ = packages[name_of(one)]
        (version,) = (each.version for each in requirement.specifier)
        assert Requirement(one).specifier.contains(version), one
    assert "setuptools" in packages  # builds this package, for which nothing is downloaded any more


def test_the_image_installs_from_the_locks_alone():
    commands = re.sub("(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ").splitlines()
    installs = [one.split("pip install", 1)[1] for one in commands if "pip install" in one]
    assert len(installs) == 2
    assert all("--require-hashes" in one or "--no-index --no-build-isolation" in one for one in installs)
    assert {f"{name}.txt" for name in LOCKS} <= {path.name for path in (ROOT / "lock").iterdir()}
    for page in ("docs/ray.md", "deploy/ray/rayservice.yml"):
        assert "--build-arg LOCK=image-ray" in Path(ROOT, page).read_text()


def test_every_container_is_bounded_and_can_be_pinned_by_digest():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    services["postgres"] = yaml.safe_load((ROOT / "docker-compose.postgres.yml").read_text())["services"]["postgres"]
    page = (ROOT / "docs" / "deploying.md").read_text()
    for service in services.values():
        assert service["pids_limit"] > 0
        assert service["mem_limit"]
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}
        image = service["build"]["args"]["BASE_IMAGE"] if "build" in service else service["image"]
        variable = re.fullmatch(r"\$\{(\w+_IMAGE):-[\w./-]+:[\w.-]+\}", image)
        assert variable is not None, image
        assert f"{variable[1]}=" in page


def test_the_container_has_the_memory_that_callers_may_cost_the_server_in_it():
    """As ``docs/deploying.md`` counts it, with 3 GiB for the idle server and its device."""
    inspect = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["inspect"]
    threads = int(default_of(inspect["environment"]["INSPECT_DECODE_THREADS"]))
    settings = Settings(decode_threads=threads)
    decoding = threads * BYTES_PER_PIXEL * settings.max_image_pixels
    total = decoding + 2 * settings.upload_memory_bytes + settings.answer_memory_bytes + (3 << 30)
    gigabytes = re.fullmatch(r"(\d+)g", default_of(inspect["mem_limit"]))
    assert gigabytes is not None
    assert total < int(gigabytes[1]) << 30


def default_of(value: str) -> str:
    """Of a value in docker-compose.yml that an .env file may set."""
    given = re.fullmatch(r"\$\{\w+:-([^}]+)\}", value)
    assert given is not None, value
    return given[1]
