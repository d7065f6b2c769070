"""Every place where a process may die between two steps, once: nothing lost, nothing submitted twice."""

from pathlib import Path

import pytest
from tests.faults.conftest import Start
from tests.faults.load import Load
from tests.faults.system import until_confirmed

from switchboard.crash import CRASH_POINTS
from switchboard.testing import wait_until

pytestmark = pytest.mark.fault
DYING = Path(__file__).parent / "dying"

#: Which service meets which points, in this order: each start of it meets the next.
DEATHS = {
    "ingress": ("ingress.before_produce", "ingress.after_produce"),
    "router": ("drainer.after_claim", "router.after_commit", "router.after_publish"),
    "channel-adapter": ("adapter.after_claim", "adapter.after_submit", "adapter.after_publish"),
    "callback-delivery": ("delivery.after_post", "delivery.after_record"),
}
#: How often a point is passed before the process dies there: in the middle of work, not at its first record.
_PASSED = 3
#: A lane slower than the load, so that attempts wait in it and the drainer has something to claim.
_SLOW = 15


def test_every_crash_point_has_its_turn() -> None:
    assert sorted(point for points in DEATHS.values() for point in points) == sorted(CRASH_POINTS)


async def test_a_process_that_dies_between_two_steps_loses_nothing_and_repeats_nothing(
    start: Start, tmp_path: Path
) -> None:
    options = []
    for service, points in DEATHS.items():
        deaths = tmp_path / service
        # The last start takes a point that nothing passes: a list is empty when its last death is behind it.
        deaths.write_text("".join(f"{point}:{_PASSED}\n" for point in points) + "none\n")
        options += ["--env", f"{service}:SWITCHBOARD_DEATHS={deaths}"]

    async with start(*options, inject=DYING) as system:
        await system.installed.set_rate(_SLOW)
        async with Load(system.installed.running, per_second=25) as load:
            await wait_until(
                lambda: not _to_come(tmp_path), 180, lambda: f"died everywhere; left: {_to_come(tmp_path)}"
            )
            await system.raise_rates()
            await until_confirmed(load.sent, 40)
        await system.rest()

        await system.judge(load.sent, load.said, at_least=80)
        assert not load.unconfirmed


def _to_come(folder: Path) -> dict[str, str]:
    return {deaths.name: deaths.read_text() for deaths in folder.iterdir() if deaths.read_text()}
