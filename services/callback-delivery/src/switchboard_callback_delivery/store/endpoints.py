"""How things stand at endpoints: which events may be tried, which lanes have something to try, which slots are free."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import asyncpg
from msgspec import Struct

from switchboard.ids import LaneId
from switchboard.lanes.lane import Lane, moment_of
from switchboard.lanes.locked import LockedLanes, lane_of
from switchboard.store.pool import Connection
from switchboard_callback_delivery.event import Event
from switchboard_callback_delivery.store.streams import same_stream


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


async def standings(connection: Connection, events: Sequence[Event], lanes: Collection[LaneId] = ()) -> Standings:
    """What is known of the events, and how these lanes are. Locks nothing."""
    row = await connection.fetchrow(
        "SELECT switchboard.now() AS now,"
        " ARRAY(SELECT event.id FROM unnest($1::text[]) AS asked (id)"
        " JOIN switchboard.callback_events AS event ON event.id = asked.id) AS known,"
        " ARRAY(SELECT asked.id FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (id, endpoint, stream)"
        f" JOIN switchboard.callback_streams AS stream ON {same_stream('asked')}"
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


async def known_lanes(connection: Connection, ids: Collection[LaneId]) -> list[asyncpg.Record]:
    """Those of these lanes that exist."""
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT id FROM switchboard.lanes WHERE id = ANY ($1::text[])", list(ids)
    )
    return rows
