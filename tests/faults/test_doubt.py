"""Calls that succeed and still raise a timeout: a few in a hundred, of every kind, in every service."""

from pathlib import Path

import pytest
from tests.faults.conftest import Start
from tests.faults.load import EVERYDAY, Kind, Load
from tests.faults.system import SERVICES, until_confirmed

pytestmark = [pytest.mark.fault, pytest.mark.slow]
INJECTED = Path(__file__).parent / "injected"


@pytest.mark.parametrize(("share", "seed"), [(0.02, 7), (0.05, 8)])
async def test_a_call_that_succeeds_and_still_times_out_is_not_done_twice(
    start: Start, share: float, seed: int
) -> None:
    options = [
        part
        for service in SERVICES
        for name, value in (("SHARE", share), ("SEED", seed))
        for part in ("--env", f"{service}:SWITCHBOARD_FAULTS_{name}={value}")
    ]
    any_end = tuple(Kind(to=kind.to, weight=kind.weight, marks=kind.marks) for kind in EVERYDAY)

    async with start(*options, inject=INJECTED) as system:
        async with Load(system.installed.running, per_second=25, kinds=any_end, confirm_seconds=180) as load:
            await until_confirmed(load.sent, 600, seconds=240)
        await system.rest(seconds=150, idle_seconds=4)

        await system.judge(load.sent, at_least=600)
        assert not load.unconfirmed
