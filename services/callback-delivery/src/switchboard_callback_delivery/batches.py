"""Writes what any number of tries bring, in batches, one after the other: whatever came meanwhile is the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from msgspec import Struct

from switchboard.store.pool import TRANSIENT_ERRORS
from switchboard_callback_delivery.event import Outcome

log = structlog.get_logger()

_MOST: Final = 500
_RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class _Waiting(Struct):
    """An outcome and who waits for it to be written."""

    outcome: Outcome
    written: "asyncio.Future[None]"


class Batches:
    """One line of outcomes on their way to the database."""

    def __init__(self, write: Callable[[Sequence[Outcome]], Awaitable[None]]) -> None:
        """`write` writes them all, or raises and has written none."""
        self._write = write
        self._queue: list[_Waiting] = []
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin writing."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what is there, then end. If the database is away, what is unwritten is tried again by others."""
        self._stopping = True
        self._some.set()
        if self._task is not None:
            await self._task

    async def add(self, outcome: Outcome) -> None:
        """Return once the outcome is written. Raises what makes this one outcome impossible to write."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(outcome, written))
        self._some.set()
        await written

    async def _run(self) -> None:
        while not self._stopping or self._queue:
            await self._some.wait()
            batch, self._queue = self._queue[:_MOST], self._queue[_MOST:]
            if not self._queue and not self._stopping:
                self._some.clear()
            if batch:
                await self._write_all(batch)

    async def _write_all(self, batch: Sequence[_Waiting]) -> None:
        tries = 0
        while True:
            try:
                await self._write([waiting.outcome for waiting in batch])
            except TRANSIENT_ERRORS as error:
                if self._stopping and tries >= len(_RETRY_SECONDS):
                    _fail(batch, error)
                    return
                log.warning("outcomes cannot be written yet", outcomes=len(batch), error=type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
                tries += 1
            except Exception as error:  # noqa: BLE001  # a bad row is told to whoever tried it, the others are written
                if len(batch) == 1:
                    log.error("an outcome cannot be written", error=type(error).__name__)
                    _fail(batch, error)
                    return
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    await self._write_all(half)
                return
            else:
                for waiting in batch:
                    if not waiting.written.done():
                        waiting.written.set_result(None)
                return


def _fail(batch: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in batch:
        if not waiting.written.done():
            waiting.written.set_exception(error)
