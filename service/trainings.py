"""Trainings as jobs: a process of its own makes a candidate from normal images, one at a time, while the server serves.

The process has the lowest claim on the processor and one thread. It ends when the server does: a job survives nothing.
"""

import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from model.store.files import replace_file
from service.history.images import type_of
from service.schemas import TrainingJob
from service.training_images import TrainingImages

START = """
import os, sys
sys.path[:] = sys.argv.pop(1).split(os.pathsep)
os.nice(10)
import torch
torch.set_num_threads(1)
from service.cli import app
app()
"""
"""What the process runs: it looks for modules where this process does, and leaves the processor to inspections."""
MOST_KEPT = 50
"""Jobs that are listed."""
MESSAGE_CHARACTERS = 2000
END_SECONDS = 10.0
"""For a process that was asked to end."""
_JOBS = TypeAdapter(list[TrainingJob])

log = logging.getLogger(__name__)


class TrainingRunningError(Exception):
    """A training runs; there is one at a time."""


class NoTrainingImagesError(Exception):
    """There are no images to train on; the message says where they are looked for."""


class Trainings:
    """The jobs of one server. Call all methods on the event loop.

    Args:
        state: folder of the server; the list of jobs and the images of the one that runs are below it.
        images: folder with a sub-folder of training images for each category; None if there is none.
        uploaded: further images, which clients send.
        weights: the folder of categories.
        teachers: the folder of teachers.
        on_done: called when a candidate is there.
    """

    def __init__(
        self,
        state: Path,
        images: Path | None,
        uploaded: TrainingImages,
        weights: Path,
        teachers: Path,
        on_done: Callable[[], Awaitable[None]],
    ) -> None:
        self._folder = state / "trainings"
        self._images = images
        self.uploaded = uploaded
        self._weights = weights
        self._teachers = teachers
        self._on_done = on_done
        self._jobs = self._read()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

    def all(self) -> list[TrainingJob]:
        """The jobs, the last one first."""
        return self._jobs[::-1]

    def get(self, identity: str) -> TrainingJob | None:
        """A job; None if there is none of this id."""
        return next((job for job in self._jobs if str(job.id) == identity), None)

    def is_training(self, category: str) -> bool:
        """Whether a training of this category runs."""
        return any(job.category == category and job.status == "running" for job in self._jobs)

    def original_images(self, category: str) -> Path | None:
        """The folder of the images that a category was trained on, if the server has it."""
        if self._images is None:
            return None
        folder = self._images / category
        good = folder / "train" / "good"
        return good if good.is_dir() else folder if folder.is_dir() else None

    def check(self, category: str, labelled: Sequence[str], uploaded: int, *, is_new: bool) -> Path | None:
        """Whether a training could start; the arguments and errors are those of `start`.

        Returns:
            The folder of its original images; None if there is none.
        """
        if self._task is not None and not self._task.done():
            raise TrainingRunningError("a training runs, and there is one at a time; see GET /v1/jobs")
        originals = self.original_images(category)
        if originals is None and not labelled and not uploaded:
            missing = f"there is no category {category!r} yet, and " if is_new else ""
            raise NoTrainingImagesError(
                f"{missing}there are no images to train {category!r} on: none are uploaded, INSPECT_TRAINING_IMAGES "
                "has none, and no kept image of it is labelled normal"
            )
        return originals

    def start(
        self,
        category: str,
        labelled: Sequence[str],
        read: Callable[[str], bytes | None],
        options: Mapping[str, str | int] = MappingProxyType({}),
        *,
        uploaded: int = 0,
        is_new: bool = False,
    ) -> TrainingJob:
        """Starts a training of a candidate.

        Args:
            category: its name.
            labelled: the SHA-256 of kept images that people labelled normal.
            read: gives the file of one of them; None if it is no longer kept.
            options: of the command ``retrain``, by name, such as ``epochs``.
            uploaded: how many images are uploaded for it. Counting them waits for the disk, so the caller does it.
            is_new: the category does not exist yet, and the candidate is to be its first version.

        Raises:
            TrainingRunningError: if a training runs.
            NoTrainingImagesError: if there are no images.
        """
        originals = self.check(category, labelled, uploaded, is_new=is_new)
        job = TrainingJob(
            id=uuid7(),
            category=category,
            is_new=is_new,
            status="running",
            started=datetime.now(UTC),
            ended=None,
            labelled_images=len(labelled),
            uploaded_images=uploaded,
            with_original_images=originals is not None,
            epochs=None,
            epochs_done=0,
            loss=None,
            model_version=None,
            message=None,
        )
        self._jobs = [*self._jobs, job][-MOST_KEPT:]
        self._write()
        self._cancelled = False
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._task = asyncio.create_task(self._run(job, originals, labelled, read, given))
        return job

    async def cancel(self, identity: str) -> TrainingJob | None:
        """Ends a job, if it runs; gives it as it is then, or None if there is none of this id.

        A job that has just made its candidate is done, and not cancelled.
        """
        job = self.get(identity)
        if job is not None and job.status == "running" and self._task is not None:
            self._cancelled = True
            await self._end()
            await asyncio.wait([self._task])
        return job

    async def close(self) -> None:
        """Ends the process of the job that runs; the job is lost."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await self._end()

    async def _end(self) -> None:
        if (process := self._process) is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()

    async def _run(
        self,
        job: TrainingJob,
        originals: Path | None,
        labelled: Sequence[str],
        read: Callable[[str], bytes | None],
        options: Sequence[str],
    ) -> None:
        copies = self._folder / "images"
        where = ["--weights", str(self._weights), "--teachers", str(self._teachers)]
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        status, said = None, ""
        try:
            job.labelled_images = await asyncio.to_thread(_write_all, copies, labelled, read)
            folders = [] if originals is None else [originals]
            if job.uploaded_images:
                folders.append(self.uploaded.folder(job.category))
            if job.labelled_images or not folders:
                folders.append(copies)
            given = [*(["--new"] if job.is_new else []), *options]
            given += [argument for folder in folders for argument in ("--normal", str(folder))]
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-c", START, path,
                "retrain", job.category, *given, *where, "--device", "cpu", "--skip-unreadable", "--json",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stdout is not None
            assert process.stderr is not None
            errors = asyncio.create_task(process.stderr.read())
            if self._cancelled:
                process.terminate()
            async for line in process.stdout:
                self._note(job, line)
            said = (await errors).decode(errors="replace").strip()
            status = await process.wait()
        except OSError as error:
            said = str(error)
        finally:
            self._process = None
        await asyncio.to_thread(shutil.rmtree, copies, ignore_errors=True)
        if status == 0:
            try:
                await self._on_done()
            except Exception:
                log.exception("the candidate of %s is there, but cannot be looked at now", job.category)
        # At last and at once: who reads that it has ended can use the candidate and start the next one.
        job.status = "done" if status == 0 else "cancelled" if self._cancelled else "failed"
        job.message = None if job.status == "cancelled" else said[-MESSAGE_CHARACTERS:] or None
        job.ended = datetime.now(UTC)
        self._write()
        log.info("the training of %s has ended: %s", job.category, job.status)

    def _note(self, job: TrainingJob, line: bytes) -> None:
        with suppress(ValueError):
            said = json.loads(line)
            job.epochs, job.epochs_done = said.get("epochs", job.epochs), said.get("epoch", job.epochs_done)
            job.loss, job.model_version = said.get("loss", job.loss), said.get("model_version", job.model_version)

    def _read(self) -> list[TrainingJob]:
        """The jobs of the file; one that ran is lost."""
        try:
            jobs = _JOBS.validate_json((self._folder / "jobs.json").read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            log.error("the list of trainings cannot be read, a new one begins: %s", error)
            return []
        for job in jobs:
            if job.status == "running":
                job.status, job.message = "lost", "the server ended while it ran; start it again"
        return jobs

    def _write(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / "jobs.json", _JOBS.dump_json(self._jobs, indent=1))
        except OSError as error:
            log.error("the list of trainings cannot be written: %s", error)


def _write_all(folder: Path, labelled: Sequence[str], read: Callable[[str], bytes | None]) -> int:
    """Copies images into a new folder, one at a time, and gives how many."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = 0
    for sha256 in labelled:
        if (data := read(sha256)) is not None:
            (folder / f"{sha256}.{type_of(data)[1]}").write_bytes(data)
            written += 1
    return written
