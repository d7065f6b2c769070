"""Endpoint lanes: what callback-delivery does with lanes it has locked (DESIGN 6, 7).

It keeps its own items and tells the lane how many wait. Each function works on `LockedLanes`; the caller saves them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from switchboard.ids import LaneId
from switchboard.lanes import gate as gates
from switchboard.lanes.gate import GateRule, GateState
from switchboard.lanes.gcra import AHEAD_US, take
from switchboard.lanes.lane import LaneKind, Limits, microseconds, moment_of
from switchboard.lanes.locked import LockedLanes, lock_lanes
from switchboard.rules.progress import AttemptEnd
from switchboard.store.pool import Connection

LEASE_SECONDS: Final = 10.0
#: How far throttling may slow an endpoint down.
MOST_SLOWDOWN: Final = 64.0
#: What a success takes off a slowdown.
_RECOVERY: Final = 0.9
ENDPOINT_RULE: Final = GateRule(
    closes_after=5, first_probe_seconds=5, last_probe_seconds=300, probe_patience_seconds=30
)


async def ensure_lanes(connection: Connection, limits: Mapping[LaneId, Limits], now: datetime) -> LockedLanes:
    """Lock endpoint lanes, making those that are new. The same as `lock_lanes`, limits required."""
    return await lock_lanes(connection, dict(limits), now)


def grant(lanes: LockedLanes, lane_id: LaneId, count: int, now: datetime) -> list[datetime]:
    """Take up to `count` slots, as the rate, the bound and an open gate allow. Returns their moments, in order."""
    lane = lanes[lane_id]
    if lane.gate.state is not GateState.OPEN:
        return []
    now_us = microseconds(now)
    slots: list[datetime] = []
    for _ in range(min(count, lane.max_in_flight - lane.in_flight)):
        slot_us, tat_us = take(lane.tat_us, lane.paced_interval_ns, 1, now_us)
        if slot_us >= now_us + AHEAD_US:
            break
        lane.tat_us = tat_us
        slots.append(moment_of(slot_us))
    if slots:
        lanes.change(lane_id).in_flight += len(slots)
    return slots


def probe(lanes: LockedLanes, lane_id: LaneId, now: datetime, rule: GateRule = ENDPOINT_RULE) -> bool:
    """Take the probe of a closed gate if it is due: true for one caller only. The probe counts as in flight."""
    lane = lanes[lane_id]
    if not gates.may_probe(lane.gate, now):
        return False
    lane = lanes.change(lane_id)
    lane.gate = gates.begin_probe(lane.gate, now, rule)
    lane.in_flight += 1
    lane.tat_us = take(lane.tat_us, lane.paced_interval_ns, 1, microseconds(now))[1]
    return True


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


def wait(lanes: LockedLanes, lane_id: LaneId, change: int) -> None:
    """Count callbacks that entered the line (positive) or left it (negative)."""
    lanes.change(lane_id).waiting += change


async def lease(
    connection: Connection, owner: str, now: datetime, *, limit: int = 100, seconds: float = LEASE_SECONDS
) -> dict[LaneId, int]:
    """Become the owner of up to `limit` endpoint lanes that have work and no living owner. Returns their tokens.

    The caller's transaction must hold no lane yet. Lanes that another process is just working on are left out.
    """
    rows = await connection.fetch(
        "WITH free AS (SELECT id FROM switchboard.lanes WHERE kind = $1 AND waiting > 0"
        " AND (owner IS NULL OR lease_until <= $2) ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED)"
        " UPDATE switchboard.lanes AS lane SET owner = $4, token = token + 1, lease_until = $5"
        " FROM free WHERE lane.id = free.id RETURNING lane.id, lane.token",
        LaneKind.ENDPOINT.value, now, limit, owner, now + timedelta(seconds=seconds),
    )  # fmt: skip
    return {row["id"]: row["token"] for row in rows}


async def renew(
    connection: Connection, held: Mapping[LaneId, int], now: datetime, *, seconds: float = LEASE_SECONDS
) -> list[LaneId]:
    """Keep leases. Returns the lanes that are still ours: another owner's token means that ours is over."""
    return await _with_token(connection, held, "lease_until = $3", now + timedelta(seconds=seconds))


async def give_up(connection: Connection, held: Mapping[LaneId, int]) -> list[LaneId]:
    """Let others have these lanes at once. Returns those that were still ours."""
    return await _with_token(connection, held, "owner = NULL, lease_until = $3", None)


async def _with_token(
    connection: Connection, held: Mapping[LaneId, int], change: str, moment: datetime | None
) -> list[LaneId]:
    ids: Sequence[LaneId] = sorted(held)
    rows = await connection.fetch(
        "WITH ours AS (SELECT lane.id FROM switchboard.lanes AS lane"
        " JOIN unnest($1::text[], $2::bigint[]) AS held (id, token) ON lane.id = held.id AND lane.token = held.token"
        " ORDER BY lane.id FOR UPDATE OF lane)"
        f" UPDATE switchboard.lanes AS lane SET {change} FROM ours WHERE lane.id = ours.id RETURNING lane.id",
        list(ids), [held[lane] for lane in ids], moment,
    )  # fmt: skip
    return [row["id"] for row in rows]
