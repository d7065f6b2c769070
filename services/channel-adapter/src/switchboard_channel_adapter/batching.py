"""Group commit: what several tasks want done at once is done together.

A batch begins as soon as a worker is free; what arrives meanwhile is the next one. So a lone item waits for nothing
and a flood is worked off in large batches.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from switchboard.store.pool import TRANSIENT_ERRORS

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Batcher(Generic[ItemT, ResultT]):
    """Collects items into calls of `work`, which returns one result for each, in order.

    An error of `work` goes to every caller of the batch. If it is one of the data, each item is tried alone first,
    so that one bad item harms nobody else; `work` must therefore leave nothing behind when it raises.
    """

    def __init__(
        self,
        work: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        max_batch: int = 500,
        workers: int = 2,
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._free = workers
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: ItemT) -> ResultT:
        """Have `item` done with the next batch. Raises what `work` raises."""
        done: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._serve())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await done

    async def _serve(self) -> None:
        try:
            while self._waiting:
                batch = list(islice(self._waiting, self._max_batch))
                for _ in batch:
                    self._waiting.popleft()
                await self._finish([entry for entry in batch if not entry[1].done()])
        finally:
            self._free += 1

    async def _finish(self, batch: Sequence[tuple[ItemT, "asyncio.Future[ResultT]"]]) -> None:
        if not batch:
            return
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001  # goes to whoever asked
            if len(batch) > 1 and not isinstance(error, TRANSIENT_ERRORS):
                for entry in batch:
                    await self._finish([entry])
                return
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)
