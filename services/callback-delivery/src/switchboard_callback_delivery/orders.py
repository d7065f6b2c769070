"""Carries out what owners order: resume, replay, dismiss, test (DESIGN 7).

Resuming and dismissing change rows, in one transaction with the order's own; the drainer does the rest. A replay is
one try of each callback besides its schedule: it changes no state and teaches no gate, but takes slots of its
endpoint's rate, and waits while the gate is closed.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

import asyncpg
import structlog
from msgspec import Struct
from msgspec.structs import replace

from switchboard.callbacks.bodies import WebhookTest, body
from switchboard.callbacks.schedule import Verdict
from switchboard.ids import AppId, CallbackId, LaneId, MessageId
from switchboard.lanes.gate import GateState
from switchboard.lanes.lane import Limits
from switchboard.lanes.locked import lock_lanes
from switchboard.store import timeline
from switchboard.store.callbacks import CallbackOrder, CallbackQuery, OrderKind, conditions_of, order_of
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool, database_now
from switchboard.timeline import Entry, Happening, Kind
from switchboard.trigger import Trigger
from switchboard_callback_delivery import pacing
from switchboard_callback_delivery.destination import Apps, Destination, destination_of, kept_seconds
from switchboard_callback_delivery.drainer import Drainer
from switchboard_callback_delivery.event import Event, Outcome
from switchboard_callback_delivery.happening import has_timeline, oldest_with_timeline
from switchboard_callback_delivery.posting import Poster
from switchboard_callback_delivery.store.events import event_of_row
from switchboard_callback_delivery.store.orders import dismiss, hurry, revive
from switchboard_callback_delivery.store.streams import LEASE_SECONDS

log = structlog.get_logger()

_IDLE_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 2.0
#: Callbacks that are resumed or dismissed in one transaction.
_PIECE: Final = 500
#: A replay's piece: what its rate gives in so long, and no more than so many.
_REPLAY_SECONDS: Final = 0.25
_REPLAY_MOST: Final = 50
#: A replay looks again after so long whether its endpoint's gate is open.
_GATE_WAIT: Final = timedelta(seconds=5)
_ROOM_WAIT: Final = timedelta(milliseconds=50)
#: Finished orders are kept so long.
_KEPT: Final = timedelta(days=5)
_PUT_OFF: Final = timedelta(minutes=1)
_FORGET_SECONDS: Final = 600.0
_DEFAULT_RATE: Final = 100.0


class _Leased(Struct, frozen=True):
    order: CallbackOrder
    token: int
    events: tuple[Event, ...]
    gone: int
    #: The last callback that was looked at; "" when there are no more.
    last_id: str


class Orders:
    """Takes up orders, one at a time; several processes share them."""

    def __init__(self, *, pool: Pool, apps: Apps, poster: Poster, drainer: Drainer, owner: str) -> None:
        self._pool = pool
        self._apps = apps
        self._poster = poster
        self._drainer = drainer
        self._owner = owner
        #: What is just carried out.
        self._order_id = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End now. A replay's piece under way is sent again by whoever takes it up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        forget_at = time.monotonic()
        while True:
            try:
                pause_seconds = 0.0 if await self.work_once() else _IDLE_SECONDS
                if time.monotonic() >= forget_at:
                    await self.forget_old()
                    forget_at = time.monotonic() + _FORGET_SECONDS
            except TRANSIENT_ERRORS as error:
                log.warning("orders wait", error=type(error).__name__)
                pause_seconds = _AWAY_SECONDS
            except Exception as error:  # noqa: BLE001  # the others are carried out
                log.error("an order failed", order=self._order_id, error=type(error).__name__)
                pause_seconds = _AWAY_SECONDS
                await self._put_off(self._order_id)
            await asyncio.sleep(pause_seconds)

    async def work_once(self) -> bool:
        """Carry out a piece of an order that is due. False if there is none."""
        leased = None
        self._order_id = ""
        async with self._pool.acquire() as connection, connection.transaction():
            now = await database_now(connection)
            row = await connection.fetchrow(_DUE, now)
            if row is None:
                return False
            order = order_of(row)
            self._order_id = order.id
            if order.kind in (OrderKind.RESUME, OrderKind.DISMISS):
                await self._change(connection, order, now)
            else:
                leased = await self._lease(connection, order, now)
        if leased is None:
            self._drainer.wake()
        else:
            await self._send(leased)
        return True

    async def _put_off(self, order_id: str) -> None:
        """Let others go before an order that cannot be carried out."""
        with suppress(*TRANSIENT_ERRORS):
            await self._pool.execute(
                "UPDATE switchboard.callback_orders SET due_at = switchboard.now() + $2::interval, lease_until = NULL,"
                " last_error = 'an internal error occurred' WHERE id = $1",
                order_id,
                _PUT_OFF,
            )

    async def forget_old(self) -> None:
        """Delete what was finished long ago: orders, and counts by the hour."""
        await self._pool.execute(
            "WITH old AS (DELETE FROM switchboard.callback_tallies WHERE hour < switchboard.now() - $1::interval)"
            " DELETE FROM switchboard.callback_orders WHERE finished_at < switchboard.now() - $1::interval",
            _KEPT,
        )

    async def _change(self, connection: Connection, order: CallbackOrder, now: datetime) -> None:
        """Resume or dismiss a piece."""
        chosen = await _choose(connection, order, _PIECE)
        app = await self._apps.app(AppId(order.app_id))
        limits = pacing.limits_of(float(app.rate_limits.webhooks) if app else _DEFAULT_RATE)
        rates: dict[LaneId, Limits | None] = {row["endpoint"]: limits for row in chosen}
        lanes = await lock_lanes(connection, rates, now)
        ids = [row["id"] for row in chosen]
        if order.kind is OrderKind.DISMISS:
            done, gone = await dismiss(connection, lanes, ids, kept_seconds(app) if app else None, now), 0
        else:
            await hurry(connection, ids, now)
            revived = set(await revive(connection, lanes, ids, now))
            gone = sum(1 for row in chosen if row["state"] != "waiting" and row["id"] not in revived)
            done = len(chosen) - gone
            for lane in rates:
                pacing.hurry_probe(lanes, lane, now)
        await lanes.save(connection)
        await _progress(connection, order, 0, _last(chosen), now, done=done, gone=gone, is_over=len(chosen) < _PIECE)

    async def _lease(self, connection: Connection, order: CallbackOrder, now: datetime) -> _Leased | None:
        """Take the next piece of a replay, or a test; None if it has to wait, or is over."""
        if order.kind is OrderKind.TEST:
            return await self._leased(connection, order, [_test(order, now)], 0, "")
        most = max(1, min(_REPLAY_MOST, int(order.per_second * _REPLAY_SECONDS)))
        chosen = await _choose(connection, order, most)
        events = [event_of_row(row) for row in chosen if row["body"] is not None]
        if not order.target:
            wait = await self._take_slots(connection, events, now)
            if wait:
                await connection.execute(
                    "UPDATE switchboard.callback_orders SET state = 'running', due_at = $2 WHERE id = $1",
                    order.id,
                    now + wait,
                )
                return None
        last_id = _last(chosen) if len(chosen) >= most else ""
        return await self._leased(connection, order, events, len(chosen) - len(events), last_id)

    async def _take_slots(self, connection: Connection, events: Sequence[Event], now: datetime) -> timedelta | None:
        """Take slots for all of them, or say how long to wait."""
        limits: dict[LaneId, Limits | None] = dict.fromkeys(event.endpoint for event in events)
        lanes = await lock_lanes(connection, limits, now)
        for lane_id in limits:
            if lane_id not in lanes:
                continue
            if lanes[lane_id].gate.state is not GateState.OPEN:
                return _GATE_WAIT
            if pacing.allowed(lanes, lane_id, now) < 1:
                return _ROOM_WAIT
        for event in events:
            if event.endpoint in lanes:
                pacing.begin(lanes, event.endpoint, 1, now)
        await lanes.save(connection)
        return None

    async def _leased(
        self, connection: Connection, order: CallbackOrder, events: Sequence[Event], gone: int, last_id: str
    ) -> _Leased:
        token: int = await connection.fetchval(
            "UPDATE switchboard.callback_orders SET state = 'running', owner = $2, lease_until ="
            " switchboard.lease_end($3), token = nextval('switchboard.callback_tokens') WHERE id = $1 RETURNING token",
            order.id,
            self._owner,
            LEASE_SECONDS,
        )
        return _Leased(order, token, tuple(events), gone, last_id)

    async def _send(self, leased: _Leased) -> None:
        """Try each once, those of one stream in order, and write how it went."""
        order = leased.order
        ordered = sorted(leased.events, key=lambda event: (event.endpoint, event.stream, event.sequence))
        lines = [list(events) for _, events in groupby(ordered, lambda event: (event.endpoint, event.stream))]
        results = await asyncio.gather(*(self._send_line(order, line) for line in lines))
        outcomes = [outcome for line in results for outcome in line]
        untaken = [outcome for outcome in outcomes if outcome.verdict is not Verdict.TAKEN]
        async with self._pool.acquire() as connection, connection.transaction():
            now = await database_now(connection)
            is_ours = await _progress(
                connection,
                order,
                leased.token,
                leased.last_id,
                now,
                done=len(outcomes) - len(untaken),
                failed=len(untaken),
                gone=leased.gone,
                is_over=not leased.last_id,
                due_at=now + timedelta(seconds=len(outcomes) / order.per_second),
                last=untaken[-1] if untaken else None,
            )
            if is_ours and order.kind is OrderKind.REPLAY:
                await timeline.write(connection, _happenings(order, outcomes, now))

    async def _send_line(self, order: CallbackOrder, events: Sequence[Event]) -> list[Outcome]:
        outcomes = []
        for event in events:
            destination = await self._destination(order, event)
            if destination is None:
                outcomes.append(Outcome(event=event, verdict=Verdict.FAILED, error="its webhook is gone"))
                continue
            started_at = datetime.now(UTC)
            outcome = await self._poster.post(event, destination, is_replay=order.kind is OrderKind.REPLAY)
            outcomes.append(replace(outcome, started_at=started_at))
        return outcomes

    async def _destination(self, order: CallbackOrder, event: Event) -> Destination | None:
        found = await destination_of(self._apps, event)
        if not order.target:
            return found
        if found is None:
            return Destination(order.target, (), None, order.per_second, None)
        # A token for the webhook is not for anybody else.
        return replace(found, url=order.target, credentials=None)


async def _choose(connection: Connection, order: CallbackOrder, limit: int) -> list[asyncpg.Record]:
    """The next callbacks of an order: about `limit`, and all of one millisecond together, so that a message's are."""
    if order.callback_ids:
        conditions = ["id = ANY ($1::text[])", "app_id = $2", "state = ANY ($3::text[])"]
        values: list[object] = [list(order.callback_ids), order.app_id, [state.value for state in order.states]]
    else:
        conditions, values = conditions_of(
            CallbackQuery(
                project_id=order.project_id,
                app_id=order.app_id,
                webhook_id=order.webhook_id,
                states=order.states,
                from_at=order.from_at,
                until_at=order.until_at,
            )
        )
    values += [order.after_id, limit]
    where = f"{' AND '.join(conditions)} AND id > ${len(values) - 1}"
    rows: list[asyncpg.Record] = await connection.fetch(
        f"WITH next AS (SELECT id FROM switchboard.callback_events WHERE {where} ORDER BY id LIMIT ${len(values)})"
        f" SELECT * FROM switchboard.callback_events WHERE {where}"
        " AND id <= (SELECT left(max(id), 10) || repeat('Z', 16) FROM next) ORDER BY id",
        *values,
    )
    return rows


def _last(chosen: Sequence[asyncpg.Record]) -> str:
    return str(chosen[-1]["id"]) if chosen else ""


async def _progress(
    connection: Connection,
    order: CallbackOrder,
    token: int,
    last_id: str,
    now: datetime,
    *,
    done: int,
    failed: int = 0,
    gone: int = 0,
    is_over: bool,
    due_at: datetime | None = None,
    last: Outcome | None = None,
) -> bool:
    """Write how far an order is. False if another process has it now, or it was cancelled."""
    mine = await connection.fetchval(
        "UPDATE switchboard.callback_orders SET done = done + $3, failed = failed + $4, gone = gone + $5,"
        " after_id = CASE WHEN $6 = '' THEN after_id ELSE $6 END, due_at = $7,"
        " last_status = coalesce($8, last_status), last_error = coalesce($9, last_error),"
        " last_answer = coalesce($10, last_answer), owner = NULL, lease_until = NULL,"
        " state = CASE WHEN finished_at IS NOT NULL THEN state WHEN $11 THEN 'finished' ELSE 'running' END,"
        " finished_at = CASE WHEN finished_at IS NULL AND $11 THEN $12 ELSE finished_at END"
        " WHERE id = $1 AND ($2 = 0 OR token = $2) RETURNING 1",
        order.id,
        token,
        done,
        failed,
        gone,
        last_id,
        due_at or now,
        last.status if last else None,
        last.error if last else None,
        last.answer if last else None,
        is_over,
        now,
    )
    return mine is not None


def _test(order: CallbackOrder, now: datetime) -> Event:
    return Event(
        id=CallbackId(order.id),
        project_id=order.project_id,
        app_id=AppId(order.app_id),
        endpoint=LaneId(f"endpoint:{order.webhook_id}"),
        webhook_id=order.webhook_id,
        target="",
        trigger=Trigger.WEBHOOK_TEST,
        stream=order.id,
        sequence=1,
        event_at=now,
        body=body(
            Trigger.WEBHOOK_TEST,
            WebhookTest(webhook_id=order.webhook_id),
            app_id=order.app_id,
            project_id=order.project_id,
            accepted_at=order.requested_at or now,
            event_at=now,
        ),
    )


def _happenings(order: CallbackOrder, outcomes: Sequence[Outcome], now: datetime) -> list[Happening]:
    oldest = oldest_with_timeline(now)
    return [
        Happening(
            message_id=MessageId(outcome.event.stream),
            at=now,
            kind=Kind.CALLBACK,
            cause=f"callback:{outcome.event.id}:replay:{order.id}",
            entry=Entry(
                note=f"{outcome.event.trigger} replay {outcome.verdict}",
                callback_id=outcome.event.id,
                endpoint=outcome.event.endpoint,
                try_number=outcome.event.earlier_attempts + outcome.event.attempts + 1,
                http_status=outcome.status,
                started_at=outcome.started_at,
            ),
        )
        for outcome in outcomes
        if has_timeline(outcome.event, oldest)
    ]


_DUE: Final = (
    "SELECT * FROM switchboard.callback_orders WHERE finished_at IS NULL AND due_at <= $1"
    " AND (lease_until IS NULL OR lease_until <= $1) ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED"
)
