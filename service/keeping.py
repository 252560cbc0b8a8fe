"""Which images the history keeps: a rule for each category, written as one text. This module imports nothing slow."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

from service.choices import DECISIONS

_RULE = re.compile(r"none|all|anomalous(?:\s*\+\s*(\d+(?:\.\d+)?)\s*%)?")
_NAME = re.compile(r"[^=,\s]+")


@dataclass(frozen=True)
class Rule:
    """Shares of images to keep, 0 to 1: of anomalous parts, of normal ones, and of those that could not be judged."""

    anomalous: float = 0.0
    normal: float = 0.0
    failures: float = 0.0

    def share(self, outcome: str) -> float:
        """Of the images with this outcome."""
        return {"anomalous": self.anomalous, "normal": self.normal}.get(outcome, self.failures)

    @property
    def sample(self) -> float:
        """Of all images that were judged, whatever the outcome, the share that is surely kept: a random sample."""
        return min(self.anomalous, self.normal)


@dataclass(frozen=True)
class Policy:
    """The rule of each category, and the one of all others."""

    default: Rule
    categories: Mapping[str, Rule] = field(default_factory=dict)

    def share(self, category: str, outcome: str) -> float:
        """Of the images of a category with this outcome that are kept, 0 to 1."""
        return self.of(category).share(outcome)

    def of(self, category: str) -> Rule:
        """The rule of a category."""
        return self.categories.get(category, self.default)


def is_failure(outcome: str) -> bool:
    """Whether the image could not be judged."""
    return outcome not in DECISIONS


def chosen(identity: UUID, share: float) -> bool:
    """Whether an inspection is in a sample of this share. It always is, or always is not."""
    return int.from_bytes(sha256(identity.bytes).digest()[:8]) < share * 2**64


def parse_policy(text: str) -> Policy:
    """The policy of a text such as ``anomalous+1%, plates=all, tiles=none``.

    Raises:
        ValueError: if the text is none; the message says what is.
    """
    default, categories = None, {}
    for item in text.split(","):
        name, sign, rule = (part.strip() for part in item.rpartition("="))
        found = _rule(rule)
        if not sign:
            if default is not None:
                raise ValueError(f"{text!r} has two rules without a category; give one, and CATEGORY=RULE for others")
            default = found
        elif not _NAME.fullmatch(name) or name in categories:
            raise ValueError(f"{item.strip()!r}: {name!r} is no category, or stands there twice")
        else:
            categories[name] = found
    if default is None:
        raise ValueError(f"{text!r} has no rule for other categories; begin with one, such as 'none, {text.strip()}'")
    return Policy(default, categories)


def _rule(text: str) -> Rule:
    match = _RULE.fullmatch(text)
    percent = float(match[1] or 0) if match is not None else 0.0
    if match is None or percent > 100:
        raise ValueError(f"{text!r} is no rule; there are none, all, anomalous, and anomalous+N% with N of 0 to 100")
    if text == "all":
        return Rule(1.0, 1.0, 1.0)
    return Rule() if text == "none" else Rule(1.0, percent / 100)
