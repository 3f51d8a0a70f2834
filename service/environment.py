"""Variables of the environment that look like settings and are not: slips, and what orchestrators add of their own accord."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

from service.config import ENV_PREFIX, PORT_VARIABLE, is_service_link

OTHER_PROGRAMS = frozenset({"PARSEQ_CACHE"})
"""Read by the training and export jobs."""
_SERVICE_VARIABLE = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes (and Docker's links) add for a service called `parseq` or `parseq-...`."""


def doubts(environment: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """A line for each variable with our prefix that is ignored, though somebody may count on it. Values are not told.

    Args:
        environment: All of it.
        known: Variables of settings.
    """
    for name, value in sorted(environment.items()):
        setting = name.upper()  # settings are found in lower case too
        if name == PORT_VARIABLE and is_service_link(value):
            yield (
                f"{name} is an address that Kubernetes adds for a Service of that name, so it is ignored: set "
                "enableServiceLinks: false in the pod, or set the port yourself"
            )
        elif setting.startswith(ENV_PREFIX) and setting not in known and setting not in OTHER_PROGRAMS:
            if is_service_link(value) or _SERVICE_VARIABLE.fullmatch(name):
                continue
            near = get_close_matches(setting.removeprefix(ENV_PREFIX), [each.removeprefix(ENV_PREFIX) for each in known], n=1)
            hint = f"; did you mean {ENV_PREFIX}{near[0]}?" if near else ""
            yield f"{name} is not a setting and is ignored{hint}"
