"""How long it takes at half of what saturates it: until the client has its answer, until the app was told."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.bench import Bench, Figure, Result, delays, percentile
from tests.benchmarks.product import Load, Product

#: Messages a second at which one is done before the next one comes.
LONE_RATE: Final = 20.0


async def latency(bench: Bench) -> Result:
    """An open loop. The lean SMSC answers and reports at once: nothing is subtracted for it."""
    async with bench.product() as running:
        rate = await bench.half(running)
        lone, _ = await _at(bench, running, LONE_RATE)
        told, accepted = await _at(bench, running, rate)
    p50, p99 = percentile(told, 0.5), percentile(told, 0.99)
    accept = percentile(accepted, 0.99)
    return Result(
        "latency",
        [
            Figure(f"send to callback received at {LONE_RATE:.0f} messages/s, p50", percentile(lone, 0.5), "ms"),
            Figure(f"send to callback received at {LONE_RATE:.0f} messages/s, p99", percentile(lone, 0.99), "ms"),
            Figure("half of saturation", rate, "/s"),
            Figure("send to callback received, p50", p50, "ms", "≤ 10", p50 <= 10),
            Figure("send to callback received, p99", p99, "ms", "≤ 30", p99 <= 30),
            Figure("accepted, p50", percentile(accepted, 0.5), "ms"),
            Figure("accepted, p99", accept, "ms", "≤ 10", accept <= 10),
        ],
        {"seconds": bench.scale.seconds},
    )


async def _at(bench: Bench, running: Product, rate: float) -> tuple[list[float], list[float]]:
    """Milliseconds until the app was told, and until the message was accepted, sorted."""
    await bench.world.reset()
    messages = int(rate * bench.scale.seconds)
    report = await running.send(Load(messages=messages, rate=rate, connections=256))
    await running.told(messages)
    await running.check(report)
    told = [1_000 * delay for delay in await delays(bench, report)]
    return told, sorted(1_000 * (sent.answered_at - sent.due_at) for sent in report.sent)
