"""Idempotency-Key: the same request again is the same message (DESIGN 7)."""

from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from switchboard.ids import MessageId, ProjectId
from switchboard.store.pool import Pool
from switchboard.validation import Violation
from switchboard_ingress.errors import AlreadyExists, BadRequest

MAX_KEY: Final = 255
_SWEEP: Final = 10_000


class Claim(Struct, frozen=True):
    """The message a key stands for."""

    message_id: MessageId
    accepted_at: datetime
    #: The broker is known to have it: there is nothing left to do but to answer.
    published: bool


class IdempotencyKeys:
    """The keys of all projects, in PostgreSQL. A key is written before its message is produced."""

    def __init__(self, pool: Pool, remember: timedelta) -> None:
        self._pool = pool
        self._remember = remember

    async def claim(
        self, project_id: ProjectId, key: str, body: bytes, message_id: MessageId, accepted_at: datetime
    ) -> Claim:
        """Take the key for this message, or find the one that has it.

        Raises BadRequest for a key that is none, AlreadyExists if it belongs to another request.
        """
        if not key.isascii() or not key.isprintable() or len(key) > MAX_KEY:
            raise BadRequest(Violation("Idempotency-Key", f"at most {MAX_KEY} printable ASCII characters"))
        digest = blake2b(body, digest_size=32).digest()
        # Writing nothing anew still locks and returns the row; one too old to be remembered is taken over.
        row = await self._pool.fetchrow(
            "INSERT INTO switchboard.idempotency AS old (project_id, key, body_hash, message_id, accepted_at)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (project_id, key) DO UPDATE SET"
            " body_hash = CASE WHEN old.accepted_at < $6 THEN excluded.body_hash ELSE old.body_hash END,"
            " message_id = CASE WHEN old.accepted_at < $6 THEN excluded.message_id ELSE old.message_id END,"
            " accepted_at = CASE WHEN old.accepted_at < $6 THEN excluded.accepted_at ELSE old.accepted_at END,"
            " published = old.published AND old.accepted_at >= $6"
            " RETURNING body_hash, message_id, accepted_at, published",
            project_id, key, digest, message_id, accepted_at, accepted_at - self._remember,
        )  # fmt: skip
        assert row is not None
        if row["body_hash"] != digest:
            raise AlreadyExists("The Idempotency-Key was used for another request.")
        return Claim(row["message_id"], row["accepted_at"], row["published"])

    async def mark_published(self, project_id: ProjectId, key: str) -> None:
        """Note that the broker has the key's message."""
        await self._pool.execute(
            "UPDATE switchboard.idempotency SET published = true WHERE project_id = $1 AND key = $2", project_id, key
        )

    async def forget_old(self, now: datetime) -> int:
        """Delete keys too old to be remembered, a bounded number. Returns how many."""
        status = await self._pool.execute(
            "DELETE FROM switchboard.idempotency WHERE (project_id, key) IN"
            " (SELECT project_id, key FROM switchboard.idempotency WHERE accepted_at < $1"
            " ORDER BY accepted_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now - self._remember, _SWEEP,
        )  # fmt: skip
        return int(status.split()[-1])
