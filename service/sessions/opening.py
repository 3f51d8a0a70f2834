"""From settings to sessions: the provider that can be used, the topology that suits it, and what runs in it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import onnxruntime

from artifact.metadata import ArtifactMetadata
from service.config import Settings
from service.engine.types import Session
from service.errors import StartupError
from service.sessions.devices import DeviceSession, SpreadSession, count_cuda_devices, device_numbers
from service.sessions.providers import GPU_PROVIDERS, SessionPlan, preferred_provider
from service.sessions.session import OrtSession, open_session
from service.sessions.topology import (
    Candidate,
    Sweep,
    Topology,
    lane_candidates,
    largest_batch_size,
    plan_topology,
    sizes_up_to,
    wide_candidate,
)
from service.sessions.tuning import choose, pays_alone, sweep

logger = logging.getLogger(__name__)

USER_FOLDER: Final = "parseq-service"
"""Name of the service's folder in the user's cache folder."""


class EngineSessions(NamedTuple):
    """What the engine runs."""

    session: Session
    alone: Session | None
    """The session for a crop that is the only one in the engine; `None`: the lanes' session reads it too."""
    provider: str
    """The execution provider in use."""
    topology: Topology
    """What the sessions are for."""


class SessionOpener:
    """Opens what the lanes of a candidate run. A GPU has one session for all lanes of all candidates.

    Args:
        plan: Of the sessions; lanes, threads and device are filled in here.
        devices: Numbers of the GPUs to use; ignored on a CPU.
    """

    def __init__(self, plan: SessionPlan, devices: tuple[int, ...]) -> None:
        self.plan = plan
        self.devices = devices
        self._on_device: dict[int, Any] = {}

    def open(self, candidate: Candidate) -> Session:
        """A session to be run from `candidate.lanes` threads at once.

        Raises:
            StartupError: The provider cannot be used, or cannot load the file.
        """
        if self.plan.provider not in GPU_PROVIDERS:
            plan = replace(self.plan, lanes=candidate.lanes, intra_op_threads=candidate.intra_op_threads)
            return OrtSession(open_session(plan))
        # Neighbouring lanes are on different devices: the first batches go to as many devices as there are.
        return SpreadSession([self._lane(self.devices[lane % len(self.devices)]) for lane in range(candidate.lanes)])

    def _lane(self, device: int) -> DeviceSession:
        if device not in self._on_device:
            self._on_device[device] = open_session(replace(self.plan, device=device))
        metadata = self.plan.metadata
        shape = (metadata.image_height, metadata.image_width, 3)
        return DeviceSession(self._on_device[device], "cuda", device, shape, sizes_up_to(self.plan.max_batch_size))


def open_engine_sessions(
    settings: Settings, metadata: ArtifactMetadata, budget: int, like: Topology | None = None
) -> EngineSessions:
    """Open the artifact of the settings for the engine.

    Args:
        settings: Of the service.
        metadata: Of the artifact.
        budget: Cores this process may use.
        like: The topology when none is known for this artifact; default: one is measured.

    Raises:
        StartupError: The provider cannot be used, or the artifact does not run on it.
    """
    provider = preferred_provider(settings.provider, onnxruntime.get_available_providers())
    try:
        opened = _open_tuned(settings, _opener(settings, metadata, provider), budget, like)
    except StartupError as error:
        if settings.provider != "auto" or provider == "cpu":
            raise
        logger.warning("no GPU can be used, so the CPU is: %s", error)
        return _open_tuned(settings, _opener(settings, metadata, "cpu"), budget, like)
    if provider in GPU_PROVIDERS and (metadata.precision != "fp16" or metadata.early_exit):
        early_exit = ", with an early exit" if metadata.early_exit else ""
        logger.warning(
            "%s is in %s%s: a GPU is quicker with fp16 and every step written out, as `parseq-export --for cuda` writes it",
            settings.artifact.name,
            metadata.precision,
            early_exit,
        )
    return opened


def _opener(settings: Settings, metadata: ArtifactMetadata, provider: str) -> SessionOpener:
    plan = SessionPlan(
        settings.artifact,
        metadata,
        provider,
        max_batch_size=largest_batch_size(settings, provider),
        cache_folder=_engine_folder(settings.artifact) if provider == "tensorrt" else None,
    )
    devices = device_numbers(settings.devices, count_cuda_devices) if provider in GPU_PROVIDERS else (0,)
    return SessionOpener(plan, devices)


def _open_tuned(settings: Settings, opener: SessionOpener, budget: int, like: Topology | None) -> EngineSessions:
    """Settle the topology (as set, like another, or by a sweep) and open its sessions."""
    provider, n_devices = opener.plan.provider, len(opener.devices)
    options = lane_candidates(settings, provider, budget, n_devices)
    if not settings.tune or (len(options) == 1 and settings.max_batch_size):
        topology = plan_topology(settings, provider, budget, n_devices=n_devices)
        return EngineSessions(opener.open(options[0]), None, provider, topology)
    if like is not None:
        alone = opener.open(Candidate(1, like.alone_threads)) if like.alone_threads else None
        kept = replace(like, durations_s={}, origin="kept")
        return EngineSessions(opener.open(Candidate(like.lanes, like.intra_op_threads)), alone, provider, kept)
    found, session, alone = _measure(opener, options)
    if found is None:
        return EngineSessions(session, None, provider, plan_topology(settings, provider, budget, origin="usual"))
    return EngineSessions(session, alone, provider, plan_topology(settings, provider, budget, found=found, origin="measured"))


def _measure(opener: SessionOpener, options: Sequence[Candidate]) -> tuple[Sweep | None, Session, Session | None]:
    """Sweep all candidates.

    Returns:
        What the best candidate did, its session, and a session for a crop that is alone, if that pays. If other work had the
        processors meanwhile: nothing, and the session of the most likely candidate.

    Raises:
        StartupError: The artifact does not run.
    """
    metadata = opener.plan.metadata
    shape, sizes = (metadata.image_height, metadata.image_width), sizes_up_to(opener.plan.max_batch_size)
    started_s = time.monotonic()
    sessions = {candidate: opener.open(candidate) for candidate in options}
    wide, alone = wide_candidate(options, opener.plan.provider), None
    try:
        sweeps = sweep(list(sessions.items()), shape, sizes)
        if opener.plan.provider == "cpu" and sweeps[0].is_crowded:
            logger.warning(
                "not tuned: while lanes and batches were measured, this process had %.0f %% of the processor time that it "
                "could use (other work, or a CPU quota). The usual ones are taken; restart to measure again on a quiet "
                "machine, or set PARSEQ_LANES, PARSEQ_INTRA_OP_THREADS and PARSEQ_MAX_BATCH_SIZE",
                100 * (sweeps[0].cpu_share or 0),
            )
            return None, sessions[options[0]], None
        best = choose(sweeps)
        session = sessions[best.candidate]
        if wide is not None and best.candidate != wide and pays_alone(sessions[wide], session, shape):
            best, alone = replace(best, candidate=replace(best.candidate, alone_threads=wide.intra_op_threads)), sessions[wide]
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise StartupError(f"{opener.plan.path}: the artifact failed its warm-up: {reason}") from error
    for found in sweeps:
        logger.info("measured %s", found.describe())
    logger.info("tuned in %.1f s", time.monotonic() - started_s)
    return best, session, alone


def _engine_folder(artifact: Path) -> Path | None:
    """A folder for TensorRT's engines that can be written, which takes minutes off every start but the first."""
    parents = [artifact.parent]
    # A user without a home has no cache folder.
    with suppress(RuntimeError):
        parents.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / USER_FOLDER)
    for parent in parents:
        folder = parent / f"{artifact.name}.tensorrt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    logger.warning("no folder for TensorRT's engines can be written: they are built anew at every start")
    return None
