"""Links that are cut, slow, half-open or lose answers, one after the other, under load."""

import asyncio
from typing import Final

import pytest
from tests.faults.apart import BOT_API, BROKER, DATABASE, SMSC, WEBHOOK
from tests.faults.baseline import assert_back, footprints
from tests.faults.conftest import StartApart
from tests.faults.load import EVERYDAY, Kind, Load
from tests.faults.proxy import Mode
from tests.faults.system import until_confirmed

pytestmark = [pytest.mark.fault, pytest.mark.slow]

FAULT_SECONDS: Final = 12
#: What a provider answers may be lost: then its message is unknown, which the ledger wants recorded.
ANY_END: Final = tuple(Kind(to=kind.to, weight=kind.weight, marks=kind.marks) for kind in EVERYDAY)


@pytest.mark.parametrize(
    "links",
    [(BROKER,), (DATABASE,), (SMSC, BOT_API, WEBHOOK)],
    ids=["broker", "database", "providers and webhook"],
)
async def test_bad_links_lose_nothing_and_repeat_nothing(start_apart: StartApart, links: tuple[str, ...]) -> None:
    async with start_apart() as apart:
        proxies = [apart.links[link] for link in links]
        system = apart.system
        async with Load(system.installed.running, per_second=20, kinds=ANY_END, confirm_seconds=240) as load:
            await until_confirmed(load.sent, 80)
            before, pids = await footprints(system), system.pids
            for mode in (Mode.CUT, Mode.SLOW, Mode.FROZEN, Mode.ANSWERS_LOST):
                print(f"{', '.join(links)}: {mode}", flush=True)
                for proxy in proxies:
                    proxy.behave(mode, delay_seconds=0.4)
                await asyncio.sleep(FAULT_SECONDS)
                for proxy in proxies:
                    proxy.behave(Mode.OPEN)
                    # A link that was dead stays dead to those who had it open.
                    proxy.cut_once()
                await until_confirmed(load.sent, 20, seconds=120)
        await system.rest(seconds=150, idle_seconds=3)

        await system.judge(load.sent, load.said, at_least=200)
        assert not load.unconfirmed
        if system.pids == pids:
            await assert_back(system, before)
