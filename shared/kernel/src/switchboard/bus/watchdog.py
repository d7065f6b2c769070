"""Ends a process whose consumers make no progress. Liveness is this and nothing else.

It runs in a thread of its own, because what it must notice includes an event loop that stands still. It adds up only
time it saw itself, so a process that was frozen as a whole gets its time again.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog
from msgspec import Struct

log = structlog.get_logger(__name__)

#: Exit codes, each of a fault no retry cures.
EXIT_STALLED: Final = 70
EXIT_TOO_MANY_DEAD_LETTERS: Final = 71
EXIT_CONSUMER_ENDED: Final = 72


class Pulse(Struct, frozen=True):
    """What a consumer was doing at one moment."""

    name: str
    #: Polls begun. Rises as long as the consumer reads.
    polls: int = 0
    #: The record a handler has had for longest, if any: topic, partition, offset and since when.
    oldest: tuple[str, int, int, float] | None = None
    #: Partitions with records waiting, and the offset of the oldest unfinished; -1 where nobody knows it.
    behind: Mapping[tuple[str, int], int] = {}
    broker_away: bool = False
    #: A record waits for the database, the broker, newer code, or its back-off.
    waits_for_a_cause: bool = False


class Watched(Protocol):
    """Something with a pulse: a Consumer."""

    @property
    def pulse(self) -> Pulse:
        """The latest."""
        ...


class _Patient:
    """One consumer and for how long each of its signs has not changed, in seconds observed."""

    def __init__(self, pulse: Pulse) -> None:
        self.pulse = pulse
        self.no_poll = 0.0
        self.same_oldest = 0.0
        self.unmoved: dict[tuple[str, int], float] = {}

    def observe(self, pulse: Pulse, seconds: float) -> None:
        before, self.pulse = self.pulse, pulse
        polled = pulse.polls != before.polls or pulse.broker_away
        self.no_poll = 0.0 if polled else self.no_poll + seconds
        excused = pulse.waits_for_a_cause or pulse.broker_away
        moved = excused or pulse.oldest is None or pulse.oldest != before.oldest
        self.same_oldest = 0.0 if moved else self.same_oldest + seconds
        self.unmoved = {
            place: self.unmoved.get(place, 0.0) + seconds
            for place, offset in pulse.behind.items()
            if not excused and before.behind.get(place) == offset
        }

    def stall(self, limit: float) -> str | None:
        if self.no_poll >= limit:
            return "no poll"
        if self.same_oldest >= limit:
            return "a record in hand for too long"
        if any(unmoved >= limit for unmoved in self.unmoved.values()):
            return "lag without movement"
        return None


class Watchdog:
    """Watches consumers and ends the process with a non-zero code when one stalls."""

    def __init__(
        self,
        consumers: Sequence[Watched],
        *,
        limit_seconds: float = 60.0,
        interval_seconds: float = 1.0,
        exit: Callable[[int], object] = os._exit,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumers = consumers
        self._limit = limit_seconds
        self._interval = interval_seconds
        self._exit = exit
        self._monotonic = monotonic
        self._patients = [_Patient(consumer.pulse) for consumer in consumers]
        self._checked_at = monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._stalled: str | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._checked_at = self._monotonic()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, before the consumers stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def is_live(self) -> bool:
        """What the liveness endpoint answers."""
        return self._stalled is None

    def check(self) -> str | None:
        """Look once. Returns which consumer stalls and how, else None."""
        now = self._monotonic()
        # Time in which the watchdog did not run either proves nothing against anybody.
        seconds = min(now - self._checked_at, 2 * self._interval)
        self._checked_at = now
        for patient, consumer in zip(self._patients, self._consumers, strict=True):
            patient.observe(consumer.pulse, seconds)
            if (why := patient.stall(self._limit)) is not None:
                return f"{patient.pulse.name}: {why}"
        return None

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            if (stalled := self.check()) is not None:
                self._stalled = stalled
                log.critical("bus.stalled", why=stalled, seconds=self._limit)
                faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
                self._exit(EXIT_STALLED)
                return
