"""Capability queries: who is asked, what is told, and what routes make of it."""

from datetime import UTC, datetime

import msgspec
import pytest
from tests.flow.inbound.conftest import CHAT, PHONE, PROJECT, Listener
from tests.flow.router.conftest import SMS, TELEGRAM

from switchboard.contact import Contact
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import ContactId, mint
from switchboard.records import AskCapability, CapabilityAnswered, ProcessingMode
from switchboard.rules.route import Verdict
from switchboard.store import contacts
from switchboard.topics import DISPATCH
from switchboard.trigger import Trigger


def answer(listener: Listener, status: str, identity: ChannelIdentity = CHAT, **fields) -> CapabilityAnswered:
    query = listener.question(identity)
    return CapabilityAnswered(
        query.query_id, PROJECT, listener.app.id, identity, "ask-1", query.asked_at, datetime.now(UTC), status, **fields
    )


async def test_channels_that_can_tell_are_asked_and_the_others_are_answered_for(listener: Listener):
    await listener.accept(query := listener.question(CHAT, PHONE))

    [order] = [one for one in await listener.router._all(DISPATCH, TELEGRAM) if isinstance(one, AskCapability)]
    assert (order.query_id, order.identity, order.request_id) == (query.query_id, CHAT, "ask-1")
    [unknown] = await listener.learned()
    assert isinstance(unknown, CapabilityAnswered)
    assert (unknown.identity, unknown.status) == (PHONE, "CAPABILITY_UNKNOWN")


@pytest.mark.parametrize(
    ("status", "features"),
    [
        ("CAPABILITY_FULL", ()),
        ("CAPABILITY_PARTIAL", ("RICHCARD_STANDALONE", "ACTION_DIAL")),
        ("NO_CAPABILITY", ()),
        ("CAPABILITY_UNKNOWN", ()),
    ],
)
async def test_an_answer_is_one_callback(listener: Listener, status, features):
    told = answer(listener, status, features=features)
    for _ in range(2):
        await listener.hear(told)

    [body] = await listener.told(Trigger.CAPABILITY)
    expected = {
        "request_id": "ask-1",
        "contact_id": "",
        "channel": "TELEGRAM",
        "identity": CHAT.identity,
        "capability_status": status,
    }
    assert body["capability_notification"] == expected | ({"channel_capabilities": list(features)} if features else {})


async def test_a_channel_that_cannot_reach_somebody_is_left_out_while_another_is_there(listener: Listener):
    await listener.hear(answer(listener, "NO_CAPABILITY"))

    await listener.accept(sent := listener.router.accepted(CHAT, PHONE))

    message = await listener.router.message(sent.message_id)
    assert [(one.channel, one.verdict) for one in message.route.candidates] == [
        (TELEGRAM, Verdict.NO_CAPABILITY),
        (SMS, Verdict.KEPT),
    ]
    assert len(await listener.router.dispatched(SMS)) == 1


async def test_the_only_channel_is_tried_whatever_it_said(listener: Listener):
    await listener.hear(answer(listener, "NO_CAPABILITY"))

    await listener.accept(listener.router.accepted(CHAT))

    assert len(await listener.router.dispatched(TELEGRAM)) == 1


async def test_so_is_the_only_channel_asked_for(listener: Listener):
    await listener.hear(answer(listener, "NO_CAPABILITY"))

    sent = listener.router.accepted(CHAT, PHONE)
    await listener.accept(msgspec.structs.replace(sent, channel_priority_order=(TELEGRAM,)))

    assert len(await listener.router.dispatched(TELEGRAM)) == 1


async def test_an_answer_is_believed_for_a_while_and_until_the_next_one(listener: Listener):
    await listener.hear(answer(listener, "NO_CAPABILITY"))
    await listener.pool.execute("UPDATE capabilities SET kept_until = switchboard.now()")
    await listener.accept(listener.router.accepted(CHAT, PHONE))
    await listener.hear(answer(listener, "NO_CAPABILITY"))
    await listener.hear(answer(listener, "CAPABILITY_FULL"))
    await listener.accept(listener.router.accepted(CHAT, PHONE))

    assert len(await listener.router.dispatched(TELEGRAM)) == 2


async def test_a_channel_the_app_does_not_have_is_answered_with_the_reason(listener: Listener):
    await listener.accept(listener.question(ChannelIdentity(ChannelName("RCS"), PHONE.identity)))

    [unknown] = await listener.learned()
    assert isinstance(unknown, CapabilityAnswered)
    await listener.hear(unknown)
    [body] = await listener.told(Trigger.CAPABILITY)
    assert body["capability_notification"]["reason"]["code"] == "CHANNEL_CONFIGURATION_MISSING"


async def test_every_channel_of_a_contact_is_answered(listen):
    listener: Listener = await listen(processing_mode=ProcessingMode.CONVERSATION)
    elsewhere = ChannelIdentity(ChannelName("RCS"), PHONE.identity)
    contact = Contact(ContactId(mint()), (CHAT, PHONE, elsewhere))
    async with listener.pool.acquire() as connection:
        await contacts.insert(connection, [(PROJECT, contact)], told=1)
    query = listener.question()

    await listener.accept(msgspec.structs.replace(query, mode=ProcessingMode.CONVERSATION, contact_id=contact.id))

    [order] = [one for one in await listener.router._all(DISPATCH, TELEGRAM) if isinstance(one, AskCapability)]
    assert (order.identity, order.contact_id) == (CHAT, contact.id)
    answers = [one for one in await listener.learned() if isinstance(one, CapabilityAnswered)]
    assert [(one.identity, one.reason and one.reason.code, one.contact_id) for one in answers] == [
        (PHONE, None, contact.id), (elsewhere, "CHANNEL_CONFIGURATION_MISSING", contact.id),
    ]  # fmt: skip
