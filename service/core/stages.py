"""What became of the crops of a request that is traced: one stage each for decoding, queue and inference, however many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.engine.types import Item
from service.process.request import Attributes, Stage, Trace

MIXED: Final = "mixed"


def keep_stages(trace: Trace, items: Sequence[Item], admitted_s: float, ended_s: float, model: str) -> None:
    """Keep what became of the crops of a request.

    Args:
        trace: Where it is kept.
        items: The crops, all with an outcome.
        admitted_s: When they were let in, on the engine's clock.
        ended_s: When the last of them had ended.
        model: That read them.
    """
    trace.attributes = _attributes(items, model)
    trace.stages = _stages(items, admitted_s, ended_s, model)


def _attributes(items: Sequence[Item], model: str) -> dict[str, str | int]:
    outcomes = {str(item.outcome) for item in items}
    return {
        "parseq.crops": len(items),
        "parseq.model": model,
        "parseq.outcome": outcomes.pop() if len(outcomes) == 1 else MIXED,
    }


def _stages(items: Sequence[Item], admitted_s: float, ended_s: float, model: str) -> list[Stage]:
    """From the first crop that began a stage to the last that left it. A crop that went no further left it when all ended."""
    decoded = [item for item in items if item.decode_s > 0.0 and item.enqueued_s > 0.0]
    run = [item for item in decoded if item.batch_size]
    decode_ends_s = [min(item.enqueued_s, ended_s) for item in decoded]
    queue_ends_s = [item.enqueued_s + item.queue_s for item in run]
    run_ends_s = [
        end_s + item.inference_s if item.inference_s else ended_s for item, end_s in zip(run, queue_ends_s, strict=True)
    ]
    if len(decoded) < len(items):
        decode_ends_s.append(ended_s)
    if len(run) < len(decoded):
        queue_ends_s.append(ended_s)
    stages = [Stage("decode", admitted_s, max(decode_ends_s), _attributes(items, model))]
    if decoded:
        queued_s = min(item.enqueued_s for item in decoded)
        stages.append(Stage("queue", queued_s, max(queue_ends_s), _attributes(decoded, model)))
    if run:
        sizes: Attributes = {
            "parseq.batch_size": max(item.batch_size for item in run),
            "parseq.runs": len({item.enqueued_s + item.queue_s for item in run}),
        }
        started_s = min(item.enqueued_s + item.queue_s for item in run)
        stages.append(Stage("inference", started_s, max(run_ends_s), {**_attributes(run, model), **sizes}))
    return stages
