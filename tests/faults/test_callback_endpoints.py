"""An endpoint at its worst, one behaviour after the other, beside one that is well."""

from typing import Any, Final

import pytest
from tests.faults.conftest import Start
from tests.faults.load import SMS, Load
from tests.faults.system import until_confirmed
from tests.faults.webhook import behave, listen

pytestmark = pytest.mark.fault

QUICK: Final[tuple[dict[str, Any], ...]] = (
    {"mode": "cut"},
    {"mode": "redirect", "location": "http://169.254.169.254/latest/meta-data"},
    {"mode": "flood", "size_bytes": 1_000_000_000, "status": 500},
    {"mode": "flap", "good": 3, "bad": 4},
    {"mode": "answer", "status": 429, "retry_after": "3600"},
)
#: Each holds a post for as long as one may take.
LONG: Final[tuple[dict[str, Any], ...]] = (
    {"mode": "hang"},
    {"mode": "drip", "delay_seconds": 0.5},
    {"mode": "flap", "good": 30, "bad": 30},
)


@pytest.mark.parametrize("behaviours", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"])
async def test_an_endpoint_at_its_worst_gets_everything_in_order_in_the_end(
    start: Start, behaviours: tuple[dict[str, Any], ...]
) -> None:
    async with start() as system:
        webhooks = {"well": await listen(system, "well")}
        async with Load(system.installed.running, per_second=20, kinds=(SMS,)) as load:
            for behaviour in behaviours:
                await behave(system, **behaviour)
                await until_confirmed(load.sent, 20)
                await behave(system)
                await until_confirmed(load.sent, 10)
        await system.rest(seconds=120, idle_seconds=2 if behaviours is QUICK else 12)

        await system.judge(load.sent, at_least=30 * len(behaviours), webhooks=webhooks)
        assert not load.unconfirmed


@pytest.mark.slow
async def test_an_endpoint_30_seconds_up_and_30_down_gets_everything_in_order(start: Start) -> None:
    async with start() as system:
        webhooks = {"well": await listen(system, "well")}
        async with Load(system.installed.running, per_second=20, kinds=(SMS,)) as load:
            for behaviour in ({"mode": "cut"}, {}) * 3:
                await behave(system, **behaviour)
                await until_confirmed(load.sent, 30 * 20, seconds=120)
        await system.rest(seconds=120)

        await system.judge(load.sent, at_least=3600, webhooks=webhooks)
        assert not load.unconfirmed
