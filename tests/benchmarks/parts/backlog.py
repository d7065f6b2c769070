"""Draining what waits in a lane: the price of a message, and memory, must not depend on how many wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from statistics import mean
from typing import Any, Final

import msgspec
from msgspec import Struct
from tests.benchmarks.bench import Bench, Cost, Figure, Result, medians
from tests.benchmarks.lines import Waiting, lay, let_go
from tests.benchmarks.product import SMS, Product, Void
from tests.benchmarks.usage import cpu_between

from switchboard.ids import AppId
from switchboard.lanes import dispatch_lane
from switchboard.lanes.round import HEADS
from switchboard.store.pool import PLANS_WITHOUT_STATISTICS

#: QUEUED_ON_CHANNEL and DELIVERED.
_CALLBACKS: Final = 2
#: Before the large backlog, and as many after it.
_SMALL_RUNS: Final = 20
#: Waiting when the plan is looked at, and how many are asked for.
_MOST_WAITING: Final = 1_000_000
_ASKED: Final = 1_000


async def backlog(bench: Bench) -> Result:
    """A paused lane opens; counted from then until the app was told of the last message.

    The small backlog is drained many times before the large one and after it, and all of them count: a single one is
    over before the database tidies up behind it. What depends on the number that waits is told apart: the blocks that
    finding the next in line reads, up to a million.
    """
    few, many = bench.scale.backlogs
    async with bench.product() as running:
        await _drain(bench, running, few)
        small = [(await _drain(bench, running, few)).cost for _ in range(_SMALL_RUNS)]
        held = small[-1].memory
        drained = await _drain(bench, running, many)
        large = drained.cost
        small += [(await _drain(bench, running, few)).cost for _ in range(_SMALL_RUNS)]
        blocks = {number: await _blocks_of_heads(running, number) for number in (few, _MOST_WAITING)}
    cheap = mean(cost.total for cost in small)
    ratio = large.total / cheap
    grown = _resident(large.memory) / _resident(held)
    grown_late = _resident(large.memory) / _resident(drained.halfway)
    return Result(
        "backlog",
        [
            Figure(f"a message of {few:,} that waited", cheap, "CPU-µs"),
            Figure(f"a message of {many:,} that waited", large.total, "CPU-µs"),
            Figure("the large backlog against the small one", ratio, "x", "≤ 1.05", ratio <= 1.05),
            Figure("memory of the services", 100 * (grown - 1), "%", "≤ +10", grown <= 1.1),
            Figure("of that in the second half of the large backlog", 100 * (grown_late - 1), "%"),
            Figure("messages a second, large backlog", large.per_second, "/s"),
            *(
                Figure(f"blocks read to find the next {_ASKED:,} of {number:,}", found, "blocks")
                for number, found in blocks.items()
            ),
        ],
        {
            "small": medians([cost.by_process for cost in small]), "small_runs": [cost.total for cost in small],
            "large": large.by_process, "memory": [held, drained.halfway, large.memory],
        },
    )  # fmt: skip


async def _drain(bench: Bench, running: Product, messages: int) -> _Drained:
    app_id = AppId(running.running.app_id)
    await bench.world.reset()
    laid = await lay(running, {app_id: messages})
    before, began_at = running.usage(), time.monotonic()
    await let_go(running, [app_id])
    await _told(bench, messages // 2)
    halfway = running.usage()
    await _told(bench, messages)
    after, ended_at = running.usage(), time.monotonic()
    await _check(bench, laid)
    spent = {name: seconds * 1e6 / messages for name, seconds in cpu_between(before, after).items()}
    held = [{name: usage.memory_bytes for name, usage in usages.items()} for usages in (halfway, after)]
    return _Drained(Cost(spent, messages / (ended_at - began_at), held[1]), held[0])


async def _told(bench: Bench, messages: int) -> None:
    """Wait until the callbacks of so many came. Raises Void if none comes for half a minute."""
    told, quiet_since = 0, time.monotonic()
    while told < _CALLBACKS * messages:
        # The receiver's answer is small: it counts what it has counted already.
        await asyncio.sleep(0.1)
        latest = await bench.world.receiver.ask("count")
        if latest > told:
            told, quiet_since = latest, time.monotonic()
        elif time.monotonic() - quiet_since > 30:
            raise Void(f"{told} of {_CALLBACKS * messages} callbacks came")


async def _check(bench: Bench, laid: list[Waiting]) -> None:
    """Raises Void unless each was submitted once and told of twice, signed."""
    submitted = await bench.world.smsc.ask("recipients")
    if len(submitted) < len(laid):
        raise Void(f"{len(submitted)} of {len(laid)} recipients got a message")
    for waiting in laid:
        if submitted.get(waiting.recipient) != 1:
            raise Void(f"message {waiting.message_id} was submitted {submitted.get(waiting.recipient, 0)} times")
    faults = await bench.world.receiver.ask("faults")
    if faults["unsigned"]:
        raise Void(f"{faults['unsigned']} callbacks carried no signature")


class _Drained(Struct, frozen=True):
    """A backlog that was drained."""

    cost: Cost
    #: Resident bytes by process when the app was told of half of it.
    halfway: dict[str, int]


class _Plan(Struct, frozen=True):
    """The parts of EXPLAIN's answer that are looked at."""

    hit: int = msgspec.field(name="Shared Hit Blocks")
    read: int = msgspec.field(name="Shared Read Blocks")


async def _blocks_of_heads(running: Product, waiting: int) -> int:
    """How many blocks the drainer's own statement touches with so many in line. What is laid for it is undone."""
    lane = dispatch_lane(AppId("plan"), SMS)
    async with running.database() as connection:
        undone = connection.transaction()
        await undone.start()
        await connection.execute(
            "INSERT INTO lane_items (message_id, step, submission, lane, priority, sequence, units,"
            " other_channel_left, entered_at)"
            " SELECT 'plan' || number, 0, 1, $1, 1, number, 1, false, now()"
            " FROM generate_series(1, $2::bigint) AS number",
            lane,
            waiting,
        )
        for name, value in PLANS_WITHOUT_STATISTICS.items():
            await connection.execute(f"SET LOCAL {name} = {value}")
        # In the middle of the line: what lies before has gone.
        answer: Any = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {HEADS}", [lane], [_ASKED], [0], [waiting // 2 - _ASKED]
        )
        await undone.rollback()
    plan = msgspec.convert(msgspec.json.decode(answer)[0]["Plan"], _Plan)
    return plan.hit + plan.read


def _resident(memory: Mapping[str, int]) -> int:
    servers = ("postgres", "kafka")
    return sum(held for name, held in memory.items() if not name.startswith("(") and name not in servers)
