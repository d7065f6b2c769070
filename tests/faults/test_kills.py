"""Services killed under load: nothing lost, nothing submitted twice, callbacks at least once and in order."""

import asyncio
import signal

import pytest
from tests.faults.conftest import Start
from tests.faults.load import EVERYDAY, UNANSWERED, Load
from tests.faults.system import SERVICES, System, until_confirmed

pytestmark = pytest.mark.fault


async def test_each_service_killed_twice_and_a_router_in_a_batch_lose_and_repeat_nothing(start: Start) -> None:
    async with start() as system:
        async with Load(system.installed.running, per_second=25) as load:
            await until_confirmed(load.sent, 30)
            for _ in range(2):
                for service in SERVICES:
                    await system.kill(service)
                    await until_confirmed(load.sent, 10)
            await _kill_the_router_inside_a_batch(system, load)
        await system.rest()

        await system.judge(load.sent, load.said, at_least=100)
        assert not load.unconfirmed


async def _kill_the_router_inside_a_batch(system: System, load: Load) -> None:
    """What it holds is not done, and its offset must not say so: the next one sees these records again."""
    async with system.database() as connection, connection.transaction():
        await connection.execute("LOCK TABLE switchboard.messages IN ACCESS EXCLUSIVE MODE")
        # Held for longer than offsets may take to be committed.
        await until_confirmed(load.sent, 3 * load.per_second)
        router = system.signal("router", signal.SIGKILL)
    await system.restarted("router", router)
    await until_confirmed(load.sent, 10)


@pytest.mark.slow
async def test_all_services_killed_ten_times_at_200_messages_a_second(start: Start) -> None:
    async with start() as system:
        async with Load(system.installed.running, per_second=200, kinds=(*EVERYDAY, UNANSWERED)) as load:
            await until_confirmed(load.sent, 200)
            async with asyncio.TaskGroup() as group:
                for service in SERVICES:
                    group.create_task(_kill_ten_times(system, service, load))
        await system.rest(seconds=120)

        await system.judge(load.sent, load.said, at_least=5_000)
        assert not load.unconfirmed


async def _kill_ten_times(system: System, service: str, load: Load) -> None:
    """Each time in the middle of work: the supervisor waits longer and longer before a start, up to 30 s."""
    for _ in range(10):
        await system.kill(service)
        await load.caught_up()
        await until_confirmed(load.sent, load.per_second)
