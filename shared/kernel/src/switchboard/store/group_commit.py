"""Group commit: what several tasks want done at once is done together.

A batch begins as soon as a worker is free; what arrives meanwhile is the next one. So a lone item waits for nothing
and a flood is worked off in large batches.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

import structlog

from switchboard.store.pool import TRANSIENT_ERRORS

log = structlog.get_logger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_Entry: TypeAlias = tuple[ItemT, asyncio.Future[ResultT]]


class GroupCommit(Generic[ItemT, ResultT]):
    """Collects items into calls of `work`, which returns one result for each, in order.

    `work` must leave nothing behind when it raises. An error of the data halves the batch until the bad item is alone
    (ADR 10): it goes to whoever submitted that one, and harms nobody else. A transient error goes to
    every caller of the batch, or the batch is tried again.
    """

    def __init__(
        self,
        work: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        max_batch: int = 500,
        workers: int = 2,
        transient: tuple[type[Exception], ...] = TRANSIENT_ERRORS,
        retry_seconds: Sequence[float] = (),
        keeps_abandoned: bool = False,
    ) -> None:
        """At most `workers` calls of `work` are under way at once, with `max_batch` items each.

        `transient`: the errors that say nothing about the items.
        `retry_seconds`: the pauses after which a batch is tried again on transient errors, the last of them for as
        long as it takes. Empty: callers are told at once.
        `keeps_abandoned`: an item whose caller gave up before its batch began is done all the same, not dropped.
        """
        self._work = work
        self._max_batch = max_batch
        self._free = workers
        self._transient = transient
        self._retry_seconds = retry_seconds
        self._keeps_abandoned = keeps_abandoned
        self._waiting: deque[_Entry[ItemT, ResultT]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False

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

    async def stop(self) -> None:
        """Return once nothing is waiting. From now on a batch is tried again as often as there are pauses, no more."""
        self._stopping = True
        while self._running:
            await asyncio.wait(self._running)

    async def _serve(self) -> None:
        try:
            while self._waiting:
                batch = list(islice(self._waiting, self._max_batch))
                for _ in batch:
                    self._waiting.popleft()
                await self._finish(batch)
        finally:
            self._free += 1

    async def _finish(self, batch: Sequence[_Entry[ItemT, ResultT]]) -> None:
        tries = 0
        while wanted := [entry for entry in batch if self._keeps_abandoned or not entry[1].done()]:
            try:
                results = await self._work([item for item, _ in wanted])
            except self._transient as error:
                if not self._is_tried_again(tries):
                    _fail(wanted, error)
                    return
                log.warning("a batch cannot be committed yet", items=len(wanted), error=type(error).__name__)
                await asyncio.sleep(self._retry_seconds[min(tries, len(self._retry_seconds) - 1)])
                tries += 1
            except Exception as error:  # noqa: BLE001  # goes to whoever asked
                if len(wanted) == 1:
                    _fail(wanted, error)
                    return
                half = len(wanted) // 2
                await self._finish(wanted[:half])
                await self._finish(wanted[half:])
                return
            else:
                for (_, done), result in zip(wanted, results, strict=True):
                    if not done.done():
                        done.set_result(result)
                return

    def _is_tried_again(self, tries: int) -> bool:
        return tries < len(self._retry_seconds) or bool(self._retry_seconds and not self._stopping)


def _fail(batch: Sequence[_Entry[ItemT, ResultT]], error: Exception) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)
