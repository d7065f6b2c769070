"""Sweeps for CONVERSATION mode: what its retention policies and deleted apps leave behind (conversation-api 12.2).

Contents with an end of their own (MESSAGE_EXPIRE_POLICY) are `sweeps.BodySweep`'s. Deletion by retention is told to
nobody: it is no change that anybody made.
"""

from typing import Final

from prometheus_client import Counter

from switchboard.store import conversations
from switchboard.store.pool import Connection, Pool

BATCH: Final = 100
_expired = Counter("switchboard_sweep_conversations", "Conversations deleted by retention, or with their app.")


class ConversationSweep:
    """Deletes conversations whose app is gone, or keeps them only for so long after their last message.

    Where an app changed to a policy that ends messages one by one, those that were kept without an end get one.
    """

    every_seconds = 60.0

    def __init__(self, pool: Pool, *, batch: int = BATCH) -> None:
        self._pool = pool
        self._batch = batch

    async def run_once(self) -> bool:
        """Delete up to a batch of conversations of each app that has any to delete."""
        async with self._pool.acquire() as connection, connection.transaction():
            now = await connection.fetchval("SELECT switchboard.now()")
            expired = [row["id"] for row in await connection.fetch(_EXPIRED, now, self._batch)]
            if expired:
                await conversations.delete(connection, expired)
                _expired.inc(len(expired))
            await connection.execute(_GIVE_AN_END, now, self._batch)
        return len(expired) >= self._batch


class ReplyContextSweep:
    """Forgets what replies bring back in dispatch mode, once the app's retention has passed."""

    every_seconds = 60.0

    def __init__(self, pool: Pool, *, batch: int = 500) -> None:
        self._pool = pool
        self._batch = batch

    async def run_once(self) -> bool:
        """Forget up to a batch."""
        async with self._pool.acquire() as connection:
            return await _forget(connection, self._batch) == self._batch


async def _forget(connection: Connection, batch: int) -> int:
    status = await connection.execute(
        "WITH due AS (SELECT app_id, channel, identity FROM switchboard.reply_contexts"
        " WHERE kept_until <= (SELECT switchboard.now() OFFSET 0) ORDER BY kept_until LIMIT $1 FOR UPDATE SKIP LOCKED)"
        " DELETE FROM switchboard.reply_contexts AS kept USING due WHERE kept.app_id = due.app_id"
        " AND kept.channel = due.channel AND kept.identity = due.identity",
        batch,
    )
    return int(status.rsplit(" ", 1)[1])


#: Skips what a router or a client is busy with: it comes again.
_EXPIRED: Final = """
SELECT gone.id FROM switchboard.apps AS app CROSS JOIN LATERAL (
    SELECT c.id FROM switchboard.conversations AS c WHERE c.app_id = app.id
    AND (app.deleted_at IS NOT NULL OR COALESCE(c.last_received, c.created_at)
         < $1::timestamptz - make_interval(days => (app.settings #>> '{retention_policy,ttl_days}')::integer))
    ORDER BY COALESCE(c.last_received, c.created_at) LIMIT $2 FOR UPDATE SKIP LOCKED
) AS gone
WHERE app.deleted_at IS NOT NULL OR app.settings #>> '{retention_policy,retention_type}' = 'CONVERSATION_EXPIRE_POLICY'
"""
_GIVE_AN_END: Final = """
WITH endless AS (
    SELECT old.id, old.until FROM switchboard.apps AS app CROSS JOIN LATERAL (
        SELECT m.id, m.accepted_at + kept.days AS until
        FROM (SELECT make_interval(days => (app.settings #>> '{retention_policy,ttl_days}')::integer) AS days) AS kept,
             switchboard.messages AS m
        WHERE m.app_id = app.id AND m.mode = 'CONVERSATION' AND m.body IS NOT NULL
        AND m.accepted_at < $1::timestamptz - kept.days AND m.body_until > $1
        ORDER BY m.accepted_at LIMIT $2 FOR UPDATE OF m SKIP LOCKED
    ) AS old
    WHERE app.settings #>> '{retention_policy,retention_type}' = 'MESSAGE_EXPIRE_POLICY'
)
UPDATE switchboard.messages AS m SET body_until = endless.until FROM endless WHERE m.id = endless.id
"""
