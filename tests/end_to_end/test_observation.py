"""What an operator sees of the requests: metrics, times, log lines and traces of the real server on a real socket."""

import io
import json
import logging
import re
from collections.abc import Iterator

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from model.store.version import read_card
from service.drift import LEAST_IMAGES
from service.observe.logs import JsonFormatter
from service.problems import KINDS
from tests.conftest import ROOT, Factory
from tests.end_to_end.conftest import GatedServer, Server, running_server

URL = "/v1/categories/striped/inspect"
PNG = {"Content-Type": "image/png"}
STAGES = ("decode", "queue", "inference", "localization")


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "bad" / "000.png").read_bytes()


def samples(client: httpx.Client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {f"{one.name}{one.labels}": one.value for family in families for one in family.samples}


def documented_metrics() -> set[tuple[str, str, frozenset[str]]]:
    """Name, type and labels of each row; those of CUDA only where there is CUDA."""
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(inspect_\w+)` \| (\w+) \| ([^|]*)\| (.*) \|$", page, re.MULTILINE)
    return {
        (name, kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, meaning in rows
        if torch.cuda.is_available() or not meaning.startswith("CUDA only")
    }


def test_the_metrics_are_those_of_the_documentation(client: httpx.Client, png: bytes):
    for _ in range(LEAST_IMAGES):
        client.post(URL, content=png, headers=PNG)
    exposed = {
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            frozenset(label for one in family.samples for label in one.labels if label != "le"),
        )
        for family in text_string_to_metric_families(client.get("/metrics").text)
        if family.name.startswith("inspect_") and not family.name.endswith("_created")
    }
    assert exposed == documented_metrics()


def test_every_problem_has_its_counter_from_the_start(factory: Factory):
    with running_server(factory.weights) as server, httpx.Client(base_url=server.url) as client:
        found = samples(client)
        assert {f"inspect_rejections_total{{'reason': '{kind}'}}" for kind in KINDS} <= set(found)
        assert all(value == 0 for name, value in found.items() if name.startswith("inspect_rejections_total"))


def test_rejections_are_counted_by_reason_and_requests_by_status(client: httpx.Client, png: bytes):
    before = samples(client)
    client.post(URL, content=b"nonsense", headers=PNG)
    client.post(URL + "?localize=maybe", content=png, headers=PNG)
    client.post(URL + "-batch", files=[("image", ("a.png", png)), ("image", ("b.png", b""))])
    client.get("/v1/nothing")
    after = samples(client)
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    for reason in ("not-decodable", "invalid-request", "empty-body", "not-found"):
        assert grown[f"inspect_rejections_total{{'reason': '{reason}'}}"] == 1
    assert sum(value for name, value in grown.items() if name.startswith("inspect_rejections_total")) == 4
    for endpoint, status, count in (("inspect", 422, 2), ("inspect-batch", 200, 1), ("-", 404, 1)):
        assert grown[f"inspect_requests_total{{'endpoint': '{endpoint}', 'status': '{status}'}}"] == count
    assert sum(value for name, value in grown.items() if name.startswith("inspect_requests_total")) == 4


def test_what_serves_is_named(client: httpx.Client, factory: Factory):
    found = samples(client)
    assert sum(name.startswith("inspect_build_info") for name in found) == 1
    (build,) = (name for name in found if name.startswith("inspect_build_info"))
    assert torch.__version__ in build
    assert "float32" in build
    for category in factory.categories:
        card = read_card(factory.weights / category)
        labels = {
            "calibration": card.calibration.method,
            "category": category,
            "model_version": card.model_version,
            "teacher": "narrow",
        }
        assert found[f"inspect_category_info{labels}"] == 1
        assert found[f"inspect_category_ready{{'category': '{category}'}}"] == 1
    assert found["inspect_device_up{}"] == 1


@pytest.mark.cuda
def test_device_memory_is_there_on_cuda(client: httpx.Client):
    found = samples(client)
    assert 0 < found["inspect_device_memory_allocated_bytes{}"] <= found["inspect_device_memory_reserved_bytes{}"]


def server_timing(response: httpx.Response) -> dict[str, float]:
    entries = re.fullmatch(r"(\w+;dur=[0-9.]+)(, \w+;dur=[0-9.]+)*", response.headers["server-timing"])
    assert entries is not None
    return {name: float(value) for name, value in re.findall(r"(\w+);dur=([0-9.]+)", entries[0])}


def test_the_answer_the_header_and_the_histograms_have_the_same_times(client: httpx.Client, factory: Factory):
    before = samples(client)
    expected: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "total")}
    ratios = []
    for kind, index, localize in (("good", 0, "auto"), ("bad", 1, "auto"), ("bad", 2, "always"), ("good", 3, "never")):
        data = (factory.data / kind / f"{index:03}.png").read_bytes()
        response = client.post(URL, content=data, headers=PNG, params={"localize": localize})
        answer = response.json()
        assert server_timing(response) == answer["timing_ms"]
        for stage, milliseconds in answer["timing_ms"].items():
            expected[stage].append(milliseconds / 1000)
        ratios.append(answer["score"] / answer["threshold"])
    picture = client.post(URL, content=data, headers=PNG | {"Accept": "image/png"})
    for stage, milliseconds in server_timing(picture).items():
        expected[stage].append(milliseconds / 1000)
    ratios.append(float(picture.headers["x-anomaly-score"]) / float(picture.headers["x-anomaly-threshold"]))
    results = client.post(URL + "-batch", files=[("image", ("a.png", data))] * 3).json()["results"]
    for result in results:
        for stage, milliseconds in result["timing_ms"].items():
            expected[stage].append(milliseconds / 1000)
        ratios.append(result["score"] / result["threshold"])
    after = samples(client)

    def grown(name: str) -> float:
        return after[name] - before[name]

    rounding = 8 * 0.5e-6 + 1e-9  # timing_ms and the header have three digits after the point
    for stage in STAGES:
        observed = [value for value in expected[stage] if value > 0]
        labels = f"{{'stage': '{stage}'}}"
        assert grown(f"inspect_stage_duration_seconds_count{labels}") == len(observed)
        assert grown(f"inspect_stage_duration_seconds_sum{labels}") == pytest.approx(sum(observed), abs=rounding)
    assert grown("inspect_image_duration_seconds_count{}") == 8
    assert grown("inspect_image_duration_seconds_sum{}") == pytest.approx(sum(expected["total"]), abs=rounding)
    assert grown("inspect_score_ratio_count{'category': 'striped'}") == 8
    assert grown("inspect_score_ratio_sum{'category': 'striped'}") == pytest.approx(sum(ratios), rel=1e-9)
    requests = grown("inspect_request_duration_seconds_sum{'endpoint': 'inspect'}")
    assert requests >= sum(expected["total"][:5]) - rounding  # a request begins before its body is there


@pytest.fixture(scope="module")
def talkative(factory: Factory) -> Iterator[Server]:
    with running_server(factory.weights, log_format="json", log_level="debug") as started:
        yield started


def lines_of(server: Server, request_id: str) -> list[dict[str, object]]:
    """The log's lines with this id; the one of the request itself is written after its answer is sent."""
    for _ in range(200):
        found = [line for line in map(json.loads, server.log) if line.get("request_id") == request_id]
        if any(line["message"] == "request" for line in found):
            return found
        httpx.get(server.url + "/livez")
    raise AssertionError(f"no line of {request_id}")


def test_one_line_of_json_tells_of_each_request_and_holds_no_image(talkative: Server, png: bytes):
    with httpx.Client(base_url=talkative.url) as client:
        response = client.post(URL, content=png, headers=PNG | {"X-Request-ID": "part-0815/a"})
        assert response.headers["x-request-id"] == "part-0815/a"
        answer = response.json()
        (line,) = lines_of(talkative, "part-0815/a")
        assert line.pop("time").endswith("+00:00")
        assert line.pop("duration_ms") >= answer["timing_ms"]["total"]
        assert line == {
            "level": "info",
            "logger": "service.observe.observation",
            "message": "request",
            "request_id": "part-0815/a",
            "method": "POST",
            "path": "/v1/categories/{category}/inspect",
            "status": 200,
            "client": "127.0.0.1",
            "category": "striped",
            "bytes_received": len(png),
            "outcome": "anomalous",
            "id": answer["id"],
            "score": answer["score"],
            "threshold": answer["threshold"],
            "decision": "anomalous",
            "verdict": "fail",
            "timing_ms": answer["timing_ms"],
        }


def test_lines_of_failures_batches_and_probes(talkative: Server, png: bytes):
    def line(request_id: str, method: str, path: str, **options: object) -> dict[str, object]:
        headers = {"X-Request-ID": request_id, **options.pop("headers", {})}
        response = httpx.request(method, talkative.url + path, headers=headers, **options)
        assert response.headers["x-request-id"] == request_id
        (found,) = lines_of(talkative, request_id)
        assert found["status"] == response.status_code
        return found

    failed = line("failed", "POST", URL, content=b"nonsense", headers=PNG)
    assert (failed["outcome"], failed["category"], failed["level"]) == ("not-decodable", "striped", "info")
    assert "score" not in failed
    unknown = line("unknown", "POST", "/v1/categories/odd%0Aname/inspect", content=png, headers=PNG)
    assert (unknown["outcome"], unknown["category"]) == ("unknown-category", None)
    assert "odd" not in json.dumps(unknown)
    batch = line("batch", "POST", URL + "-batch", files=[("image", ("a.png", png))] * 2 + [("image", ("b.png", b"x"))])
    assert batch["outcomes"] == {"anomalous": 2, "not-decodable": 1}
    nowhere = line("nowhere", "GET", "/favicon.ico")
    assert (nowhere["path"], nowhere["status"], nowhere["outcome"]) == (None, 404, "not-found")
    assert line("probe", "GET", "/readyz")["level"] == "debug"
    assert line("scrape", "GET", "/metrics")["level"] == "debug"


def test_probes_are_not_in_the_log_at_info(server: Server):
    httpx.get(server.url + "/readyz", headers={"X-Request-ID": "quiet-probe"})
    httpx.get(server.url + "/v1/categories", headers={"X-Request-ID": "told"})
    lines_of(server, "told")
    assert not any("quiet-probe" in line for line in server.log)


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "t\u00fcr"])
def test_a_request_id_that_will_not_do_is_replaced(client: httpx.Client, given: str):
    response = client.get("/v1/nothing", headers={"X-Request-ID": given.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
    assert client.get("/livez", headers={"X-Request-ID": "x" * 128}).headers["x-request-id"] == "x" * 128


def test_whatever_is_logged_during_a_request_bears_its_id(gated: GatedServer, png: bytes):
    gated.gate.failure = RuntimeError("the device is on fire")
    gated.gate.open.set()
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("service.problems")
    logger.addHandler(handler)
    try:
        httpx.post(gated.url + URL, content=png, headers=PNG | {"X-Request-ID": "burnt"}, timeout=30)
    finally:
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {line["logger"] for line in lines} == {logger.name}
    assert {line["request_id"] for line in lines} == {"burnt"}
    assert "on fire" in lines[-1]["exception"]


def test_text_is_for_people(factory: Factory, png: bytes):
    with running_server(factory.weights, log_format="text") as server:
        httpx.post(server.url + URL, content=png, headers=PNG | {"X-Request-ID": "in-text"})
        httpx.post(server.url + URL, content=png, headers=PNG)
    (line,) = (line for line in server.log if "in-text" in line)
    assert "INFO service.observe.observation: request request_id=in-text method=POST" in line
    assert "status=200" in line
    assert "decision=anomalous" in line
