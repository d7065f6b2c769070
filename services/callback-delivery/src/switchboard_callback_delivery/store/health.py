"""What owners see of their endpoints: what was taken and refused, and which are suspended for it."""

from collections.abc import Collection, Mapping
from datetime import datetime

from msgspec import Struct

from switchboard.ids import AppId, LaneId, WebhookId
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger


class KnownHealth(Struct, frozen=True):
    """What was written of an endpoint's health before."""

    taken_at: datetime | None
    is_suspended: bool


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


async def known_healths(connection: Connection, endpoints: Collection[LaneId]) -> dict[LaneId, KnownHealth]:
    """What is known of the health of these endpoints."""
    rows = await connection.fetch(
        "SELECT endpoint, taken_at, suspended_at FROM switchboard.callback_endpoints WHERE endpoint = ANY ($1::text[])",
        list(endpoints),
    )
    return {row["endpoint"]: KnownHealth(row["taken_at"], row["suspended_at"] is not None) for row in rows}


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


async def listeners(connection: Connection, project_id: str, trigger: Trigger) -> list[tuple[WebhookId, AppId]]:
    """The webhooks of a project that ask for a trigger, with their apps."""
    rows = await connection.fetch(
        "SELECT id, app_id FROM switchboard.webhooks WHERE project_id = $1 AND $2 = ANY (triggers)"
        " AND target_type <> 'DISMISS' AND deleted_at IS NULL ORDER BY id",
        project_id,
        trigger.value,
    )
    return [(row["id"], row["app_id"]) for row in rows]
