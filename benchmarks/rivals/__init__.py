"""Other servers for the same pair, each tuned as somebody who likes it would.

    python -m benchmarks.rivals.litserve_server WEIGHTS CATEGORY PORT

serves one category on 127.0.0.1: the bytes of an image in, `{"score": ..., "anomalous": ...}` out. It says
`running on http://127.0.0.1:PORT` when it answers, and ends on SIGTERM or Ctrl-C.
"""

RIVALS = {
    "plain FastAPI": "benchmarks.rivals.plain_fastapi",
    "LitServe": "benchmarks.rivals.litserve_server",
    "BentoML": "benchmarks.rivals.bentoml_server",
    "Ray Serve": "benchmarks.rivals.ray_server",
}
"""Module of each rival, by its name."""

PATH = "/v1/categories/{name}/inspect"
"""What each of them answers to POST, as the service does; `localize` is read by none, none draws a map."""
