"""What Prometheus sees. Base units; label values come from the catalogue and from this code only."""

from collections.abc import Callable, Iterable
from typing import get_args

import torch
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from model.calibration import Verdict
from model.store.card import Card
from service.drift import Recent
from service.history.images import IMAGE_LOSSES
from service.history.records import LOSSES
from service.problems import FAILURES, KINDS
from service.schemas import CategorySummary, Inspection, PartAnswer, PartDecision

# 1 ms to 30 s, dense where an inspection lies, so that p50 to p99 can be read off.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 3, 5, 10)
STAGES = ("decode", "queue", "inference", "localization")
UNKNOWN_CATEGORY = "-"
"""Label of requests for categories that are not there; no category can have this name."""
NO_CARD = "-"
"""Label of parts that were sent without the name of a card; no card can have this name."""


class Telemetry:
    """The metrics of one application, in a registry of its own.

    Attributes:
        images: by category and outcome.
        rejections: requests, and images of a batch call, answered with a problem, by its kind.
        device_restarts: times that the device thread was replaced.
        decoder_restarts: times that a process that decodes images was replaced.
        students_loaded: students read from the disk into memory.
        students_evicted: students dropped from memory to make room.
        reloads_refused: versions that were to be reloaded and are refused.
        batch_size: images the device took at once.
        history_written: records that the database of the history has taken.
        history_lost: records that are in no history, by reason.
        history_late: answers that did not wait for their record any longer.
        history_refused: records that the database refuses, which are set aside.
        recent: the measures of the last inspections, from which the drift is computed.
        shadow: images for candidates, by result.
        images_not_kept: images that the history should keep and does not, by reason.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.recent = Recent()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.images = Counter(
            "inspect_images",
            "Images answered, by decision or by the kind of problem",
            ("category", "outcome"),
            registry=self.registry,
        )
        self.rejections = Counter(
            "inspect_rejections",
            "Requests, and images of a batch call, answered with a problem, by its kind",
            ("reason",),
            registry=self.registry,
        )
        for kind in KINDS:  # at 0 from the start
            self.rejections.labels(kind)
        self._verdicts = Counter(
            "inspect_verdicts",
            "Images answered, by what becomes of the part: pass, fail, or review by a person",
            ("category", "verdict"),
            registry=self.registry,
        )
        self._parts = Counter(
            "inspect_parts",
            "Parts of several views that were answered, by the name of their card and by decision",
            ("part", "decision"),
            registry=self.registry,
        )
        for decision in get_args(PartDecision):
            self._parts.labels(NO_CARD, decision)
        self._requests = Counter(
            "inspect_requests", "Requests answered", ("endpoint", "status"), registry=self.registry
        )
        self._request_seconds = Histogram(
            "inspect_request_duration_seconds",
            "Time per request from the arrival of its headers to the end of its answer, including errors",
            ("endpoint",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._image_seconds = Histogram(
            "inspect_image_duration_seconds",
            "Time per answered image from the arrival of its whole body to its answer",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "inspect_stage_duration_seconds",
            "Time per answered image in each stage: decode, queue, inference, localization",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        for stage in STAGES:
            self._stage_seconds.labels(stage)
        self._score_ratio = Histogram(
            "inspect_score_ratio",
            "Score of an answered image divided by its threshold",
            ("category",),
            buckets=RATIOS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "inspect_batch_size_images",
            "Images the device took at once",
            buckets=BATCH_SIZES,
            registry=self.registry,
        )
        self.device_restarts = Counter(
            "inspect_device_restarts",
            "Times that the device thread died or hung and was replaced",
            registry=self.registry,
        )
        self.decoder_restarts = Counter(
            "inspect_decoder_restarts",
            "Decoder processes that ended, or were ended, while they read an image, and were replaced",
            registry=self.registry,
        )
        self.students_loaded = Counter(
            "inspect_students_loaded", "Students read from the disk into memory", registry=self.registry
        )
        self.students_evicted = Counter(
            "inspect_students_evicted", "Students dropped from memory to make room", registry=self.registry
        )
        self.reloads_refused = Counter(
            "inspect_reloads_refused", "New versions of categories that were refused", registry=self.registry
        )

        self.history_written = Counter(
            "inspect_history_written", "Inspections written to the database of the history", registry=self.registry
        )
        self.history_lost = Counter(
            "inspect_history_lost", "Inspections that are in no history, by reason", ("reason",), registry=self.registry
        )
        for reason in LOSSES:
            self.history_lost.labels(reason)
        self.history_late = Counter(
            "inspect_history_late",
            "Answers that went out before their record was on the disk, because that took too long",
            registry=self.registry,
        )
        self.images_not_kept = Counter(
            "inspect_history_images_lost",
            "Images that were to be kept and are not, by reason",
            ("reason",),
            registry=self.registry,
        )
        for reason in IMAGE_LOSSES:
            self.images_not_kept.labels(reason)
        self.history_refused = Counter(
            "inspect_history_refused",
            "Inspections that the database of the history refuses, and that are set aside",
            registry=self.registry,
        )

        self.shadow = Counter(
            "inspect_shadow",
            "Images for candidates: scored, skipped because there was no idle time, or failed",
            ("result",),
            registry=self.registry,
        )
        for result in ("scored", "skipped", "failed"):
            self.shadow.labels(result)

    def announce_endpoint(self, endpoint: str, statuses: Iterable[int]) -> None:
        """Starts an endpoint's counters at 0, so that its first failure shows as an increase."""
        self._request_seconds.labels(endpoint)
        for status in statuses:
            self._requests.labels(endpoint, str(status))

    def announce(self, category: str) -> None:
        """Starts a category's counters at 0, so that its first image, and its first failure, show as an increase."""
        self._score_ratio.labels(category)
        for outcome in ("normal", "anomalous", *FAILURES):
            self.images.labels(category, outcome)
        for verdict in get_args(Verdict):
            self._verdicts.labels(category, verdict)

    def describe_build(self, version: str, device: torch.device, precision: str) -> None:
        """Says what serves."""
        Info("inspect_build", "Version, torch, device and precision", registry=self.registry).info(
            {"version": version, "torch": torch.__version__, "device": str(device), "precision": precision}
        )

    def watch_categories(self, summaries: Callable[[], list[CategorySummary]]) -> None:
        """Reads the categories whenever metrics are scraped."""
        categories = _Categories(summaries, self.announce)
        categories.collect()  # announces those that are there already
        self.registry.register(categories)

    def watch_drift(self, cards: Callable[[], list[Card]]) -> None:
        """Compares the last inspections with the calibration whenever metrics are scraped."""
        self.registry.register(_Drifts(self.recent, cards))

    def watch_device(self, device: torch.device, running: Callable[[], bool]) -> None:
        """Reads the device's state, and on CUDA its memory, whenever metrics are scraped."""
        Gauge(
            "inspect_device_up", "1 while the thread that owns the device runs, else 0", registry=self.registry
        ).set_function(running)
        if device.type == "cuda":
            Gauge(
                "inspect_device_memory_allocated_bytes", "Device memory that tensors take", registry=self.registry
            ).set_function(lambda: torch.cuda.memory_allocated(device))
            Gauge(
                "inspect_device_memory_reserved_bytes",
                "Device memory that the process holds for tensors",
                registry=self.registry,
            ).set_function(lambda: torch.cuda.memory_reserved(device))

    def watch_queue(self, depth: Callable[[], int], admitted: Callable[[], int], limit: int) -> None:
        """Reads the queue whenever metrics are scraped."""
        Gauge("inspect_queue_depth_images", "Images waiting for the device", registry=self.registry).set_function(depth)
        Gauge(
            "inspect_in_flight_images",
            "Images being decoded, waiting, on the device or being drawn",
            registry=self.registry,
        ).set_function(admitted)
        Gauge(
            "inspect_in_flight_limit_images",
            "Most images in flight; above it the answer is 429",
            registry=self.registry,
        ).set(limit)

    def watch_uploads(self, held: Callable[[], int]) -> None:
        """Reads the memory of request bodies whenever metrics are scraped."""
        Gauge(
            "inspect_upload_memory_bytes", "Bytes of request bodies being received or held", registry=self.registry
        ).set_function(held)

    def watch_connections(self, count: Callable[[], int], unread_bytes: Callable[[], int], limit: int) -> None:
        """Reads the connections whenever metrics are scraped."""
        Gauge("inspect_connections", "Open connections", registry=self.registry).set_function(count)
        Gauge(
            "inspect_connections_limit", "Most connections; above it idle ones are closed", registry=self.registry
        ).set(limit)
        Gauge(
            "inspect_unread_answer_bytes", "Bytes of answers that clients have not read", registry=self.registry
        ).set_function(unread_bytes)

    def watch_history(
        self,
        up: Callable[[], bool],
        waiting: Callable[[], int],
        spool_bytes: Callable[[], int],
        image_bytes: Callable[[], int],
    ) -> None:
        """Reads the history whenever metrics are scraped."""
        Gauge(
            "inspect_history_database_up", "1 while the database of the history answers, else 0", registry=self.registry
        ).set_function(up)
        Gauge(
            "inspect_history_waiting_records", "Records that wait for the database, on the disk", registry=self.registry
        ).set_function(waiting)
        Gauge(
            "inspect_history_spool_bytes", "Size of the file in which records wait", registry=self.registry
        ).set_function(spool_bytes)
        Gauge(
            "inspect_history_images_bytes", "Size of the images that the history keeps", registry=self.registry
        ).set_function(image_bytes)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def count_inspection(self, inspection: Inspection) -> None:
        """Adds one answered image: its decision, its times and its score. Stages that it did not have are left out."""
        self.images.labels(inspection.category, inspection.decision).inc()
        self._verdicts.labels(inspection.category, inspection.verdict).inc()
        self._image_seconds.observe(inspection.timing_ms.total / 1000)
        for stage in STAGES:
            milliseconds = getattr(inspection.timing_ms, stage)
            if milliseconds > 0:
                self._stage_seconds.labels(stage).observe(milliseconds / 1000)
        if inspection.threshold > 0:
            self._score_ratio.labels(inspection.category).observe(inspection.score / inspection.threshold)

    def count_part(self, part: PartAnswer) -> None:
        """Adds one answered part; its views are counted one by one as images."""
        self._parts.labels(part.part or NO_CARD, part.decision).inc()

    def count_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Adds one answered request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)


class _Categories(Collector):
    """Reads the categories at each scrape, so that a reload needs no notification."""

    def __init__(self, summaries: Callable[[], list[CategorySummary]], announce: Callable[[str], None]) -> None:
        self._summaries = summaries
        self._announce = announce

    def collect(self) -> Iterable[GaugeMetricFamily]:
        by_status = GaugeMetricFamily("inspect_categories", "Categories of the weights folder", labels=("status",))
        ready = GaugeMetricFamily(
            "inspect_category_ready", "1 if the category serves, 0 if refused", labels=("category",)
        )
        info = GaugeMetricFamily(
            "inspect_category_info",
            "Model version, calibration and teacher of the category",
            labels=("category", "model_version", "calibration", "teacher"),
        )
        separates = GaugeMetricFamily(
            "inspect_category_separates",
            "0 if the scores of a category are not shown to tell faulty parts from good ones, else 1; only for "
            "categories that were calibrated with faulty parts",
            labels=("category",),
        )
        summaries = self._summaries()
        for status in ("ready", "refused"):
            by_status.add_metric((status,), sum(one.status == status for one in summaries))
        for one in summaries:
            ready.add_metric((one.category,), one.status == "ready")
            if one.separates is not None:
                separates.add_metric((one.category,), one.separates)
            if one.model_version and one.calibration and one.teacher:
                self._announce(one.category)
                info.add_metric((one.category, one.model_version, one.calibration, one.teacher), 1)
        return by_status, ready, info, separates


class _Drifts(Collector):
    """Compares at each scrape, so that an inspection costs next to nothing."""

    def __init__(self, recent: Recent, cards: Callable[[], list[Card]]) -> None:
        self._recent = recent
        self._cards = cards

    def collect(self) -> Iterable[GaugeMetricFamily]:
        labels = ("category", "measure")
        drift = GaugeMetricFamily(
            "inspect_drift_ratio",
            "Distance of the last inspections from the calibration, divided by its limit: above 1 they have drifted",
            labels=labels,
        )
        median = GaugeMetricFamily(
            "inspect_drift_median_ratio",
            "Median of the last inspections divided by that of the calibration",
            labels=labels,
        )
        for category, one in self._recent.drifts(self._cards()):
            if one.distance is not None and one.limit:
                drift.add_metric((category, one.measure), one.distance / one.limit)
            if one.median is not None and one.reference_median:
                median.add_metric((category, one.measure), one.median / one.reference_median)
        return drift, median
