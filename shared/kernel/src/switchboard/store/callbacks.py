"""What owners see of their callbacks and endpoints, and the orders they give (DESIGN 7).

An order is a row. callback-delivery carries it out with the same rows, leases and sender as everything else, and
writes into the row how far it is: nothing here posts, and nothing here touches a lane or a stream.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import asyncpg
from msgspec import Struct

from switchboard.callbacks.schedule import LIFETIME
from switchboard.ids import lowest_at, mint
from switchboard.store.pool import Pool

#: What a replay sends a second if nobody says otherwise.
REPLAY_PER_SECOND: Final = 20.0
MOST_PER_SECOND: Final = 1000.0
#: Success rates look back so far.
RATE_WINDOW: Final = timedelta(hours=24)
#: A callback's id has the time of its message, which may be older than what happened to it by this.
_OLDEST_MESSAGE: Final = timedelta(days=5)
_LAST_OF_A_MILLISECOND: Final = "Z" * 16


class CallbackState(StrEnum):
    """Where a callback is."""

    #: Not delivered yet; its next try is planned.
    WAITING = "waiting"
    #: The endpoint took it.
    DELIVERED = "delivered"
    #: Its 24 hours are up.
    EXPIRED = "expired"
    #: An answer ended it that the webhook wants to be final.
    ENDED = "ended"
    #: Its owner gave it up, or its webhook is gone.
    DISMISSED = "dismissed"


#: Finished, and not delivered.
LOST: Final = (CallbackState.EXPIRED, CallbackState.ENDED, CallbackState.DISMISSED)


class EndpointState(StrEnum):
    """How an endpoint is."""

    WORKING = "working"
    #: The last tries failed, but its gate is open.
    FAILING = "failing"
    #: Its gate is closed: only probes go there.
    DOWN = "down"
    #: Down for long: probed by the hour.
    SUSPENDED = "suspended"
    #: An operator paused its lane.
    PAUSED = "paused"


class EndpointHealth(Struct, frozen=True, kw_only=True):
    """An endpoint as its owner sees it."""

    endpoint: str
    #: "" for the URLs of messages, which are grouped by server.
    webhook_id: str
    state: EndpointState
    waiting: int
    #: Since when the oldest one waits.
    oldest_waiting_at: datetime | None
    lag_seconds: float
    next_try_at: datetime | None
    #: Share of the tries of 24 hours that were taken; absent without tries.
    success_rate: float | None
    taken: int
    failed: int
    last_taken_at: datetime | None
    failing_since: datetime | None
    suspended_at: datetime | None
    last_failed_at: datetime | None
    #: Of the last failure; 0: no answer.
    last_status: int | None
    last_error: str
    #: The first bytes of the last answer that was none of 2xx.
    last_answer: str


class Callback(Struct, frozen=True, kw_only=True):
    """A callback as its owner sees it."""

    id: str
    project_id: str
    app_id: str
    endpoint: str
    webhook_id: str
    #: The overriding URL, or "".
    target: str
    trigger: str
    #: The message, contact or conversation it is about.
    about: str
    sequence: int
    state: CallbackState
    #: Real tries, of all rounds.
    attempts: int
    event_time: datetime
    recorded_at: datetime
    expires_at: datetime
    first_failed_at: datetime | None
    last_tried_at: datetime | None
    last_status: int | None
    last_error: str
    last_answer: str
    finished_at: datetime | None
    #: Without content it cannot be sent again.
    has_content: bool


class CallbackQuery(Struct, frozen=True, kw_only=True):
    """Which callbacks are looked for; what is not said does not matter."""

    project_id: str
    app_id: str = ""
    webhook_id: str = ""
    message_id: str = ""
    states: tuple[CallbackState, ...] = ()
    #: When it happened, from and until.
    from_at: datetime | None = None
    until_at: datetime | None = None
    min_attempts: int = 0


class OrderKind(StrEnum):
    """What is ordered."""

    #: Finished ones back into their lines for another 24 hours, waiting ones at once.
    RESUME = "resume"
    #: One more try of each, marked as a replay, whatever state it is in.
    REPLAY = "replay"
    #: Waiting ones are given up.
    DISMISS = "dismiss"
    #: One callback without a meaning, to see whether a webhook works.
    TEST = "test"


class OrderState(StrEnum):
    """How far an order is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class CallbackOrder(Struct, frozen=True, kw_only=True):
    """What an owner wants done with callbacks."""

    id: str
    project_id: str
    app_id: str
    kind: OrderKind
    #: "": of all webhooks and of overriding URLs.
    webhook_id: str = ""
    #: Empty: those of the window.
    callback_ids: tuple[str, ...] = ()
    states: tuple[CallbackState, ...] = ()
    from_at: datetime | None = None
    until_at: datetime | None = None
    #: A replay's own URL, or "".
    target: str = ""
    per_second: float = REPLAY_PER_SECOND
    state: OrderState = OrderState.WAITING
    requested_at: datetime | None = None
    finished_at: datetime | None = None
    #: The last callback that was looked at.
    after_id: str = ""
    done: int = 0
    #: Replays and tests that were not taken.
    failed: int = 0
    #: Their content is not kept any more.
    gone: int = 0
    last_status: int | None = None
    last_error: str = ""
    last_answer: str = ""


class ContentGone(Exception):
    """A callback's body is not kept any more: it cannot be sent again."""


async def endpoints(pool: Pool, app_id: str) -> list[EndpointHealth]:
    """The endpoints of an app that were ever tried, worst first."""
    now: datetime = await pool.fetchval("SELECT switchboard.now()")
    rows = await pool.fetch(_ENDPOINTS, app_id, now - RATE_WINDOW)
    return [_health(row, now) for row in rows]


async def callback(pool: Pool, project_id: str, callback_id: str) -> Callback | None:
    """One callback of a project."""
    row = await pool.fetchrow(
        "SELECT * FROM switchboard.callback_events WHERE id = $1 AND project_id = $2", callback_id, project_id
    )
    return _callback(row) if row else None


async def callbacks(pool: Pool, query: CallbackQuery, *, after: str = "", limit: int = 100) -> list[Callback]:
    """Callbacks, those of the newest messages first. `after` is the last id of the page before."""
    conditions, values = conditions_of(query)
    if after:
        values.append(after)
        conditions.append(f"id < ${len(values)}")
    values.append(limit)
    rows = await pool.fetch(
        f"SELECT * FROM switchboard.callback_events WHERE {' AND '.join(conditions)}"
        f" ORDER BY id DESC LIMIT ${len(values)}",
        *values,
    )
    return [_callback(row) for row in rows]


def conditions_of(query: CallbackQuery) -> tuple[list[str], list[Any]]:
    """The conditions of a query in SQL, and the values of their parameters in order."""
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, value: object) -> None:
        values.append(value)
        conditions.append(condition.format(f"${len(values)}"))

    add("project_id = {}", query.project_id)
    if query.app_id:
        add("app_id = {}", query.app_id)
    if query.webhook_id:
        add("webhook_id = {}", query.webhook_id)
    if query.states:
        add("state = ANY ({}::text[])", [state.value for state in query.states])
    if query.min_attempts:
        add("earlier_attempts + attempts >= {}", query.min_attempts)
    if query.message_id:
        add("stream = {}", query.message_id)
        # Its callbacks' ids begin with its own millisecond: the primary key finds them.
        add("id >= {}", query.message_id[:10])
        add("id <= {}", query.message_id[:10] + _LAST_OF_A_MILLISECOND)
    if query.from_at:
        add("event_at >= {}", query.from_at)
        add("id >= {}", lowest_at(query.from_at - _OLDEST_MESSAGE))
    if query.until_at:
        add("event_at < {}", query.until_at)
    return conditions, values


async def place(pool: Pool, order: CallbackOrder) -> CallbackOrder:
    """Write an order; callback-delivery takes it up within a second. Its id and time are made here."""
    row = await pool.fetchrow(
        "INSERT INTO switchboard.callback_orders (id, project_id, app_id, kind, webhook_id, callback_ids, states,"
        " from_at, until_at, target, per_second, requested_at, state, due_at)"
        " SELECT $1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, moment), $10, $11, moment, 'waiting', moment"
        " FROM switchboard.now() AS moment RETURNING *",
        order.id or mint(),
        order.project_id,
        order.app_id,
        order.kind.value,
        order.webhook_id,
        list(order.callback_ids),
        [state.value for state in order.states],
        order.from_at,
        order.until_at,
        order.target,
        order.per_second,
    )
    assert row is not None
    return order_of(row)


async def redeliver(pool: Pool, found: Callback) -> CallbackOrder:
    """Order one callback again: as a replay if it was delivered, else for another 24 hours. Raises ContentGone."""
    if not found.has_content:
        raise ContentGone(f"the content of callback {found.id} is gone: its app keeps it no longer")
    return await place(
        pool,
        CallbackOrder(
            id=mint(),
            project_id=found.project_id,
            app_id=found.app_id,
            kind=OrderKind.REPLAY if found.state is CallbackState.DELIVERED else OrderKind.RESUME,
            callback_ids=(found.id,),
            states=tuple(CallbackState),
        ),
    )


async def dismiss_waiting(pool: Pool, project_id: str, app_id: str, webhook_id: str = "") -> CallbackOrder:
    """Order that what waits for a webhook, or for a whole app, be given up: nobody wants it any more."""
    wish = CallbackOrder(
        id=mint(),
        project_id=project_id,
        app_id=app_id,
        kind=OrderKind.DISMISS,
        webhook_id=webhook_id,
        states=(CallbackState.WAITING,),
    )
    return await place(pool, wish)


async def order(pool: Pool, project_id: str, order_id: str) -> CallbackOrder | None:
    """One order of a project."""
    row = await pool.fetchrow(
        "SELECT * FROM switchboard.callback_orders WHERE id = $1 AND project_id = $2", order_id, project_id
    )
    return order_of(row) if row else None


async def orders(pool: Pool, app_id: str, *, limit: int = 100) -> list[CallbackOrder]:
    """The orders of an app, newest first."""
    rows = await pool.fetch(
        "SELECT * FROM switchboard.callback_orders WHERE app_id = $1 ORDER BY id DESC LIMIT $2", app_id, limit
    )
    return [order_of(row) for row in rows]


async def cancel(pool: Pool, project_id: str, order_id: str) -> CallbackOrder | None:
    """Stop an order where it is. One that is finished stays so."""
    await pool.execute(
        "UPDATE switchboard.callback_orders SET state = 'cancelled', finished_at = switchboard.now()"
        " WHERE id = $1 AND project_id = $2 AND finished_at IS NULL",
        order_id,
        project_id,
    )
    return await order(pool, project_id, order_id)


def order_of(row: asyncpg.Record) -> CallbackOrder:
    """Read a row of `callback_orders`."""
    return CallbackOrder(
        id=row["id"],
        project_id=row["project_id"],
        app_id=row["app_id"],
        kind=OrderKind(row["kind"]),
        webhook_id=row["webhook_id"],
        callback_ids=tuple(row["callback_ids"]),
        states=tuple(map(CallbackState, row["states"])),
        from_at=row["from_at"],
        until_at=row["until_at"],
        target=row["target"],
        per_second=row["per_second"],
        state=OrderState(row["state"]),
        requested_at=row["requested_at"],
        finished_at=row["finished_at"],
        after_id=row["after_id"],
        done=row["done"],
        failed=row["failed"],
        gone=row["gone"],
        last_status=row["last_status"],
        last_error=row["last_error"] or "",
        last_answer=_text(row["last_answer"]),
    )


def _callback(row: asyncpg.Record) -> Callback:
    return Callback(
        id=row["id"],
        project_id=row["project_id"],
        app_id=row["app_id"],
        endpoint=row["endpoint"],
        webhook_id=row["webhook_id"],
        target=row["target"],
        trigger=row["trigger"],
        about=row["stream"],
        sequence=row["sequence"],
        state=CallbackState(row["state"]),
        attempts=row["earlier_attempts"] + row["attempts"],
        event_time=row["event_at"],
        recorded_at=row["recorded_at"],
        expires_at=row["expires_at"],
        first_failed_at=row["first_failed_at"],
        last_tried_at=row["last_tried_at"],
        last_status=row["last_status"],
        last_error=row["last_error"] or "",
        last_answer=_text(row["last_answer"]),
        finished_at=row["finished_at"],
        has_content=row["body"] is not None,
    )


def _health(row: asyncpg.Record, now: datetime) -> EndpointHealth:
    oldest = row["oldest_expires_at"] - LIFETIME if row["oldest_expires_at"] else None
    tries = row["taken"] + row["failed"]
    return EndpointHealth(
        endpoint=row["endpoint"],
        webhook_id=row["webhook_id"],
        state=_state(row),
        waiting=row["waiting"] or 0,
        oldest_waiting_at=oldest,
        lag_seconds=max(0.0, (now - oldest).total_seconds()) if oldest else 0.0,
        next_try_at=row["next_try_at"],
        success_rate=row["taken"] / tries if tries else None,
        taken=row["taken"],
        failed=row["failed"],
        last_taken_at=row["taken_at"],
        failing_since=row["failing_since"],
        suspended_at=row["suspended_at"],
        last_failed_at=row["last_failed_at"],
        last_status=row["last_status"],
        last_error=row["last_error"] or "",
        last_answer=_text(row["last_answer"]),
    )


def _state(row: asyncpg.Record) -> EndpointState:
    if row["gate"] == "paused":
        return EndpointState.PAUSED
    if row["gate"] == "closed":
        return EndpointState.SUSPENDED if row["suspended_at"] else EndpointState.DOWN
    return EndpointState.FAILING if row["failing_since"] else EndpointState.WORKING


def _text(answer: bytes | None) -> str:
    return (answer or b"").decode(errors="replace").replace("\x00", "\ufffd")


_ENDPOINTS: Final = """
SELECT endpoint.*, lane.waiting, lane.gate, head.oldest_expires_at,
    CASE WHEN lane.gate = 'closed' THEN greatest(head.due_at, lane.probe_at) ELSE head.due_at END AS next_try_at,
    coalesce(tally.taken, 0)::bigint AS taken, coalesce(tally.failed, 0)::bigint AS failed
FROM switchboard.callback_endpoints AS endpoint
LEFT JOIN switchboard.lanes AS lane ON lane.id = endpoint.endpoint
LEFT JOIN LATERAL (SELECT min(expires_at) AS oldest_expires_at, min(due_at) AS due_at
    FROM switchboard.callback_streams AS stream WHERE stream.endpoint = endpoint.endpoint) AS head ON true
LEFT JOIN LATERAL (SELECT sum(counted.taken) AS taken, sum(counted.failed) AS failed
    FROM switchboard.callback_tallies AS counted
    WHERE counted.endpoint = endpoint.endpoint AND counted.hour >= $2) AS tally ON true
WHERE endpoint.app_id = $1
ORDER BY lane.waiting DESC NULLS LAST, endpoint.endpoint LIMIT 1000
"""
