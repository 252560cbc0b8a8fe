"""The parts of a running application."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request

from model.store.parts import PartCards
from service.catalogue import Catalogue
from service.device.engine import Engine
from service.device.jobs import Job, Outcome
from service.history.history import History
from service.inspection import Inspector
from service.observe.telemetry import Telemetry
from service.settings import Settings
from service.shadow import Shadow
from service.trainings import Trainings
from service.versions import Versions

if TYPE_CHECKING:  # needs the extra `otel`
    from service.observe.tracing import Tracing


@dataclass(frozen=True)
class State:
    """The parts of one application, created when it starts; `tracing` is None if no endpoint is set, `history` if it is
    off, `trainings` if there are none."""

    settings: Settings
    catalogue: Catalogue
    part_cards: PartCards
    versions: Versions
    engine: Engine[Job, Outcome]
    inspector: Inspector
    history: History | None
    shadow: Shadow
    trainings: Trainings | None
    telemetry: Telemetry
    tracing: "Tracing | None"


async def state_of(request: Request) -> State:
    """The state of the application that serves this request. A coroutine, because FastAPI runs others in a thread."""
    state: State = request.app.state.parts
    return state
