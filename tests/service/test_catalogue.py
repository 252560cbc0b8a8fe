"""The catalogue says what serves, and why the rest does not."""

import pytest

from service.catalogue import Catalogue, CategoryRefusedError, Refused, UnknownCategoryError
from service.problems import problem_of


@pytest.fixture
def catalogue() -> Catalogue:
    made = Catalogue()
    for name in ("screw", "bottle"):
        made.put(Refused(name, "the disk is gone"))
    return made


def test_an_unknown_category_names_the_known(catalogue: Catalogue):
    with pytest.raises(UnknownCategoryError, match="no category 'nothing'; known: bottle, screw") as error:
        catalogue.require("nothing")
    problem = problem_of(error.value)
    assert (problem.status, problem.kind) == (404, "unknown-category")
    assert problem.detail == str(error.value)
    assert problem.members == {"categories": ["bottle", "screw"]}


def test_without_categories_none_is_known():
    with pytest.raises(UnknownCategoryError, match="known: none"):
        Catalogue().find("nothing")


def test_a_refused_category_says_why(catalogue: Catalogue):
    with pytest.raises(CategoryRefusedError) as error:
        catalogue.require("bottle")
    problem = problem_of(error.value)
    assert (problem.status, problem.kind) == (503, "category-refused")
    assert problem.detail == str(error.value) == "category 'bottle' cannot be served: the disk is gone"
    assert catalogue.ready() == []
    assert [(one.category, one.status, one.reason) for one in catalogue.summaries()] == [
        ("bottle", "refused", "the disk is gone"),
        ("screw", "refused", "the disk is gone"),
    ]
