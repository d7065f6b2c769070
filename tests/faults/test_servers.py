"""Broker and database killed, restarted, away."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest
from tests.faults.apart import Apart
from tests.faults.conftest import StartApart
from tests.faults.load import Load
from tests.faults.system import until_confirmed

from switchboard.testing import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.slow]


async def _broker_killed(apart: Apart) -> None:
    apart.kafka.kill()
    await apart.kafka.start_async()


async def _broker_restarted(apart: Apart) -> None:
    await apart.kafka.stop_async()
    await apart.kafka.start_async()


async def _broker_away(apart: Apart) -> None:
    apart.kafka.kill()
    await asyncio.sleep(30)
    await apart.kafka.start_async()


async def _database_stopped_at_once(apart: Apart) -> None:
    """PostgreSQL's immediate shutdown: sessions are cut, and what is not in its log is lost."""
    pid = apart.postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    await wait_until(lambda: not apart.postgres.running, 30, "PostgreSQL stopped")
    # It is gone; what is left is to let go of its folder.
    await apart.postgres.stop_async()
    await apart.postgres.start_async()


async def _database_killed(apart: Apart) -> None:
    apart.postgres.kill()
    await apart.postgres.start_async()


async def _database_away(apart: Apart) -> None:
    apart.postgres.kill()
    await asyncio.sleep(60)
    await apart.postgres.start_async()


@pytest.mark.parametrize(
    "faults",
    [(_broker_killed, _broker_restarted, _broker_away), (_database_stopped_at_once, _database_killed, _database_away)],
    ids=["broker killed, restarted, away 30 s", "database stopped at once, killed, away 60 s"],
)
async def test_a_server_that_goes_and_comes_back_costs_nothing(
    start_apart: StartApart, faults: tuple[Callable[[Apart], Awaitable[None]], ...]
) -> None:
    async with start_apart() as apart:
        async with Load(apart.system.installed.running, per_second=30, confirm_seconds=240) as load:
            await until_confirmed(load.sent, 60)
            for fault in faults:
                await fault(apart)
                await until_confirmed(load.sent, 60)
        await apart.system.rest(seconds=120)

        await apart.system.judge(load.sent, load.said, at_least=150)
        assert not load.unconfirmed
