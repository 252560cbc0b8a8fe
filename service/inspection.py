"""The steps for one image: decode, queue, score, draw, answer. With the engine in the server, without it offline."""

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import numpy as np
from uuid_utils.compat import uuid7

from model.alignment import Found as Pose
from model.choices import MapForm, Reason
from model.detector import batches_of
from model.preprocessing import Layout
from model.quality import Look, look_of
from model.reading import Reading
from model.region import Rectangle
from model.store.card import Card
from service.catalogue import Ready
from service.choices import Localize
from service.decoding.pool import Decoders
from service.decoding.work import Picture, Shrink, Step, read_picture
from service.device.engine import Engine
from service.device.jobs import Job, Outcome
from service.device.torch_backend import inspect_jobs
from service.history.records import Record
from service.observe.logs import RECORD
from service.observe.telemetry import Telemetry
from service.part_info import PartInfo
from service.problems import Problem, problem_of
from service.rendering import Heat, back, drawn_size, heat_of, localization_of, overlay_of, png
from service.schemas import (
    AlignmentInfo,
    Box,
    Decision,
    ImageInfo,
    Inspection,
    Localization,
    ProblemBody,
    TileVerdict,
    TimingMs,
    ZoneVerdict,
)

if TYPE_CHECKING:  # the command line needs no database
    from service.history.history import History

T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """The input of the networks, and facts about the picture.

    Attributes:
        pixels: of its views, uint8 RGB ``[V, size, size, 3]``.
        layout: of its views, on the aligned picture.
        info: for the answer.
        look: its plain measures; None where the category has no check of pictures.
        pose: of its part; None where pictures are not aligned.
    """

    pixels: np.ndarray
    layout: Layout
    info: ImageInfo
    look: Look | None
    pose: Pose | None

    @property
    def not_aligned(self) -> bool:
        """Whether its part was looked for and not found."""
        return self.pose is not None and not self.pose.aligned


@dataclass(frozen=True)
class Found:
    """What was found in a picture.

    Attributes:
        outcomes: of its views.
        seconds: from the first wait for the device to the last result.
    """

    outcomes: Sequence[Outcome]
    seconds: float

    @property
    def has_maps(self) -> bool:
        """Whether a view has a map."""
        return any(outcome.evidence is not None for outcome in self.outcomes)

    @property
    def seconds_of_stages(self) -> tuple[float, float, float]:
        """Waiting for the device, the scores, and the gradients. Several views have the scores and gradients of all
        batches that they were in; the rest of the time they waited, also while batches of others were computed."""
        if len(self.outcomes) == 1:
            (one,) = self.outcomes
            return one.queue_seconds, one.inference_seconds, one.localization_seconds
        inference: dict[float, float] = {}
        localization: dict[float, float] = {}
        for one in self.outcomes:
            inference[one.started] = max(inference.get(one.started, 0.0), one.inference_seconds)
            localization[one.started] = max(localization.get(one.started, 0.0), one.localization_seconds)
        scoring, locating = sum(inference.values()), sum(localization.values())
        return max(0.0, self.seconds - scoring - locating), scoring, locating


@dataclass(frozen=True)
class Limits:
    """Largest allowed image: bytes of the file, and pixels that its header declares."""

    image_bytes: int
    image_pixels: int


Reader = Callable[[bytes, Step], Picture]
"""Decodes an image file and applies a step, in this process or another."""


def decode(data: bytes, ready: Ready, limits: Limits, read: Reader) -> Decoded:
    """Reads an image from the bytes of its file, as its category has it.

    Raises:
        Problem: 400 if there are no bytes, 413 if there are too many.
        ImageError, TimeoutError, DecoderLostError: see `service.decoding.pool.Decoders.read`.
    """
    if not data:
        raise Problem("empty-body")
    if len(data) > limits.image_bytes:
        raise Problem("too-many-bytes", what="the image", limit=limits.image_bytes)
    return decoded_of(read(data, ready.preprocessing), ready)


def decoded_of(picture: Picture, ready: Ready) -> Decoded:
    """What a category sees of a picture that its preprocessing has made."""
    info = ImageInfo(width=picture.width, height=picture.height, sha256=picture.sha256)
    layout = ready.preprocessing.layout(picture.width, picture.height)
    look = None
    if ready.card.picture_check is not None:
        look = look_of(picture.pixels, picture.width / picture.height, layout.masks)
    return Decoded(picture.pixels, layout, info, look, picture.pose)


@dataclass(frozen=True)
class Wanted:
    """Which localization a request asks for, in addition to the score, and what it says of the part.

    Attributes:
        localize: whether to locate the fault.
        form: form of the map; None for the category's default.
        part_info: what the answer repeats.
        part: name of the card of the part whose view the image is.
        part_inspection: id of the answer for that part.
    """

    localize: Localize = Localize.AUTO
    form: MapForm | None = None
    part_info: PartInfo = field(default_factory=PartInfo)
    part: str | None = None
    part_inspection: UUID | None = None

    def check(self, card: Card) -> None:
        """Raises `Problem` 422 if the category has no such map."""
        if self.form is not None and card.scale_of(self.form) is None:
            raise Problem("unknown-map", category=card.category, form=self.form.value)


def localize(card: Card, decoded: Decoded, found: Found) -> Localization | None:
    """The heat map, mask and regions of the answer, or None if no map was computed."""
    heat = _heat(card, decoded, found)
    forms = [outcome.evidence.form for outcome in found.outcomes if outcome.evidence is not None]
    return None if heat is None else localization_of(heat, forms[0])


def draw_overlay(data: bytes, card: Card, decoded: Decoded, found: Found, read: Reader) -> bytes:
    """The overlay as PNG. Decodes the image again, because full images are not kept while they wait for the device."""
    size = drawn_size(decoded.info.width, decoded.info.height)
    picture = read(data, Shrink(*size, card.preprocessor.reading))
    return png(overlay_of(picture.pixels, _heat(card, decoded, found)))


def _heat(card: Card, decoded: Decoded, found: Found) -> Heat | None:
    if not found.has_maps:
        return None
    evidence = [outcome.evidence for outcome in found.outcomes]
    scale = card.scale_of(next(one.form for one in evidence if one is not None))
    assert scale is not None
    maps = [None if one is None else one.anomaly_map() for one in evidence]
    heat = heat_of(decoded.layout, maps, decoded.pixels, scale)
    return heat if decoded.pose is None else back(heat, decoded.pose, decoded.info.width, decoded.info.height)


def answer(
    card: Card,
    decoded: Decoded,
    found: Found,
    localization: Localization | None,
    part_info: PartInfo,
    *,
    decode_seconds: float,
    drawing_seconds: float,
    total_seconds: float,
) -> Inspection:
    """Builds the answer for one image."""
    scores, score, reasons = judge(card, decoded, found.outcomes)
    queue, inference, localizing = found.seconds_of_stages
    return Inspection(
        **dict(part_info),
        category=card.category,
        model_version=card.model_version,
        score=score,
        threshold=card.calibration.threshold,
        calibration=card.calibration.method,
        separates=card.calibration.separates,
        decision=decision_of(bool(reasons)),
        verdict=card.verdict(score, reasons),
        reasons=reasons,
        alignment=_alignment(decoded),
        zones=_zones(card, decoded.layout, scores),
        tiles=_tiles(card, decoded, scores),
        localization=localization,
        image=decoded.info,
        timing_ms=TimingMs(
            decode=1000 * decode_seconds,
            queue=1000 * queue,
            inference=1000 * inference,
            localization=1000 * (localizing + drawing_seconds),
            total=1000 * total_seconds,
        ),
    )


def judge(card: Card, decoded: Decoded, outcomes: Sequence[Outcome]) -> tuple[np.ndarray, float, list[Reason]]:
    """The scores of the views of a picture, its own score, and why it is anomalous."""
    scores = np.array([outcome.score for outcome in outcomes])
    score = float(card.part_scores(scores)[0])
    return scores, score, card.reasons(score, decoded.look, decoded.pose)


def decision_of(rejected: bool) -> Decision:
    """The word for it."""
    return "anomalous" if rejected else "normal"


def _zones(card: Card, layout: Layout, scores: np.ndarray) -> list[ZoneVerdict] | None:
    region = card.preprocessing.region
    if region is None:
        return None
    of_views = scores * card.sensitivities
    found = []
    for zone in region.zones:
        views = [index for index, view in enumerate(layout.views) if view.zone == zone.name]
        found.append(
            ZoneVerdict(
                name=zone.name,
                score=scores[views].max(),
                threshold=card.threshold_of(zone.name),
                decision=decision_of(card.calibration.rejects(float(of_views[views].max()))),
            )
        )
    return found


def _alignment(decoded: Decoded) -> AlignmentInfo | None:
    if decoded.pose is None:
        return None
    first, second = map(tuple, decoded.pose.matrix.tolist())
    return AlignmentInfo(matrix=(first, second), quality=decoded.pose.quality, seen=decoded.pose.seen)


def _tiles(card: Card, decoded: Decoded, scores: np.ndarray) -> list[TileVerdict] | None:
    if card.preprocessing.tiles is None:
        return None
    of_views = (scores * card.sensitivities).tolist()
    return [
        TileVerdict(
            zone=view.zone,
            box=_box(view.box, decoded),
            score=score,
            decision=decision_of(card.calibration.rejects(weighed)),
        )
        for view, score, weighed in zip(decoded.layout.views, scores.tolist(), of_views, strict=True)
    ]


def _box(rectangle: Rectangle, decoded: Decoded) -> Box:
    """The smallest box of the photograph that holds a rectangle of the aligned picture."""
    if decoded.pose is not None:
        rectangle = decoded.pose.around(rectangle, decoded.info.width, decoded.info.height)
    left, top, right, bottom = rectangle
    return Box(x=left, y=top, width=right - left, height=bottom - top)


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
    decoded = decode(data, ready, limits, read)
    decode_seconds = perf_counter() - started
    waiting, jobs = perf_counter(), jobs_of(ready, decoded, wanted)
    outcomes: list[Outcome] = []
    for batch in batches_of(ready.detector(), decoded.pixels):
        outcomes += inspect_jobs(jobs[len(outcomes) : len(outcomes) + len(batch)])
    drawing = perf_counter()
    found = Found(outcomes, drawing - waiting)
    localization = localize(ready.card, decoded, found)
    now = perf_counter()
    inspection = answer(
        ready.card,
        decoded,
        found,
        localization,
        wanted.part_info,
        decode_seconds=decode_seconds,
        drawing_seconds=now - drawing,
        total_seconds=now - started,
    )
    return inspection, draw_overlay(data, ready.card, decoded, found, read) if with_overlay else None


def jobs_of(ready: Ready, decoded: Decoded, wanted: Wanted) -> list[Job]:
    """What the device does for a picture: one job for each view."""
    card, masks = ready.card, decoded.layout.masks
    form = wanted.form or card.map_form

    def rejects(sensitivity: float, score: float) -> bool:
        return decoded.not_aligned or card.calibration.rejects(score * sensitivity)

    return [
        Job(
            pixels,
            ready.teacher,
            ready.detector,
            partial(rejects, sensitivity),
            wanted.localize,
            form,
            None if masks is None else masks[view],
        )
        for view, (pixels, sensitivity) in enumerate(zip(decoded.pixels, card.sensitivities.tolist(), strict=True))
    ]


class Inspector:
    """Sends images through the decoders, the engine and the drawing threads.

    Args:
        engine: owns the device.
        pool: threads that draw, and wait for the decoders.
        decoders: as many processes as the pool has threads.
        limits: largest allowed image.
        deadline_seconds: longest time from the arrival of the whole body to the answer.
        telemetry: counts every image.
        history: remembers every image; None if it is off.
        on_judged: called with every image that was judged, after its record is made; must not wait.
    """

    def __init__(
        self,
        engine: Engine[Job, Outcome],
        pool: ThreadPoolExecutor,
        decoders: Decoders,
        limits: Limits,
        deadline_seconds: float,
        telemetry: Telemetry,
        history: "History | None" = None,
        on_judged: Callable[[Ready, bytes, Decoded, UUID], None] = lambda ready, data, decoded, identity: None,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._decoders = decoders
        self._limits = limits
        self._deadline_seconds = deadline_seconds
        self._telemetry = telemetry
        self._history = history
        self._on_judged = on_judged

    async def inspect(self, ready: Ready, data: bytes, wanted: Wanted) -> Inspection:
        """The JSON answer for one image.

        Raises:
            Problem: if the image cannot be judged.
            QueueFullError, EngineClosedError: if it is not accepted.
        """
        with self._engine.admit(ready.views):
            return await self._inspect_admitted(ready, data, wanted)

    async def inspect_many(
        self, images: Sequence[tuple[Ready, bytes]], wanted: Wanted
    ) -> list[Inspection | ProblemBody]:
        """The answers for many images in order, each for its category; for an image that fails, its problem.

        Raises:
            QueueFullError, EngineClosedError: if none of the images is accepted.
            Problem: 413 if their views are more than the queue takes.
        """

        async def one(ready: Ready, data: bytes) -> Inspection | ProblemBody:
            try:
                return await self._inspect_admitted(ready, data, wanted)
            except Problem as problem:
                return self.refuse(ready.category, problem)

        views = sum(ready.views for ready, _ in images)
        if views > self._engine.most:
            raise Problem(
                "too-many-images",
                allowed=f"fewer at once: they make {views} images for the networks, and the queue takes "
                f"{self._engine.most}",
            )
        with self._engine.admit(views):
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
        with self._engine.admit(ready.views):

            async def draw(decoded: Decoded, found: Found, read: Reader) -> bytes:
                return await self._in_pool(partial(draw_overlay, data, ready.card, decoded, found, read))

            return await self._judge(ready, data, wanted, draw)

    async def check_readable(self, data: bytes, step: Step) -> None:
        """Decodes an image as an inspection does, and drops it. It is neither counted nor remembered.

        Raises:
            ImageError, TimeoutError, DecoderLostError: see `service.decoding.pool.Decoders.read`.
        """
        until = monotonic() + self._deadline_seconds
        await self._in_pool(partial(self._decoders.read, data, step, until))

    async def heatmap(self, ready: Ready, data: bytes) -> bytes:
        """The heat map of an image that was judged before, as PNG. It is neither counted nor remembered.

        Raises:
            As `inspect`, and TimeoutError.
        """

        def draw(decoded: Decoded, found: Found, _: Reader) -> bytes:
            localization = localize(ready.card, decoded, found)
            assert localization is not None
            return b64decode(localization.heatmap_png)

        return await self._draw_again(ready, data, draw)

    async def overlay_again(self, ready: Ready, data: bytes) -> bytes:
        """The overlay of an image that was judged before, as PNG. It is neither counted nor remembered.

        Raises:
            As `inspect`, and TimeoutError.
        """

        def draw(decoded: Decoded, found: Found, read: Reader) -> bytes:
            return draw_overlay(data, ready.card, decoded, found, read)

        return await self._draw_again(ready, data, draw)

    async def _draw_again(self, ready: Ready, data: bytes, draw: Callable[[Decoded, Found, Reader], bytes]) -> bytes:
        read = self._reader()
        with self._engine.admit(ready.views):
            async with asyncio.timeout(self._deadline_seconds):
                decoded, found, _ = await self._examine(ready, data, Wanted(Localize.ALWAYS), read)
                return await self._in_pool(partial(draw, decoded, found, read))

    async def thumbnail(self, data: bytes, width: int, height: int, reading: Reading) -> bytes:
        """The image at this size in pixels, as PNG.

        Raises:
            ImageError, TimeoutError, DecoderLostError: see `service.decoding.pool.Decoders.read`.
        """
        read = self._reader()
        return await self._in_pool(lambda: png(read(data, Shrink(width, height, reading)).pixels))

    async def _inspect_admitted(self, ready: Ready, data: bytes, wanted: Wanted) -> Inspection:
        async def draw(decoded: Decoded, found: Found, _: Reader) -> Localization | None:
            return await self._in_pool(partial(localize, ready.card, decoded, found)) if found.has_maps else None

        inspection, _ = await self._judge(ready, data, wanted, draw)
        return inspection

    async def _judge(
        self, ready: Ready, data: bytes, wanted: Wanted, draw: Callable[[Decoded, Found, Reader], Awaitable[T]]
    ) -> tuple[Inspection, T]:
        """The answer for one image, and what was drawn for it. Either it, or the problem, is remembered.

        Raises:
            Problem: if there is no answer.
        """
        started, read = perf_counter(), self._reader()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                decoded, found, decode_seconds = await self._examine(ready, data, wanted, read)
                drawing = perf_counter()
                drawn = await draw(decoded, found, read)
            localization = drawn if isinstance(drawn, Localization) else None
            inspection = self._finish(
                ready, decoded, found, localization, wanted.part_info, started, decode_seconds, drawing
            )
        except Exception as error:
            problem = problem_of(error)
            await self._remember(ready, data, wanted, problem.body(), uuid7(), problem.kind)
            raise problem from error
        await self._remember(ready, data, wanted, inspection, inspection.id, inspection.decision, decoded.look)
        self._on_judged(ready, data, decoded, inspection.id)
        return inspection, drawn

    async def _remember(
        self,
        ready: Ready,
        data: bytes,
        wanted: Wanted,
        result: Inspection | ProblemBody,
        identity: UUID,
        outcome: str,
        look: Look | None = None,
    ) -> None:
        if self._history is None:
            return
        request = RECORD.get()
        await self._history.remember(
            Record(
                id=identity,
                category=ready.category,
                model_version=ready.card.model_version,
                result=result,
                outcome=outcome,
                data=data,
                size=len(data),
                part_info=wanted.part_info,
                part=wanted.part,
                part_inspection=wanted.part_inspection,
                request_id=None if request is None else request.request_id,
                look=look,
            )
        )

    def _reader(self) -> Reader:
        """Reads one image, and raises `TimeoutError` when its deadline has passed."""
        return partial(self._decoders.read, until=monotonic() + self._deadline_seconds)

    async def _examine(self, ready: Ready, data: bytes, wanted: Wanted, read: Reader) -> tuple[Decoded, Found, float]:
        started = perf_counter()
        decoded = await self._in_pool(partial(decode, data, ready, self._limits, read))
        waiting = perf_counter()
        views = [asyncio.wrap_future(self._engine.submit(job)) for job in jobs_of(ready, decoded, wanted)]
        try:
            outcomes = await asyncio.gather(*views)
        finally:
            for view in views:  # where one has failed, the others are of no use
                view.cancel()
        return decoded, Found(outcomes, perf_counter() - waiting), waiting - started

    async def _in_pool(self, work: Callable[[], T]) -> T:
        # In the context of the request, so that log lines written there contain its id.
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(copy_context().run, work))

    def _finish(
        self,
        ready: Ready,
        decoded: Decoded,
        found: Found,
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
            found,
            localization,
            part_info,
            decode_seconds=decode_seconds,
            drawing_seconds=now - drawing if found.has_maps else 0.0,
            total_seconds=now - started,
        )
        self._telemetry.count_inspection(inspection)
        self._telemetry.recent.add(ready.card, inspection.score, decoded.look)
        if (record := RECORD.get()) is not None:
            record.outcomes.append(inspection.decision)
            record.inspections.append((started, inspection))
        return inspection
