"""The comparison of a candidate with the version in force, as numbers."""

import pytest

from model.measures import mcnemar
from service.schemas import Candidate, CandidateStatus
from service.shadow import comparison_of, unproven


def counts(*rows: tuple[str, str, str | None, int]) -> list[dict[str, object]]:
    return [dict(zip(("decision", "candidate_decision", "label", "count"), row, strict=True)) for row in rows]


def test_every_combination_is_counted_where_it_belongs():
    found = comparison_of(
        "v1",
        counts(
            ("normal", "normal", None, 80),
            ("normal", "normal", "anomalous", 1),
            ("normal", "anomalous", None, 4),
            ("normal", "anomalous", "normal", 2),
            ("normal", "anomalous", "anomalous", 9),
            ("anomalous", "normal", "normal", 3),
            ("anomalous", "normal", "anomalous", 1),
            ("anomalous", "normal", "unsure", 5),
            ("anomalous", "anomalous", "anomalous", 7),
        ),
        [],
    )
    assert (found.inspections, found.to_anomalous, found.to_normal) == (112, 15, 9)
    assert found.agreement == pytest.approx(88 / 112)
    labelled = found.labelled
    assert (labelled.normal, labelled.anomalous) == (5, 18)
    assert (labelled.false_alarms, labelled.misses) == (3, 10)
    assert (labelled.candidate_false_alarms, labelled.candidate_misses) == (2, 2)
    assert (labelled.only_in_force_right, labelled.only_candidate_right) == (3, 12)
    assert labelled.p_value == pytest.approx(0.03515625)  # R: binom.test(3, 15)
    assert labelled.proven == "candidate"


def test_nothing_yet_is_no_agreement():
    found = comparison_of("v1", [], [])
    assert (found.inspections, found.agreement, found.labelled.p_value) == (0, None, 1.0)
    assert found.labelled.proven is None


def described(status: CandidateStatus, **labelled: object) -> Candidate:
    counted = comparison_of("v1", [], []).labelled.model_copy(update={"normal": 20, **labelled})
    comparison = comparison_of("v1", [], []).model_copy(update={"labelled": counted})
    return Candidate(
        category="striped", status=status, reason="it is damaged", model_version="v2", threshold=1.0, calibration=None,
        training=None, error_rates=None, wanted=30, scored=20, skipped=0, failed=0,
        comparison=comparison if status in ("complete", "scoring") else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (described("refused"), "cannot be used: it is damaged"),
        (described("scoring", proven="candidate"), "has scored 20 of 30 inspections"),
        (described("alone"), "there is no version in force to compare the candidate with"),
        (described("off"), "nothing is compared here"),
        (
            described("complete", only_candidate_right=4),
            "of 20 labelled inspections only the candidate is right",
        ),
        (described("complete", proven="in-force"), "only the version in force about 0"),
    ],
)
def test_what_is_not_proven_is_said_with_its_reason(found: Candidate, reason: str):
    assert reason in str(unproven(found))


def test_a_complete_comparison_that_the_candidate_has_won_is_proof():
    assert unproven(described("complete", proven="candidate")) is None


def test_mcnemars_exact_test_by_counting():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(4, 4) == 1.0
    assert mcnemar(0, 6) == mcnemar(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
