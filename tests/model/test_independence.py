"""`model` knows nothing of HTTP: it imports where no web package is installed, and most of it without pydantic."""

import subprocess
import sys

import pytest

WEB = ["fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic_settings", "typer", "multipart", "service"]
NEED_CARDS = {
    "model.lifecycle.again",
    "model.lifecycle.calibrate",
    "model.lifecycle.evaluate",
    "model.lifecycle.labelled",
    "model.lifecycle.many",
    "model.lifecycle.model_card",
    "model.lifecycle.regions",
    "model.lifecycle.report",
    "model.lifecycle.thresholds",
    "model.lifecycle.train",
    "model.lifecycle.zones",
    "model.store.card",
    "model.store.history",
    "model.store.parts",
    "model.store.reading",
    "model.store.store",
    "model.store.version",
}
"""What reads or writes cards, and what runs on that: only this needs pydantic."""
SCRIPT = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import model
names = [found.name for found in pkgutil.walk_packages(model.__path__, "model.")]
assert len(names) > 30
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, str(error).replace(chr(10), " "))
model.Detector(model.Teacher(), model.Student())
"""


def modules_without(packages: list[str]) -> set[str]:
    """The modules of `model` that do not import where these packages are not there."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *packages], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {line.partition(" ")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("packages", "needing"), [(WEB, set()), ([*WEB, "pydantic"], NEED_CARDS)], ids=["web", "cards"]
)
def test_every_module_imports_but_those_that_need_a_package(packages: list[str], needing: set[str]):
    assert modules_without(packages) == needing
