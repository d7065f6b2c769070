"""Instances of callback-delivery killed and frozen while posts are under way."""

import os
import signal
from typing import Final

import pytest
from tests.faults.conftest import Start
from tests.faults.load import SMS, Load
from tests.faults.system import until_confirmed
from tests.faults.webhook import behave, repeated

pytestmark = pytest.mark.fault

#: Posts to one endpoint at once from one process: as many fresh ones, and as many that had waited.
CONCURRENCY: Final = 16
IN_FLIGHT: Final = 2 * CONCURRENCY


async def test_an_instance_killed_and_another_frozen_mid_flight_lose_nothing_and_repeat_what_was_in_flight(
    start: Start,
) -> None:
    options = ("--instances", "callback-delivery=2")
    env = ("--env", f"callback-delivery:SWITCHBOARD_ENDPOINT_CONCURRENCY={CONCURRENCY}")
    async with start(*options, *env) as system:
        await behave(system, mode="answer", delay_seconds=0.2)
        async with Load(system.installed.running, per_second=25, kinds=(SMS,)) as load:
            await until_confirmed(load.sent, 50)
            await system.kill("callback-delivery")
            await until_confirmed(load.sent, 50)
            frozen = system.signal("callback-delivery-1", signal.SIGSTOP)
            # For longer than a member may be silent: the other one takes over what it had.
            await until_confirmed(load.sent, 10 * 25)
            os.kill(frozen, signal.SIGCONT)
            await until_confirmed(load.sent, 25)
        await system.rest()

        evidence = await system.judge(load.sent, load.said, at_least=375)
        assert repeated(evidence) <= 2 * IN_FLIGHT
        assert not load.unconfirmed


@pytest.mark.slow
async def test_instances_killed_and_frozen_by_turns_for_long_lose_nothing(start: Start) -> None:
    options = ("--instances", "callback-delivery=2")
    env = ("--env", f"callback-delivery:SWITCHBOARD_ENDPOINT_CONCURRENCY={CONCURRENCY}")
    async with start(*options, *env) as system:
        await behave(system, mode="answer", delay_seconds=0.2)
        async with Load(system.installed.running, per_second=25, kinds=(SMS,)) as load:
            for _ in range(4):
                for victim, other in (
                    ("callback-delivery", "callback-delivery-1"),
                    ("callback-delivery-1", "callback-delivery"),
                ):
                    await until_confirmed(load.sent, 50)
                    frozen = system.signal(other, signal.SIGSTOP)
                    await system.kill(victim)
                    await until_confirmed(load.sent, 8 * 25)
                    os.kill(frozen, signal.SIGCONT)
        await system.rest(seconds=120)

        evidence = await system.judge(load.sent, load.said, at_least=2000)
        assert repeated(evidence) <= 16 * IN_FLIGHT
        assert not load.unconfirmed
