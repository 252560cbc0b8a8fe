"""A worker process: decodes one image after the other until the server closes its connection.

The file comes, and the pixels go, through memory that both processes share. What comes back is numbers and words, never
code.
"""

import ctypes
import json
import mmap
import os
import pickle
import resource
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import numpy as np

from model.images import ImageError, ImageTooLargeError
from service.decoding.work import read_picture

KEPT_BYTES = 64 << 20
"""Of memory that stays with this process between images."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""


def main(connection_fd: int, memory_fd: int, memory_bytes: int, cpu_seconds: int, decoding_bytes: int) -> None:
    """Serves until the connection ends.

    Args:
        connection_fd: of a socket; requests are pickled, answers JSON.
        memory_fd: of the shared memory.
        memory_bytes: its size.
        cpu_seconds: of processor time that one image may take; past it the kernel ends the process (SIGXCPU).
        decoding_bytes: of memory that one image may take.
    """
    for name in (signal.SIGINT, signal.SIGTERM):  # of a whole process group; the server says when to end
        signal.signal(name, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _keep_memory()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    if size := _virtual_bytes():
        _limit(resource.RLIMIT_AS, size + memory_bytes + decoding_bytes)
    memory = mmap.mmap(memory_fd, memory_bytes)
    with Connection(connection_fd) as connection, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())  # libraries complain there about every damaged image
        while True:
            try:
                request = connection.recv_bytes()
            except EOFError:
                return
            _limit(resource.RLIMIT_CPU, int(process_time()) + 1 + cpu_seconds)
            answer = _answer(memory, request)
            connection.send_bytes(json.dumps(answer).encode())


def _answer(memory: mmap.mmap, request: bytes) -> dict[str, Any]:
    try:
        length, step, max_pixels = pickle.loads(request)  # of the server, which is trusted
        picture = read_picture(memory[:length], step, max_pixels)
        np.frombuffer(memory, np.uint8, picture.pixels.size)[:] = picture.pixels.ravel()
    except ImageTooLargeError as error:
        return {"error": "too-large", "reason": str(error)}
    except ImageError as error:
        return {"error": "image", "reason": str(error)}
    except MemoryError:
        return {"error": "memory"}
    except Exception as error:
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            return {"error": "memory"}
        return {"error": "unexpected", "reason": traceback.format_exc()}
    return {
        "shape": picture.pixels.shape,
        "width": picture.width,
        "height": picture.height,
        "sha256": picture.sha256,
        "pose": picture.pose and {**picture.pose._asdict(), "matrix": picture.pose.matrix.tolist()},
    }


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _keep_memory() -> None:
    """Keeps memory between images.

    The C library would give it back after every image, and get it again page by page for the next: half as much time
    again for an image of a megapixel.
    """
    with suppress(AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES // 2)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def _virtual_bytes() -> int | None:
    """The address space in use, where the system says it as Linux does."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * resource.getpagesize()
