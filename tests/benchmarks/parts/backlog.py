"""Draining what waits in a lane: the price of a message, and memory, must not depend on how many wait."""

from __future__ import annotations

from tests.benchmarks.bench import Bench, Cost, Figure, Result
from tests.benchmarks.product import UNPACED, Load, Product
from tests.benchmarks.usage import cpu_between

from switchboard.testing import wait_until


async def backlog(bench: Bench) -> Result:
    """Messages pile up in a lane that lets one a second through, then it opens."""
    few, many = bench.scale.backlogs
    async with bench.product() as running:
        small = await _drain(bench, running, few)
        large = await _drain(bench, running, many)
    ratio = large.total / small.total
    grown = _resident(large) / _resident(small)
    return Result(
        "backlog",
        [
            Figure(f"a message of {few} that waited", small.total, "CPU-µs"),
            Figure(f"a message of {many} that waited", large.total, "CPU-µs"),
            Figure("the large backlog against the small one", ratio, "x", "≤ 1.05", ratio <= 1.05),
            Figure("memory of the services", 100 * (grown - 1), "%", "≤ +10", grown <= 1.1),
        ],
        {"small": small.by_process, "large": large.by_process, "memory": [small.memory, large.memory]},
    )


async def _drain(bench: Bench, running: Product, messages: int) -> Cost:
    await running.set_rate(1)
    await bench.world.reset()
    # The first message carries the new rate to the lane; those before it in flight are over.
    await running.send(Load(messages=1))
    report = await running.send(Load(messages=messages))

    async def are_waiting() -> bool:
        async with running.database() as connection:
            waiting = await connection.fetchval("SELECT sum(waiting) FROM lanes WHERE kind = 'dispatch'")
        return int(waiting or 0) >= messages - 120

    await wait_until(are_waiting, 300, f"{messages} messages wait")
    await running.set_rate(UNPACED)
    before = running.usage()
    await running.send(Load(messages=1))
    await running.told(messages + 2, seconds=900)
    after = running.usage()
    await running.check(report)
    spent = {name: seconds * 1e6 / messages for name, seconds in cpu_between(before, after).items()}
    return Cost(spent, 0.0, {name: usage.memory_bytes for name, usage in after.items()})


def _resident(cost: Cost) -> int:
    servers = ("postgres", "kafka")
    return sum(held for name, held in cost.memory.items() if not name.startswith("(") and name not in servers)
