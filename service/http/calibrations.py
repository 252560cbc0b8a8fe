"""The endpoint that sets a threshold anew from the labels of the history."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError

from model.calibration import CalibrationError
from model.choices import FalseAlarmTarget
from model.lifecycle.thresholds import ReviewRule, Rule
from model.store.store import ChangedMeanwhileError, Store, StoreNotWritableError
from model.store.version import StoreError
from service.calibrating import Asked, Prepared, prepare, summary_of
from service.catalogue import error_rates_of
from service.choices import Role
from service.http.access import ACTOR, needs
from service.http.bodies import read_json_body
from service.http.errors import documented
from service.http.history import SCHEMA, HistoryOf, reason_of
from service.http.parameters import refuse_unknown_parameters
from service.http.routes import CategoryName
from service.problems import Problem
from service.schemas import Calibrated, CalibrationOrder
from service.state import State, state_of

calibration_router = APIRouter(tags=["categories"], dependencies=[Depends(refuse_unknown_parameters)])

ORDER_BYTES = 64 << 10
"""Longest body."""


@calibration_router.post(
    "/v1/categories/{category}/calibrations",
    summary="Set the threshold from labels",
    responses=documented(
        "unknown-category", "category-refused", "calibration-refused", "category-changed", "weights-not-changed",
        "reload-refused", "invalid-request", "unsupported-media-type", "too-many-bytes", "upload-timeout",
        "history-off", "history-unavailable", "device-lost", "shutting-down",
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": CalibrationOrder.model_json_schema(ref_template=SCHEMA)}},
        }
    },
)  # fmt: skip
@needs(Role.ADMIN)
async def calibrate(
    request: Request, category: CategoryName, state: Annotated[State, Depends(state_of)], history: HistoryOf
) -> Calibrated:
    """Finds a threshold from the labelled inspections of the history, writes it as a new version, and serves that one.
    The version before is kept, and a rollback goes back to it."""
    ready = state.catalogue.require(category)
    order = _read_order(await read_json_body(request, ORDER_BYTES))
    store = Store(state.settings.weights, state.settings.teachers_folder)
    target = None
    if order.max_false_alarms is not None:
        target = FalseAlarmTarget(order.max_false_alarms, order.with_confidence)
    review = _review_of(order)
    asked = Asked(Rule(order.threshold, target, review=review), order.since, order.until)
    try:
        prepared = await history.ask(lambda database: prepare(store, database, category, asked))
    except (CalibrationError, StoreError) as error:
        raise Problem("calibration-refused", reason=error) from None
    if prepared.before.model_version != ready.card.model_version:
        reason = (
            f"version {prepared.before.model_version} lies in the folder of {category!r}, and version "
            f"{ready.card.model_version} serves; reload the category, or roll it back, and repeat the call"
        )
        raise Problem("category-changed", reason=reason)
    answer = _answer(prepared, dry_run=order.dry_run)
    if not order.dry_run:
        await _serve(state, store, prepared)
        before, after = (one.model_dump() for one in (answer.before, summary_of(prepared.card)))
        await history.note(request.scope.get(ACTOR), "calibrate", category, before, after | {"reason": order.reason})
    return answer


def _read_order(data: bytes) -> CalibrationOrder:
    try:
        return CalibrationOrder.model_validate_json(data)
    except ValidationError as error:
        raise Problem("invalid-request", reason=reason_of(error)) from None


def _review_of(order: CalibrationOrder) -> ReviewRule | None:
    if order.review is not None:
        return ReviewRule((order.review.low, order.review.high))
    if order.review_false_passes is None and order.review_false_rejects is None:
        return None
    return ReviewRule(None, order.review_false_passes, order.review_false_rejects)


async def _serve(state: State, store: Store, prepared: Prepared) -> None:
    """Writes the version and serves it; or neither.

    Raises:
        Problem: 409 if it cannot be written.
        VersionRefusedError, DeviceLostError, EngineClosedError: if it cannot be served; it is taken back.
    """
    try:
        await asyncio.to_thread(prepared.write, store)
    except ChangedMeanwhileError as error:
        raise Problem("category-changed", reason=f"{error}; repeat the call") from None
    except (StoreNotWritableError, OSError) as error:
        reason = (
            f"nothing is changed: {error}; where the folder can be written, `eca-inspect calibrate "
            f"{prepared.card.category} --from-history` does the same"
        )
        raise Problem("weights-not-changed", reason=reason) from None
    try:
        work = state.versions.reload(prepared.card.category)
        await asyncio.wrap_future(state.engine.call_in_steps(work))
        await state.shadow.look()
    except BaseException:
        await asyncio.to_thread(prepared.take_back, store)
        raise


def _answer(prepared: Prepared, *, dry_run: bool) -> Calibrated:
    return Calibrated(
        **summary_of(prepared.card).model_dump(),
        category=prepared.card.category,
        dry_run=dry_run,
        before=summary_of(prepared.before),
        error_rates=error_rates_of(prepared.card),
        review=prepared.card.calibration.review,
        labels=prepared.labels,
        left_out=prepared.left_out,
        remarks=prepared.remarks,
    )
