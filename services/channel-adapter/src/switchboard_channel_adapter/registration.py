"""Tells providers where to post, for channels whose provider is told by a call (Telegram's `setWebhook`).

Every app is registered when the service starts and again whenever it changes; what fails is tried again.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from switchboard.channel.contract import RegistersWebhooks
from switchboard.channel.errors import NotConfigured
from switchboard.configuration import Configuration
from switchboard.http.client import HttpClient, HttpError
from switchboard.identity import ChannelName
from switchboard.ids import AppId
from switchboard.store.pool import Pool
from switchboard_channel_adapter.webhooks import webhook_url

log = structlog.get_logger(__name__)

_AGAIN_SECONDS: Final = 30.0
_APPS: Final = "SELECT id FROM switchboard.apps WHERE deleted_at IS NULL ORDER BY id"


class Registration:
    """Keeps the providers' idea of our address right."""

    def __init__(
        self,
        adapters: Mapping[ChannelName, RegistersWebhooks],
        configuration: Configuration,
        pool: Pool,
        http: HttpClient,
        *,
        public_url: str,
    ) -> None:
        """`public_url` is this service's address as providers reach it."""
        self._adapters = adapters
        self._configuration = configuration
        self._pool = pool
        self._http = http
        self._public_url = public_url
        self._due: set[AppId] = set()
        self._everything_due = True
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Register every app, then follow changes."""
        self._configuration.on_change(self._on_change)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_change(self, change: str) -> None:
        table, _, key = change.partition(":")
        if table == "apps":
            self._due.add(AppId(key))
        elif not change:
            self._everything_due = True
        else:
            return
        self._work.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._register_due()
            except Exception as error:  # noqa: BLE001  # the next round tries again
                log.warning("webhooks cannot be registered now", error=type(error).__name__)
            waiting = bool(self._due) or self._everything_due
            try:
                async with asyncio.timeout(_AGAIN_SECONDS if waiting else None):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()

    async def _register_due(self) -> None:
        if self._everything_due:
            self._due.update(AppId(row["id"]) for row in await self._pool.fetch(_APPS))
            self._everything_due = False
        for app_id in sorted(self._due):
            self._due.discard(app_id)
            if not await self._register(app_id):
                self._due.add(app_id)

    async def _register(self, app_id: AppId) -> bool:
        app = await self._configuration.app(app_id)
        done = True
        for channel, adapter in self._adapters.items():
            key = self._configuration.account_key(app, channel) if app else None
            account = await self._configuration.account(key, app_id) if key else None
            if account is None:
                continue
            try:
                await adapter.register_webhook(account, webhook_url(self._public_url, channel, app_id), self._http)
                log.info("webhook registered", channel=channel, app=app_id)
            except NotConfigured as error:
                # The app must change something; its change brings it here again.
                log.error("the provider refuses the webhook", channel=channel, app=app_id, why=str(error))
            except HttpError as error:
                log.warning("the webhook is not registered yet", channel=channel, app=app_id, why=str(error))
                done = False
        return done
