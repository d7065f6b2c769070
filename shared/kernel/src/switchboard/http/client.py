"""The HTTP client that adapters are handed: one call, one answer, and an honest account of what went wrong.

HttpError
├── NotSent     nothing reached the server: trying again is safe
└── NoAnswer    the request was written and no (whole) answer came: the server may have acted on it
"""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct


class HttpError(Exception):
    """Base of what can go wrong around one exchange. Texts never hold the URL: it may carry a token."""


class NotSent(HttpError):
    """Nothing reached the server: trying again is safe."""


class NoAnswer(HttpError):
    """The request was written and no whole answer came: the server may have acted on it."""


class HttpAnswer(Struct, frozen=True):
    """What a server answered. Header names are lower case; the body is cut at the client's limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient(Protocol):
    """One pooled client: timeouts, TLS verification, no redirects, a limit on the answer's size."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> HttpAnswer:
        """Make one exchange. Raises NotSent or NoAnswer; every status is an answer."""
        ...
