"""Endpoint lanes: what their gates and rates learn from how callbacks end (DESIGN 6, 7).

callback-delivery keeps its own items, and works on the lanes it has locked with `lock_lanes`.
"""

from datetime import datetime
from typing import Final

from switchboard.ids import LaneId
from switchboard.lanes import gate as gates
from switchboard.lanes.gate import GateRule, GateState
from switchboard.lanes.locked import LockedLanes
from switchboard.rules.progress import AttemptEnd

#: How far throttling may slow an endpoint down.
MOST_SLOWDOWN: Final = 64.0
#: What a success takes off a slowdown.
_RECOVERY: Final = 0.9
ENDPOINT_RULE: Final = GateRule(
    closes_after=5, first_probe_seconds=5, last_probe_seconds=300, probe_patience_seconds=30
)


def settle(
    lanes: LockedLanes,
    lane_id: LaneId,
    now: datetime,
    *,
    ok: int = 0,
    failed: int = 0,
    throttled: int = 0,
    neutral: int = 0,
    rule: GateRule = ENDPOINT_RULE,
) -> GateState:
    """Count requests that ended out of the lane: failures first, so that one success among them keeps the gate open.

    `throttled` (429) halves the rate at most once a call; successes bring it back. Returns the gate's new state.
    """
    lane = lanes.change(lane_id)
    lane.in_flight = max(0, lane.in_flight - ok - failed - throttled - neutral)
    for end, count in (
        (AttemptEnd.FAILED, failed),
        (AttemptEnd.NEUTRAL, throttled + neutral),
        (AttemptEnd.OK, min(ok, 1)),
    ):
        for _ in range(count):
            lane.gate = gates.after(lane.gate, end, now, rule)
    if throttled:
        lane.slowdown = min(MOST_SLOWDOWN, lane.slowdown * 2)
    elif ok and lane.slowdown > 1:
        lane.slowdown = max(1.0, lane.slowdown * _RECOVERY**ok)
    return lane.gate.state
