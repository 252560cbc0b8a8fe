"""``inspect-part``."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.choices import MapForm
from model.text import json_text, readable
from service.choices import Localize
from service.cli.options import (
    Device,
    JsonOutput,
    Lot,
    Metadata,
    PartId,
    Parts,
    Station,
    Teachers,
    Weights,
    part_info_of,
    torch_device,
)
from service.settings import Settings, read_settings

if TYPE_CHECKING:
    from service.catalogue import Ready
    from service.schemas import View


def inspect_part(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of the part's pictures: CATEGORY.jpg, or a sub-folder CATEGORY with several.",
            show_default=False,
        ),
    ],
    part: Annotated[str | None, typer.Option(help="Card of the part, which says which views it must have.")] = None,
    localize: Annotated[Localize, typer.Option(help="Whether to locate the fault.")] = Localize.AUTO,
    map_form: Annotated[
        MapForm | None, typer.Option("--map", help="Form of the anomaly map. Default: the category's own form.")
    ] = None,
    part_id: PartId = None,
    lot: Lot = None,
    station: Station = None,
    metadata: Metadata = None,
    json_output: JsonOutput = False,
    weights: Weights = None,
    teachers: Teachers = None,
    parts: Parts = None,
    device: Device = None,
) -> None:
    """Judge a part by several pictures, exactly as the server does. Ends with status 1 if the part is incomplete."""
    from model.lifecycle.datasets import list_images
    from model.lifecycle.folders import read_file
    from model.store.parts import PartCards
    from service.catalogue import CategoryRefusedError
    from service.cli.samples import report
    from service.inspection import Limits, Wanted
    from service.part_inspection import inspect_part_offline
    from service.parts import arrange, read_part_card

    wanted = Wanted(localize, map_form, part_info_of(part_id, lot, station, metadata))
    settings = read_settings(weights=weights, teachers=teachers, parts=parts, device=device)
    cards = PartCards(settings.parts_folder)
    card = None if part is None else read_part_card(cards, part, settings.max_batch_images)
    paths, remarks = list_images(folder)
    report(remarks)
    files = arrange(card, [(_category_of(path, folder), path) for path in paths])
    require = _categories(settings)
    if card is None:
        for category, _ in files:
            with suppress(CategoryRefusedError):  # the answer has it in the view's place
                require(category)
    places = [(category, read_file(found) if isinstance(found, Path) else found) for category, found in files]
    limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
    answer = inspect_part_offline(require, places, wanted, limits, part, card)
    found = [path if isinstance(path, Path) else None for _, path in files]
    if json_output:
        told = answer.model_dump(mode="json")
        for view, path in zip(told["views"], found, strict=True):
            view["path"] = None if path is None else str(path)
        typer.echo(json_text(told, indent=2))
    for view, path in zip(answer.views, found, strict=True):
        _say(view, path, json_output)
    if not json_output:
        typer.echo(f"{answer.decision}: {readable(folder)}")
    if answer.decision == "incomplete":
        raise typer.Exit(1)


def _category_of(path: Path, folder: Path) -> str:
    """The category that judges a picture: the sub-folder it lies in, or its own name."""
    below = path.relative_to(folder)
    return below.parts[0] if len(below.parts) > 1 else below.stem


def _say(view: "View", path: Path | None, json_output: bool) -> None:
    where = readable(path or view.category)
    if view.inspection is None:
        assert view.problem is not None
        typer.echo(f"error: {where}: {view.problem.detail}", err=True)
    elif not json_output:
        one = view.inspection
        typer.echo(f"{one.decision:<10}{one.score:.6g} (threshold {one.threshold:.6g})  {where}")


def _categories(settings: Settings) -> "Callable[[str], Ready]":
    """Reads each category once, and each teacher once for all that name it."""
    from model.store.store import Store
    from model.store.teachers import TeacherError, load_teacher
    from model.store.version import StoreError
    from service.catalogue import CategoryRefusedError, Ready, UnknownCategoryError
    from service.hints import with_hint

    store = Store(settings.weights, settings.teachers_folder)
    device, precision = torch_device(settings.device), settings.dtype
    teacher_of = cache(lambda name, sha256: load_teacher(store.teachers, name, sha256))

    @cache
    def require(category: str) -> Ready:
        if not store.holds(category):
            raise UnknownCategoryError(category, store.names())
        try:
            card = store.card(category)
            teacher = teacher_of(card.teacher.name, card.teacher.sha256)
            detector = store.build(card, teacher, device, precision)
        except (StoreError, TeacherError, OSError) as error:
            raise CategoryRefusedError(category, with_hint(error)) from None
        return Ready(card, teacher, lambda: detector)

    return require
