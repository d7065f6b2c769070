"""Lanes nobody has used for long: their rows go, and are made again by whoever plans for them."""

from datetime import timedelta
from typing import Final

from prometheus_client import Counter

from switchboard.store.pool import Pool

#: How long after its last slot a lane is remembered: what its gate and pace had learned is old news by then.
IDLE_AFTER: Final = timedelta(days=1)
BATCH: Final = 500
_removed = Counter("switchboard_lanes_removed", "Lanes that were removed for nobody had used them.")


class IdleLanes:
    """A sweep over lanes without anybody waiting or under way, whose gates are open.

    It leaves out what a planner or drainer has locked. Who waits for a row that is being removed here makes it anew
    (`lock_lanes`).
    """

    every_seconds = 600.0

    def __init__(self, pool: Pool, *, batch: int = BATCH) -> None:
        self._pool = pool
        self._batch = batch

    async def run_once(self) -> bool:
        """Remove up to a batch. Returns whether there are probably more."""
        async with self._pool.acquire() as connection:
            removed = await connection.fetch(REMOVE, IDLE_AFTER, self._batch)
        _removed.inc(len(removed))
        return len(removed) == self._batch


#: A lane's `tat` lies at or behind its last slot. A dead owner's lease runs out by itself.
REMOVE: Final = """
WITH idle AS MATERIALIZED (
    SELECT id FROM switchboard.lanes
    WHERE waiting = 0 AND in_flight = 0 AND gate = 'open' AND tat < (SELECT switchboard.now() OFFSET 0) - $1::interval
      AND (lease_until IS NULL OR lease_until < (SELECT switchboard.now() OFFSET 0))
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM switchboard.lanes AS lane USING idle WHERE lane.id = idle.id RETURNING lane.id
"""
