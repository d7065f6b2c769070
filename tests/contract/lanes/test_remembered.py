"""What deciding on lanes that were only seen promises, on a real database (ADR 0030)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from tests.contract.lanes.conftest import LANE, World

from switchboard.ids import LaneId
from switchboard.lanes import Ended, LaneMemory, Limits, Slot, lock_lanes
from switchboard.lanes.remembered import LOCKED_SECONDS, SHARED_SECONDS
from switchboard.rules.progress import AttemptEnd
from switchboard.store.pool import Connection
from switchboard.store.writes import Unmet, Writes
from switchboard.testing import wait_until

FAST = Limits(per_second=1000, max_in_flight=1000)


class Process:
    """A planner that takes slots without a lock, and a clock that stands until it is moved."""

    def __init__(self, world: World, **options: int) -> None:
        self.world = world
        self.seconds = 0.0
        self.memory = LaneMemory(monotonic=lambda: self.seconds, **options)

    async def take(self, lane: LaneId = LANE, limits: Limits = FAST) -> Slot | None:
        """Take a slot. None: the lane is to be locked. Raises Unmet."""
        async with self.world.pool.acquire() as connection:
            now = await self.world.now(connection)
            async with self.memory.look(connection, {lane: limits}, now) as seen:
                if seen is None:
                    return None
                [slot] = seen.lanes.reserve([self.world.ask(lane, limits)])
                if seen.lanes.needs_lock:
                    return None
                writes = Writes()
                seen.write_into(writes)
                await seen.execute(writes, connection)
        assert isinstance(slot, Slot)
        return slot

    async def reads(self, lane: LaneId = LANE) -> bool:
        """Take a slot. Returns whether the lane was read before."""
        said: list[str] = []

        def note(record: object) -> None:
            said.append(str(getattr(record, "query", "")))

        async with self.world.pool.acquire() as connection:
            now = await self.world.now(connection)
            connection.add_query_logger(note)
            async with self.memory.look(connection, {lane: FAST}, now) as seen:
                assert seen is not None
                writes = Writes()
                seen.lanes.reserve([self.world.ask(lane, FAST)])
                seen.write_into(writes)
                await seen.execute(writes, connection)
            connection.remove_query_logger(note)
        return any(query.startswith("SELECT lane.*") for query in said)


async def make(world: World, *lanes: LaneId) -> None:
    async with world.pool.acquire() as connection, connection.transaction():
        await lock_lanes(connection, dict.fromkeys(lanes or (LANE,), FAST), await world.now(connection))


@pytest.fixture
async def process(world: World) -> Process:
    await make(world)
    return Process(world)


async def test_slots_of_one_process_follow_each_other_without_another_look(world: World, process: Process) -> None:
    assert await process.reads()
    assert not await process.reads()
    assert (await world.lane())["in_flight"] == 2


async def test_batches_of_one_process_do_not_meet(world: World, process: Process) -> None:
    slots = [slot for slot in await asyncio.gather(*[process.take() for _ in range(10)]) if slot is not None]

    moments = sorted(slot.slot_at for slot in slots)
    assert len(slots) == 10
    assert all(later - earlier >= timedelta(milliseconds=1) for earlier, later in pairwise(moments))
    assert (await world.lane())["in_flight"] == 10


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE lanes SET in_flight = in_flight",
        "UPDATE lanes SET gate = 'paused'",
        "DELETE FROM lanes",
    ],
    ids=["written", "paused", "removed"],
)
async def test_nothing_is_written_in_a_lane_that_moved(world: World, process: Process, change: str) -> None:
    await process.take()
    await world.pool.execute(change)
    before = await world.pool.fetch("SELECT * FROM lanes")

    with pytest.raises(Unmet):
        await process.take()

    assert await world.pool.fetch("SELECT * FROM lanes") == before


async def test_a_lane_that_is_made_anew_is_another_one(world: World, process: Process) -> None:
    await process.take()
    await world.pool.execute("DELETE FROM lanes")
    await make(world)

    with pytest.raises(Unmet):
        await process.take()

    assert (await world.lane())["in_flight"] == 0


async def test_a_lane_that_others_write_is_read_each_time_for_a_while(world: World, process: Process) -> None:
    await process.take()
    await world.pool.execute("UPDATE lanes SET in_flight = in_flight")
    with pytest.raises(Unmet):
        await process.take()

    assert [await process.reads() for _ in range(2)] == [True, True]
    process.seconds = SHARED_SECONDS
    assert [await process.reads() for _ in range(2)] == [False, False]


async def test_a_lane_that_was_locked_is_locked_for_a_while_and_then_read(world: World, process: Process) -> None:
    await process.take()
    process.memory.note_locked([LANE])

    assert await process.take() is None
    process.seconds = LOCKED_SECONDS
    assert await process.reads()


@pytest.mark.parametrize(
    ("limits", "change"),
    [
        (Limits(per_second=999, max_in_flight=1000), "SELECT 1"),
        (Limits(per_second=1000, max_in_flight=999), "SELECT 1"),
        (FAST, "DELETE FROM lanes"),
        (FAST, "UPDATE lanes SET waiting = 1"),
        (FAST, "UPDATE lanes SET gate = 'paused'"),
        (FAST, "UPDATE lanes SET in_flight = 1000"),
        (FAST, "UPDATE lanes SET tat = switchboard.now() + interval '1 minute'"),
    ],
    ids=["another rate", "another bound", "not there", "others wait", "paused", "full", "no slot yet"],
)
async def test_what_is_not_plain_is_left_to_those_who_lock(
    world: World, process: Process, limits: Limits, change: str
) -> None:
    await world.pool.execute(change)
    before = await world.pool.fetch("SELECT * FROM lanes")

    assert await process.take(limits=limits) is None
    assert await world.pool.fetch("SELECT * FROM lanes") == before


async def test_a_count_that_does_not_fit_is_left_to_those_who_lock(world: World, process: Process) -> None:
    """Another process has let the attempt in since."""
    async with world.pool.acquire() as connection:
        now = await world.now(connection)
        async with process.memory.look(connection, {LANE: None}, now) as seen:
            assert seen is not None
            assert not seen.lanes.needs_lock
            seen.lanes.release([Ended((LANE,), AttemptEnd.OK)])

            assert seen.lanes.needs_lock


async def test_an_end_that_makes_room_for_those_who_wait_is_left_to_those_who_lock(
    world: World, process: Process
) -> None:
    await world.pool.execute("UPDATE lanes SET waiting = 1, in_flight = 1000")
    async with world.pool.acquire() as connection:
        now = await world.now(connection)
        async with process.memory.look(connection, {LANE: None}, now) as seen:
            assert seen is not None
            seen.lanes.release([Ended((LANE,), AttemptEnd.OK)])

            assert seen.lanes.needs_lock


async def test_whoever_holds_the_lane_is_waited_for_and_makes_it_move(world: World, process: Process) -> None:
    await process.take()
    async with world.pool.acquire() as connection, connection.transaction():
        locked = await lock_lanes(connection, {LANE: FAST}, await world.now(connection))
        taking = asyncio.create_task(process.take())
        await wait_until(lambda: _somebody_waits(world))
        locked.change(LANE).in_flight = 7
        await locked.save(connection)

    with pytest.raises(Unmet):
        await taking

    assert (await world.lane())["in_flight"] == 7


async def test_what_is_required_besides_the_lane_is_not_written_without_it(world: World, process: Process) -> None:
    async with world.pool.acquire() as connection:
        now = await world.now(connection)
        async with process.memory.look(connection, {LANE: FAST}, now) as seen:
            assert seen is not None
            seen.lanes.reserve([world.ask(limits=FAST)])
            writes = Writes()
            seen.write_into(writes)
            writes.add("held", "SELECT id FROM switchboard.messages WHERE id = $1 FOR UPDATE", "nobody")
            writes.require("held", rows=1)
            with pytest.raises(Unmet, match="held"):
                await seen.execute(writes, connection)

    assert (await world.lane())["in_flight"] == 0
    assert await process.take() is not None


async def test_an_answer_that_was_lost_is_forgotten(
    world: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Writes.execute_or_nothing

    async def lose(writes: Writes, connection: Connection) -> int:
        await really(writes, connection)
        raise ConnectionResetError

    await process.take()
    with monkeypatch.context() as patch:
        patch.setattr(Writes, "execute_or_nothing", lose)
        with pytest.raises(ConnectionResetError):
            await process.take()

    assert (await world.lane())["in_flight"] == 2
    assert await process.reads()
    assert (await world.lane())["in_flight"] == 3


async def test_a_memory_that_is_full_forgets_the_lane_it_wrote_longest_ago(world: World) -> None:
    lanes = [LaneId(f"{LANE}-{number}") for number in range(3)]
    await make(world, *lanes)
    process = Process(world, size=2)
    for lane in lanes:
        await process.take(lane)

    assert [await process.reads(lane) for lane in reversed(lanes)] == [False, False, True]


async def _somebody_waits(world: World) -> bool:
    waiting: int = await world.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return waiting > 0
