"""From the tables: tries what is due, endpoint by endpoint, as fast as each one's lane allows (DESIGN 6, 7).

Several processes drain the same lanes: each claim is made under the lane's lock, and every head it takes is leased.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from switchboard.callbacks.bodies import EndpointSuspension, body
from switchboard.callbacks.compact import timestamp
from switchboard.callbacks.endpoint import lane_of as endpoint_of
from switchboard.callbacks.schedule import Head, is_over
from switchboard.crash import crash_point
from switchboard.ids import CallbackId, LaneId, derive, derive_at
from switchboard.lanes.lane import Limits
from switchboard.lanes.locked import LockedLanes, lane_of, lock_lanes
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool, database_now
from switchboard.trigger import Trigger
from switchboard_callback_delivery import pacing
from switchboard_callback_delivery.destination import Apps, destination_of
from switchboard_callback_delivery.event import Event, Outcome
from switchboard_callback_delivery.flight import Flights, Turn
from switchboard_callback_delivery.posting import Poster
from switchboard_callback_delivery.recorder import Recorder
from switchboard_callback_delivery.store import endpoints, streams
from switchboard_callback_delivery.store.events import Parked, purge_bodies
from switchboard_callback_delivery.store.health import Suspended, listeners, suspend
from switchboard_callback_delivery.store.streams import Claimed

log = structlog.get_logger()

_LANES: Final = 100
#: While something is due: slots are granted 100 ms ahead, so a lane is visited twice in that time.
_BUSY_SECONDS: Final = 0.05
_HOUSEKEEPING_SECONDS: Final = 5.0
_AWAY_SECONDS: Final = 0.5
#: Of so many looks of an idle drainer one looks for what expires.
_LATE_EVERY: Final = 4
_PIECE: Final = 500
#: The rate of an endpoint whose first callback ever is a notice; its own counts from its next one.
_NOTICES_PER_SECOND: Final = 100.0


class _Due(Struct, frozen=True):
    claimed: tuple[Claimed, ...]
    now: datetime
    #: Lanes were left out of this look: the next one goes on after the last.
    more: bool
    any_lane: bool


class Drainer:
    """Tries events that had to wait."""

    def __init__(
        self,
        *,
        pool: Pool,
        apps: Apps,
        poster: Poster,
        recorder: Recorder,
        flights: Flights,
        owner: str,
        slots: int,
        idle_seconds: float = 0.25,
        suspend_after: timedelta = timedelta(hours=12),
        housekeeping_seconds: float = _HOUSEKEEPING_SECONDS,
    ) -> None:
        """`slots` bounds the tries under way in `flights`; `idle_seconds` is the pause while nothing is due.

        An endpoint that took nothing for `suspend_after` is suspended.
        """
        self._suspend_after = suspend_after
        self._pool = pool
        self._apps = apps
        self._poster = poster
        self._recorder = recorder
        self._flights = flights
        self._owner = owner
        self._slots = slots
        self._idle_seconds = idle_seconds
        self._housekeeping_seconds = housekeeping_seconds
        self._wake = asyncio.Event()
        self._stopping = False
        self._after = ""
        self._late_at = 0.0
        self._with_late = True
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look."""
        self._tasks = [asyncio.create_task(self._drain()), asyncio.create_task(self._keep_house())]

    def wake(self) -> None:
        """Look now: something may be due."""
        self._wake.set()

    async def stop(self) -> None:
        """Claim nothing more. Tries under way are the flights' business."""
        self._stopping = True
        self._wake.set()
        drain, keep_house = self._tasks
        keep_house.cancel()
        # Not cancelled: what it is just claiming would have a lease and nobody to try it.
        await asyncio.gather(drain, keep_house, return_exceptions=True)

    async def _drain(self) -> None:
        while not self._stopping:
            pause_seconds = self._idle_seconds
            try:
                due = await self._claim()
                for claimed in due.claimed:
                    self._flights.begin(claimed.event.endpoint, partial(self._try, claimed, due.now))
                if due.more:
                    continue
                if due.any_lane:
                    pause_seconds = _BUSY_SECONDS
            except TRANSIENT_ERRORS as error:
                log.warning("nothing can be claimed yet", error=type(error).__name__)
                pause_seconds = _AWAY_SECONDS
            except Exception as error:  # noqa: BLE001  # what waits must not wait for ever because of one bad row
                log.error("claiming failed", error=type(error).__name__)
                pause_seconds = _AWAY_SECONDS
            if len(self._flights) >= self._slots:
                await self._flights.fewer()
            await self._pause(pause_seconds)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _claim(self) -> _Due:
        async with self._pool.acquire() as connection, connection.transaction():
            now = await database_now(connection)
            rows = await endpoints.busy_lanes(connection, self._after, now, _LANES, with_late=self._looks_for_late())
            lanes = LockedLanes((lane_of(row) for row in rows), now)
            for row in rows:
                if row["recovered_at"] is not None:
                    await streams.bring_forward(connection, row["id"], row["recovered_at"], now)
            free = self._slots - len(self._flights)
            late = self._share(lanes, [row["id"] for row in rows if row["late"]], free, now, late=True)
            claimed = await self._take(connection, lanes, late, now, expired=True)
            waiting = [row["id"] for row in rows if row["due"] or row["recovered_at"] is not None]
            due = self._share(lanes, waiting, free - len(claimed), now, late=False)
            claimed += await self._take(connection, lanes, due, now, expired=False)
            await lanes.save(connection)
        self._after = rows[-1]["id"] if len(rows) == _LANES else ""
        return _Due(tuple(claimed), now, more=bool(self._after) and bool(claimed), any_lane=bool(rows))

    def _looks_for_late(self) -> bool:
        """What expires is looked for seldom, and then in every lane: it can wait a moment, and hardly ever is there."""
        moment = time.monotonic()
        if not self._after:
            self._with_late = moment >= self._late_at
            if self._with_late:
                self._late_at = moment + _LATE_EVERY * self._idle_seconds
        return self._with_late

    def _share(
        self, lanes: LockedLanes, ids: Sequence[LaneId], free: int, now: datetime, *, late: bool
    ) -> dict[LaneId, int]:
        """Divide free slots among lanes, in turn from where the last look ended."""
        shares: dict[LaneId, int] = {}
        for lane_id in ids:
            allowed = pacing.allowed_late(lanes, lane_id, now) if late else pacing.allowed(lanes, lane_id, now)
            heads = min(allowed, self._flights.room(lane_id), free)
            if heads > 0:
                shares[lane_id] = heads
                free -= heads
        return shares

    async def _take(
        self, connection: Connection, lanes: LockedLanes, shares: dict[LaneId, int], now: datetime, *, expired: bool
    ) -> list[Claimed]:
        if not shares:
            return []
        claimed = await streams.claim(connection, self._owner, shares, now, expired=expired)
        for lane_id in shares:
            tries = sum(1 for one in claimed if one.event.endpoint == lane_id and not _is_over(one, now))
            pacing.begin(lanes, lane_id, tries, now)
        return claimed

    async def _try(self, claimed: Claimed, now: datetime, turn: Turn) -> None:
        event, lease = claimed.event, claimed.lease
        try:
            destination = None if claimed.is_finished else await destination_of(self._apps, event)
            if destination is None:
                await self._recorder.record(Outcome(event=event, lease=lease, dismissed=True))
            elif _is_over(claimed, now):
                await self._recorder.record(
                    Outcome(
                        event=event,
                        lease=lease,
                        kept_seconds=destination.kept_seconds,
                        per_second=destination.per_second,
                    )
                )
            else:
                started_at = datetime.now(UTC)
                outcome = await self._poster.post(event, destination, lease)
                turn.answered()
                crash_point("delivery.after_post")
                await self._recorder.record(replace(outcome, started_at=started_at))
        except Exception as error:  # noqa: BLE001  # its lease runs out, and it is tried again
            log.error("a callback's try is lost", callback_id=event.id, error=type(error).__name__)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(self._housekeeping_seconds)
            try:
                await self.pass_stuck_heads()
                await self.purge_bodies()
                await self._recorder.save_tallies()
                await self.suspend()
            except TRANSIENT_ERRORS as error:
                log.warning("housekeeping waits", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001  # the next round may do better
                log.error("housekeeping failed", error=type(error).__name__)

    async def pass_stuck_heads(self) -> int:
        """Let followers pass heads that were refused for long while their endpoints took others. Returns how many."""
        async with self._pool.acquire() as connection, connection.transaction():
            now = await database_now(connection)
            found = await streams.stuck(connection, now, _PIECE)
            if not found:
                return 0
            await lock_lanes(connection, {lease.endpoint: None for lease in found}, now)
            held = await streams.ours(connection, found)
            await streams.pass_heads(connection, held, now)
        self.wake()
        return len(held)

    async def suspend(self) -> int:
        """Suspend endpoints that took nothing for long, and tell whoever asked for it. Returns how many."""
        async with self._pool.acquire() as connection, connection.transaction():
            now = await database_now(connection)
            dead = await suspend(connection, now - self._suspend_after, now, _LANES)
            notices = [notice for one in dead for notice in await self._notices(connection, one, now)]
            rates: dict[LaneId, Limits | None] = {
                item.event.endpoint: pacing.limits_of(_NOTICES_PER_SECOND) for item in notices
            }
            known = {row["id"] for row in await endpoints.known_lanes(connection, list(rates))}
            lanes = await lock_lanes(
                connection, {lane: None if lane in known else rate for lane, rate in rates.items()}, now
            )
            await streams.park(connection, lanes, notices, now)
            await lanes.save(connection)
        for one in dead:
            log.warning("endpoint_suspended", endpoint=one.endpoint, app_id=one.app_id, waiting=one.waiting)
        if notices:
            self.wake()
        return len(dead)

    async def _notices(self, connection: Connection, dead: Suspended, now: datetime) -> list[Parked]:
        """The callbacks that tell of a suspension: to others than the dead one itself."""
        found = await listeners(connection, dead.project_id, Trigger.ENDPOINT_SUSPENDED)
        told = EndpointSuspension(
            app_id=dead.app_id,
            webhook_id=dead.webhook_id,
            endpoint=dead.endpoint.removeprefix("endpoint:"),
            failing_since=timestamp(dead.failing_since),
            waiting=dead.waiting,
            last_status=dead.last_status,
            last_error=dead.last_error,
        )
        near = derive_at(dead.failing_since, dead.endpoint)
        return [
            Parked(
                event=Event(
                    id=CallbackId(derive(near, webhook_id)),
                    project_id=dead.project_id,
                    app_id=app_id,
                    endpoint=endpoint_of(app_id, webhook_id, ""),
                    webhook_id=webhook_id,
                    target="",
                    trigger=Trigger.ENDPOINT_SUSPENDED,
                    stream=near,
                    sequence=1,
                    event_at=now,
                    body=body(
                        Trigger.ENDPOINT_SUSPENDED,
                        told,
                        app_id=app_id,
                        project_id=dead.project_id,
                        accepted_at=now,
                        event_at=now,
                    ),
                ),
                due_at=now,
            )
            for webhook_id, app_id in found
            if webhook_id != dead.webhook_id
        ]

    async def purge_bodies(self) -> None:
        """Forget the bodies whose time is up."""
        while True:
            async with self._pool.acquire() as connection:
                now = await database_now(connection)
                if await purge_bodies(connection, now, _PIECE) < _PIECE:
                    return


def _is_over(claimed: Claimed, now: datetime) -> bool:
    event = claimed.event
    return event.expires_at is not None and is_over(Head(event.expires_at, event.attempts), now)
