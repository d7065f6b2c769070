"""What traces cost: off, one message in a hundred, every message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from statistics import median
from typing import Final

from tests.benchmarks.bench import Bench, Figure, Result, cost_of
from tests.benchmarks.product import Product
from tests.benchmarks.usage import cpu_between

from switchboard.testing import wait_until

_BARS: Final = {0.01: 1.03, 1.0: 1.6}
_IDLE_SECONDS: Final = 3.0


async def tracing(bench: Bench) -> Result:
    """Interleaved; the exporter sends to the lean receiver, whose cost is not counted.

    Traces are exported some seconds after what they tell of: counted until the last one is, without what the services
    would have spent in that time anyway.
    """
    collector = f"http://127.0.0.1:{bench.world.receiver.told}/v1/traces"
    messages = bench.scale.messages
    runs: dict[float, list[float]] = {0.0: [], 0.01: [], 1.0: []}
    for _ in range(max(1, bench.scale.pairs // 2)):
        for ratio, costs in runs.items():
            environment = {}
            if ratio:
                environment = {"SWITCHBOARD_OTLP_ENDPOINT": collector, "SWITCHBOARD_TRACE_SAMPLE_RATIO": str(ratio)}
            async with bench.product(environment) as running:
                await _exported(running)
                idle = await _spent(running, asyncio.sleep(_IDLE_SECONDS)) / _IDLE_SECONDS
                cost = (await cost_of(bench, running, messages)).total
                began_at = time.monotonic()
                late = await _spent(running, _exported(running))
                costs.append(cost + max(0.0, late - idle * (time.monotonic() - began_at)) * 1e6 / messages)
    off = median(runs[0.0])
    figures = [Figure("without traces", off, "CPU-µs")]
    for ratio, bar in _BARS.items():
        times = median(runs[ratio]) / off
        figures.append(Figure(f"{ratio:.0%} of messages traced", times, "x", f"≤ {bar}", times <= bar))
    return Result("tracing", figures, {"runs": {str(ratio): costs for ratio, costs in runs.items()}})


async def _spent(running: Product, meanwhile: Awaitable[None]) -> float:
    """CPU-seconds of everything but the world outside, until this is over."""
    before = running.usage()
    await meanwhile
    spent = cpu_between(before, running.usage())
    return sum(seconds for name, seconds in spent.items() if not name.startswith("("))


async def _exported(running: Product) -> None:
    """Wait until no trace is to be exported any more."""
    async with running.database() as connection:

        async def is_nothing_left() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM trace_exports")

        await wait_until(is_nothing_left, 120, "all traces are exported")
