"""Traces reach a collector over the wire, below the caller's; without an endpoint nothing is loaded for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import Factory
from tests.end_to_end.conftest import running_server

URL = "/v1/categories/striped/inspect"
PNG = {"Content-Type": "image/png"}
STAGES = ("decode", "queue", "inference", "localization")


@dataclass
class Collector:
    """Takes OTLP over HTTP."""

    url: str
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in body.resource_spans:
                names = {one.key: one.value.string_value for one in resource.resource.attributes}
                made.services.add(names["service.name"])
                made.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        made = Collector(f"http://127.0.0.1:{http.server_port}")
        Thread(target=http.serve_forever).start()
        yield made
        http.shutdown()


def test_a_request_and_its_stages_are_spans_below_the_callers(collector: Collector, factory: Factory):
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    data = (factory.data / "bad" / "000.png").read_bytes()
    with running_server(factory.weights, otlp_endpoint=collector.url) as server:
        headers = PNG | {"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "traced"}
        timing = httpx.post(server.url + URL, content=data, headers=headers).json()["timing_ms"]
        httpx.post(server.url + URL, content=b"nonsense", headers=PNG)
        httpx.post(server.url + URL + "-batch", files=[("image", ("a.png", data))] * 2)
    assert collector.services == {"eca-inspect"}
    spans = [span for span in collector.spans if span.trace_id.hex() == trace]
    (request,) = (span for span in spans if span.name == "request")
    assert request.parent_span_id.hex() == parent
    assert request.kind == Span.SPAN_KIND_SERVER
    told = {one.key: one.value for one in request.attributes}
    assert told["http.route"].string_value == "/v1/categories/{category}/inspect"
    assert told["http.response.status_code"].int_value == 200
    assert told["inspect.request_id"].string_value == "traced"
    stages = {span.name: span for span in spans if span is not request}
    assert set(stages) == set(STAGES)
    for name, span in stages.items():
        assert span.parent_span_id == request.span_id
        assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6 == pytest.approx(timing[name], abs=0.001)
        assert request.start_time_unix_nano - 1e6 <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano + 1e6
    others = [span for span in collector.spans if span.trace_id.hex() != trace]
    failed, batch = (span for span in others if span.name == "request")
    assert {one.key: one.value for one in failed.attributes}["error.type"].string_value == "not-decodable"
    below = [span.name for span in others if span.parent_span_id == batch.span_id]
    assert sorted(below) == sorted([*STAGES, *STAGES])
    assert not any(span.parent_span_id == failed.span_id for span in others)


def test_a_collector_that_is_away_disturbs_nobody(factory: Factory):
    data = (factory.data / "good" / "000.png").read_bytes()
    with running_server(factory.weights, otlp_endpoint="http://127.0.0.1:9") as server:
        assert httpx.post(server.url + URL, content=data, headers=PNG).status_code == 200
        server.process.terminate()
        assert server.process.wait(30) == 0


def test_without_an_endpoint_nothing_of_it_is_loaded():
    program = """
import sys
import service.cli
from service.app import create_app
from service.settings import Settings
create_app(Settings())
assert not [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
assert "service.observe.tracing" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_extra_is_said_in_plain_words(factory: Factory):
    program = "import sys; sys.modules['opentelemetry.exporter'] = None; from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--weights", str(factory.weights)],
        env={**os.environ, "INSPECT_OTLP_ENDPOINT": "http://127.0.0.1:9", "INSPECT_DATABASE": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: INSPECT_OTLP_ENDPOINT needs the extra: pip install 'eca-inspect[otel]'\n"
