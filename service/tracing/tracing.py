"""Tracing as the rest of the service sees it: a decision at the beginning of a request, one call at its end.

It is on when the environment names a collector, in OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` or
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`). Whatever is wrong with them, the service serves: they are often set for all of a cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from service.process.request import Attributes, RequestContext
from service.tracing.sampling import Sampler, sampler_of

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL: Final = "http/protobuf"
EXPORTER: Final = "OTEL_TRACES_EXPORTER"
DISABLED: Final = "OTEL_SDK_DISABLED"
EXTRA: Final = "parseq-service[tracing]"

logger = logging.getLogger(__name__)


class Tracing:
    """The traces of one server.

    Args:
        environment: Has `OTEL_*`. The library reads some of them itself, from the process's own.
        version: Of the service.

    Raises:
        ImportError: The extra `tracing` is not installed.
        Exception: Whatever OpenTelemetry's library finds wrong with its settings.
    """

    def __init__(self, environment: Mapping[str, str], version: str) -> None:
        from service.tracing.spans import SpanWriter  # it needs the extra, and a quarter of a second to import

        self.sampler: Sampler = sampler_of(environment)
        self.count: Callable[[str, int], None] = lambda _outcome, _n_spans: None
        """Told from any thread how many spans were `exported`, `failed` or `dropped`."""
        self._writer = SpanWriter(environment, version, lambda outcome, n_spans: self.count(outcome, n_spans))

    def end(self, context: RequestContext, name: str, started_s: float, attributes: Attributes, failed: bool) -> None:
        """A request has been answered: write its spans, if it is traced. It never raises, and never waits.

        Args:
            context: Of the request.
            name: Of its span, such as `POST /v1/recognize`; of few different values.
            started_s: When it began, on the monotonic clock.
            attributes: Of its span, by the conventions of the protocol that it came in.
            failed: Whether the server is to blame for how it ended.
        """
        try:
            self._writer.write(context, name, started_s, attributes, failed)
        except Exception:
            logger.exception("a trace was not written")

    def stop(self, timeout_s: float) -> None:
        """Export what waits, for no longer than `timeout_s`. Blocks."""
        self._writer.stop(timeout_s)


def open_tracing(environment: Mapping[str, str], version: str) -> Tracing | None:
    """Tracing as the environment asks for it; `None`, and a line in the log if that is not what somebody wanted, without."""
    variable = next((name for name in ENDPOINTS if environment.get(name)), None)
    if variable is None or environment.get(DISABLED, "").strip().lower() == "true":
        return None
    exporter = environment.get(EXPORTER, "").strip().lower()
    if exporter == "none":
        return None
    protocol = next((environment[name].strip() for name in PROTOCOLS if environment.get(name)), PROTOCOL)
    url = urlsplit(environment[variable])
    tracing, doubt = None, ""
    if exporter not in ("", "otlp"):
        doubt = f"{EXPORTER}={exporter[:80]} is not known here: otlp or none"
    elif protocol != PROTOCOL:
        doubt = f"traces are sent by {PROTOCOL} (a collector's port 4318) and not by {protocol[:80]}: set {PROTOCOLS[0]}"
    elif url.scheme not in ("http", "https") or not url.hostname:
        doubt = f"{variable} is no address such as http://collector:4318"
    else:
        try:
            tracing = Tracing(environment, version)
        except ImportError as error:
            doubt = f"{variable} is set, but OpenTelemetry is not installed ({error}): pip install '{EXTRA}'"
        except Exception as error:
            doubt = f"OpenTelemetry refuses its settings: {str(error)[:300]}"
    if doubt:
        logger.warning("no traces: %s", doubt)
    else:
        logger.info("traces are sent to %s", url.hostname)
    return tracing
