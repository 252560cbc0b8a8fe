"""Help, and the refusal of an unknown option, come at once: nothing that computes is imported for them."""

import json
import subprocess
import sys

import pytest
import typer

from service.cli import app

HEAVY = {"torch", "torchvision", "cv2", "scipy", "sklearn", "matplotlib", "fastapi", "starlette", "uvicorn", "ray"}
PROGRAM = """
import json, sys
from typer.testing import CliRunner
from service.cli import app
for command in json.loads(sys.argv[1]):
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == (0 if command[-1] == "--help" else 2), (command, answer.output)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def commands() -> list[list[str]]:
    """Every command and group of commands, as one types it."""
    found: list[list[str]] = []

    def walk(command: object, path: list[str]) -> None:
        found.append(path)
        for name, one in getattr(command, "commands", {}).items():
            walk(one, [*path, name])

    walk(typer.main.get_command(app), [])
    return found


def imported(program: str, *arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("end", ["--help", "--no-such-option"])
def test_no_help_and_no_wrong_option_imports_what_computes(end: str):
    given = [[*command, end] for command in commands()]
    assert ["train", end] in given
    assert ["key", "create", end] in given
    assert imported(PROGRAM, json.dumps(given)) & HEAVY == set()


@pytest.mark.parametrize("module", ["service.cli", "service.settings", "model", "model.lifecycle.recipe"])
def test_what_the_command_line_starts_from_imports_nothing_that_computes(module: str):
    program = f"import {module}, sys, json; print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    assert imported(program) & HEAVY == set()


def test_a_server_starts_without_what_only_statistics_need():
    program = "import service.app, sys, json; print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    assert imported(program) & {"scipy", "sklearn"} == set()
