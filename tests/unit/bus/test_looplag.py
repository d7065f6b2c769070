"""The event loop's lag is measured."""

import threading

from prometheus_client import CollectorRegistry

from switchboard.bus import BusMetrics, LoopLag
from switchboard.testing import wait_until


async def test_a_blocked_event_loop_is_counted() -> None:
    registry = CollectorRegistry()
    lag = LoopLag(interval_seconds=0.001, metrics=BusMetrics(registry))
    lag.start()
    threading.Event().wait(0.15)

    await wait_until(lambda: (registry.get_sample_value("switchboard_event_loop_blocked_total") or 0) >= 1)
    lag.stop()
    assert (registry.get_sample_value("switchboard_event_loop_lag_seconds_sum") or 0) > 0.1


async def test_an_idle_event_loop_is_measured_all_the_time() -> None:
    registry = CollectorRegistry()
    lag = LoopLag(interval_seconds=0.001, metrics=BusMetrics(registry))
    lag.start()

    await wait_until(lambda: (registry.get_sample_value("switchboard_event_loop_lag_seconds_count") or 0) > 3)
    lag.stop()
