"""Candidates: versions that score what was inspected, in idle time, to be compared with the version that decided.

Nothing here delays an answer. An image is offered after it was judged; the device and the decoders work on it while no
image is admitted, one step at a time. What does not fit into a short queue is left out and counted.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

from model.measures import mcnemar
from model.store.version import Stamp
from service.catalogue import NoSuchCandidateError, Ready, VersionRefusedError, error_rates_of
from service.choices import Localize
from service.decoding.pool import Decoders
from service.decoding.work import Picture
from service.device.engine import Engine
from service.device.jobs import Job, Outcome
from service.inspection import Decoded, Limits, Wanted, decision_of, decode, decoded_of, jobs_of, judge
from service.observe.telemetry import Telemetry
from service.schemas import Candidate, CandidateStatus, ChangedDecision, Comparison, LabelledComparison
from service.versions import Versions

if TYPE_CHECKING:
    from service.history.database import Database
    from service.history.history import History
    from service.history.records import Row

MOST_WAITING = 64
"""Images that wait for idle time."""
MOST_WAITING_BYTES = 64 << 20
SIGNIFICANT = 0.05
"""A p-value below this is taken as proof that two versions differ."""
MOST_CHANGED = 100
"""Inspections of which the candidate says something else that an answer lists."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Trial:
    """A candidate as this process knows it.

    Attributes:
        stamp: of its files.
        entry: None if it is refused.
        reason: why it is refused.
        scored: inspections that it has scored; None until the database was asked.
        skipped: images that were left out since it was read.
        failed: images on which it failed since then.
    """

    stamp: Stamp
    entry: Ready | None = None
    reason: str | None = None
    scored: int | None = None
    skipped: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Waiting:
    """An image that waits for idle time: as it is decoded already, or else its file."""

    trial: _Trial
    identity: UUID
    picture: Picture | None
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data) + (0 if self.picture is None else self.picture.pixels.nbytes)


class Shadow:
    """Has candidates score what was inspected. Call all methods on the event loop.

    Args:
        engine: owns the device.
        versions: reads candidates.
        decoders: decode again where a candidate prepares images differently.
        limits: largest allowed image.
        telemetry: counts every image.
        history: keeps the scores; None if it is off.
        wanted: inspections that each candidate is to score.
        deadline_seconds: longest time for decoding an image.
    """

    def __init__(
        self,
        engine: Engine[Job, Outcome],
        versions: Versions,
        decoders: Decoders,
        limits: Limits,
        telemetry: Telemetry,
        history: "History | None",
        wanted: int,
        deadline_seconds: float,
    ) -> None:
        self._engine = engine
        self._versions = versions
        self._decoders = decoders
        self._limits = limits
        self._telemetry = telemetry
        self._history = history
        self._wanted = wanted
        self._deadline_seconds = deadline_seconds
        self._trials: dict[str, _Trial] = {}
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(MOST_WAITING)
        self._bytes = 0
        self._looking = asyncio.Lock()

    async def look(self) -> None:
        """Reads candidates that are new on the disk or have changed, and forgets those that are gone."""
        async with self._looking:
            try:
                found = await asyncio.to_thread(self._versions.candidates)
            except OSError as error:
                log.error("the candidates cannot be read: %s", error)
                return
            for category in self._trials.keys() - found.keys():
                del self._trials[category]
            for category, stamp in found.items():
                if category not in self._trials or self._trials[category].stamp != stamp:
                    await self._read(category, stamp)

    def has_candidate(self, category: str) -> bool:
        """Whether a candidate of it was read, or refused."""
        return category in self._trials

    async def _read(self, category: str, stamp: Stamp) -> None:
        trial = _Trial(stamp)
        try:
            trial.entry = await asyncio.wrap_future(self._engine.call_in_steps(self._versions.candidate(category)))
        except (VersionRefusedError, NoSuchCandidateError) as error:
            trial.reason = str(error)
            log.error("%s", error)
        else:
            log.info("category %s has the candidate %s", category, trial.entry.card.model_version)
        self._trials[category] = trial

    def offer(self, ready: Ready, data: bytes, decoded: Decoded, identity: UUID) -> None:
        """Has the candidate of a category, if there is one, score an image that was judged. Returns at once.

        Args:
            ready: the category as it judged the image.
            data: the file.
            decoded: what it saw of it.
            identity: of the inspection.
        """
        trial = self._trials.get(ready.category)
        if trial is None or trial.entry is None or not self._is_wanted(trial):
            return
        waiting = _Waiting(trial, identity, None, data)
        if trial.entry.preprocessing == ready.preprocessing:
            info = decoded.info
            picture = Picture(decoded.pixels, info.width, info.height, info.sha256, decoded.pose)
            waiting = _Waiting(trial, identity, picture, b"")
        if self._queue.full() or self._bytes + waiting.size > MOST_WAITING_BYTES:
            self._skip(trial)
            return
        self._bytes += waiting.size
        self._queue.put_nowait(waiting)

    def _is_wanted(self, trial: _Trial) -> bool:
        return self._history is not None and (trial.scored or 0) < self._wanted

    def _skip(self, trial: _Trial) -> None:
        trial.skipped += 1
        self._telemetry.shadow.labels("skipped").inc()

    async def run(self) -> None:
        """Scores what waits, one image after the other, until it is cancelled."""
        while True:
            waiting = await self._queue.get()
            self._bytes -= waiting.size
            trial = waiting.trial
            try:
                result = await self._score(waiting)
            except Exception as error:
                trial.failed += 1
                self._telemetry.shadow.labels("failed").inc()
                log.warning("a candidate failed on the image of inspection %s: %r", waiting.identity, error)
            else:
                if result:
                    self._telemetry.shadow.labels("scored").inc()

    async def _score(self, waiting: _Waiting) -> bool:
        """Whether the image was scored; else it is not wanted any more."""
        trial, entry, history = waiting.trial, waiting.trial.entry, self._history
        assert entry is not None
        assert history is not None
        version = entry.card.model_version
        if trial.scored is None:
            trial.scored = await history.ask(lambda database: database.count_shadow(version))
        if not self._is_wanted(trial) or self._trials.get(entry.category) is not trial:
            return False
        await asyncio.wrap_future(self._engine.call_when_idle(lambda: None))
        decoded = await asyncio.to_thread(self._decoded, waiting, entry)
        jobs = jobs_of(entry, decoded, Wanted(Localize.NEVER))
        outcomes = [await asyncio.wrap_future(self._engine.submit_when_idle(job)) for job in jobs]
        _, score, reasons = judge(entry.card, decoded, outcomes)
        row: Row = {
            "model_version": version,
            "inspection": waiting.identity,
            "score": score,
            "threshold": entry.card.calibration.threshold,
            "outcome": decision_of(bool(reasons)),
        }
        await history.ask(lambda database: database.add_shadow(row))
        trial.scored += 1
        return True

    def _decoded(self, waiting: _Waiting, entry: Ready) -> Decoded:
        if waiting.picture is not None:
            return decoded_of(waiting.picture, entry)
        read = partial(self._decoders.read, until=monotonic() + self._deadline_seconds)
        return decode(waiting.data, entry, self._limits, read)

    async def describe(self, category: str, in_force: str | None) -> Candidate:
        """The candidate of a category, compared with the version in force.

        Args:
            category: its name.
            in_force: the version that decides; None if none does.

        Raises:
            NoSuchCandidateError: if there is none.
            HistoryUnavailableError: if the database is away.
        """
        trial = self._trials.get(category)
        if trial is None:
            raise NoSuchCandidateError(
                f"there is no candidate of {category!r}; `eca-inspect train {category} --candidate` makes one"
            )
        history, card = self._history, None if trial.entry is None else trial.entry.card
        rates = None if card is None else await asyncio.to_thread(error_rates_of, card)
        version = None if card is None else card.model_version
        scored, comparison = 0, None
        if history is not None and version is not None:
            scored = await history.ask(lambda database: database.count_shadow(version))
            if in_force is not None:
                comparison = await history.ask(partial(_compare, version, in_force))
        return Candidate(
            category=category,
            status=self._status(trial, scored, in_force),
            reason=trial.reason,
            model_version=version,
            threshold=None if card is None else card.calibration.threshold,
            calibration=None if card is None else card.calibration.method,
            training=None if card is None else card.training,
            error_rates=rates,
            wanted=self._wanted,
            scored=scored,
            skipped=trial.skipped,
            failed=trial.failed,
            comparison=comparison,
        )

    def _status(self, trial: _Trial, scored: int, in_force: str | None) -> CandidateStatus:
        if trial.entry is None:
            return "refused"
        if in_force is None:
            return "alone"
        if self._history is None or self._wanted == 0:
            return "off"
        return "complete" if scored >= self._wanted else "scoring"


def unproven(found: Candidate) -> str | None:
    """Why a comparison does not show that the candidate is better than the version in force; None if it does.

    Only a complete comparison counts: who asks again and again until chance agrees proves nothing.
    """
    if found.status == "refused":
        return f"the candidate cannot be used: {found.reason}"
    if found.status == "scoring":
        return f"the candidate has scored {found.scored} of {found.wanted} inspections"
    if found.status == "alone":
        return "there is no version in force to compare the candidate with"
    if found.comparison is None or found.status == "off":
        return "nothing is compared here"
    labelled = found.comparison.labelled
    if labelled.proven == "candidate":
        return None
    return (
        f"of {labelled.normal + labelled.anomalous} labelled inspections only the candidate is right about "
        f"{labelled.only_candidate_right}, and only the version in force about {labelled.only_in_force_right}; two "
        f"equally good versions would differ so much with a probability of {labelled.p_value:.2g}"
    )


def _compare(candidate: str, in_force: str, database: "Database") -> Comparison:
    counts = database.compared(candidate, in_force)
    changed = database.changed_decisions(candidate, in_force, MOST_CHANGED)
    return comparison_of(in_force, counts, changed)


def comparison_of(in_force: str, counts: "Sequence[Row]", changed: "Sequence[Row]") -> Comparison:
    """The comparison of two versions.

    Args:
        in_force: the version that decided.
        counts: see `service.history.database.Database.compared`.
        changed: see `service.history.database.Database.changed_decisions`.
    """

    def count(decision: str | None = None, candidate: str | None = None, label: str | None = None) -> int:
        wanted = {"decision": decision, "candidate_decision": candidate, "label": label}
        given = {name: value for name, value in wanted.items() if value is not None}
        return sum(row["count"] for row in counts if all(row[name] == value for name, value in given.items()))

    normal, anomalous = "normal", "anomalous"
    total = count()
    to_anomalous, to_normal = count(normal, anomalous), count(anomalous, normal)
    only_in_force = count(normal, anomalous, normal) + count(anomalous, normal, anomalous)
    only_candidate = count(anomalous, normal, normal) + count(normal, anomalous, anomalous)
    p_value = mcnemar(only_in_force, only_candidate)
    return Comparison(
        model_version=in_force,
        inspections=total,
        agreement=None if total == 0 else 1 - (to_anomalous + to_normal) / total,
        to_anomalous=to_anomalous,
        to_normal=to_normal,
        labelled=LabelledComparison(
            normal=count(label=normal),
            anomalous=count(label=anomalous),
            false_alarms=count(anomalous, None, normal),
            misses=count(normal, None, anomalous),
            candidate_false_alarms=count(None, anomalous, normal),
            candidate_misses=count(None, normal, anomalous),
            only_in_force_right=only_in_force,
            only_candidate_right=only_candidate,
            p_value=p_value,
            proven=None if p_value >= SIGNIFICANT else "candidate" if only_candidate > only_in_force else "in-force",
        ),
        changed=[ChangedDecision.model_validate(row) for row in changed],
    )
