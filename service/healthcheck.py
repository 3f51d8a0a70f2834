"""`python -m service.healthcheck`: exit code 0 when the server in this container is ready, else 1, with one line that says why.

For the HEALTHCHECK of an image, which has no curl. Standard library only; it is started every few seconds.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException
from typing import Final

EXIT_READY: Final = 0
EXIT_NOT_READY: Final = 1  # Docker knows no other code
TIMEOUT_S: Final = 3.0
PATH: Final = "/readyz"
ANY_IPV4: Final = "0.0.0.0"  # nosec B104  # compared, not bound
LOOPBACK_OF: Final = {"": "127.0.0.1", ANY_IPV4: "127.0.0.1", "::": "::1"}
"""Where to ask when the server listens on all addresses."""
DEFAULT_PORT: Final = "8000"


def main() -> int:
    """Ask the server once, at the address and port of its own settings; returns the exit code."""
    host = os.environ.get("PARSEQ_HOST", "")
    port = os.environ.get("PARSEQ_PORT") or DEFAULT_PORT
    try:
        connection = HTTPConnection(LOOPBACK_OF.get(host, host), int(port), timeout=TIMEOUT_S)
        connection.request("GET", PATH)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        print(f"{PATH} cannot be asked: {error}")
        return EXIT_NOT_READY
    print(f"{PATH} answers {answer.status}: {body}")
    return EXIT_READY if answer.status == 200 else EXIT_NOT_READY


if __name__ == "__main__":
    sys.exit(main())
