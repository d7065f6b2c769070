"""What waits in the lanes of apps that were deleted: it is told to be abandoned, and the router ends it."""

from datetime import timedelta
from typing import Final

import structlog

from switchboard.lanes.drainer import TellAbandoned
from switchboard.lanes.round import ABANDON_CHUNK, mark_abandoned
from switchboard.records import StepAbandoned
from switchboard.rules.progress import APP_GONE
from switchboard.store.pool import Pool

#: How long a told step has to lead to something before it is told again.
TELL_AGAIN: Final = timedelta(seconds=60)
log = structlog.get_logger()


class GoneApps:
    """A sweep over lanes of deleted apps. Decides nothing: each message ends when its record is handled."""

    every_seconds = 2.0

    def __init__(self, pool: Pool, tell: TellAbandoned) -> None:
        self._pool = pool
        self._tell = tell

    async def run_once(self) -> bool:
        """Tell up to a chunk of waiting steps. Returns whether there is probably more."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_WAITING, ABANDON_CHUNK, TELL_AGAIN)
        if not rows:
            return False
        keys = [(row["message_id"], row["step"], row["submission"]) for row in rows]
        await self._tell([StepAbandoned(*key, reason=APP_GONE, fails_message=True) for key in keys])
        async with self._pool.acquire() as connection:
            await mark_abandoned(connection, keys)
        log.info("messages_of_deleted_apps_end", told=len(keys))
        return len(rows) == ABANDON_CHUNK


#: Those being published go out.
_WAITING: Final = """
SELECT item.message_id, item.step, item.submission
FROM switchboard.lanes AS lane
JOIN switchboard.apps AS app ON app.id = split_part(lane.id, ':', 2) AND app.deleted_at IS NOT NULL
CROSS JOIN LATERAL (
    SELECT message_id, step, submission FROM switchboard.lane_items AS item
    WHERE item.lane = lane.id AND item.token IS NULL
      AND (item.abandoned_at IS NULL OR item.abandoned_at <= switchboard.now() - $2::interval)
    ORDER BY item.priority, item.sequence LIMIT $1
) AS item
WHERE lane.kind = 'dispatch' AND lane.waiting > 0 LIMIT $1
"""
