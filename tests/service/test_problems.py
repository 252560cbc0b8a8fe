"""Every kind of problem stands in one table, is made with what its sentence needs, and is explained in the docs."""

import ast
import re
from collections.abc import Iterator

import pytest

from service.problems import FAILURES, KINDS, Problem, problem_of
from tests.conftest import ROOT

OF_NO_IMAGE = {
    "no-category", "not-alive", "device-busy", "no-replica", "too-many-connections", "history-unavailable",
    "image-not-stored",
}  # fmt: skip


def made() -> Iterator[tuple[str, ast.Call]]:
    """Every call of ``Problem`` in the service, with its place."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


CALLS = dict(made())


@pytest.mark.parametrize("place", CALLS)
def test_each_problem_is_made_with_the_values_of_its_kind(place: str):
    (kind,) = CALLS[place].args
    assert isinstance(kind, ast.Constant)
    assert {keyword.arg for keyword in CALLS[place].keywords} == KINDS[str(kind.value)].values


def test_no_kind_is_there_that_nothing_can_make():
    text = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    for kind in KINDS:
        assert re.search(rf'Problem\(\s*"{kind}"', text), kind


def test_the_docs_list_every_kind_with_its_status():
    page = (ROOT / "docs" / "api.md").read_text()
    table = page[page.index("| status | type") :].partition("\n\n")[0]
    listed = {
        kind: int(status)
        for status, kinds in re.findall(r"^\| (\d{3}) \| (.+?) \|", table, re.MULTILINE)
        for kind in re.findall(r"`([a-z-]+)`", kinds)
    }
    assert listed == {name: kind.status for name, kind in KINDS.items()}


def test_failures_are_what_the_server_answers_with_429_or_5xx():
    answered = {name for name, kind in KINDS.items() if kind.status == 429 or kind.status >= 500}
    assert set(FAILURES) == answered - OF_NO_IMAGE


def test_a_problem_says_its_sentence_and_its_members():
    body = Problem("unknown-category", category="tile", known="a, b", categories=["a", "b"]).body()
    assert body.model_dump() == {
        "type": "urn:eca-inspect:problem:unknown-category",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no category 'tile'; known: a, b",
        "categories": ["a", "b"],
    }


def test_what_nobody_expected_is_logged_and_tells_the_client_nothing(caplog: pytest.LogCaptureFixture):
    found = problem_of(RuntimeError("secret path /etc/keys"))
    assert (found.status, found.kind) == (500, "internal-error")
    assert "secret" not in found.detail
    assert "secret path /etc/keys" in caplog.text
