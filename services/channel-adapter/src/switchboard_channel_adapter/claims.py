"""Claims: who may submit an attempt, decided by its row (DESIGN 5, invariant I4)."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from switchboard.bus import Transient
from switchboard.ids import MessageId
from switchboard.records import DispatchMessage
from switchboard.store.group_commit import GroupCommit
from switchboard.store.pool import TRANSIENT_ERRORS, Pool

AttemptKey = tuple[MessageId, int, int]

# Planned and in time; or claimed by this very process in a try whose answer was lost, and so never submitted.
# The rows are locked in the order of their ids; a row that another instance had first is looked at again.
_CLAIM: Final = """
WITH claimable AS (
    SELECT a.message_id, a.step, a.submission
    FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::boolean[])
         AS asked (message_id, step, submission, in_doubt)
    JOIN switchboard.attempts a USING (message_id, step, submission)
    WHERE (a.state = 'planned' OR (asked.in_doubt AND a.state = 'claimed' AND a.claimed_by = $5))
      AND a.send_before > switchboard.now()
    ORDER BY a.message_id, a.step, a.submission
    FOR UPDATE OF a
)
UPDATE switchboard.attempts a
SET state = 'claimed', claimed_at = COALESCE(a.claimed_at, now.now), claimed_by = $5
FROM claimable c, (SELECT switchboard.now() AS now) now
WHERE a.message_id = c.message_id AND a.step = c.step AND a.submission = c.submission
RETURNING a.message_id, a.step, a.submission, now.now AS claimed_at,
          extract(epoch FROM a.send_before - now.now)::float8 AS seconds_left
"""

# Nobody claimed it, and its time has passed or has just been moved on: what becomes of it is about to be decided.
_UNDECIDED: Final = """
SELECT message_id, step, submission FROM switchboard.attempts
JOIN unnest($1::text[], $2::smallint[], $3::integer[]) AS asked (message_id, step, submission)
USING (message_id, step, submission)
WHERE state = 'planned' AND send_before IS NOT NULL
"""


class Undecided(Transient):
    """The attempt's time has passed and the router has not said yet what follows.

    Its record waits: were it finished, the attempt published once more would come after later ones to the same person.
    """


class Claim(Struct, frozen=True):
    """The right to submit one attempt, once."""

    #: The database's time of the claim.
    claimed_at: datetime
    #: Monotonic: at this moment and later not a byte may be written.
    send_before: float


class Claims:
    """Claims attempts in batches, for one process."""

    def __init__(self, pool: Pool, owner: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`owner` names this process and no other one, also not the one before it."""
        self._pool = pool
        self._owner = owner
        self._monotonic = monotonic
        self._in_doubt: set[AttemptKey] = set()
        self._group: GroupCommit[DispatchMessage, Claim | Undecided | None] = GroupCommit(self._claim)

    async def claim(self, order: DispatchMessage) -> Claim | None:
        """Claim the attempt. None if it is not this process's to send.

        Raises Undecided while that is not known, and what the database raises.
        """
        found = await self._group.submit(order)
        if isinstance(found, Undecided):
            raise found
        return found

    async def _claim(self, orders: Sequence[DispatchMessage]) -> list[Claim | Undecided | None]:
        keys = [attempt_key(order) for order in orders]
        ids, steps, submissions = (list(column) for column in zip(*keys, strict=True))
        in_doubt = [key in self._in_doubt for key in keys]
        before = self._monotonic()
        try:
            rows = await self._pool.fetch(_CLAIM, ids, steps, submissions, in_doubt, self._owner)
            undecided = await self._undecided(keys) if len(rows) < len(keys) else set()
        except TRANSIENT_ERRORS:
            # The claim may be committed although nobody heard of it.
            self._in_doubt.update(keys)
            raise
        self._in_doubt.difference_update(keys)
        claims = {
            (row["message_id"], row["step"], row["submission"]): Claim(row["claimed_at"], before + row["seconds_left"])
            for row in rows
        }
        # Of two orders for one attempt in a batch only the first is this process's to send.
        return [claims.pop(key, None) or (Undecided() if key in undecided else None) for key in keys]

    async def _undecided(self, keys: Sequence[AttemptKey]) -> set[AttemptKey]:
        ids, steps, submissions = (list(column) for column in zip(*keys, strict=True))
        rows = await self._pool.fetch(_UNDECIDED, ids, steps, submissions)
        return {(row["message_id"], row["step"], row["submission"]) for row in rows}


def attempt_key(order: DispatchMessage) -> AttemptKey:
    """What the attempt's row is known by."""
    return order.message_id, order.step, order.submission
