"""Posts updates to the bots' webhooks: one at a time and in order for each bot, again and again until taken."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from switchboard_simulator.telegram.bots import Bot, Bots, Update, Webhook

_TIMEOUT: Final = timedelta(seconds=10)


class UpdatePoster:
    """Runs one task for each bot that has something to tell."""

    def __init__(
        self, bots: Bots, clock: Callable[[], datetime], *, back_off_seconds: float, most_seconds: float = 60.0
    ) -> None:
        self._bots = bots
        self._clock = clock
        self._back_off_seconds = back_off_seconds
        self._most_seconds = most_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._client = (
            ClientBuilder()
            .timeout(_TIMEOUT)
            .connect_timeout(timedelta(seconds=3))
            .follow_redirects(False)
            .no_proxy()
            .build()
        )

    def start(self, bot: Bot) -> None:
        """See to a bot from now on."""
        if bot.account not in self._tasks:
            self._tasks[bot.account] = asyncio.create_task(self._serve(bot), name="telegram-updates")

    async def stop(self) -> None:
        """Stop posting. What is pending stays with the bots."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        await self._client.close()

    async def _serve(self, bot: Bot) -> None:
        failures = 0
        while True:
            bot.wake.clear()
            if bot.webhook is None or not bot.pending:
                await bot.wake.wait()
                continue
            update = bot.pending[0]
            problem = await self._post(bot.webhook, update)
            if problem is None and update.twice:
                problem = await self._post(bot.webhook, update)
            if problem is None:
                failures = 0
                if bot.pending and bot.pending[0] is update:
                    bot.pending.popleft()
                continue
            bot.last_error = (self._clock(), problem)
            await self._wait(bot, min(self._most_seconds, self._back_off_seconds * 2**failures))
            failures = min(failures + 1, 20)

    async def _wait(self, bot: Bot, seconds: float) -> None:
        # A new webhook or update is a reason to try again at once.
        bot.wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await bot.wake.wait()
        except TimeoutError:
            return

    async def _post(self, webhook: Webhook, update: Update) -> str | None:
        """Post once. None when it was taken, else what was wrong."""
        body = msgspec.json.encode({"update_id": update.update_id, update.kind: update.content})
        headers = {"content-type": "application/json"}
        if webhook.secret_token:
            headers["x-telegram-bot-api-secret-token"] = webhook.secret_token
        try:
            answer = await self._client.post(webhook.url).headers(headers).body_bytes(body).build().send()
        except PyreqwestError as error:
            return f"Connection failed: {type(error).__name__}"
        if 200 <= answer.status < 300:
            return None
        return f"Wrong response from the webhook: {answer.status}"
