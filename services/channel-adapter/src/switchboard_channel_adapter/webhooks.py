"""What providers post: verified over the raw bytes, durable, then answered (channel-providers 0.4).

`POST /channels/{channel}/{app id or provider account key}`. 404 for an unknown channel or account, 401 for a request
that is not the provider's, 413 over the limit, 503 while it cannot be made durable; else what the channel answers.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.bus import BusError
from switchboard.channel.contract import Account, RequestAdapter, WebhookAnswer, WebhookRequest
from switchboard.channel.errors import InvalidWebhook
from switchboard.channel.manifest import AccountOwner
from switchboard.configuration import Configuration
from switchboard.http.client import HttpClient, HttpError
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId
from switchboard.store.pool import TRANSIENT_ERRORS
from switchboard_channel_adapter import metrics
from switchboard_channel_adapter.inbound import Facts

log = structlog.get_logger(__name__)

BODY_LIMIT_BYTES: Final = 1_000_000
PATH: Final = "/channels/{channel}/{owner}"


def webhook_url(public_url: str, channel: ChannelName, owner: str) -> str:
    """Where a provider posts for this app or account."""
    return public_url.rstrip("/") + PATH.format(channel=channel, owner=owner)


class Webhooks:
    """Answers the providers of all request channels of this process."""

    def __init__(
        self,
        adapters: Mapping[ChannelName, RequestAdapter],
        facts: Mapping[ChannelName, Facts],
        configuration: Configuration,
        http: HttpClient,
    ) -> None:
        """`http` is for follow-ups: not the client of the sends, which may be in use entirely."""
        self._adapters = adapters
        self._facts = facts
        self._configuration = configuration
        self._http = http
        self._follow_ups: set[asyncio.Task[None]] = set()
        self.app = Starlette(routes=[Route(PATH, self._receive, methods=["POST", "GET"])])

    async def stop(self) -> None:
        """End what is under way after answers."""
        for task in list(self._follow_ups):
            task.cancel()
        await asyncio.gather(*self._follow_ups, return_exceptions=True)

    async def _receive(self, request: Request) -> Response:
        channel = ChannelName(request.path_params["channel"].upper())
        adapter = self._adapters.get(channel)
        if adapter is None:
            return Response(status_code=404)
        try:
            response = await self._answer(adapter, request)
        except ClientDisconnect:
            return Response(status_code=400)
        except (BusError, *TRANSIENT_ERRORS) as error:
            log.warning("a provider's webhook cannot be taken now", channel=channel, error=type(error).__name__)
            response = Response(status_code=503, headers={"retry-after": "5"})
        metrics.webhooks.labels(channel, str(response.status_code)).inc()
        return response

    async def _answer(self, adapter: RequestAdapter, request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return Response(status_code=413)
        account, app_id = await self._account(adapter, request.path_params["owner"])
        if account is None:
            return Response(status_code=404)
        try:
            answer = adapter.parse_webhook(_untouched(request, body), account)
        except InvalidWebhook as error:
            log.warning("a webhook was refused", channel=adapter.manifest.channel, why=str(error))
            return Response(status_code=401)
        await self._facts[adapter.manifest.channel].take(account.key, answer.facts, app_id)
        self._follow_up(answer)
        return Response(answer.body, answer.status, media_type=answer.content_type if answer.body else None)

    async def _account(self, adapter: RequestAdapter, owner: str) -> tuple[Account | None, AppId | None]:
        if adapter.manifest.owner is AccountOwner.OPERATOR:
            account = await self._configuration.account(AccountKey(owner), AppId(""))
            return (account, None) if not owner.startswith("app:") else (None, None)
        app = await self._configuration.app(AppId(owner))
        key = self._configuration.account_key(app, adapter.manifest.channel) if app else None
        if app is None or key is None:
            return None, None
        return await self._configuration.account(key, app.id), app.id

    def _follow_up(self, answer: WebhookAnswer) -> None:
        for call in answer.follow_ups:
            task = asyncio.create_task(self._call(call))
            self._follow_ups.add(task)
            task.add_done_callback(self._follow_ups.discard)

    async def _call(self, call: object) -> None:
        assert callable(call)
        try:
            await call(self._http)
        except HttpError as error:
            log.info("a follow-up did not succeed", error=type(error).__name__)


async def _body(request: Request) -> bytes | None:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_LIMIT_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _untouched(request: Request, body: bytes) -> WebhookRequest:
    return WebhookRequest(
        method=request.method,
        path=request.url.path,
        query=dict(request.query_params),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        received_at=datetime.now(UTC),
    )
