"""The ONNX Runtime session: it never falls back to another provider unnoticed, its threads are counted, and it is warmed up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from artifact.fit import fit
from artifact.metadata import (
    ALLOWED_NAME,
    CONFIDENCES_NAME,
    INPUT_NAME,
    TOKEN_IDS_NAME,
    TOP_CONFIDENCES_NAME,
    TOP_IDS_NAME,
)
from artifact.session import SEVERITY_FATAL, reason_of
from service.engine.runs import run_checked
from service.engine.types import Confidences, Outputs, Session, TokenIds, Wanted
from service.errors import StartupError
from service.sessions.providers import GPU_PROVIDERS, SessionPlan, check_provider, provider_chain

OUTPUT_NAMES: Final = (TOKEN_IDS_NAME, CONFIDENCES_NAME)
TOP_NAMES: Final = (TOP_IDS_NAME, TOP_CONFIDENCES_NAME)
WORD: Final = "Street"
"""The word on the crops of warm-up and sweep; as long as words usually are."""

onnxruntime.set_default_logger_severity(SEVERITY_FATAL)


class OrtSession:
    """An ONNX Runtime session as the engine's `Session`. Safe to run from several threads at once."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def run(self, crops: NDArray[np.uint8]) -> tuple[TokenIds, Confidences]:
        """Read uint8 `[batch, height, width, 3]`: ids int64 and confidences float32 `[batch, max_label_length + 1]`."""
        token_ids, confidences = self._session.run(OUTPUT_NAMES, {INPUT_NAME: crops})
        return token_ids, confidences

    def run_with(self, crops: NDArray[np.uint8], wanted: Wanted) -> Outputs:
        """The same where more is wanted."""
        return run_wanted(self._session, crops, wanted)


def run_wanted(session: onnxruntime.InferenceSession, crops: NDArray[np.uint8], wanted: Wanted) -> Outputs:
    """Run a session with everything that is wanted, on uint8 `[batch, height, width, 3]`."""
    feed: dict[str, NDArray[Any]] = {INPUT_NAME: crops}
    if wanted.allowed is not None:
        feed[ALLOWED_NAME] = wanted.allowed
    return Outputs(*session.run((*OUTPUT_NAMES, *TOP_NAMES) if wanted.top else OUTPUT_NAMES, feed))


def open_session(plan: SessionPlan, create: Callable[..., Any] = onnxruntime.InferenceSession) -> onnxruntime.InferenceSession:
    """Load an artifact to run it.

    Args:
        plan: The artifact, and how it is to be run.
        create: Makes the session; tests put theirs here.

    Raises:
        StartupError: The provider cannot be used, or cannot load the file.
    """
    if plan.provider in GPU_PROVIDERS and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # loads the CUDA and cuDNN libraries that the extra `gpu` installs
    try:
        # Without `enable_fallback=0` a provider that fails, now or in a later run, is replaced by the CPU.
        session = create(str(plan.path), session_options(plan), providers=provider_chain(plan), enable_fallback=0)
    except Exception as error:
        raise StartupError(f"{plan.path} cannot be loaded on {plan.provider} ({reason_of(error)})") from error
    check_provider(plan.provider, session.get_providers())
    return session


def session_options(plan: SessionPlan) -> onnxruntime.SessionOptions:
    """How ONNX Runtime is to use the cores.

    The lanes share one session, and so its pool of threads: each lane's own thread computes, and `intra_op_threads - 1` more
    for each lane, so that all lanes together keep `lanes * intra_op_threads` cores busy and no more.
    """
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = 1 if plan.provider != "cpu" else plan.lanes * (plan.intra_op_threads - 1) + 1
    options.inter_op_num_threads = 1
    for key, value in _config_entries(plan).items():
        options.add_session_config_entry(f"session.{key}", value)
    # The memory pattern suits one batch size, but batches have any size here; and the arena never gives memory back.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = SEVERITY_FATAL
    return options


def _config_entries(plan: SessionPlan) -> dict[str, str]:
    # Threads that spin between two nodes make a run faster, but beside other lanes they take cores that have work to do.
    spins = plan.lanes == 1 and plan.intra_op_threads > 1
    entries = {"intra_op.allow_spinning": "1" if spins else "0"}
    if spins:
        # Spin briefly, and not once the run is over: decoding and HTTP need the cores too.
        entries |= {"intra_op.spin_duration_us": "200", "force_spinning_stop": "1"}
    return entries


def word_crops(height: int, width: int, n_crops: int) -> list[NDArray[np.uint8]]:
    """Crops with a word on them, uint8 `[height, width, 3]` each.

    A graph with an early exit ends a run once every text has ended, so how long a run takes depends on what its crops show; a
    blank crop would tell little about those of clients.
    """
    return [_word_crop(height, width)] * n_crops


@cache
def _word_crop(height: int, width: int) -> NDArray[np.uint8]:
    font = ImageFont.load_default(size=height)
    left, top, right, bottom = font.getbbox(WORD)
    margin = height / 8
    drawn = Image.new("RGB", (round(right - left + 2 * margin), round(bottom - top + 2 * margin)), "white")
    ImageDraw.Draw(drawn).text((margin - left, margin - top), WORD, "black", font)
    crop = fit(drawn, height, width)
    crop.flags.writeable = False  # it is shared
    return crop


def warm_up(
    sessions: Sequence[Session],
    height: int,
    width: int,
    batch_sizes: Sequence[int],
    clock: Callable[[], float] = time.monotonic,
) -> dict[int, float]:
    """Run each size of batch, so that no client pays for a first run.

    Args:
        sessions: All of them, one after the other.
        height: Of a crop.
        width: Of a crop.
        batch_sizes: From small to large.
        clock: Monotonic, seconds.

    Returns:
        Seconds of a run by batch size, alone on the machine.

    Raises:
        Exception: Whatever a session raises, or `InferenceError` when its answers have the wrong shape.
    """
    durations_s: dict[int, float] = {}
    for session in sessions:
        run_checked(session, word_crops(height, width, batch_sizes[0]))  # the very first run takes longer than any later one
        for size in batch_sizes:
            started_s = clock()
            run_checked(session, word_crops(height, width, size))
            durations_s[size] = clock() - started_s
    return durations_s
