"""What every stage of the verification is given, and sessions opened as the service opens them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from artifact.metadata import ArtifactMetadata
from artifact.session import open_cpu_session
from service.sessions.devices import DeviceSession
from service.sessions.providers import GPU_PROVIDERS, SessionPlan
from service.sessions.session import open_session
from service.sessions.topology import sizes_up_to
from tests.gpu.material import Material
from tests.gpu.table import Outcome, Row, RowFile

STAND_IN_NOTE = "STAND-IN: the CPU provider ran in place of CUDA, so nothing here says anything of a GPU"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, while it runs."""

    name: str
    material: Material
    provider: str
    """`cuda`, or `cpu` where it stands in for it in a test."""
    rows: RowFile
    ends_s: float
    """On the monotonic clock: when it must have ended."""
    folder: Path
    """For what it writes."""

    @property
    def left_s(self) -> float:
        """Seconds that are left to it."""
        return self.ends_s - time.monotonic()

    def add(self, of: str, outcome: Outcome, found: str, **figures: object) -> None:
        """Add a row to the table, at once."""
        self.rows.add(Row(self.name, of, outcome, found, figures))


@dataclass(frozen=True, slots=True)
class Opened:
    """An artifact on a provider."""

    session: DeviceSession
    seconds: float
    """That opening it took; with TensorRT also its first run, in which the engine is built."""


def metadata_of(path: Path) -> ArtifactMetadata:
    """What an artifact says of itself."""
    session = open_cpu_session(path, optimised=False)  # only its metadata is wanted: it need not be prepared to run
    return ArtifactMetadata.from_map(session.get_modelmeta().custom_metadata_map)


def open_on(provider: str, path: Path, largest: int, cache_folder: Path | None = None) -> Opened:
    """Open an artifact as the service does, for batches of up to `largest` crops.

    Raises:
        StartupError: The provider cannot be used, or cannot load the file.
    """
    metadata = metadata_of(path)
    plan = SessionPlan(path, metadata, provider, max_batch_size=largest, cache_folder=cache_folder)
    started_s = time.monotonic()
    session = open_session(plan)
    device_type = "cuda" if provider in GPU_PROVIDERS else "cpu"
    crop_shape = (metadata.image_height, metadata.image_width, 3)
    return Opened(DeviceSession(session, device_type, 0, crop_shape, sizes_up_to(largest)), time.monotonic() - started_s)
