"""Every place where a process may die between two steps, once: nothing lost, nothing submitted twice."""

import pytest
from tests.faults.conftest import Start
from tests.faults.load import Load
from tests.faults.system import until_confirmed

from switchboard.crash import CRASH_POINTS

pytestmark = pytest.mark.fault

#: Which service meets which point. One start hurts each service once: what crashes is another process each time.
ROUNDS = (
    {
        "ingress": "ingress.before_produce",
        "router": "router.after_commit",
        "channel-adapter": "adapter.after_claim",
        "callback-delivery": "delivery.after_post",
    },
    {
        "ingress": "ingress.after_produce",
        "router": "router.after_publish",
        "channel-adapter": "adapter.after_submit",
        "callback-delivery": "delivery.after_record",
    },
    {"router": "drainer.after_claim", "channel-adapter": "adapter.after_publish"},
)
#: How often a point is passed before the process dies there: in the middle of work, not at its first record.
_PASSED = 3


def test_every_crash_point_has_its_round() -> None:
    assert sorted(point for crashes in ROUNDS for point in crashes.values()) == sorted(CRASH_POINTS)


@pytest.mark.parametrize("crashes", ROUNDS, ids=lambda crashes: "+".join(crashes.values()))
async def test_a_process_that_dies_there_loses_nothing_and_repeats_nothing(
    start: Start, crashes: dict[str, str]
) -> None:
    options = [part for service, point in crashes.items() for part in ("--crash", f"{service}={point}:{_PASSED}")]
    # A slow lane, so that attempts wait in it and the drainer has something to claim.
    rate = 15 if "drainer.after_claim" in crashes.values() else 1000

    async with start(*options) as system:
        await system.raise_rates(rate)
        before = {service: system.pids[service] for service in crashes}
        async with Load(system.installed.running, per_second=25) as load:
            await until_confirmed(load.sent, 40)
            for service, pid in before.items():
                await system.restarted(service, pid)
            await until_confirmed(load.sent, 40)
        await system.rest()

        await system.judge(load.sent, at_least=80)
        assert not load.unconfirmed
