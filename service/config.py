"""Settings: read once from the environment (prefix `PARSEQ_`), described here, listed in `docs/configuration.md`."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from artifact.files import BUNDLED_MODEL
from artifact.orientation import Orientation
from service.errors import StartupError

ENV_PREFIX: Final = "PARSEQ_"
PORTS: Final = ("port", "grpc_port")
"""Settings whose variables Kubernetes sets to addresses, for a Service called `parseq` or `parseq-grpc`."""
OTHER_PROGRAMS: Final = frozenset({"PARSEQ_CACHE"})
"""Read by the training and export jobs."""
_SERVICE_VARIABLE: Final = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes (and Docker's links) add for a service called `parseq` or `parseq-...`."""
BUNDLED_ARTIFACT: Final = Path(__file__).parent / "bundled" / f"{BUNDLED_MODEL}.onnx"

DEFAULT_MAX_IMAGE_PIXELS: Final = 2**22
DEFAULT_MAX_REQUEST_PIXELS: Final = 2**28
DEFAULT_MAX_PAGE_PIXELS: Final = 12 * 2**20
DEFAULT_MAX_IMAGE_SIDE_PIXELS: Final = 2**14
DEFAULT_MAX_IMAGE_BYTES: Final = 2**24

Provider = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
SeveralFrames = Literal["first", "refuse"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Every setting of the service. 0 means "choose for me" where the description says so."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address to listen on; all: `0.0.0.0` (IPv4) or `::` (IPv6 and IPv4).")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="TCP port for the Open Inference Protocol over gRPC; 0: none. Needs the extra `grpc`."
    )
    http_workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that serve HTTP and decode images, in front of one that has the models; 1: one process does "
        "all. 0: 1 on a CPU, and on a GPU half the allotted cores, at most 4. More than 1 need Linux, and no gRPC.",
    )
    artifact: Path = Field(
        BUNDLED_ARTIFACT,
        description="The `.onnx` artifact to serve, written by `parseq-export`; or several, with commas between them, or a "
        "folder.",
    )
    default_model: str = Field("", description="The model of requests that name none; without it the first one.")
    provider: Provider = Field(
        "auto",
        description="Execution provider. A named one that is absent is a start-up error; `auto` takes CUDA when present.",
    )
    devices: str = Field("0", description="GPUs to run on: `all`, or numbers such as `0,1`; a CPU has none.")
    tune: bool = Field(
        True,
        description="Measure at the start which lanes, threads and batch size suit model and machine.",
    )
    lanes: int = Field(
        0, ge=0, le=64, description="Inference runs in flight at once; 0: tuned, or the allotted cores, or 1 for each GPU."
    )
    intra_op_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads of one inference run; 0: tuned, or the allotted cores shared among the lanes, or 1 on a GPU.",
    )
    max_batch_size: int = Field(
        0, ge=0, le=1024, description="Crops in one inference run, at most; 0: tuned, or 8 on a CPU and 64 on a GPU."
    )
    decode_threads: int = Field(
        0,
        ge=0,
        le=64,
        description="Threads that decode images, besides one for small single crops; 0: half the allotted cores, at least 1.",
    )
    max_queue_delay_ms: float = Field(
        0.0, ge=0, le=1000, description="How long a free lane holds the oldest crop back for company; 0: not at all."
    )
    max_queue_items: int = Field(
        512,
        ge=1,
        le=100_000,
        description="Crops being decoded or waiting, at most, and half as many more of clients that hold less than their "
        "share; beyond it requests are refused with 429.",
    )
    max_queue_wait_ms: float = Field(
        1000,
        gt=0,
        le=3_600_000,
        description="A request with a single crop that would be read later than this is refused with 429.",
    )
    max_batch_queue_wait_ms: float = Field(
        2000,
        gt=0,
        le=3_600_000,
        description="A request with several crops whose first one would be read later than this is refused with 429.",
    )
    request_timeout_ms: float = Field(
        5_000, gt=0, le=3_600_000, description="Deadline of a request with a single crop; then 504."
    )
    batch_timeout_ms: float = Field(
        30_000, gt=0, le=3_600_000, description="Deadline of a request with several crops; then 504 for each unread crop."
    )
    api_keys_file: Path | None = Field(
        None, description="File with the API keys that requests must carry, one a line; none: requests need no key."
    )
    max_body_bytes: int = Field(32 * 2**20, ge=1, description="Request body, at most; beyond it 413.")
    max_bodies_bytes: int = Field(
        0,
        ge=0,
        description="Memory for all request bodies together, at most; beyond it 429. 0: a third of the container's memory, or "
        "of the machine's.",
    )
    max_crops_per_request: int = Field(128, ge=1, le=10_000, description="Crops in one request, at most; beyond it 413.")
    max_regions: int = Field(
        512,
        ge=1,
        le=10_000,
        description="Regions of a page in one request, at most, and no more than `max_queue_items`; beyond it 413.",
    )
    max_form_fields: int = Field(
        64, ge=0, le=10_000, description="Fields of a form that are not images, at most; beyond it 400, else they are ignored."
    )
    max_json_bytes: int = Field(2**24, ge=1, description="JSON body, at most; beyond it 413.")
    max_json_depth: int = Field(
        32, ge=3, le=128, description="Lists and objects within one another in JSON, at most; else 400."
    )
    max_head_bytes: int = Field(2**16, ge=1024, le=2**24, description="Path and headers of a request, at most; beyond it 431.")
    max_headers: int = Field(100, ge=10, le=10_000, description="Headers of a request, at most; beyond it 431.")
    image_formats: str = Field("jpeg,png,webp,bmp,gif,tiff", description="Formats that are read; of any other 415.")
    max_image_bytes: int = Field(
        DEFAULT_MAX_IMAGE_BYTES, ge=1, description="File of one image, at most, also behind base64; beyond it 413."
    )
    max_image_pixels: int = Field(
        DEFAULT_MAX_IMAGE_PIXELS,
        ge=1,
        description="Width times height of an image, at most, read from its header before decoding; beyond it 413.",
    )
    max_page_pixels: int = Field(
        DEFAULT_MAX_PAGE_PIXELS,
        ge=1,
        description="Width times height of a page of which regions are read, at most, by its header; beyond it 413.",
    )
    max_request_pixels: int = Field(
        DEFAULT_MAX_REQUEST_PIXELS,
        ge=1,
        description="Pixels of all images of a request together, at most, by their headers; beyond it 413 for the rest.",
    )
    max_image_side_pixels: int = Field(
        DEFAULT_MAX_IMAGE_SIDE_PIXELS, ge=1, description="Width and height of an image, each, at most; beyond it 413."
    )
    several_frames: SeveralFrames = Field(
        "first", description="Of an animation, or a file of several pages, read the `first`, or `refuse` it with 422."
    )
    orientation: Orientation = Field(
        "upright",
        description="How crops are read where requests do not say: as they are (`upright`), tall ones, and doubtful ones that "
        "are not wide, also turned by 90 and 270 degrees (`auto`), or those that are read with little confidence also upside "
        "down (`full`).",
    )
    min_confidence: float = Field(
        0.0, ge=0, le=1, description="Texts with less confidence are marked as `uncertain`, and counted; 0: none."
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Connections at once, at most; beyond it one that is idle is closed, or the new one is told 429.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks (CIDR), with commas between them, of gateways whose `X-Forwarded-For` tells clients "
        "apart; none: a client is the address at the other end of the connection.",
    )
    keep_alive_s: int = Field(
        75, ge=1, le=3600, description="How long an idle connection is kept; longer than the gateway's own time-out."
    )
    grpc_connection_age_s: float = Field(
        300,
        ge=0,
        le=10_000_000,
        description="A gRPC connection that is older is ended, so that its client looks for servers anew; calls in flight are "
        "answered. 0: never.",
    )
    receive_timeout_s: float = Field(
        30, gt=0, le=3600, description="How long a request may take to arrive, from its first byte to its last; then 408."
    )
    send_timeout_s: float = Field(
        30, gt=0, le=3600, description="How long a client may leave its answers unread; then its connection is closed."
    )
    self_check_interval_s: float = Field(
        10, ge=0, le=3600, description="How often a crop with a known text is read, to notice a model that fails; 0: never."
    )
    stuck_after_s: float = Field(
        60, ge=1, le=3600, description="An inference run that lasts longer than this means that the process must be restarted."
    )
    drain_timeout_s: int = Field(30, ge=0, le=3600, description="How long requests in flight may take to finish after SIGTERM.")
    log_format: LogFormat = Field("text", description="Log lines for humans, or one JSON object a line.")
    log_level: LogLevel = Field(
        "info",
        description="Least severe log level shown; `debug` has a line for each recognition request. Of libraries, no more "
        "than warnings are shown.",
    )

    @field_validator("devices")
    @classmethod
    def _names_devices(cls, value: str) -> str:
        if not re.fullmatch(r"all|[0-9]{1,3}(,[0-9]{1,3})*", value):
            raise ValueError("must be all, or numbers of GPUs with commas between them and no spaces, such as 0 or 0,1")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _names_networks(cls, value: str) -> str:
        try:
            ip_networks_of(value)
        except ValueError as error:
            raise ValueError(f"must be addresses or networks with commas between them, such as 10.0.0.0/8: {error}") from None
        return value

    @field_validator("image_formats")
    @classmethod
    def _names_formats(cls, value: str) -> str:
        known = str(cls.model_fields["image_formats"].default).split(",")
        named = value.split(",")
        if not set(named) <= set(known) or len(set(named)) < len(named):
            raise ValueError(f"must be some of {', '.join(known)}, with commas between them and no spaces")
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> Settings:
        if self.grpc_port and self.grpc_port == self.port:
            raise ValueError(f"PARSEQ_GRPC_PORT and PARSEQ_PORT are both {self.port}: gRPC needs a port of its own")
        return self

    @model_validator(mode="after")
    def _grpc_has_one_process(self) -> Settings:
        if self.grpc_port and self.http_workers > 1:
            raise ValueError(
                f"PARSEQ_HTTP_WORKERS={self.http_workers} and PARSEQ_GRPC_PORT={self.grpc_port}: gRPC is served by one process "
                "only; set PARSEQ_HTTP_WORKERS to 1, or PARSEQ_GRPC_PORT to 0"
            )
        return self

    @model_validator(mode="after")
    def _a_full_request_fits_the_queue(self) -> Settings:
        if self.max_queue_items < self.max_crops_per_request:
            raise ValueError(
                f"PARSEQ_MAX_QUEUE_ITEMS ({self.max_queue_items}) must not be less than "
                f"PARSEQ_MAX_CROPS_PER_REQUEST ({self.max_crops_per_request}), or full requests are always refused"
            )
        return self

    @model_validator(mode="after")
    def _a_full_body_fits_the_memory(self) -> Settings:
        # Twice, since the files of a form are copied out of it.
        if 0 < self.max_bodies_bytes < 2 * self.max_body_bytes:
            raise ValueError(
                f"PARSEQ_MAX_BODIES_BYTES ({self.max_bodies_bytes}) must not be less than twice PARSEQ_MAX_BODY_BYTES "
                f"({self.max_body_bytes}), or the largest bodies are always refused"
            )
        return self


def ip_networks_of(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse addresses and networks in CIDR notation, with commas between them.

    Raises:
        ValueError: One of them is neither.
    """
    return tuple(ip_network(word.strip()) for word in text.split(",") if word.strip())


def env_name(field_name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + field_name.upper()


def is_service_link(value: str) -> bool:
    """Whether this is the address of a service as Kubernetes and Docker put it into the environment of others."""
    return re.match(r"(tcp|udp|sctp)://", value) is not None


def load_settings(**options: Any) -> Settings:
    """Read the settings from the environment; `options` (from the command line) win.

    A Service called `parseq` makes Kubernetes set `PARSEQ_PORT` to its address, and one called `parseq-grpc`
    `PARSEQ_GRPC_PORT`; nobody means that, so it counts as unset.

    Raises:
        StartupError: A value is not acceptable; the message names its environment variable or option.
    """
    unset = {name: Settings.model_fields[name].default for name in PORTS if is_service_link(os.environ.get(env_name(name), ""))}
    try:
        return Settings(**{**unset, **options})
    except ValidationError as error:
        raise StartupError("; ".join(_explain(problem, options) for problem in error.errors())) from error


def _explain(problem: Any, options: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    given = f"--{name}" if name in options else env_name(name)
    return f"{given}={problem['input']!s}: {message}"


def doubts(environment: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """A warning for each variable with our prefix that is ignored, though somebody may rely on it. Values are not shown.

    Args:
        environment: All environment variables.
        known: The variables of settings.
    """
    for name, value in sorted(environment.items()):
        setting = name.upper()  # settings are found in lower case too
        if name in map(env_name, PORTS) and is_service_link(value):
            yield (
                f"{name} is an address that Kubernetes adds for a Service of that name, so it is ignored: set "
                "enableServiceLinks: false in the pod, or set the port yourself"
            )
        elif setting.startswith(ENV_PREFIX) and setting not in known and setting not in OTHER_PROGRAMS:
            if is_service_link(value) or _SERVICE_VARIABLE.fullmatch(name):
                continue
            near = get_close_matches(setting.removeprefix(ENV_PREFIX), [each.removeprefix(ENV_PREFIX) for each in known], n=1)
            hint = f"; did you mean {ENV_PREFIX}{near[0]}?" if near else ""
            yield f"{name} is not a setting and is ignored{hint}"
