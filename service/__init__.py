"""The web service: HTTP around `model`, with a batching engine, telemetry and the command line."""

import os

# OpenMP reads this when torch is imported. Threads that wait for each other spin only briefly, then sleep. Longer
# spinning doubles the time per image when decoding threads or other processes use the same cores, and has no measurable
# benefit on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
