"""Runs handlers on what the scheduler hands out and carries out what the policy decides. Knows no Kafka."""

import asyncio
import random
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import structlog
from msgspec.structs import replace

from switchboard.bus.clock import Clock
from switchboard.bus.errors import BadRecords
from switchboard.bus.handler import BatchHandler, InSlots, Slots
from switchboard.bus.policy import (
    Again,
    Bury,
    DeadLetterCause,
    KnownErrors,
    RetryLimits,
    Trouble,
    decide,
    decide_burial,
)
from switchboard.bus.record import Record, TopicPartition
from switchboard.bus.scheduler import Scheduler, Ticket

log = structlog.get_logger(__name__)

#: Called with a dead letter before its offset passes: its message must end.
OnDeadLetter = Callable[[Record, DeadLetterCause], Awaitable[None]]


class Observer(Protocol):
    """Whoever counts what the runner does."""

    def finished(self, topic: str, count: int) -> None:
        """Records were finished."""
        ...

    def retried(self, topic: str, count: int, cause: str) -> None:
        """Records were set aside."""
        ...

    def dead_lettered(self, topic: str, reason: str) -> None:
        """A record was buried."""
        ...


class Runner:
    """One handler, its batches at work, its retries and its dead letters."""

    def __init__(
        self,
        handle: BatchHandler | InSlots,
        *,
        publish_dead_letter: OnDeadLetter,
        on_dead_letter: OnDeadLetter,
        too_many_dead_letters: Callable[[], None],
        observer: Observer,
        clock: Clock,
        max_batch: int,
        concurrency: int,
        limits: RetryLimits,
        known: KnownErrors,
        dead_letter_limit: int,
        dead_letter_window_seconds: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.scheduler = Scheduler()
        #: Records finished since the runner began. The commit interval and the watchdog read it.
        self.finished = 0
        self._finished_at: float | None = None
        self._handle = handle
        self._slots_free = handle.slots if isinstance(handle, InSlots) else None
        self._publish_dead_letter = publish_dead_letter
        self._on_dead_letter = on_dead_letter
        self._too_many_dead_letters = too_many_dead_letters
        self._observer = observer
        self._clock = clock
        self._max_batch = max_batch
        self._concurrency = concurrency
        self._limits = limits
        self._known = known
        self._dead_letter_limit = dead_letter_limit
        self._dead_letter_window = dead_letter_window_seconds
        self._jitter = jitter
        self._dead_letters: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Tickets a handler has, with when it got them, oldest first.
        self._handed: dict[Ticket, float] = {}
        self._holding: set[Ticket] = set()
        self._alarm: tuple[float, asyncio.Task[None]] | None = None
        self._open = True
        self._pumping = False
        self._settled = asyncio.Event()
        self.on_finished: Callable[[], None] = lambda: None

    # What comes in, what goes out

    def arrive(self, place: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of one partition and start on them."""
        self.scheduler.arrive(place, records, self._clock.monotonic())
        self.pump()

    def pump(self) -> None:
        """Hand out what is ready to whoever is free, once this turn of the loop is over.

        Not at once: what arrives or is finished in the same turn, from several partitions or by one commit, then
        goes out as one batch instead of many small ones, each of which would cost a transaction.
        """
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        self._pumping = False
        while self._open and len(self._tasks) < self._concurrency:
            limit = self._max_batch if self._slots_free is None else min(self._max_batch, self._slots_free)
            if limit < 1:
                break
            now = self._clock.monotonic()
            tickets = self.scheduler.take(limit, now)
            if not tickets:
                break
            for ticket in tickets:
                self._handed[ticket] = now
            if self._slots_free is not None:
                self._slots_free -= len(tickets)
            task = asyncio.create_task(self._work(tickets))
            self._tasks.add(task)
            task.add_done_callback(self._task_done)
        self._set_alarm()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nothing here raises but a bug of the bus itself; its tickets stay in hand until the watchdog sees them.
            log.error("bus.runner_failed", error=type(error).__name__, at=_where(error))
        self.pump()

    def _set_alarm(self) -> None:
        due = self.scheduler.next_due() if self._open else None
        if due is None or due <= self._clock.monotonic():
            return
        if self._alarm is not None:
            if self._alarm[0] <= due and not self._alarm[1].done():
                return
            self._alarm[1].cancel()
        self._alarm = (due, asyncio.create_task(self._wake_at(due)))

    async def _wake_at(self, due: float) -> None:
        while (remaining := due - self._clock.monotonic()) > 0:
            await self._clock.sleep(remaining)
        self._alarm = None
        self.pump()

    # One batch

    async def _work(self, tickets: list[Ticket]) -> None:
        if tickets[0].trouble.burial is not None:
            for ticket in tickets:
                await self._bury(ticket)
            return
        handle = self._handle
        records = [ticket.record for ticket in tickets]
        try:
            if isinstance(handle, InSlots):
                slots = Slots(tickets, self._finish_one, self._fail_one, self._release)
                await handle.handle(records, slots)
            else:
                await handle(records)
        except (Exception, asyncio.CancelledError) as error:
            if self._is_stopped() and isinstance(error, asyncio.CancelledError):
                raise
            if isinstance(error, BadRecords) and not isinstance(handle, InSlots):
                self._failed_apart(tickets, error)
            else:
                self._failed(self._unsettled(tickets), error)
        else:
            if not isinstance(handle, InSlots):
                self._finish_all(tickets)

    def _failed_apart(self, tickets: list[Ticket], bad: BadRecords) -> None:
        if not all(0 <= index < len(tickets) for index in bad.failures):
            # It names records that were not there: nothing it says about the others can be believed.
            self._failed(tickets, bad)
            return
        self._finish_all([ticket for index, ticket in enumerate(tickets) if index not in bad.failures])
        for index, error in sorted(bad.failures.items()):
            self._failed([tickets[index]], error)

    def _failed(self, tickets: list[Ticket], error: BaseException) -> None:
        if not tickets:
            return
        now = self._clock.monotonic()
        decision = decide(
            error,
            size=len(tickets),
            trouble=_worst(tickets),
            now=now,
            finished_at=self._finished_at,
            jitter=self._jitter(),
            limits=self._limits,
            known=self._known,
        )
        match decision:
            case Again():
                self._log_failure(tickets, error, decision)
                self._observer.retried(tickets[0].record.topic, len(tickets), str(decision.cause))
                self._set_aside(tickets, decision)
            case Bury():
                # It comes back at once, to be buried instead of handled.
                self._set_aside(tickets, Again(due=now, cause=None, trouble=decision.trouble))

    @staticmethod
    def _log_failure(tickets: Sequence[Ticket], error: BaseException, again: Again) -> None:
        tries = again.trouble.transient_tries
        if tries & (tries - 1):
            # An outage is told at the 1st, 2nd, 4th, 8th … try, not by every record at every try.
            return
        log.warning(
            "bus.records_failed",
            topic=tickets[0].record.topic,
            records=len(tickets),
            error=type(error).__name__,
            at=_where(error),
            waits_for=again.cause,
            tries=tries,
            failures=again.trouble.failures,
        )

    def _set_aside(self, tickets: list[Ticket], again: Again) -> None:
        for ticket in tickets:
            ticket.trouble = again.trouble
            self._return(ticket)
        self._free(len(tickets))
        middle = (len(tickets) + 1) // 2 if again.halve else len(tickets)
        for part in (tickets[:middle], tickets[middle:]):
            if part:
                self.scheduler.set_aside(part, again.due, again.cause)
        self.pump()

    # Dead letters

    async def _bury(self, ticket: Ticket) -> None:
        record, trouble = ticket.record, ticket.trouble
        if not self._open or trouble.burial is None:
            return
        try:
            if not trouble.buried:
                await self._publish_dead_letter(record, trouble.burial)
                ticket.trouble = replace(trouble, buried=True, transient_tries=0)
            await self._on_dead_letter(record, trouble.burial)
        except (Exception, asyncio.CancelledError) as error:
            if self._is_stopped() and isinstance(error, asyncio.CancelledError):
                raise
            log.error(
                "bus.burial_failed",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                error=type(error).__name__,
                at=_where(error),
            )
            now, jitter = self._clock.monotonic(), self._jitter()
            self._set_aside([ticket], decide_burial(error, ticket.trouble, now, jitter, self._known))
            return
        log.error(
            "bus.dead_letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=trouble.burial.reason,
            error=trouble.burial.error,
            failures=trouble.burial.failures,
        )
        self._observer.dead_lettered(record.topic, trouble.burial.reason)
        self._count_dead_letter()
        self._finish_all([ticket])

    def _count_dead_letter(self) -> None:
        now = self._clock.monotonic()
        recent = self._dead_letters
        recent.append(now)
        while recent[0] <= now - self._dead_letter_window:
            recent.popleft()
        if len(recent) >= self._dead_letter_limit and self._open:
            self._open = False
            log.critical("bus.too_many_dead_letters", count=len(recent), seconds=self._dead_letter_window)
            self._too_many_dead_letters()

    # Settling

    def _finish_one(self, ticket: Ticket, hold_key: bool) -> None:
        if ticket not in self._handed:
            return
        if hold_key:
            self._holding.add(ticket)
        self._return(ticket)
        self._count_finished(ticket.record.topic, int(self.scheduler.finish(ticket, hold_key=hold_key)))
        if not hold_key:
            self._free(1)
            self.pump()

    def _fail_one(self, ticket: Ticket, error: BaseException) -> None:
        if ticket not in self._handed:
            return
        self._failed([ticket], error)

    def _release(self, ticket: Ticket) -> None:
        if ticket not in self._holding:
            return
        self._holding.discard(ticket)
        self.scheduler.release(ticket)
        self._free(1)
        self.pump()

    def _finish_all(self, tickets: Sequence[Ticket]) -> None:
        counts: dict[str, int] = {}
        for ticket in tickets:
            self._return(ticket)
            if self.scheduler.finish(ticket):
                topic = ticket.record.topic
                counts[topic] = counts.get(topic, 0) + 1
        self._free(len(tickets))
        for topic, count in counts.items():
            self._count_finished(topic, count)
        self.pump()

    def _count_finished(self, topic: str, count: int) -> None:
        if count:
            self.finished += count
            self._finished_at = self._clock.monotonic()
            self._observer.finished(topic, count)
            self.on_finished()
        self.pump()

    def _return(self, ticket: Ticket) -> None:
        self._handed.pop(ticket, None)
        self._settled.set()

    def _free(self, count: int) -> None:
        if self._slots_free is not None:
            self._slots_free += count

    def _unsettled(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        return [ticket for ticket in tickets if ticket in self._handed]

    # The end of an assignment, and of everything

    async def drain(self, places: Iterable[TopicPartition], seconds: float) -> bool:
        """Hand out nothing more of these partitions and wait for what is in hand. False if time ran out."""
        places = list(places)
        self.scheduler.begin_revoke(places)
        deadline = asyncio.get_running_loop().time() + seconds
        while self.scheduler.in_hand(places):
            self._settled.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._settled.wait()
            except TimeoutError:
                return False
        return True

    def _is_stopped(self) -> bool:
        return not self._open

    async def stop(self) -> None:
        """Cancel what still works. Nothing it does afterwards counts."""
        self._open = False
        tasks = list(self._tasks)
        if self._alarm is not None:
            tasks.append(self._alarm[1])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What the watchdog and the metrics want to know

    @property
    def in_hand(self) -> int:
        """How many records handlers have."""
        return len(self._handed)

    def oldest_in_hand(self) -> tuple[Record, float] | None:
        """The record a handler has had for longest, and since when."""
        for ticket, since in self._handed.items():
            return ticket.record, since
        return None


def _worst(tickets: Sequence[Ticket]) -> Trouble:
    return max((ticket.trouble for ticket in tickets), key=lambda trouble: (trouble.transient_tries, trouble.failures))


def _where(error: BaseException) -> str:
    """Where it was raised. The error's text may quote a message, so it stays out of logs."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else ""
