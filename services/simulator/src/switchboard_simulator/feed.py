"""What happens, as it happens: for the page, for `switchboard tail`, for tests.

A watcher that does not keep up is told to load everything anew (`Missed`) instead of holding anyone back.
Facts are only handed on while somebody watches, so a load test pays nothing for the page.
"""

import asyncio
from collections.abc import AsyncIterator

from msgspec import Struct

from switchboard_simulator.phones import Phone, PhoneMessage
from switchboard_simulator.receiver.record import ReceivedCallback


class PhoneChanged(Struct, frozen=True):
    """A message came to or left a phone, or changed (a button was pressed, a receipt was given)."""

    phone: Phone
    message: PhoneMessage


class CallbackReceived(Struct, frozen=True):
    """The webhook receiver took a request."""

    callback: ReceivedCallback


class Missed(Struct, frozen=True):
    """The watcher was too slow, or everything was reset: load the whole state again."""


Fact = PhoneChanged | CallbackReceived | Missed


class Feed:
    """Hands facts to everyone who watches."""

    def __init__(self, depth: int = 256) -> None:
        self._depth = depth
        self._watchers: set[asyncio.Queue[Fact | None]] = set()
        self._closed = False

    @property
    def is_watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._watchers)

    def publish(self, fact: Fact) -> None:
        """Hand a fact to all watchers. Never waits."""
        for queue in self._watchers:
            if queue.qsize() >= self._depth:
                _empty(queue)
                queue.put_nowait(Missed())
            else:
                queue.put_nowait(fact)

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        for queue in self._watchers:
            queue.put_nowait(None)

    async def watch(self, idle_seconds: float = 15.0) -> AsyncIterator[Fact | None]:
        """Facts from now on. None after `idle_seconds` without one, so that a dead connection is noticed."""
        queue: asyncio.Queue[Fact | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield None
            while not self._closed:
                try:
                    async with asyncio.timeout(idle_seconds):
                        fact = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if fact is None:
                    return
                yield fact
        finally:
            self._watchers.discard(queue)


def _empty(queue: asyncio.Queue[Fact | None]) -> None:
    while not queue.empty():
        queue.get_nowait()
