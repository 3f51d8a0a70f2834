"""The service, but for one answer, with the status in the variable `STATUS`: to see that the fuzzer finds it."""

from __future__ import annotations

import os
import sys

from service.__main__ import main
from service.errors import OTHER_HTTP_ERROR, Problem
from service.http import routes


def _refuse(*_given: object) -> dict[str, object]:
    raise Problem(OTHER_HTTP_ERROR, "", status=int(os.environ["STATUS"]))


if __name__ == "__main__":
    routes._described = _refuse  # type: ignore[assignment]
    sys.exit(main())
