"""The rule for the images that are kept: what its text means, and that its sample is one."""

import pytest
from uuid_utils.compat import uuid7

from service.keeping import chosen, parse_policy


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("none", (0, 0, 0)),
        ("anomalous", (1, 0, 0)),
        ("anomalous+1%", (1, 0.01, 0)),
        ("anomalous + 2.5 %", (1, 0.025, 0)),
        ("all", (1, 1, 1)),
    ],
)
def test_a_rule_has_a_share_for_each_outcome(text: str, shares: tuple[float, float, float]):
    policy = parse_policy(f"{text}, plates=all, tiles=none")
    assert tuple(policy.share("other", outcome) for outcome in ("anomalous", "normal", "not-decodable")) == shares
    assert policy.share("plates", "normal") == 1
    assert policy.share("tiles", "anomalous") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no rule; there are none, all, anomalous"),
        ("some", "'some' is no rule"),
        ("anomalous+101%", "is no rule"),
        ("anomalous+1", "is no rule"),
        ("all, none", "two rules without a category"),
        ("plates=all", "has no rule for other categories; begin with one, such as 'none, plates=all'"),
        ("all, plates=none, plates=all", "'plates' is no category, or stands there twice"),
        ("all, =none", "is no category"),
    ],
)
def test_a_text_that_is_no_rule_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        parse_policy(text)


def test_a_sample_has_about_its_share_and_is_always_the_same():
    ids = [uuid7() for _ in range(20_000)]
    sample = [one for one in ids if chosen(one, 0.1)]
    assert 1700 < len(sample) < 2300  # 2000 with a standard deviation of 42
    assert sample == [one for one in ids if chosen(one, 0.1)]
    assert set(sample) < {one for one in ids if chosen(one, 0.2)}
    assert not any(chosen(one, 0.0) for one in ids)
    assert all(chosen(one, 1.0) for one in ids)
