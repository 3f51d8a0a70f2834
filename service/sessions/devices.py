"""GPUs: which ones to use, and sessions for them: few batch shapes, buffers that stay on the device, one lane or two on each.

None of this ran on a GPU where it was written; it is tested with stand-ins, and on the CPU as far as that goes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from artifact.metadata import INPUT_NAME
from service.engine.types import Confidences, Outputs, Session, TokenIds, Wanted
from service.errors import StartupError
from service.sessions.session import OUTPUT_NAMES, run_wanted
from service.sessions.topology import bucket_of

ALL_DEVICES: Final = "all"
CUDA_DRIVER: Final = "libcuda.so.1"


def device_numbers(setting: str, count: Callable[[], int]) -> tuple[int, ...]:
    """The devices of the setting `devices`: `all`, or numbers with commas between them.

    Raises:
        StartupError: A device is asked for that is not there.
    """
    n_devices = count()
    numbers = tuple(range(n_devices)) if setting == ALL_DEVICES else tuple(int(number) for number in setting.split(","))
    if not numbers or max(numbers) >= n_devices:
        raise StartupError(
            f"PARSEQ_DEVICES={setting}, but {n_devices} GPUs are visible: check the driver, what the container is given, "
            "and CUDA_VISIBLE_DEVICES"
        )
    return numbers


def count_cuda_devices(load: Callable[[str], Any] = ctypes.CDLL) -> int:
    """GPUs that the CUDA driver shows to this process; 0 when there is no driver."""
    try:
        driver = load(CUDA_DRIVER)
    except OSError:
        return 0
    n_devices = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(n_devices)) != 0:
        return 0
    return n_devices.value


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Host and device memory for batches of one size."""

    staging: NDArray[np.uint8]
    """The batch on the host, uint8 `[size, height, width, 3]`."""
    pixels: Any
    """The batch on the device, an `OrtValue`."""
    binding: Any
    """`IOBinding` of input and outputs."""


class DeviceSession:
    """One lane's way to a device: a batch is padded to a bucket, so that the device sees few shapes. Runs one at a time.

    Args:
        session: The device's ONNX Runtime session; other lanes may share it.
        device_type: As ONNX Runtime calls it: `cuda`, or `cpu` in tests.
        device: Its number.
        crop_shape: Height, width, channels.
        buckets: Batch sizes, ascending; the last is the largest batch.
    """

    def __init__(
        self, session: Any, device_type: str, device: int, crop_shape: tuple[int, int, int], buckets: Sequence[int]
    ) -> None:
        self._session = session
        self._device_type = device_type
        self._device = device
        self._crop_shape = crop_shape
        self._sizes = tuple(buckets)
        self._buckets: dict[int, _Bucket] = {}

    def run(self, crops: NDArray[np.uint8]) -> tuple[TokenIds, Confidences]:
        """Read uint8 `[batch, height, width, 3]`: ids int64 and confidences float32 `[batch, max_label_length + 1]`."""
        n_crops = len(crops)
        bucket = self._bucket(bucket_of(n_crops, self._sizes))
        bucket.staging[:n_crops] = crops  # rows left over from earlier batches may stay: nobody reads what they give
        bucket.pixels.update_inplace(bucket.staging)
        self._session.run_with_iobinding(bucket.binding)
        token_ids, confidences = bucket.binding.copy_outputs_to_cpu()
        return token_ids[:n_crops], confidences[:n_crops]

    def run_with(self, crops: NDArray[np.uint8], wanted: Wanted) -> Outputs:
        """The same where more is wanted. Few requests want that, so there is no memory on the device for it; but the batch is
        padded to the same sizes."""
        n_crops = len(crops)
        size = bucket_of(n_crops, self._sizes)
        padded = np.zeros((size, *self._crop_shape), np.uint8)
        padded[:n_crops] = crops
        allowed = wanted.allowed
        if allowed is not None:
            allowed = np.concatenate([allowed, np.ones((size - n_crops, allowed.shape[1]), np.bool_)])
        return run_wanted(self._session, padded, Wanted(allowed, wanted.top)).first(n_crops)

    def _bucket(self, size: int) -> _Bucket:
        """The memory for one batch size, made when it is first needed, which is in the warm-up."""
        if size not in self._buckets:
            staging = np.zeros((size, *self._crop_shape), np.uint8)
            pixels = onnxruntime.OrtValue.ortvalue_from_numpy(staging, self._device_type, self._device)
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(INPUT_NAME, pixels)
            for name in OUTPUT_NAMES:
                binding.bind_output(name, self._device_type, self._device)
            self._buckets[size] = _Bucket(staging, pixels, binding)
        return self._buckets[size]


class SpreadSession:
    """Several sessions as one: each run takes one that is free. Safe to run from as many threads as there are slots.

    Args:
        slots: One for each lane.
    """

    def __init__(self, slots: Sequence[Session]) -> None:
        self.slots = tuple(slots)
        self._free: SimpleQueue[Session] = SimpleQueue()
        for slot in slots:
            self._free.put(slot)

    def run(self, crops: NDArray[np.uint8]) -> tuple[TokenIds, Confidences]:
        """Read uint8 `[batch, height, width, 3]` on the slot that has been free for longest."""
        slot = self._free.get()
        try:
            return slot.run(crops)
        finally:
            self._free.put(slot)

    def run_with(self, crops: NDArray[np.uint8], wanted: Wanted) -> Outputs:
        """The same where more is wanted."""
        slot = self._free.get()
        try:
            return slot.run_with(crops, wanted)
        finally:
            self._free.put(slot)
