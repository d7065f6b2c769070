"""What sweeps promise, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchboard.ids import MessageId, derive_at, lowest_at, mint
from switchboard.records import TimerFired
from switchboard.store.pool import Pool, open_pool
from switchboard.store.sweeps import BodySweep, DaySweep, DueSweep


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """Connections to a fresh database."""
    pool = await open_pool(database, size=8, service="test")
    yield pool
    await pool.close()


async def add(pool: Pool, id: str | None = None, **columns: Any) -> MessageId:
    """A message with these columns, else one that is sending and due in an hour."""
    now = await pool.fetchval("SELECT switchboard.now()")
    values = {
        "id": id or mint(), "project_id": "p", "app_id": "a", "direction": "TO_CONTACT", "mode": "DISPATCH",
        "accepted_at": now, "channel": "SMS", "identity": "1", "phase": "SENDING", "status": "QUEUED",
        "status_at": now, "body": b"{}", "envelope": b"{}", "next_due": now + timedelta(hours=1), **columns,
    }  # fmt: skip
    if values.get("final"):
        values |= {"phase": "FINAL", "next_due": None}
    names = ", ".join(values)
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    await pool.execute(f"INSERT INTO messages ({names}) VALUES ({places})", *values.values())
    return MessageId(values["id"])


class Told:
    """Where timers are told."""

    def __init__(self) -> None:
        self.records: list[TimerFired] = []

    async def __call__(self, records: Sequence[TimerFired]) -> None:
        self.records += records


async def now_of(pool: Pool) -> datetime:
    """The database's clock."""
    now: datetime = await pool.fetchval("SELECT switchboard.now()")
    return now


async def advance(pool: Pool, by: timedelta) -> None:
    """Move the database's clock."""
    await pool.execute("UPDATE clock SET shift = shift + $1", by)


async def test_a_deadline_that_passed_is_told_once_and_again_after_60_s_if_nothing_came_of_it(pool: Pool) -> None:
    due_at = await now_of(pool)
    due = await add(pool, next_due=due_at)
    await add(pool)
    told = Told()
    sweep = DueSweep(pool, told)

    await sweep.run_once()
    await advance(pool, timedelta(seconds=59))
    await sweep.run_once()
    assert told.records == [TimerFired(due, due_at)]
    await advance(pool, timedelta(seconds=2))
    await sweep.run_once()

    assert [record.message_id for record in told.records] == [due, due]


async def test_a_deadline_that_a_handler_changed_meanwhile_is_left_as_it_is(pool: Pool) -> None:
    due = await add(pool, next_due=await now_of(pool))
    later = await now_of(pool) + timedelta(seconds=30)

    async def handled(_: Sequence[TimerFired]) -> None:
        await pool.execute("UPDATE messages SET next_due = $1 WHERE id = $2", later, due)

    await DueSweep(pool, handled).run_once()

    assert await pool.fetchval("SELECT next_due FROM messages") == later


async def test_a_process_that_dies_while_telling_leaves_the_deadline_due(pool: Pool) -> None:
    due = await add(pool, next_due=await now_of(pool))

    async def dies(_: Sequence[TimerFired]) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await DueSweep(pool, dies).run_once()
    told = Told()
    await advance(pool, timedelta(seconds=6))
    await DueSweep(pool, told).run_once()

    assert [record.message_id for record in told.records] == [due]


async def test_several_sweepers_tell_each_deadline_once_and_wait_for_no_handler(pool: Pool) -> None:
    due = {await add(pool, next_due=await now_of(pool)) for _ in range(60)}
    locked = await add(pool, next_due=await now_of(pool))
    told = Told()
    sweeps = [DueSweep(pool, told, batch=10) for _ in range(4)]

    async with pool.acquire() as handler, handler.transaction():
        await handler.execute("SELECT FROM messages WHERE id = $1 FOR UPDATE", locked)
        for _ in range(4):
            await asyncio.gather(*(sweep.run_once() for sweep in sweeps))

    assert len(told.records) == 60
    assert {record.message_id for record in told.records} == due


async def test_contents_go_when_their_retention_ends_but_not_before_the_message_is_final(pool: Pool) -> None:
    now = await now_of(pool)
    past, future = now - timedelta(seconds=1), now + timedelta(days=7)
    gone = await add(pool, final=True, final_at=past, body_until=past)
    await add(pool, final=True, final_at=past, body_until=future)
    await add(pool, body_until=past)

    await BodySweep(pool, nothing_settled).run_once()

    assert await ids_without(pool, "body") == {gone}


async def test_with_retention_0_a_content_goes_once_the_offset_that_made_it_final_is_committed(pool: Pool) -> None:
    final_at = await now_of(pool)
    message = await add(pool, final=True, final_at=final_at)

    async def settled_before() -> datetime:
        return final_at

    async def settled_after() -> datetime:
        return final_at + timedelta(microseconds=1)

    await BodySweep(pool, settled_before).run_once()
    assert await ids_without(pool, "body") == set()
    await BodySweep(pool, settled_after).run_once()
    assert await ids_without(pool, "body") == {message}


async def test_contents_that_are_kept_are_not_read_to_find_those_that_are_not(database: str) -> None:
    # One connection, for each tells by itself what it has read.
    pool = await open_pool(database, size=1, service="test")
    now = await now_of(pool)
    await add(pool, final=True, final_at=now, body_until=now + timedelta(days=7))
    await pool.execute(
        "INSERT INTO messages SELECT (jsonb_populate_record(message, jsonb_build_object('id', substr(id, 1, 20)"
        " || lpad(number::text, 6, '0')))).* FROM messages AS message, generate_series(1, 2000) AS number"
    )
    gone = await add(pool, final=True, final_at=now, body_until=now)
    before = await entries_read(pool)

    await BodySweep(pool, nothing_settled).run_once()

    assert await ids_without(pool, "body") == {gone}
    assert await entries_read(pool) - before < 100
    await pool.close()


async def entries_read(pool: Pool) -> int:
    """How many index entries were read of the messages of all days."""
    await pool.execute("SELECT pg_stat_force_next_flush()")
    number: int = await pool.fetchval(
        "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname LIKE 'messages_%'"
    )
    return number


async def test_envelopes_stay_for_the_receipt_horizon_after_the_end(pool: Pool) -> None:
    now = await now_of(pool)
    old = await add(pool, final=True, final_at=now - timedelta(hours=73), body=None)
    await add(pool, final=True, final_at=now - timedelta(hours=71), body=None)
    await add(pool, final=True, final_at=now - timedelta(hours=73), body_until=now + timedelta(days=1))

    await BodySweep(pool, nothing_settled).run_once()

    assert await ids_without(pool, "envelope") == {old}


async def test_days_are_made_ahead_and_dropped_once_nothing_of_them_is_needed(pool: Pool) -> None:
    await add(pool, final=True, final_at=await now_of(pool), body=None)
    before = await days(pool)
    await advance(pool, timedelta(days=9))

    await DaySweep(pool).run_once()

    today = (await now_of(pool)).astimezone(UTC)
    after = await days(pool)
    assert before.isdisjoint(after - before)
    assert max(after) == f"{today + timedelta(days=2):%Y%m%d}"
    assert min(after) >= f"{today - timedelta(days=6):%Y%m%d}"


async def test_a_day_stays_while_one_of_its_messages_is_not_final(pool: Pool) -> None:
    message = await add(pool)
    day = f"{(await now_of(pool)).astimezone(UTC):%Y%m%d}"
    await advance(pool, timedelta(days=9))

    await DaySweep(pool).run_once()

    assert day in await days(pool)
    assert await pool.fetchval("SELECT id FROM messages") == message
    assert await pool.fetchval("SELECT to_regclass($1)", f"switchboard.attempts_{day}") is not None


async def test_a_day_with_a_retained_content_keeps_that_message_and_its_timeline_only(pool: Pool) -> None:
    now = await now_of(pool)
    kept = await add(pool, final=True, final_at=now, body_until=now + timedelta(days=100))
    await add(pool, final=True, final_at=now, body=None)
    for message in await pool.fetch("SELECT id FROM messages"):
        await pool.execute(
            "INSERT INTO timeline (message_id, at, kind, cause, entry) VALUES ($1, $2, 'planned', 'c', '{}')",
            message["id"], now,
        )  # fmt: skip
    day = f"{now.astimezone(UTC):%Y%m%d}"
    await advance(pool, timedelta(days=9))

    await DaySweep(pool).run_once()

    assert [row["id"] for row in await pool.fetch("SELECT id FROM messages")] == [kept]
    assert [row["message_id"] for row in await pool.fetch("SELECT message_id FROM timeline")] == [kept]
    assert await pool.fetchval("SELECT to_regclass($1)", f"switchboard.attempts_{day}") is None


async def test_callbacks_of_a_day_long_past_go_some_days_after_their_end_unless_they_wait_or_are_kept(
    pool: Pool,
) -> None:
    long_ago = await now_of(pool) - timedelta(days=40)
    await add_callback(pool, derive_at(long_ago, "over"), state="delivered")
    kept = await add_callback(pool, derive_at(long_ago, "kept"), state="expired", attempts=1, body=b"{}")
    waiting = await add_callback(pool, derive_at(long_ago, "waits"), state="waiting", body=b"{}")

    await DaySweep(pool).run_once()
    assert len(await callbacks(pool)) == 3, "their owner may look at them for some days"
    await advance(pool, timedelta(days=8))
    await DaySweep(pool).run_once()

    assert await callbacks(pool) == {kept, waiting}


async def test_a_day_with_a_callback_that_is_kept_keeps_no_other(pool: Pool) -> None:
    kept = await add_callback(pool, mint(), state="delivered", body=b"{}")
    for _ in range(5):
        await add_callback(pool, mint(), state="delivered")
    await advance(pool, timedelta(days=9))
    sweep = DaySweep(pool, batch=2)

    while await sweep.run_once():
        pass

    assert await callbacks(pool) == {kept}


async def test_a_day_that_is_in_use_is_left_for_the_next_run(pool: Pool) -> None:
    old = lowest_at(await now_of(pool))
    await advance(pool, timedelta(days=9))
    async with pool.acquire() as reader, reader.transaction():
        await reader.execute("SELECT FROM messages WHERE id = $1", old)
        before = await days(pool)

        assert await DaySweep(pool).run_once() is False
        assert await days(pool) == before


async def add_callback(pool: Pool, id: str, **columns: Any) -> str:
    """A callback with these columns, that ended now unless it waits."""
    now = await pool.fetchval("SELECT switchboard.now()")
    values = {
        "id": id, "project_id": "p", "app_id": "a", "endpoint": "endpoint:w", "webhook_id": "w", "target": "",
        "trigger": "MESSAGE_DELIVERY", "stream": "s", "sequence": 1, "event_at": now, "recorded_at": now,
        "expires_at": now, "finished_at": None if columns["state"] == "waiting" else now, **columns,
    }  # fmt: skip
    names = ", ".join(values)
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    await pool.execute(f"INSERT INTO callback_events ({names}) VALUES ({places})", *values.values())
    return id


async def callbacks(pool: Pool) -> set[str]:
    """The callbacks that have a row."""
    return {row["id"] for row in await pool.fetch("SELECT id FROM callback_events")}


async def nothing_settled() -> None:
    """No offset is known to be committed."""


async def ids_without(pool: Pool, column: str) -> set[str]:
    """The messages whose column is purged."""
    return {row["id"] for row in await pool.fetch(f"SELECT id FROM messages WHERE {column} IS NULL")}


async def days(pool: Pool) -> set[str]:
    """The days that have partitions of messages."""
    rows = await pool.fetch("SELECT relname FROM pg_class WHERE relname ~ '^messages_[0-9]{8}$' AND relkind = 'r'")
    return {row["relname"].removeprefix("messages_") for row in rows}
