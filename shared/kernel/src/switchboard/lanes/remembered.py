"""Lanes without a lock: decided about as they were seen, and written only if they still are so (ADR 0030).

Nearly everything a router does with a lane is plain: an attempt takes a slot, or gives one back. What this process
wrote of a lane last it remembers, so that the next decision needs neither a look nor a lock:

    async with memory.look(connection, limits, now) as seen:
        if seen is not None:
            …seen.lanes.reserve(asks), seen.lanes.release(ended)…
            if not seen.lanes.needs_lock:
                seen.write_into(writes)
                await seen.execute(writes, connection)

Everything else, and whatever was not as it was seen, locks its lanes (`lock_lanes`), which always gets on. What is
remembered need not be true: others change lanes as they like, and the statement finds out.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from datetime import datetime
from typing import Final
from weakref import WeakValueDictionary

from msgspec import Struct
from prometheus_client import Counter

from switchboard.ids import LaneId
from switchboard.lanes.lane import Lane, Limits
from switchboard.lanes.locked import LockedLanes, has_limits, lane_of, update
from switchboard.store.pool import Connection
from switchboard.store.writes import Unmet, Writes

#: How long a lane that had to be locked is locked by everybody in this process: there is more to come.
LOCKED_SECONDS: Final = 1.0
#: How long a lane that another process has written is read before it is decided about.
SHARED_SECONDS: Final = 60.0
#: Lanes a process remembers; of others it reads what it needs.
REMEMBERED: Final = 5_000
#: The part of the statement that locks lanes which are as they were seen.
_PART: Final = "seen_lanes"
_AS_SEEN: Final = (
    "SELECT lane.id FROM unnest($1::text[], $2::xid[]) AS seen (id, version)"
    " JOIN switchboard.lanes AS lane ON lane.id = seen.id AND lane.xmin = seen.version"
    " ORDER BY lane.id FOR UPDATE OF lane"
)
_READ: Final = "SELECT lane.*, lane.xmin AS version FROM switchboard.lanes AS lane WHERE lane.id = ANY ($1::text[])"

_moved = Counter("switchboard_lanes_moved", "Writes of lanes that were not as they had been seen: done again, locked.")


class _Known(Struct):
    lane: Lane | None = None
    version: int = 0
    locked_until: float = 0.0
    shared_until: float = 0.0


class SeenLanes:
    """Lanes as they were seen, while nobody else in this process decides about them."""

    def __init__(self, memory: "LaneMemory", lanes: LockedLanes, versions: Mapping[LaneId, int]) -> None:
        #: What the rules work on.
        self.lanes = lanes
        self._memory = memory
        self._versions = versions

    def write_into(self, writes: Writes) -> None:
        """Add the changed lanes. Required first: lanes are locked before messages."""
        changed = self.lanes.changed
        if changed:
            writes.add(_PART, _AS_SEEN, [lane.id for lane in changed], [self._versions[lane.id] for lane in changed])
            writes.require(_PART, rows=len(changed))
            update(writes, changed)

    async def execute(self, writes: Writes, connection: Connection) -> None:
        """Write everything, or nothing and raise Unmet: a lane, or what else was required, is not as it was seen."""
        changed = self.lanes.changed
        try:
            version = await writes.execute_or_nothing(connection)
        except Unmet as unmet:
            if unmet.part == _PART:
                self._memory.note_moved(lane.id for lane in changed)
            raise
        except BaseException:
            # Nobody knows whether it was written.
            self._memory.forget(lane.id for lane in changed)
            raise
        self._memory.remember(changed, version)


class LaneMemory:
    """What one process remembers of lanes, and who in it has the turn to decide about them."""

    def __init__(self, *, size: int = REMEMBERED, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._monotonic = monotonic
        self._known: OrderedDict[LaneId, _Known] = OrderedDict()
        self._turns: WeakValueDictionary[LaneId, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def look(
        self, connection: Connection, limits: Mapping[LaneId, Limits | None], now: datetime
    ) -> AsyncIterator[SeenLanes | None]:
        """Wait for the turn at these lanes, and see them as they are remembered, or read. `now` is the database's.

        None: they are to be locked. One of them does not exist, has other limits, or had to be locked a moment ago.
        """
        ids = sorted(limits)
        if self._are_locked(ids):
            yield None
            return
        async with AsyncExitStack() as turns:
            # In one order, and before any lock in the database: nobody waits for each other in a circle.
            for lane in ids:
                await turns.enter_async_context(self._turns.setdefault(lane, asyncio.Lock()))
            yield await self._see(connection, limits, now)

    def remember(self, lanes: Iterable[Lane], version: int) -> None:
        """Remember lanes as they were written. Who has locked one meanwhile has written it since, or will."""
        now = self._monotonic()
        for lane in lanes:
            known = self._of(lane.id)
            if known.locked_until <= now:
                known.lane, known.version = lane, version

    def forget(self, lanes: Iterable[LaneId]) -> None:
        """Read these lanes before they are decided about again."""
        for lane in lanes:
            self._of(lane).lane = None

    def note_locked(self, lanes: Iterable[LaneId]) -> None:
        """Lock these lanes for the next second, and read them after it: who needs a lock once needs it again."""
        until = self._monotonic() + LOCKED_SECONDS
        for lane in lanes:
            known = self._of(lane)
            known.lane, known.locked_until = None, until

    def note_moved(self, lanes: Iterable[LaneId]) -> None:
        """Read these lanes each time for a while: others write them, too."""
        _moved.inc()
        until = self._monotonic() + SHARED_SECONDS
        for lane in lanes:
            known = self._of(lane)
            known.lane, known.shared_until = None, until

    async def _see(
        self, connection: Connection, limits: Mapping[LaneId, Limits | None], now: datetime
    ) -> SeenLanes | None:
        if self._are_locked(limits):
            return None
        seen = {lane: recalled for lane in limits if (recalled := self._recall(lane)) is not None}
        if unknown := [lane for lane in limits if lane not in seen]:
            seen |= await _read(connection, unknown)
        if any(id not in seen or not has_limits(seen[id][0], limit) for id, limit in limits.items()):
            return None
        lanes = LockedLanes((lane for lane, _ in seen.values()), now)
        return SeenLanes(self, lanes, {id: version for id, (_, version) in seen.items()})

    def _recall(self, lane: LaneId) -> tuple[Lane, int] | None:
        known = self._known.get(lane)
        if known is None or known.lane is None or known.shared_until > self._monotonic():
            return None
        return copy(known.lane), known.version

    def _are_locked(self, lanes: Collection[LaneId]) -> bool:
        now = self._monotonic()
        return any(known.locked_until > now for lane in lanes if (known := self._known.get(lane)) is not None)

    def _of(self, lane: LaneId) -> _Known:
        known = self._known.setdefault(lane, _Known())
        self._known.move_to_end(lane)
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return known


async def _read(connection: Connection, lanes: Sequence[LaneId]) -> dict[LaneId, tuple[Lane, int]]:
    rows = await connection.fetch(_READ, lanes)
    return {LaneId(row["id"]): (lane_of(row), row["version"]) for row in rows}
