"""What operators do with lanes: see them, pause, resume and purge them (DESIGN 6)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog
from msgspec import Struct

from switchboard.ids import AppId, LaneId
from switchboard.lanes import gate as gates
from switchboard.lanes.drainer import TellAbandoned
from switchboard.lanes.gate import GateState
from switchboard.lanes.gcra import interval_ns
from switchboard.lanes.lane import LaneKind
from switchboard.lanes.locked import NOTIFY_CHANNEL, AttemptKey, lane_of, lock_lanes
from switchboard.lanes.round import ABANDON_CHUNK, mark_abandoned
from switchboard.reason import Reason, ReasonCode
from switchboard.records import StepAbandoned
from switchboard.store.pool import Pool

PURGED: Final = Reason(ReasonCode.INTERNAL_ERROR, "An operator purged the lane.")
_NANOSECONDS: Final = 1_000_000_000

log = structlog.get_logger()


class LaneNotFound(Exception):
    """No lane has this id: nothing was ever planned for it."""

    def __init__(self, lane: LaneId) -> None:
        super().__init__(f"there is no lane {lane}")


class LaneState(Struct, frozen=True):
    """A lane as operators see it."""

    id: LaneId
    kind: LaneKind
    gate: GateState
    #: In line, those being published included; in an account's lane: those in other lanes that need it.
    waiting: int
    in_flight: int
    max_in_flight: int
    per_second: float
    fail_streak: int
    #: When a closed gate lets the next probe through.
    probe_at: datetime | None
    #: When the one waiting longest entered. None for endpoints, whose items are callback-delivery's.
    oldest_at: datetime | None
    #: Which process drains it.
    owner: str | None


async def list_lanes(pool: Pool, *, kind: LaneKind | None = None, limit: int = 1000) -> list[LaneState]:
    """The lanes, those with most waiting first."""
    rows = await pool.fetch(_LIST, None if kind is None else kind.value, limit)
    return [
        LaneState(
            id=lane.id,
            kind=lane.kind,
            gate=lane.gate.state,
            waiting=row["in_line"] or 0 if lane.kind is LaneKind.ACCOUNT else lane.waiting,
            in_flight=lane.in_flight,
            max_in_flight=lane.max_in_flight,
            per_second=_NANOSECONDS / lane.paced_interval_ns,
            fail_streak=lane.gate.fail_streak,
            probe_at=lane.gate.probe_at if lane.gate.state is GateState.CLOSED else None,
            oldest_at=row["oldest_at"],
            owner=lane.owner,
        )
        for row in rows
        for lane in (lane_of(row),)
    ]


async def pause(pool: Pool, lane: LaneId) -> None:
    """Let nothing start in this lane; what is planned waits. Raises LaneNotFound."""
    await _set_gate(pool, lane, pausing=True)
    log.info("lane_paused", lane=lane)


async def resume(pool: Pool, lane: LaneId) -> None:
    """Open a paused or closed lane, with a clean slate. Raises LaneNotFound."""
    await _set_gate(pool, lane, pausing=False)
    log.info("lane_resumed", lane=lane)


async def purge(pool: Pool, lane: LaneId, tell: TellAbandoned, *, reason: Reason = PURGED) -> int:
    """End the messages that wait in this dispatch lane now: each is told as FAILED with `reason`. Returns how many.

    Those just being published go out; those that enter later stay. Raises LaneNotFound.
    """
    bounds = await pool.fetchrow("SELECT last_sequence FROM switchboard.lanes WHERE id = $1", lane)
    if bounds is None:
        raise LaneNotFound(lane)
    told = 0
    after: tuple[int, int] = (-1, 0)
    while True:
        rows = await pool.fetch(_NEXT_IN_LINE, lane, *after, bounds["last_sequence"], ABANDON_CHUNK)
        if not rows:
            break
        keys: Sequence[AttemptKey] = [(row["message_id"], row["step"], row["submission"]) for row in rows]
        await tell([StepAbandoned(*key, reason=reason, fails_message=True) for key in keys])
        async with pool.acquire() as connection:
            await mark_abandoned(connection, keys)
        after = rows[-1]["priority"], rows[-1]["sequence"]
        told += len(keys)
    log.info("lane_purged", lane=lane, told=told)
    return told


async def set_rate(pool: Pool, app_id: AppId, per_second: int) -> None:
    """Let what waits in an app's dispatch lanes go at this rate at once; planning brings the other limits along."""
    async with pool.acquire() as connection, connection.transaction():
        ids = await connection.fetch(
            "SELECT id FROM switchboard.lanes WHERE kind = 'dispatch' AND id >= $1 AND id < $2 ORDER BY id",
            f"dispatch:{app_id}:", f"dispatch:{app_id};",
        )  # fmt: skip
        now: datetime = await connection.fetchval("SELECT switchboard.now()")
        lanes = await lock_lanes(connection, {LaneId(row["id"]): None for row in ids}, now)
        for row in ids:
            lanes.change(row["id"]).interval_ns = interval_ns(per_second)
        await lanes.save(connection)
        for row in ids:
            # Its drainer sleeps until the slot that the rate before had promised.
            await connection.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, row["id"])


async def _set_gate(pool: Pool, lane: LaneId, *, pausing: bool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        now: datetime = await connection.fetchval("SELECT switchboard.now()")
        locked = await lock_lanes(connection, {lane: None}, now)
        if lane not in locked:
            raise LaneNotFound(lane)
        row = locked.change(lane)
        row.gate = gates.pause(row.gate) if pausing else gates.OPEN
        row.slowdown = 1.0 if not pausing else row.slowdown
        await locked.save(connection)


_LIST: Final = """
SELECT lane.*, COALESCE(line.oldest_at, line_of_account.oldest_at) AS oldest_at, line_of_account.in_line
FROM switchboard.lanes AS lane
LEFT JOIN (SELECT lane, min(entered_at) AS oldest_at FROM switchboard.lane_items GROUP BY lane) AS line
    ON line.lane = lane.id
LEFT JOIN (SELECT account_lane, min(entered_at) AS oldest_at, count(*) AS in_line FROM switchboard.lane_items
    WHERE account_lane IS NOT NULL GROUP BY account_lane) AS line_of_account ON line_of_account.account_lane = lane.id
WHERE $1::text IS NULL OR lane.kind = $1
ORDER BY GREATEST(lane.waiting, COALESCE(line_of_account.in_line, 0)) DESC, lane.id LIMIT $2
"""
_NEXT_IN_LINE: Final = """
SELECT message_id, step, submission, priority, sequence FROM switchboard.lane_items
WHERE lane = $1 AND (priority, sequence) > ($2, $3) AND sequence <= $4 AND token IS NULL
ORDER BY priority, sequence LIMIT $5
"""
