"""Sweeps: what must happen because time passed. They decide nothing about a message (DESIGN 5).

Any number of processes may run the same sweeps: rows are claimed with SKIP LOCKED or guarded by what they were, and
all times are the database's. Each sweep does one bounded piece of work per `run_once`. Rows that services own alone
(idempotency keys, receipts, inbound parts, callbacks' bodies) are aged by those services.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import asyncpg
import structlog
from msgspec import Struct
from prometheus_client import Counter

from switchboard.ids import MessageId, lowest_at
from switchboard.records import TimerFired
from switchboard.store.migrate import DAYS_AHEAD, DAYS_BACK
from switchboard.store.pool import Connection, Pool, database_now

#: How long a told timer has to lead to something before it is told again (DESIGN 5).
TELL_AGAIN: Final = timedelta(seconds=60)
#: How long another process leaves timers alone that this one is about to tell.
CLAIM: Final = timedelta(seconds=5)
#: Envelopes of final messages: the longest receipt horizon of a channel.
HORIZON: Final = timedelta(hours=72)
BATCH: Final = 500
_LOCK_TIMEOUT: Final = "1s"
_BACK_OFF_SECONDS: Final = 1.0
_DAYS_LOCK: Final = 0x5157_1702

_told = Counter("switchboard_sweep_timers", "Deadlines of messages that were told.")
_purged = Counter("switchboard_sweep_purged", "Contents and envelopes that were purged.", ["what"])
_days_dropped = Counter("switchboard_sweep_days_dropped", "Daily partitions that were dropped.")
log = structlog.get_logger()

#: Publishes records to `attempts`, and returns when all are acknowledged.
TellTimers = Callable[[Sequence[TimerFired]], Awaitable[None]]
#: A moment before which the offset of every handled record is committed, on the database's clock. None: not known.
Settled = Callable[[], Awaitable[datetime | None]]


class Sweep(Protocol):
    """One kind of work that comes due."""

    #: How long to wait after a run that found nothing more to do.
    every_seconds: float

    async def run_once(self) -> bool:
        """Do one bounded piece. Returns whether there is probably more to do at once."""
        ...


class DueSweep:
    """Tells deadlines of messages that passed: one TimerFired each, decided by the router's handler.

    After the acknowledgement an unchanged `next_due` moves 60 s on. A process that dies before leaves it due again.
    """

    every_seconds = 0.2

    def __init__(self, pool: Pool, tell: TellTimers, *, batch: int = BATCH) -> None:
        self._pool = pool
        self._tell = tell
        self._batch = batch

    async def run_once(self) -> bool:
        """Tell up to a batch of deadlines."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_CLAIM_DUE, self._batch, CLAIM)
        if not rows:
            return False
        await self._tell([TimerFired(MessageId(row["id"]), row["due_at"]) for row in rows])
        _told.inc(len(rows))
        async with self._pool.acquire() as connection:
            await connection.execute(
                _MOVE_ON, [row["id"] for row in rows], [row["claimed_to"] for row in rows], TELL_AGAIN
            )
        return len(rows) == self._batch


#: Never waits for a handler: what is locked is being decided about. `claimed_to` is this claim's own mark.
_CLAIM_DUE: Final = """
WITH due AS (
    SELECT id, next_due, moment.now + $2::interval * clock.scale AS claimed_to
    FROM switchboard.clock AS clock CROSS JOIN LATERAL (SELECT switchboard.now() AS now OFFSET 0) AS moment
    CROSS JOIN LATERAL (
        SELECT id, next_due FROM switchboard.messages WHERE NOT final AND next_due <= moment.now
        ORDER BY next_due LIMIT $1 FOR UPDATE SKIP LOCKED
    ) AS message
)
UPDATE switchboard.messages AS message SET next_due = due.claimed_to FROM due WHERE message.id = due.id
RETURNING message.id, due.next_due AS due_at, due.claimed_to
"""
_MOVE_ON: Final = """
WITH unchanged AS (
    SELECT message.id FROM switchboard.messages AS message
    JOIN unnest($1::text[], $2::timestamptz[]) AS told (id, claimed_to) ON message.id = told.id
    WHERE message.next_due = told.claimed_to ORDER BY message.id FOR UPDATE OF message SKIP LOCKED
)
UPDATE switchboard.messages AS message SET next_due = switchboard.now() + $3::interval
FROM unchanged WHERE message.id = unchanged.id AND NOT message.final
"""


class BodySweep:
    """Purges contents whose retention has ended, of final messages only; then envelopes no report needs any more.

    Where nothing is retained a content goes as soon as the message is final *and* the offset that made it final is
    committed: until then a replay of that record still needs it.
    """

    every_seconds = 1.0

    def __init__(self, pool: Pool, settled: Settled, *, horizon: timedelta = HORIZON, batch: int = BATCH) -> None:
        """`horizon` is the longest receipt horizon among the channels."""
        self._pool = pool
        self._settled = settled
        self._horizon = horizon
        self._batch = batch

    async def run_once(self) -> bool:
        """Purge up to a batch of each."""
        async with self._pool.acquire() as connection:
            retains_nothing = await connection.fetchval(_SOME_RETAIN_NOTHING)
        # Asking Kafka costs as much as a few messages: only where it matters.
        settled = await self._settled() if retains_nothing else None
        async with self._pool.acquire() as connection:
            bodies = await self._purge(
                connection,
                "body",
                "message.final AND message.body IS NOT NULL"
                " AND COALESCE(message.body_until, message.final_at) <= switchboard.now()"
                " AND (message.body_until IS NOT NULL OR message.final_at < $1)"
                " ORDER BY COALESCE(message.body_until, message.final_at)",
                settled,
            )
            envelopes = await self._purge(
                connection,
                "envelope",
                "message.final AND message.body IS NULL AND message.envelope IS NOT NULL"
                " AND message.final_at <= $1 ORDER BY message.final_at",
                await database_now(connection) - self._horizon,
            )
        return self._batch in (bodies, envelopes)

    async def _purge(self, connection: Connection, what: str, due: str, moment: datetime | None) -> int:
        status = await connection.execute(
            f"WITH due AS MATERIALIZED (SELECT message.id FROM switchboard.messages AS message WHERE {due}"
            f" LIMIT {self._batch} FOR UPDATE SKIP LOCKED)"
            f" UPDATE switchboard.messages AS message SET {what} = NULL FROM due WHERE message.id = due.id",
            moment,
        )
        purged = _count(status)
        _purged.labels(what).inc(purged)
        return purged


#: Final messages of apps that keep nothing, whose contents are still there.
_SOME_RETAIN_NOTHING: Final = """
SELECT EXISTS (
    SELECT FROM switchboard.messages
    WHERE final AND body IS NOT NULL AND COALESCE(body_until, final_at) <= switchboard.now() AND body_until IS NULL
)
"""


class _Holder(Struct, frozen=True):
    """Rows that keep a day: while the condition holds for one of them, the day's tables stay."""

    table: str
    condition: str


_OPEN: Final = _Holder("messages", "NOT final")
_KEPT: Final = _Holder("messages", "NOT final OR body IS NOT NULL")
#: What keeps a day's partition, by its parent. A parent that is not named is kept as long as the day's messages.
_HOLDERS: Final[Mapping[str, _Holder]] = {
    "attempts": _OPEN,
    "provider_ids": _OPEN,
    "events": _Holder("events", "state <> 'final' OR body IS NOT NULL"),
    "callback_events": _Holder("callback_events", "state = 'waiting' OR body IS NOT NULL"),
}
#: Dropped last: the others ask it.
_LAST: Final = "messages"


class DaySweep:
    """Makes the partitions of the coming days and drops those of days nobody needs any more.

    A day older than `DAYS_BACK` goes once all its messages are final and their contents purged. While some of them
    are retained for longer, the rows of the others are deleted; so are callbacks about messages that had no day any
    more when they were told of, `DAYS_BACK` after they ended.
    """

    every_seconds = 600.0

    def __init__(self, pool: Pool, *, batch: int = BATCH) -> None:
        self._pool = pool
        self._batch = batch

    async def run_once(self) -> bool:
        """Make and drop. Leaves it to another process, or to the next run, where a lock cannot be had at once."""
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _DAYS_LOCK):
                    return False
                today = _midnight(await database_now(connection))
                await self._make(connection, today)
                oldest = today - timedelta(days=DAYS_BACK)
                held = await self._drop(connection, oldest)
            more = await self._delete_callbacks(oldest)
            return (held and await self._delete_messages(oldest)) or more
        except asyncpg.LockNotAvailableError:
            log.info("days_are_in_use")
            return False

    async def _make(self, connection: Connection, today: datetime) -> None:
        for offset in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=offset)
            bounds = lowest_at(day), lowest_at(day + timedelta(days=1))
            await connection.execute("SELECT switchboard.make_day($1, $2, $3)", f"{day:%Y%m%d}", *bounds)

    async def _drop(self, connection: Connection, oldest: datetime) -> bool:
        """Drop what no row holds. Returns whether messages of an old day stay."""
        rows = await connection.fetch(_PARTITIONS)
        rows.sort(key=lambda row: row["parent"] == _LAST)
        existing = {row["child"] for row in rows}
        stays = False
        for row in rows:
            suffix = row["child"].removeprefix(f"{row['parent']}_")
            if not suffix.isdigit() or datetime.strptime(suffix, "%Y%m%d").replace(tzinfo=UTC) >= oldest:
                continue
            holder = _HOLDERS.get(row["parent"], _KEPT)
            held_by = f"{holder.table}_{suffix}"
            query = f"SELECT EXISTS (SELECT FROM switchboard.{held_by} WHERE {holder.condition})"
            if held_by in existing and await connection.fetchval(query):
                stays = stays or row["parent"] == _LAST
                continue
            await connection.execute(f"DROP TABLE switchboard.{row['child']}")
            _days_dropped.inc()
        return stays

    async def _delete_messages(self, oldest: datetime) -> bool:
        """Delete content-free messages of held days, with their timelines."""
        async with self._pool.acquire() as connection:
            status = await connection.execute(
                "WITH gone AS MATERIALIZED (SELECT id FROM switchboard.messages WHERE id < $1 AND final"
                f" AND body IS NULL ORDER BY id LIMIT {self._batch} FOR UPDATE SKIP LOCKED),"
                " told AS (DELETE FROM switchboard.timeline USING gone WHERE message_id = gone.id)"
                " DELETE FROM switchboard.messages AS message USING gone WHERE message.id = gone.id",
                lowest_at(oldest),
            )
        return _count(status) == self._batch

    async def _delete_callbacks(self, oldest: datetime) -> bool:
        """Delete content-free callbacks of held days, and of none."""
        async with self._pool.acquire() as connection:
            status = await connection.execute(
                "WITH gone AS MATERIALIZED (SELECT id FROM switchboard.callback_events WHERE id < $1"
                " AND state <> 'waiting' AND body IS NULL AND finished_at < $2 ORDER BY id"
                f" LIMIT {self._batch} FOR UPDATE SKIP LOCKED)"
                " DELETE FROM switchboard.callback_events AS event USING gone WHERE event.id = gone.id",
                lowest_at(oldest),
                oldest,
            )
        return _count(status) == self._batch


_PARTITIONS: Final = """
SELECT parent.relname AS parent, child.relname AS child FROM pg_inherits
JOIN pg_class AS parent ON parent.oid = inhparent JOIN pg_class AS child ON child.oid = inhrelid
JOIN pg_namespace AS space ON space.oid = parent.relnamespace
WHERE space.nspname = 'switchboard' AND parent.relkind = 'p' ORDER BY child.relname
"""


class Sweeper:
    """Runs sweeps side by side until cancelled."""

    def __init__(self, sweeps: Sequence[Sweep]) -> None:
        self._sweeps = sweeps

    async def run(self) -> None:
        """Sweep until cancelled. A run that failed, whatever it was, comes again."""
        async with asyncio.TaskGroup() as group:
            for sweep in self._sweeps:
                group.create_task(self._repeat(sweep))

    async def _repeat(self, sweep: Sweep) -> None:
        failing = ""
        while True:
            more = False
            try:
                more = await sweep.run_once()
                if failing:
                    log.info("sweep_works_again", sweep=type(sweep).__name__)
                failing = ""
            except Exception as error:  # noqa: BLE001 - a boundary: one sweep's trouble must not end the others
                if failing != type(error).__name__:
                    failing = type(error).__name__
                    log.warning("sweep_fails", sweep=type(sweep).__name__, error=failing)
            if not more:
                await asyncio.sleep(max(sweep.every_seconds, _BACK_OFF_SECONDS if failing else 0))


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _count(status: str) -> int:
    """How many rows a statement touched, from its command tag."""
    return int(status.rsplit(" ", 1)[1])
