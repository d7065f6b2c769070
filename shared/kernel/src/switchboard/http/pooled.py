"""The pooled HTTP client for providers, over pyreqwest (channel-providers 0.1).

What counts is that a failure is named honestly. pyreqwest raises `ConnectError` for a connection that never
came about *and* for one that broke after the request was written: its types cannot decide, its causes do.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import DetailedPyreqwestError, PoolTimeoutError, PyreqwestError

from switchboard.http.client import HttpAnswer, NoAnswer, NotSent

CONNECT_TIMEOUT_SECONDS: Final = 3.0
TOTAL_TIMEOUT_SECONDS: Final = 12.0
#: How long an exchange waits for a connection while all are in use.
POOL_TIMEOUT_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 60.0
ANSWER_LIMIT_BYTES: Final = 1_000_000

# hyper's words for a failure before there was a connection: refused, no such name, TLS, connect time-out.
_CONNECTING: Final = "client error (Connect)"


class PooledHttpClient:
    """Keep-alive connections to any number of hosts. Made once a process and handed to adapters."""

    def __init__(
        self,
        *,
        max_connections: int = 256,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        timeout_seconds: float = TOTAL_TIMEOUT_SECONDS,
        pool_timeout_seconds: float = POOL_TIMEOUT_SECONDS,
        answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
        trusted_certificates_pem: bytes = b"",
    ) -> None:
        """`timeout_seconds` bounds an exchange from connecting to the last byte of its answer.

        `trusted_certificates_pem` is trusted besides the system's authorities.
        """
        self._answer_limit_bytes = answer_limit_bytes
        self._closed = False
        builder = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=connect_timeout_seconds))
            .timeout(timedelta(seconds=timeout_seconds))
            .max_connections(max_connections)
            .pool_timeout(timedelta(seconds=pool_timeout_seconds))
            .pool_idle_timeout(timedelta(seconds=IDLE_SECONDS))
            .follow_redirects(False)
            .referer(False)
            # A provider is reached directly: a proxy in the environment must not see tokens in URLs.
            .no_proxy()
            # One exchange a connection: a cut connection leaves one outcome in doubt, not all of them.
            .http1_only()
            .user_agent("switchboard")
        )
        if trusted_certificates_pem:
            builder = builder.add_root_certificate_pem(trusted_certificates_pem)
        self._client: Client = builder.build()

    async def close(self) -> None:
        """Close all connections. Exchanges still open end with NoAnswer."""
        self._closed = True
        await self._client.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> HttpAnswer:
        """Make one exchange. Raises NotSent or NoAnswer; every status is an answer, redirects too."""
        if self._closed:
            raise NotSent("the client is closed")
        try:
            request = self._client.request(method, url)
            if headers:
                request = request.headers(dict(headers))
            if body:
                request = request.body_bytes(body)
            if timeout_seconds is not None:
                request = request.timeout(timedelta(seconds=timeout_seconds))
            exchange = request.build_streamed()
        except ValueError:
            # Not chained: the text of the cause may quote the URL, and with it a token.
            raise NotSent("the request cannot be built: its URL or a header is malformed") from None
        try:
            async with exchange as answer:
                content = await answer.body_reader.read(self._answer_limit_bytes)
                names = {name.lower(): value for name, value in answer.headers.items()}
                return HttpAnswer(answer.status, names, bytes(content or b""))
        except PyreqwestError as error:
            raise _honest(error) from None


def _honest(error: PyreqwestError) -> NotSent | NoAnswer:
    if isinstance(error, PoolTimeoutError):
        return NotSent("all connections are in use")
    causes = _causes(error)
    if _CONNECTING in causes:
        return NotSent(f"no connection: {causes[-1]}")
    return NoAnswer(causes[-1] if causes else type(error).__name__)


def _causes(error: PyreqwestError) -> list[str]:
    """What happened, outermost first, without the texts that quote the URL."""
    if not isinstance(error, DetailedPyreqwestError):
        return []
    causes = error.details.get("causes") or []
    return [cause["message"] for cause in causes if " for url " not in cause["message"]]
