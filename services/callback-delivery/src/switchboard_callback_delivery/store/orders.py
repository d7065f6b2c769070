"""What owners order about single events: one more round, a try at once, or none any more."""

from collections import Counter
from collections.abc import Collection
from datetime import datetime

from switchboard.callbacks.schedule import LIFETIME
from switchboard.ids import CallbackId
from switchboard.lanes.locked import LockedLanes
from switchboard.store.pool import Connection
from switchboard_callback_delivery.store.events import Parked, event_of_row, kept_until
from switchboard_callback_delivery.store.streams import enter, same_stream


async def revive(
    connection: Connection, lanes: LockedLanes, ids: Collection[CallbackId], now: datetime
) -> list[CallbackId]:
    """Begin a new round of 24 hours for finished events that have a body. Under the lanes' locks. Returns which."""
    rows = await connection.fetch(
        "UPDATE switchboard.callback_events SET state = 'waiting', passed = false,"
        " earlier_attempts = earlier_attempts + attempts, attempts = 0, first_failed_at = NULL, finished_at = NULL,"
        " body_until = NULL, expires_at = $2"
        " WHERE id = ANY ($1::text[]) AND state <> 'waiting' AND body IS NOT NULL RETURNING *",
        list(ids),
        now + LIFETIME,
    )
    streams: dict[tuple[str, str], list[Parked]] = {}
    for row in rows:
        streams.setdefault((row["endpoint"], row["stream"]), []).append(Parked(event=event_of_row(row), due_at=now))
        lanes.change(row["endpoint"]).waiting += 1
    await enter(connection, streams, now)
    return [row["id"] for row in rows]


async def hurry(connection: Connection, ids: Collection[CallbackId], now: datetime) -> None:
    """Make heads that wait for their next try due now, unless one is under way."""
    await connection.execute(
        "UPDATE switchboard.callback_streams AS stream SET due_at = $2, scheduled_at = $2"
        " FROM switchboard.callback_events AS event WHERE event.id = ANY ($1::text[]) AND event.state = 'waiting'"
        f" AND {same_stream('event')} AND stream.head = event.id"
        " AND (stream.lease_until IS NULL OR stream.lease_until <= $2)",
        list(ids),
        now,
    )


async def dismiss(
    connection: Connection,
    lanes: LockedLanes,
    ids: Collection[CallbackId],
    kept_seconds: float | None,
    now: datetime,
) -> int:
    """Give up events that wait; a try under way has no effect any more. Under the lanes' locks. Returns how many."""
    rows = await connection.fetch(
        "UPDATE switchboard.callback_events SET state = 'dismissed', finished_at = $2,"
        " body = CASE WHEN $3::timestamptz IS NULL THEN NULL ELSE body END, body_until = $3"
        " WHERE id = ANY ($1::text[]) AND state = 'waiting'"
        " RETURNING endpoint, stream, CASE WHEN passed THEN id ELSE '' END AS apart",
        list(ids),
        now,
        kept_until(now, kept_seconds),
    )
    gone = Counter((row["endpoint"], row["stream"], row["apart"]) for row in rows)
    for endpoint, _, _ in gone.elements():
        lanes.change(endpoint).waiting -= 1
    if gone:
        keys = sorted(gone)
        arguments = (*map(list, zip(*keys, strict=True)), [gone[key] for key in keys])
        await connection.execute(
            "DELETE FROM switchboard.callback_streams AS stream"
            " USING unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS less (endpoint, stream, apart, gone)"
            f" WHERE {same_stream('less')} AND stream.apart = less.apart"
            " AND stream.waiting <= less.gone",
            *arguments,
        )
        await connection.execute(
            "UPDATE switchboard.callback_streams AS stream SET waiting = stream.waiting - less.gone, head = next.id,"
            " head_sequence = next.sequence, expires_at = next.expires_at, failing_since = next.first_failed_at,"
            " due_at = CASE WHEN stream.head = next.id THEN stream.due_at ELSE $5 END,"
            " scheduled_at = CASE WHEN stream.head = next.id THEN stream.scheduled_at ELSE $5 END,"
            " owner = CASE WHEN stream.head = next.id THEN stream.owner END,"
            " lease_until = CASE WHEN stream.head = next.id THEN stream.lease_until END,"
            " token = CASE WHEN stream.head = next.id THEN stream.token ELSE 0 END"
            " FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS less (endpoint, stream, apart, gone)"
            " CROSS JOIN LATERAL (SELECT id, sequence, expires_at, first_failed_at"
            " FROM switchboard.callback_events AS event WHERE event.endpoint = less.endpoint"
            " AND event.stream = less.stream AND event.state = 'waiting' AND NOT event.passed"
            " ORDER BY event.sequence, event.id LIMIT 1) AS next"
            f" WHERE {same_stream('less')} AND stream.apart = less.apart",
            *arguments,
            now,
        )
    return len(rows)
