"""All settings, read in one place from environment variables with the prefix ``INSPECT_``."""

import ipaddress
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.choices import MAX_PIXELS, PILLOW_MAX_PIXELS
from model.errors import ExpectedError
from service.keeping import parse_policy

if TYPE_CHECKING:
    import torch


PREFIX = "INSPECT_"
TEST_PREFIX = "INSPECT_TEST_"
"""Prefix of variables that tests read."""
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
"""End of the variables that Kubernetes sets in every pod for a Service, except the one with its address."""


def _split(given: Any) -> Any:
    """Splits a comma-separated list into names in lower case."""
    return tuple(filter(None, (one.strip().lower() for one in given.split(",")))) if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_HOST_NAME = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[?[0-9a-f:.]+\]?")
_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")


class SettingsError(ExpectedError):
    """A setting is invalid, or a variable with the prefix is not a setting; the message says what to do."""


class Settings(BaseSettings):
    """Settings of the service. Each field is the environment variable ``INSPECT_`` plus its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, allow_inf_nan=False)

    weights: Path = Path("weights")
    """Folder with one sub-folder for each category."""

    teachers: Path | None = None
    """Folder of teachers; ``teachers`` inside the weights folder if not given."""

    parts: Path | None = None
    """Folder of the cards of parts; if not given, the folder ``parts`` beside the weights folder."""

    state: Path | None = None
    """Folder that the server writes to; if not given, the folder ``state`` beside the weights folder."""

    database: str | None = None
    """Database of the history, as a URL of SQLAlchemy; ``none`` turns the history off. If not given, the SQLite file
    ``history.sqlite`` in the state folder."""

    spool_bytes: int = Field(default=256 << 20, ge=1 << 20)
    """Most bytes of records that wait on the disk while the database is away; above it records are lost."""

    keep_images: str = "anomalous+1%"
    """Which images the history keeps: ``none``, ``anomalous``, ``anomalous+N%`` (and N per cent of the normal ones) or
    ``all``; then exceptions, such as ``anomalous+1%, plates=all, tiles=none``."""

    images_bytes: int = Field(default=10 << 30, ge=0)
    """Most bytes of images that are kept; above it the oldest are removed, but those of labelled inspections."""

    images_days: float = Field(default=90.0, gt=0)
    """Days after which an image is removed, unless its inspection is labelled."""

    history_days: float = Field(default=365.0, gt=0)
    """Days after which an inspection is removed from the history, unless it is labelled."""

    training_images: Path | None = None
    """Folder with a sub-folder of training images for each category, for trainings that the server runs."""

    uploaded_images: int = Field(default=20_000, ge=0)
    """Most uploaded training images, of all categories together."""

    uploaded_bytes: int = Field(default=10 << 30, ge=0)
    """Most bytes of uploaded training images, of all categories together."""

    shadow_inspections: int = Field(default=1000, ge=0)
    """Inspections that a candidate scores in idle time, to be compared with the version in force; 0 turns that off."""

    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1`` ...; ``auto`` takes the first GPU if there is one."""

    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of the networks. ``float16`` is for GPUs and changes scores by less than 1 %; ``bfloat16`` is for CPUs
    that support it and changes scores by a few per cent."""

    student_memory_bytes: int = Field(default=1 << 30, ge=0)
    """Memory for the categories' students, bytes. Above it, the least recently used students are dropped, and
    read again when needed."""

    host: str = "127.0.0.1"
    """Address to listen on. With the default, only this machine can reach the server."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 chooses a free one."""

    allowed_hosts: Names = ()
    """Host names that clients may use for the server, separated by commas, such as ``inspect.example`` or
    ``*.example``. IP addresses and names of the local network are always allowed. ``*`` allows all."""

    allowed_origins: Names = ()
    """Origins whose web pages may use the API from a browser, separated by commas, such as ``https://mes.example``."""

    root_path: Annotated[str, BeforeValidator(lambda given: str(given).rstrip("/"))] = Field(
        default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$"
    )
    """Path under which a reverse proxy publishes the service, such as ``/inspect``; if empty, the path in the proxy's
    header ``X-Forwarded-Prefix``."""

    keys_file: Path | None = None
    """File of API keys, see ``eca-inspect key``; without it the server does not check who calls it."""

    allow_anonymous: bool = False
    """Whether the server may listen without keys on an address that other machines can reach."""

    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Separate port for the metrics, which needs no key; if not given, they are at ``/metrics`` of the service."""

    max_image_bytes: int = Field(default=32 << 20, ge=1)
    """Largest image file accepted, bytes."""

    max_image_pixels: int = Field(default=MAX_PIXELS, ge=1, le=PILLOW_MAX_PIXELS)
    """Most pixels an image may declare, checked before it is decoded."""

    max_batch_images: int = Field(default=32, ge=1)
    """Most images in one call of inspect-batch, and views in one of parts/inspect."""

    header_seconds: float = Field(default=10.0, gt=0)
    """Time for the whole head of a request to arrive; after that the connection is closed."""

    upload_seconds: float = Field(default=30.0, gt=0)
    """Time for the whole body of a request to arrive; after that the answer is 408."""

    upload_memory_bytes: int = Field(default=1 << 30, ge=1)
    """Most bytes of bodies received or held at once; above it the answer is 429."""

    answer_memory_bytes: int = Field(default=256 << 20, ge=1)
    """Most bytes of answers that clients have not read; above it the answer that has waited longest is dropped."""

    max_connections: int = Field(default=800, ge=1)
    """Most connections at once; above it the connection that has been idle longest is closed for a new one."""

    deadline_seconds: float = Field(default=30.0, gt=0)
    """Time from the arrival of the whole body to the answer; after that the answer is 504."""

    queue_size: int = Field(default=256, ge=1)
    """Most images being processed or waiting; above it the answer is 429."""

    device_batch: int | None = Field(default=None, ge=1)
    """Largest batch on the device, images; if not given, the size that was fastest in our measurements: 8 on a CPU, 64
    on a GPU."""

    device_memory_bytes: int | None = Field(default=None, ge=1)
    """Most memory that one batch may use on the device, in addition to the networks, bytes; if not given, half of the
    memory that is free when the server starts. A category is refused if a single one of its images needs more."""

    device_timeout_seconds: float = Field(default=60.0, gt=0)
    """Longest time that the device may work on one batch; after that it counts as hung, and its thread is replaced."""

    reload_seconds: float = Field(default=10.0, ge=0)
    """Time between two searches for new versions in the weights folder; 0 turns the search off, so that only a request
    reloads a category."""

    decode_threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Most images decoded at once, each in its own process; also the number of threads that draw the pictures of the
    answers."""

    decode_cpu_seconds: int = Field(default=10, ge=1)
    """CPU time that decoding one image may take; after that the answer is 422."""

    log_level: str = Field(default="info", pattern="^(critical|error|warning|info|debug)$")
    """Lowest level that is logged."""

    log_format: Literal["json", "text"] | None = None
    """One JSON object per line, or text; if not given, text on a terminal and JSON elsewhere."""

    otlp_endpoint: str | None = None
    """Address of an OpenTelemetry collector for traces over HTTP; if not given, no traces. Needs the extra ``otel``."""

    ray_address: str | None = None
    """Address of the Ray cluster to join, such as ``auto``; if not given, ``--ray`` starts one on this machine."""

    ray_min_replicas: int = Field(default=1, ge=1)
    """On Ray: minimum number of replicas."""

    ray_max_replicas: int = Field(default=1, ge=1)
    """On Ray: maximum number of replicas. Between minimum and maximum the number follows the load."""

    ray_target_requests: float = Field(default=16.0, gt=0)
    """On Ray: target for the number of concurrent requests per replica."""

    ray_by_category: bool = False
    """On Ray: whether the requests for a category go to the same replica, which has its student in memory, as long as
    that replica is not full. Use it if the students do not all fit into ``student_memory_bytes``."""

    ray_replica_cpus: float = Field(default=1.0, ge=0)
    """On Ray: cores per replica, and threads that it computes with."""

    ray_replica_gpus: float = Field(default=0.0, ge=0)
    """On Ray: GPUs per replica. With 0.5 two replicas share one GPU; with 0 no GPU is used."""

    @property
    def teachers_folder(self) -> Path:
        """The folder of the teachers."""
        return self.teachers or self.weights / "teachers"

    @property
    def parts_folder(self) -> Path:
        """The folder of the cards of parts."""
        return self.parts or self.weights.absolute().parent / "parts"

    @property
    def state_folder(self) -> Path:
        """The folder that the server writes to."""
        return (self.state or self.weights.absolute().parent / "state").absolute()

    @property
    def database_url(self) -> str | None:
        """The database of the history; None if it is off."""
        if (self.database or "").strip().lower() == "none":
            return None
        return self.database or f"sqlite:///{self.state_folder / 'history.sqlite'}"

    @property
    def dtype(self) -> "torch.dtype":
        """The precision as a torch dtype."""
        import torch  # imported here because it takes seconds, and most commands do not need it

        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[self.precision]

    @property
    def is_open_to_others(self) -> bool:
        """Whether other machines can use the server without a key."""
        return self.keys_file is None and not _is_loopback(self.host)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        for host in self.allowed_hosts:
            if not _HOST_NAME.fullmatch(host):
                raise ValueError(f"INSPECT_ALLOWED_HOSTS: {host!r} is not a host name; leave out scheme, port and path")
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"INSPECT_ALLOWED_ORIGINS: {origin!r} is not an origin; give scheme and host, such as "
                    "https://mes.example"
                )
        try:
            parse_policy(self.keep_images)
        except ValueError as error:
            raise ValueError(f"INSPECT_KEEP_IMAGES: {error}") from None
        if self.metrics_port == self.port:
            raise ValueError("INSPECT_METRICS_PORT and INSPECT_PORT must differ")
        if self.max_image_bytes > self.upload_memory_bytes:
            raise ValueError("INSPECT_MAX_IMAGE_BYTES must not exceed INSPECT_UPLOAD_MEMORY_BYTES")
        if self.max_batch_images > self.queue_size:
            raise ValueError("INSPECT_MAX_BATCH_IMAGES must not exceed INSPECT_QUEUE_SIZE")
        return self


def read_settings(**given: Any) -> Settings:
    """The settings from the environment; values in `given` take precedence, unless they are None.

    Raises:
        SettingsError: if a setting is invalid, or a variable with the prefix is not a setting.
    """
    given = {name: value for name, value in given.items() if value is not None}
    messages = _unknown_variables(os.environ)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        messages += [_message(item, given) for item in error.errors()]
    if messages:
        raise SettingsError("; ".join(messages))
    return settings


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """One message for each variable with the prefix that is set, and is neither a setting nor from Kubernetes."""
    unknown = []
    for variable, value in sorted(environment.items()):
        name = variable.upper()
        if not value or not name.startswith(PREFIX) or name.startswith(TEST_PREFIX):
            continue
        if name.removeprefix(PREFIX).lower() in Settings.model_fields or _is_service_link(name, value):
            continue
        unknown.append(_not_a_setting(variable))
    return unknown


def _is_service_link(name: str, value: str) -> bool:
    return bool(
        re.fullmatch(rf"{PREFIX}(\w+_)?({_SERVICE_LINK.pattern})", name)
        or (name.endswith("_PORT") and _SERVICE_ADDRESS.match(value))
    )


def _not_a_setting(variable: str) -> str:
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    bare = {name.removeprefix(PREFIX): name for name in known}
    near = get_close_matches(variable.upper().removeprefix(PREFIX), bare, n=1)
    advice = f"did you mean {bare[near[0]]}?" if near else "docs/deploying.md lists all settings"
    return f"{variable} is not a setting; {advice}"


def _message(item: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The message for an error that pydantic found."""
    reason = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return reason
    field = str(item["loc"][0])
    variable, value = PREFIX + field.upper(), item["input"]
    if item["type"] == "extra_forbidden":
        return _not_a_setting(field)
    if field not in given and isinstance(value, str) and _SERVICE_ADDRESS.match(value):
        service = variable.removesuffix("_PORT").lower().replace("_", "-")
        return (
            f"{variable} is {value!r}, which Kubernetes sets for a Service named {service!r}: add "
            "`enableServiceLinks: false` to the pod spec, or give the Service another name"
        )
    return f"{variable} is {str(value)!r}: {reason}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
