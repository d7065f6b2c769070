"""What the lanes of endpoints allow: slots by rate and gate, and what the ends of tries teach the gate. Pure.

Concurrency is bounded in the process and not in the lane: a count in a row would not survive the process it counts.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from switchboard.callbacks.schedule import Verdict
from switchboard.ids import LaneId
from switchboard.lanes import gate as gates
from switchboard.lanes.endpoint import ENDPOINT_RULE, settle
from switchboard.lanes.gate import GateState
from switchboard.lanes.gcra import AHEAD_US, BYPASS_AHEAD_US, free_slots, take
from switchboard.lanes.lane import Limits, microseconds
from switchboard.lanes.locked import LockedLanes

#: How much slower than its rate an endpoint is served when it has just recovered with others waiting. Each callback
#: it takes brings the rate back.
SLOW_START: Final = 8.0
#: How often an endpoint that is down for long is probed.
SUSPENDED_PROBE: Final = timedelta(hours=1)
_BOUND_IN_LANE: Final = 1_000_000


def limits_of(per_second: float) -> Limits:
    """The lane of an endpoint that is to get so many callbacks a second."""
    return Limits(per_second=max(per_second, 0.001), max_in_flight=_BOUND_IN_LANE)


def allowed(lanes: LockedLanes, lane_id: LaneId, now: datetime) -> int:
    """How many heads that waited may be tried now: by the rate through an open gate, one through a closed one."""
    lane = lanes[lane_id]
    if lane.gate.state is not GateState.OPEN:
        return 1 if gates.may_probe(lane.gate, now) else 0
    return free_slots(lane.tat_us, lane.paced_interval_ns, microseconds(now))


def allowed_late(lanes: LockedLanes, lane_id: LaneId, now: datetime) -> int:
    """How many heads past their 24 hours may be tried now, whatever the gate: only the rate holds them."""
    lane = lanes[lane_id]
    return free_slots(lane.tat_us, lane.paced_interval_ns, microseconds(now))


def begin(lanes: LockedLanes, lane_id: LaneId, tries: int, now: datetime) -> None:
    """Take the slots of these tries. Through a closed gate they are its probe."""
    if not tries:
        return
    lane = lanes.change(lane_id)
    _, lane.tat_us = take(lane.tat_us, lane.paced_interval_ns, tries, microseconds(now))
    if lane.gate.state is GateState.CLOSED:
        lane.gate = gates.begin_probe(lane.gate, now, ENDPOINT_RULE)


def bypass(lanes: LockedLanes, lane_id: LaneId, now: datetime) -> bool:
    """Take a slot for an event straight from the topic, if the gate is open and the rate has room.

    Where others wait it leaves them the greater part of the room.
    """
    lane = lanes[lane_id]
    if lane.gate.state is not GateState.OPEN:
        return False
    ahead_us = BYPASS_AHEAD_US if lane.waiting else AHEAD_US
    if free_slots(lane.tat_us, lane.paced_interval_ns, microseconds(now), ahead_us) < 1:
        return False
    begin(lanes, lane_id, 1, now)
    return True


def hurry_probe(lanes: LockedLanes, lane_id: LaneId, now: datetime) -> None:
    """Let a closed gate be probed now: its owner says that it is worth a try."""
    gate = lanes[lane_id].gate
    if gate.state is GateState.CLOSED and not gate.probing:
        lanes.change(lane_id).gate = replace(gate, probe_at=now)


def learn(
    lanes: LockedLanes, lane_id: LaneId, verdicts: Iterable[Verdict], now: datetime, *, is_suspended: bool = False
) -> bool:
    """Let gate and rate learn from tries that ended. True if the gate opened: the endpoint has recovered.

    A refusal says nothing while the gate is open, for it may be about one event; but it does not open a closed one.
    """
    before = lanes[lane_id].gate.state
    found = list(verdicts)
    refused = found.count(Verdict.REFUSED)
    state = settle(
        lanes,
        lane_id,
        now,
        ok=found.count(Verdict.TAKEN) + found.count(Verdict.ENDED),
        failed=found.count(Verdict.FAILED) + (refused if before is GateState.CLOSED else 0),
        throttled=found.count(Verdict.THROTTLED),
        neutral=0 if before is GateState.CLOSED else refused,
    )
    recovered = before is GateState.CLOSED and state is GateState.OPEN
    if recovered and lanes[lane_id].waiting > 1:
        lane = lanes.change(lane_id)
        lane.slowdown = max(lane.slowdown, SLOW_START)
    if is_suspended and state is GateState.CLOSED and not lanes[lane_id].gate.probing:
        lane = lanes.change(lane_id)
        lane.gate = replace(lane.gate, probe_at=now + SUSPENDED_PROBE)
    return recovered
