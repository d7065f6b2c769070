"""Streams: the events of one message at one endpoint, of which only the head is tried, by whoever has its lease.

A stream and its lane's `waiting` change only under the lane's lock, so counters and rows agree. What a process still
records that lost its lease has no effect.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from switchboard.callbacks.schedule import LIFETIME, PASSED_AFTER
from switchboard.ids import CallbackId, LaneId
from switchboard.lanes.locked import LockedLanes
from switchboard.store.pool import Connection
from switchboard_callback_delivery.event import Event, Lease
from switchboard_callback_delivery.store.events import Ended, Parked, event_of_row, insert_waiting, kept_until

#: Longer than the longest try: a token and a post, 10 s each.
LEASE_SECONDS: Final = 30.0


def same_stream(row: str) -> str:
    """The condition that a stream is the one that a row names.

    Only its own name leads to an index: by its endpoint it would be looked for among all that wait there.
    """
    return f"stream.stream = {row}.stream AND stream.endpoint IS NOT DISTINCT FROM {row}.endpoint"


class Claimed(Struct, frozen=True):
    """A head that this process leased."""

    event: Event
    lease: Lease
    #: It is finished already, though its stream does not know: there is nothing to try.
    is_finished: bool = False


async def park(connection: Connection, lanes: LockedLanes, parked: Sequence[Parked], now: datetime) -> list[CallbackId]:
    """Write events that wait, and their streams. Returns those that had no row yet: the others are left alone."""
    if not parked:
        return []
    inserted = await insert_waiting(connection, parked, now)
    new = [item for item in parked if item.event.id in inserted]
    streams: dict[tuple[str, str], list[Parked]] = {}
    for item in new:
        streams.setdefault((item.event.endpoint, item.event.stream), []).append(item)
        lanes.change(item.event.endpoint).waiting += 1
    await enter(connection, streams, now)
    return [item.event.id for item in new]


async def enter(connection: Connection, streams: Mapping[tuple[str, str], Sequence[Parked]], now: datetime) -> None:
    """Let events with rows that wait, by endpoint and stream, wait in their streams. Under the lanes' locks."""
    heads = [(min(items, key=lambda item: item.event.sequence), len(items)) for items in streams.values()]
    if heads:
        await connection.execute(
            "INSERT INTO switchboard.callback_streams AS stream (endpoint, stream, head, head_sequence, expires_at,"
            " waiting, failing_since, due_at, scheduled_at, owner, token, lease_until)"
            " SELECT asked.endpoint, asked.stream, asked.head, asked.sequence, $9, asked.waiting, asked.failing_since,"
            " asked.due_at, $10, asked.owner,"
            " CASE WHEN asked.owner IS NULL THEN 0 ELSE nextval('switchboard.callback_tokens') END,"
            " CASE WHEN asked.owner IS NULL THEN NULL ELSE switchboard.lease_end($11) END"
            " FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::timestamptz[],"
            " $7::timestamptz[], $8::text[])"
            " AS asked (endpoint, stream, head, sequence, waiting, failing_since, due_at, owner)"
            " ORDER BY asked.endpoint COLLATE \"C\", asked.stream COLLATE \"C\""
            " ON CONFLICT (endpoint, stream, apart) DO UPDATE SET waiting = stream.waiting + EXCLUDED.waiting,"
            # An event earlier than the head, as a replayed dead letter brings it, becomes the head.
            " head = CASE WHEN EXCLUDED.head_sequence < stream.head_sequence THEN EXCLUDED.head ELSE stream.head END,"
            " due_at = CASE WHEN EXCLUDED.head_sequence < stream.head_sequence"
            " THEN least(EXCLUDED.due_at, stream.due_at) ELSE stream.due_at END,"
            " expires_at = CASE WHEN EXCLUDED.head_sequence < stream.head_sequence THEN EXCLUDED.expires_at"
            " ELSE stream.expires_at END,"
            " failing_since = CASE WHEN EXCLUDED.head_sequence < stream.head_sequence THEN EXCLUDED.failing_since"
            " ELSE stream.failing_since END,"
            " head_sequence = least(EXCLUDED.head_sequence, stream.head_sequence)",
            [head.event.endpoint for head, _ in heads],
            [head.event.stream for head, _ in heads],
            [head.event.id for head, _ in heads],
            [head.event.sequence for head, _ in heads],
            [count for _, count in heads],
            [head.event.first_failed_at for head, _ in heads],
            [head.due_at for head, _ in heads],
            [head.owner for head, _ in heads],
            now + LIFETIME,
            now,
            LEASE_SECONDS,
        )  # fmt: skip


async def leases_of(connection: Connection, owner: str, events: Sequence[Event]) -> dict[CallbackId, Lease]:
    """The leases that `owner` holds on these events, which are heads of their streams."""
    rows = await connection.fetch(
        "SELECT stream.endpoint, stream.stream, stream.apart, stream.token, stream.head"
        " FROM switchboard.callback_streams AS stream"
        " JOIN unnest($1::text[], $2::text[], $3::text[]) AS asked (endpoint, stream, head)"
        f" ON {same_stream('asked')} AND stream.head = asked.head"
        " WHERE stream.owner = $4",
        [event.endpoint for event in events],
        [event.stream for event in events],
        [event.id for event in events],
        owner,
    )
    return {row["head"]: Lease(row["endpoint"], row["stream"], row["apart"], row["token"]) for row in rows}


async def claim(
    connection: Connection, owner: str, wanted: Mapping[LaneId, int], now: datetime, *, expired: bool = False
) -> list[Claimed]:
    """Lease up to so many due heads of each endpoint, those due longest first.

    With `expired` those whose 24 hours are up, due or not.
    """
    moment = "expires_at" if expired else "due_at"
    rows = await connection.fetch(
        "WITH due AS (SELECT stream.endpoint, stream.stream, stream.apart"
        " FROM unnest($1::text[], $2::integer[]) AS wanted (endpoint, heads)"
        " CROSS JOIN LATERAL (SELECT * FROM switchboard.callback_streams AS stream"
        f" WHERE stream.endpoint = wanted.endpoint AND stream.{moment} <= $3"
        " AND (stream.lease_until IS NULL OR stream.lease_until <= $3)"
        f" ORDER BY stream.{moment} LIMIT wanted.heads FOR UPDATE SKIP LOCKED) AS stream),"
        " leased AS (UPDATE switchboard.callback_streams AS stream SET owner = $4,"
        " token = nextval('switchboard.callback_tokens'),"
        f" lease_until = switchboard.lease_end($5) FROM due WHERE {same_stream('due')}"
        " AND stream.apart = due.apart"
        " RETURNING stream.endpoint, stream.stream, stream.apart, stream.token, stream.head, stream.due_at)"
        " SELECT leased.apart, leased.token, event.* FROM leased"
        " JOIN switchboard.callback_events AS event ON event.id = leased.head ORDER BY leased.due_at",
        list(wanted),
        list(wanted.values()),
        now,
        owner,
        LEASE_SECONDS,
    )
    return [
        Claimed(
            event_of_row(row),
            Lease(row["endpoint"], row["stream"], row["apart"], row["token"]),
            row["state"] != "waiting",
        )
        for row in rows
    ]


async def ours(connection: Connection, leases: Collection[Lease]) -> set[Lease]:
    """Lock the streams of these leases and return those that are still ours."""
    rows = await connection.fetch(
        "SELECT stream.endpoint, stream.stream, stream.apart, stream.token FROM switchboard.callback_streams AS stream"
        " JOIN unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS held (endpoint, stream, apart, token)"
        f" ON {same_stream('held')} AND stream.apart = held.apart"
        " AND stream.token = held.token"
        " ORDER BY stream.endpoint, stream.stream, stream.apart FOR UPDATE OF stream",
        [lease.endpoint for lease in leases],
        [lease.stream for lease in leases],
        [lease.apart for lease in leases],
        [lease.token for lease in leases],
    )
    return {Lease(row["endpoint"], row["stream"], row["apart"], row["token"]) for row in rows}


async def finish(
    connection: Connection, lanes: LockedLanes, ended: Sequence[tuple[Lease, Ended]], now: datetime
) -> None:
    """End heads whose leases are ours: their followers become due, and streams without any vanish."""
    if not ended:
        return
    await connection.execute(
        "UPDATE switchboard.callback_events AS event SET state = new.state, attempts = new.attempts,"
        " last_status = coalesce(new.status, event.last_status),"
        " last_error = CASE WHEN new.state = 'delivered' THEN '' ELSE coalesce(new.error, event.last_error) END,"
        " last_answer = CASE WHEN new.state = 'delivered' THEN '' ELSE coalesce(new.answer, event.last_answer) END,"
        " last_tried_at = CASE WHEN new.attempts > event.attempts THEN $8 ELSE event.last_tried_at END,"
        " finished_at = $8, body = CASE WHEN new.until IS NULL THEN NULL ELSE event.body END, body_until = new.until"
        " FROM unnest($1::text[], $2::text[], $3::integer[], $4::smallint[], $5::text[], $6::bytea[],"
        " $7::timestamptz[]) AS new (id, state, attempts, status, error, answer, until)"
        " WHERE event.id = new.id AND event.state = 'waiting'",
        [item.event.id for _, item in ended],
        [item.state for _, item in ended],
        [item.attempts for _, item in ended],
        [item.status for _, item in ended],
        [item.error or None for _, item in ended],
        [item.answer or None for _, item in ended],
        [kept_until(now, item.kept_seconds) for _, item in ended],
        now,
    )
    for lease, _ in ended:
        lanes.change(lease.endpoint).waiting -= 1
    await _advance(connection, [lease for lease, _ in ended], now)


async def reschedule(connection: Connection, failed: Sequence[tuple[Lease, Parked]], now: datetime) -> None:
    """Record failed tries of heads whose leases are ours, and give the leases up."""
    if not failed:
        return
    await connection.execute(
        "UPDATE switchboard.callback_events AS event SET attempts = new.attempts, last_status = new.status,"
        " last_error = new.error, last_answer = new.answer, last_tried_at = $7,"
        " first_failed_at = coalesce(event.first_failed_at, new.failed_at)"
        " FROM unnest($1::text[], $2::integer[], $3::smallint[], $4::text[], $5::bytea[], $6::timestamptz[])"
        " AS new (id, attempts, status, error, answer, failed_at) WHERE event.id = new.id",
        [item.event.id for _, item in failed],
        [item.attempts for _, item in failed],
        [item.status for _, item in failed],
        [item.error for _, item in failed],
        [item.answer for _, item in failed],
        [item.event.first_failed_at for _, item in failed],
        now,
    )
    await connection.execute(
        "UPDATE switchboard.callback_streams AS stream SET due_at = new.due_at, scheduled_at = $6,"
        " failing_since = coalesce(stream.failing_since, new.failed_at), owner = NULL, lease_until = NULL"
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])"
        " AS new (endpoint, stream, apart, due_at, failed_at)"
        f" WHERE {same_stream('new')} AND stream.apart = new.apart",
        [lease.endpoint for lease, _ in failed],
        [lease.stream for lease, _ in failed],
        [lease.apart for lease, _ in failed],
        [item.due_at for _, item in failed],
        [item.event.first_failed_at for _, item in failed],
        now,
    )


async def stuck(connection: Connection, now: datetime, limit: int) -> list[Lease]:
    """Heads refused for long while their endpoints took others, that hold up followers and that nobody tries now."""
    rows = await connection.fetch(
        "SELECT head.* FROM switchboard.lanes AS lane"
        " JOIN switchboard.callback_endpoints AS endpoint ON endpoint.endpoint = lane.id"
        " CROSS JOIN LATERAL (SELECT stream.endpoint, stream.stream, stream.apart, stream.token"
        " FROM switchboard.callback_streams AS stream WHERE stream.endpoint = lane.id AND stream.apart = ''"
        " AND stream.waiting > 1 AND stream.failing_since <= $1 AND stream.failing_since < endpoint.taken_at"
        " AND (stream.lease_until IS NULL OR stream.lease_until <= $2) ORDER BY stream.failing_since LIMIT $3) AS head"
        " WHERE lane.kind = 'endpoint' AND lane.waiting > 0 LIMIT $3",
        now - PASSED_AFTER,
        now,
        limit,
    )
    return [Lease(row["endpoint"], row["stream"], row["apart"], row["token"]) for row in rows]


async def pass_heads(connection: Connection, leases: Collection[Lease], now: datetime) -> None:
    """Make streams of their own of heads whose streams are locked, so that their followers go."""
    if not leases:
        return
    arguments = (
        [lease.endpoint for lease in leases],
        [lease.stream for lease in leases],
    )
    await connection.execute(
        "INSERT INTO switchboard.callback_streams (endpoint, stream, apart, head, head_sequence, expires_at, waiting,"
        " failing_since, due_at, scheduled_at)"
        " SELECT stream.endpoint, stream.stream, stream.head, stream.head, stream.head_sequence, stream.expires_at, 1,"
        " stream.failing_since, stream.due_at, stream.scheduled_at FROM switchboard.callback_streams AS stream"
        " JOIN unnest($1::text[], $2::text[]) AS held (endpoint, stream)"
        f" ON {same_stream('held')} AND stream.apart = ''",
        *arguments,
    )
    await connection.execute(
        "UPDATE switchboard.callback_events AS event SET passed = true FROM switchboard.callback_streams AS stream"
        " JOIN unnest($1::text[], $2::text[]) AS held (endpoint, stream)"
        f" ON {same_stream('held')} AND stream.apart = ''"
        " WHERE event.id = stream.head",
        *arguments,
    )
    await _advance(connection, [replace(lease, apart="") for lease in leases], now)


async def bring_forward(connection: Connection, endpoint: LaneId, recovered_at: datetime, now: datetime) -> int:
    """Make due what was scheduled before an endpoint recovered, a piece at a time. Returns how many streams."""
    moved = await connection.fetch(
        "UPDATE switchboard.callback_streams AS stream SET due_at = $3, scheduled_at = $3"
        " FROM (SELECT endpoint, stream, apart FROM switchboard.callback_streams WHERE endpoint = $1 AND due_at > $3"
        " AND scheduled_at <= $2 ORDER BY due_at LIMIT 200 FOR UPDATE SKIP LOCKED) AS early"
        f" WHERE {same_stream('early')} AND stream.apart = early.apart"
        " RETURNING 1",
        endpoint,
        recovered_at,
        now,
    )
    if not moved:
        await connection.execute(
            "UPDATE switchboard.callback_endpoints SET recovered_at = NULL WHERE endpoint = $1 AND recovered_at = $2",
            endpoint,
            recovered_at,
        )
    return len(moved)


async def _advance(connection: Connection, leases: Collection[Lease], now: datetime) -> None:
    """Give locked streams their next head, due now; those without one vanish. Nobody holds them afterwards."""
    arguments = (
        [lease.endpoint for lease in leases],
        [lease.stream for lease in leases],
        [lease.apart for lease in leases],
    )
    await connection.execute(
        "DELETE FROM switchboard.callback_streams AS stream"
        " USING unnest($1::text[], $2::text[], $3::text[]) AS held (endpoint, stream, apart)"
        f" WHERE {same_stream('held')} AND stream.apart = held.apart"
        " AND stream.waiting = 1",
        *arguments,
    )
    await connection.execute(
        "UPDATE switchboard.callback_streams AS stream SET head = next.id, head_sequence = next.sequence,"
        " expires_at = next.expires_at, waiting = stream.waiting - 1, failing_since = next.first_failed_at,"
        " due_at = $4, scheduled_at = $4, owner = NULL, lease_until = NULL, token = 0"
        " FROM unnest($1::text[], $2::text[], $3::text[]) AS held (endpoint, stream, apart)"
        " CROSS JOIN LATERAL (SELECT id, sequence, expires_at, first_failed_at"
        " FROM switchboard.callback_events AS event WHERE event.endpoint = held.endpoint"
        " AND event.stream = held.stream AND event.state = 'waiting' AND NOT event.passed"
        " ORDER BY event.sequence, event.id LIMIT 1) AS next"
        f" WHERE {same_stream('held')} AND stream.apart = held.apart",
        *arguments,
        now,
    )
