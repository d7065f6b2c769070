"""Messages of apps in CONVERSATION mode: their contacts, their conversations, and what is told of both."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from tests.flow.conversations.conftest import Talks
from tests.flow.router.conftest import CHAT, PHONE, PROJECT, SMS, TELEGRAM

from switchboard.channel.outcome import Accepted, Rejected
from switchboard.configuration import DispatchRetentionPolicy
from switchboard.configuration.app import ReportView
from switchboard.contact import Contact, DuplicatedIdentity
from switchboard.conversation import Conversation
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import ChangeId, ContactId, ConversationId, mint
from switchboard.reason import Reason, ReasonCode
from switchboard.records import (
    AttemptFinished,
    ChangesRecord,
    ContactCreated,
    ContactDeleted,
    ContactMerged,
    ContactUpdated,
    ConversationDeleted,
    ConversationStarted,
    ConversationStopped,
    ProcessingMode,
)
from switchboard.rules.route import Candidate, Verdict
from switchboard.store import contacts
from switchboard.trigger import Trigger

RCS = ChannelName("RCS")
NO = Reason(ReasonCode.CHANNEL_REJECT, "no")


def finished(message_id, outcome, step=0, submission=1, at=None):
    return AttemptFinished(message_id, step, submission, outcome, at or datetime.now(UTC))


async def only(talks: Talks, table: str) -> Any:
    [row] = await talks.pool.fetch(f"SELECT * FROM {table}")
    return row


async def test_a_send_to_a_stranger_makes_a_contact_and_starts_a_conversation(talks: Talks):
    sent = talks.send(PHONE, CHAT, correlation_id="corr-1")

    await talks.router.plan(sent)
    await talks.router.tell(finished(sent.message_id, Accepted(("p1",))))

    contact, conversation = await only(talks, "contacts"), await only(talks, "conversations")
    [created] = await talks.told(Trigger.CONTACT_CREATE)
    assert created["app_id"] == ""
    assert created["contact_create_notification"]["contact"] == {
        "id": contact["id"],
        "channel_identities": [
            {"channel": "SMS", "identity": PHONE.identity, "app_id": ""},
            {"channel": "TELEGRAM", "identity": CHAT.identity, "app_id": ""},
        ],
        "channel_priority": ["SMS"],
        "display_name": "Unknown", "email": "", "external_id": "", "metadata": "", "language": "UNSPECIFIED",
    }  # fmt: skip
    [started] = await talks.told(Trigger.CONVERSATION_START)
    assert started["conversation_start_notification"]["conversation"]["id"] == conversation["id"]
    for trigger, key in (
        (Trigger.MESSAGE_DELIVERY, "message_delivery_report"),
        (Trigger.MESSAGE_SUBMIT, "message_submit_notification"),
    ):
        [body] = await talks.told(trigger)
        assert body["correlation_id"] == "corr-1"
        assert body[key]["contact_id"] == contact["id"]
        assert body[key]["conversation_id"] == conversation["id"]
        assert body[key]["processing_mode"] == "CONVERSATION"
    assert (conversation["active_channel"], conversation["correlation_id"]) == ("SMS", "corr-1")
    assert conversation["last_received"] == sent.accepted_at


async def test_what_the_person_answers_is_in_the_same_conversation_and_brings_back_what_was_said(talks: Talks):
    await talks.router.plan(talks.send(PHONE, correlation_id="corr-1", conversation_metadata={"ticket": "T-88"}))
    await talks.router.plan(talks.send(PHONE, conversation_metadata={"stage": 2}, patches_metadata=True))

    received = talks.received(PHONE)
    for _ in range(2):
        await talks.router.receive(received)

    [body] = await talks.told(Trigger.MESSAGE_INBOUND)
    conversation = await only(talks, "conversations")
    assert body["message"]["conversation_id"] == conversation["id"]
    assert body["message"]["contact_id"] == (await only(talks, "contacts"))["id"]
    assert body["correlation_id"] == "corr-1"
    assert msgspec.json.decode(body["message_metadata"]) == {"ticket": "T-88", "stage": 2}
    assert len(await talks.told(Trigger.CONVERSATION_START)) == 1


async def test_conversation_metadata_is_shown_only_where_the_app_asks_for_it(make_talks):
    talks = await make_talks(conversation_metadata_report_view=ReportView.NONE)
    await talks.router.plan(talks.send(PHONE, correlation_id="corr-1", conversation_metadata={"ticket": "T-88"}))

    await talks.router.receive(talks.received(PHONE))

    [body] = await talks.told(Trigger.MESSAGE_INBOUND)
    assert (body["message_metadata"], body["correlation_id"]) == ("", "corr-1")


async def test_somebody_who_writes_first_becomes_a_contact(talks: Talks):
    received = talks.received(CHAT)

    for _ in range(2):
        await talks.router.receive(received)

    contact, conversation = await only(talks, "contacts"), await only(talks, "conversations")
    assert [body["contact_create_notification"]["contact"]["id"] for body in await talks.told(Trigger.CONTACT_CREATE)] \
        == [contact["id"]]  # fmt: skip
    assert len(await talks.told(Trigger.CONVERSATION_START)) == 1
    [body] = await talks.told(Trigger.MESSAGE_INBOUND)
    assert body["message"]["contact_id"] == contact["id"]
    assert conversation["active_channel"] == "TELEGRAM"


async def test_a_contact_is_reached_on_the_channel_of_the_last_exchange(talks: Talks):
    await talks.router.plan(talks.send(PHONE, CHAT))
    contact = await only(talks, "contacts")
    await talks.router.receive(talks.received(CHAT))

    sent = talks.send(contact_id=contact["id"])
    await talks.router.plan(sent)

    message = await talks.router.message(sent.message_id)
    assert [step.identity for step in message.route.steps] == [CHAT, PHONE]
    assert message.contact_id == contact["id"]


async def test_after_a_failover_the_channel_that_took_the_message_is_the_active_one(talks: Talks):
    sent = talks.send(PHONE, CHAT)
    await talks.router.plan(sent)

    await talks.router.tell(finished(sent.message_id, Rejected(NO)))
    assert (await only(talks, "conversations"))["active_channel"] == "CHANNEL_UNSPECIFIED"
    await talks.router.tell(finished(sent.message_id, Accepted(("777000:1",)), 1, 2))

    assert (await only(talks, "conversations"))["active_channel"] == "TELEGRAM"


async def test_a_contact_that_does_not_exist_fails_the_message(talks: Talks):
    sent = talks.send(contact_id=ContactId(mint()))

    await talks.router.plan(sent)

    assert await talks.router.failed_with(sent.message_id) is ReasonCode.CONTACT_NOT_FOUND
    [body] = await talks.told(Trigger.MESSAGE_DELIVERY)
    assert body["message_delivery_report"]["contact_id"] == sent.contact_id


async def test_a_contact_on_no_channel_of_the_app_fails_the_message(talks: Talks):
    contact = Contact(ContactId(mint()), (ChannelIdentity(RCS, "46701230001"),))
    async with talks.pool.acquire() as connection:
        await contacts.insert(connection, [(PROJECT, contact)], told=1)
    sent = talks.send(contact_id=contact.id)

    await talks.router.plan(sent)

    assert await talks.router.failed_with(sent.message_id) is ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT
    message = await talks.router.message(sent.message_id)
    assert message.route.candidates == (Candidate(RCS, Verdict.NOT_INSTALLED),)


async def test_records_seen_again_make_nobody_twice_and_tell_the_same(talks: Talks):
    sent = talks.send(PHONE)

    for _ in range(3):
        await talks.router.plan(sent)

    await only(talks, "contacts")
    await only(talks, "conversations")
    begun = [
        callback
        for callback in await talks.router.callbacks()
        if callback.trigger in (Trigger.CONTACT_CREATE, Trigger.CONVERSATION_START)
    ]
    assert len(begun) == 6
    assert len({callback.callback_id for callback in begun}) == 2
    assert len({bytes(callback.body) for callback in begun}) == 2


async def test_two_routers_that_get_the_first_messages_at_once_make_one_contact_and_one_conversation(talks: Talks):
    sends = [talks.send(PHONE) for _ in range(3)]

    await asyncio.gather(*(talks.router.plan(sent) for sent in sends), talks.router.receive(talks.received(PHONE)))

    await only(talks, "contacts")
    conversation = await only(talks, "conversations")
    rows = await talks.pool.fetch("SELECT DISTINCT conversation_id FROM messages")
    assert [row["conversation_id"] for row in rows] == [conversation["id"]]
    assert len(await talks.told(Trigger.CONTACT_CREATE)) == 1
    assert len(await talks.told(Trigger.CONVERSATION_START)) == 1


async def test_a_message_of_its_own_mode_leaves_no_contact(talks: Talks):
    sent = talks.send(PHONE, mode=ProcessingMode.DISPATCH)

    await talks.router.plan(sent)
    await talks.router.tell(finished(sent.message_id, Accepted(("p1",))))

    assert await talks.pool.fetchval("SELECT count(*) FROM contacts") == 0
    bodies = await talks.told(Trigger.MESSAGE_DELIVERY)
    assert [body["message_delivery_report"]["contact_id"] for body in bodies] == [""]


async def test_in_dispatch_mode_a_reply_brings_back_what_was_said_to_its_identity(make_talks):
    talks = await make_talks(processing_mode=ProcessingMode.DISPATCH, conversation_metadata_report_view=ReportView.FULL)
    said = {"mode": ProcessingMode.DISPATCH, "correlation_id": "corr-1", "conversation_metadata": {"ticket": "T-88"}}
    await talks.router.plan(talks.send(PHONE, CHAT, **said))
    await talks.router.plan(talks.send(PHONE, mode=ProcessingMode.DISPATCH, correlation_id="corr-2"))

    await talks.router.receive(talks.received(PHONE), talks.received(CHAT))

    told = {
        body["message"]["channel_identity"]["channel"]: (body["correlation_id"], body["message_metadata"])
        for body in await talks.told(Trigger.MESSAGE_INBOUND)
    }
    assert told == {SMS: ("corr-2", '{"ticket":"T-88"}'), TELEGRAM: ("corr-1", '{"ticket":"T-88"}')}


async def test_in_dispatch_mode_without_retention_nothing_is_kept_for_replies(make_talks):
    talks = await make_talks(
        processing_mode=ProcessingMode.DISPATCH, dispatch_retention_policy=DispatchRetentionPolicy(ttl_days=0)
    )
    await talks.router.plan(talks.send(PHONE, mode=ProcessingMode.DISPATCH, correlation_id="corr-1"))

    await talks.router.receive(talks.received(PHONE))

    [body] = await talks.told(Trigger.MESSAGE_INBOUND)
    assert body["correlation_id"] == ""
    assert await talks.pool.fetchval("SELECT count(*) FROM reply_contexts") == 0


async def test_changes_by_clients_are_told_once_each_in_their_order(talks: Talks):
    old, young = Contact(ContactId(mint()), (PHONE,)), Contact(ContactId(mint()), (CHAT,))
    conversation = Conversation(ConversationId(mint()), talks.app.id, old.id)
    shared = (DuplicatedIdentity(SMS, (old.id, young.id)),)

    def fact(sequence: int) -> dict[str, Any]:
        return {
            "change_id": ChangeId(mint()), "project_id": PROJECT, "at": datetime.now(UTC) - timedelta(days=40),
            "sequence": sequence,
        }  # fmt: skip

    changes: list[ChangesRecord] = [
        ContactCreated(contact=old, duplicates=shared, **fact(1)),
        ContactUpdated(contact=old, **fact(3)),
        ContactMerged(preserved=old, deleted=young, **fact(4)),
        ContactDeleted(contact=old, **fact(5)),
        ConversationStarted(conversation=conversation, **fact(1)),
        ConversationStopped(conversation=conversation, **fact(2)),
        ConversationDeleted(conversation=conversation, **fact(3)),
    ]

    for _ in range(2):
        await talks.change(*changes)

    told = {callback.callback_id: callback for callback in await talks.router.callbacks()}
    assert len(told) == 8
    about_contact = [c.trigger for c in sorted(told.values(), key=lambda c: c.sequence) if c.stream == old.id]
    assert about_contact == [
        Trigger.CONTACT_CREATE, Trigger.CONTACT_IDENTITIES_DUPLICATION, Trigger.CONTACT_UPDATE, Trigger.CONTACT_MERGE,
        Trigger.CONTACT_DELETE,
    ]  # fmt: skip
    [merge] = await talks.told(Trigger.CONTACT_MERGE)
    assert merge["contact_merge_notification"]["deleted_contact"]["id"] == young.id
    [duplication] = await talks.told(Trigger.CONTACT_IDENTITIES_DUPLICATION)
    assert duplication["duplicated_contact_identities_notification"] == {
        "duplicated_identities": [{"channel": "SMS", "contact_ids": [old.id, young.id]}]
    }


async def test_apps_in_dispatch_mode_hear_nothing_of_contacts(make_talks):
    talks = await make_talks(processing_mode=ProcessingMode.DISPATCH)

    await talks.change(
        ContactCreated(
            change_id=ChangeId(mint()), project_id=PROJECT, at=datetime.now(UTC), sequence=1,
            contact=Contact(ContactId(mint()), (PHONE,)),
        )
    )  # fmt: skip

    assert await talks.router.callbacks() == []
