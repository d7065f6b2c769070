"""Group commit: together when there is much to do, at once when there is little, and one bad item harms nobody."""

import asyncio
from collections.abc import Sequence

import pytest

from switchboard_channel_adapter.batching import Batcher


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
    batcher = Batcher(Work())

    assert await asyncio.gather(*(batcher.submit(n) for n in range(5))) == [0, 2, 4, 6, 8]


async def test_what_arrives_during_a_batch_is_the_next_one() -> None:
    work = Work()
    work.gate.clear()
    batcher = Batcher(work, workers=1)
    first = asyncio.create_task(batcher.submit(0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(batcher.submit(n)) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    work.gate.set()
    await asyncio.gather(first, *later)

    assert work.batches == [[0], [1, 2, 3]]


async def test_a_batch_is_bounded() -> None:
    work = Work()
    batcher = Batcher(work, max_batch=2, workers=1)
    await asyncio.gather(*(batcher.submit(n) for n in range(5)))

    assert max(map(len, work.batches)) == 2


async def test_bad_data_fails_alone() -> None:
    batcher = Batcher(Work(), workers=1)
    results = await asyncio.gather(*(batcher.submit(n) for n in (1, 101, 2)), return_exceptions=True)

    assert results[0] == 2
    assert isinstance(results[1], ValueError)
    assert results[2] == 4


async def test_a_world_in_the_way_fails_the_whole_batch_once() -> None:
    work = Work()
    work.away = True
    batcher = Batcher(work, workers=1)
    results = await asyncio.gather(*(batcher.submit(n) for n in (1, 2)), return_exceptions=True)

    assert [type(result) for result in results] == [ConnectionResetError] * 2
    assert work.batches == [[1, 2]]


async def test_after_a_failure_work_goes_on() -> None:
    work = Work()
    work.away = True
    batcher = Batcher(work, workers=1)
    with pytest.raises(ConnectionResetError):
        await batcher.submit(1)
    work.away = False

    assert await batcher.submit(2) == 4


async def test_a_caller_that_gives_up_takes_nothing_from_the_others() -> None:
    work = Work()
    work.gate.clear()
    batcher = Batcher(work, workers=1)
    gone, stays = (asyncio.create_task(batcher.submit(n)) for n in (1, 2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gone.cancel()
    work.gate.set()

    assert await stays == 4
