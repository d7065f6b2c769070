"""Streams are found by their names, whatever the statistics say."""

from __future__ import annotations

from typing import Any

from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Answer, Receiver

from switchboard.testing import wait_until


async def test_a_stream_is_not_looked_for_among_all_that_wait_at_its_endpoint(world: World, receiver: Receiver) -> None:
    """Where most endpoints have one stream, an endpoint seems to be as good a key as a name."""
    await world.pool.execute(
        "INSERT INTO switchboard.callback_streams (endpoint, stream, head, head_sequence, expires_at, waiting, due_at,"
        " scheduled_at) SELECT 'endpoint:' || n, 'stream' || n, 'head' || n, 1, now() + interval '1 day', 1,"
        " now() + interval '1 day', now() FROM generate_series(1, 2000) AS n"
    )
    await world.pool.execute("ANALYZE switchboard.callback_streams")
    said: dict[str, Any] = {}
    connections = [await world.pool.acquire() for _ in range(world.pool.get_max_size())]
    for connection in connections:
        connection.add_query_logger(lambda record: said.update({record.query: record.args}))
    for connection in connections:
        await world.pool.release(connection)

    webhook = world.apps.add(receiver.url())
    await world.run()
    receiver.behave = lambda got: Answer(503 if got.attempt == 1 else 200)
    await world.publish(*(callback(webhook) for _ in range(3)))
    await wait_until(lambda: len(receiver.got) == 3)

    async def delivered() -> bool:
        await world.pool.execute("UPDATE switchboard.clock SET shift = shift + interval '1 second'")
        return await world.states() == ["delivered"] * 3

    await wait_until(delivered)

    by_name = {query: args for query, args in said.items() if "stream.endpoint IS NOT DISTINCT FROM" in query}
    # Admission, claim, the check of a lease, the next head, a failed try's next time.
    assert len(by_name) >= 5
    for query, args in by_name.items():
        plan = "\n".join(row[0] for row in await world.pool.fetch(f"EXPLAIN {query}", *args))
        assert "callback_streams_pkey" in plan, f"{query}\n{plan}"
        assert "Seq Scan on callback_streams" not in plan
