"""Lanes under lock: loaded once in a transaction, worked on by the rules, saved once.

Lock order everywhere is lanes, messages, attempts (DESIGN 5). A transaction that both ends attempts and plans new
ones names all their lanes in *one* `lock_lanes`, before it locks a message:

    lanes = await lock_lanes(connection, {lane: limits, …}, now)
    …lock messages, decide…
    lanes.release(ended)
    await lanes.withdraw(connection, cancelled_in_line)
    decisions = lanes.reserve(asks)
    await lanes.save(connection)

The same rules work on lanes that were only seen, as far as no lock is needed (`lanes.remembered`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import structlog
from msgspec import Struct

from switchboard.ids import LaneId, MessageId
from switchboard.lanes import gate as gates
from switchboard.lanes.gate import Gate, GateState
from switchboard.lanes.gcra import AHEAD_US, BYPASS_AHEAD_US, LATE_US, interval_ns, take
from switchboard.lanes.lane import Lane, LaneKind, Limits, kind_of, microseconds, moment_of
from switchboard.rules.progress import AttemptEnd
from switchboard.store.pool import Connection
from switchboard.store.writes import Writes

#: Told with a lane's id when somebody who drains it should look at once.
NOTIFY_CHANNEL: Final = "switchboard_lanes"
HIGH: Final = 0
NORMAL: Final = 1

log = structlog.get_logger()


#: One attempt, which an item in line stands for: message, step, submission.
AttemptKey = tuple[MessageId, int, int]


class Ask(Struct, frozen=True):
    """A planned attempt that wants to start."""

    message_id: MessageId
    step: int
    submission: int
    dispatch_lane: LaneId
    dispatch_limits: Limits
    #: The provider account's lane, if its account is paced.
    account_lane: LaneId | None = None
    account_limits: Limits | None = None
    high: bool = False
    #: What it costs in the account's unit (segments, recipient pairs). One in the dispatch lane.
    units: int = 1
    #: The route has another channel: at a closed gate the message goes there instead of waiting.
    other_channel_left: bool = False


class Slot(Struct, frozen=True):
    """It may start: publish it now, with `send_before` reckoned from `slot_at`."""

    #: At most 100 ms ahead.
    slot_at: datetime
    #: For `attempts.lanes`: where it is in flight until the transition that ends it.
    lanes: tuple[LaneId, ...]
    #: It finds out whether a closed gate may open.
    probe: bool = False


class Waiting(Struct, frozen=True):
    """It is an item in its dispatch lane now; the drainer publishes it. `send_before` stays NULL until then."""

    lane: LaneId
    sequence: int


class GateClosed(Struct, frozen=True):
    """This channel takes nothing at present and another one is left: move on. Nothing was written."""

    lane: LaneId


Decision = Slot | Waiting | GateClosed


class Ended(Struct, frozen=True):
    """An attempt that had a slot came to its end."""

    #: What its row says in `attempts.lanes`.
    lanes: Sequence[LaneId]
    end: AttemptEnd


class _Item(Struct, frozen=True):
    ask: Ask
    sequence: int


class _Before(Struct, frozen=True):
    waiting: int
    had_room: bool
    gate: GateState


class LockedLanes:
    """Lanes whose rows this transaction holds, or that hold for what was seen. Changes are in memory until `save`."""

    def __init__(self, lanes: Iterable[Lane], now: datetime) -> None:
        self._lanes = {lane.id: lane for lane in lanes}
        self._before = {lane.id: _before(lane) for lane in self._lanes.values()}
        self._now = now
        self._now_us = microseconds(now)
        self._touched: set[LaneId] = set()
        self._entering: list[_Item] = []
        self._ended_elsewhere: list[Ended] = []
        self._counted_too_low: set[LaneId] = set()

    def __contains__(self, lane: LaneId) -> bool:
        return lane in self._lanes

    def __getitem__(self, lane: LaneId) -> Lane:
        """The lane's state, to read. Raises KeyError for one that was not locked."""
        return self._lanes[lane]

    def change(self, lane: LaneId) -> Lane:
        """The lane's state, to change: `save` writes it. Raises KeyError for one that was not locked."""
        found = self._lanes[lane]
        self._touched.add(lane)
        return found

    @property
    def changed(self) -> list[Lane]:
        """The lanes that `save` would write, by id."""
        return [self._lanes[lane] for lane in sorted(self._touched)]

    @property
    def needs_lock(self) -> bool:
        """Whether `save` does more than write these rows: items enter lines, drainers are woken, other lanes change.

        So does a count that does not fit: of lanes that were only seen it says that they are not so any more.
        """
        return bool(self._entering or self._ended_elsewhere or self._counted_too_low or self._woken())

    def reserve(self, asks: Sequence[Ask]) -> list[Decision]:
        """Decide for each ask, in order, whether it starts, waits in line, or moves on to another channel."""
        return [self._decide(ask) for ask in asks]

    def start(
        self,
        dispatch: LaneId,
        account: LaneId | None,
        units: int = 1,
        *,
        account_ahead_us: int = AHEAD_US,
        waits_since: datetime | None = None,
    ) -> Slot | None:
        """Take a slot in both lanes, or None if either has none now. Looks at the gates, not at who waits.

        Who `waits_since` a moment may take a slot that has just passed: a drainer that comes late costs no capacity.
        """
        both = (dispatch,) if account is None else (dispatch, account)
        lanes = [self._lanes[lane] for lane in both]
        probe = False
        for lane in lanes:
            if lane.in_flight >= lane.max_in_flight:
                return None
            if lane.gate.state is not GateState.OPEN:
                if not gates.may_probe(lane.gate, self._now):
                    return None
                probe = True
        not_before_us = self._now_us
        if waits_since is not None:
            not_before_us = min(not_before_us, max(microseconds(waits_since), not_before_us - LATE_US))
        slot_us = max(not_before_us, *(lane.tat_us for lane in lanes))
        if slot_us >= self._now_us + AHEAD_US:
            return None
        if account is not None and lanes[1].tat_us >= self._now_us + account_ahead_us:
            return None
        for lane in lanes:
            cost = 1 if lane.kind is LaneKind.DISPATCH else units
            _, lane.tat_us = take(slot_us, lane.paced_interval_ns, cost, slot_us)
            lane.in_flight += 1
            if lane.gate.state is GateState.CLOSED:
                lane.gate = gates.begin_probe(lane.gate, self._now)
        self._touched.update(both)
        return Slot(moment_of(slot_us), both, probe)

    def release(self, ended: Iterable[Ended]) -> None:
        """Count attempts that ended out of their lanes, and let the gates learn from them.

        Lanes that nobody expected (an account that is not paced any more) are locked by `save`, out of order: the
        database ends the transaction if that closes a circle, and it is done again.
        """
        for attempt in ended:
            for lane_id in attempt.lanes:
                if lane_id not in self._lanes:
                    self._ended_elsewhere.append(Ended((lane_id,), attempt.end))
                    continue
                lane = self.change(lane_id)
                if lane.in_flight == 0:
                    self._counted_too_low.add(lane_id)
                lane.in_flight = max(0, lane.in_flight - 1)
                lane.gate = gates.after(lane.gate, attempt.end, self._now)

    async def withdraw(self, connection: Connection, attempts: Collection[AttemptKey]) -> list[AttemptKey]:
        """Take attempts that will not start out of their lines. Returns those that were in one of these lanes."""
        if not attempts:
            return []
        gone = await connection.fetch(
            "DELETE FROM switchboard.lane_items AS item"
            " USING unnest($1::text[], $2::smallint[], $3::integer[]) AS gone (message_id, step, submission)"
            " WHERE item.message_id = gone.message_id AND item.step = gone.step"
            " AND item.submission = gone.submission AND item.lane = ANY ($4::text[])"
            " RETURNING item.message_id, item.step, item.submission, item.lane",
            *_columns(attempts),
            list(self._lanes),
        )
        for row in gone:
            self.change(row["lane"]).waiting -= 1
        return [(row["message_id"], row["step"], row["submission"]) for row in gone]

    async def save(self, connection: Connection) -> None:
        """Write what changed."""
        writes = Writes()
        await self.write_into(writes, connection)
        await writes.execute(connection)

    async def write_into(self, writes: Writes, connection: Connection) -> None:
        """Add to `writes` one update for all lanes; before that, where there is any, items and notifications."""
        for lane_id in sorted(self._counted_too_low):
            log.error("lane_counted_down_too_often", lane=lane_id)
        if self._entering:
            await self._insert_items(connection)
        if self._ended_elsewhere:
            await release(connection, self._ended_elsewhere, self._now)
        if self._touched:
            update(writes, self.changed)
            for lane_id in self._woken():
                await connection.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, lane_id)
        self._entering.clear()
        self._ended_elsewhere.clear()
        self._counted_too_low.clear()
        self._touched.clear()
        self._before = {lane.id: _before(lane) for lane in self._lanes.values()}

    def _decide(self, ask: Ask) -> Decision:
        dispatch = self._lanes[ask.dispatch_lane]
        if dispatch.waiting == 0:
            slot = self.start(ask.dispatch_lane, ask.account_lane, ask.units, account_ahead_us=BYPASS_AHEAD_US)
            if slot is not None:
                return slot
        if ask.other_channel_left and (closed := self._closed_lane(ask)):
            return GateClosed(closed)
        self._touched.add(dispatch.id)
        dispatch.last_sequence += 1
        dispatch.waiting += 1
        self._entering.append(_Item(ask, dispatch.last_sequence))
        return Waiting(dispatch.id, dispatch.last_sequence)

    def _closed_lane(self, ask: Ask) -> LaneId | None:
        for lane_id in (ask.dispatch_lane, ask.account_lane):
            if lane_id is not None and self._lanes[lane_id].gate.state is GateState.CLOSED:
                return lane_id
        return None

    def _woken(self) -> list[LaneId]:
        """Lanes whose drainer has something to do that it could not know of. HIGH does not wait for its next look."""
        urgent = {item.ask.dispatch_lane for item in self._entering if item.ask.high}
        return [
            lane_id
            for lane_id in sorted(self._touched)
            if lane_id in urgent or _is_news(self._lanes[lane_id], self._before[lane_id])
        ]

    async def _insert_items(self, connection: Connection) -> None:
        items = self._entering
        await connection.execute(
            "INSERT INTO switchboard.lane_items (message_id, step, submission, lane, account_lane, priority,"
            " sequence, units, other_channel_left, entered_at)"
            " SELECT asked.*, $10 FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::text[], $5::text[],"
            " $6::smallint[], $7::bigint[], $8::integer[], $9::boolean[]) AS asked",
            [item.ask.message_id for item in items],
            [item.ask.step for item in items],
            [item.ask.submission for item in items],
            [item.ask.dispatch_lane for item in items],
            [item.ask.account_lane for item in items],
            [HIGH if item.ask.high else NORMAL for item in items],
            [item.sequence for item in items],
            [item.ask.units for item in items],
            [item.ask.other_channel_left for item in items],
            self._now,
        )


async def lock_lanes(connection: Connection, limits: Mapping[LaneId, Limits | None], now: datetime) -> LockedLanes:
    """Lock these lanes for the rest of the transaction, in the order of their ids.

    A lane that does not exist is made, if limits are given for it; one with other limits takes them over. A lane
    that exists nowhere and has no limits is not in the result. `now` is the database's clock.
    """
    ids = sorted(limits)
    if not ids:
        return LockedLanes((), now)
    intervals = {lane: None if limit is None else interval_ns(limit.per_second) for lane, limit in limits.items()}
    rows = await connection.fetch(
        "SELECT * FROM switchboard.lock_lanes($1, $2, $3, $4, $5)",
        ids,
        [kind_of(lane).value for lane in ids],
        [intervals[lane] for lane in ids],
        [None if (limit := limits[lane]) is None else limit.max_in_flight for lane in ids],
        now,
    )
    locked = LockedLanes((lane_of(row) for row in rows), now)
    for lane_id, limit in limits.items():
        interval = intervals[lane_id]
        if limit is None or interval is None:
            continue
        if lane_id not in locked:
            # It was idle, and removed between the look whether it exists and its lock (`lanes.idle`).
            return await lock_lanes(connection, limits, now)
        if not has_limits(locked[lane_id], limit):
            changed = locked.change(lane_id)
            changed.interval_ns, changed.max_in_flight = interval, limit.max_in_flight
    return locked


def lanes_of(asks: Iterable[Ask]) -> dict[LaneId, Limits | None]:
    """The lanes these asks need, with their limits: what `lock_lanes` takes."""
    lanes: dict[LaneId, Limits | None] = {}
    for ask in asks:
        lanes[ask.dispatch_lane] = ask.dispatch_limits
        if ask.account_lane is not None:
            lanes[ask.account_lane] = ask.account_limits
    return lanes


async def reserve(connection: Connection, asks: Sequence[Ask], now: datetime) -> list[Decision]:
    """Lock, decide and save in the caller's transaction, which must hold no message or attempt yet."""
    locked = await lock_lanes(connection, lanes_of(asks), now)
    decisions = locked.reserve(asks)
    await locked.save(connection)
    return decisions


async def release(connection: Connection, ended: Sequence[Ended], now: datetime) -> None:
    """Count ended attempts out of their lanes in the caller's transaction, which must hold no message yet."""
    locked = await lock_lanes(connection, {lane: None for attempt in ended for lane in attempt.lanes}, now)
    known = [Ended([lane for lane in attempt.lanes if lane in locked], attempt.end) for attempt in ended]
    locked.release(known)
    await locked.save(connection)


def lane_of(row: asyncpg.Record) -> Lane:
    """Read a row of `lanes`."""
    return Lane(
        id=row["id"],
        kind=LaneKind(row["kind"]),
        interval_ns=row["interval_ns"],
        slowdown=row["slowdown"],
        tat_us=microseconds(row["tat"]),
        waiting=row["waiting"],
        in_flight=row["in_flight"],
        max_in_flight=row["max_in_flight"],
        gate=Gate(GateState(row["gate"]), row["fail_streak"], row["probe_at"], row["probing"]),
        last_sequence=row["last_sequence"],
        owner=row["owner"],
        token=row["token"],
        lease_until=row["lease_until"],
    )


def has_limits(lane: Lane, limits: Limits | None) -> bool:
    """Whether a lane has these limits. None: any will do."""
    if limits is None:
        return True
    return (lane.interval_ns, lane.max_in_flight) == (interval_ns(limits.per_second), limits.max_in_flight)


def update(writes: Writes, lanes: Sequence[Lane]) -> None:
    """Write the rows of lanes, which are locked."""
    writes.add(
        "changed_lanes",
        "UPDATE switchboard.lanes AS lane SET interval_ns = new.interval_ns, slowdown = new.slowdown,"
        " tat = new.tat, waiting = new.waiting, in_flight = new.in_flight, max_in_flight = new.max_in_flight,"
        " gate = new.gate, fail_streak = new.fail_streak, probe_at = new.probe_at, probing = new.probing,"
        " last_sequence = new.last_sequence, owner = new.owner, token = new.token, lease_until = new.lease_until"
        " FROM unnest($1::text[], $2::bigint[], $3::double precision[], $4::timestamptz[], $5::bigint[],"
        " $6::integer[], $7::integer[], $8::text[], $9::integer[], $10::timestamptz[], $11::boolean[],"
        " $12::bigint[], $13::text[], $14::bigint[], $15::timestamptz[])"
        " AS new (id, interval_ns, slowdown, tat, waiting, in_flight, max_in_flight, gate, fail_streak, probe_at,"
        " probing, last_sequence, owner, token, lease_until) WHERE lane.id = new.id",
        [lane.id for lane in lanes],
        [lane.interval_ns for lane in lanes],
        [lane.slowdown for lane in lanes],
        [moment_of(lane.tat_us) for lane in lanes],
        [lane.waiting for lane in lanes],
        [lane.in_flight for lane in lanes],
        [lane.max_in_flight for lane in lanes],
        [lane.gate.state.value for lane in lanes],
        [lane.gate.fail_streak for lane in lanes],
        [lane.gate.probe_at for lane in lanes],
        [lane.gate.probing for lane in lanes],
        [lane.last_sequence for lane in lanes],
        [lane.owner for lane in lanes],
        [lane.token for lane in lanes],
        [lane.lease_until for lane in lanes],
    )


def _columns(attempts: Collection[AttemptKey]) -> list[list[MessageId] | list[int]]:
    return [[key[0] for key in attempts], [key[1] for key in attempts], [key[2] for key in attempts]]


def _before(lane: Lane) -> _Before:
    return _Before(lane.waiting, lane.in_flight < lane.max_in_flight, lane.gate.state)


def _is_news(lane: Lane, before: _Before) -> bool:
    if lane.gate.state is not before.gate:
        return True
    if lane.in_flight < lane.max_in_flight and not before.had_room:
        return lane.kind is LaneKind.ACCOUNT or lane.waiting > 0
    return lane.waiting > 0 and before.waiting == 0


__all__ = [
    "HIGH",
    "NORMAL",
    "NOTIFY_CHANNEL",
    "Ask",
    "AttemptKey",
    "Decision",
    "Ended",
    "GateClosed",
    "LockedLanes",
    "Slot",
    "Waiting",
    "has_limits",
    "lane_of",
    "lanes_of",
    "lock_lanes",
    "release",
    "reserve",
    "update",
]
