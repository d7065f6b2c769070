"""Who left which list of an app, and the record of every change (conversation-api 4.8, 14)."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

from switchboard.configuration import App
from switchboard.identity import ChannelIdentity
from switchboard.ids import AppId, ProjectId
from switchboard.rules.consent import ConsentList, ContentType, is_blocked
from switchboard.store.pool import Connection, Pool


class Origin(StrEnum):
    """Who asked for a change: a person (or their carrier), or an operator."""

    ORIGIN_MO = "ORIGIN_MO"
    ORIGIN_API = "ORIGIN_API"


class Change(Struct, frozen=True):
    """A person leaves a list, or comes back to what it is about."""

    app_id: AppId
    project_id: ProjectId
    identity: str
    list_type: ConsentList
    leaves: bool
    origin: Origin
    #: The same cause changes nothing twice.
    cause: str
    at: datetime


class Asked(Struct, frozen=True):
    """A message that is about to be sent to somebody."""

    app: App
    identity: ChannelIdentity
    content_type: ContentType


class AuditRecord(Struct, frozen=True):
    """One change, as the API shows it."""

    origin: str
    operation: str
    list_type: str
    project_id: str
    app_id: str
    at: datetime


_CHANGE: Final = """
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::text[],
                         $8::timestamptz[])
    AS asked (app_id, project_id, identity, list_type, leaves, origin, cause, at)
), fresh AS (
    INSERT INTO switchboard.consent_audit (app_id, identity, cause, list_type, project_id, origin, operation, at)
    SELECT asked.app_id, asked.identity, asked.cause, asked.list_type, asked.project_id, asked.origin,
           CASE WHEN NOT asked.leaves THEN 'OPERATION_DELETE'
                WHEN consent.app_id IS NULL THEN 'OPERATION_INSERT' ELSE 'OPERATION_UPDATE' END,
           asked.at
    FROM asked LEFT JOIN switchboard.consents AS consent USING (app_id, list_type, identity)
    ORDER BY asked.app_id, asked.identity, asked.cause
    ON CONFLICT DO NOTHING
    RETURNING app_id, identity, list_type, operation, at
), added AS (
    INSERT INTO switchboard.consents (app_id, identity, list_type, since)
    SELECT app_id, identity, list_type, at FROM fresh WHERE operation <> 'OPERATION_DELETE'
    ORDER BY app_id, list_type, identity
    ON CONFLICT (app_id, list_type, identity) DO UPDATE SET since = excluded.since
)
DELETE FROM switchboard.consents AS consent USING fresh
WHERE fresh.operation = 'OPERATION_DELETE' AND consent.app_id = fresh.app_id
  AND consent.list_type = fresh.list_type AND consent.identity = fresh.identity
"""
_LISTS: Final = """
SELECT consent.app_id, consent.identity, consent.list_type
FROM unnest($1::text[], $2::text[]) AS asked (app_id, identity)
JOIN switchboard.consents AS consent USING (app_id, identity)
"""


async def change(connection: Connection, changes: Sequence[Change]) -> None:
    """Apply changes in the caller's transaction, in their order. Known causes are skipped."""
    for several in _apart(changes):
        rows = [(c.app_id, c.project_id, c.identity, c.list_type, c.leaves, c.origin, c.cause, c.at) for c in several]
        await connection.execute(_CHANGE, *([*column] for column in zip(*rows, strict=True)))


def _apart(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """The changes in runs that touch no row of a list twice: one statement could not tell which comes first."""
    run: dict[tuple[AppId, ConsentList, str], Change] = {}
    for change in changes:
        row = change.app_id, change.list_type, change.identity
        if row in run:
            yield list(run.values())
            run = {}
        run[row] = change
    if run:
        yield list(run.values())


async def lists_of(
    connection: Connection, people: Collection[tuple[AppId, str]]
) -> dict[tuple[AppId, str], set[ConsentList]]:
    """The lists that people, as (app, identity), are on. Who is on none is not there."""
    found: dict[tuple[AppId, str], set[ConsentList]] = {}
    if people:
        apps, identities = (list(column) for column in zip(*sorted(people), strict=True))
        for row in await connection.fetch(_LISTS, apps, identities):
            found.setdefault((AppId(row["app_id"]), row["identity"]), set()).add(ConsentList(row["list_type"]))
    return found


async def blocked(connection: Connection, asked: Collection[Asked]) -> set[tuple[AppId, str, ContentType]]:
    """Which of these may not be sent, as (app, identity, kind of message). One statement, and none without consent."""
    lists = await lists_of(connection, {(one.app.id, one.identity.identity) for one in asked if one.app.consent.blocks})
    return {
        (one.app.id, one.identity.identity, one.content_type)
        for one in asked
        if is_blocked(one.content_type, lists.get((one.app.id, one.identity.identity), ()))
    }


async def page(pool: Pool, app_id: AppId, list_type: ConsentList, after: str | None, limit: int) -> list[str]:
    """Identities on a list, in their order, after one of them."""
    rows = await pool.fetch(
        "SELECT identity FROM switchboard.consents WHERE app_id = $1 AND list_type = $2 AND identity > $3"
        " ORDER BY identity LIMIT $4",
        app_id, list_type, after or "", limit,
    )  # fmt: skip
    return [row["identity"] for row in rows]


async def audit(pool: Pool, app_id: AppId, identity: str) -> list[AuditRecord]:
    """Every change of one identity's consent, oldest first."""
    rows = await pool.fetch(
        "SELECT origin, operation, list_type, project_id, app_id, at FROM switchboard.consent_audit"
        " WHERE app_id = $1 AND identity = $2 ORDER BY at, cause",
        app_id, identity,
    )  # fmt: skip
    return [AuditRecord(*row) for row in rows]
