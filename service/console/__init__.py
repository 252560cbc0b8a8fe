"""The operator's console: one page for browsers, and what it loads. It asks the API like any other client."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from model.lab.synthetic import DEFECTS, sample_image
from service.http.access import open_to_all

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent
SAMPLES = ("good", *DEFECTS)
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


@router.api_route("/console/samples/{name}.png", methods=["GET", "HEAD"], name="console")
@open_to_all
def sample(name: str) -> Response:
    """A built-in picture to try the built-in category with.

    Raises:
        HTTPException: 404 if there is no such picture.
    """
    if name not in SAMPLES:
        raise HTTPException(404)
    return Response(_sample_png(name), media_type="image/png", headers={"cache-control": "max-age=3600"})


@router.api_route("/console/{file:path}", methods=["GET", "HEAD"], name="console")
@open_to_all
async def file(file: str, request: Request) -> Response:
    """A script, a style sheet, or what they come with."""
    return await _static(_files, file, request)


@cache
def _sample_png(name: str) -> bytes:
    pixels: np.ndarray = cv2.imencode(".png", cv2.cvtColor(sample_image(name), cv2.COLOR_RGB2BGR))[1]
    return pixels.tobytes()
