from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from service.process.logs import CONTEXT_KEY, JsonFormatter
from service.process.request import RequestContext


def line_of(message: str, **values: object) -> dict[str, object]:
    record = logging.makeLogRecord(
        {"name": "service", "levelname": "WARNING", "msg": message, "created": 0.25, "msecs": 250.0, **values}
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    parsed = json.loads(text)
    assert isinstance(parsed, dict)
    return parsed


def test_a_line_is_an_object() -> None:
    assert line_of('a "quoted"\nmessage of %d', args=(3,)) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "service",
        "message": 'a "quoted"\nmessage of 3',
    }


def test_a_line_about_a_request_carries_its_ids() -> None:
    line = line_of("late", **{CONTEXT_KEY: RequestContext("abc", "def", "ghi")})
    assert (line["request_id"], line["trace_id"], line["span_id"]) == ("abc", "def", "ghi")
    assert not {"trace_id", "span_id"} & line_of("late", **{CONTEXT_KEY: RequestContext("abc")}).keys()


def test_a_traceback_is_a_member() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = line_of("failed", exc_info=sys.exc_info())
    assert "ValueError: broken" in str(line["exception"])


@pytest.mark.parametrize("level", ["debug", "info", "error"])
def test_libraries_are_heard_from_warnings_on_and_pillow_never(level: str) -> None:
    program = f"""
import logging
import service.images.decode
from service.process.logs import configure_logging
configure_logging({level!r}, "json")
for name in ("service.x", "PIL.TiffImagePlugin", "asyncio"):
    for speak in (logging.getLogger(name).debug, logging.getLogger(name).warning, logging.getLogger(name).error):
        speak("heard")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heard = [(line["logger"], line["level"]) for line in map(json.loads, done.stderr.splitlines())]
    own = [("service.x", each) for each in ("debug", "warning", "error")]
    others = [("asyncio", each) for each in ("warning", "error")]
    wanted = {"debug": own + others, "info": own[1:] + others, "error": own[2:] + others[1:]}
    assert heard == wanted[level]
