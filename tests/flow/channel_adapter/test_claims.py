"""Who may submit an attempt is decided by its row, once."""

import asyncio
from typing import Any

import pytest

from switchboard.store.pool import Pool
from switchboard_channel_adapter.claims import Claims, Undecided

from .conftest import World


async def test_of_two_processes_one_gets_the_attempt(world: World) -> None:
    orders = [await world.plan() for _ in range(60)]
    processes = [world.claims("a"), world.claims("b")]
    claims = await asyncio.gather(*(process.claim(order) for order in orders for process in processes))

    won = [sum(claim is not None for claim in pair) for pair in zip(claims[::2], claims[1::2], strict=True)]
    assert won == [1] * 60


async def test_two_orders_for_one_attempt_in_one_batch_are_one_claim(world: World) -> None:
    order, claims = await world.plan(), world.claims()
    got = await asyncio.gather(*(claims.claim(order) for _ in range(5)))

    assert sum(claim is not None for claim in got) == 1


@pytest.mark.parametrize("state", ["claimed", "finished", "cancelled"])
async def test_an_attempt_that_is_not_planned_is_nobodys(world: World, state: str) -> None:
    order = await world.plan()
    await world.pool.execute("UPDATE switchboard.attempts SET state = $1", state)

    assert await world.claims().claim(order) is None


async def test_an_attempt_past_its_time_is_nobodys_until_it_is_decided(world: World) -> None:
    again, over = await world.plan(seconds=-1.0), await world.plan(seconds=-1.0)
    claims = world.claims()
    for order in (again, over):
        with pytest.raises(Undecided):
            await claims.claim(order)
    await world.publish_once_more(again)
    await world.pool.execute(
        "UPDATE switchboard.attempts SET state = 'cancelled' WHERE message_id = $1", over.message_id
    )

    assert await claims.claim(again) is not None
    assert await claims.claim(over) is None


async def test_an_attempt_in_its_lane_cannot_be_claimed(world: World) -> None:
    order = await world.plan()
    await world.pool.execute("UPDATE switchboard.attempts SET send_before = NULL")

    assert await world.claims().claim(order) is None


class LosesAnswers:
    """A pool whose next query is carried out and its answer lost."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.lose = 1

    async def fetch(self, *arguments: Any) -> Any:
        rows = await self._pool.fetch(*arguments)
        if self.lose:
            self.lose -= 1
            raise ConnectionResetError
        return rows


async def test_a_claim_whose_answer_was_lost_is_this_process_s_to_send(world: World) -> None:
    order = await world.plan()
    claims = Claims(LosesAnswers(world.pool), "me")  # type: ignore[arg-type]
    with pytest.raises(ConnectionResetError):
        await claims.claim(order)
    others = await world.claims("other").claim(order)
    again = await claims.claim(order)
    and_again = await claims.claim(order)

    assert others is None
    assert again is not None
    assert and_again is None
