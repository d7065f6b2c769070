"""Messages are decided about without a lock (ADR 0025), by statements that need no statistics (ADR 0026)."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from asyncpg import Record as Row
from tests.flow.router.conftest import PHONE, Router, impatient

from switchboard.channel.outcome import Accepted
from switchboard.ids import MessageId
from switchboard.records import AttemptFinished, MessageAccepted, ReceiptReceived
from switchboard.status import Status
from switchboard.store import messages as store
from switchboard.store.messages import Change, Look, Moved
from switchboard.store.writes import Writes
from switchboard.timeline import Entry, Happening, Kind

#: What the database logs of a plan that reads a table of the day from end to end.
_WHOLE_TABLE = ("Seq Scan on messages_", "Seq Scan on attempts_", "Seq Scan on timeline_", "Seq Scan on provider_ids_")


def outcome(message: MessageAccepted) -> AttemptFinished:
    return AttemptFinished(message.message_id, 0, 1, Accepted(("p1",)), datetime.now(UTC))


def delivered(message: MessageAccepted) -> ReceiptReceived:
    return ReceiptReceived(message.message_id, 0, 1, "p1", Status.DELIVERED, datetime.now(UTC))


async def looked_at(router: Router, message_id: MessageId) -> Change:
    async with router.context.pool.acquire() as connection:
        looks, now = await store.look(connection, {message_id: "test"})
    look: Look = looks[message_id]
    return Change(look, look.message, Happening(message_id, now, Kind.DUE, "test", Entry(note="test")))


async def written(router: Router, change: Change, *, with_attempts: bool = False) -> list[Row]:
    writes = Writes()
    store.change(writes, [change], with_attempts=with_attempts)
    return await writes.execute(router.context.pool, returning="held")


async def told(router: Router, message_id: MessageId) -> int:
    return int(
        await router.context.pool.fetchval(
            "SELECT count(*) FROM timeline WHERE message_id = $1 AND cause = 'test'", message_id
        )
    )


async def test_a_change_of_a_message_that_is_as_it_was_seen_is_written_and_told(router: Router) -> None:
    message = router.accepted(PHONE)
    await router.plan(message)
    change = await looked_at(router, message.message_id)

    assert len(await written(router, change)) == 1
    assert await told(router, message.message_id) == 1


async def test_nothing_is_written_of_a_message_that_moved_on(router: Router) -> None:
    message = router.accepted(PHONE)
    await router.plan(message)
    change = await looked_at(router, message.message_id)
    await router.context.pool.execute("UPDATE messages SET next_due = next_due")

    assert await written(router, change) == []
    assert await told(router, message.message_id) == 0


async def test_a_claim_counts_only_where_the_decision_rests_on_there_being_none(router: Router) -> None:
    message = router.accepted(PHONE)
    await router.plan(message)
    change = await looked_at(router, message.message_id)
    await router.context.pool.execute("UPDATE attempts SET state = 'claimed', claimed_at = now()")

    assert await written(router, change, with_attempts=True) == []
    assert len(await written(router, change)) == 1


async def test_holding_says_that_an_attempt_was_claimed(router: Router) -> None:
    message = router.accepted(PHONE)
    await router.plan(message)
    change = await looked_at(router, message.message_id)
    async with router.context.pool.acquire() as connection, connection.transaction():
        await store.hold(connection, [change])
    await router.context.pool.execute("UPDATE attempts SET state = 'claimed', claimed_at = now()")

    async with router.context.pool.acquire() as connection, connection.transaction():
        with pytest.raises(Moved):
            await store.hold(connection, [change])


async def test_facts_about_one_message_that_meet_are_all_decided_about(router: Router) -> None:
    """Two routers hold one partition for a moment: whoever comes second looks again."""
    messages = [router.accepted(PHONE) for _ in range(12)]
    await router.plan(*messages)
    await asyncio.gather(
        router.tell(*map(outcome, messages)),
        router.tell(*map(outcome, messages)),
        router.tell(*map(delivered, messages)),
    )

    for message in messages:
        assert (await router.message(message.message_id)).progress.status is Status.DELIVERED
    causes = await router.context.pool.fetch("SELECT message_id, cause, count(*) FROM timeline GROUP BY 1, 2")
    assert {row["count"] for row in causes} == {1}
    assert (await router.lane())["in_flight"] == 0


async def test_no_statement_reads_a_table_of_the_day_from_end_to_end(router: Router) -> None:
    router = router.beside(lanes=impatient())
    pool = router.context.pool
    said: dict[str, Sequence[Any]] = {}
    # One of them is the configuration's, which listens.
    connections = [await pool.acquire() for _ in range(pool.get_max_size() - 1)]
    for connection in connections:
        connection.add_query_logger(lambda record: said.update({record.query: record.args}))
    for connection in connections:
        await pool.release(connection)
    messages = [router.accepted(PHONE) for _ in range(3)]
    # The first makes the lane, the second finds it.
    await router.plan(messages[0])
    await router.plan(messages[1])
    await router.plan(*messages)
    await router.tell(*map(outcome, messages))
    await router.tell(*map(delivered, messages))

    plans = {
        query: "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {query}", *arguments))
        for query, arguments in list(said.items())
        if query.lstrip().startswith(("SELECT", "WITH", "INSERT", "UPDATE"))
    }
    assert sum("Index Scan using messages_" in plan for plan in plans.values()) >= 3
    assert sum("seen_lanes" in query for query in plans) == 2
    for query, plan in plans.items():
        assert not any(sign in plan for sign in _WHOLE_TABLE), f"{query}\n{plan}"
