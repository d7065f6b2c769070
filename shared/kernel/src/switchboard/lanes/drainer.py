"""The drainer: gives those who wait in dispatch lanes their slots, in order, and publishes them.

One drainer per lane at a time, by lease and token. It decides nothing about a message. Each round

1. in one transaction takes published items out of the line, leases the next ones, reserves their slots and sets
   their due times;
2. publishes them through the injected coroutine, and holds the lease until that is acknowledged.

Whoever takes a lane over publishes again what its last owner had leased, in order, and reserves nothing for it a
second time. What is published twice is claimed once (DESIGN 5).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter

from switchboard.crash import crash_point
from switchboard.ids import LaneId, random_token
from switchboard.lanes.lane import LaneKind
from switchboard.lanes.locked import NOTIFY_CHANNEL, AttemptKey, lock_lanes
from switchboard.lanes.round import Granted, Place, Round, Transaction, mark_abandoned
from switchboard.reason import Reason, ReasonCode
from switchboard.records import StepAbandoned
from switchboard.store.pool import TRANSIENT_ERRORS, Pool

#: How often lanes are looked for that nobody told of.
LOOK_SECONDS: Final = 1.0
_LANES_PER_ROUND: Final = 250
_BACK_OFF_SECONDS: Final = 0.5

GATE_CLOSED: Final = Reason(ReasonCode.CHANNEL_FAILURE, "The channel takes no messages now and another one is left.")

_granted_total = Counter("switchboard_lanes_granted", "Attempts that waited in a lane and got their slot.")
_republished_total = Counter("switchboard_lanes_republished", "Leased attempts a new owner published again.")
_abandoned_total = Counter("switchboard_lanes_abandoned", "Waiting steps told to be abandoned at a closed gate.")
log = structlog.get_logger()


#: Publishes one DispatchMessage for each, in this order per key, and returns when all are acknowledged.
Publish = Callable[[Sequence[Granted]], Awaitable[None]]
#: Publishes records to `attempts`, and returns when all are acknowledged.
TellAbandoned = Callable[[Sequence[StepAbandoned]], Awaitable[None]]


class Drainer:
    """Drains the dispatch lanes of an installation, together with the drainers of other processes."""

    def __init__(
        self,
        pool: Pool,
        publish: Publish,
        tell_abandoned: TellAbandoned,
        *,
        owner: str | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`owner` is a name that no other living process has, and that this one keeps when it is started again: then
        it takes its lanes up at once. None makes a name up, and what it held waits for the end of its leases.
        """
        self._pool = pool
        self._publish = publish
        self._tell_abandoned = tell_abandoned
        self._owner = owner or random_token(8)
        self._look_seconds = look_seconds
        self._places: dict[LaneId, Place] = {}
        self._discover_at = 0.0
        self._news = asyncio.Event()
        self._round = asyncio.Lock()

    @property
    def lanes_held(self) -> int:
        """Lanes this drainer holds the lease of."""
        return sum(place.token is not None for place in self._places.values())

    def wake(self) -> None:
        """Look at every lane at once."""
        self._discover_at = 0.0
        for place in self._places.values():
            place.look_at = 0.0
        self._news.set()

    async def run(self) -> None:
        """Drain until cancelled. The database or the broker being away is waited for."""
        while True:
            try:
                async with self._pool.acquire() as connection:
                    await connection.add_listener(NOTIFY_CHANNEL, self._on_notify)
                    try:
                        self.wake()
                        await self._run_while(connection)
                    finally:
                        if not connection.is_closed():
                            await connection.remove_listener(NOTIFY_CHANNEL, self._on_notify)
            except TRANSIENT_ERRORS as error:
                log.warning("drainer_waits_for_database", error=type(error).__name__)
                await asyncio.sleep(_BACK_OFF_SECONDS)

    async def give_up(self) -> None:
        """Let others have the lanes at once; after `run` was cancelled."""
        held = {lane: place.token for lane, place in self._places.items() if place.token is not None}
        self._places.clear()
        async with self._pool.acquire() as connection, connection.transaction():
            now: datetime = await connection.fetchval("SELECT switchboard.now()")
            lanes = await lock_lanes(connection, dict.fromkeys(held), now)
            for lane_id, token in held.items():
                if lane_id in lanes and lanes[lane_id].token == token:
                    lanes.change(lane_id).lease_until = now
            await lanes.save(connection)

    async def drain_once(self) -> int:
        """Do one round: everything that can go now, at most 1,000 attempts. Returns how many were published.

        Raises what the database or the publisher raises; the leased items are then published by the next round.
        """
        async with self._round:
            await self._discover()
            due = self._due()
            if not due:
                return 0
            try:
                done = await self._lease_and_publish(due)
            except BaseException:
                # What the database now says is not known here: these lanes are taken over anew.
                self._forget(due)
                raise
            if done.abandoned:
                await self._abandon(done.abandoned)
            return len(done.going)

    async def _lease_and_publish(self, due: Sequence[LaneId]) -> Round:
        async with self._pool.acquire() as connection, connection.transaction():
            done = await Transaction(self._owner, self._places, connection).run(due)
        if done.going:
            crash_point("drainer.after_claim")
            await self._publish(done.going)
        self._note_published(done.going)
        _granted_total.inc(len(done.granted))
        _republished_total.inc(len(done.republished))
        return done

    def _forget(self, lanes: Iterable[LaneId]) -> None:
        for lane in lanes:
            self._places.pop(lane, None)
        self._discover_at = 0.0

    async def _run_while(self, listening: Any) -> None:
        while not listening.is_closed():
            self._news.clear()
            try:
                await self.drain_once()
                pause = self._pause()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - a boundary: the round is undone and comes again
                log.warning("drainer_round_failed", error=type(error).__name__)
                pause = _BACK_OFF_SECONDS
            await self._sleep(pause)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._news.wait()
        except TimeoutError:
            pass

    def _pause(self) -> float:
        earliest = min((place.look_at for place in self._places.values()), default=self._discover_at)
        return min(earliest, self._discover_at) - asyncio.get_running_loop().time()

    def _on_notify(self, _connection: object, _pid: int, _channel: str, lane: object) -> None:
        lane_id = LaneId(str(lane))
        if lane_id.startswith(LaneKind.DISPATCH.value):
            self._places.setdefault(lane_id, Place()).look_at = 0.0
        else:
            for place in self._places.values():
                if place.account == lane_id:
                    place.look_at = 0.0
        self._news.set()

    async def _discover(self) -> None:
        """Find lanes with work that nobody drains: their owner died, or its notification was lost."""
        loop_now = asyncio.get_running_loop().time()
        if loop_now < self._discover_at:
            return
        self._discover_at = loop_now + self._look_seconds
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id FROM switchboard.lanes"
                " WHERE kind = 'dispatch' AND waiting > 0"
                " AND (owner IS NULL OR owner = $1 OR lease_until <= switchboard.now())",
                self._owner,
            )
        for row in rows:
            self._places.setdefault(row["id"], Place())

    def _due(self) -> list[LaneId]:
        """The lanes to look at now, the longest overdue first: none is passed over for ever."""
        now = asyncio.get_running_loop().time()
        due = [lane for lane, place in self._places.items() if place.look_at <= now]
        due.sort(key=lambda lane: self._places[lane].look_at)
        return due[:_LANES_PER_ROUND]

    def _note_published(self, items: Iterable[Granted]) -> None:
        """What is acknowledged leaves the line with the next round's transaction."""
        for item in items:
            if (place := self._places.get(item.lane)) is not None:
                place.published.append(item)

    async def _abandon(self, keys: Sequence[AttemptKey]) -> None:
        await self._tell_abandoned([StepAbandoned(*key, reason=GATE_CLOSED) for key in keys])
        async with self._pool.acquire() as connection:
            await mark_abandoned(connection, keys)
        _abandoned_total.inc(len(keys))
