"""The plan in CONTRIBUTING.md is that of the house: every module is in one room, and every import follows an arrow."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

PLAN = re.search(r"```mermaid\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
NODE = r'(\w+)(?:\["[^"]*"\])?'


def rooms() -> dict[str, str]:
    """The room of each module and package, as the labels of the plan have it."""
    assert PLAN is not None
    found: dict[str, str] = {}
    package = ""
    for line in PLAN[1].splitlines():
        if match := re.search(r'subgraph \w+\["(\w+)/"\]', line):
            package = match[1]
            continue
        for room, label in re.findall(r'(\w+)\["([^"]+)"\]', line):
            for name in label.split(", "):
                module = f"{package}.{name.rstrip('/').replace('/', '.')}"
                assert found.setdefault(module, room) == room, f"{module} is in two rooms"
    return found


def arrows() -> dict[str, set[str]]:
    assert PLAN is not None
    found = defaultdict(set)
    for above, below in re.findall(rf"{NODE} --> {NODE}", PLAN[1]):
        found[above].add(below)
    return found


def below(room: str) -> set[str]:
    """The rooms that arrows lead to from a room."""
    plan, found, waiting = arrows(), set(), [room]
    while waiting:
        for one in plan[waiting.pop()] - found:
            found.add(one)
            waiting.append(one)
    return found


def room_of(module: str, plan: dict[str, str]) -> str:
    """The room of a module or of the innermost package of it that the plan names."""
    while module not in plan:
        assert "." in module, f"{module} is in no room of the plan"
        module = module.rpartition(".")[0]
    return plan[module]


def modules() -> dict[str, Path]:
    """Every module that a room can have; the two packages themselves only say what is in them."""
    files = (path for package in ("model", "service") for path in (ROOT / package).rglob("*.py"))
    found = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    return {module: path for module, path in found.items() if "." in module}


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports of the house, inside of functions too, but for what only the type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{one.name}" for one in node.names)
        yield from imports(node)


def test_every_module_is_in_a_room_and_every_room_has_one():
    plan = rooms()
    assert {room_of(module, plan) for module in modules()} == set(plan.values())
    assert set(plan) <= set(modules())


def test_no_arrow_runs_up():
    for room in set(rooms().values()):
        assert room not in below(room)


def test_the_server_does_not_load_the_laboratory():
    assert "lab" not in below("app")
    script = "import sys, service.app; print([name for name in sys.modules if name.startswith('model.lab')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_import_follows_the_arrows():
    plan, house = rooms(), modules()
    for module, path in house.items():
        here = room_of(module, plan)
        for name in imports(ast.parse(path.read_text())):
            imported = name if name in house else name.rpartition(".")[0]
            if imported in house:
                there = room_of(imported, plan)
                assert there == here or there in below(here), f"{module} imports {imported}"
