"""Instances that come and go all the time: partitions wander, and nothing is lost or repeated."""

import asyncio
import random
import signal

import pytest
from tests.faults.conftest import Start
from tests.faults.load import Load
from tests.faults.system import System, until_confirmed

pytestmark = [pytest.mark.fault, pytest.mark.slow]
STORM_SECONDS = 60


@pytest.mark.parametrize("seed", [41])
async def test_a_minute_of_instances_coming_and_going(start: Start, seed: int) -> None:
    print(f"seed {seed}", flush=True)
    async with start() as system:
        async with Load(system.installed.running, per_second=25, confirm_seconds=180) as load:
            await until_confirmed(load.sent, 60)
            async with asyncio.TaskGroup() as group:
                for number, service in enumerate(("router", "channel-adapter")):
                    group.create_task(_come_and_go(system, service, random.Random(seed + number)))
            await until_confirmed(load.sent, 60)
        await system.rest(seconds=120)

        await system.judge(load.sent, load.said, at_least=300)
        assert not load.unconfirmed


async def _come_and_go(system: System, service: str, chance: random.Random) -> None:
    clock = asyncio.get_running_loop().time
    until = clock() + STORM_SECONDS
    while clock() < until:
        extra = await system.another(service)
        # At least as long as a start takes, so that most of them join.
        await asyncio.sleep(2 + chance.uniform(0.2, 2.0))
        extra.send_signal(chance.choice((signal.SIGTERM, signal.SIGKILL)))
        await extra.wait()
        await asyncio.sleep(chance.uniform(0.2, 2.0))
