"""What operators can do with lanes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.contract.lanes.conftest import ACCOUNT, LANE, LIMITS, World, key_of

from switchboard.ids import LaneId
from switchboard.lanes import GateState, LaneKind, Slot, Waiting, operate


async def test_a_paused_lane_lets_everyone_wait_and_a_resumed_one_lets_them_go(world: World) -> None:
    await world.plan([world.ask()])
    await operate.pause(world.pool, LANE)
    await world.advance(1)

    paused = world.ask(other_channel_left=True)
    assert await world.plan([paused]) == [Waiting(LANE, 1)]
    await world.drain(world.drainer())
    assert world.published == []
    await operate.resume(world.pool, LANE)
    await world.drain(world.drainer())

    assert [item.key for item in world.published] == [key_of(paused)]


async def test_purging_ends_those_in_line_and_nobody_who_enters_later(world: World) -> None:
    await world.plan([world.ask()])
    await operate.pause(world.pool, LANE)
    asks = [world.ask(high=number % 2 == 0) for number in range(700)]
    await world.plan(asks)
    later = world.ask()

    async def tell(records: object) -> None:
        if not world.abandoned:
            await world.plan([later])
        await world._tell(records)  # type: ignore[arg-type]

    assert await operate.purge(world.pool, LANE, tell) == 700

    assert {(r.message_id, r.step, r.submission) for r in world.abandoned} == {key_of(ask) for ask in asks}
    assert all(record.fails_message for record in world.abandoned)
    await world.end([key_of(ask) for ask in asks])
    await operate.resume(world.pool, LANE)
    await world.advance(1)
    await world.drain(world.drainer())
    assert [item.key for item in world.published] == [key_of(later)]


async def test_the_list_says_what_waits_where_and_since_when(world: World) -> None:
    now = await world.now()
    asks = [world.ask(account_lane=ACCOUNT, account_limits=LIMITS) for _ in range(5)]
    decisions = await world.plan(asks, now)
    waiting = sum(isinstance(decision, Waiting) for decision in decisions)

    lanes = {lane.id: lane for lane in await operate.list_lanes(world.pool)}

    assert sum(isinstance(decision, Slot) for decision in decisions) == 5 - waiting
    for lane in (lanes[LANE], lanes[ACCOUNT]):
        assert (lane.waiting, lane.in_flight, lane.gate) == (waiting, 5 - waiting, GateState.OPEN)
        assert lane.per_second == 20
        assert lane.oldest_at is not None
        assert abs(lane.oldest_at - now) < timedelta(milliseconds=1)
    assert [lane.id for lane in await operate.list_lanes(world.pool, kind=LaneKind.ACCOUNT)] == [ACCOUNT]


async def test_a_lane_that_does_not_exist_is_named(world: World) -> None:
    unknown = LaneId("dispatch:nobody:SMS")
    with pytest.raises(operate.LaneNotFound, match="dispatch:nobody:SMS"):
        await operate.pause(world.pool, unknown)
    with pytest.raises(operate.LaneNotFound):
        await operate.purge(world.pool, unknown, world._tell)
