"""What a message costs: ours, the ordinary build and the bare legs, one after another, several times, medians."""

from __future__ import annotations

import time
from statistics import median

from tests.benchmarks.bench import Bench, Figure, Result, cost_of, medians
from tests.benchmarks.floor.measure import bare_legs
from tests.benchmarks.ordinary.build import ordinary
from tests.benchmarks.product import Void
from tests.benchmarks.usage import cpu_between

from switchboard.testing import wait_until


async def cost(bench: Bench) -> Result:
    """Five interleaved triples unless told otherwise. Nothing else runs while one of them is measured."""
    ours, theirs, bare = [], [], []
    rates, memory = [], {}
    for _ in range(bench.scale.pairs):
        async with bench.product() as running:
            measured = await cost_of(bench, running, bench.scale.messages)
        ours.append(measured.by_process)
        rates.append(measured.per_second)
        memory = measured.memory
        theirs.append(await _ordinary(bench, bench.scale.ordinary_messages))
        bare.append(await bare_legs(bench.servers, bench.scale.bare_messages))
    of_theirs = [sum(their.values()) / _ours(our) for our, their in zip(ours, theirs, strict=True)]
    of_bare = [sum(floor.values()) / _ours(our) for our, floor in zip(ours, bare, strict=True)]
    total, faster = median(map(_ours, ours)), median(of_theirs)
    return Result(
        "cost",
        [
            Figure("a message, everything counted", total, "CPU-µs"),
            Figure("the same in the ordinary build", median(sum(their.values()) for their in theirs), "CPU-µs"),
            Figure("the bare legs", median(sum(floor.values()) for floor in bare), "CPU-µs"),
            Figure(
                "messages per CPU-second against the ordinary build", faster, "x", "≥ 8", faster >= 8
            ),
            Figure(
                "share of the bare legs", 100 * median(of_bare), "%", "≥ 50", median(of_bare) >= 0.5
            ),
            Figure("messages a second when saturated", median(rates), "/s"),
        ],
        {"ours": medians(ours), "ordinary": medians(theirs), "bare": medians(bare), "memory": memory,
         "runs": {"ours": ours, "ordinary": theirs, "bare": bare}},
    )  # fmt: skip


def _ours(by_process: dict[str, float]) -> float:
    return sum(spent for name, spent in by_process.items() if not name.startswith("("))


async def _ordinary(bench: Bench, messages: int) -> dict[str, float]:
    async with ordinary(bench.servers, bench.world) as running:
        for count in (messages // 2, messages):
            await bench.world.reset()
            before = running.usage()
            began = time.monotonic()
            report = await running.send(count)

            async def are_told(count: int = count) -> bool:
                told = await bench.world.receiver.ask("count", path="/ordinary", status="DELIVERED")
                return bool(told >= count)

            await wait_until(are_told, 180, "the ordinary build tells all")
            after = running.usage()
            if report.refused:
                raise Void(f"the ordinary build refused {report.refused} messages after {time.monotonic() - began} s")
    return {name: seconds * 1e6 / messages for name, seconds in cpu_between(before, after).items()}
