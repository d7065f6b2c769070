"""Group commit: together when there is much to do, at once when there is little, and one bad item harms nobody."""

import asyncio
from collections.abc import Sequence

import pytest

from switchboard.store.group_commit import GroupCommit
from switchboard.testing.waiting import wait_until


class Work:
    """Doubles numbers; odd ones over 100 are bad data, and while `away` nothing works."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.away:
            raise ConnectionResetError
        if any(item > 100 and item % 2 for item in items):
            raise ValueError("odd")
        return [item * 2 for item in items]


async def test_each_caller_gets_its_own_result() -> None:
    group = GroupCommit(Work())

    assert await asyncio.gather(*(group.submit(n) for n in range(5))) == [0, 2, 4, 6, 8]


async def test_what_arrives_during_a_batch_is_the_next_one() -> None:
    work = Work()
    work.gate.clear()
    group = GroupCommit(work, workers=1)
    first = asyncio.create_task(group.submit(0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(group.submit(n)) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    work.gate.set()
    await asyncio.gather(first, *later)

    assert work.batches == [[0], [1, 2, 3]]


async def test_a_batch_is_bounded() -> None:
    work = Work()
    group = GroupCommit(work, max_batch=2, workers=1)
    await asyncio.gather(*(group.submit(n) for n in range(5)))

    assert max(map(len, work.batches)) == 2


async def test_bad_data_fails_alone() -> None:
    group = GroupCommit(Work(), workers=1)
    results = await asyncio.gather(*(group.submit(n) for n in (1, 101, 2)), return_exceptions=True)

    assert results[0] == 2
    assert isinstance(results[1], ValueError)
    assert results[2] == 4


async def test_bad_data_is_found_by_halving() -> None:
    work = Work()
    group = GroupCommit(work, workers=1)
    await asyncio.gather(*(group.submit(n) for n in (1, 2, 3, 101)), return_exceptions=True)

    assert work.batches == [[1, 2, 3, 101], [1, 2], [3, 101], [3], [101]]


async def test_a_world_in_the_way_fails_the_whole_batch_once() -> None:
    work = Work()
    work.away = True
    group = GroupCommit(work, workers=1)
    results = await asyncio.gather(*(group.submit(n) for n in (1, 2)), return_exceptions=True)

    assert [type(result) for result in results] == [ConnectionResetError] * 2
    assert work.batches == [[1, 2]]


async def test_which_errors_say_nothing_about_the_items_is_for_the_user_to_say() -> None:
    work = Work()
    group = GroupCommit(work, workers=1, transient=(ValueError,))
    results = await asyncio.gather(*(group.submit(n) for n in (1, 101)), return_exceptions=True)

    assert [type(result) for result in results] == [ValueError] * 2
    assert work.batches == [[1, 101]]


async def test_after_a_failure_work_goes_on() -> None:
    work = Work()
    work.away = True
    group = GroupCommit(work, workers=1)
    with pytest.raises(ConnectionResetError):
        await group.submit(1)
    work.away = False

    assert await group.submit(2) == 4


async def test_a_caller_that_gives_up_takes_nothing_from_the_others() -> None:
    work = Work()
    work.gate.clear()
    group = GroupCommit(work, workers=1)
    gone, stays = (asyncio.create_task(group.submit(n)) for n in (1, 2))
    await wait_until(lambda: work.batches == [[1, 2]])
    gone.cancel()
    work.gate.set()

    assert await stays == 4


@pytest.mark.parametrize(("keeps_abandoned", "done"), [(False, [[0], [2]]), (True, [[0], [1, 2]])])
async def test_an_item_whose_caller_gave_up_before_its_batch_is_dropped_unless_asked_for(
    keeps_abandoned: bool, done: list[list[int]]
) -> None:
    work = Work()
    work.gate.clear()
    group = GroupCommit(work, workers=1, keeps_abandoned=keeps_abandoned)
    first = asyncio.create_task(group.submit(0))
    await wait_until(lambda: work.batches == [[0]])
    gone, stays = (asyncio.create_task(group.submit(n)) for n in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    work.gate.set()
    await asyncio.gather(first, stays)

    assert work.batches == done


async def test_a_batch_that_may_be_tried_again_outlasts_a_world_in_the_way() -> None:
    work = Work()
    work.away = True
    group = GroupCommit(work, workers=1, retry_seconds=[0])
    callers = [asyncio.create_task(group.submit(n)) for n in (1, 2)]
    await wait_until(lambda: len(work.batches) > 3)
    work.away = False

    assert await asyncio.gather(*callers) == [2, 4]
    assert all(batch == [1, 2] for batch in work.batches)


async def test_a_stop_waits_for_what_is_there() -> None:
    work = Work()
    work.gate.clear()
    group = GroupCommit(work, max_batch=1, workers=1)
    callers = [asyncio.create_task(group.submit(n)) for n in (1, 2)]
    await wait_until(lambda: work.batches == [[1]])
    stop = asyncio.create_task(group.stop())
    await asyncio.sleep(0)
    assert not stop.done()
    work.gate.set()
    await stop

    assert work.batches == [[1], [2]]
    assert await asyncio.gather(*callers) == [2, 4]


async def test_a_stop_does_not_outlast_a_world_in_the_way() -> None:
    work = Work()
    work.away = True
    group = GroupCommit(work, workers=1, retry_seconds=[0, 0])
    caller = asyncio.create_task(group.submit(1))
    await asyncio.sleep(0)
    await group.stop()

    assert work.batches == [[1]] * 3
    with pytest.raises(ConnectionResetError):
        await caller
