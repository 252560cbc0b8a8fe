"""Bounds on bodies: the time one may take to arrive, and the memory that all of them may hold."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem


class UploadMemory:
    """Counts the bytes of bodies that are being received or held. Belongs to the event loop's thread.

    Attributes:
        limit: most bytes held at once.
        held: bytes held now.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Holds some bytes more.

        Raises:
            Problem: 429 if they do not fit.
        """
        if self.held + size > self.limit:
            raise Problem("upload-memory-full")
        self.held += size

    def release(self, size: int) -> None:
        """Lets bytes go."""
        self.held -= size


class BoundUploads:
    """ASGI middleware that bounds every body, and lets go of its bytes when its request is over, however it ends.

    Raises, where the application reads the body:
        Problem: 408 if the whole body has not come in time, 413 if it alone is more than the memory, 429 if it does
            not fit in addition to the others.
    """

    def __init__(self, app: ASGIApp, memory: UploadMemory, seconds: float) -> None:
        self._app = app
        self._memory = memory
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        held = 0
        complete = False

        async def bounded() -> Message:
            nonlocal held, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise Problem("upload-timeout", seconds=self._seconds) from None
            if message["type"] == "http.request":
                complete = not message.get("more_body", False)
                size = len(message.get("body", b""))
                if held + size > self._memory.limit:
                    raise Problem("too-many-bytes", what="the body", limit=self._memory.limit)
                self._memory.take(size)
                held += size
            return message

        try:
            await self._app(scope, bounded, send)
        finally:
            self._memory.release(held)
