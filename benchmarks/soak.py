"""Everything at once for a long time: a mixed load on the real server, and an account of every request.

    python -m benchmarks.soak [--minutes 10]

Well-behaved clients ask in every way while bursts overflow the queue, others send what is broken, leave or trickle,
versions of a category come and go, and the device dies, stalls, fails and runs out of memory
(`tests/end_to_end/faulty.py`). What each request may be answered is said when it is sent; what a fault of the device
explains holds only for requests that were there during the fault. The run fails if a request has no answer or one
that nothing explains, if the server's metrics or log tell another story, if it keeps a place, a descriptor or a
thread, or if its memory grows. Results go to benchmarks/results/soak.json.
"""

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import cycle
from math import inf, isclose
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import cv2
import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import load, save

from benchmarks.pairs import copy_category
from benchmarks.record import machine_and_commit
from model.calibration import rejects
from model.store.card import Card, SeenImages
from model.store.store import Store
from model.store.version import STUDENT, read_card
from service.choices import Role
from service.http.keys import create_key

ROOT = Path(__file__).parent.parent
FAULTY = ROOT / "tests" / "end_to_end" / "faulty.py"
CATEGORY, OTHER = "machined-plate", "second-plate"
SETTINGS = {
    "queue_size": "24", "max_batch_images": "8", "max_image_bytes": str(1 << 20), "max_image_pixels": "4000000",
    "upload_memory_bytes": str(4 << 20), "upload_seconds": "3", "header_seconds": "3", "deadline_seconds": "5",
    "device_timeout_seconds": "3", "reload_seconds": "2", "log_format": "json",
}  # fmt: skip
WARM_UP_SHARE = 0.2
"""Of the time, in which memory is not judged."""
JUDGED_MINUTES = 5
"""In a shorter run the device has not had every fault once when the warm-up is over, and memory is not judged."""
MEMORY_LIMITS = {"mib_per_hour": 30.0, "mib": 20.0}
"""Memory grows if its slope and the difference of its first and last tenths' medians are both beyond these."""
DESCRIPTOR_LIMIT = 2
THREAD_LIMIT = 3
"""More at rest after the load than at rest before it."""

GONE, LEFT_ALONE = "closed by client", "closed by server"
BUSY = {"429 queue-full", "429 upload-memory-full"}
PROBE, IN_BATCH = "probe", "image in a batch"
NOT_HTTP = {"malformed-request", "headers-too-large"}
"""Answered before the application sees a request, which is why no metric of requests has them."""

FAULTS: dict[str, tuple[float, set[str]]] = {
    "die 1": (0, {"503 device-lost"}),
    "memory-1 3": (0, set()),
    "memory-0 5": (0, {"503 out-of-memory"}),
    "stall-4.5 1": (4.5, {"503 device-lost", "504 deadline-passed"}),
    "fail 3": (0, {"500 internal-error"}),
    "stall-1 8": (2, {"504 deadline-passed"}),
}
"""Orders to the device: how long what it works on then may still take, and what requests may be answered. A batch is
up to two pieces of work, the scores and the maps."""
PROBE_FAILURES = {"503 device-busy", "503 not-alive"}
LOSSES = ("die 1", "stall-4.5 1")
"""After these the server replaces its device thread: twice in each round, and four in a minute would be too many."""
PAUSE_SECONDS = 7.0
GAUGES = ("inspect_in_flight_images", "inspect_queue_depth_images", "inspect_upload_memory_bytes")
EXPECTED_ERRORS = re.compile(
    "unexpected error|a batch of .* failed; trying|the device thread has died|the device had not finished its work in "
    "time|the new version of category .* is refused; the current version stays in use"
)
"""What the log may say at the levels error and critical."""


@dataclass
class Fault:
    """A fault of the device while it is there: what it explains, and when it began and ended."""

    explains: set[str]
    began: float = field(default_factory=monotonic)
    ended: float = inf


@dataclass
class Ledger:
    """What was sent, what came and after how many seconds, and what of it nothing explains."""

    sent: Counter[str] = field(default_factory=Counter)
    came: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)
    wanted: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    unexplained: Counter[str] = field(default_factory=Counter)

    def send(self, what: str) -> float:
        """Enters a request; returns when it was sent."""
        self.sent[what] += 1
        return monotonic()

    def receive(self, what: str, kind: str, sent_at: float, allowed: set[str]) -> None:
        """Enters what came: a kind such as ``200`` or ``429 queue-full``."""
        self.came.setdefault((what, kind), []).append(monotonic() - sent_at)
        near = (fault for fault in self.faults if sent_at <= fault.ended)  # and it has begun: this is now
        if kind not in allowed and not any(kind in fault.explains for fault in near):
            self.unexplained[f"{what}: {kind}"] += 1

    def answered(self, part: int) -> Counter[str]:
        """Answers that the server must have counted, by status (part 0) or by kind of problem (part 1).

        By status requests that the application saw; by problem those that it did not see and images of a batch too.
        """
        counted: Counter[str] = Counter()
        for (what, kind), seconds in self.came.items():
            status, _, problem = kind.partition(" ")
            if status.isdigit() and what != PROBE and (part or (what != IN_BATCH and problem not in NOT_HTTP)):
                counted[(status, problem)[part]] += len(seconds)
        del counted[""]
        return counted

    def gone(self) -> int:
        """How many clients left before the answer."""
        return sum(len(seconds) for (_, kind), seconds in self.came.items() if kind == GONE)

    def never_seen(self) -> set[str]:
        """Kinds of answers that the run was to bring about and did not."""
        return self.wanted - {kind for _, kind in self.came}

    def unanswered(self) -> Counter[str]:
        """What was sent and has no entry of what came."""
        left = Counter(self.sent)
        for (what, _), seconds in self.came.items():
            left[what] -= len(seconds)
        return Counter({what: count for what, count in left.items() if count})


Metrics = dict[str, Counter[str]]
"""Of each name, the values by the one label that matters here, summed over the others."""


def read_metrics(text: str) -> Metrics:
    """Reads Prometheus' text format."""
    found: Metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            label = next((sample.labels[key] for key in ("status", "reason", "outcome") if key in sample.labels), "")
            found.setdefault(sample.name, Counter())[label] += sample.value  # type: ignore[assignment]
    return found


def checks_of_metrics(ledger: Ledger, metrics: Metrics, losses: int) -> dict[str, str]:
    """What the server counted against the ledger, by name of the check; empty where they agree.

    Only of a client that left we do not know what became of its request: a problem, or a verdict that came too late.
    """

    def difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, int]:
        return {key: int(d) for key in {*ours, *theirs} if (d := theirs.get(key, 0) - ours.get(key, 0))}

    def compare(ours: Counter[str], theirs: Counter[str], more: float) -> str:
        found = {key: d for key in {*ours, *theirs} if (d := theirs[key] - ours[key])}
        return "" if sum(found.values()) == more and min(found.values(), default=0) >= 0 else f"differs by {found}"

    gone = ledger.gone()
    requests, images = metrics["inspect_requests_total"], metrics["inspect_images_total"]
    late = requests["200"] - ledger.answered(0)["200"]
    decisions = Counter({decision: images[decision] for decision in ("normal", "anomalous")})
    return {
        "requests by status": compare(ledger.answered(0), requests, gone),
        "rejections by reason": compare(ledger.answered(1), metrics["inspect_rejections_total"], gone - late),
        "images by decision": compare(ledger.decisions, decisions, late),
        "device restarts": compare(Counter({"": losses}), metrics["inspect_device_restarts_total"], 0),
    }


@dataclass
class Version:
    """A version of the category on its way to the disk."""

    card: Card
    student: bytes

    def write(self, weights: Path) -> None:
        """Puts it into its place."""
        store = Store(weights)
        store.write(self.card, self.student, SeenImages(), replace=store.in_place(self.card.category))


def versions_of(weights: Path) -> tuple[Version, list[Version]]:
    """Another good version of the category, and bad ones: not finite, and cut short."""
    card = read_card(weights / CATEGORY)
    whole = (weights / CATEGORY / STUDENT).read_bytes()

    def changed(name: str, factor: float) -> Version:
        tensors = load(whole)
        tensors["features.0.weight"] = tensors["features.0.weight"] * np.float32(factor)
        student = save(tensors)
        update = {"model_version": name, "student_sha256": sha256(student).hexdigest()}
        return Version(card.model_copy(update=update), student)

    short = Version(card.model_copy(update={"model_version": "short"}), whole[:1000])
    return changed("changed", 1.1), [changed("not-finite", float("nan")), short]


def kind_of(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """An answer in words: its status, and the kind of its problem."""
    kind = str(status)
    if headers.get("content-type") == "application/problem+json":
        kind += " " + json.loads(body)["type"].rpartition(":")[2]
    if (status in (429, 503)) != ("retry-after" in headers):
        kind += ", wrong about Retry-After"
    return kind


@dataclass
class Site:
    """The server under load, and what its clients need."""

    address: str
    process: subprocess.Popen[bytes]
    weights: Path
    orders: Path
    keys: dict[str, str]
    images: list[bytes]
    ledger: Ledger = field(default_factory=Ledger)
    ends: float = inf
    scores: dict[tuple[str, str, str], float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    injected: Counter[str] = field(default_factory=Counter)
    http: httpx.AsyncClient = field(init=False)

    async def ask(
        self,
        what: str,
        path: str,
        expected: str = "200",
        *,
        method: str = "POST",
        check: Callable[[httpx.Response], str] = lambda response: "",
        headers: Mapping[str, str] = {},
        allowed: set[str] = BUSY,
        **body: Any,
    ) -> float:
        """Sends a request, enters it and what came, and returns how long to wait before the next one, seconds.

        Args:
            check: looks closer at a 200; what it says is wrong becomes the answer's kind.
        """
        self.ledger.wanted.add(expected)
        sent_at = self.ledger.send(what)
        given = {"Authorization": f"Bearer {self.keys['inspect']}", "X-Request-ID": uuid4().hex, **headers}
        pause = 0.05
        try:
            response = await self.http.request(method, path, headers=given, **body)
        except httpx.HTTPError as error:
            kind = type(error).__name__
        else:
            kind = kind_of(response.status_code, response.headers, response.content)
            pause = float(response.headers.get("retry-after", pause))
            if response.headers.get("x-request-id") != given["X-Request-ID"]:
                kind += ", of another request"
            elif kind == "200" and (wrong := _looked_at(response, check)):
                kind = f"200, but {wrong}"
        self.ledger.receive(what, kind, sent_at, {expected, *allowed})
        return pause

    async def ask_raw(
        self,
        what: str,
        message: bytes,
        expected: str,
        *,
        allowed: set[str] = BUSY,
        trickle: bytes = b"",
        leave: float = inf,
    ) -> None:
        """Sends bytes, and perhaps more of them slowly until the answer comes; or leaves after some seconds."""
        self.ledger.wanted.add(expected)
        sent_at = self.ledger.send(what)
        host, _, port = self.address.partition(":")
        kind = GONE
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(message)
                if leave < inf:
                    await asyncio.sleep(leave)
                else:
                    answer = asyncio.create_task(read_answer(reader))
                    while not (await asyncio.wait({answer}, timeout=0.2))[0] and monotonic() < sent_at + 30:
                        writer.write(trickle)
                    kind = answer.result() if answer.done() else "no answer"
            finally:
                writer.close()
        except OSError as error:
            kind = type(error).__name__
        self.ledger.receive(what, kind, sent_at, {expected, *allowed})

    def judge(self, category: str, image: bytes, found: Mapping[str, Any]) -> str:
        """What is wrong with a verdict, if anything: one image has one score in each version."""
        version, score, threshold = found["model_version"], float(found["score"]), float(found["threshold"])
        self.ledger.decisions[found["decision"]] += 1
        known = self.scores.setdefault((category, version, sha256(image).hexdigest()), score)
        if not isclose(score, known, rel_tol=1e-4):
            return f"the score of {version} was {known} before and is {score}"
        if threshold != self.thresholds.get(version):
            return f"{version} has no threshold {threshold}"
        return (
            ""
            if found["decision"] == ("anomalous" if rejects(score, threshold) else "normal")
            else "the decision is wrong"
        )


def _looked_at(response: httpx.Response, check: Callable[[httpx.Response], str]) -> str:
    try:
        return check(response)
    except (LookupError, TypeError, ValueError) as error:
        return repr(error)


async def read_answer(reader: asyncio.StreamReader) -> str:
    """The kind of the next answer on a connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE))
        return kind_of(int(head.split()[1]), headers, await reader.readexactly(int(headers["content-length"])))
    except (asyncio.IncompleteReadError, ConnectionError):
        return LEFT_ALONE


def path_of(category: str, call: str) -> str:
    """Where a category is asked something."""
    return f"/v1/categories/{category}/{call}"


# Well-behaved clients. Each call returns how long to wait before the next.


async def verdict(site: Site, what: str, localize: str, form: str = "body") -> float:
    """One image as a body or in a form, answered in JSON."""
    category, image = random.choice((CATEGORY, OTHER)), random.choice(site.images)

    def check(response: httpx.Response) -> str:
        answer = response.json()
        if answer["image"]["sha256"] != sha256(image).hexdigest():
            return "it is of another image"
        mapped = localize == "always" or (localize == "auto" and answer["decision"] == "anomalous")
        if (answer["localization"] is not None) != mapped:
            return "the place of the fault is there or not, against what was asked"
        return site.judge(category, image, answer)

    body = {"files": {"image": ("a", image)}} if form == "form" else {"content": image}
    return await site.ask(what, f"{path_of(category, 'inspect')}?localize={localize}", check=check, **body)


async def overlay(site: Site) -> float:
    """The overlay picture."""
    category, image = random.choice((CATEGORY, OTHER)), random.choice(site.images)

    def check(response: httpx.Response) -> str:
        said = {name: response.headers[f"x-anomaly-{name}"] for name in ("score", "threshold", "decision")}
        said["model_version"] = response.headers["x-model-version"]
        if cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR) is None:
            return "it is no picture"
        return site.judge(category, image, said)

    path = f"{path_of(category, 'inspect')}?localize=always"
    return await site.ask("overlay", path, check=check, content=image, headers={"Accept": "image/png"})


async def batch(site: Site) -> float:
    """Four images at once, the last of them no image at all."""
    category, images = random.choice((CATEGORY, OTHER)), [*random.choices(site.images, k=3), b"no image"]

    def check(response: httpx.Response) -> str:
        results = response.json()["results"]
        for image, result in zip(images, results, strict=True):
            kind = "verdict"
            if "type" in result:
                kind = f"{result['status']} {result['type'].rpartition(':')[2]}"
            elif wrong := site.judge(category, image, result):
                kind = f"verdict, but {wrong}"
            site.ledger.send(IN_BATCH)
            allowed = {"422 not-decodable"} if image == b"no image" else {"verdict"}
            site.ledger.receive(IN_BATCH, kind, started, allowed)
        return ""

    started = monotonic()
    files = [("image", ("a", image)) for image in images]
    return await site.ask("batch of four", path_of(category, "inspect-batch"), check=check, files=files)


async def burst(site: Site) -> float:
    """More images at once than the queue takes."""
    site.ledger.wanted |= {"429 queue-full"}
    await asyncio.gather(*(verdict(site, "burst of 60", "never") for _ in range(60)))
    return 3.0


# Clients that are not.


async def bad_inputs(site: Site) -> None:
    """Every kind of request that is refused, in turn, and images with a damage that may or may not be read."""
    image = site.images[0]
    url = path_of(CATEGORY, "inspect")
    form, text = {"Content-Type": "multipart/form-data; boundary=b"}, {"Content-Type": "text/plain"}
    bomb = b"BM" + struct.pack("<IIIIiiHHIIIIII", 200, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    large_head = b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image
    noise = np.random.default_rng(0).bytes(2 << 20)

    async def chunks() -> Any:
        for start in range(0, len(noise), 1 << 16):
            yield noise[start : start + (1 << 16)]

    def name(odd: str) -> str:
        return path_of(odd, "inspect")

    asked: list[tuple[str, str, str, dict[str, Any]]] = [
        ("empty body", url, "400 empty-body", {"content": b""}),
        ("truncated image", url, "422 not-decodable", {"content": image[: len(image) // 2]}),
        ("no image", url, "422 not-decodable", {"content": b"<svg/>"}),
        ("wrong media type", url, "415 unsupported-media-type", {"content": image, "headers": text}),
        ("too many pixels", url, "413 too-many-pixels", {"content": bomb}),
        ("too many bytes, declared", url, "413 too-many-bytes", {"content": noise}),
        ("too many bytes, undeclared", url, "413 too-many-bytes", {"content": chunks}),
        ("form cut short", url, "400 no-image", {"content": part, "headers": form}),
        ("form of nonsense", url, "400 malformed-form", {"content": noise[:9999], "headers": form}),
        ("form without an image", url, "400 no-image", {"files": {"photo": ("a", image)}}),
        ("form with two images", url, "413 too-many-images", {"files": [("image", ("a", image))] * 2}),
        ("batch of nine", url + "-batch", "413 too-many-images", {"files": [("image", ("a", b"x"))] * 9}),
        ("wrong parameter", url + "?localize=perhaps", "422 invalid-request", {"content": image}),
        ("unknown category", name("bottle"), "404 unknown-category", {"content": image}),
        ("odd category", name("a%00b"), "404 unknown-category", {"content": image}),
        ("odd category", name("%f0%9f%94%a5"), "404 unknown-category", {"content": image}),
        ("odd category", name("..%2f..%2fetc%2fpasswd"), "404 not-found", {"content": image}),
        ("odd category", name("x" * 5000), "404 unknown-category", {"content": image}),
        ("unknown path", "/v2/nothing", "404 not-found", {"method": "GET"}),
        ("wrong method", url, "405 method-not-allowed", {"method": "GET"}),
        ("no key", url, "401 unauthenticated", {"content": image, "headers": {"Authorization": ""}}),
        ("wrong key", url, "401 unauthenticated", {"content": image, "headers": {"Authorization": "Bearer x"}}),
        ("key of a lesser role", path_of(CATEGORY, "reload"), "403 forbidden", {}),
    ]  # fmt: skip
    for what, path, kind, more in cycle(asked):
        if monotonic() > site.ends:
            return
        if callable(more.get("content")):
            more = {**more, "content": more["content"]()}
        await site.ask(what, path, kind, **more)
        damaged = bytearray(random.choice(site.images))
        for _ in range(4):
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)

        def seen(response: httpx.Response) -> str:
            site.ledger.decisions[response.json()["decision"]] += 1
            return ""

        either = {"422 not-decodable", "413 too-many-pixels", *BUSY}
        await site.ask("damaged image", url, content=bytes(damaged), check=seen, allowed=either)
        await site.ask_raw("headers too large", large_head, "431 headers-too-large")
        await site.ask_raw("no HTTP", b"nonsense\r\n\r\n", "400 malformed-request")
        await asyncio.sleep(0.1)


def head_of(site: Site, length: int) -> bytes:
    """The head of a request with an image."""
    lines = ["POST " + path_of(CATEGORY, "inspect") + " HTTP/1.1", "Host: x", "Content-Type: image/png"]
    lines += [f"Authorization: Bearer {site.keys['inspect']}", f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode()


async def leave(site: Site) -> float:
    """Clients that go while they send, and while they wait."""
    image = random.choice(site.images)
    message = head_of(site, len(image)) + image
    await site.ask_raw("left while sending", message[: random.randrange(300, len(message))], GONE, leave=0.05)
    await site.ask_raw("left while waiting", message, GONE, leave=random.uniform(0, 0.2))
    return 0.2


async def trickle(site: Site) -> float:
    """Clients whose body, or head, never ends."""
    image = random.choice(site.images)
    await asyncio.gather(
        site.ask_raw("slow body", head_of(site, len(image)) + image[:999], "408 upload-timeout", trickle=b"x"),
        site.ask_raw("half a body", head_of(site, len(image)) + image[:999], "408 upload-timeout"),
        site.ask_raw("half a head", head_of(site, 1)[:60], LEFT_ALONE, allowed=set()),
        site.ask_raw("nothing", b"", LEFT_ALONE, allowed=set()),
    )
    return 1.0


# What happens to the server.


async def reloads(site: Site) -> None:
    """Versions come and go on the disk; bad ones are refused, and the one before serves on."""
    good, bad = versions_of(site.weights)
    first = read_card(site.weights / CATEGORY)
    site.thresholds[good.card.model_version] = good.card.calibration.threshold
    key = {"Authorization": f"Bearer {site.keys['admin']}"}

    async def post(what: str, call: str, expected: str, version: Card) -> None:
        def check(response: httpx.Response) -> str:
            found = response.json()
            return "" if (found["status"], found["model_version"]) == ("ready", version.model_version) else str(found)

        await site.ask(what, path_of(CATEGORY, call), expected, headers=key, check=check, allowed=set())
        await site.ask("category", f"/v1/categories/{CATEGORY}", method="GET", check=check, allowed=set())
        await asyncio.sleep(0.5)

    for worse in cycle(bad):
        if monotonic() > site.ends:
            return
        await asyncio.to_thread(good.write, site.weights)
        await post("reload of a good version", "reload", "200", good.card)
        await post("rollback", "rollback", "200", first)
        await asyncio.to_thread(worse.write, site.weights)
        await post("reload of a bad version", "reload", "409 reload-refused", first)
        await post("rollback from a bad version", "rollback", "200", first)
        await post("rollback to a bad version", "rollback", "409 reload-refused", first)


async def faults(site: Site) -> None:
    """Has the device fail in one way after the other, while there is work for it."""
    for order, (lasts, explains) in cycle(FAULTS.items()):
        await asyncio.sleep(PAUSE_SECONDS)
        if monotonic() + 12 > site.ends:
            return
        site.ledger.wanted |= explains
        site.ledger.faults.append(fault := Fault(explains | PROBE_FAILURES))
        site.injected[order] += 1
        site.orders.write_text(order)
        while site.orders.read_text():
            if monotonic() > fault.began + 30:
                site.ledger.unexplained[f"the device did not take {order!r}"] += 1
                return
            await asyncio.sleep(0.05)
        await asyncio.sleep(lasts + 1.0)
        fault.ended = monotonic()


async def probe(site: Site) -> float:
    """What an orchestrator and Prometheus ask."""
    for path in ("/livez", "/readyz", "/metrics"):
        await site.ask(PROBE, path, method="GET", allowed=set())
    await site.ask("categories", "/v1/categories", method="GET", allowed=set())
    return 1.0


# The whole.


def resources(pid: int) -> tuple[float, int, int]:
    """Resident memory of a process in MiB, its open descriptors and its threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE))
    return int(found["VmRSS"]) / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(found["Threads"])


def course(seconds: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """The slope of a straight line through values, an hour, and the median of each tenth of them."""
    return {
        "slope_per_hour": round(float(np.polyfit(seconds / 3600, values, 1)[0]), 2),
        "tenths": [round(float(np.median(tenth)), 1) for tenth in np.array_split(values, 10)],
    }


@contextmanager
def server(folder: Path) -> Iterator[Site]:
    """Starts the real server on copies of the built-in category, and ends it with SIGTERM."""
    weights = folder / "weights"
    shutil.copytree(ROOT / "weights", weights, ignore=shutil.ignore_patterns(".*"))
    copy_category(weights, OTHER, CATEGORY)
    (orders := folder / "orders").write_text("")
    keys = {role.value: create_key(folder / "keys", role.value, role) for role in Role}
    images = [path.read_bytes() for path in sorted((ROOT / "samples").glob("*.png"))]
    images += [
        cv2.imencode(".jpg", cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR))[1].tobytes()
        for one in images
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INSPECT_")}
    environment |= {f"INSPECT_{name.upper()}": value for name, value in SETTINGS.items()}
    environment |= {"INSPECT_KEYS_FILE": str(folder / "keys"), "INSPECT_STATE": str(folder / "state")}
    environment["MALLOC_ARENA_MAX"] = "2"  # as in the image
    command = [sys.executable, str(FAULTY), str(orders), "serve", "--port", "0", "--weights", str(weights)]
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen(command, env=environment, stderr=file) as process:
        try:
            while not (address := re.search(r"running on http://([\w.:]+)", log.read_text())):
                if process.poll() is not None:
                    raise RuntimeError("the server did not start:\n" + log.read_text())
                sleep(0.1)
            site = Site(address[1], process, weights, orders, keys, images)
            card = read_card(weights / CATEGORY)
            site.thresholds[card.model_version] = card.calibration.threshold
            yield site
        finally:
            orders.write_text("")
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


@asynccontextmanager
async def connected(site: Site) -> AsyncIterator[None]:
    """Has the site's clients share connections, which they close before the server would, and all in the end."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=1)
    async with httpx.AsyncClient(base_url=f"http://{site.address}", timeout=60, limits=limits) as site.http:
        yield


async def under_load(site: Site, minutes: float) -> dict[str, np.ndarray]:
    """Loads the server and watches it: seconds, memory in MiB, descriptors and threads, once a second."""
    rows: list[tuple[float, ...]] = []
    began = monotonic()
    site.ends = began + 60 * minutes

    async def again(call: Callable[[], Awaitable[float]]) -> None:
        while monotonic() < site.ends:
            await asyncio.sleep(await call())

    async def watch() -> float:
        rows.append((monotonic() - began, *resources(site.process.pid)))
        return 1.0

    async with connected(site), asyncio.TaskGroup() as tasks:
        for localize in ("auto", "always", "never"):
            tasks.create_task(again(partial(verdict, site, f"image, localize={localize}", localize)))
        tasks.create_task(again(partial(verdict, site, "image in a form", "auto", "form")))
        for call in (overlay, batch, burst, leave, trickle, probe):
            tasks.create_task(again(partial(call, site)))
        for whole in (bad_inputs, reloads, faults):
            tasks.create_task(whole(site))
        tasks.create_task(again(watch))
    return dict(zip(("seconds", "memory", "descriptors", "threads"), np.array(rows).T, strict=True))


async def at_rest(site: Site) -> tuple[Metrics, tuple[float, int, int]]:
    """The metrics and resources when nothing is asked: as soon as all gauges are at zero, or after 20 seconds."""
    until = monotonic() + 20
    headers = {"Authorization": f"Bearer {site.keys['inspect']}"}
    while True:
        await asyncio.sleep(2)
        async with httpx.AsyncClient() as client:
            metrics = read_metrics((await client.get(f"http://{site.address}/metrics", headers=headers)).text)
        if monotonic() > until or not any(metrics[name][""] for name in GAUGES):
            await asyncio.sleep(1)
            return metrics, resources(site.process.pid)


async def measure(site: Site, minutes: float) -> tuple[dict[str, Any], Metrics, dict[str, str]]:
    """The whole run: figures, the server's metrics at its end, and the checks, each empty where all is well."""
    async with connected(site):
        await asyncio.gather(*(overlay(site) for _ in range(16)), batch(site))
    _, (_, descriptors, threads) = await at_rest(site)
    watched = await under_load(site, minutes)
    metrics, (_, descriptors_after, threads_after) = await at_rest(site)
    warm = watched["seconds"] > WARM_UP_SHARE * watched["seconds"][-1]
    memory, opened = (course(watched["seconds"][warm], watched[name][warm]) for name in ("memory", "descriptors"))
    grown = memory["tenths"][-1] - memory["tenths"][0]
    too_much = memory["slope_per_hour"] > MEMORY_LIMITS["mib_per_hour"] and grown > MEMORY_LIMITS["mib"]
    ledger, losses = site.ledger, sum(site.injected[order] for order in LOSSES)
    gauges = {name: metrics[name][""] for name in GAUGES if metrics[name][""]}
    more_open, more_threads = descriptors_after - descriptors, threads_after - threads
    checks = {
        "every request has its answer": f"not {dict(left)}" if (left := ledger.unanswered()) else "",
        "every answer is explained": f"not {dict(ledger.unexplained)}" if ledger.unexplained else "",
        "every kind of answer was seen": f"not {sorted(missing)}" if (missing := ledger.never_seen()) else "",
        **{f"metrics agree: {name}": wrong for name, wrong in checks_of_metrics(ledger, metrics, losses).items()},
        "gauges are back at zero": str(gauges) if gauges else "",
        "descriptors are closed": f"{more_open} more" if more_open > DESCRIPTOR_LIMIT else "",
        "threads end": f"{more_threads} more" if more_threads > THREAD_LIMIT else "",
    }
    if minutes >= JUDGED_MINUTES:
        checks["memory does not grow"] = f"{grown:.1f} MiB, {memory['slope_per_hour']} an hour" if too_much else ""
    figures = {
        "sent": ledger.sent.total(),
        "came": sum(map(len, ledger.came.values())),
        "faults": dict(site.injected),
        "memory_mib": memory,
        "memory_limits": MEMORY_LIMITS,
        "descriptors": {**opened, "at_rest_before": descriptors, "at_rest_after": descriptors_after},
        "threads": {"at_rest_before": threads, "at_rest_after": threads_after, "most": int(watched["threads"].max())},
        "ledger": [
            {
                "what": what,
                "kind": kind,
                "count": len(seconds),
                **{f"p{q}_ms": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 99)},
            }
            for (what, kind), seconds in sorted(ledger.came.items())
        ],
    }
    return figures, metrics, checks


def checks_of_log(lines: Iterable[str], metrics: Metrics) -> dict[str, str]:
    """The log against the metrics, and whether it says anything that is not expected; empty where all is well."""
    requests, odd = 0, Counter[str]()
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            odd[line.strip()] += 1
            continue
        requests += entry["message"] == "request"
        if entry["level"] in ("error", "critical") and not EXPECTED_ERRORS.match(entry["message"]):
            odd[entry["message"]] += 1
    counted = int(metrics["inspect_requests_total"].total())
    return {
        "one log line a request": f"{requests} for {counted}" if requests != counted else "",
        "no log line is odd": str(dict(odd.most_common(10))) if odd else "",
    }


def main() -> None:
    """Runs it, prints and writes the results, and exits with 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "soak.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with server(Path(folder)) as site:
            figures, metrics, checks = asyncio.run(measure(site, arguments.minutes))
        status = site.process.returncode
        checks["SIGTERM ends it with 0"] = f"with {status}" if status else ""
        with Path(folder, "log").open() as lines:
            checks |= checks_of_log(lines, metrics)
    command = f"python -m benchmarks.soak --minutes {arguments.minutes:g}"
    results = {"command": command, **machine_and_commit(), "settings": SETTINGS, **figures, "checks": checks}
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    for row in results["ledger"]:
        print(f"{row['count']:8} {row['p50_ms']:9.1f} {row['p99_ms']:9.1f} ms  {row['what']}: {row['kind']}")
    print(json.dumps({name: figures[name] for name in figures if name != "ledger"}, indent=1))
    for name, wrong in checks.items():
        print(f"{'FAILED ' + name + ': ' + wrong if wrong else 'ok     ' + name}")
    sys.exit(any(checks.values()))


if __name__ == "__main__":
    main()
