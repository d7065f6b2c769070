"""HIGH before NORMAL: how long a message waits that passes a hundred thousand others in its own lane."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.benchmarks.bench import Bench, Figure, Result, delays, percentile, told_of
from tests.benchmarks.lines import clear, lay, let_go
from tests.benchmarks.product import UNPACED, Load, Product

from switchboard.ids import AppId

_WAITING: Final = 100_000
#: What the lane lets through, and how much of it is HIGH.
_RATE: Final = 100
_HIGH_RATE: Final = 10.0
_NORMAL_RATE: Final = _RATE - _HIGH_RATE
_SECONDS: Final = 20


async def priority(bench: Bench) -> Result:
    """HIGH through one lane, beside the same traffic of NORMAL: once nobody waits there, once very many do."""
    async with bench.product() as running:
        app_id = AppId(running.running.app_id)
        normal = asyncio.create_task(
            running.send(Load(messages=int(_NORMAL_RATE * _SECONDS), rate=_NORMAL_RATE, connections=64))
        )
        alone = await _high(bench, running)
        await normal
        await running.set_rate(_RATE)
        await lay(running, {app_id: _WAITING})
        await let_go(running, [app_id], {app_id: _RATE})
        passing = await _high(bench, running)
        async with running.database() as connection:
            left = await connection.fetchval("SELECT count(*) FROM lane_items WHERE priority = 1")
        await clear(running)
        await running.set_rate(UNPACED)
    above = percentile(passing, 0.99) - percentile(alone, 0.99)
    return Result(
        "priority",
        [
            Figure("HIGH, nobody waiting, p50", percentile(alone, 0.5), "ms"),
            Figure("HIGH, nobody waiting, p99", percentile(alone, 0.99), "ms"),
            Figure(f"HIGH, {_WAITING:,} NORMAL waiting, p50", percentile(passing, 0.5), "ms"),
            Figure(f"HIGH, {_WAITING:,} NORMAL waiting, p99", percentile(passing, 0.99), "ms"),
            Figure("above its own service time, p99", above, "ms", "≤ 100", above <= 100),
        ],
        {"rate": _RATE, "left": left},
    )


async def _high(bench: Bench, running: Product) -> list[float]:
    """How long HIGH messages took until the app was told of their delivery, in milliseconds, sorted."""
    await bench.world.reset()
    high = Load(messages=int(_HIGH_RATE * _SECONDS), rate=_HIGH_RATE, fields={"queue": "HIGH_PRIORITY"})
    report = await running.send(high)
    await told_of(bench, report)
    found = await delays(bench, report)
    return [1_000 * delay for delay in found]
