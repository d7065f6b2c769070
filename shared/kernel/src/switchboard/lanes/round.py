"""One round of draining: the transaction that leases the next in line and reserves their slots (DESIGN 6)."""

import asyncio
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Final

import asyncpg
from msgspec import Struct

from switchboard.ids import LaneId, MessageId
from switchboard.lanes.gate import GateState, may_probe
from switchboard.lanes.gcra import AHEAD_US, BYPASS_AHEAD_US, LATE_US, free_slots
from switchboard.lanes.lane import Lane, microseconds, moment_of
from switchboard.lanes.locked import HIGH, AttemptKey, Slot, lock_lanes
from switchboard.store.pool import Connection
from switchboard.store.writes import Writes

#: How long a drainer that is not heard of keeps its lanes.
LEASE: Final = timedelta(seconds=10)
#: How long after its slot a published attempt may be claimed (DESIGN 5).
SEND_WINDOW: Final = timedelta(seconds=30)
#: An abandoned step of which nothing came is told again after this.
TELL_AGAIN: Final = timedelta(seconds=60)
#: StepAbandoned records in one go (DESIGN 6).
ABANDON_CHUNK: Final = 500
#: How often a lane is looked at whose news come by notification.
BLOCKED_SECONDS: Final = 5.0
#: How long published items stay in line at most, so that their deletion goes with the next round's transaction: where
#: nobody else waits they are what keeps planners from passing the line.
_LINGER_ALONE_SECONDS: Final = BYPASS_AHEAD_US / 1_000_000
_LINGER_SECONDS: Final = 1.0
#: How often a lane is looked at in which nobody is left but those already told to leave it.
_EMPTY_LOOK_SECONDS: Final = 0.25
_ITEMS_PER_ROUND: Final = 1000


class Granted(Struct, frozen=True):
    """A waiting attempt that has its slot: publish its DispatchMessage."""

    message_id: MessageId
    step: int
    submission: int
    lane: LaneId
    send_before: datetime
    #: The lease under which it is being published.
    token: int

    @property
    def key(self) -> AttemptKey:
        return self.message_id, self.step, self.submission


class _Waiter(Struct, frozen=True):
    message_id: MessageId
    step: int
    submission: int
    lane: LaneId
    account: LaneId | None
    priority: int
    sequence: int
    units: int
    entered_at: datetime
    is_planned: bool
    send_by: datetime | None

    @property
    def key(self) -> AttemptKey:
        return self.message_id, self.step, self.submission


class Place(Struct):
    """What this drainer remembers of a lane. Losing it costs a look at the database, nothing else."""

    #: When to look again, on the event loop's clock.
    look_at: float = 0.0
    #: The lease we hold, or None.
    token: int | None = None
    #: The provider account's lane that its head needs.
    account: LaneId | None = None
    #: The last sequence leased, HIGH and NORMAL: what lies before is not read again.
    marks: tuple[int, int] = (0, 0)
    #: The last sequence told to be abandoned while the gate is closed.
    abandoned_to: int = 0
    #: Published, acknowledged, still in line.
    published: list[Granted] = []


class Round(Struct):
    """What one transaction of a round came to."""

    granted: list[Granted]
    republished: list[Granted]
    abandoned: list[AttemptKey]

    @property
    def going(self) -> list[Granted]:
        """What is to be published, in order: what an earlier owner had leased stands first."""
        return self.republished + self.granted


class Transaction:
    """One round's transaction over the lanes that are due."""

    def __init__(self, owner: str, places: dict[LaneId, Place], connection: Connection) -> None:
        """Works on `places`, and leaves in them when to look again."""
        self._owner = owner
        self._places = places
        self._connection = connection
        #: What the round writes at its end, as one statement.
        self._writes = Writes()
        #: Lanes whose line was read to its end.
        self._exhausted: set[LaneId] = set()
        #: More steps are to be abandoned than one chunk holds.
        self._is_cut = False

    async def run(self, due: Sequence[LaneId]) -> Round:
        """Delete what is published, take lanes over, lease and reserve, find steps to abandon."""
        self._now, self._clock_scale = await _database_clock(self._connection)
        accounts = {account for lane in due if (account := self._places[lane].account) is not None}
        locked = await lock_lanes(self._connection, dict.fromkeys([*due, *accounts]), self._now)
        self._locked = locked
        ours, taken = self._ours(due)
        await self._delete_published(ours)
        republished = await self._leftovers(taken)
        # What a lane's last owner had leased goes first: nothing new until that is acknowledged.
        ready = sorted(set(ours) - {item.lane for item in republished})
        granted = await self._grant(ready)
        abandoned = await self._movable(ours)
        going = [*republished, *granted]
        leased = Counts(item.lane for item in going)
        for lane in ours:
            self._plan_next_look(lane, leased[lane])
        for lane in leased:
            self._locked.change(lane).lease_until = self._now + LEASE * self._clock_scale
        await locked.write_into(self._writes, self._connection)
        await self._writes.execute(self._connection)
        return Round(granted, republished, abandoned)

    def _ours(self, due: Sequence[LaneId]) -> tuple[list[LaneId], list[LaneId]]:
        """The lanes we may work on, and those of them that we have just taken over."""
        ours, taken = [], []
        for lane_id in due:
            place = self._places[lane_id]
            if not self._is_ours_to_take(lane_id, place):
                self._places.pop(lane_id, None)
                continue
            ours.append(lane_id)
            lane = self._locked[lane_id]
            if place.token != lane.token:
                lane = self._locked.change(lane_id)
                lane.owner, lane.token, lane.lease_until = (
                    self._owner,
                    lane.token + 1,
                    self._now + LEASE * self._clock_scale,
                )
                self._places[lane_id] = Place(token=lane.token, account=place.account)
                taken.append(lane_id)
        return ours, taken

    def _is_ours_to_take(self, lane_id: LaneId, place: Place) -> bool:
        if lane_id not in self._locked:
            return False
        lane = self._locked[lane_id]
        if place.token is not None and place.token == lane.token:
            return True
        # Our own name under another token is an earlier life of ours: it is over.
        is_former_self = lane.owner == self._owner
        is_free = lane.owner is None or lane.lease_until is None or lane.lease_until <= self._now
        return lane.waiting > 0 and (is_free or is_former_self)

    async def _delete_published(self, lanes: Sequence[LaneId]) -> None:
        items = [item for lane in lanes for item in self._places[lane].published]
        if not items:
            return
        gone = await self._connection.fetch(
            "DELETE FROM switchboard.lane_items AS item"
            " USING unnest($1::text[], $2::smallint[], $3::integer[], $4::bigint[])"
            " AS done (message_id, step, submission, token)"
            " WHERE item.message_id = done.message_id AND item.step = done.step"
            " AND item.submission = done.submission AND item.token = done.token RETURNING item.lane",
            [item.message_id for item in items],
            [item.step for item in items],
            [item.submission for item in items],
            [item.token for item in items],
        )
        for row in gone:
            self._locked.change(row["lane"]).waiting -= 1
        for lane in lanes:
            self._places[lane].published = []

    async def _leftovers(self, taken: Sequence[LaneId]) -> list[Granted]:
        """What the last owner had leased, in order, now under our tokens."""
        if not taken:
            return []
        rows = await self._connection.fetch(
            "WITH ours AS (UPDATE switchboard.lane_items AS item SET token = taken.token"
            " FROM unnest($1::text[], $2::bigint[]) AS taken (lane, token)"
            " WHERE item.lane = taken.lane AND item.token IS NOT NULL"
            " RETURNING item.*) SELECT * FROM ours ORDER BY lane, priority, sequence",
            list(taken),
            [self._locked[lane].token for lane in taken],
        )
        return [
            Granted(row["message_id"], row["step"], row["submission"], row["lane"], row["send_before"], row["token"])
            for row in rows
        ]

    async def _grant(self, lanes: Sequence[LaneId]) -> list[Granted]:
        waiters = await self._heads(lanes)
        # Cancelled without being taken out of the line.
        dropped = [waiter.key for line in waiters.values() for waiter in line if not waiter.is_planned]
        await self._locked.withdraw(self._connection, dropped)
        slots: list[tuple[_Waiter, Slot]] = []
        lines = [[waiter for waiter in line if waiter.is_planned] for line in waiters.values()]
        for turn in count():
            lines = [line for line in lines if turn < len(line) and self._start(line[turn], slots)]
            if not lines:
                break
        granted = [
            Granted(*waiter.key, waiter.lane, _send_before(waiter, slot), self._locked[waiter.lane].token)
            for waiter, slot in slots
        ]
        # Each lane's own order counts, not whose turn it was.
        self._write(granted, slots)
        return granted

    def _start(self, waiter: _Waiter, slots: list[tuple[_Waiter, Slot]]) -> bool:
        """Give this waiter its slot, if there is one. False: nobody behind it gets one in this round."""
        if waiter.send_by is not None and waiter.send_by <= self._now:
            # Expired: its deadline is told by the sweep, and takes it out of the line.
            self._pass(waiter)
            return True
        place = self._places[waiter.lane]
        place.account = waiter.account
        if waiter.account is not None and waiter.account not in self._locked:
            place.look_at = 0.0
            return False
        slot = self._locked.start(waiter.lane, waiter.account, waiter.units, waits_since=waiter.entered_at)
        if slot is None:
            return False
        slots.append((waiter, slot))
        self._pass(waiter)
        return True

    def _pass(self, waiter: _Waiter) -> None:
        place = self._places[waiter.lane]
        high, normal = place.marks
        place.marks = (waiter.sequence, normal) if waiter.priority == HIGH else (high, waiter.sequence)

    async def _heads(self, lanes: Sequence[LaneId]) -> dict[LaneId, list[_Waiter]]:
        """The first in line of each lane, as many as it may start at once. Locks their messages and attempts."""
        rooms = {lane: room for lane in lanes if (room := self._room(lane)) > 0}
        if not rooms:
            return {}
        wanted = shares(rooms, _ITEMS_PER_ROUND)
        rows = await self._connection.fetch(
            HEADS,
            list(wanted),
            list(wanted.values()),
            [self._places[lane].marks[0] for lane in wanted],
            [self._places[lane].marks[1] for lane in wanted],
        )
        states = await self._lock_attempts(rows)
        heads: dict[LaneId, list[_Waiter]] = {lane: [] for lane in wanted}
        for row in rows:
            is_planned, send_by = states.get((row["message_id"], row["step"], row["submission"]), (False, None))
            heads[row["lane"]].append(
                _Waiter(
                    row["message_id"], row["step"], row["submission"], row["lane"], row["account_lane"],
                    row["priority"], row["sequence"], row["units"], row["entered_at"], is_planned, send_by,
                )
            )  # fmt: skip
        for lane, line in heads.items():
            if len(line) < wanted[lane]:
                self._exhausted.add(lane)
            # Asked for as many of each priority: HIGH ones stand first.
            del line[wanted[lane] :]
        return heads

    async def _lock_attempts(self, rows: Sequence[asyncpg.Record]) -> Mapping[AttemptKey, tuple[bool, datetime | None]]:
        if not rows:
            return {}
        found = await self._connection.fetch(
            "SELECT attempt.message_id, attempt.step, attempt.submission, message.ttl_ends_at,"
            " attempt.state = 'planned' AND attempt.send_before IS NULL AS is_planned"
            " FROM unnest($1::text[], $2::smallint[], $3::integer[]) AS head (message_id, step, submission)"
            " JOIN switchboard.messages AS message ON message.id = head.message_id"
            " JOIN switchboard.attempts AS attempt ON attempt.message_id = head.message_id"
            " AND attempt.step = head.step AND attempt.submission = head.submission"
            " ORDER BY attempt.message_id, attempt.step, attempt.submission FOR UPDATE OF message, attempt",
            [row["message_id"] for row in rows],
            [row["step"] for row in rows],
            [row["submission"] for row in rows],
        )
        return {
            (row["message_id"], row["step"], row["submission"]): (row["is_planned"], row["ttl_ends_at"])
            for row in found
        }

    def _room(self, lane_id: LaneId) -> int:
        lane = self._locked[lane_id]
        if lane.gate.state is GateState.PAUSED:
            return 0
        if lane.gate.state is GateState.CLOSED:
            return 1 if may_probe(lane.gate, self._now) else 0
        slots = free_slots(lane.tat_us, lane.paced_interval_ns, microseconds(self._now), AHEAD_US, LATE_US)
        return min(slots, lane.max_in_flight - lane.in_flight)

    def _write(self, granted: Sequence[Granted], slots: Sequence[tuple[_Waiter, Slot]]) -> None:
        """Lease the items, and set the due times of their messages and attempts."""
        if not granted:
            return
        keys = [
            [item.message_id for item in granted],
            [item.step for item in granted],
            [item.submission for item in granted],
        ]
        send_before = [item.send_before for item in granted]
        lanes = [waiter.lane for waiter, _ in slots]
        accounts = [waiter.account for waiter, _ in slots]
        self._writes.add("due", _SET_DUE, keys[0], send_before)
        self._writes.add("started", _START, *keys, send_before, lanes, accounts)
        self._writes.add("leased", _LEASE, *keys, send_before, [item.token for item in granted])

    async def _movable(self, lanes: Sequence[LaneId]) -> list[AttemptKey]:
        """Waiting attempts behind a closed gate whose messages have another channel left."""
        closed = [lane for lane in lanes if any(gate is GateState.CLOSED for gate in self._gates(lane))]
        for lane in set(lanes) - set(closed):
            self._places[lane].abandoned_to = 0
        if not closed:
            return []
        rows = await self._connection.fetch(
            "SELECT item.* FROM unnest($1::text[], $2::bigint[]) AS closed (lane, told_to)"
            " CROSS JOIN LATERAL (SELECT message_id, step, submission, lane, sequence"
            "  FROM switchboard.lane_items AS item WHERE item.lane = closed.lane AND item.sequence > closed.told_to"
            "  AND item.token IS NULL AND item.other_channel_left"
            "  AND (item.abandoned_at IS NULL OR item.abandoned_at <= $4) ORDER BY item.sequence LIMIT $3) AS item"
            " ORDER BY item.lane, item.sequence LIMIT $3",
            closed,
            [self._places[lane].abandoned_to for lane in closed],
            ABANDON_CHUNK,
            self._now - TELL_AGAIN,
        )
        last = {row["lane"]: row["sequence"] for row in rows}
        is_cut = len(rows) == ABANDON_CHUNK
        for lane in closed:
            # Cut off: goes on behind the last one. Read to the end: begins again, for those told long ago.
            self._places[lane].abandoned_to = last.get(lane, self._places[lane].abandoned_to) if is_cut else 0
        self._is_cut = is_cut
        return [(row["message_id"], row["step"], row["submission"]) for row in rows]

    def _gates(self, lane_id: LaneId) -> list[GateState]:
        return [lane.gate.state for lane in self._lane_and_account(lane_id)]

    def _lane_and_account(self, lane_id: LaneId) -> list[Lane]:
        account = self._places[lane_id].account
        both = [lane_id] if account is None or account not in self._locked else [lane_id, account]
        return [self._locked[lane] for lane in both]

    def _plan_next_look(self, lane_id: LaneId, leased: int) -> None:
        """Decide when this lane needs another round, and let it go once it is empty."""
        lane = self._locked[lane_id]
        place = self._places[lane_id]
        if lane.waiting == 0:
            lane = self._locked.change(lane_id)
            lane.owner, lane.lease_until = None, None
            del self._places[lane_id]
            return
        if place.account is not None and place.account not in self._locked:
            delay = 0.0
        elif lane.waiting == leased:
            delay = _LINGER_ALONE_SECONDS
        elif leased:
            delay = min(self._delay(lane_id), _LINGER_SECONDS)
        else:
            delay = self._delay(lane_id)
        place.look_at = asyncio.get_running_loop().time() + delay

    def _delay(self, lane_id: LaneId) -> float:
        """Seconds until the next in line may start, as far as a clock can tell; changes are told by NOTIFY."""
        both = self._lane_and_account(lane_id)
        gates = [lane.gate for lane in both]
        if any(gate.state is GateState.PAUSED for gate in gates):
            return BLOCKED_SECONDS
        if self._is_cut and any(gate.state is GateState.CLOSED for gate in gates):
            return 0.0
        probes = [gate.probe_at for gate in gates if gate.state is GateState.CLOSED and gate.probe_at is not None]
        if probes:
            return min(BLOCKED_SECONDS, max(self._seconds_to(max(probes)), _EMPTY_LOOK_SECONDS))
        if any(lane.in_flight >= lane.max_in_flight for lane in both):
            return BLOCKED_SECONDS
        if lane_id in self._exhausted:
            return _EMPTY_LOOK_SECONDS
        tat_us = max(lane.tat_us for lane in both)
        # Comes back when half of what may be taken ahead is used up: slots are never missed for being late.
        return self._seconds_to(moment_of(tat_us - BYPASS_AHEAD_US))

    def _seconds_to(self, moment: datetime) -> float:
        return max(0.0, (moment - self._now).total_seconds() / self._clock_scale)


def shares(rooms: Mapping[LaneId, int], items: int) -> dict[LaneId, int]:
    """How many of so many items each lane gets: what it has room for, or an equal part of what others leave."""
    given: dict[LaneId, int] = {}
    left = items
    for lanes_left, lane in zip(range(len(rooms), 0, -1), sorted(rooms, key=rooms.__getitem__), strict=True):
        given[lane] = min(rooms[lane], max(1, left // lanes_left))
        left -= given[lane]
    return {lane: given[lane] for lane in rooms}


async def mark_abandoned(connection: Connection, keys: Sequence[AttemptKey]) -> None:
    """Note that these waiting attempts were told to be abandoned: they are not leased any more."""
    await connection.execute(
        "UPDATE switchboard.lane_items AS item SET abandoned_at = switchboard.now()"
        " FROM unnest($1::text[], $2::smallint[], $3::integer[]) AS told (message_id, step, submission)"
        " WHERE item.message_id = told.message_id AND item.step = told.step AND item.submission = told.submission",
        *([key[place] for key in keys] for place in range(3)),
    )


def _send_before(waiter: _Waiter, slot: Slot) -> datetime:
    latest = slot.slot_at + SEND_WINDOW
    return latest if waiter.send_by is None else min(latest, waiter.send_by)


async def _database_clock(connection: Connection) -> tuple[datetime, float]:
    row = await connection.fetchrow("SELECT switchboard.now() AS now, scale FROM switchboard.clock")
    assert row is not None
    return row["now"], row["scale"]


#: The messages and attempts are locked already.
_SET_DUE: Final = """
UPDATE switchboard.messages AS message SET claim_due_at = granted.send_before,
    next_due = LEAST(message.next_due, granted.send_before)
FROM unnest($1::text[], $2::timestamptz[]) AS granted (id, send_before)
WHERE message.id = granted.id AND NOT message.final
"""
_START: Final = """
UPDATE switchboard.attempts AS attempt SET send_before = granted.send_before,
    lanes = array_remove(ARRAY[granted.lane, granted.account], NULL)
FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::timestamptz[], $5::text[], $6::text[])
    AS granted (message_id, step, submission, send_before, lane, account)
WHERE attempt.message_id = granted.message_id AND attempt.step = granted.step
    AND attempt.submission = granted.submission
"""
_LEASE: Final = """
UPDATE switchboard.lane_items AS item SET token = granted.token, send_before = granted.send_before
FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::timestamptz[], $5::bigint[])
    AS granted (message_id, step, submission, send_before, token)
WHERE item.message_id = granted.message_id AND item.step = granted.step AND item.submission = granted.submission
"""
#: Per lane, never over all lanes: a dead lane's million items cost the others nothing. One range for each priority.
HEADS: Final = """
SELECT item.* FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS wanted (lane, number, high, normal)
CROSS JOIN LATERAL (
    (SELECT * FROM switchboard.lane_items AS item
     WHERE item.lane = wanted.lane AND item.priority = 0 AND item.sequence > wanted.high
       AND item.token IS NULL AND item.abandoned_at IS NULL ORDER BY item.sequence LIMIT wanted.number)
    UNION ALL
    (SELECT * FROM switchboard.lane_items AS item
     WHERE item.lane = wanted.lane AND item.priority = 1 AND item.sequence > wanted.normal
       AND item.token IS NULL AND item.abandoned_at IS NULL ORDER BY item.sequence LIMIT wanted.number)
) AS item
ORDER BY item.lane, item.priority, item.sequence
"""
