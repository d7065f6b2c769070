"""Sweeps over events and over what is remembered for a while: they tell and purge, and decide nothing."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from switchboard.ids import MessageId
from switchboard.records import EventOverdue
from switchboard.store.pool import Pool

BATCH: Final = 500

#: Publishes records to `attempts`, and returns when all are acknowledged.
TellEvents = Callable[[Sequence[EventOverdue]], Awaitable[None]]
#: A moment before which the offset of every handled record is committed, on the database's clock. None: not known.
Settled = Callable[[], Awaitable[datetime | None]]


class EventSweep:
    """Tells events that are overdue, and purges bodies whose retention has ended.

    `due_at` stays what it is, for it is what the handler goes by; an event is told again while it has not ended.
    """

    every_seconds = 5.0

    def __init__(self, pool: Pool, tell: TellEvents, settled: Settled, *, batch: int = BATCH) -> None:
        self._pool = pool
        self._tell = tell
        self._settled = settled
        self._batch = batch

    async def run_once(self) -> bool:
        """Tell and purge up to a batch of each."""
        settled = await self._settled()
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id, due_at FROM switchboard.events WHERE state <> 'final' AND due_at <= switchboard.now()"
                " ORDER BY due_at LIMIT $1",
                self._batch,
            )
            status = await connection.execute(_PURGE, settled, self._batch)
        if rows:
            await self._tell([EventOverdue(MessageId(row["id"]), row["due_at"]) for row in rows])
        return int(status.rsplit(" ", 1)[1]) == self._batch


_PURGE: Final = """
WITH due AS MATERIALIZED (
    SELECT id FROM switchboard.events
    WHERE state = 'final' AND body IS NOT NULL AND COALESCE(body_until, final_at) <= switchboard.now()
      AND (body_until IS NOT NULL OR final_at < $1)
    ORDER BY COALESCE(body_until, final_at) LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE switchboard.events AS event SET body = NULL FROM due WHERE event.id = due.id
"""


class MemorySweep:
    """Forgets open choices and capabilities that are not believed any more."""

    every_seconds = 60.0

    def __init__(self, pool: Pool, *, batch: int = BATCH) -> None:
        self._pool = pool
        self._batch = batch

    async def run_once(self) -> bool:
        """Forget up to a batch of each."""
        more = False
        async with self._pool.acquire() as connection:
            for table in ("open_choices", "capabilities"):
                status = await connection.execute(
                    f"WITH old AS MATERIALIZED (SELECT ctid FROM switchboard.{table}"
                    f" WHERE kept_until <= switchboard.now() ORDER BY kept_until LIMIT {self._batch}"
                    " FOR UPDATE SKIP LOCKED)"
                    f" DELETE FROM switchboard.{table} AS one USING old WHERE one.ctid = old.ctid"
                )
                more = more or int(status.rsplit(" ", 1)[1]) == self._batch
        return more
