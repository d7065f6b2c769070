"""Broker and database away while callbacks are under way."""

import asyncio

import pytest
from tests.faults.conftest import StartApart
from tests.faults.load import SMS, Load
from tests.faults.system import until_confirmed
from tests.faults.webhook import behave

pytestmark = pytest.mark.fault


@pytest.mark.parametrize(
    ("servers", "seconds"),
    [
        (("postgres",), 5),
        pytest.param(("postgres", "kafka"), 60, marks=pytest.mark.slow),
        pytest.param(("kafka", "postgres"), 5, marks=pytest.mark.slow),
    ],
    ids=["database 5 s", "database and broker 60 s", "broker and database 5 s"],
)
async def test_callbacks_under_way_while_a_server_is_away_arrive(
    start_apart: StartApart, servers: tuple[str, ...], seconds: int
) -> None:
    async with start_apart() as apart:
        await behave(apart.system, mode="answer", delay_seconds=0.2)
        async with Load(apart.system.installed.running, per_second=25, kinds=(SMS,), confirm_seconds=240) as load:
            await until_confirmed(load.sent, 50)
            for name in servers:
                server = getattr(apart, name)
                server.kill()
                await asyncio.sleep(seconds)
                await server.start_async()
                await until_confirmed(load.sent, 50)
        await apart.system.rest(seconds=120)

        await apart.system.judge(load.sent, load.said, at_least=50 + 50 * len(servers))
        assert not load.unconfirmed
