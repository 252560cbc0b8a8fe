"""Every measurement can be started: what its program needs is where it looks for it."""

import importlib
import pkgutil

import pytest

import benchmarks
from benchmarks import accuracy

RAY = {"ray_hop"}
PROGRAMS = [
    f"{package.__name__}.{module.name}"
    for package in (benchmarks, accuracy)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.ispkg and module.name not in RAY
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_finds_all_that_it_imports(name: str):
    assert importlib.import_module(name).__doc__
