"""Rows of callbacks: admission, parking, leases and outcomes, each in one transaction for many events (DESIGN 5, 7).

Lock order everywhere: lanes by id, then streams. A stream and its lane's `waiting` change only under the lane's lock,
so counters and rows agree. What a process that lost its lease still records has no effect.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from switchboard.callbacks.schedule import LIFETIME, PASSED_AFTER
from switchboard.ids import AppId, CallbackId, LaneId, WebhookId
from switchboard.lanes.lane import Lane, Limits, moment_of
from switchboard.lanes.locked import LockedLanes, lane_of, lock_lanes
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger
from switchboard_callback_delivery.event import Event, Lease

#: Longer than the longest try: a token and a post, 10 s each.
LEASE_SECONDS: Final = 30.0


def _same(row: str) -> str:
    """The condition that a stream is the one that a row names.

    Only its own name leads to an index: by its endpoint it would be looked for among all that wait there.
    """
    return f"stream.stream = {row}.stream AND stream.endpoint IS NOT DISTINCT FROM {row}.endpoint"


class Standings(Struct, frozen=True):
    """What the tables know of events from the topic."""

    #: The database's clock when they were asked.
    now: datetime
    #: These have rows: finished, or parked by an earlier sight of their records.
    known: frozenset[str]
    #: The streams of these have unfinished events that nobody may pass.
    blocked: frozenset[str]
    #: Their lanes, as far as asked for and there. Nobody holds them.
    lanes: tuple[Lane, ...]


class Claimed(Struct, frozen=True):
    """A head that this process leased."""

    event: Event
    lease: Lease
    #: It is finished already, though its stream does not know: there is nothing to try.
    is_finished: bool = False


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


async def database_now(connection: Connection) -> datetime:
    """The database's clock."""
    now: datetime = await connection.fetchval("SELECT switchboard.now()")
    return now


async def lock(connection: Connection, rates: Mapping[LaneId, Limits | None], now: datetime) -> LockedLanes:
    """Lock the lanes of these endpoints."""
    return await lock_lanes(connection, rates, now)


async def standings(connection: Connection, events: Sequence[Event], lanes: Collection[LaneId] = ()) -> Standings:
    """What is known of the events, and how these lanes are. Locks nothing."""
    row = await connection.fetchrow(
        "SELECT switchboard.now() AS now,"
        " ARRAY(SELECT event.id FROM unnest($1::text[]) AS asked (id)"
        " JOIN switchboard.callback_events AS event ON event.id = asked.id) AS known,"
        " ARRAY(SELECT asked.id FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (id, endpoint, stream)"
        f" JOIN switchboard.callback_streams AS stream ON {_same('asked')}"
        " AND stream.apart = '') AS blocked,"
        " ARRAY(SELECT lane FROM switchboard.lanes AS lane WHERE lane.id = ANY ($4::text[])) AS lanes",
        [event.id for event in events],
        [event.endpoint for event in events],
        [event.stream for event in events],
        list(lanes),
    )
    assert row is not None
    return Standings(
        row["now"], frozenset(row["known"]), frozenset(row["blocked"]), tuple(lane_of(lane) for lane in row["lanes"])
    )


async def take_slots(connection: Connection, seen: Mapping[LaneId, int], lanes: LockedLanes) -> set[LaneId]:
    """Take the slots that `lanes` has given away, in those whose next slot is still the one that was `seen`.

    Returns which these are. Nobody is waited for, and neither is the disk: slots are at most 100 ms ahead, so that a
    crash of the database forgets only such as are over when it is back.
    """
    rows = await connection.fetch(
        "UPDATE switchboard.lanes AS lane SET tat = free.tat FROM"
        " (SELECT lane.id, asked.tat, set_config('synchronous_commit', 'off', true)"
        " FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS asked (id, seen, tat)"
        " JOIN switchboard.lanes AS lane ON lane.id = asked.id AND lane.tat = asked.seen AND lane.gate = 'open'"
        " FOR UPDATE OF lane SKIP LOCKED) AS free"
        " WHERE lane.id = free.id RETURNING lane.id",
        list(seen),
        [moment_of(tat_us) for tat_us in seen.values()],
        [moment_of(lanes[lane].tat_us) for lane in seen],
    )
    return {row["id"] for row in rows}


async def park(connection: Connection, lanes: LockedLanes, parked: Sequence[Parked], now: datetime) -> list[CallbackId]:
    """Write events that wait, and their streams. Returns those that had no row yet: the others are left alone."""
    if not parked:
        return []
    inserted = await _insert(
        connection,
        [
            _row(item.event, "waiting", now, item.attempts, item.status, item.error, item.answer, None, None, now)
            for item in parked
        ],
    )
    new = [item for item in parked if item.event.id in inserted]
    streams: dict[tuple[str, str], list[Parked]] = {}
    for item in new:
        streams.setdefault((item.event.endpoint, item.event.stream), []).append(item)
        lanes.change(item.event.endpoint).waiting += 1
    await _enter(connection, streams, now)
    return [item.event.id for item in new]


async def _enter(connection: Connection, streams: Mapping[tuple[str, str], Sequence[Parked]], now: datetime) -> None:
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
        f" ON {_same('asked')} AND stream.head = asked.head"
        " WHERE stream.owner = $4",
        [event.endpoint for event in events],
        [event.stream for event in events],
        [event.id for event in events],
        owner,
    )
    return {row["head"]: Lease(row["endpoint"], row["stream"], row["apart"], row["token"]) for row in rows}


async def insert_ended(connection: Connection, ended: Sequence[Ended], now: datetime) -> None:
    """Write events that came straight from the topic and are finished. Those that have a row are left alone."""
    await _insert(
        connection,
        [
            _row(
                item.event, item.state, now, item.attempts, item.status, item.error, item.answer, now,
                _until(now, item.kept_seconds), now if item.attempts else None,
            )
            for item in ended
        ],
    )  # fmt: skip


async def ours(connection: Connection, leases: Collection[Lease]) -> set[Lease]:
    """Lock the streams of these leases and return those that are still ours."""
    rows = await connection.fetch(
        "SELECT stream.endpoint, stream.stream, stream.apart, stream.token FROM switchboard.callback_streams AS stream"
        " JOIN unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS held (endpoint, stream, apart, token)"
        f" ON {_same('held')} AND stream.apart = held.apart"
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
        [_until(now, item.kept_seconds) for _, item in ended],
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
        f" WHERE {_same('new')} AND stream.apart = new.apart",
        [lease.endpoint for lease, _ in failed],
        [lease.stream for lease, _ in failed],
        [lease.apart for lease, _ in failed],
        [item.due_at for _, item in failed],
        [item.event.first_failed_at for _, item in failed],
        now,
    )


class KnownHealth(Struct, frozen=True):
    """What was written of an endpoint's health before."""

    taken_at: datetime | None
    is_suspended: bool


async def known_healths(connection: Connection, endpoints: Collection[LaneId]) -> dict[LaneId, KnownHealth]:
    """What is known of the health of these endpoints."""
    rows = await connection.fetch(
        "SELECT endpoint, taken_at, suspended_at FROM switchboard.callback_endpoints WHERE endpoint = ANY ($1::text[])",
        list(endpoints),
    )
    return {row["endpoint"]: KnownHealth(row["taken_at"], row["suspended_at"] is not None) for row in rows}


async def add_tallies(connection: Connection, tallies: Mapping[LaneId, tuple[int, int]], now: datetime) -> None:
    """Count tries, taken and failed, of these endpoints into the hour."""
    if tallies:
        ids = sorted(tallies)
        await connection.execute(
            "INSERT INTO switchboard.callback_tallies AS known (endpoint, hour, taken, failed)"
            " SELECT new.endpoint, date_trunc('hour', $4::timestamptz, 'UTC'), new.taken, new.failed"
            " FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS new (endpoint, taken, failed)"
            " ON CONFLICT (endpoint, hour) DO UPDATE SET taken = known.taken + EXCLUDED.taken,"
            " failed = known.failed + EXCLUDED.failed",
            ids,
            [tallies[lane][0] for lane in ids],
            [tallies[lane][1] for lane in ids],
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
        f" ON {_same('held')} AND stream.apart = ''",
        *arguments,
    )
    await connection.execute(
        "UPDATE switchboard.callback_events AS event SET passed = true FROM switchboard.callback_streams AS stream"
        " JOIN unnest($1::text[], $2::text[]) AS held (endpoint, stream)"
        f" ON {_same('held')} AND stream.apart = ''"
        " WHERE event.id = stream.head",
        *arguments,
    )
    await _advance(connection, [replace(lease, apart="") for lease in leases], now)


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
        f" lease_until = switchboard.lease_end($5) FROM due WHERE {_same('due')}"
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


async def busy_lanes(
    connection: Connection, after: str, now: datetime, limit: int, *, with_late: bool
) -> list[asyncpg.Record]:
    """Lock endpoint lanes that have something to try now, from the one after `after` on; those that others hold are
    left out. An open gate: what is due. A closed one: a probe. Any, `with_late`: what must be tried before it expires.
    """
    # Thousands of lanes may be dead: their streams are looked at only where something could come of it, and in the
    # order of one index, for through another all that wait there would be looked at to find nothing.
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT lane.*, endpoint.recovered_at, due.found AS due, late.found AS late FROM switchboard.lanes AS lane"
        " LEFT JOIN LATERAL (SELECT known.recovered_at FROM switchboard.callback_endpoints AS known"
        " WHERE lane.gate = 'open' AND known.endpoint = lane.id) AS endpoint ON true"
        " LEFT JOIN LATERAL (SELECT true AS found FROM switchboard.callback_streams AS stream"
        " WHERE (lane.gate = 'open' OR lane.gate = 'closed' AND lane.probe_at <= $1)"
        " AND stream.endpoint = lane.id AND stream.due_at <= $1"
        " AND (stream.lease_until IS NULL OR stream.lease_until <= $1) ORDER BY stream.due_at LIMIT 1) AS due ON true"
        " LEFT JOIN LATERAL (SELECT true AS found FROM switchboard.callback_streams AS stream"
        " WHERE $4 AND stream.endpoint = lane.id AND stream.expires_at <= $1"
        " AND (stream.lease_until IS NULL OR stream.lease_until <= $1) ORDER BY stream.expires_at LIMIT 1) AS late"
        " ON true"
        " WHERE lane.kind = 'endpoint' AND lane.waiting > 0 AND lane.id > $2"
        " AND (late.found OR due.found OR endpoint.recovered_at IS NOT NULL)"
        " ORDER BY lane.id LIMIT $3 FOR UPDATE OF lane SKIP LOCKED",
        now,
        after,
        limit,
        with_late,
    )
    return rows


async def bring_forward(connection: Connection, endpoint: LaneId, recovered_at: datetime, now: datetime) -> int:
    """Make due what was scheduled before an endpoint recovered, a piece at a time. Returns how many streams."""
    moved = await connection.fetch(
        "UPDATE switchboard.callback_streams AS stream SET due_at = $3, scheduled_at = $3"
        " FROM (SELECT endpoint, stream, apart FROM switchboard.callback_streams WHERE endpoint = $1 AND due_at > $3"
        " AND scheduled_at <= $2 ORDER BY due_at LIMIT 200 FOR UPDATE SKIP LOCKED) AS early"
        f" WHERE {_same('early')} AND stream.apart = early.apart"
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


class Health(Struct, kw_only=True):
    """What a batch of outcomes says about one endpoint."""

    app_id: AppId
    webhook_id: str
    taken: bool = False
    failed: bool = False
    recovered: bool = False
    status: int = 0
    error: str = ""
    answer: bytes = b""


async def save_health(connection: Connection, healths: Mapping[LaneId, Health], now: datetime) -> None:
    """Write what owners see of their endpoints."""
    if not healths:
        return
    ids = sorted(healths)
    await connection.execute(
        "INSERT INTO switchboard.callback_endpoints AS known (endpoint, app_id, webhook_id, taken_at, failing_since,"
        " recovered_at, last_status, last_error, last_answer, last_failed_at)"
        " SELECT new.endpoint, new.app_id, new.webhook_id, CASE WHEN new.taken THEN $10::timestamptz END,"
        " CASE WHEN new.failed AND NOT new.taken THEN $10 END, CASE WHEN new.recovered THEN $10 END, new.status,"
        " new.error, new.answer, CASE WHEN new.failed THEN $10 END"
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::boolean[], $6::boolean[],"
        " $7::smallint[], $8::text[], $9::bytea[])"
        " AS new (endpoint, app_id, webhook_id, taken, failed, recovered, status, error, answer)"
        " ON CONFLICT (endpoint) DO UPDATE SET taken_at = coalesce(EXCLUDED.taken_at, known.taken_at),"
        " failing_since = CASE WHEN EXCLUDED.taken_at IS NOT NULL THEN NULL"
        " ELSE coalesce(known.failing_since, EXCLUDED.failing_since) END,"
        " suspended_at = CASE WHEN EXCLUDED.taken_at IS NULL THEN known.suspended_at END,"
        " recovered_at = coalesce(EXCLUDED.recovered_at, known.recovered_at),"
        " last_status = CASE WHEN EXCLUDED.last_failed_at IS NULL THEN known.last_status"
        " ELSE EXCLUDED.last_status END,"
        " last_error = CASE WHEN EXCLUDED.last_failed_at IS NULL THEN known.last_error ELSE EXCLUDED.last_error END,"
        " last_answer = CASE WHEN EXCLUDED.last_failed_at IS NULL THEN known.last_answer"
        " ELSE EXCLUDED.last_answer END,"
        " last_failed_at = coalesce(EXCLUDED.last_failed_at, known.last_failed_at)",
        ids,
        [healths[lane].app_id for lane in ids],
        [healths[lane].webhook_id for lane in ids],
        [healths[lane].taken for lane in ids],
        [healths[lane].failed for lane in ids],
        [healths[lane].recovered for lane in ids],
        [healths[lane].status for lane in ids],
        [healths[lane].error for lane in ids],
        [healths[lane].answer for lane in ids],
        now,
    )


class Suspended(Struct, frozen=True):
    """An endpoint that was just suspended."""

    endpoint: LaneId
    project_id: str
    app_id: AppId
    webhook_id: str
    failing_since: datetime
    waiting: int
    last_status: int
    last_error: str


async def suspend(connection: Connection, failing_before: datetime, now: datetime, limit: int) -> list[Suspended]:
    """Suspend endpoints with closed gates that took nothing since `failing_before`. Returns them."""
    rows = await connection.fetch(
        "UPDATE switchboard.callback_endpoints AS endpoint SET suspended_at = $2 FROM"
        " (SELECT failing.endpoint, lane.waiting, app.project_id FROM switchboard.callback_endpoints AS failing"
        " JOIN switchboard.lanes AS lane ON lane.id = failing.endpoint AND lane.gate = 'closed'"
        " JOIN switchboard.apps AS app ON app.id = failing.app_id"
        " WHERE failing.failing_since <= $1 AND failing.suspended_at IS NULL ORDER BY failing.endpoint LIMIT $3"
        " FOR UPDATE OF failing SKIP LOCKED) AS dead"
        " WHERE endpoint.endpoint = dead.endpoint RETURNING endpoint.*, dead.waiting, dead.project_id",
        failing_before,
        now,
        limit,
    )
    return [
        Suspended(
            row["endpoint"],
            row["project_id"],
            row["app_id"],
            row["webhook_id"],
            row["failing_since"],
            row["waiting"],
            row["last_status"] or 0,
            row["last_error"] or "",
        )
        for row in rows
    ]


async def known_lanes(connection: Connection, ids: Collection[LaneId]) -> list[asyncpg.Record]:
    """Those of these lanes that exist."""
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT id FROM switchboard.lanes WHERE id = ANY ($1::text[])", list(ids)
    )
    return rows


async def listeners(connection: Connection, project_id: str, trigger: Trigger) -> list[tuple[WebhookId, AppId]]:
    """The webhooks of a project that ask for a trigger, with their apps."""
    rows = await connection.fetch(
        "SELECT id, app_id FROM switchboard.webhooks WHERE project_id = $1 AND $2 = ANY (triggers)"
        " AND target_type <> 'DISMISS' AND deleted_at IS NULL ORDER BY id",
        project_id,
        trigger.value,
    )
    return [(row["id"], row["app_id"]) for row in rows]


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
    await _enter(connection, streams, now)
    return [row["id"] for row in rows]


async def hurry(connection: Connection, ids: Collection[CallbackId], now: datetime) -> None:
    """Make heads that wait for their next try due now, unless one is under way."""
    await connection.execute(
        "UPDATE switchboard.callback_streams AS stream SET due_at = $2, scheduled_at = $2"
        " FROM switchboard.callback_events AS event WHERE event.id = ANY ($1::text[]) AND event.state = 'waiting'"
        f" AND {_same('event')} AND stream.head = event.id"
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
        _until(now, kept_seconds),
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
            f" WHERE {_same('less')} AND stream.apart = less.apart"
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
            f" WHERE {_same('less')} AND stream.apart = less.apart",
            *arguments,
            now,
        )
    return len(rows)


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
        f" WHERE {_same('held')} AND stream.apart = held.apart"
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
        f" WHERE {_same('held')} AND stream.apart = held.apart",
        *arguments,
        now,
    )


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


def _until(now: datetime, kept_seconds: float | None) -> datetime | None:
    return None if kept_seconds is None else now + timedelta(seconds=kept_seconds)


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
