"""What an endpoint's lane learns from how its callbacks end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from switchboard.lanes.endpoint import ENDPOINT_RULE, MOST_SLOWDOWN, settle
from switchboard.lanes.gate import OPEN, GateState
from switchboard.lanes.lane import Lane, LaneKind, endpoint_lane
from switchboard.lanes.locked import LockedLanes

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LANE = endpoint_lane("webhook")


def lanes(in_flight: int = 10, slowdown: float = 1.0) -> LockedLanes:
    return LockedLanes(
        [Lane(LANE, LaneKind.ENDPOINT, 10_000_000, slowdown, 0, 0, in_flight, 100, OPEN, 0, None, 0, None)], NOW
    )


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ({"failed": ENDPOINT_RULE.closes_after}, GateState.CLOSED),
        ({"failed": ENDPOINT_RULE.closes_after - 1}, GateState.OPEN),
        # One that was taken says that the endpoint works, whatever the others came to.
        ({"failed": 9, "ok": 1}, GateState.OPEN),
        ({"throttled": 10}, GateState.OPEN),
        ({"neutral": 10}, GateState.OPEN),
    ],
)
def test_failures_in_a_row_close_the_gate(ends: dict[str, Any], state: GateState) -> None:
    locked = lanes()

    assert settle(locked, LANE, NOW, **ends) is state
    assert locked[LANE].in_flight == 10 - sum(ends.values())


def test_throttling_slows_down_and_successes_bring_the_rate_back() -> None:
    locked = lanes(in_flight=1000)
    settle(locked, LANE, NOW, throttled=3)
    assert locked[LANE].paced_interval_ns == 20_000_000
    for _ in range(20):
        settle(locked, LANE, NOW, throttled=1)
    assert locked[LANE].slowdown == MOST_SLOWDOWN

    settle(locked, LANE, NOW, ok=100)

    assert locked[LANE].slowdown == 1
