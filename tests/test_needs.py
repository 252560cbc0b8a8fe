"""What is left out is named at the end with the way to include it; what must not be left out fails."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.needs import PROMETHEUS, REQUIRED

NEEDS_PROMETHEUS = "tests/service/on_ray/test_deploy.py::test_prometheus_takes_its_configuration"


def test_what_is_left_out_is_named_at_the_end_with_the_command_that_includes_it():
    """As `make test` runs, on a machine without Debian's programs."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--numprocesses", "1", "--dist", "loadgroup", "-v", NEEDS_PROMETHEUS],
        env={**os.environ, "PATH": "/nowhere", REQUIRED: "", "PYTEST_ADDOPTS": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    block = [line for line in done.stdout.partition("1 left out")[2].splitlines() if line]
    assert block[1] == "1 need Prometheus and promtool: apt-get install prometheus; make test"
    assert "1 skipped" in block[2]
    file = NEEDS_PROMETHEUS.partition("::")[0]
    assert f"{NEEDS_PROMETHEUS}@{file}" in done.stdout  # its group: tests of a file run in one process


@pytest.mark.parametrize("required", ["", "browser", "ray,gpu"])
def test_a_test_is_left_out_where_something_else_is_required(monkeypatch: pytest.MonkeyPatch, required: str):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(REQUIRED, required)
    with pytest.raises(pytest.skip.Exception, match="need Prometheus and promtool: apt-get install prometheus"):
        PROMETHEUS.program("promtool")


@pytest.mark.parametrize("required", ["prometheus", "browser,prometheus"])
def test_a_test_fails_where_what_it_needs_is_required(monkeypatch: pytest.MonkeyPatch, required: str):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(REQUIRED, required)
    with pytest.raises(pytest.fail.Exception, match=f"{REQUIRED} names 'prometheus'"):
        PROMETHEUS.program("promtool")
