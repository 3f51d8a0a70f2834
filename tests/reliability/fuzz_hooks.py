"""Loaded by schemathesis: a check, and a count of what was asked and answered, left in the file that `TALLY_VARIABLE` names."""

from __future__ import annotations

import atexit
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis

from service.errors import DEADLINE_EXPIRED
from service.http.head import TIMEOUT_HEADER
from tests.reliability.api_fuzz import TALLY_VARIABLE

UNKNOWN_HEADER = "x-schemathesis-unknown-property"

_answers: Counter[tuple[str, int]] = Counter()


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """A header that nobody knows is tried as wrong data, but HTTP ignores it."""
    return UNKNOWN_HEADER not in {name.lower() for name in case.headers}


@schemathesis.check
def no_server_error(_context: Any, response: Any, case: Any) -> None:
    """No 5xx, but for the 504 of a client that set a deadline itself, however short."""
    said = TIMEOUT_HEADER in case.headers or "timeout" in str(case.body)
    asked_for = response.status_code == DEADLINE_EXPIRED.status and said
    assert response.status_code < 500 or asked_for, f"answered with {response.status_code}: {response.text[:300]}"


@schemathesis.hook
def after_call(_context: Any, case: Any, response: Any) -> None:
    _answers[case.operation.label, response.status_code] += 1


@atexit.register
def _save() -> None:
    rows = [[label, status, count] for (label, status), count in sorted(_answers.items())]
    Path(os.environ[TALLY_VARIABLE]).write_text(json.dumps(rows))
