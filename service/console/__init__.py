"""The operator's console: one page for browsers, and what it loads. It asks the API like any other client."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

from service.http.access import open_to_all

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent
_pages = StaticFiles(directory=FOLDER)
_files = StaticFiles(directory=FOLDER / "files")


async def _static(files: StaticFiles, name: str, request: Request) -> Response:
    """A file, or 304. Browsers keep it and ask each time whether it has changed, so that an update shows at once."""
    response = await files.get_response(name, request.scope)
    response.headers["cache-control"] = "no-cache"
    return response


@router.api_route("/", methods=["GET", "HEAD"], name="console")
@open_to_all
async def page(request: Request) -> Response:
    """The console's page; its links are relative, so that it works below a path of a reverse proxy."""
    return await _static(_pages, "index.html", request)


@router.api_route("/console/{file:path}", methods=["GET", "HEAD"], name="console")
@open_to_all
async def file(file: str, request: Request) -> Response:
    """A script, a style sheet, what they come with, or a picture to try the built-in category with."""
    return await _static(_files, file, request)
