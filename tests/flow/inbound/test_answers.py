"""What a message from a person answers: choices that are typed, and the metadata of what is replied to."""

import msgspec
from tests.flow.inbound.conftest import CHAT, PHONE, Listener

from switchboard.content import ContactMessage, ReplyTo, TextMessage
from switchboard.identity import ChannelIdentity
from switchboard.store.inbound_sweeps import MemorySweep
from switchboard.trigger import Trigger


def contents(bodies):
    return [body["message"]["contact_message"] for body in bodies]


async def asked(listener: Listener, *captions: str, to: ChannelIdentity = PHONE):
    sent = msgspec.structs.replace(listener.router.accepted(to), message=listener.choices(*captions))
    await listener.accept(sent)
    return sent


async def test_a_choice_answered_by_typing_is_a_choice_response(listener: Listener):
    sent = await asked(listener, "Noon", "Six")
    await listener.hear(listener.said(" noon "))

    [body] = await listener.told(Trigger.MESSAGE_INBOUND)
    response = {"message_id": sent.message_id, "postback_data": "N"}
    assert body["message"]["contact_message"]["choice_response_message"] == response
    assert "text_message" not in body["message"]["contact_message"]
    assert body["message"]["metadata"] == "order-5521"


async def test_other_texts_other_people_and_other_channels_stay_texts(listener: Listener):
    await asked(listener, "Noon", "Six")
    await asked(listener, "Noon", to=CHAT)
    for said in (
        listener.said("Noon please"),
        listener.said("Noon", ChannelIdentity(PHONE.channel, "46709999999")),
        listener.said("Noon", CHAT),
    ):
        await listener.hear(said)

    assert all("text_message" in content for content in contents(await listener.told(Trigger.MESSAGE_INBOUND)))


async def test_the_latest_choices_count(listener: Listener):
    await asked(listener, "Noon", "Six")
    later = await asked(listener, "Six", "Nine")
    await listener.hear(listener.said("Noon"))
    await listener.hear(listener.said("Six"))

    first, second = contents(await listener.told(Trigger.MESSAGE_INBOUND))
    assert "text_message" in first
    assert second["choice_response_message"]["message_id"] == later.message_id


async def test_choices_are_forgotten_after_a_day(listener: Listener):
    await asked(listener, "Noon")
    await listener.pool.execute("UPDATE open_choices SET kept_until = switchboard.now()")
    await listener.hear(listener.said("Noon"))

    await MemorySweep(listener.pool).run_once()

    assert "text_message" in contents(await listener.told(Trigger.MESSAGE_INBOUND))[0]
    assert await listener.pool.fetchval("SELECT count(*) FROM open_choices") == 0


async def test_an_answer_seen_again_is_told_as_it_was(listener: Listener):
    await asked(listener, "Noon")
    said = listener.said("Noon")
    await listener.hear(said)
    await listener.pool.execute("DELETE FROM open_choices")
    await listener.hear(said)

    callbacks = [one for one in await listener.router.callbacks() if one.trigger is Trigger.MESSAGE_INBOUND]
    assert len(callbacks) == 2
    assert len({(one.callback_id, bytes(one.body)) for one in callbacks}) == 1


async def test_no_caption_is_kept_in_clear(listener: Listener):
    await asked(listener, "Noonday sun")

    assert b"Noonday" not in await listener.pool.fetchval("SELECT answers FROM open_choices")


async def test_a_message_without_choices_keeps_nothing(listener: Listener):
    await listener.accept(listener.router.accepted(PHONE))

    assert await listener.pool.fetchval("SELECT count(*) FROM open_choices") == 0


async def test_a_reply_brings_the_metadata_of_what_it_replies_to(listener: Listener):
    await listener.accept(sent := listener.router.accepted(CHAT))
    reply = ContactMessage(text_message=TextMessage("Thanks"), reply_to=ReplyTo(sent.message_id))
    await listener.hear(listener.said("", CHAT, message=reply))

    [body] = await listener.told(Trigger.MESSAGE_INBOUND)
    assert body["message"]["metadata"] == "order-5521"


async def test_a_reply_to_somebody_elses_message_brings_nothing(listen):
    listener, other = await listen(), await listen()
    await other.accept(sent := other.router.accepted(CHAT))
    reply = ContactMessage(text_message=TextMessage("Thanks"), reply_to=ReplyTo(sent.message_id))
    await listener.hear(listener.said("", CHAT, message=reply))

    [body] = await listener.told(Trigger.MESSAGE_INBOUND)
    assert body["message"]["metadata"] == ""


async def test_other_messages_bring_the_channels_facts(listener: Listener):
    await listener.hear(listener.said("Hello", channel_metadata={"operator": "24001"}))

    [body] = await listener.told(Trigger.MESSAGE_INBOUND)
    assert msgspec.json.decode(body["message"]["metadata"]) == {"operator": "24001"}


async def test_two_equal_texts_are_two_messages(listener: Listener):
    await listener.hear(listener.said("Hello"))
    await listener.hear(listener.said("Hello"))

    assert len(await listener.told(Trigger.MESSAGE_INBOUND)) == 2
