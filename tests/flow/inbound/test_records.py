"""RECORD_NOTIFICATION: what is stored is told of once, whatever it is, and nothing where nothing is stored."""

from typing import Any

from tests.flow.inbound.conftest import CHAT, PHONE, Listener

from switchboard.configuration import DispatchRetentionPolicy
from switchboard.content import ContactMessageEvent, Reaction, ReactionAction
from switchboard.records import EventReceived
from switchboard.trigger import Trigger


async def records(listener: Listener) -> list[Any]:
    return [body["record_notification"] for body in await listener.told(Trigger.RECORD_NOTIFICATION)]


def reaction(listener: Listener) -> EventReceived:
    event = ContactMessageEvent(reaction_event=Reaction("👍", ReactionAction.REACT, "m"))
    received: EventReceived = listener.fact(EventReceived, "event_id", contact_message_event=event)
    return received


async def test_messages_and_events_that_are_stored_are_told_of_in_both_directions(listener: Listener):
    sent, said = listener.router.accepted(PHONE, CHAT), listener.said("Thank you")
    composing, reacted = listener.event("composing_event", CHAT), reaction(listener)

    await listener.accept(sent, composing)
    await listener.hear(said, reacted)

    told = {one["entity_id"]: one for one in await records(listener)}
    assert told[sent.message_id] == {
        "entity_id": sent.message_id,
        "record_status": "EVENT_RECORD_STORED",
        "processing_mode": "DISPATCH",
        "channel_identity": {"channel": "SMS", "identity": PHONE.identity, "app_id": ""},
        "contact_id": "",
        "conversation_id": "",
    }
    assert set(told) == {sent.message_id, said.message_id, composing.event_id, reacted.event_id}
    correlated = {
        body["correlation_id"]
        for body in await listener.told(Trigger.RECORD_NOTIFICATION)
        if body["record_notification"]["entity_id"] == sent.message_id
    }
    assert correlated == {"corr-5521"}


async def test_a_record_stands_before_all_else_that_is_told_of_its_message(listener: Listener):
    sent = listener.router.accepted(PHONE)

    await listener.accept(sent)
    await listener.hear(said := listener.said("Thank you"))

    callbacks = await listener.router.callbacks()
    for stream in (sent.message_id, said.message_id):
        numbers = [one.sequence for one in callbacks if one.stream == stream]
        assert numbers == sorted(set(numbers)), "rising, and none twice"
        assert numbers[0] == 0


async def test_a_record_seen_again_is_the_same_callback(listener: Listener):
    sent, said = listener.router.accepted(PHONE, CHAT), listener.said("Thank you")
    composing, reacted = listener.event("composing_event", CHAT), reaction(listener)

    for _ in range(2):
        await listener.accept(sent, composing)
        await listener.hear(said, reacted)

    callbacks = [one for one in await listener.router.callbacks() if one.trigger is Trigger.RECORD_NOTIFICATION]
    assert len(callbacks) == 8
    assert len({(one.callback_id, bytes(one.body)) for one in callbacks}) == 4


async def test_where_nothing_is_retained_no_record_is_told_of(listen: Any):
    listener = await listen(dispatch_retention_policy=DispatchRetentionPolicy(ttl_days=0))

    await listener.accept(listener.router.accepted(PHONE), listener.event("composing_event", CHAT))
    await listener.hear(listener.said("Thank you"), reaction(listener))

    assert await records(listener) == []
