"""What the dashboard shows: a line for each query."""

from __future__ import annotations

from parts import WHERE, Panel, gauge, heatmap, mean, quantile, rate, stat, total

STAGES = {
    "decode wait": "parseq_image_decode_wait_seconds",
    "decode": "parseq_image_decode_duration_seconds",
    "queue": "parseq_queue_wait_seconds",
    "inference": "parseq_inference_duration_seconds",
}

REQUESTS = total("parseq_request_duration_seconds_count")
FAILED = total("parseq_request_duration_seconds_count", 'status=~"5.."')
ERRORS = f"({FAILED} or 0 * {REQUESTS}) / {REQUESTS}"  # without any 5xx there is no such series
REFUSALS = total("parseq_crops_refused_total")
REFUSED = f"{REFUSALS} / ({REFUSALS} + {total('parseq_crops_admitted_total')})"
UNSURE = 'le="0.5"'
TEXTS_READ = total("parseq_text_confidence_count", by="model")
ALL_TEXTS = total("parseq_text_confidence_count")
PADDING = total("parseq_padding_crops_total")

OVERVIEW = [
    stat("Ready replicas", "Replicas that accept requests.", "short", gauge("parseq_ready", "sum")),
    stat("Crops read", "Crops read per second, all replicas.", "ops", total("parseq_crops_total", 'outcome="done"')),
    stat("Errors", "Share of requests answered with 5xx. Alert: ParseqErrors, above 1 %.", "percentunit", ERRORS),
    stat(
        "p99 latency",
        "From the complete request to its answer, requests with many crops included. Objective: 2 s.",
        "s",
        quantile(0.99, "parseq_recognition_duration_seconds"),
    ),
    stat("Refused", "Share of crops refused with 429. Alert: ParseqRefuses, above 5 %.", "percentunit", REFUSED),
    stat(
        "Predicted wait",
        "What a single crop that comes now would wait for a lane, on average over the replicas: what to scale on. "
        "Alert: ParseqSaturated, above 0.5 s.",
        "s",
        gauge("parseq_predicted_wait_seconds", "avg"),
    ),
]
TRAFFIC = [
    Panel(
        "Requests by status",
        "Recognition requests per second. 499: the client left before its answer.",
        "reqps",
        {"{{status}}": total("parseq_request_duration_seconds_count", by="status")},
        stacked=True,
    ),
    Panel(
        "Crops by outcome",
        "How admitted crops ended, per second: done, expired (deadline), cancelled (the client left), failed (image or model).",
        "ops",
        {"{{outcome}}": total("parseq_crops_total", by="outcome")},
        stacked=True,
    ),
    Panel(
        "In flight",
        "Requests being answered, and crops admitted and not ended.",
        "short",
        {"requests": gauge("parseq_requests_in_flight", "sum"), "crops": gauge("parseq_crops_in_flight", "sum")},
    ),
    Panel("Connections", "Open connections.", "short", {"{{instance}}": gauge("parseq_connections")}),
    Panel(
        "Bodies",
        "Memory of the bodies that arrive or are being answered. At its limit others are refused (no-room-for-body).",
        "bytes",
        {"{{instance}}": gauge("parseq_body_bytes")},
    ),
    Panel(
        "Connections ended, requests held back",
        "Per second. made_room: for another connection; unread: the client did not read its answers; held back: a client sent "
        "more requests ahead than are taken at once.",
        "ops",
        {
            "{{reason}}": total("parseq_connections_ended_total", by="reason"),
            "held back": total("parseq_requests_held_back_total"),
        },
    ),
]
ERROR_PANELS = [
    Panel("Error ratio", "Share of requests answered with 5xx.", "percentunit", {"5xx": ERRORS}),
    Panel(
        "Problems by type",
        "Problems told to clients per second, for a whole request or for one crop. docs/api.md lists them.",
        "ops",
        {"{{problem}}": f"{total('parseq_problems_total', by='problem')} > 0"},
    ),
    Panel(
        "Refused by reason",
        "Crops refused with 429 per second. predicted_wait: would be read too late; queue_full: no room.",
        "ops",
        {"{{reason}}": total("parseq_crops_refused_total", by="reason")},
        stacked=True,
    ),
    Panel(
        "Self-checks",
        "Readings of the known crop per second; any that is wrong is a broken device or artifact.",
        "ops",
        {"{{outcome}}": total("parseq_self_checks_total", by="outcome")},
        width=12,
    ),
    Panel(
        "Reloads",
        "Reloads of the artifact in each interval. After a failed one the replica goes on with what it had.",
        "short",
        {"{{outcome}}": f"sum by (outcome) (increase(parseq_model_reloads_total{{{WHERE}}}[$__rate_interval]))"},
        width=12,
    ),
]
LATENCY = [
    Panel(
        "End to end",
        "From the complete request to its answer, all its crops. Points are requests that were traced.",
        "s",
        {f"p{q * 100:.0f}": quantile(q, "parseq_recognition_duration_seconds") for q in (0.5, 0.95, 0.99)},
    ),
    Panel(
        "p99 by stage",
        "99th percentile of each stage of a crop. They do not add up to that of the whole.",
        "s",
        {stage: quantile(0.99, metric) for stage, metric in STAGES.items()},
    ),
    Panel(
        "Mean by stage",
        "Mean of each stage: of an image, of a crop in the queue, of a run. Stacked, they show where the time goes.",
        "s",
        {stage: mean(metric) for stage, metric in STAGES.items()},
        stacked=True,
    ),
]
TEXTS = [
    Panel(
        "Confidence",
        "Mean confidence of the texts that were read. A change without a new model: other pictures come than before.",
        "percentunit",
        {"{{model}}": f"{total('parseq_text_confidence_sum', by='model')} / {TEXTS_READ}"},
    ),
    Panel(
        "Unsure",
        "Share of texts with a confidence of 0.5 or less.",
        "percentunit",
        {"{{model}}": f"{total('parseq_text_confidence_bucket', UNSURE, by='model')} / {TEXTS_READ}"},
    ),
    Panel(
        "Empty",
        "Share of crops read as no text at all: blank pictures, or something else than words.",
        "percentunit",
        {"{{model}}": f"{total('parseq_empty_texts_total', by='model')} / {TEXTS_READ}"},
    ),
    Panel(
        "Uncertain",
        "Share of texts that were flagged, as their confidence is below PARSEQ_MIN_CONFIDENCE; 0 without that setting.",
        "percentunit",
        {"{{model}}": f"{total('parseq_uncertain_texts_total', by='model')} / {TEXTS_READ}"},
        width=12,
    ),
    Panel(
        "Extra reads",
        "Reads beyond the first, for each crop: turned, upside down, words or windows of long crops. Each costs what a crop "
        "does; 0 where nobody asks for them.",
        "short",
        {"{{reason}}": f"{total('parseq_extra_reads_total', by='reason')} / ignoring (reason) group_left () {ALL_TEXTS}"},
        width=12,
        stacked=True,
    ),
]
QUEUE = [
    Panel(
        "Wait",
        "Predicted wait of a crop that comes now, and the age of the oldest that waits; the worst replica of each.",
        "s",
        {
            "predicted wait": gauge("parseq_predicted_wait_seconds", "max"),
            "oldest crop": gauge("parseq_queue_oldest_age_seconds", "max"),
        },
    ),
    Panel("Queue depth", "Decoded crops that wait for a lane.", "short", {"{{instance}}": gauge("parseq_queue_depth_crops")}),
    Panel(
        "Images to decode",
        "Images of admitted crops that wait for a decode thread; single: of requests with one crop, bulk: with several.",
        "short",
        {"{{kind}}": f"sum by (kind) ({gauge('parseq_decode_waiting_images')})"},
        stacked=True,
    ),
    heatmap("Queue wait", "Crops by how long they waited for a lane.", "s", "parseq_queue_wait_seconds"),
    heatmap("Batch sizes", "Runs of the session by the crops in them.", "short", "parseq_batch_size_crops"),
    Panel(
        "Mean batch size",
        "Crops in one run. It grows with load up to max_batch_size (below, under Model).",
        "short",
        {"crops": mean("parseq_batch_size_crops")},
    ),
    Panel(
        "Runs in progress",
        "Inference runs at once, on average: when it nears the lanes (below, under Model) the replica is full.",
        "short",
        {"{{instance}}": total("parseq_inference_duration_seconds_sum", by="instance")},
    ),
]
RESOURCES = [
    Panel(
        "CPU",
        "Cores in use.",
        "short",
        {"{{instance}}": rate("process_cpu_seconds_total")},
    ),
    Panel(
        "Memory",
        "Resident memory.",
        "bytes",
        {"{{instance}}": gauge("process_resident_memory_bytes")},
    ),
    Panel(
        "Memory of the limit",
        "Resident memory over what the container may use before it is killed; 0 without a limit. "
        "Alert: ParseqMemoryNearLimit, above 90 %.",
        "percentunit",
        {"{{instance}}": f"{gauge('process_resident_memory_bytes')} / on (job, instance) {gauge('parseq_memory_limit_bytes')}"},
    ),
    Panel(
        "Uptime",
        "Time since the process started: a fall to 0 is a restart.",
        "s",
        {"{{instance}}": f"time() - {gauge('process_start_time_seconds')}"},
    ),
    Panel(
        "Trace spans",
        "Spans of traced requests per second; failed: the collector could not be reached, dropped: too many waited for it.",
        "ops",
        {"{{outcome}}": total("parseq_trace_spans_total", by="outcome")},
    ),
    Panel(
        "Model",
        "The artifact that is served, and how. Several lines while a new one is rolled out.",
        "short",
        {"": gauge("parseq_model_info")},
        "table",
        16,
    ),
]
GPU = [
    Panel(
        "GPU utilisation",
        "From NVIDIA's DCGM exporter, once Prometheus scrapes one. No scaling signal: a GPU is busy long before it is full.",
        "percent",
        {"{{gpu}} {{Hostname}}": "DCGM_FI_DEV_GPU_UTIL"},
    ),
    Panel(
        "GPU memory",
        "Framebuffer in use, from the DCGM exporter.",
        "decmbytes",
        {"{{gpu}} {{Hostname}}": "DCGM_FI_DEV_FB_USED"},
    ),
    Panel("GPU power", "From the DCGM exporter.", "watt", {"{{gpu}} {{Hostname}}": "DCGM_FI_DEV_POWER_USAGE"}),
    Panel(
        "Padding",
        "Share of blank crops in the batches of a GPU, which fill them up to a size it was warmed up for; 0 on a CPU.",
        "percentunit",
        {"padding": f"{PADDING} / ({PADDING} + {total('parseq_batch_size_crops_sum')})"},
    ),
]
ROWS = {
    "Overview": OVERVIEW,
    "Traffic": TRAFFIC,
    "Errors": ERROR_PANELS,
    "Latency": LATENCY,
    "Texts": TEXTS,
    "Queue and batches": QUEUE,
    "CPU and memory": RESOURCES,
    "GPU": GPU,
}
COLLAPSED = {"GPU"}
