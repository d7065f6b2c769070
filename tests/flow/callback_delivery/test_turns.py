"""Callbacks above what an endpoint may have at once: a short wait in memory, and rows for what would wait longer."""

from __future__ import annotations

import asyncio

from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Answer, Receiver

from switchboard.ids import CallbackId, mint
from switchboard.testing import wait_until


async def test_a_burst_above_an_endpoints_concurrency_goes_without_waiting_in_rows(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url())
    running = await world.run(slots=80, endpoint_concurrency=4)
    streams = [mint() for _ in range(10)]
    # More than may be under way at once, no more than a quarter of the slots.
    orders = [callback(webhook, stream=stream, sequence=number) for number in (1, 2) for stream in streams]
    await world.publish(*orders)

    await wait_until(lambda: len(receiver.taken) == 20)

    async def recorded() -> bool:
        return await world.states() == ["delivered"] * 20

    await wait_until(recorded)
    assert receiver.most_under_way <= 4
    stream_of = {order.callback_id: order.stream for order in orders}
    for stream in streams:
        assert [got.sequence for got in receiver.taken if stream_of[CallbackId(got.event_id)] == stream] == [1, 2]
    assert running.parked() == 0


async def test_a_quick_endpoint_has_the_slots_that_nobody_else_needs(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), per_second=10_000)
    running = await world.run(slots=40, endpoint_concurrency=10)
    # Now it is known how quick it is.
    await world.publish(*(callback(webhook) for _ in range(10)))
    await wait_until(lambda: len(receiver.taken) == 10)

    await world.publish(*(callback(webhook) for _ in range(200)))

    await wait_until(lambda: len(receiver.taken) == 210)
    assert receiver.most_under_way <= 10
    assert running.parked() == 0


async def test_what_waits_its_turn_too_long_is_parked_and_frees_its_slots(world: World, receiver: Receiver) -> None:
    stuck = asyncio.Event()
    receiver.behave = lambda got: Answer(after=stuck if got.path == "/stuck" else None)
    webhook = world.apps.add(receiver.url("/stuck"))
    other = world.apps.add(receiver.url("/free"), app_id=webhook.app_id)
    running = await world.run(slots=40, endpoint_concurrency=2, slow_seconds=0.2)
    orders = [callback(webhook) for _ in range(8)]
    await world.publish(*orders)

    # Two are under way and get leases; the others are parked, for nobody knows how long it takes.
    async def all_in_rows() -> bool:
        return await world.states(webhook_id=webhook.id) == ["waiting"] * 8

    await wait_until(all_in_rows)
    assert running.parked() == 6
    await world.publish(*(callback(other) for _ in range(30)))
    await wait_until(lambda: sum(got.path == "/free" for got in receiver.taken) == 30)

    stuck.set()
    await wait_until(lambda: {got.event_id for got in receiver.taken} >= {order.callback_id for order in orders})
