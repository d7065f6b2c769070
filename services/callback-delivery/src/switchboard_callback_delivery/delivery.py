"""From the topic: each event is dropped if it is known, parked if it must wait, else tried at once (DESIGN 7).

A record is finished when its event's outcome is committed, or its parking, or a lease on it: the last is written once
a try takes over a second, so that hung endpoints hold no slots and no partition.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from switchboard.bus import Permanent, Record, Slots
from switchboard.crash import crash_point
from switchboard.ids import CallbackId, LaneId
from switchboard.lanes.gate import GateState
from switchboard.lanes.lane import Lane, Limits
from switchboard.store.pool import TRANSIENT_ERRORS, Pool
from switchboard.topics import CALLBACKS, BrokenRecord, UnknownRecord
from switchboard_callback_delivery import pacing, store
from switchboard_callback_delivery.destination import Apps, Destination, destination_of
from switchboard_callback_delivery.event import Event, Lease, Outcome, event_of
from switchboard_callback_delivery.flight import Flights
from switchboard_callback_delivery.metrics import DeliveryMetrics
from switchboard_callback_delivery.posting import Poster
from switchboard_callback_delivery.recorder import Recorder
from switchboard_callback_delivery.store import Parked

log = structlog.get_logger()

#: A try that takes longer gets a lease, and its record is finished.
SLOW_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.25
#: Slow tries at once. Beyond them a slow one keeps its slot.
_SLOW_MOST: Final = 1024


class _Arrived(Struct):
    record: Record
    event: Event
    destination: Destination


class _Try(Struct):
    """One try of an event from the topic."""

    arrived: _Arrived
    slots: Slots
    started: float
    troubled: bool
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
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch for slow tries."""
        self._watch = asyncio.create_task(self._watch_slow())

    async def stop(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def __call__(self, records: Sequence[Record], slots: Slots, /) -> None:
        """Begin the records. Raises what the database raises; then none of them was begun."""
        arrived: list[_Arrived] = []
        for record in records:
            try:
                event = event_of(CALLBACKS.decode(record.value, record.headers))
            except (BrokenRecord, UnknownRecord) as error:
                slots.fail(record, error)
                continue
            except ValueError as error:
                slots.fail(record, Permanent(str(error)))
                continue
            destination = await destination_of(self._apps, event)
            if destination is None:
                self._flights.begin(event.endpoint, self._dismiss(record, event, slots))
            else:
                arrived.append(_Arrived(record, event, destination))
        if arrived:
            await self._admit(arrived, slots)

    async def _admit(self, arrived: Sequence[_Arrived], slots: Slots) -> None:
        granted: list[_Try] = []
        finished: list[Record] = []
        parked: list[Parked] = []
        started = time.monotonic()
        async with self._pool.acquire() as connection, connection.transaction():
            now = await store.database_now(connection)
            lanes = await store.lock(connection, _rates(arrived), now)
            standings = await store.standings(connection, [item.event for item in arrived])
            room: dict[LaneId, int] = {}
            for item, standing in zip(arrived, standings, strict=True):
                event = item.event
                left = room.setdefault(event.endpoint, self._flights.room(event.endpoint))
                if standing.known:
                    finished.append(item.record)
                    self._metrics.replayed.inc()
                elif standing.blocked or left <= 0 or not pacing.bypass(lanes, event.endpoint, now):
                    parked.append(Parked(event=event, due_at=now))
                    finished.append(item.record)
                else:
                    room[event.endpoint] = left - 1
                    granted.append(_Try(item, slots, started, _is_troubled(lanes[event.endpoint])))
            await store.park(connection, lanes, parked, now)
            await lanes.save(connection)
        for record in finished:
            slots.finish(record)
        for this in granted:
            self._tries[this.arrived.event.id] = this
            self._flights.begin(this.arrived.event.endpoint, self._try(this))
        if parked:
            self._metrics.parked.inc(len(parked))
            self._on_due()

    async def _try(self, this: _Try) -> None:
        arrived = this.arrived
        started_at = datetime.now(UTC)
        try:
            outcome = await self._poster.post(arrived.event, arrived.destination)
            this.posted = True
            crash_point("delivery.after_post")
            if this.leasing is not None:
                await this.leasing
            await self._recorder.record(
                replace(outcome, lease=this.lease, lane_is_troubled=this.troubled, started_at=started_at)
            )
            if not this.settled:
                this.slots.finish(arrived.record)
        except Exception as error:  # noqa: BLE001  # the policy of the bus decides what becomes of the record
            if not this.settled:
                this.slots.fail(arrived.record, error)
            else:
                log.error("a leased callback failed", callback_id=arrived.event.id, error=type(error).__name__)
        finally:
            self._tries.pop(arrived.event.id, None)
            if this.settled:
                self._leased -= 1

    async def _dismiss(self, record: Record, event: Event, slots: Slots) -> None:
        try:
            await self._recorder.record(Outcome(event=event, dismissed=True))
            slots.finish(record)
        except Exception as error:  # noqa: BLE001  # the policy of the bus decides what becomes of the record
            slots.fail(record, error)

    async def _watch_slow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            since = time.monotonic() - self._slow_seconds
            slow = [
                this
                for this in self._tries.values()
                if this.started <= since and not this.posted and this.leasing is None
            ][: max(0, _SLOW_MOST - self._leased)]
            if slow:
                try:
                    await self._lease(slow)
                except TRANSIENT_ERRORS as error:
                    log.warning("slow callbacks keep their slots", callbacks=len(slow), error=type(error).__name__)

    async def _lease(self, slow: Sequence[_Try]) -> None:
        """Write a lease for each, so that their records may go."""
        loop = asyncio.get_running_loop()
        for this in slow:
            this.leasing = loop.create_future()
        leases: dict[CallbackId, Lease] = {}
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                now = await store.database_now(connection)
                lanes = await store.lock(connection, _rates([this.arrived for this in slow]), now)
                events = [this.arrived.event for this in slow]
                await store.park(
                    connection, lanes, [Parked(event=event, due_at=now, owner=self._owner) for event in events], now
                )
                found = await store.leases_of(connection, self._owner, events)
                await lanes.save(connection)
            leases = found
        finally:
            for this in slow:
                leasing, this.lease = this.leasing, leases.get(this.arrived.event.id)
                if this.lease is None:
                    this.leasing = None
                else:
                    this.settled = True
                    self._leased += 1
                    this.slots.finish(this.arrived.record)
                if leasing is not None:
                    leasing.set_result(None)


def _rates(arrived: Sequence[_Arrived]) -> dict[LaneId, Limits | None]:
    return {item.event.endpoint: pacing.limits_of(item.destination.per_second) for item in arrived}


def _is_troubled(lane: Lane) -> bool:
    return lane.gate.state is not GateState.OPEN or lane.gate.fail_streak > 0 or lane.slowdown > 1
