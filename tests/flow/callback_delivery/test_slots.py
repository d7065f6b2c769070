"""Slots of an endpoint's rate are taken without a lock, and none is given twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Receiver

from switchboard.ids import LaneId
from switchboard.lanes import endpoint_lane
from switchboard.lanes.lane import moment_of
from switchboard.lanes.locked import LockedLanes, lock_lanes
from switchboard.store.pool import Connection, Pool, database_now
from switchboard.testing import wait_until
from switchboard_callback_delivery import pacing
from switchboard_callback_delivery.store import endpoints

LANE = endpoint_lane("harbour")


class Look:
    """What one process saw of the lane, and the slots it gives away."""

    def __init__(self, standings: endpoints.Standings, slots: int) -> None:
        self.seen = {lane.id: lane.tat_us for lane in standings.lanes}
        self.lanes = LockedLanes(standings.lanes, standings.now)
        pacing.begin(self.lanes, LANE, slots, standings.now)

    async def take(self, connection: Connection) -> set[LaneId]:
        return await endpoints.take_slots(connection, self.seen, self.lanes)


async def looks(connection: Connection, slots: Sequence[int]) -> list[Look]:
    standings = [await endpoints.standings(connection, [], [LANE]) for _ in slots]
    return [Look(seen, count) for seen, count in zip(standings, slots, strict=True)]


@asynccontextmanager
async def lane(pool: Pool) -> AsyncIterator[Connection]:
    """A connection to the database, with the lane in it."""
    async with pool.acquire() as connection:
        now = await database_now(connection)
        async with connection.transaction():
            await lock_lanes(connection, {LANE: pacing.limits_of(100)}, now)
        yield connection


async def test_of_two_that_saw_the_same_slot_one_gets_it(world: World) -> None:
    async with lane(world.pool) as connection:
        first, second = await looks(connection, [3, 2])

        assert await first.take(connection) == {LANE}
        assert await second.take(connection) == set()

        tat = await connection.fetchval("SELECT tat FROM switchboard.lanes")
        assert tat == moment_of(first.lanes[LANE].tat_us)


async def test_a_lane_that_is_locked_is_not_waited_for(world: World) -> None:
    async with lane(world.pool) as connection, world.pool.acquire() as other, other.transaction():
        (look,) = await looks(connection, [1])
        await lock_lanes(other, {LANE: None}, await database_now(other))

        assert await look.take(connection) == set()


async def test_through_a_gate_that_closed_meanwhile_nothing_is_taken(world: World) -> None:
    async with lane(world.pool) as connection:
        (look,) = await looks(connection, [1])
        await connection.execute("UPDATE switchboard.lanes SET gate = 'closed', probe_at = now()")

        assert await look.take(connection) == set()


async def test_every_try_of_two_processes_has_a_slot_of_its_own(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), per_second=200)
    began = await world.now()
    await world.run()
    await world.run()
    await world.publish(*(callback(webhook) for _ in range(150)))
    await wait_until(lambda: len(receiver.taken) == 150)

    assert len(receiver.got) == 150
    tat = await world.pool.fetchval("SELECT tat FROM switchboard.lanes")
    assert tat - began >= 150 * timedelta(milliseconds=5)
