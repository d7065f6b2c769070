"""A process that is killed loses nothing it had promised and submits nothing twice (DESIGN 11, I4)."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from switchboard.channel.outcome import Accepted
from switchboard.runtime import start_server
from switchboard.testing import wait_until

from .conftest import KEYS, World

pytestmark = pytest.mark.fault


class BotApi:
    """What Telegram was asked to send, by chat."""

    def __init__(self) -> None:
        self.chats: list[str] = []
        self.app = Starlette(routes=[Route("/bot1:token/sendMessage", self._send, methods=["POST"])])

    async def _send(self, request: Request) -> JSONResponse:
        chat_id = (await request.json())["chat_id"]
        self.chats.append(str(chat_id))
        return JSONResponse({"ok": True, "result": {"message_id": len(self.chats), "chat": {"id": chat_id}}})


Spawn = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def bot_api() -> AsyncIterator[tuple[BotApi, str]]:
    api = BotApi()
    server = await start_server(api.app, "127.0.0.1", 0)
    yield api, f"http://127.0.0.1:{server.port}"
    await server.stop()


@pytest.fixture
async def spawn(world: World, database: str, bot_api: tuple[BotApi, str]) -> AsyncIterator[Spawn]:
    """Run the service as its own process: `await spawn(crash_at="adapter.after_claim")`."""
    running: list[asyncio.subprocess.Process] = []

    async def run(crash_at: str = "") -> asyncio.subprocess.Process:
        environment = {
            **os.environ,
            "SWITCHBOARD_POSTGRES_DSN": database,
            "SWITCHBOARD_KAFKA_BOOTSTRAP": world.kafka,
            "SWITCHBOARD_TOPIC_PREFIX": world.prefix,
            "SWITCHBOARD_SECRET_KEYS": KEYS,
            "SWITCHBOARD_CHANNELS": "telegram",
            "SWITCHBOARD_ORDINAL": "0",
            "SWITCHBOARD_TELEGRAM_API_URL": bot_api[1],
            "SWITCHBOARD_CRASH_AT": crash_at,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "switchboard_channel_adapter", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("crash_at", "submitted", "state"),
    [
        ("adapter.after_claim", 0, "claimed"),
        ("adapter.after_submit", 1, "claimed"),
        ("adapter.after_publish", 1, "finished"),
    ],
)
async def test_a_killed_process_submits_nothing_twice(
    world: World, spawn: Spawn, bot_api: tuple[BotApi, str], crash_at: str, submitted: int, state: str
) -> None:
    order = await world.plan(chat="777000")
    doomed = await spawn(crash_at)
    await world.dispatch(order)
    code = await asyncio.wait_for(doomed.wait(), 30)
    # The same person's next message comes after the first in the same partition.
    following = await world.plan(chat="777000")
    await world.dispatch(following)
    await spawn()
    await wait_until(lambda: world.outcomes(following), 30)

    assert code == -signal.SIGKILL
    assert len(bot_api[0].chats) == submitted + 1
    assert (await world.row(order))["state"] == state
    assert await world.outcomes(order) == ([Accepted(("777000:1",))] if state == "finished" else [])


async def test_a_process_that_is_asked_to_stop_ends_in_good_order(
    world: World, spawn: Spawn, bot_api: tuple[BotApi, str]
) -> None:
    process = await spawn()
    order = await world.plan()
    await world.dispatch(order)
    await wait_until(lambda: world.outcomes(order), 30)
    process.send_signal(signal.SIGTERM)

    assert await asyncio.wait_for(process.wait(), 20) == 0
