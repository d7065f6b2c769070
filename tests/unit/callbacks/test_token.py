"""Tokens of webhooks with OAuth2: fetched once, kept as long as they live, thrown away when they are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from switchboard.configuration import ClientCredentials
from switchboard.http.client import HttpAnswer
from switchboard_callback_delivery.token import TokenError, Tokens

CREDENTIALS = ClientCredentials("ferry", "s", "https://quay.example/token")


class TokenServer:
    """Gives out `first`, `second` and so on, each for as long as it is told to."""

    def __init__(self, **more: object) -> None:
        self.asked = 0
        self._more = {"expires_in": 300, **more}

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> HttpAnswer:
        self.asked += 1
        name = ("first", "second", "third")[self.asked - 1]
        return HttpAnswer(200, {}, msgspec.json.encode({"access_token": name, **self._more}))


async def test_callers_share_one_request() -> None:
    server = TokenServer()
    tokens = Tokens(server)

    assert await asyncio.gather(*(tokens.token(CREDENTIALS) for _ in range(5))) == ["first"] * 5
    assert server.asked == 1


@pytest.mark.parametrize(("told", "lives"), [(1, 30), (300, 300), (86_400, 3600)])
async def test_a_token_lives_as_long_as_its_server_says_within_bounds(told: int, lives: int) -> None:
    now = [0.0]
    tokens = Tokens(TokenServer(expires_in=told), clock=lambda: now[0])

    seen = [await tokens.token(CREDENTIALS)]
    for now[0] in (lives - 1.0, lives + 0.0):
        seen.append(await tokens.token(CREDENTIALS))

    assert seen == ["first", "first", "second"]


async def test_a_refused_token_is_fetched_anew_once_however_many_were_refused_with_it() -> None:
    server = TokenServer()
    tokens = Tokens(server)
    old = await tokens.token(CREDENTIALS)

    for _ in range(3):
        tokens.forget(CREDENTIALS, old)
        assert await tokens.token(CREDENTIALS) == "second"
    assert server.asked == 2


async def test_a_token_that_cannot_stand_in_a_header_is_none() -> None:
    with pytest.raises(TokenError, match="cannot stand in a header"):
        await Tokens(TokenServer(access_token="a\r\nb")).token(CREDENTIALS)
