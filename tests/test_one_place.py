"""Decisions that have one home: nobody else takes them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = [file for folder in ("model", "service", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))]
COMPARISON = re.compile(r"(>=|<=|[<>])\s*[\w.]*threshold\b|\bthreshold\s*(>=|<=|[<>])(?!=)(?!\s*0\b)")


def compares(line: str) -> bool:
    return COMPARISON.search(line.partition("#")[0].replace("->", "")) is not None


def test_the_search_sees_comparisons_however_they_are_written():
    for line in ("score >= threshold", "if card.calibration.threshold <= score", "one < self.threshold", "a>threshold"):
        assert compares(line), line
    for line in ("threshold=threshold", "-> threshold", "thresholds[best]", "if threshold > 0", "# score >= threshold"):
        assert not compares(line), line


def test_only_the_calibration_compares_a_score_with_the_threshold():
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in SOURCES
        for line in file.read_text().splitlines()
        if compares(line)
    ]
    assert found == [
        "model/calibration.py: rejected: np.ndarray = np.asarray(scores, dtype=np.float64) >= threshold",
    ]
