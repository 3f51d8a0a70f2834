"""How the learning rate changes in the course of a run."""

from __future__ import annotations

import math
from typing import Final, Literal

Schedule = Literal["constant", "onecycle"]

REFERENCE_BATCH: Final = 256
"""The reference's learning rates are for this many crops a step."""
FIRST_FACTOR, LAST_FACTOR = 1 / 25, 1 / 25e4
"""Factors with which OneCycle begins and ends, which are PyTorch's defaults."""


def rate_factor(
    schedule: Schedule, step: int, steps: int, *, warmup_steps: int, decay_fraction: float, warmup_fraction: float
) -> float:
    """The share of the peak rate at `step` of `steps`.

    `constant`: warm up linearly, stay, fall linearly to zero. `onecycle`: a cosine up, a cosine down (Smith and Topin, 2018),
    equal to PyTorch's `OneCycleLR`.
    """
    if schedule == "constant":
        decay_steps = max(1, round(steps * decay_fraction))
        return min(1.0, (step + 1) / max(1, warmup_steps), max(0.0, (steps - step) / decay_steps))
    peak, last = warmup_fraction * steps - 1, steps - 1
    if step <= peak and peak > 0:
        return _cosine(FIRST_FACTOR, 1.0, step / peak)
    return _cosine(1.0, LAST_FACTOR, min(1.0, (step - peak) / max(1e-9, last - peak)))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def scaled_rate(rate: float, batch_size: int, devices: int, accumulated: int) -> float:
    """The reference's rule: in proportion to a device's batch and to accumulated batches, with the root of the devices.

    Args:
        rate: The rate for `REFERENCE_BATCH` crops a step.
        batch_size: Crops of a batch on one device.
        devices: Number of devices that share a step.
        accumulated: Batches of each device in a step.
    """
    return rate * batch_size * accumulated * math.sqrt(devices) / REFERENCE_BATCH
