"""Access tokens of webhooks with OAuth2 client credentials (conversation-api 10.2)."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from switchboard.configuration import ClientCredentials
from switchboard.http.client import HttpClient, HttpError

#: How long a token may live here, whatever its server says.
SHORTEST_SECONDS: Final = 30
LONGEST_SECONDS: Final = 3600
_TOKENS_KEPT: Final = 10_000


class TokenError(Exception):
    """No token was had. The text says why, for the webhook's owner."""


class _Answer(Struct):
    access_token: str
    expires_in: float = SHORTEST_SECONDS


class Tokens:
    """Fetches tokens and keeps them as long as they live. Callers of one token share one request."""

    def __init__(self, client: HttpClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[ClientCredentials, tuple[float, str]] = {}
        self._asking: dict[ClientCredentials, asyncio.Task[str]] = {}

    async def token(self, credentials: ClientCredentials) -> str:
        """A token that is valid now. Raises TokenError."""
        kept = self._kept.get(credentials)
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        asking = self._asking.get(credentials)
        if asking is None:
            asking = asyncio.create_task(self._ask(credentials))
            self._asking[credentials] = asking
            asking.add_done_callback(lambda _: self._asking.pop(credentials, None))
        return await asyncio.shield(asking)

    def forget(self, credentials: ClientCredentials, refused: str) -> None:
        """This token was refused: the next try asks for a new one, unless somebody has one already."""
        kept = self._kept.get(credentials)
        if kept is not None and kept[1] == refused:
            del self._kept[credentials]

    async def _ask(self, credentials: ClientCredentials) -> str:
        body, headers = token_request(credentials)
        try:
            answer = await self._client.request("POST", credentials.endpoint, body=body, headers=headers)
        except HttpError as error:
            raise TokenError(f"no token: {error}") from None
        if not 200 <= answer.status < 300:
            raise TokenError(f"no token: its server answered {answer.status}")
        try:
            told = msgspec.json.decode(answer.body, type=_Answer, strict=False)
        except msgspec.DecodeError:
            raise TokenError("no token: the answer has no access_token, or is no JSON, or too long") from None
        if not told.access_token.isascii() or not told.access_token.isprintable():
            raise TokenError("no token: the access_token cannot stand in a header")
        seconds = min(max(told.expires_in, SHORTEST_SECONDS), LONGEST_SECONDS)
        if len(self._kept) >= _TOKENS_KEPT:
            self._kept.clear()
        self._kept[credentials] = (self._clock() + seconds, told.access_token)
        return told.access_token


def token_request(credentials: ClientCredentials) -> tuple[bytes, dict[str, str]]:
    """The form and the headers of a token request: who asks stands in the form, or in a Basic header."""
    form = {"grant_type": "client_credentials"}
    if credentials.scope:
        form["scope"] = credentials.scope
    if credentials.response_type:
        form["response_type"] = credentials.response_type
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    if credentials.token_request_type == "FORM":
        form["client_id"] = credentials.client_id
        form["client_secret"] = credentials.client_secret
    else:
        # Both are form-encoded first (RFC 6749 2.3.1).
        pair = f"{quote(credentials.client_id, safe='')}:{quote(credentials.client_secret, safe='')}"
        headers["authorization"] = "Basic " + b64encode(pair.encode()).decode()
    return urlencode(form).encode(), headers
