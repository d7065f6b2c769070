"""Retention in CONVERSATION mode: after it the text is in no row of the database, and before it, it is."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.flow.conversations.conftest import Talks
from tests.flow.router.conftest import PHONE

from switchboard.channel.outcome import Accepted
from switchboard.configuration import DispatchRetentionPolicy, RetentionPolicy
from switchboard.configuration.app import RetentionType
from switchboard.content import AppMessage, TextMessage
from switchboard.records import AttemptFinished, ProcessingMode, ReceiptReceived
from switchboard.status import Status
from switchboard.store.expiry import ConversationSweep, ReplyContextSweep
from switchboard.store.pool import Pool
from switchboard.store.sweeps import BodySweep

CANARY = "canary-8f2c1d"


async def rows_with_the_canary(pool: Pool) -> list[str]:
    """The tables in which the text still is, in whatever column."""
    tables = await pool.fetch(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'switchboard' AND c.relkind = 'r' ORDER BY 1"
    )
    found = []
    for table in tables:
        name = table["relname"]
        # A bytea is shown in hexadecimal.
        shown = f"{CANARY}|{CANARY.encode().hex()}"
        if await pool.fetchval(f"SELECT EXISTS (SELECT FROM switchboard.{name} AS r WHERE r::text ~ $1)", shown):
            found.append(name)
    return found


async def sweep(pool: Pool) -> None:
    async def settled() -> datetime:
        now: datetime = await pool.fetchval("SELECT switchboard.now()")
        return now

    for one in (ConversationSweep(pool), BodySweep(pool, settled), ReplyContextSweep(pool)):
        while await one.run_once():
            pass


async def move_clock(pool: Pool, days: float) -> None:
    await pool.execute("UPDATE clock SET shift = shift + $1", timedelta(days=days))


async def both_ways(talks: Talks, mode: ProcessingMode = ProcessingMode.CONVERSATION) -> None:
    """A message in each direction, both over, with the canary in both."""
    sent = talks.send(PHONE, message=AppMessage(text_message=TextMessage(CANARY)), mode=mode)
    await talks.router.plan(sent)
    at = sent.accepted_at
    await talks.router.tell(AttemptFinished(sent.message_id, 0, 1, Accepted(("p1",)), at))
    await talks.router.tell(ReceiptReceived(sent.message_id, 0, 1, "p1", Status.DELIVERED, at))
    await talks.router.receive(talks.received(PHONE, CANARY))


@pytest.mark.parametrize(
    ("policy", "kept", "conversations"),
    [
        (RetentionPolicy(RetentionType.MESSAGE_EXPIRE_POLICY, 2), False, 1),
        (RetentionPolicy(RetentionType.MESSAGE_EXPIRE_POLICY, 4), True, 1),
        (RetentionPolicy(RetentionType.CONVERSATION_EXPIRE_POLICY, 2), False, 0),
        (RetentionPolicy(RetentionType.CONVERSATION_EXPIRE_POLICY, 4), True, 1),
        (RetentionPolicy(RetentionType.PERSIST_RETENTION_POLICY, 1), True, 1),
    ],
)
async def test_contents_are_kept_as_long_as_the_policy_says(
    make_talks: Any, policy: RetentionPolicy, kept: bool, conversations: int
):
    talks = await make_talks(triggers=(), retention_policy=policy)
    await both_ways(talks)

    await move_clock(talks.pool, 3)
    await sweep(talks.pool)

    assert bool(await rows_with_the_canary(talks.pool)) is kept
    assert await talks.pool.fetchval("SELECT count(*) FROM conversations") == conversations
    assert await talks.pool.fetchval("SELECT count(*) FROM contacts") == 1


@pytest.mark.parametrize(("days", "kept"), [(0, False), (2, False), (4, True)])
async def test_in_dispatch_mode_contents_are_kept_for_the_days_of_its_own_policy(
    make_talks: Any, days: int, kept: bool
):
    mode, policy = ProcessingMode.DISPATCH, DispatchRetentionPolicy(ttl_days=days)
    talks = await make_talks(triggers=(), processing_mode=mode, dispatch_retention_policy=policy)
    await both_ways(talks, mode)
    assert await rows_with_the_canary(talks.pool)

    # What is not to be stored goes as soon as it is over.
    await move_clock(talks.pool, 3 if days else 0)
    await sweep(talks.pool)

    assert bool(await rows_with_the_canary(talks.pool)) is kept


async def test_a_later_message_keeps_the_whole_conversation(make_talks: Any):
    talks = await make_talks(triggers=(), retention_policy=RetentionPolicy(RetentionType.CONVERSATION_EXPIRE_POLICY, 2))
    await both_ways(talks)
    await move_clock(talks.pool, 3)
    await talks.pool.execute("UPDATE conversations SET last_received = switchboard.now()")

    await sweep(talks.pool)

    assert await rows_with_the_canary(talks.pool)


async def test_what_was_kept_without_an_end_gets_one_when_the_policy_changes(make_talks: Any, store: Any):
    talks = await make_talks(triggers=(), retention_policy=RetentionPolicy(RetentionType.PERSIST_RETENTION_POLICY, 1))
    await both_ways(talks)
    await move_clock(talks.pool, 3)
    await talks.pool.execute(
        "UPDATE apps SET settings = jsonb_set(settings, '{retention_policy,retention_type}',"
        " to_jsonb('MESSAGE_EXPIRE_POLICY'::text))"
    )

    await sweep(talks.pool)

    assert await rows_with_the_canary(talks.pool) == []


async def test_conversations_of_a_deleted_app_go_with_it(talks: Talks, store: Any):
    await both_ways(talks)
    await store.delete_app(talks.app.id)

    await sweep(talks.pool)

    assert await talks.pool.fetchval("SELECT count(*) FROM conversations") == 0
    assert await rows_with_the_canary(talks.pool) == []


async def test_what_is_kept_for_replies_ends_with_the_retention(make_talks: Any):
    talks = await make_talks(processing_mode="DISPATCH")
    sent = talks.send(PHONE, mode="DISPATCH", correlation_id=CANARY, conversation_metadata={"x": CANARY})
    await talks.router.plan(sent)
    assert await talks.pool.fetchval("SELECT count(*) FROM reply_contexts") == 1

    await move_clock(talks.pool, 8)
    await sweep(talks.pool)

    assert await talks.pool.fetchval("SELECT count(*) FROM reply_contexts") == 0
