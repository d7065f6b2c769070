"""What the drainer promises about those who wait in line, on a real database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from tests.contract.lanes.conftest import ACCOUNT, LANE, SMS, World, key_of

from switchboard.ids import AppId, LaneId
from switchboard.lanes import Ask, Limits, Waiting, dispatch_lane, lock_lanes
from switchboard.lanes import gate as gates
from switchboard.lanes.drainer import Drainer
from switchboard.lanes.round import HEADS, Granted
from switchboard.rules.progress import AttemptEnd
from switchboard.testing import wait_until

FAST = Limits(per_second=1000, max_in_flight=1000)


async def pause(world: World) -> None:
    """Stop the lane, so that what is planned waits."""
    async with world.pool.acquire() as connection, connection.transaction():
        now = await world.now(connection)
        lanes = await lock_lanes(connection, {LANE: FAST}, now)
        lane = lanes.change(LANE)
        lane.gate = gates.pause(lane.gate)
        await lanes.save(connection)


async def resume(world: World) -> None:
    """Let the lane go on."""
    async with world.pool.acquire() as connection, connection.transaction():
        lanes = await lock_lanes(connection, {LANE: None}, await world.now(connection))
        lanes.change(LANE).gate = gates.OPEN
        await lanes.save(connection)


async def line_up(world: World, number: int, **changes: Any) -> list[Ask]:
    """Plan messages while the lane is paused, so that all of them wait."""
    asks = [world.ask(limits=FAST, **changes) for _ in range(number)]
    assert all(isinstance(decision, Waiting) for decision in await world.plan(asks))
    return asks


async def test_those_who_wait_are_published_in_the_order_they_entered(world: World) -> None:
    asks = [world.ask() for _ in range(8)]
    decisions = await world.plan(asks)
    drainer = world.drainer()

    for _ in range(8):
        await world.advance(0.05)
        await world.drain(drainer)

    waiting = [ask for ask, decision in zip(asks, decisions, strict=True) if isinstance(decision, Waiting)]
    assert len(waiting) == 6
    assert [item.key for item in world.published] == [key_of(ask) for ask in waiting]
    assert await world.pool.fetchval("SELECT count(*) FROM lane_items") == 0
    assert (await world.lane())["owner"] is None


async def test_the_next_are_found_without_a_look_at_those_behind_them(world: World) -> None:
    # A long line came and went, and the table's statistics say that hardly anything is there.
    await lay_items(world, dispatch_lane(AppId("gone"), SMS))
    await world.pool.execute("VACUUM ANALYZE lane_items")
    await world.pool.execute("DELETE FROM lane_items")
    await world.pool.execute("VACUUM (TRUNCATE false) lane_items")
    await lay_items(world, LANE)

    plan = "\n".join(
        row[0]
        for row in await world.pool.fetch(f"EXPLAIN (ANALYZE, BUFFERS, COSTS off) {HEADS}", [LANE], [10], [0], [5_000])
    )

    assert "rows=10.00" in plan
    blocks = re.search(r"Buffers: shared hit=(\d+)", plan)
    assert blocks
    assert int(blocks[1]) < 50, plan


async def lay_items(world: World, lane: LaneId) -> None:
    """Ten thousand that wait, in the line alone."""
    await world.pool.execute(
        "INSERT INTO lane_items (message_id, step, submission, lane, priority, sequence, units, other_channel_left,"
        " entered_at) SELECT 'message' || number, 0, 1, $1, 1, number, 1, false, now()"
        " FROM generate_series(1, 10000) AS number",
        lane,
    )


async def test_high_goes_before_normal(world: World) -> None:
    await pause(world)
    normal = await line_up(world, 3)
    high = await line_up(world, 2, high=True)
    await resume(world)

    await world.drain(world.drainer())

    assert [item.key for item in world.published] == [key_of(ask) for ask in (*high, *normal)]


async def test_a_slot_sets_the_due_times_and_counts_in_flight(world: World) -> None:
    await pause(world)
    await line_up(world, 1, account_lane=ACCOUNT, account_limits=FAST)
    await resume(world)

    await world.drain(world.drainer())

    row = await world.pool.fetchrow(
        "SELECT a.send_before, a.lanes, m.claim_due_at, m.next_due FROM attempts a JOIN messages m ON m.id = message_id"
    )
    assert row is not None
    assert row["send_before"] == row["claim_due_at"] == row["next_due"] == world.published[0].send_before
    assert set(row["lanes"]) == {LANE, ACCOUNT}
    assert [(await world.lane(lane))["in_flight"] for lane in (LANE, ACCOUNT)] == [1, 1]


async def test_two_drainers_publish_each_attempt_once_and_no_faster_than_the_rate(world: World) -> None:
    lanes = [dispatch_lane(AppId(f"app{n}"), SMS) for n in range(6)]
    limits = Limits(per_second=100, max_in_flight=1000)
    await world.plan([world.ask(lane, limits) for lane in lanes for _ in range(40)])
    waiting = await world.pool.fetchval("SELECT count(*) FROM lane_items")
    drainers = [world.drainer("router-0"), world.drainer("router-1")]

    for _ in range(40):
        await world.advance(0.01)
        for drainer in drainers:
            drainer.wake()
        await asyncio.gather(*(drainer.drain_once() for drainer in drainers))
    await world.advance(1)
    await asyncio.gather(*(world.drain(drainer) for drainer in drainers))

    assert len(world.published) == len({item.key for item in world.published})
    assert len(world.published) <= waiting
    for lane in lanes:
        times = sorted(item.send_before for item in world.published if item.lane == lane)
        assert all((b - a).total_seconds() >= 0.01 for a, b in pairwise(times))


async def test_at_least_99_percent_of_the_rate_is_used_over_ten_seconds(world: World) -> None:
    limits = Limits(per_second=200, max_in_flight=100_000)
    begin = await world.now()
    await world.plan([world.ask(limits=limits) for _ in range(2100)], begin)
    drainer = world.drainer()

    # A look every 50 ms of the database's clock, which stands still in between: the rounds take no time of it.
    for look in range(200):
        await world.freeze(begin + timedelta(seconds=0.05 * look))
        await world.drain(drainer, 1)

    slots = [item.send_before.timestamp() - 30 - begin.timestamp() for item in world.published]
    used = sum(slot < 10 for slot in slots) + 20  # those the planner granted itself
    assert 1980 <= used <= 2000


async def test_a_drainer_that_comes_late_loses_no_slot_that_somebody_waited_for(world: World) -> None:
    limits = Limits(per_second=10, max_in_flight=100)
    begin = await world.now()
    await world.plan([world.ask(limits=limits) for _ in range(3)], begin)
    await world.freeze(begin + timedelta(seconds=0.16))

    await world.drain(world.drainer(), 2)

    due = [(item.send_before - begin).total_seconds() - 30 for item in world.published]
    assert [round(seconds, 3) for seconds in due] == [0.1, 0.2]


async def test_the_next_owner_publishes_leased_attempts_again_in_order_and_reserves_nothing(world: World) -> None:
    await pause(world)
    asks = await line_up(world, 20)
    await resume(world)
    dead = world.drainer("router-0")
    dead._publish = _dies
    with suppress(_Killed):
        await world.drain(dead, 1)
    tat = (await world.lane())["tat"]
    heir = world.drainer("router-1")

    await world.drain(heir)
    assert world.published == []
    await world.advance(11)
    heir.wake()
    await heir.drain_once()

    assert [item.key for item in world.published] == [key_of(ask) for ask in asks]
    assert (await world.lane())["tat"] == tat
    await world.drain(heir)
    assert len(world.published) == 20
    assert (await world.lane())["waiting"] == 0


async def test_what_an_earlier_owner_still_does_has_no_effect(world: World) -> None:
    await pause(world)
    asks = await line_up(world, 3)
    await resume(world)
    frozen = world.drainer("router-0")
    await world.drain(frozen, 1)
    await world.advance(11)
    heir = world.drainer("router-1")
    heir.wake()
    await heir.drain_once()

    await world.drain(frozen)

    assert (await world.lane())["owner"] == "router-1"
    assert (await world.lane())["waiting"] == 3
    await world.drain(heir)
    assert (await world.lane())["waiting"] == 0
    assert {item.key for item in world.published} == {key_of(ask) for ask in asks}


async def test_what_could_not_be_published_is_published_by_the_next_round(world: World) -> None:
    await pause(world)
    asks = await line_up(world, 3)
    await resume(world)
    drainer = world.drainer()
    publish, drainer._publish = drainer._publish, _dies
    with pytest.raises(_Killed):
        await world.drain(drainer, 1)
    drainer._publish = publish

    await world.drain(drainer)

    assert [item.key for item in world.published] == [key_of(ask) for ask in asks]
    assert (await world.lane())["in_flight"] == 3


async def test_attempts_taken_back_while_they_wait_are_not_published(world: World) -> None:
    await pause(world)
    first, second, third = await line_up(world, 3)
    await world.end([key_of(second)], AttemptEnd.NEUTRAL)
    await world.pool.execute("UPDATE attempts SET state = 'cancelled' WHERE message_id = $1", third.message_id)
    await resume(world)

    await world.drain(world.drainer())

    assert [item.key for item in world.published] == [key_of(first)]
    assert (await world.lane())["waiting"] == 0


async def test_behind_a_closed_gate_those_with_another_channel_are_abandoned_once_and_the_head_probes(
    world: World,
) -> None:
    await pause(world)
    stay = await line_up(world, 2)
    leave = await line_up(world, 3, other_channel_left=True)
    await world.pool.execute("UPDATE lanes SET gate = 'closed', fail_streak = 10, probe_at = switchboard.now() + '5 s'")
    drainer = world.drainer()

    await world.drain(drainer)
    assert [key_of_record(record) for record in world.abandoned] == [key_of(ask) for ask in leave]
    assert world.published == []
    await world.advance(5)
    await world.drain(drainer)

    assert [item.key for item in world.published] == [key_of(stay[0])]
    assert (await world.lane())["probing"] is True
    await world.end([key_of(stay[0])])
    await world.drain(drainer)
    assert [item.key for item in world.published] == [key_of(ask) for ask in stay]
    assert len(world.abandoned) == 3


async def test_many_are_abandoned_in_chunks_of_500_and_told_again_if_nothing_came_of_it(world: World) -> None:
    await pause(world)
    await line_up(world, 1200, other_channel_left=True)
    await world.pool.execute("UPDATE lanes SET gate = 'closed', fail_streak = 10, probe_at = switchboard.now() + '1 h'")
    chunks: list[int] = []
    drainer = world.drainer()
    tell = drainer._tell_abandoned

    async def counted(records: Sequence[object]) -> None:
        chunks.append(len(records))
        await tell(records)  # type: ignore[arg-type]

    drainer._tell_abandoned = counted
    await world.drain(drainer)
    assert chunks == [500, 500, 200]
    await world.advance(61)
    await world.drain(drainer)

    assert sum(chunks) == 2400


async def test_a_closed_account_moves_the_lines_of_all_its_apps(world: World) -> None:
    slow = Limits(per_second=1, max_in_flight=1000)
    lanes = [dispatch_lane(AppId(f"app{n}"), SMS) for n in range(2)]
    asks = [
        world.ask(lane, FAST, account_lane=ACCOUNT, account_limits=slow, other_channel_left=True)
        for lane in lanes
        for _ in range(3)
    ]
    decisions = await world.plan(asks)
    drainer = world.drainer()
    await world.drain(drainer, 2)
    await world.pool.execute(
        "UPDATE lanes SET gate = 'closed', fail_streak = 10, probe_at = switchboard.now() + '1 h' WHERE id = $1",
        ACCOUNT,
    )

    await world.drain(drainer)

    waiting = [key_of(ask) for ask, decision in zip(asks, decisions, strict=True) if isinstance(decision, Waiting)]
    gone = [item.key for item in world.published] + [key_of_record(record) for record in world.abandoned]
    assert sorted(gone) == sorted(waiting)
    assert len(world.abandoned) >= 4


async def test_a_running_drainer_is_woken_by_what_other_processes_do(world: World) -> None:
    narrow = Limits(per_second=1000, max_in_flight=2)
    drainer = world.drainer(look_seconds=3600)
    task = asyncio.create_task(drainer.run())
    try:
        asks = [world.ask(limits=narrow) for _ in range(6)]
        await world.plan(asks)
        for end in range(4):
            await world.end([key_of(asks[end])])
            await wait_until(published_at_least(world, end + 1))
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert [item.key for item in world.published] == [key_of(ask) for ask in asks[2:]]


async def test_a_running_drainer_is_woken_for_high_while_normal_waits(world: World) -> None:
    # The next slot of NORMAL is an hour away: nobody would look before.
    slow = Limits(per_second=1 / 3600, max_in_flight=1000)
    drainer = world.drainer(look_seconds=3600)
    task = asyncio.create_task(drainer.run())
    try:
        await world.plan([world.ask(limits=slow) for _ in range(3)])
        await wait_until(lambda: drainer.lanes_held == 1)
        await world.advance(3601)
        await world.plan([urgent := world.ask(limits=slow, high=True)])
        await wait_until(published_at_least(world, 1))
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert [item.key for item in world.published] == [key_of(urgent)]


async def test_what_is_published_leaves_the_line_long_before_the_next_slot(world: World) -> None:
    slow = Limits(per_second=1 / 3600, max_in_flight=1000)
    await world.plan([world.ask(limits=slow) for _ in range(3)])
    await world.advance(3601)
    task = asyncio.create_task(world.drainer().run())

    async def is_one_left() -> bool:
        return (await world.lane())["waiting"] == 1

    try:
        await wait_until(published_at_least(world, 1))
        await wait_until(is_one_left)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert await world.pool.fetchval("SELECT count(*) FROM lane_items") == 1


async def test_giving_up_lets_another_drainer_go_on_at_once(world: World) -> None:
    await pause(world)
    await line_up(world, 3)
    await resume(world)
    first = world.drainer("router-0")
    first._publish = _dies
    with suppress(_Killed):
        await world.drain(first, 1)
    first = Drainer(world.pool, world._publish, world._tell, owner="router-0")
    await world.drain(first, 1)
    await first.give_up()

    await world.drain(world.drainer("router-1"))

    assert (await world.lane())["waiting"] == 0


def published_at_least(world: World, number: int) -> Callable[[], bool]:
    """A condition to wait for."""
    return lambda: len(world.published) >= number


class _Killed(Exception):
    """The process died."""


async def _dies(_: Sequence[Granted]) -> None:
    raise _Killed


def key_of_record(record: object) -> tuple[str, int, int]:
    """The attempt a StepAbandoned is about."""
    return record.message_id, record.step, record.submission  # type: ignore[attr-defined]
