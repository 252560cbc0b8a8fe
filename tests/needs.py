"""What some tests need and not every machine has. Where it is missing they are left out, and the run's end says so."""

import os
import shutil
from dataclasses import dataclass
from typing import NoReturn

import pytest

REQUIRED = "INSPECT_TEST_REQUIRED"
"""Environment variable: names of needs with commas between them. A test that misses one of these fails."""


@dataclass(frozen=True)
class Need:
    """Something that a test needs: its name, what it is, and how to get it."""

    name: str
    what: str
    how: str

    @property
    def reason(self) -> str:
        """Why a test is left out, and how to include it."""
        return f"need {self.what}: {self.how}"

    def missing(self) -> NoReturn:
        """Leaves the test out, or fails where this must not be missing."""
        if self.name in os.environ.get(REQUIRED, "").split(","):
            pytest.fail(f"tests {self.reason} ({REQUIRED} names {self.name!r})")
        pytest.skip(self.reason)

    def program(self, name: str) -> str:
        """The path of a program; without it the test is left out."""
        return shutil.which(name) or self.missing()


ANOMALIB = Need("anomalib", "anomalib", ".venv/bin/pip install 'eca-inspect[anomalib]'; make test")
BROWSER = Need(
    "browser", "Chromium", "apt-get install chromium, or .venv/bin/playwright install --with-deps chromium; make test"
)
CURL = Need("curl", "curl", "apt-get install curl; make test")
GPU = Need("gpu", "an NVIDIA GPU", "make test on a machine that has one")
IMAGES = Need(
    "images",
    "photographs that are not part of this repository",
    "INSPECT_TEST_DATA=FOLDER make test, with mvtec-leather/ (a category of MVTec AD) in the folder",
)
JAVA = Need("java", "Java and its compiler", "apt-get install default-jdk-headless; make test")
NGINX = Need("nginx", "nginx", "apt-get install nginx-light; make test")
POSTGRES = Need("postgres", "PostgreSQL", "apt-get install postgresql; make test")
PROMETHEUS = Need("prometheus", "Prometheus and promtool", "apt-get install prometheus; make test")
RAY = Need("ray", "Ray", ".venv/bin/pip install 'eca-inspect[ray]' on a Python that Ray has a package for; make test")
