"""Tries under way in this process, and how many of them one endpoint may have."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from switchboard.ids import LaneId
from switchboard_callback_delivery.metrics import DeliveryMetrics

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Flights:
    """Counts and holds the tasks of tries. One endpoint never has more than its share.

    A few more may await their turn here, in order: cheaper than rows for what goes a moment later. They are no tries
    yet, and whoever brought them may still think better of it: their work then ends at once when its turn comes.
    """

    def __init__(self, share: int, metrics: DeliveryMetrics, *, waiting: int = 0) -> None:
        """`waiting` is how many may await their turn for one endpoint."""
        self._share = share
        self._most = share + waiting
        self._metrics = metrics
        #: Tries under way, and those with what awaits its turn.
        self._busy: Counter[LaneId] = Counter()
        self._held: Counter[LaneId] = Counter()
        self._queues: dict[LaneId, deque[Work]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fewer = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def room(self, endpoint: LaneId) -> int:
        """How many more tries may be begun for the endpoint."""
        return self._most - self._held[endpoint]

    def begin(self, endpoint: LaneId, work: Work) -> None:
        """Run a try to its end, once it is the endpoint's turn."""
        self._held[endpoint] += 1
        if self._busy[endpoint] < self._share:
            self._start(endpoint, work)
        else:
            self._queues.setdefault(endpoint, deque()).append(work)

    async def fewer(self) -> None:
        """Wait until a try ends."""
        self._fewer.clear()
        await self._fewer.wait()

    async def stop(self, seconds: float) -> None:
        """Let tries end by themselves for so long, then cut them off: others will make them again."""
        self._queues.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, endpoint: LaneId, work: Work) -> None:
        task = asyncio.create_task(work())
        self._busy[endpoint] += 1
        self._tasks.add(task)
        self._metrics.in_flight.inc()
        task.add_done_callback(lambda done: self._end(endpoint, done))

    def _end(self, endpoint: LaneId, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._metrics.in_flight.dec()
        self._busy[endpoint] -= 1
        self._held[endpoint] -= 1
        if queue := self._queues.get(endpoint):
            self._start(endpoint, queue.popleft())
        else:
            self._queues.pop(endpoint, None)
            if not self._held[endpoint]:
                del self._busy[endpoint], self._held[endpoint]
        self._fewer.set()
        if not task.cancelled():
            task.exception()
