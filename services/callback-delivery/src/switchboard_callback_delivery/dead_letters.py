"""A callback that cannot be processed: it stands in the list its owner reads, and the dead letter is the operator's."""

from typing import Final

import asyncpg
import structlog

from switchboard.bus import DeadLetterCause, DeadLetterReason, Record
from switchboard.callbacks.schedule import LIFETIME
from switchboard.ids import LaneId
from switchboard.records import DeliverCallback
from switchboard.store.pool import Pool, database_now
from switchboard.topics import CALLBACKS, BrokenRecord, UnknownRecord
from switchboard_callback_delivery.destination import Apps, kept_seconds
from switchboard_callback_delivery.event import Event, event_of
from switchboard_callback_delivery.store.events import Ended, insert_ended

log = structlog.get_logger()

#: Of errors that may quote what is nobody's business.
_INTERNAL: Final = "an internal error occurred"


class OnDeadLetter:
    """Lists dead callbacks as ended without a try, with their bodies: owners may have them delivered again."""

    def __init__(self, pool: Pool, apps: Apps) -> None:
        self._pool = pool
        self._apps = apps

    async def __call__(self, record: Record, cause: DeadLetterCause) -> None:
        """List the record's callback, if it can be read. One that has a row already is left as it is."""
        callback_id = record.headers.get("callback_id", b"").decode(errors="replace")
        log.error("dead letter", topic=record.topic, offset=record.offset, callback_id=callback_id, error=cause.error)
        try:
            event = _event(CALLBACKS.decode(record.value, record.headers))
        except (BrokenRecord, UnknownRecord):
            return
        app = await self._apps.app(event.app_id)
        kept = (kept_seconds(app) if app else None) or 0.0
        ended = Ended(
            event=event,
            state="ended",
            attempts=0,
            status=None,
            error=cause.detail if cause.reason is DeadLetterReason.PERMANENT else _INTERNAL,
            answer=b"",
            # Nobody has seen it yet: its owner has at least the day that any callback has.
            kept_seconds=max(kept, LIFETIME.total_seconds()),
        )
        try:
            async with self._pool.acquire() as connection:
                await insert_ended(connection, [ended], await database_now(connection))
        except asyncpg.DataError as error:
            # What no table can hold is what made it a dead letter: the topic has it, and the others go on.
            log.error("a dead callback cannot be listed", callback_id=callback_id, error=type(error).__name__)


def _event(order: DeliverCallback) -> Event:
    try:
        return event_of(order)
    except ValueError:
        # Its URL names no server, so it is listed under its app alone.
        return event_of(order, LaneId(f"endpoint:{order.app_id}"))
