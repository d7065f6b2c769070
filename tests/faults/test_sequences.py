"""Faults in a random order, from a seed. `SWITCHBOARD_FAULT_SEED` adds one to those that are always run."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable

import pytest
from tests.faults.apart import Apart
from tests.faults.conftest import StartApart
from tests.faults.load import EVERYDAY, Kind, Load
from tests.faults.proxy import Mode
from tests.faults.system import SERVICES, until_confirmed

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SEEDS = [101, 102, 103, *filter(None, [int(os.environ.get("SWITCHBOARD_FAULT_SEED", "0"))])]
STEPS = 8


@pytest.mark.parametrize("seed", SEEDS)
async def test_faults_in_a_random_order_break_no_promise(start_apart: StartApart, seed: int) -> None:
    chance = random.Random(seed)
    any_end = tuple(Kind(to=kind.to, weight=kind.weight, marks=kind.marks) for kind in EVERYDAY)

    async with start_apart() as apart:
        async with Load(
            apart.system.installed.running, per_second=20, kinds=any_end, seed=seed, confirm_seconds=240
        ) as load:
            await until_confirmed(load.sent, 40)
            for step, fault in enumerate(chance.sample(FAULTS, STEPS)):
                print(f"seed {seed}, step {step}: {fault.__name__}", flush=True)
                await fault(apart, chance)
                if chance.random() < 0.6:
                    await until_confirmed(load.sent, 10, seconds=120)
            await until_confirmed(load.sent, 20, seconds=120)
        await apart.system.rest(seconds=180, idle_seconds=6)

        await apart.system.judge(load.sent, load.said, at_least=150)
        assert not load.unconfirmed


async def _kill_a_service(apart: Apart, chance: random.Random) -> None:
    await apart.system.kill(chance.choice(SERVICES))


async def _freeze_a_service(apart: Apart, chance: random.Random) -> None:
    pid = apart.system.signal(chance.choice(SERVICES), signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(2, 12))
    os.kill(pid, signal.SIGCONT)


async def _kill_the_broker(apart: Apart, chance: random.Random) -> None:
    apart.kafka.kill()
    await asyncio.sleep(chance.uniform(0, 6))
    await apart.kafka.start_async()


async def _kill_the_database(apart: Apart, chance: random.Random) -> None:
    apart.postgres.kill()
    await asyncio.sleep(chance.uniform(0, 6))
    await apart.postgres.start_async()


async def _hurt_a_link(apart: Apart, chance: random.Random) -> None:
    proxy = apart.links[chance.choice(sorted(apart.links))]
    proxy.behave(chance.choice([mode for mode in Mode if mode is not Mode.OPEN]), delay_seconds=0.3)
    await asyncio.sleep(chance.uniform(1, 8))
    proxy.behave(Mode.OPEN)
    proxy.cut_once()


async def _refuse_callbacks(apart: Apart, chance: random.Random) -> None:
    # For a time, not for a number: a closed gate lets one probe through at a time, and that takes hours of clock.
    receiver = apart.system.installed.simulator
    await receiver("PUT", "/receivers/app", behaviour={"mode": "answer", "status": 503})
    await asyncio.sleep(chance.uniform(1, 8))
    await receiver("PUT", "/receivers/app", behaviour={"mode": "answer", "status": 200})


async def _have_a_provider_fail(apart: Apart, chance: random.Random) -> None:
    kinds = ("server_error", "throttle", "timeout_after_accept", "cut_after_accept", "cut_before_accept", "silence")
    await apart.system.installed.fault(
        chance.choice(("SMS", "TELEGRAM")), chance.choice(kinds), count=chance.randrange(1, 6)
    )


FAULTS: list[Callable[[Apart, random.Random], Awaitable[None]]] = [
    _kill_a_service,
    _kill_a_service,
    _freeze_a_service,
    _kill_the_broker,
    _kill_the_database,
    _hurt_a_link,
    _hurt_a_link,
    _refuse_callbacks,
    _have_a_provider_fail,
]
