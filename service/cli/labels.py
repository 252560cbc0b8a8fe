"""``calibrate --from-history``: the same as the server's calibration from labels, without the server."""

from getpass import getuser
from typing import TYPE_CHECKING

import typer

from service.cli.errors import UsageError
from service.settings import Settings

if TYPE_CHECKING:
    from model.lifecycle.thresholds import Rule
    from service.schemas import CalibrationOrder


def calibrate_from_history(
    settings: Settings,
    category: str,
    rule: "Rule",
    since: str | None,
    until: str | None,
    reason: str | None,
    *,
    dry_run: bool,
) -> None:
    """Sets a threshold from labels, and notes it in the log of changes.

    Raises:
        UsageError: if there is no history, or the options do not go together.
        CalibrationError, StoreError, HistoryUnavailableError: see `service.calibrating.prepare`.
        ChangedMeanwhileError, StoreNotWritableError: see `service.calibrating.Prepared.write`.
    """
    from model.store.store import Store
    from service.calibrating import Asked, prepare, summary_of
    from service.cli.samples import report_promise
    from service.history.database import Database

    order = _order(rule, since, until, reason, dry_run)
    if settings.database_url is None:
        raise UsageError("there is no history: INSPECT_DATABASE is none")
    store, database = Store(settings.weights, settings.teachers_folder), Database(settings.database_url)
    try:
        database.prepare()
        prepared = prepare(store, database, category, Asked(rule, order.since, order.until))
        if not dry_run:
            prepared.write(store)
            before, after = (summary_of(one).model_dump() for one in (prepared.before, prepared.card))
            database.audit(f"command line, {getuser()}", "calibrate", category, before, after | {"reason": reason})
    finally:
        database.close()
    new, old = prepared.card.calibration, prepared.before.calibration
    typer.echo(f"{category}: threshold {new.threshold:.6g}, method {new.method}, version {prepared.card.model_version}")
    typer.echo(f"before: threshold {old.threshold:.6g}, method {old.method}, version {prepared.before.model_version}")
    if prepared.labels is not None:
        one = prepared.labels
        typer.echo(f"{one.normal} good and {one.anomalous} faulty parts, {one.first:%Y-%m-%d} to {one.last:%Y-%m-%d}")
    for remark in prepared.remarks:
        typer.echo(f"note: {remark}")
    report_promise(prepared.card)
    if dry_run:
        typer.echo("nothing was changed (--dry-run)")


def _order(rule: "Rule", since: str | None, until: str | None, reason: str | None, dry_run: bool) -> "CalibrationOrder":
    """The same as the API takes, with its checks."""
    from pydantic import ValidationError

    from service.schemas import CalibrationOrder

    way = {"threshold": rule.threshold} if rule.threshold is not None else {"method": "youden"}
    given = way | {"since": since, "until": until, "reason": reason, "dry_run": dry_run}
    try:
        return CalibrationOrder.model_validate_strings(
            {name: str(value) for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        raise UsageError(
            "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        ) from None
