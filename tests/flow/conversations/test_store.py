"""Contacts and conversations on a real database: batches, strangers met twice at once, and what replays find."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchboard.contact import Contact
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, ContactId, ConversationId, ProjectId, mint
from switchboard.store import contacts, conversations
from switchboard.store.contacts import Addressed
from switchboard.store.conversations import Exchange, Joined
from switchboard.store.pool import Pool, open_pool

PROJECT = ProjectId("5a0d1c3e-7b44-4f0e-9f2d-2f6d5a8c1b90")
APP = AppId("01K07KW4XC9S346Q3D25VT4F5V")
SMS, TELEGRAM = ChannelName("SMS"), ChannelName("TELEGRAM")
PHONE, CHAT = ChannelIdentity(SMS, "46701230001"), ChannelIdentity(TELEGRAM, "777000")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database, size=4, service="test")
    yield pool
    await pool.close()


async def matched(pool: Pool, *asked: Addressed) -> dict[str, contacts.Matched]:
    async with pool.acquire() as connection, connection.transaction():
        return await contacts.match(connection, asked)


async def joined(pool: Pool, *exchanges: Exchange) -> dict[str, Joined]:
    async with pool.acquire() as connection, connection.transaction():
        return await conversations.join(connection, exchanges)


def exchange(contact_id: ContactId, seconds: float = 0, **fields: Any) -> Exchange:
    return Exchange(mint(), PROJECT, APP, contact_id, NOW + timedelta(seconds=seconds), **fields)


async def test_a_stranger_becomes_one_contact_however_often_a_batch_names_them(pool: Pool):
    first, second = mint(), mint()

    found = await matched(pool, Addressed(first, PROJECT, (PHONE, CHAT)), Addressed(second, PROJECT, (CHAT,)))

    assert found[first].is_new
    assert found[first].contact == Contact(found[first].contact_id, (PHONE, CHAT), (SMS,), display_name="Unknown")
    assert (found[second].contact_id, found[second].is_new) == (found[first].contact_id, False)
    again = await matched(pool, Addressed(mint(), PROJECT, (PHONE,)))
    assert [match.contact_id for match in again.values()] == [found[first].contact_id]


async def test_a_contact_of_another_project_is_a_stranger(pool: Pool):
    other = ProjectId("6b1e2d4f-8c55-4a1f-8a3e-3a7e6b9d2ca1")
    [ours] = (await matched(pool, Addressed(mint(), PROJECT, (PHONE,)))).values()

    [theirs] = (await matched(pool, Addressed(mint(), other, (PHONE,)))).values()

    assert theirs.is_new
    assert theirs.contact_id != ours.contact_id
    assert await matched(pool, Addressed(mint(), other, contact_id=ours.contact_id)) == {}


async def test_nobody_is_made_where_that_is_not_wanted(pool: Pool):
    assert await matched(pool, Addressed(mint(), PROJECT, (PHONE,), creates=False)) == {}
    assert await pool.fetchval("SELECT count(*) FROM contacts") == 0


async def test_a_contact_named_by_its_id_comes_whole(pool: Pool):
    [made] = (await matched(pool, Addressed(mint(), PROJECT, (PHONE, CHAT)))).values()

    [found] = (await matched(pool, Addressed(mint(), PROJECT, contact_id=made.contact_id))).values()

    assert (found.contact, found.is_new) == (made.contact, False)


async def test_two_routers_that_meet_a_stranger_at_once_make_one_contact_and_one_conversation(pool: Pool):
    async def meet() -> str:
        async with pool.acquire() as connection, connection.transaction():
            cause = mint()
            found = await contacts.match(connection, [Addressed(cause, PROJECT, (PHONE,))])
            item = Exchange(cause, PROJECT, APP, found[cause].contact_id, NOW)
            return (await conversations.join(connection, [item]))[cause].conversation.id

    met = await asyncio.gather(*(meet() for _ in range(4)))

    assert len(set(met)) == 1
    assert await pool.fetchval("SELECT count(*) FROM contacts") == 1
    assert await pool.fetchval("SELECT count(*) FROM conversations WHERE active") == 1


async def test_two_routers_start_one_conversation_of_a_known_contact(pool: Pool):
    [known] = (await matched(pool, Addressed(mint(), PROJECT, (PHONE,)))).values()

    met = await asyncio.gather(*(joined(pool, exchange(known.contact_id)) for _ in range(4)))

    [ids] = {tuple(item.conversation.id for item in found.values()) for found in met}
    assert sum(item.is_new for found in met for item in found.values()) == 1
    assert await pool.fetchval("SELECT id FROM conversations") == ids[0]


async def test_a_conversation_holds_what_its_messages_said_last(pool: Pool):
    [known] = (await matched(pool, Addressed(mint(), PROJECT, (PHONE,)))).values()
    first = exchange(known.contact_id, 0, correlation_id="c-1", metadata={"a": 1, "b": 2})
    second = exchange(known.contact_id, 5, channel="SMS", metadata={"a": None, "c": 3}, patches=True)
    third = exchange(known.contact_id, 2)

    found = await joined(pool, first, second, third)

    assert [item.is_new for item in found.values()] == [True, False, False]
    last = found[third.cause].conversation
    assert (last.correlation_id, last.active_channel) == ("c-1", "SMS")
    assert last.last_received == "2026-03-01T12:00:05.000Z"
    assert last.metadata_json == {"b": 2, "c": 3}
    [read] = (await joined(pool, exchange(known.contact_id, 1))).values()
    assert read.conversation == last


async def test_a_patch_that_makes_the_metadata_too_long_changes_nothing(pool: Pool):
    [known] = (await matched(pool, Addressed(mint(), PROJECT, (PHONE,)))).values()
    await joined(pool, exchange(known.contact_id, metadata={"a": "x" * 1500}))

    [found] = (await joined(pool, exchange(known.contact_id, metadata={"b": "y" * 1500}, patches=True))).values()

    assert found.conversation.metadata_json is not None
    assert set(found.conversation.metadata_json) == {"a"}


async def test_a_message_after_the_stop_starts_another_conversation(pool: Pool):
    [known] = (await matched(pool, Addressed(mint(), PROJECT, (PHONE,)))).values()
    [first] = (await joined(pool, exchange(known.contact_id, correlation_id="c-1"))).values()
    await pool.execute("UPDATE conversations SET active = false")

    [second] = (await joined(pool, exchange(known.contact_id))).values()

    assert second.is_new
    assert second.conversation.id != first.conversation.id
    assert second.conversation.correlation_id == ""


async def test_the_channel_that_took_a_message_last_is_active(pool: Pool):
    [known] = (await matched(pool, Addressed(mint(), PROJECT, (PHONE,)))).values()
    [item] = (await joined(pool, exchange(known.contact_id))).values()
    conversation_id = ConversationId(item.conversation.id)

    async def note(channel: ChannelName, seconds: int) -> str:
        async with pool.acquire() as connection:
            await conversations.note_channels(
                connection, [(conversation_id, channel, NOW + timedelta(seconds=seconds))]
            )
            active = await conversations.active_channels(connection, {(APP, known.contact_id)})
        return active[APP, known.contact_id]

    assert [await note(SMS, 10), await note(TELEGRAM, 20), await note(SMS, 15)] == [SMS, TELEGRAM, TELEGRAM]


async def test_identities_of_two_contacts_are_a_conflict(pool: Pool):
    [first] = (await matched(pool, Addressed(mint(), PROJECT, (PHONE, CHAT)))).values()
    second = Contact(ContactId(mint()), (PHONE,))
    async with pool.acquire() as connection, connection.transaction():
        await contacts.insert(connection, [(PROJECT, second)], told=1)
        [conflict] = await contacts.conflicts(connection, PROJECT, after=None, limit=10)
        [shared] = await contacts.duplicates(connection, PROJECT, (PHONE, CHAT))

    both = tuple(sorted((first.contact_id, second.id)))
    assert (conflict.identity, conflict.channels, conflict.contact_ids) == (PHONE.identity, ("SMS",), both)
    assert (shared.channel, shared.contact_ids) == (SMS, both)
