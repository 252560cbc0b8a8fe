"""What Prometheus sees. Base units; label values come from the catalogue and from this code only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from service.schemas import TimingMs

# 1 ms to 30 s, dense where an inspection lies, so that p50 to p99 can be read off.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
STAGES = ("decode", "queue", "inference", "localization")
UNKNOWN_CATEGORY = "-"
"""Label of requests for categories that are not there; no category can have this name."""


class Telemetry:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.images = Counter(
            "inspect_images",
            "Images answered, by decision or by the kind of problem",
            ("category", "outcome"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "inspect_request_duration_seconds",
            "One request from its headers to its answer, errors too",
            ("endpoint",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "inspect_stage_duration_seconds",
            "Stages of an answered image: decode, queue, inference, localization",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        self.batch_size = Histogram(
            "inspect_batch_size_images",
            "Images the device took at once",
            buckets=BATCH_SIZES,
            registry=self.registry,
        )

    def announce(self, category: str) -> None:
        """Starts a category's counters at 0, so that its first image, and its first failure, show as an increase."""
        for outcome in ("normal", "anomalous", "queue-full", "deadline-passed", "internal-error"):
            self.images.labels(category, outcome)

    def watch_categories(self, ready: Callable[[], int], refused: Callable[[], int]) -> None:
        """Counts the categories whenever metrics are scraped."""
        categories = Gauge(
            "inspect_categories", "Categories of the weights folder", ("status",), registry=self.registry
        )
        categories.labels("ready").set_function(ready)
        categories.labels("refused").set_function(refused)

    def watch_queue(self, depth: Callable[[], int], admitted: Callable[[], int]) -> None:
        """Reads the queue whenever metrics are scraped."""
        Gauge("inspect_queue_depth_images", "Images waiting for the device", registry=self.registry).set_function(depth)
        Gauge(
            "inspect_in_flight_images",
            "Images being decoded, waiting, on the device or being drawn",
            registry=self.registry,
        ).set_function(admitted)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def observe_stages(self, timing: TimingMs) -> None:
        """Adds the stages of one answered image; inference and localization only where there were any."""
        for stage, milliseconds in (
            ("decode", timing.decode),
            ("queue", timing.queue),
            ("inference", timing.inference),
            ("localization", timing.localization),
        ):
            if milliseconds > 0:
                self.stage_seconds.labels(stage).observe(milliseconds / 1000)

    @contextmanager
    def request(self, endpoint: str) -> Iterator[None]:
        """Times one request of an endpoint, however it ends."""
        started = perf_counter()
        try:
            yield
        finally:
            self.request_seconds.labels(endpoint).observe(perf_counter() - started)
