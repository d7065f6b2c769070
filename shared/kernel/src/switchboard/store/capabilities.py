"""What channels said about people, as long as it is believed (conversation-api 4.7)."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from switchboard.ids import AppId
from switchboard.records import CapabilityAnswered
from switchboard.store.pool import Connection

#: The answer that keeps a channel out of routes.
NO_CAPABILITY: Final = "NO_CAPABILITY"

_REMEMBER: Final = """
INSERT INTO switchboard.capabilities (app_id, channel, identity, status, answered_at, kept_until)
SELECT DISTINCT ON (app_id, channel, identity) app_id, channel, identity, status, answered_at, answered_at + $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
     AS told (app_id, channel, identity, status, answered_at)
ORDER BY app_id, channel, identity, answered_at DESC
ON CONFLICT (app_id, channel, identity) DO UPDATE
SET status = excluded.status, answered_at = excluded.answered_at, kept_until = excluded.kept_until
WHERE switchboard.capabilities.answered_at <= excluded.answered_at
"""
_WITHOUT: Final = """
SELECT known.app_id, known.channel, known.identity
FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (app_id, channel, identity)
JOIN switchboard.capabilities AS known USING (app_id, channel, identity)
WHERE known.status = 'NO_CAPABILITY' AND known.kept_until > switchboard.now()
"""

Person = tuple[AppId, str, str]


async def remember(connection: Connection, answers: Sequence[CapabilityAnswered], keep: timedelta) -> None:
    """Keep the latest answers."""
    if not answers:
        return
    rows = [(a.app_id, a.identity.channel, a.identity.identity, a.status, a.answered_at) for a in answers]
    await connection.execute(_REMEMBER, *([*column] for column in zip(*rows, strict=True)), keep)


async def without(connection: Connection, people: Collection[Person]) -> set[Person]:
    """Which of these people, as (app, channel, identity), their channel is known not to reach."""
    if not people:
        return set()
    columns = ([*column] for column in zip(*sorted(people), strict=True))
    rows = await connection.fetch(_WITHOUT, *columns)
    return {(AppId(row["app_id"]), row["channel"], row["identity"]) for row in rows}
