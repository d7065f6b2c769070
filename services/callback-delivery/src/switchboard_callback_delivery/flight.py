"""Tries under way in this process, and how many of them one endpoint may have (ADR 31)."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeAlias

from msgspec import Struct

from switchboard.ids import LaneId
from switchboard_callback_delivery.metrics import DeliveryMetrics

#: An endpoint may have as many callbacks here as it is likely to answer within this time.
SOON_SECONDS: Final = 1.0
#: How much of the mean one more answer is.
_WEIGHT: Final = 1 / 8
#: No answer is taken to be quicker.
_LEAST_SECONDS: Final = 0.001
#: Of how many endpoints it is remembered how quick they are. Whoever is forgotten is a stranger again.
_REMEMBERED: Final = 10_000


class _Pace(Struct):
    """How quick an endpoint is."""

    #: From a try's beginning to its answer, on average.
    seconds: float
    #: When it last answered, or was first asked something after it had answered everything.
    heard_at: float


class Turn:
    """What one try has of its endpoint's share, from its beginning until the endpoint has answered."""

    def __init__(self, began_at: float, on_answer: Callable[["Turn"], None]) -> None:
        self.began_at = began_at
        self.is_over = False
        self._on_answer = on_answer

    def answered(self) -> None:
        """The endpoint is done with this try: the next may begin while this one is still being recorded."""
        if not self.is_over:
            self._on_answer(self)


Work: TypeAlias = Callable[[Turn], Coroutine[Any, Any, None]]


class Flights:
    """Counts and holds the tasks of tries. One endpoint never has more than its share to answer.

    More may await their turn here, in order: cheaper than rows for what goes a moment later. How many depends on how
    quick the endpoint is. They are no tries yet, and whoever brought them may still think better of it: their work
    then ends at once when its turn comes.
    """

    def __init__(
        self,
        share: int,
        metrics: DeliveryMetrics,
        *,
        least: int = 0,
        most: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An endpoint may have `share` tries to answer at once.

        All it has here, be it waiting, to be answered or being recorded, may be `least`; up to `most` if it is quick
        enough to answer them within `SOON_SECONDS`.
        """
        self._share = share
        self._least = max(share, least)
        self._most = max(self._least, most)
        self._metrics = metrics
        self._clock = clock
        #: Tries that an endpoint has yet to answer, and everything of it that is here.
        self._busy: Counter[LaneId] = Counter()
        self._held: Counter[LaneId] = Counter()
        self._queues: dict[LaneId, deque[Work]] = {}
        self._paces: dict[LaneId, _Pace] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fewer = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def room(self, endpoint: LaneId) -> int:
        """How many more tries may be begun for the endpoint."""
        return max(self._least, self._soon(endpoint)) - self._held[endpoint]

    def begin(self, endpoint: LaneId, work: Work) -> None:
        """Run a try to its end, once the endpoint has a turn for it."""
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

    def _soon(self, endpoint: LaneId) -> int:
        """How many tries the endpoint is likely to answer soon; 0 if that is not known."""
        pace = self._paces.get(endpoint)
        if pace is None or (self._busy[endpoint] and self._clock() - pace.heard_at > SOON_SECONDS):
            return 0
        return min(self._most, int(self._share * SOON_SECONDS / max(pace.seconds, _LEAST_SECONDS)))

    def _start(self, endpoint: LaneId, work: Work) -> None:
        now = self._clock()
        turn = Turn(now, partial(self._answered, endpoint))
        task = asyncio.create_task(work(turn))
        if not self._busy[endpoint] and endpoint in self._paces:
            self._paces[endpoint].heard_at = now
        self._busy[endpoint] += 1
        self._tasks.add(task)
        self._metrics.in_flight.inc()
        task.add_done_callback(partial(self._end, endpoint, turn))

    def _answered(self, endpoint: LaneId, turn: Turn) -> None:
        now = self._clock()
        seconds = now - turn.began_at
        pace = self._paces.get(endpoint)
        if pace is None:
            if len(self._paces) >= _REMEMBERED:
                self._paces.clear()
            pace = self._paces[endpoint] = _Pace(seconds, now)
        pace.seconds += _WEIGHT * (seconds - pace.seconds)
        pace.heard_at = now
        self._next(endpoint, turn)

    def _next(self, endpoint: LaneId, turn: Turn) -> None:
        """A turn is over: whoever waits for longest has it."""
        turn.is_over = True
        self._busy[endpoint] -= 1
        if queue := self._queues.get(endpoint):
            self._start(endpoint, queue.popleft())
        else:
            self._queues.pop(endpoint, None)

    def _end(self, endpoint: LaneId, turn: Turn, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._metrics.in_flight.dec()
        self._held[endpoint] -= 1
        if not turn.is_over:
            self._next(endpoint, turn)
        if not self._held[endpoint]:
            del self._busy[endpoint], self._held[endpoint]
        self._fewer.set()
        if not task.cancelled():
            task.exception()
