"""What traces cost: off, one message in a hundred, every message."""

from __future__ import annotations

from statistics import median
from typing import Final

from tests.benchmarks.bench import Bench, Figure, Result, cost_of

_BARS: Final = {0.01: 1.03, 1.0: 1.6}


async def tracing(bench: Bench) -> Result:
    """Interleaved; the exporter sends to the lean receiver, whose cost is not counted."""
    collector = f"http://127.0.0.1:{bench.world.receiver.told}/v1/traces"
    runs: dict[float, list[float]] = {0.0: [], 0.01: [], 1.0: []}
    for _ in range(max(1, bench.scale.pairs // 2)):
        for ratio, costs in runs.items():
            environment = {}
            if ratio:
                environment = {"SWITCHBOARD_OTLP_ENDPOINT": collector, "SWITCHBOARD_TRACE_SAMPLE_RATIO": str(ratio)}
            async with bench.product(environment) as running:
                costs.append((await cost_of(bench, running, bench.scale.messages)).total)
    off = median(runs[0.0])
    figures = [Figure("without traces", off, "CPU-µs")]
    for ratio, bar in _BARS.items():
        times = median(runs[ratio]) / off
        figures.append(Figure(f"{ratio:.0%} of messages traced", times, "x", f"≤ {bar}", times <= bar))
    return Result("tracing", figures, {"runs": {str(ratio): costs for ratio, costs in runs.items()}})
