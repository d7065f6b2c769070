"""Measures how late the event loop runs. A consumer can stop in silence after a loop was blocked for long."""

import asyncio
from typing import Final

import structlog

from switchboard.bus.metrics import BusMetrics

log = structlog.get_logger(__name__)

#: No work may hold the event loop for longer.
BLOCKED_SECONDS: Final = 0.1


class LoopLag:
    """Asks the event loop to call back regularly and records how late it does."""

    def __init__(self, *, interval_seconds: float = 0.1, metrics: BusMetrics | None = None) -> None:
        self._interval = interval_seconds
        self._metrics = metrics or BusMetrics.of_process()
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure, on the running loop."""
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """Stop measuring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._interval
        self._handle = loop.call_at(due, self._measure, loop, due)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        late = max(0.0, loop.time() - due)
        self._metrics.loop_lag.observe(late)
        if late > BLOCKED_SECONDS:
            self._metrics.loop_blocked.inc()
            log.warning("bus.loop_blocked", seconds=round(late, 3))
        self._schedule(loop)
