"""Tries under way in this process, and how many of them one endpoint may have."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from switchboard.ids import LaneId
from switchboard_callback_delivery.metrics import DeliveryMetrics


class Flights:
    """Counts and holds the tasks of tries. One endpoint never has more than its share."""

    def __init__(self, share: int, metrics: DeliveryMetrics) -> None:
        self._share = share
        self._metrics = metrics
        self._busy: Counter[LaneId] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fewer = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def room(self, endpoint: LaneId) -> int:
        """How many more tries the endpoint may have at once."""
        return self._share - self._busy[endpoint]

    def begin(self, endpoint: LaneId, work: Coroutine[Any, Any, None]) -> None:
        """Run a try to its end."""
        task = asyncio.create_task(work)
        self._busy[endpoint] += 1
        self._tasks.add(task)
        self._metrics.in_flight.inc()
        task.add_done_callback(lambda done: self._end(endpoint, done))

    async def fewer(self) -> None:
        """Wait until a try ends."""
        self._fewer.clear()
        await self._fewer.wait()

    async def stop(self, seconds: float) -> None:
        """Let tries end by themselves for so long, then cut them off: others will make them again."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self, endpoint: LaneId, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._metrics.in_flight.dec()
        self._busy[endpoint] -= 1
        if not self._busy[endpoint]:
            del self._busy[endpoint]
        self._fewer.set()
        if not task.cancelled():
            task.exception()
