"""Time that a test moves by hand, and records without Kafka behind them."""

import asyncio
import heapq

from switchboard.bus import Record, TopicPartition

PLACE = TopicPartition("topic", 0)


def record(offset: int, key: bytes | None = b"key", *, place: TopicPartition = PLACE, value: bytes = b"") -> Record:
    """A record at an offset."""
    return Record(place.topic, place.partition, offset, key, value, {}, 0)


class FakeClock:
    """A clock that stands still until `advance`."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def monotonic(self) -> float:
        """The time as set."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Sleep until the test has advanced so far."""
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._now + seconds, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time on, waking sleepers in order and letting what they start come to rest."""
        until = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            due, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not future.done():
                future.set_result(None)
            await settle()
        self._now = until


async def settle() -> None:
    """Let every task that can go on without time or IO go on until it cannot."""
    for _ in range(50):
        await asyncio.sleep(0)
