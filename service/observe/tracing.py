"""OpenTelemetry traces, sent as OTLP over HTTP. Needs the extra ``otel``; imported only where an endpoint is set."""

from importlib.metadata import version
from time import perf_counter, time_ns

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers

from service.observe.logs import Record
from service.observe.telemetry import STAGES

EXPORT_SECONDS = 5
"""Longest wait for the collector, so that one that is away does not keep the server from ending."""


class Tracing:
    """Makes a span of each request and, below it, of each stage of its images.

    Args:
        endpoint: address of the collector, such as ``http://collector:4318``.
    """

    def __init__(self, endpoint: str) -> None:
        resource = Resource.create({"service.name": "eca-inspect", "service.version": version("eca-inspect")})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("eca-inspect")

    def start(self, headers: Headers) -> Span:
        """Begins a request's span, below the caller's if it sent a W3C ``traceparent``."""
        context = TraceContextTextMapPropagator().extract(headers)
        return self._tracer.start_span("request", context, SpanKind.SERVER)

    def end(self, span: Span, method: str, path: str | None, status: int, record: Record) -> None:
        """Ends a request's span and adds those of the stages, one after the other from the arrival of each body."""
        span.set_attributes(
            {
                "http.request.method": method,
                "http.response.status_code": status,
                "inspect.request_id": record.request_id,
                **({"http.route": path} if path else {}),
                **({"inspect.category": record.category} if record.category else {}),
                **({"error.type": record.problem} if record.problem else {}),
            }
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        below = set_span_in_context(span)
        clock_offset = time_ns() - round(1e9 * perf_counter())
        for began, inspection in record.inspections:
            start = clock_offset + round(1e9 * began)
            for stage in STAGES:
                duration = round(1e6 * getattr(inspection.timing_ms, stage))
                if duration > 0:
                    self._tracer.start_span(stage, below, start_time=start).end(start + duration)
                start += duration
        span.end()

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()
