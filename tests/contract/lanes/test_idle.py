"""Lanes that nobody uses any more are removed, and nobody who plans notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from tests.contract.lanes.conftest import LANE, LIMITS, World, key_of

from switchboard.lanes import Limits, Slot, lock_lanes, operate
from switchboard.lanes.idle import IDLE_AFTER, REMOVE, IdleLanes
from switchboard.testing import wait_until

DAY = timedelta(days=1).total_seconds()


async def exists(world: World) -> bool:
    return bool(await world.pool.fetchval("SELECT EXISTS (SELECT FROM lanes WHERE id = $1)", LANE))


async def use(world: World) -> None:
    """Let one message pass through the lane, to its end."""
    ask = world.ask()
    await world.plan([ask])
    await world.end([key_of(ask)])


async def test_a_lane_idle_for_a_day_is_removed(world: World) -> None:
    await use(world)
    await world.advance(DAY - 60)
    await IdleLanes(world.pool).run_once()
    assert await exists(world)

    await world.advance(120)
    await IdleLanes(world.pool).run_once()

    assert not await exists(world)


async def with_one_under_way(world: World) -> None:
    await world.plan([world.ask()])


async def with_one_waiting(world: World) -> None:
    asks = [world.ask(limits=Limits(per_second=20, max_in_flight=1)) for _ in range(2)]
    await world.plan(asks)
    await world.end([key_of(asks[0])])


async def paused(world: World) -> None:
    await use(world)
    await operate.pause(world.pool, LANE)


async def closed(world: World) -> None:
    await use(world)
    await world.pool.execute("UPDATE lanes SET gate = 'closed', fail_streak = 10, probe_at = switchboard.now()")


async def slow_and_far_ahead(world: World) -> None:
    # One message a week: its next slot is six days away, and must not be given to anybody sooner.
    ask = world.ask(limits=Limits(per_second=1 / (7 * DAY), max_in_flight=10))
    await world.plan([ask])
    await world.end([key_of(ask)])


@pytest.mark.parametrize("state", [with_one_under_way, with_one_waiting, paused, closed, slow_and_far_ahead])
async def test_a_lane_that_remembers_something_stays(world: World, state: Callable[[World], Awaitable[None]]) -> None:
    await state(world)
    await world.advance(DAY + 60)

    await IdleLanes(world.pool).run_once()

    assert await exists(world)


async def test_more_than_a_batch_is_removed_in_pieces(world: World) -> None:
    await use(world)
    await world.pool.execute(
        "INSERT INTO lanes (id, kind, interval_ns, max_in_flight, tat)"
        " SELECT 'account:SMS:' || number, 'account', 1, 1, switchboard.now() FROM generate_series(1, 4) AS number"
    )
    await world.advance(DAY + 60)
    sweep = IdleLanes(world.pool, batch=3)

    more = [await sweep.run_once(), await sweep.run_once()]

    assert more == [True, False]
    assert await world.pool.fetchval("SELECT count(*) FROM lanes") == 0


async def test_a_lane_that_a_planner_holds_is_left_alone(world: World) -> None:
    await use(world)
    await world.advance(DAY + 60)
    async with world.pool.acquire() as connection, connection.transaction():
        await lock_lanes(connection, {LANE: LIMITS}, await world.now(connection))

        await IdleLanes(world.pool).run_once()

    assert await exists(world)


async def test_a_planner_that_waits_for_a_lane_while_it_is_removed_makes_it_anew(world: World) -> None:
    await use(world)
    await world.advance(DAY + 60)
    ask = world.ask()
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.fetch(REMOVE, IDLE_AFTER, 10)
        planning = asyncio.create_task(world.plan([ask]))
        await wait_until(lambda: _is_anybody_blocked(world), 10, "the planner waits")

    [decision] = await planning

    assert isinstance(decision, Slot)
    assert (await world.lane())["in_flight"] == 1


async def test_a_removed_lane_begins_again(world: World) -> None:
    await use(world)
    await world.advance(DAY + 60)
    await IdleLanes(world.pool).run_once()

    await world.plan([world.ask() for _ in range(4)])
    await world.advance(1)
    await world.drain(world.drainer())

    assert len(world.published) == 2


async def _is_anybody_blocked(world: World) -> bool:
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await world.pool.fetchval(blocked))
