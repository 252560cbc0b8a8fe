"""The web service: HTTP around `model`, with a batching engine, telemetry and the command line."""

import os

# Read by OpenMP when torch is imported. Threads that wait for each other spin only briefly, then sleep: beside busy
# decoding threads or another process on the same cores, spinning longer makes one image take twice as long, and on an
# idle machine it gains nothing that can be measured.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
