"""The steps for one image: decode, queue, score, draw, answer. With the engine in the server, without it offline."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, perf_counter
from typing import TypeVar

import numpy as np

from model.choices import MapForm
from model.preprocessing import Preprocessing
from model.store.card import Card
from service.catalogue import Ready
from service.choices import Localize
from service.decoding.pool import Decoders
from service.decoding.work import Picture, Shrink, Step, read_picture
from service.device.engine import Engine
from service.device.jobs import Job, Outcome
from service.device.torch_backend import inspect_jobs
from service.observe.logs import RECORD
from service.observe.telemetry import Telemetry
from service.part_info import PartInfo
from service.problems import Problem, problem_of
from service.rendering import Heat, drawn_size, heat_of, localization_of, overlay_of, png
from service.schemas import ImageInfo, Inspection, Localization, ProblemBody, TimingMs

T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """The input of the networks, uint8 RGB ``[size, size, 3]``, and facts about the original image."""

    pixels: np.ndarray
    info: ImageInfo


@dataclass(frozen=True)
class Limits:
    """Largest allowed image: bytes of the file, and pixels that its header declares."""

    image_bytes: int
    image_pixels: int


Reader = Callable[[bytes, Step], Picture]
"""Decodes an image file and applies a step, in this process or another."""


def decode(data: bytes, preprocessing: Preprocessing, limits: Limits, read: Reader) -> Decoded:
    """Reads an image from the bytes of its file.

    Raises:
        Problem: 400 if there are no bytes, 413 if there are too many.
        ImageError, TimeoutError, DecoderLostError: see `service.decoding.pool.Decoders.read`.
    """
    if not data:
        raise Problem("empty-body")
    if len(data) > limits.image_bytes:
        raise Problem("too-many-bytes", what="the image", limit=limits.image_bytes)
    picture = read(data, preprocessing)
    info = ImageInfo(width=picture.width, height=picture.height, sha256=picture.sha256)
    return Decoded(picture.pixels, info)


@dataclass(frozen=True)
class Wanted:
    """Which localization a request asks for, in addition to the score, and what it says of the part.

    Attributes:
        localize: whether to locate the fault.
        form: form of the map; None for the category's default.
        part_info: what the answer repeats.
    """

    localize: Localize = Localize.AUTO
    form: MapForm | None = None
    part_info: PartInfo = field(default_factory=PartInfo)

    def check(self, card: Card) -> None:
        """Raises `Problem` 422 if the category has no such map."""
        if self.form is not None and card.scale_of(self.form) is None:
            raise Problem("unknown-map", category=card.category, form=self.form.value)


def localize(card: Card, decoded: Decoded, outcome: Outcome) -> Localization | None:
    """The heat map, mask and regions of the answer, or None if no map was computed."""
    heat = _heat(card, decoded, outcome)
    if heat is None or outcome.evidence is None:
        return None
    return localization_of(heat, outcome.evidence.form)


def draw_overlay(data: bytes, card: Card, decoded: Decoded, outcome: Outcome, read: Reader) -> bytes:
    """The overlay as PNG. Decodes the image again, because full images are not kept while they wait for the device."""
    picture = read(data, Shrink(*drawn_size(decoded.info.width, decoded.info.height)))
    return png(overlay_of(picture.pixels, _heat(card, decoded, outcome)))


def _heat(card: Card, decoded: Decoded, outcome: Outcome) -> Heat | None:
    if outcome.evidence is None:
        return None
    scale = card.scale_of(outcome.evidence.form)
    assert scale is not None
    return heat_of(outcome.evidence.anomaly_map(), decoded.pixels, scale, decoded.info.width, decoded.info.height)


def answer(
    card: Card,
    decoded: Decoded,
    outcome: Outcome,
    localization: Localization | None,
    part_info: PartInfo,
    *,
    decode_seconds: float,
    drawing_seconds: float,
    total_seconds: float,
) -> Inspection:
    """Builds the answer for one image."""
    return Inspection(
        **dict(part_info),
        category=card.category,
        model_version=card.model_version,
        score=outcome.score,
        threshold=card.calibration.threshold,
        calibration=card.calibration.method,
        separates=card.calibration.separates,
        decision="anomalous" if card.calibration.rejects(outcome.score) else "normal",
        localization=localization,
        image=decoded.info,
        timing_ms=TimingMs(
            decode=1000 * decode_seconds,
            queue=1000 * outcome.queue_seconds,
            inference=1000 * outcome.inference_seconds,
            localization=1000 * (outcome.localization_seconds + drawing_seconds),
            total=1000 * total_seconds,
        ),
    )


def inspect_offline(
    ready: Ready, data: bytes, wanted: Wanted, limits: Limits, *, with_overlay: bool
) -> tuple[Inspection, bytes | None]:
    """Inspects one image as the server does, without the server; also returns the overlay PNG if requested.

    Raises:
        Problem, ImageError: see `decode` and `Wanted`.
    """
    wanted.check(ready.card)
    started = perf_counter()
    read = partial(read_picture, max_pixels=limits.image_pixels)
    decoded = decode(data, ready.card.preprocessor, limits, read)
    decode_seconds = perf_counter() - started
    (outcome,) = inspect_jobs([_job(ready, decoded, wanted)])
    drawing = perf_counter()
    localization = localize(ready.card, decoded, outcome)
    now = perf_counter()
    inspection = answer(
        ready.card,
        decoded,
        outcome,
        localization,
        wanted.part_info,
        decode_seconds=decode_seconds,
        drawing_seconds=now - drawing,
        total_seconds=now - started,
    )
    return inspection, draw_overlay(data, ready.card, decoded, outcome, read) if with_overlay else None


def _job(ready: Ready, decoded: Decoded, wanted: Wanted) -> Job:
    card = ready.card
    form = wanted.form or card.map_form
    return Job(decoded.pixels, ready.teacher, ready.detector, card.calibration.rejects, wanted.localize, form)


class Inspector:
    """Sends images through the decoders, the engine and the drawing threads.

    Args:
        engine: owns the device.
        pool: threads that draw, and wait for the decoders.
        decoders: as many processes as the pool has threads.
        limits: largest allowed image.
        deadline_seconds: longest time from the arrival of the whole body to the answer.
        telemetry: counts every image.
    """

    def __init__(
        self,
        engine: Engine[Job, Outcome],
        pool: ThreadPoolExecutor,
        decoders: Decoders,
        limits: Limits,
        deadline_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._decoders = decoders
        self._limits = limits
        self._deadline_seconds = deadline_seconds
        self._telemetry = telemetry

    async def inspect(self, ready: Ready, data: bytes, wanted: Wanted) -> Inspection:
        """The JSON answer for one image.

        Raises:
            Problem, ImageError, DecoderLostError, QueueFullError, EngineClosedError, TimeoutError: see
                `service.problems.problem_of`.
        """
        with self._engine.admit():
            return await self._inspect_admitted(ready, data, wanted)

    async def inspect_many(
        self, images: Sequence[tuple[Ready, bytes]], wanted: Wanted
    ) -> list[Inspection | ProblemBody]:
        """The answers for many images in order, each for its category; for an image that fails, its problem.

        Raises:
            QueueFullError, EngineClosedError: if none of the images is accepted.
        """

        async def one(ready: Ready, data: bytes) -> Inspection | ProblemBody:
            try:
                return await self._inspect_admitted(ready, data, wanted)
            except Exception as error:
                return self.refuse(ready.category, problem_of(error))

        with self._engine.admit(len(images)):
            return await asyncio.gather(*(one(ready, data) for ready, data in images))

    def refuse(self, category: str, problem: Problem) -> ProblemBody:
        """Counts an image of a call of many that fails alone. Returns what stands in its place."""
        self._telemetry.images.labels(category, problem.kind).inc()
        self._telemetry.rejections.labels(problem.kind).inc()
        if (record := RECORD.get()) is not None:
            record.outcomes.append(problem.kind)
        return problem.body()

    async def overlay(self, ready: Ready, data: bytes, wanted: Wanted) -> tuple[Inspection, bytes]:
        """The answer for one image, without localization, and the overlay picture as PNG.

        Raises:
            As `inspect`.
        """
        started, read = perf_counter(), self._reader()
        with self._engine.admit():
            async with asyncio.timeout(self._deadline_seconds):
                decoded, outcome, decode_seconds = await self._examine(ready, data, wanted, read)
                drawing = perf_counter()
                picture = await self._in_pool(partial(draw_overlay, data, ready.card, decoded, outcome, read))
        inspection = self._finish(ready, decoded, outcome, None, wanted.part_info, started, decode_seconds, drawing)
        return inspection, picture

    async def _inspect_admitted(self, ready: Ready, data: bytes, wanted: Wanted) -> Inspection:
        started, read = perf_counter(), self._reader()
        async with asyncio.timeout(self._deadline_seconds):
            decoded, outcome, decode_seconds = await self._examine(ready, data, wanted, read)
            drawing = perf_counter()
            localization = None
            if outcome.evidence is not None:
                localization = await self._in_pool(partial(localize, ready.card, decoded, outcome))
        return self._finish(ready, decoded, outcome, localization, wanted.part_info, started, decode_seconds, drawing)

    def _reader(self) -> Reader:
        """Reads one image, and raises `TimeoutError` when its deadline has passed."""
        return partial(self._decoders.read, until=monotonic() + self._deadline_seconds)

    async def _examine(self, ready: Ready, data: bytes, wanted: Wanted, read: Reader) -> tuple[Decoded, Outcome, float]:
        started = perf_counter()
        decoded = await self._in_pool(partial(decode, data, ready.card.preprocessor, self._limits, read))
        decode_seconds = perf_counter() - started
        outcome = await asyncio.wrap_future(self._engine.submit(_job(ready, decoded, wanted)))
        return decoded, outcome, decode_seconds

    async def _in_pool(self, work: Callable[[], T]) -> T:
        # In the context of the request, so that log lines written there contain its id.
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(copy_context().run, work))

    def _finish(
        self,
        ready: Ready,
        decoded: Decoded,
        outcome: Outcome,
        localization: Localization | None,
        part_info: PartInfo,
        started: float,
        decode_seconds: float,
        drawing: float,
    ) -> Inspection:
        now = perf_counter()
        inspection = answer(
            ready.card,
            decoded,
            outcome,
            localization,
            part_info,
            decode_seconds=decode_seconds,
            drawing_seconds=now - drawing if outcome.evidence is not None else 0.0,
            total_seconds=now - started,
        )
        self._telemetry.count_inspection(inspection)
        if (record := RECORD.get()) is not None:
            record.outcomes.append(inspection.decision)
            record.inspections.append((started, inspection))
        return inspection
