"""Prometheus metrics, one registry for each app. Names and meaning are listed in `docs/metrics.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.openmetrics import exposition as openmetrics

from service.engine.engine import Engine
from service.engine.types import Exemplar, Outcome, Refusal
from service.errors import KINDS
from service.process.memory import memory_limit_bytes
from service.sessions.topology import bucket_of

LATENCY_BUCKETS_S: Final = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
)  # fmt: skip
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCE_BUCKETS: Final = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
SPAN_ENDS: Final = ("exported", "failed", "dropped")
AS_THEY_ARE: Final[dict[str, Any]] = {"escaping": openmetrics.ALLOWUTF8} if hasattr(openmetrics, "ALLOWUTF8") else {}
"""Names of metrics need no escaping. To look for what does, character by character, takes longer than all else together; older
versions of the library do not."""
CONNECTION_ENDS: Final = ("made_room", "unread")


# A creation time beside every series doubles what is scraped, and nothing here needs it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics of one app; those of crops and runs by model, the rest of all models together."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._add_requests()
        self._add_connections()
        self._add_crops()
        self._add_engine()
        self._add_process()

    def _add_requests(self) -> None:
        self.request_duration = self._histogram(
            "parseq_request_duration_seconds", "Recognition requests, from first byte to last.", ["status"]
        )
        self.recognition_duration = self._histogram(
            "parseq_recognition_duration_seconds",
            "From the complete request to its answer, end to end: decoding, queue and inference of all its crops.",
        )
        self.requests_in_flight = self._gauge("parseq_requests_in_flight", "Recognition requests being answered.")
        self.problems = Counter(
            "parseq_problems_total",
            "Problems told to clients, for a whole request or for one crop.",
            ["problem"],
            registry=self.registry,
        )
        # Looked up once, and so that each series exists, at 0, from the start: else the first of a kind raises no rate.
        self._problems = {kind.slug: self.problems.labels(kind.slug) for kind in KINDS}

    def _add_connections(self) -> None:
        self.connections = self._gauge("parseq_connections", "Open connections.")
        self.connections_ended = Counter(
            "parseq_connections_ended_total",
            "Connections the server ended before their client or an idle time-out did.",
            ["reason"],
            registry=self.registry,
        )
        self._connections_ended = {reason: self.connections_ended.labels(reason) for reason in CONNECTION_ENDS}
        self.held_back = Counter(
            "parseq_requests_held_back_total",
            "Times a client sent more requests ahead of their answers than are taken at once.",
            registry=self.registry,
        )
        self.body_bytes = self._gauge(
            "parseq_body_bytes", "Memory that bodies of requests take which are arriving or being answered."
        )

    def _add_crops(self) -> None:
        self.crops_admitted = Counter(
            "parseq_crops_admitted_total", "Crops let in; each ends in parseq_crops_total.", ["model"], registry=self.registry
        )
        self.crops_refused = Counter(
            "parseq_crops_refused_total",
            "Crops turned away before they were decoded. A form or JSON refused before it was read counts as one.",
            ["model", "reason"],
            registry=self.registry,
        )
        self.crops = Counter(
            "parseq_crops_total", "Admitted crops by how they ended.", ["model", "outcome"], registry=self.registry
        )
        self.decode_wait = self._histogram(
            "parseq_image_decode_wait_seconds", "Wait of one image for a decode thread; 0 for one decoded at once."
        )
        self.decode_duration = self._histogram("parseq_image_decode_duration_seconds", "Decoding and resizing of one image.")
        self.confidence = Histogram(
            "parseq_text_confidence",
            "Confidence of each text that was read, 0 to 1.",
            ["model"],
            registry=self.registry,
            buckets=CONFIDENCE_BUCKETS,
        )
        self.empty_texts = Counter(
            "parseq_empty_texts_total", "Crops read as no text at all.", ["model"], registry=self.registry
        )
        self.uncertain_texts = Counter(
            "parseq_uncertain_texts_total",
            "Texts with less confidence than PARSEQ_MIN_CONFIDENCE.",
            ["model"],
            registry=self.registry,
        )
        self.extra_reads = Counter(
            "parseq_extra_reads_total",
            "Reads of admitted crops beyond the first: turned, upside_down, or of a word or window of a long crop.",
            ["model", "reason"],
            registry=self.registry,
        )

    def _add_engine(self) -> None:
        self.queue_wait = self._histogram("parseq_queue_wait_seconds", "Wait of one decoded crop for a lane.", ["model"])
        self.inference_duration = self._histogram("parseq_inference_duration_seconds", "One run of the session.", ["model"])
        self.batch_size = Histogram(
            "parseq_batch_size_crops",
            "Crops in one run of the session.",
            ["model"],
            registry=self.registry,
            buckets=BATCH_BUCKETS,
        )
        self.padding = Counter(
            "parseq_padding_crops_total",
            "Blank crops run with a batch to fill it up to a size the GPU was warmed up for.",
            ["model"],
            registry=self.registry,
        )
        self.decode_waiting = Gauge(
            "parseq_decode_waiting_images",
            "Images of admitted crops that wait for a decode thread.",
            ["kind"],
            registry=self.registry,
        )
        self.queue_depth = self._gauge("parseq_queue_depth_crops", "Decoded crops that wait for a lane.")
        self.queue_age = self._gauge("parseq_queue_oldest_age_seconds", "Age of the crop that has waited longest.")
        self.crops_in_flight = self._gauge(
            "parseq_crops_in_flight", "Admitted crops being decoded, waiting or in a run of the session."
        )
        self.predicted_wait = self._gauge(
            "parseq_predicted_wait_seconds", "What a request with one crop would wait for a lane if it came now."
        )

    def _add_process(self) -> None:
        self.self_checks = Counter(
            "parseq_self_checks_total", "Readings of the known crop, by how they came out.", ["outcome"], registry=self.registry
        )
        self._self_checks = {right: self.self_checks.labels("right" if right else "wrong") for right in (True, False)}
        self.reloads = Counter(
            "parseq_model_reloads_total", "Reloads of the artifact, by how they came out.", ["outcome"], registry=self.registry
        )
        self._reloads = {done: self.reloads.labels("done" if done else "failed") for done in (True, False)}
        self.spans = Counter(
            "parseq_trace_spans_total", "Spans of traced requests, by what became of them.", ["outcome"], registry=self.registry
        )
        self._spans = {outcome: self.spans.labels(outcome) for outcome in SPAN_ENDS}
        self.ready = self._gauge("parseq_ready", "1 when requests are accepted, else 0.")
        self.memory_limit = self._gauge(
            "parseq_memory_limit_bytes", "Memory the container may use before it is killed; +Inf without a limit."
        )
        self.memory_limit.set(memory_limit_bytes())
        self.model = Info("parseq_model", "The artifact that is served, and how.", ["name"], registry=self.registry)

    def _histogram(self, name: str, documentation: str, labels: list[str] | None = None) -> Histogram:
        return Histogram(name, documentation, labels or [], registry=self.registry, buckets=LATENCY_BUCKETS_S)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(name, documentation, registry=self.registry)

    def watch_engines(self, engines: Callable[[], Sequence[Engine]]) -> None:
        """Read what is in the present engines, of all models together, when the metrics are scraped."""
        self.queue_depth.set_function(lambda: sum(engine.depth for engine in engines()))
        self.queue_age.set_function(lambda: max(engine.oldest_age_s for engine in engines()))
        self.crops_in_flight.set_function(lambda: sum(engine.in_flight for engine in engines()))
        self.predicted_wait.set_function(lambda: max(engine.predicted_wait_s for engine in engines()))

    def show_models(self, models: Iterable[Mapping[str, str]]) -> None:
        """Say what is served now: for each model a series with these labels, `name` among them."""
        self.model.clear()
        for labels in models:
            facts = dict(labels)
            self.model.labels(facts.pop("name")).info(facts)

    def watch_decoding(self, waiting: Callable[[bool], int]) -> None:
        """Ask how many images of bulk, and how many others, wait when the metrics are scraped."""
        self.decode_waiting.labels("bulk").set_function(lambda: waiting(True))
        self.decode_waiting.labels("single").set_function(lambda: waiting(False))

    def observer(self, model: str, buckets: Sequence[int] = ()) -> ModelObserver:
        """For the engine of a model, whose batches are padded to `buckets`, ascending; none: they are not padded."""
        return ModelObserver(self, model, buckets)

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self.registry)

    def render_openmetrics(self) -> bytes:
        """The same as OpenMetrics 1.0, which has exemplars."""
        text: bytes = openmetrics.generate_latest(self.registry, **AS_THEY_ARE)  # type: ignore[no-untyped-call]
        return text

    def problem_told(self, slug: str) -> None:
        """Count one problem told to a client."""
        self._problems[slug].inc()

    def connection_ended(self, reason: str) -> None:
        """Count one connection that was ended, for one of `CONNECTION_ENDS`."""
        self._connections_ended[reason].inc()

    def spans_ended(self, outcome: str, n_spans: int) -> None:
        """Count spans, for one of `SPAN_ENDS`."""
        self._spans[outcome].inc(n_spans)

    def self_checked(self, right: bool) -> None:
        """Count one reading of the known crop."""
        self._self_checks[right].inc()

    def reloaded(self, succeeded: bool) -> None:
        """Count one reload."""
        self._reloads[succeeded].inc()


class ModelObserver:
    """The `Observer` of one model's engine. Each of its series exists, at 0, from the start.

    Args:
        metrics: Which count.
        model: Its name.
        buckets: Sizes that batches are padded to, ascending; none: they are not padded.
    """

    def __init__(self, metrics: Metrics, model: str, buckets: Sequence[int]) -> None:
        self._admitted = metrics.crops_admitted.labels(model)
        self._refused = {refusal: metrics.crops_refused.labels(model, refusal) for refusal in Refusal}
        self._settled = {outcome: metrics.crops.labels(model, outcome) for outcome in Outcome}
        self._queue_wait = metrics.queue_wait.labels(model)
        self._batch_size = metrics.batch_size.labels(model)
        self._duration = metrics.inference_duration.labels(model)
        self._padding = metrics.padding.labels(model)
        self._buckets = buckets

    def admitted(self, n_items: int) -> None:
        """Count crops let in."""
        self._admitted.inc(n_items)

    def refused(self, n_items: int, refusal: Refusal) -> None:
        """Count crops turned away."""
        self._refused[refusal].inc(n_items)

    def settled(self, outcome: Outcome, n_items: int) -> None:
        """Count crops that ended as `outcome`."""
        self._settled[outcome].inc(n_items)

    def queue_waited(self, wait_s: float, exemplar: Exemplar) -> None:
        """Observe one crop's wait."""
        self._queue_wait.observe(wait_s, exemplar)

    def batch_ran(self, n_items: int, duration_s: float, exemplar: Exemplar) -> None:
        """Observe one run."""
        self._batch_size.observe(n_items)
        self._duration.observe(duration_s, exemplar)
        if self._buckets:
            self._padding.inc(bucket_of(n_items, self._buckets) - n_items)
