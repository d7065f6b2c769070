"""Which records may be handed to a handler: the oldest unfinished one of each key, and only once. Pure.

A record is *waiting* behind its key, *ready*, *in hand* (a handler has it), *set aside* until a due time, or
*finished*. A key may stay *held* after its record is finished: the offset moves on, the next record of the key does
not start. Holds outlive an assignment, because the slow call they stand for does.

An assignment of a partition is a `Line`. Revoking drops the line: whatever still refers to it moves nothing. A record
in hand at that moment keeps its key held until its handler is through: should this process get the partition again,
it does not start the record a second time beside the first.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence

from switchboard.bus.errors import WaitCause
from switchboard.bus.offsets import OffsetTracker
from switchboard.bus.policy import UNTROUBLED, Trouble
from switchboard.bus.record import Record, TopicPartition


class Line:
    """One partition during one assignment."""

    __slots__ = ("alive", "arrivals", "followers", "in_hand", "offsets", "place", "revoking")

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.alive = True
        self.revoking = False
        self.in_hand: set[Ticket] = set()
        self.offsets = OffsetTracker()
        #: Keys with a record ready, in hand, set aside or held, and the records waiting behind it.
        self.followers: dict[bytes, deque[Ticket] | None] = {}
        #: (one past the last offset, when) of each lot of records, to tell the age of the oldest unfinished.
        self.arrivals: deque[tuple[int, float]] = deque()


class Ticket:
    """A record on its way through the bus."""

    __slots__ = ("finished", "line", "record", "trouble")

    def __init__(self, record: Record, line: Line) -> None:
        self.record = record
        self.line = line
        self.trouble: Trouble = UNTROUBLED
        self.finished = False


class Scheduler:
    """Hands out records so that a key is never worked on twice at once nor out of order."""

    def __init__(self) -> None:
        self._lines: dict[TopicPartition, Line] = {}
        self._ready: deque[Ticket] = deque()
        self._aside: list[tuple[float, int, list[Ticket], WaitCause | None]] = []
        self._asides = 0
        self._held: Counter[tuple[TopicPartition, bytes]] = Counter()
        self._aside_first = True

    def arrive(self, place: TopicPartition, records: Iterable[Record], now: float) -> int:
        """Take records of one partition, in offset order. Returns how many were new."""
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = Line(place)
        offsets, followers, ready, held = line.offsets, line.followers, self._ready, self._held
        new = 0
        last = 0
        for record in records:
            if not offsets.arrive(record.offset):
                continue
            new += 1
            last = record.offset + 1
            ticket = Ticket(record, line)
            key = record.key
            if key is None:
                ready.append(ticket)
            elif key in followers:
                behind = followers[key]
                if behind is None:
                    behind = followers[key] = deque()
                behind.append(ticket)
            elif held and (place, key) in held:
                followers[key] = deque((ticket,))
            else:
                followers[key] = None
                ready.append(ticket)
        if new:
            line.arrivals.append((last, now))
        return new

    def take(self, limit: int, now: float) -> list[Ticket]:
        """The next records to hand out together, at most `limit`, with distinct keys; none if nothing is ready.

        Records set aside together come out together. Fresh and set-aside records take turns, so that neither a
        flood of retries nor a flood of fresh records keeps the other waiting.
        """
        self._aside_first = not self._aside_first
        if self._aside_first:
            batch = self._take_aside(limit, now) or self._take_ready(limit)
        else:
            batch = self._take_ready(limit) or self._take_aside(limit, now)
        for ticket in batch:
            ticket.line.in_hand.add(ticket)
        return batch

    def _take_ready(self, limit: int) -> list[Ticket]:
        ready = self._ready
        batch: list[Ticket] = []
        while ready and len(batch) < limit:
            ticket = ready.popleft()
            # A line being revoked is about to be dropped: its records belong to the next owner.
            if ticket.line.alive and not ticket.line.revoking:
                batch.append(ticket)
        return batch

    def _take_aside(self, limit: int, now: float) -> list[Ticket]:
        aside = self._aside
        while aside and aside[0][0] <= now:
            due, _, tickets, cause = heapq.heappop(aside)
            batch = [ticket for ticket in tickets if ticket.line.alive and not ticket.line.revoking]
            if len(batch) > limit:
                self._push_aside(batch[limit:], due, cause)
                batch = batch[:limit]
            if batch:
                return batch
        return []

    def finish(self, ticket: Ticket, *, hold_key: bool = False) -> bool:
        """The ticket in hand is finished: its offset may pass and, unless held, the next of its key may start.

        False if that changes nothing, because the assignment is over or the ticket was finished before.
        """
        if ticket.finished:
            return False
        ticket.finished = True
        line, key = ticket.line, ticket.record.key
        line.in_hand.discard(ticket)
        if not line.alive:
            if not hold_key:
                self.release(ticket)
            return False
        if hold_key and key is not None:
            self._held[line.place, key] += 1
        line.offsets.finish(ticket.record.offset)
        arrivals = line.arrivals
        watermark = line.offsets.watermark
        while arrivals and watermark is not None and arrivals[0][0] <= watermark:
            arrivals.popleft()
        if key is not None and not hold_key:
            self._start_next(line, key)
        return True

    def release(self, ticket: Ticket) -> None:
        """Let go of a key that was held when its record was finished."""
        key = ticket.record.key
        if key is None:
            return
        hold = (ticket.line.place, key)
        if self._held[hold] > 1:
            self._held[hold] -= 1
            return
        if not self._held.pop(hold, 0):
            return
        line = self._lines.get(ticket.line.place)
        if line is not None and key in line.followers:
            self._start_next(line, key)

    def _start_next(self, line: Line, key: bytes) -> None:
        if (line.place, key) in self._held:
            return
        behind = line.followers[key]
        if behind:
            self._ready.append(behind.popleft())
        else:
            del line.followers[key]

    def set_aside(self, tickets: Sequence[Ticket], due: float, cause: WaitCause | None) -> None:
        """Put tickets in hand back, to be handed out again together at `due`. Their keys wait with them."""
        for ticket in tickets:
            ticket.line.in_hand.discard(ticket)
            if not ticket.line.alive:
                self.release(ticket)
        if living := [ticket for ticket in tickets if ticket.line.alive]:
            self._push_aside(living, due, cause)

    def _push_aside(self, tickets: list[Ticket], due: float, cause: WaitCause | None) -> None:
        self._asides += 1
        heapq.heappush(self._aside, (due, self._asides, tickets, cause))

    def begin_revoke(self, places: Iterable[TopicPartition]) -> None:
        """Hand out nothing more of these partitions; what is in hand may still finish."""
        for place in places:
            if (line := self._lines.get(place)) is not None:
                line.revoking = True

    def revoke(self, places: Iterable[TopicPartition]) -> None:
        """The assignment of these partitions is over. What is still in hand moves nothing from now on."""
        for place in places:
            if (line := self._lines.pop(place, None)) is not None:
                line.alive = False
                for ticket in line.in_hand:
                    if ticket.record.key is not None:
                        self._held[place, ticket.record.key] += 1

    def next_due(self) -> float | None:
        """When the next ticket that was set aside is due."""
        return self._aside[0][0] if self._aside else None

    def has_ready(self, now: float) -> bool:
        """Whether `take` may find something."""
        return bool(self._ready) or (bool(self._aside) and self._aside[0][0] <= now)

    def in_hand(self, places: Iterable[TopicPartition]) -> int:
        """How many records of these partitions a handler has."""
        return sum(len(line.in_hand) for place in places if (line := self._lines.get(place)) is not None)

    def unfinished(self, place: TopicPartition) -> int:
        """How many records of the partition have arrived and are not finished."""
        line = self._lines.get(place)
        return 0 if line is None else line.offsets.unfinished

    def places(self) -> list[TopicPartition]:
        """The partitions records have arrived from in this assignment."""
        return list(self._lines)

    def watermarks(self) -> dict[TopicPartition, int]:
        """For each partition with records the offset that may be committed."""
        return {
            place: watermark for place, line in self._lines.items() if (watermark := line.offsets.watermark) is not None
        }

    def oldest_arrival(self) -> float | None:
        """When the oldest unfinished record arrived."""
        return min((line.arrivals[0][1] for line in self._lines.values() if line.arrivals), default=None)

    def waiting(self) -> dict[WaitCause | None, int]:
        """How many records are set aside, by what they wait for."""
        counts: dict[WaitCause | None, int] = {}
        for _, _, tickets, cause in self._aside:
            living = sum(ticket.line.alive for ticket in tickets)
            if living:
                counts[cause] = counts.get(cause, 0) + living
        return counts
