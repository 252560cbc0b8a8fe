"""What fails for a reason that the user can mend has one base, and `model/` does not speak of the command line."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import model
from model.errors import ExpectedError
from model.lifecycle.distillation import TrainingInterrupted

FILES = sorted(Path(model.__file__).parent.rglob("*.py"))
OPTION_OR_COMMAND = re.compile(r"(?<!\w)--[a-z]|`|eca-inspect (?!\[)")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FILES[0].parent)))
def test_no_message_of_the_model_names_an_option_or_a_command(file: Path):
    raised = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Raise)]
    texts = [
        part.value
        for node in raised
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    assert [text for text in texts if OPTION_OR_COMMAND.search(text)] == []


def test_every_failure_of_the_model_has_the_one_base():
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(model.__path__, prefix="model.")]
    failures = {
        one
        for module in modules
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, Exception) and one.__module__.startswith("model.")
    }
    assert len(failures) > 8
    assert {one for one in failures if not issubclass(one, ExpectedError)} == {TrainingInterrupted}
