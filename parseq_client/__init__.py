"""The client of parseq-service: crops and pages in, typed results out.

`Client` for ordinary programs, `AsyncClient` for asyncio. Both do the same by the same code; docs/client.md shows how.
"""

from parseq_client.async_client import AsyncClient
from parseq_client.client import Client
from parseq_client.errors import (
    BusyError,
    CropError,
    DeadlineError,
    NotFoundError,
    ParseqError,
    RequestError,
    ServerError,
    UnauthorizedError,
    UnreachableError,
)
from parseq_client.options import Options
from parseq_client.pictures import Image, Region
from parseq_client.results import Alternative, Character, Limits, Model, Problem, Result, Word

__all__ = [
    "Alternative",
    "AsyncClient",
    "BusyError",
    "Character",
    "Client",
    "CropError",
    "DeadlineError",
    "Image",
    "Limits",
    "Model",
    "NotFoundError",
    "Options",
    "ParseqError",
    "Problem",
    "Region",
    "RequestError",
    "Result",
    "ServerError",
    "UnauthorizedError",
    "UnreachableError",
    "Word",
]
