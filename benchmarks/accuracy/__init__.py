"""The search for a better score, map and threshold from the same pair: results in ``benchmarks/accuracy.md``."""
