"""What an app gets, when everything works and when its webhook does not."""

from __future__ import annotations

from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Answer, Receiver

from switchboard.ids import mint
from switchboard.testing import wait_until


async def test_a_callback_arrives_and_its_outcome_is_recorded(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    await world.run()
    order = callback(webhook)

    await world.publish(order)
    await wait_until(lambda: world.states(state="delivered"))

    assert [got.body for got in receiver.got] == [bytes(order.body)]
    assert receiver.got[0].event_id == order.callback_id
    (row,) = await world.rows()
    assert (row["attempts"], row["last_status"], row["body"]) == (1, 200, None)


async def test_one_stream_arrives_in_order_though_its_head_fails_first(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    receiver.behave = lambda got: Answer(200 if got.sequence > 1 or got.attempt > 1 else 500)
    await world.run()
    stream = mint()

    await world.publish(*(callback(webhook, stream=stream, sequence=number) for number in (1, 2, 3)))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 3 FROM switchboard.callback_events"))
    await world.advance_to_next_try()
    await wait_until(lambda: len(receiver.taken) == 3)

    assert [got.sequence for got in receiver.taken] == [1, 2, 3]
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 0 FROM switchboard.callback_streams"))
    assert await world.states() == ["delivered"] * 3
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 0
