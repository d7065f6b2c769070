"""Rows of callback events: written when an event waits or has ended, kept while their body may be asked for."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
from msgspec import Struct

from switchboard.callbacks.schedule import LIFETIME
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger
from switchboard_callback_delivery.event import Event


class Parked(Struct, frozen=True, kw_only=True):
    """An event that waits, and since when and until when."""

    event: Event
    due_at: datetime
    #: Set if this process is trying it right now.
    owner: str | None = None
    attempts: int = 0
    status: int | None = None
    error: str = ""
    answer: bytes = b""


class Ended(Struct, frozen=True, kw_only=True):
    """An event that is finished."""

    event: Event
    state: str
    attempts: int
    status: int | None
    error: str
    answer: bytes
    kept_seconds: float | None


async def insert_waiting(connection: Connection, parked: Sequence[Parked], now: datetime) -> set[str]:
    """Write events that wait. Returns the ids of those that had no row yet: the others are left alone."""
    return await _insert(
        connection,
        [
            _row(item.event, "waiting", now, item.attempts, item.status, item.error, item.answer, None, None, now)
            for item in parked
        ],
    )


async def insert_ended(connection: Connection, ended: Sequence[Ended], now: datetime) -> None:
    """Write events that came straight from the topic and are finished. Those that have a row are left alone."""
    await _insert(
        connection,
        [
            _row(
                item.event, item.state, now, item.attempts, item.status, item.error, item.answer, now,
                kept_until(now, item.kept_seconds), now if item.attempts else None,
            )
            for item in ended
        ],
    )  # fmt: skip


async def purge_bodies(connection: Connection, now: datetime, limit: int) -> int:
    """Forget bodies whose time is up. Returns how many."""
    gone = await connection.fetch(
        "UPDATE switchboard.callback_events AS event SET body = NULL, body_until = NULL FROM"
        " (SELECT id FROM switchboard.callback_events WHERE body IS NOT NULL AND state <> 'waiting'"
        " AND body_until <= $1 ORDER BY body_until LIMIT $2 FOR UPDATE SKIP LOCKED) AS old"
        " WHERE event.id = old.id RETURNING 1",
        now,
        limit,
    )
    return len(gone)


def event_of_row(row: asyncpg.Record) -> Event:
    """Read a row of `callback_events` that has its body."""
    return Event(
        id=row["id"],
        project_id=row["project_id"],
        app_id=row["app_id"],
        endpoint=row["endpoint"],
        webhook_id=row["webhook_id"],
        target=row["target"],
        trigger=Trigger(row["trigger"]),
        stream=row["stream"],
        sequence=row["sequence"],
        event_at=row["event_at"],
        body=row["body"],
        attempts=row["attempts"],
        earlier_attempts=row["earlier_attempts"],
        first_failed_at=row["first_failed_at"],
        expires_at=row["expires_at"],
    )


def kept_until(now: datetime, kept_seconds: float | None) -> datetime | None:
    """Until when the body of an event that ends now is kept; None: it is not."""
    return None if kept_seconds is None else now + timedelta(seconds=kept_seconds)


_COLUMNS: Final = (
    "id", "project_id", "app_id", "endpoint", "webhook_id", "target", "trigger", "stream", "sequence", "event_at",
    "recorded_at", "expires_at", "state", "attempts", "first_failed_at", "last_tried_at", "last_status", "last_error",
    "last_answer", "finished_at", "body", "body_until",
)  # fmt: skip
_TYPES: Final = (
    "text", "text", "text", "text", "text", "text", "text", "text", "bigint", "timestamptz", "timestamptz",
    "timestamptz", "text", "integer", "timestamptz", "timestamptz", "smallint", "text", "bytea", "timestamptz",
    "bytea", "timestamptz",
)  # fmt: skip
_INSERT: Final = (
    f"INSERT INTO switchboard.callback_events ({', '.join(_COLUMNS)}) SELECT * FROM unnest("
    + ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(_TYPES, 1))
    + ") ON CONFLICT (id) DO NOTHING RETURNING id"
)


def _row(
    event: Event,
    state: str,
    now: datetime,
    attempts: int,
    status: int | None,
    error: str,
    answer: bytes,
    finished_at: datetime | None,
    body_until: datetime | None,
    tried_at: datetime | None,
) -> tuple[Any, ...]:
    kept = finished_at is None or body_until is not None
    return (
        event.id, event.project_id, event.app_id, event.endpoint, event.webhook_id, event.target, event.trigger.value,
        event.stream, event.sequence, event.event_at, now, event.expires_at or now + LIFETIME, state, attempts,
        event.first_failed_at, tried_at if attempts else None, status, error, answer, finished_at,
        event.body if kept else None, body_until,
    )  # fmt: skip


async def _insert(connection: Connection, rows: Iterable[tuple[Any, ...]]) -> set[str]:
    columns = list(zip(*rows, strict=True))
    if not columns:
        return set()
    return {row["id"] for row in await connection.fetch(_INSERT, *map(list, columns))}
