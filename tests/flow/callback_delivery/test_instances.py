"""Several instances at once, and stores that go away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Answer, Got, Receiver

from switchboard.embedded import EmbeddedPostgres
from switchboard.ids import mint
from switchboard.store.migrate import migrate
from switchboard.store.pool import TRANSIENT_ERRORS, open_pool
from switchboard.testing import wait_until


async def test_two_instances_share_the_work_and_keep_each_stream_in_order(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), per_second=5000)
    failed: Counter[str] = Counter()

    def flaky(got: Got) -> Answer:
        failed[got.event_id] += 1
        return Answer(503 if failed[got.event_id] == 1 and int(got.event_id[-1], 32) % 3 == 0 else 200)

    receiver.behave = flaky
    await world.run()
    await world.run()
    streams = [mint() for _ in range(40)]
    orders = [callback(webhook, stream=stream, sequence=number) for number in (1, 2, 3) for stream in streams]
    await world.publish(*orders)

    async def done() -> bool:
        await world.pool.execute("UPDATE switchboard.clock SET shift = shift + interval '1 second'")
        return bool(
            await world.pool.fetchval(
                "SELECT count(*) = 120 FROM switchboard.callback_events WHERE state = 'delivered'"
            )
        )

    await wait_until(done, timeout_seconds=30)

    order_of = {order.callback_id: (order.stream, order.sequence) for order in orders}
    taken = [order_of[got.event_id] for got in receiver.taken]  # type: ignore[index]
    assert len(taken) == len(set(taken)) == 120
    for stream in streams:
        assert [sequence for of, sequence in taken if of == stream] == [1, 2, 3]
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 0
    assert await world.pool.fetchval("SELECT count(*) FROM switchboard.callback_streams") == 0


@pytest.mark.fault
async def test_nothing_is_lost_while_the_database_is_away(
    world: World, receiver: Receiver, own_postgres: Callable[..., EmbeddedPostgres]
) -> None:
    server = own_postgres()
    await migrate(server.dsn)
    away = await open_pool(server.dsn, size=4, service="test")
    own = World(away, server.dsn, world.kafka, world.prefix, world.stack)
    webhook = own.apps.add(receiver.url())
    await own.run()
    orders = [callback(webhook) for _ in range(60)]
    await own.publish(*orders[:20])
    await wait_until(lambda: len(receiver.taken) == 20)

    server.kill()
    await own.publish(*orders[20:])
    server.start()

    async def recorded() -> bool:
        try:
            return bool(
                await away.fetchval("SELECT count(*) = 60 FROM switchboard.callback_events WHERE state = 'delivered'")
            )
        except TRANSIENT_ERRORS:
            return False

    await wait_until(recorded, timeout_seconds=30)
    assert {got.event_id for got in receiver.taken} == {order.callback_id for order in orders}
    world.stack.push_async_callback(away.close)
