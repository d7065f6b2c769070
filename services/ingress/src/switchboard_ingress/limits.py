"""How much one project and one app may ask for (conversation-api 13)."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from switchboard.configuration.app import OUTBOUND_LIMIT
from switchboard.ids import AppId, ProjectId
from switchboard.store.pool import TRANSIENT_ERRORS, Pool
from switchboard_ingress.errors import TooManyRequests

#: How old a count of waiting messages may be.
_FRESH_SECONDS: Final = 1.0


class ProjectRate:
    """A token bucket for each project: `per_second` requests, as many at once. 0: no limit."""

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._buckets: dict[ProjectId, tuple[float, float]] = {}

    def take(self, project_id: ProjectId) -> None:
        """Count one request. Raises TooManyRequests."""
        if not self._per_second:
            return
        now = self._clock()
        left, then = self._buckets.get(project_id, (float(self._per_second), now))
        left = min(float(self._per_second), left + (now - then) * self._per_second)
        if left < 1:
            self._buckets[project_id] = left, now
            raise TooManyRequests(f"The project makes more than {self._per_second} requests a second.")
        self._buckets[project_id] = left - 1, now


class WaitingCounts:
    """How many messages of each app wait for a channel, known to the second and without holding up a send."""

    def __init__(self, pool: Pool, limit: int = OUTBOUND_LIMIT, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self.limit = limit
        self._clock = clock
        self._counts: dict[AppId, int] = {}
        self._read_at: dict[AppId, float] = {}
        self._reading: dict[AppId, asyncio.Task[None]] = {}

    def check(self, app_id: AppId) -> None:
        """Raises TooManyRequests if the app's line is full, as far as is known; an old count is read anew meanwhile."""
        if self._clock() - self._read_at.get(app_id, float("-inf")) > _FRESH_SECONDS and app_id not in self._reading:
            task = asyncio.create_task(self._read(app_id))
            self._reading[app_id] = task
        if self._counts.get(app_id, 0) >= self.limit:
            raise TooManyRequests(f"{self.limit} messages of the app wait already.", retry_after_seconds=5)

    async def count(self, app_id: AppId) -> int:
        """How many wait now."""
        waiting: int = await self._pool.fetchval(
            "SELECT coalesce(sum(waiting), 0)::bigint FROM switchboard.lanes"
            " WHERE kind = 'dispatch' AND id >= $1 AND id < $2",
            f"dispatch:{app_id}:", f"dispatch:{app_id};",
        )  # fmt: skip
        return waiting

    async def stop(self) -> None:
        """Let go of what is being read."""
        for task in list(self._reading.values()):
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def _read(self, app_id: AppId) -> None:
        try:
            # Without the database nothing new is planned either: the last count stays.
            with suppress(*TRANSIENT_ERRORS):
                self._counts[app_id] = await self.count(app_id)
            self._read_at[app_id] = self._clock()
        finally:
            del self._reading[app_id]
