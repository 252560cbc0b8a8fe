"""The endpoints that watch a category: drift, the agreement of server and people, and the model card."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse

from model.lifecycle.model_card import model_card as make_model_card
from model.store.card import Card
from model.store.reading import StoreError
from model.store.store import Store
from service.choices import Role
from service.drift import WINDOW, assess
from service.history.agreement import months_agreement, page_of
from service.history.database import Database
from service.history.records import Row, time_of
from service.http.access import needs
from service.http.errors import documented
from service.http.headers import headers_for_page
from service.http.history import HistoryOf
from service.http.parameters import refuse_unknown_parameters
from service.http.routes import CategoryName, StateOf
from service.schemas import MEASURES, Agreement, Drift, DriftPoint

router = APIRouter(tags=["categories"], dependencies=[Depends(refuse_unknown_parameters)])

MOST_WINDOW = 2000
MOST_POINTS = 100
STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


@router.get(
    "/v1/categories/{category}/drift",
    summary="How far the pictures are from the calibration",
    responses=documented(
        "unknown-category", "category-refused", "invalid-request", "history-off", "history-unavailable"
    ),
)
@needs(Role.INSPECT)
async def drift(
    category: CategoryName,
    state: StateOf,
    history: HistoryOf,
    window: Annotated[
        int, Query(ge=1, le=MOST_WINDOW, description="How many of the last inspections are compared")
    ] = WINDOW,
    per: Annotated[Literal["hour", "day"], Query(description="Step of the series, UTC")] = "day",
    points: Annotated[int, Query(ge=0, le=MOST_POINTS, description="Steps of the series")] = 30,
) -> Drift:
    """Compares score, brightness, contrast, sharpness and aspect ratio of the last inspections with the normal images
    of the calibration. No labels are needed."""
    card, now = state.catalogue.require(category).card, datetime.now(UTC)

    def look(database: Database) -> Drift:
        rows = database.measures(category, card.model_version, window)
        measures = assess(card, _by_measure(rows))
        return Drift(
            category=category,
            model_version=card.model_version,
            threshold=card.calibration.threshold,
            since=time_of(rows[-1]["id"]) if rows else None,
            until=time_of(rows[0]["id"]) if rows else None,
            drifted=any(one.drifted for one in measures),
            measures=measures,
            series=list(_series(database, card, _start_of(now, per), STEPS[per], points)),
        )

    return await history.ask(look)


@router.get(
    "/v1/categories/{category}/agreement",
    summary="How far the server and people agree",
    response_model=Agreement,
    responses={
        200: {"description": "Kappa and tables", "content": {"text/html": {"schema": {"type": "string"}}}},
        **documented("unknown-category", "invalid-request", "history-off", "history-unavailable"),
    },
)
@needs(Role.INSPECT)
async def agreement(
    category: CategoryName,
    state: StateOf,
    history: HistoryOf,
    month: Annotated[
        str | None,
        Query(pattern=r"^20\d\d-(0[1-9]|1[0-2])$", description="Such as `2026-11`, UTC; else the present one"),
    ] = None,
    form: Annotated[Literal["json", "html"], Query(alias="format", description="html: a page to be printed")] = "json",
) -> Response:
    """Cohen's kappa between the server's decisions and the labels, and between people who labelled the same parts."""
    state.catalogue.find(category)
    chosen = month or f"{datetime.now(UTC):%Y-%m}"
    found = await history.ask(lambda database: months_agreement(database, category, chosen))
    return _as_page(page_of(found)) if form == "html" else JSONResponse(found.model_dump(mode="json"))


@router.get(
    "/v1/categories/{category}/model-card",
    summary="The model card of the version that serves",
    response_class=HTMLResponse,
    responses=documented("unknown-category", "category-refused", "invalid-request"),
)
@needs(Role.INSPECT)
async def model_card(category: CategoryName, state: StateOf) -> Response:
    """Data, training, threshold, error rates and known limits, as a page to be printed."""
    card, settings = state.catalogue.require(category).card, state.settings

    def make() -> str:
        store = Store(settings.weights, settings.teachers_folder)
        seen = None
        with suppress(StoreError):  # the disk may have another version, or none
            if store.card(category).model_version == card.model_version:
                seen = store.seen(category)
        return make_model_card(card, seen)

    return _as_page(await asyncio.to_thread(make))


def _as_page(page: str) -> Response:
    return HTMLResponse(page, headers=headers_for_page(page))


def _by_measure(rows: list[Row]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows], np.float64) for name in MEASURES}


def _start_of(time: datetime, per: str) -> datetime:
    return time.replace(hour=time.hour if per == "hour" else 0, minute=0, second=0, microsecond=0)


def _series(database: Database, card: Card, last: datetime, step: timedelta, points: int) -> Iterator[DriftPoint]:
    for back in reversed(range(points)):
        since = last - back * step
        rows = database.measures(card.category, card.model_version, WINDOW, since, since + step)
        medians = {}
        for name, values in _by_measure(rows).items():
            known = values[~np.isnan(values)]
            medians[name] = float(np.median(known)) if len(known) else None
        yield DriftPoint(since=since, until=since + step, images=len(rows), **medians)
