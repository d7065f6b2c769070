"""Who may be claimed now: what can be written at once, and no channel or account more than its share (DESIGN 5).

A process has so many slots. One account holds a quarter of them at most, so that a provider that hangs leaves the
others theirs. Half of them belong to the channels in equal parts, so that a channel whose accounts all hang leaves the
other channels something to go on with. A slot is held from before the claim until the outcome is published, which also
bounds what a process keeps in memory while the database is away.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection
from typing import Final, TypeVar

from switchboard.identity import ChannelName
from switchboard.ids import AccountKey

#: How long a record waits for its turn before its attempt ends as throttled.
PATIENCE_SECONDS: Final = 1.0
#: How often a waiting record looks for what nobody announces: a bind that came up, a window that opened, a slot that
#: another channel gave back.
_LOOK_SECONDS: Final = 0.1
_SHARE: Final = 4

T = TypeVar("T")


def admissions(
    slots: int, channels: Collection[ChannelName], *, patience_seconds: float = PATIENCE_SECONDS
) -> dict[ChannelName, "Admission"]:
    """Divide the slots of a process among its channels: half in equal parts, the rest for whoever needs more."""
    own = slots // (2 * len(channels))
    shared = SharedSlots(slots - own * len(channels))
    most = max(1, slots // _SHARE)
    return {channel: Admission(own, shared, most=most, patience_seconds=patience_seconds) for channel in channels}


class SharedSlots:
    """Slots that belong to no channel."""

    def __init__(self, free: int) -> None:
        self.free = free


class Admission:
    """The slots of one channel and the accounts in them."""

    def __init__(self, own: int, shared: SharedSlots, *, most: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """The channel has `own` slots and takes `shared` ones beyond them. An account gets `most`."""
        self._own_free = own
        self._shared = shared
        #: How many of the shared ones it has.
        self._borrowed = 0
        self._most = most
        self._held: Counter[AccountKey] = Counter()
        self._waiting: defaultdict[AccountKey, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._patience_seconds = patience_seconds

    async def enter(self, account: AccountKey, ready: Callable[[], T | None]) -> T | None:
        """Take a slot once there is one and `ready` offers a way to write. None: there was neither in time.

        `ready` is asked only with a slot in hand; what it returns is handed out with the slot.
        """
        if (offer := self._try(account, ready)) is not None:
            return offer
        if len(self._waiting[account]) >= self._most:
            return None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_seconds
        while (left := deadline - loop.time()) > 0:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting[account].append(turn)
            timer = loop.call_later(min(left, _LOOK_SECONDS), _wake, turn)
            try:
                await turn
            finally:
                timer.cancel()
                self._forget(account, turn)
            if (offer := self._try(account, ready)) is not None:
                return offer
        return None

    def leave(self, account: AccountKey) -> None:
        """Give the slot back: a shared one first, for others may need it."""
        if self._borrowed:
            self._borrowed -= 1
            self._shared.free += 1
        else:
            self._own_free += 1
        self._held[account] -= 1
        if not self._held[account]:
            del self._held[account]
        waiting = self._waiting.get(account) or next((turns for turns in self._waiting.values() if turns), None)
        if waiting:
            _wake(waiting[0])

    @property
    def held(self) -> int:
        """Slots taken."""
        return sum(self._held.values())

    def _try(self, account: AccountKey, ready: Callable[[], T | None]) -> T | None:
        if self._held[account] >= self._most or not (self._own_free or self._shared.free):
            return None
        offer = ready()
        if offer is not None:
            self._held[account] += 1
            if self._own_free:
                self._own_free -= 1
            else:
                self._shared.free -= 1
                self._borrowed += 1
        return offer

    def _forget(self, account: AccountKey, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting[account]
        if turn in turns:
            turns.remove(turn)
        if not turns:
            del self._waiting[account]


def _wake(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)
