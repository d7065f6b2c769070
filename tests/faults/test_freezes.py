"""A process that stands still for a minute and goes on as if nothing had been."""

import asyncio
import os
import signal

import pytest
from tests.faults.baseline import assert_back, footprints
from tests.faults.conftest import Start
from tests.faults.load import Load
from tests.faults.system import SERVICES, until_confirmed

pytestmark = [pytest.mark.fault, pytest.mark.slow]
FROZEN_SECONDS = 60


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_frozen_for_a_minute_repeats_nothing_when_it_goes_on(start: Start, service: str) -> None:
    async with start() as system:
        async with Load(system.installed.running, per_second=20, confirm_seconds=240) as load:
            await until_confirmed(load.sent, 100)
            before, pids = await footprints(system), system.pids
            pid = system.signal(service, signal.SIGSTOP)
            await asyncio.sleep(FROZEN_SECONDS)
            os.kill(pid, signal.SIGCONT)
            await until_confirmed(load.sent, 40, seconds=120)
        await system.rest(seconds=120)

        await system.judge(load.sent, load.said, at_least=140)
        assert not load.unconfirmed
        if system.pids == pids:
            await assert_back(system, before)
