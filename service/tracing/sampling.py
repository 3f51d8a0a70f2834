"""Which requests are traced: decided from a trace's id and its caller's flag, before anything of OpenTelemetry is called."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SAMPLER: Final = "OTEL_TRACES_SAMPLER"
RATIO: Final = "OTEL_TRACES_SAMPLER_ARG"
DEFAULT_RATIO: Final = 0.01
ALWAYS: Final = 2**64
NEVER: Final = 0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sampler:
    """A trace is taken when the lower half of its id, as a number, is below a bound, as OpenTelemetry's ratio sampler has it:
    so all services with the same ratio take the same traces."""

    root: int
    """The bound of traces that begin here."""
    taken_by_caller: int
    left_by_caller: int

    def takes(self, trace_id: str, caller_takes: bool | None) -> bool:
        """Whether a request is traced.

        Args:
            trace_id: 32 hexadecimal digits.
            caller_takes: What the caller's `traceparent` says; `None`: there is no caller who traces.
        """
        bound = self.root if caller_takes is None else self.taken_by_caller if caller_takes else self.left_by_caller
        return int(trace_id[16:], 16) < bound


def sampler_of(environment: Mapping[str, str]) -> Sampler:
    """The sampler that `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` name, by default the caller's decision and one in a
    hundred of the traces that begin here. What cannot be read is told in the log and counts as not said."""
    name = environment.get(SAMPLER, "").strip().lower()
    bound = round(_ratio(environment) * 2**64)
    by_name = {
        "parentbased_always_on": Sampler(ALWAYS, ALWAYS, NEVER),
        "parentbased_always_off": Sampler(NEVER, ALWAYS, NEVER),
        "parentbased_traceidratio": Sampler(bound, ALWAYS, NEVER),
        "always_on": Sampler(ALWAYS, ALWAYS, ALWAYS),
        "always_off": Sampler(NEVER, NEVER, NEVER),
        "traceidratio": Sampler(bound, bound, bound),
    }
    default = "parentbased_traceidratio"
    if name and name not in by_name:
        logger.warning("%s=%s is none of %s: it counts as %s", SAMPLER, name[:80], ", ".join(by_name), default)
    return by_name.get(name, by_name[default])


def _ratio(environment: Mapping[str, str]) -> float:
    given = environment.get(RATIO, "").strip()
    try:
        ratio = float(given or DEFAULT_RATIO)
    except ValueError:
        ratio = math.nan
    if not 0.0 <= ratio <= 1.0:
        logger.warning("%s=%s is no number from 0 to 1: it counts as %g", RATIO, given[:80], DEFAULT_RATIO)
        return DEFAULT_RATIO
    return ratio
