"""Channels that fail: what moving on to the next one costs, and what a dead one costs the others."""

from __future__ import annotations

import asyncio
from statistics import median
from typing import Any, Final

from msgspec.structs import replace
from tests.benchmarks.bench import Bench, Figure, Result, cost_of, delays, percentile, told_of
from tests.benchmarks.lines import clear
from tests.benchmarks.outside.driver import Report
from tests.benchmarks.product import STATUSES, Load

_BOT: Final = {"channel": "TELEGRAM", "identity": "%RECIPIENT%"}
_SWITCHED: Final = ("SWITCHING_CHANNEL", *STATUSES)
_PHONE: Final = {"channel": "SMS", "identity": "%RECIPIENT%"}
#: Each may be asked 30 times a second; together they hold nobody back.
_BOTS: Final = 200
#: Longer than any attempt waits for an answer.
_DEAD_SECONDS: Final = 60


def _to(*identities: dict[str, str]) -> dict[str, Any]:
    return {
        "recipient": {"identified_by": {"channel_identities": list(identities)}},
        "channel_priority_order": [identity["channel"] for identity in identities],
    }


async def failover(bench: Bench) -> Result:
    """A bot that knows nobody refuses each message, which then goes out as an SMS; against an SMS at once.

    The messages belong to many apps with a bot each, for one bot may be asked only so often.
    """
    environment = {"SWITCHBOARD_TELEGRAM_API_URL": f"http://127.0.0.1:{bench.world.receiver.told}"}
    messages = bench.scale.messages
    direct, hops = [], []
    async with bench.product(environment) as running:
        bots = await running.bots(_BOTS)
        at_once = Load(messages=messages, targets=bots, target_field="app_id")
        over = Load(messages=messages, targets=bots, target_field="app_id", fields=_to(_BOT, _PHONE))
        # Every app is read before.
        await cost_of(bench, running, len(bots), replace(over, messages=len(bots)), statuses=_SWITCHED)
        for _ in range(max(2, bench.scale.pairs)):
            direct.append((await cost_of(bench, running, messages, at_once)).total)
            both = await cost_of(bench, running, messages, over, statuses=_SWITCHED)
            hops.append(both.total - direct[-1])
    normal, times = median(direct), median(hop / one for hop, one in zip(hops, direct, strict=True))
    return Result(
        "failover",
        [
            Figure("a message that goes out on its first channel", normal, "CPU-µs"),
            Figure("moving on to the second channel", median(hops), "CPU-µs"),
            Figure("a hop against a normal send", times, "x", "≤ 1.5", times <= 1.5),
        ],
        {"direct": direct, "hops": hops},
    )


async def dead_channel(bench: Bench) -> Result:
    """A quarter of saturation goes out as SMS, and as much beside it: as SMS, too, or to bots that never answer."""
    hangs = f"http://127.0.0.1:{bench.world.receiver.told}/hang/{_DEAD_SECONDS}"
    async with bench.product({"SWITCHBOARD_TELEGRAM_API_URL": hangs}) as running:
        bots = await running.bots(_BOTS)
        rate = await bench.half(running) / 2
        others = Load(messages=int(rate * bench.scale.seconds * 2), rate=rate, connections=256)
        alive = replace(others, targets=bots, target_field="app_id")
        found = []
        for beside in (alive, replace(alive, fields=_to(_BOT))):
            await bench.world.reset()
            sending = asyncio.create_task(running.send(beside))
            report = await running.send(others)
            await sending
            await told_of(bench, report)
            found.append((await _rate(bench, report), percentile(await delays(bench, report), 0.99)))
        await clear(running)
    (healthy, p99_healthy), (beside_dead, p99_beside_dead) = found
    kept = beside_dead / healthy
    return Result(
        "dead-channel",
        [
            Figure("rate of the others beside a healthy channel", healthy, "/s"),
            Figure("their rate beside a dead channel", 100 * kept, "%", "≥ 95", kept >= 0.95),
            Figure("their p99 beside a dead channel", p99_beside_dead / p99_healthy, "x"),
        ],
        {"p99": [p99_healthy, p99_beside_dead]},
    )


async def _rate(bench: Bench, report: Report) -> float:
    """Of these messages how many a second were reported while they were sent, after the first second."""
    ours = {sent.message_id for sent in report.sent}
    first, last = min(sent.due_at for sent in report.sent) + 1, max(sent.due_at for sent in report.sent)
    arrivals = await bench.world.receiver.ask("arrivals", path="/callbacks")
    told = {id for id, status, at in arrivals if status == "DELIVERED" and first <= at < last and id in ours}
    return len(told) / (last - first)
