"""From the topic: each event is dropped if it is known, parked if it must wait, else tried at once (DESIGN 7).

A record is finished when its event's outcome is committed, or its parking, or a lease on it: the last is written once
a try takes over a second, so that hung endpoints hold no slots and no partition.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from switchboard.bus import Permanent, Record, Slots
from switchboard.crash import crash_point
from switchboard.ids import CallbackId, LaneId
from switchboard.lanes.gate import GateState
from switchboard.lanes.lane import Lane, Limits
from switchboard.lanes.locked import LockedLanes, lock_lanes
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool, database_now
from switchboard.topics import CALLBACKS, BrokenRecord, UnknownRecord
from switchboard_callback_delivery import pacing
from switchboard_callback_delivery.admission import admit, changed
from switchboard_callback_delivery.destination import Apps, Destination, destinations_of
from switchboard_callback_delivery.event import Event, Lease, Outcome, event_of
from switchboard_callback_delivery.flight import Flights, Turn
from switchboard_callback_delivery.metrics import DeliveryMetrics
from switchboard_callback_delivery.posting import Poster
from switchboard_callback_delivery.recorder import Recorder
from switchboard_callback_delivery.store import endpoints, streams
from switchboard_callback_delivery.store.events import Parked

log = structlog.get_logger()

#: A try that takes longer gets a lease, and its record is finished.
SLOW_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.25
#: Events that are admitted under locks in one transaction.
_LEFT_MOST: Final = 500
#: Slow tries at once. Beyond them a slow one keeps its slot.
_SLOW_MOST: Final = 1024


class _Arrived(Struct):
    """An event from the topic, where it goes, and how its record is settled."""

    record: Record
    slots: Slots
    event: Event
    destination: Destination

    def finish(self) -> None:
        self.slots.finish(self.record)

    def fail(self, error: BaseException) -> None:
        self.slots.fail(self.record, error)


class _Try(Struct):
    """One try of an event from the topic."""

    arrived: _Arrived
    #: By the database's clock.
    granted_at: datetime
    troubled: bool
    #: When it was granted, and from its turn on when it began.
    since: float
    begun: bool = False
    #: It waited for its turn too long: it is parked.
    parked: bool = False
    lease: Lease | None = None
    leasing: "asyncio.Future[None] | None" = None
    #: The endpoint has answered: it is too late for a lease.
    posted: bool = False
    settled: bool = False


class Delivery:
    """The slot handler of the callbacks topic."""

    def __init__(
        self,
        *,
        pool: Pool,
        apps: Apps,
        poster: Poster,
        recorder: Recorder,
        flights: Flights,
        metrics: DeliveryMetrics,
        owner: str,
        on_due: Callable[[], None],
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        """`on_due` is called when events were parked that are due at once."""
        self._pool = pool
        self._apps = apps
        self._poster = poster
        self._recorder = recorder
        self._flights = flights
        self._metrics = metrics
        self._owner = owner
        self._on_due = on_due
        self._slow_seconds = slow_seconds
        self._tries: dict[CallbackId, _Try] = {}
        self._leased = 0
        self._admitting = asyncio.Lock()
        self._left: list[_Arrived] = []
        self._locking: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch for slow tries."""
        self._watch = asyncio.create_task(self._watch_slow())

    async def stop(self) -> None:
        """Stop watching, and admit nothing more: what is not begun is the next process's."""
        tasks = [task for task in (self._watch, self._locking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __call__(self, records: Sequence[Record], slots: Slots, /) -> None:
        """Begin the records. Raises what the database raises; then none of them was begun."""
        read: list[tuple[Record, Event]] = []
        for record in records:
            try:
                read.append((record, event_of(CALLBACKS.decode(record.value, record.headers))))
            except (BrokenRecord, UnknownRecord) as error:
                slots.fail(record, error)
            except ValueError as error:
                slots.fail(record, Permanent(str(error)))
        arrived: list[_Arrived] = []
        destinations = await destinations_of(self._apps, [event for _, event in read])
        for (record, event), destination in zip(read, destinations, strict=True):
            if destination is None:
                self._flights.begin(event.endpoint, partial(self._dismiss, record, event, slots))
            else:
                arrived.append(_Arrived(record, slots, event, destination))
        if arrived:
            await self._admit(arrived)

    async def _admit(self, arrived: Sequence[_Arrived]) -> None:
        """Begin what may be tried at once, without a lock. The rest is admitted under locks, later."""
        events = [item.event for item in arrived]
        limits = _limits(arrived)
        # One after the other: two that look at once would take the same slots, and one of them in vain.
        async with self._admitting, self._pool.acquire() as connection:
            standings = await endpoints.standings(connection, events, limits)
            lanes = LockedLanes(standings.lanes, standings.now)
            seen = {lane.id: lane.tat_us for lane in standings.lanes}
            admitted = admit(events, standings, lanes, self._flights.room, changed(lanes, limits))
            wanted = {events[place].endpoint for place in admitted.granted}
            taken = (
                await endpoints.take_slots(connection, {lane: seen[lane] for lane in wanted}, lanes) if wanted else ()
            )
            granted = [place for place in admitted.granted if events[place].endpoint in taken]
            self._finish_known([arrived[place] for place in admitted.known])
            self._begin([arrived[place] for place in granted], lanes, standings.now)
        if len(admitted.known) + len(granted) < len(arrived):
            begun = {*admitted.known, *granted}
            self._left += [item for place, item in enumerate(arrived) if place not in begun]
            if self._locking is None or self._locking.done():
                self._locking = asyncio.create_task(self._admit_left())

    async def _admit_left(self) -> None:
        """Admit under locks, all that came meanwhile together: nobody else waits for these locks with them."""
        while self._left:
            batch, self._left = self._left[:_LEFT_MOST], self._left[_LEFT_MOST:]
            try:
                await self._admit_locked(batch)
            except Exception as error:  # noqa: BLE001  # the policy of the bus decides what becomes of the records
                for item in batch:
                    item.fail(error)

    async def _admit_locked(self, arrived: Sequence[_Arrived]) -> None:
        """Begin what may be tried, park what may not."""
        events = [item.event for item in arrived]
        async with self._pool.acquire() as connection, connection.transaction():
            lanes = await lock_lanes(connection, _limits(arrived), await database_now(connection))
            standings = await endpoints.standings(connection, events)
            admitted = admit(events, standings, lanes, self._flights.room)
            parked = [Parked(event=events[place], due_at=standings.now) for place in admitted.waiting]
            await streams.park(connection, lanes, parked, standings.now)
            await lanes.save(connection)
        self._finish_known([arrived[place] for place in admitted.known])
        self._begin([arrived[place] for place in admitted.granted], lanes, standings.now)
        for place in admitted.waiting:
            arrived[place].finish()
        self._note_parked(len(parked))

    def _finish_known(self, known: Sequence[_Arrived]) -> None:
        for item in known:
            item.finish()
            self._metrics.replayed.inc()

    def _begin(self, granted: Sequence[_Arrived], lanes: LockedLanes, now: datetime) -> None:
        since = time.monotonic()
        for item in granted:
            endpoint = item.event.endpoint
            this = _Try(item, now, _is_troubled(lanes[endpoint]), since)
            self._tries[item.event.id] = this
            self._flights.begin(endpoint, partial(self._try, this))

    def _note_parked(self, count: int) -> None:
        if count:
            self._metrics.parked.inc(count)
            self._on_due()

    async def _try(self, this: _Try, turn: Turn) -> None:
        if this.parked:
            return
        this.begun, this.since = True, time.monotonic()
        arrived = this.arrived
        started_at = datetime.now(UTC)
        try:
            outcome = await self._poster.post(arrived.event, arrived.destination)
            this.posted = True
            turn.answered()
            crash_point("delivery.after_post")
            if this.leasing is not None:
                await this.leasing
            await self._recorder.record(
                replace(
                    outcome,
                    lease=this.lease,
                    lane_is_troubled=this.troubled,
                    started_at=started_at,
                    granted_at=this.granted_at,
                )
            )
            if not this.settled:
                arrived.finish()
        except Exception as error:  # noqa: BLE001  # the policy of the bus decides what becomes of the record
            if not this.settled:
                arrived.fail(error)
            else:
                log.error("a leased callback failed", callback_id=arrived.event.id, error=type(error).__name__)
        finally:
            self._tries.pop(arrived.event.id, None)
            if this.settled:
                self._leased -= 1

    async def _dismiss(self, record: Record, event: Event, slots: Slots, _: Turn) -> None:
        try:
            await self._recorder.record(Outcome(event=event, dismissed=True))
            slots.finish(record)
        except Exception as error:  # noqa: BLE001  # the policy of the bus decides what becomes of the record
            slots.fail(record, error)

    async def _watch_slow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            since = time.monotonic() - self._slow_seconds
            old = [this for this in self._tries.values() if this.since <= since]
            await self._park_late([this for this in old if not this.begun])
            slow = [this for this in old if this.begun and not this.posted and this.leasing is None]
            await self._lease(slow[: max(0, _SLOW_MOST - self._leased)])

    async def _park_late(self, late: Sequence[_Try]) -> None:
        """Park what waits for its turn too long: what holds it up may last."""
        if not late:
            return
        for this in late:
            this.parked = True
            self._tries.pop(this.arrived.event.id)
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await self._enter(connection, late)
        except Exception as error:  # noqa: BLE001  # the policy of the bus decides what becomes of the records
            for this in late:
                this.arrived.fail(error)
            return
        for this in late:
            this.arrived.finish()
        self._note_parked(len(late))

    async def _lease(self, slow: Sequence[_Try]) -> None:
        """Write a lease for each, so that their records may go."""
        if not slow:
            return
        loop = asyncio.get_running_loop()
        for this in slow:
            this.leasing = loop.create_future()
        leases: dict[CallbackId, Lease] = {}
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await self._enter(connection, slow, self._owner)
                found = await streams.leases_of(connection, self._owner, [this.arrived.event for this in slow])
            leases = found
        except TRANSIENT_ERRORS as error:
            log.warning("slow callbacks keep their slots", callbacks=len(slow), error=type(error).__name__)
        finally:
            for this in slow:
                leasing, this.lease = this.leasing, leases.get(this.arrived.event.id)
                if this.lease is None:
                    this.leasing = None
                else:
                    this.settled = True
                    self._leased += 1
                    this.arrived.finish()
                if leasing is not None:
                    leasing.set_result(None)

    async def _enter(self, connection: Connection, tries: Sequence[_Try], owner: str | None = None) -> None:
        """Write rows for events that have none yet: leased to `owner`, or due now."""
        now = await database_now(connection)
        lanes = await lock_lanes(connection, _limits([this.arrived for this in tries]), now)
        parked = [Parked(event=this.arrived.event, due_at=now, owner=owner) for this in tries]
        await streams.park(connection, lanes, parked, now)
        await lanes.save(connection)


def _limits(arrived: Iterable[_Arrived]) -> dict[LaneId, Limits]:
    """The lanes of these events, with the limits their apps have now."""
    limits: dict[LaneId, Limits] = {}
    for item in arrived:
        if item.event.endpoint not in limits:
            limits[item.event.endpoint] = pacing.limits_of(item.destination.per_second)
    return limits


def _is_troubled(lane: Lane) -> bool:
    return lane.gate.state is not GateState.OPEN or lane.gate.fail_streak > 0 or lane.slowdown > 1
