"""Receipts that came before their outcome: found by any name they have, however many others wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest

from switchboard.channel.contract import ReceiptFact
from switchboard.ids import AccountKey, MessageId, mint
from switchboard.status import Status
from switchboard.store import receipts
from switchboard.store.pool import Pool, open_pool
from switchboard_channel_adapter.receipts import Part, Receipts

ACCOUNT = AccountKey("smsc")
WAITING = 20_000


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """One connection, and many receipts of one account, each under two names."""
    pool = await open_pool(database, size=1, service="test")
    fact = msgspec.json.encode(ReceiptFact(("4711", "hex-4711"), Status.DELIVERED, datetime(2026, 3, 1, tzinfo=UTC)))
    await pool.execute(
        "INSERT INTO receipts (account, provider_id, status, aliases, fact, received_at)"
        " SELECT $1, number::text, 'DELIVERED', ARRAY[number::text, 'hex-' || number], $2, now()"
        " FROM generate_series(1, $3::integer) AS number",
        ACCOUNT, fact, WAITING,
    )  # fmt: skip
    yield pool
    await pool.close()


async def blocks_read(pool: Pool) -> int:
    """Blocks of the table that were looked at so far."""
    await pool.execute("SELECT pg_stat_force_next_flush()")
    blocks: int = await pool.fetchval(
        "SELECT heap_blks_hit + heap_blks_read FROM pg_statio_user_tables WHERE relname = 'receipts'"
    )
    return blocks


async def test_an_adapter_finds_those_of_its_parts_without_a_look_at_the_others(pool: Pool) -> None:
    waiting = Receipts(pool, None, topic_prefix="")  # type: ignore[arg-type]  # nothing is published
    parts = [Part(ACCOUNT, name, "", MessageId(mint()), 0, 1) for name in ("hex-4711", "4712", "unknown")]
    before = await blocks_read(pool)

    met = await waiting.waiting_for(parts)

    assert sorted(one.row[1] for one in met) == ["4711", "4712"]
    assert await blocks_read(pool) - before < 20


async def test_a_router_finds_those_of_a_message_without_a_look_at_the_others(pool: Pool) -> None:
    message_id = MessageId(mint())
    await pool.execute(
        "INSERT INTO provider_ids (account, provider_id, message_id, step, submission, part, identity)"
        " VALUES ($1, 'hex-4711', $2, 0, 1, 1, '46701234567')",
        ACCOUNT, message_id,
    )  # fmt: skip
    before = await blocks_read(pool)

    async with pool.acquire() as connection:
        found = await receipts.waiting_for(connection, message_id)

    assert [(met.provider_id, fact.provider_ids[0]) for met, fact in found] == [("hex-4711", "4711")]
    assert await blocks_read(pool) - before < 20
