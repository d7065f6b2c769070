"""What people write and press, from the provider to a signed callback."""

import asyncio

from tests.flow.vertical.tenant import LONG, Tenant, chat, phone

from switchboard.testing import wait_until


def texts(app: Tenant, sender: str) -> list[str]:
    """What the app was told that a person wrote."""
    return [message["contact_message"]["text_message"]["text"] for message in app.inbound(sender)]


async def heard(app: Tenant, sender: str, *expected: str) -> None:
    """Wait until the app was told exactly that."""
    await wait_until(lambda: len(texts(app, sender)) >= len(expected), 20, lambda: f"{expected}: {texts(app, sender)}")
    assert texts(app, sender) == list(expected)


async def test_texts_of_every_kind_reach_the_app_whole(app: Tenant):
    written = {phone(): "Is it late?", phone(): LONG, phone(): "Паром опаздывает? 😀", phone(): "Жук 😀 " * 40}

    for sender, text in written.items():
        await app.say("SMS", sender, text)

    await asyncio.gather(*(heard(app, sender, text) for sender, text in written.items()))
    for sender in written:
        [message] = app.inbound(sender)
        assert message["channel_identity"]["channel"] == "SMS"
        assert (message["direction"], message["sender_id"]) == ("TO_APP", app.number)


async def test_a_chat_message_reaches_the_app(app: Tenant):
    sender = chat()

    await app.say("TELEGRAM", sender, "Is it late?")

    await heard(app, sender, "Is it late?")
    [message] = app.inbound(sender)
    found = await app.installation.message(message["id"])
    assert found["contact_message"]["text_message"]["text"] == "Is it late?"
    assert found["direction"] == "TO_APP"


async def test_the_same_words_written_twice_are_two_messages(app: Tenant):
    number, person = phone(), chat()

    for _ in range(2):
        await app.say("SMS", number, "Yes")
        await app.say("TELEGRAM", person, "Yes")

    await asyncio.gather(heard(app, number, "Yes", "Yes"), heard(app, person, "Yes", "Yes"))
    assert len({message["id"] for message in app.inbound(number)}) == 2


async def test_an_update_the_provider_posts_twice_is_one_message(app: Tenant):
    sender = chat("9915")

    await app.say("TELEGRAM", sender, "Once")
    await app.say("TELEGRAM", sender, "And again")

    await heard(app, sender, "Once", "And again")


async def test_a_long_text_whose_parts_are_delivered_twice_is_one_message(app: Tenant):
    number = phone()

    answer = await app.installation.simulator(
        "POST", "/inbound", **{"channel": "SMS", "from": number, "to": app.number, "text": LONG, "times": 2}
    )
    assert answer.status == 200, answer.content
    await heard(app, number, LONG)
    await app.say("SMS", number, "And that is all")

    await heard(app, number, LONG, "And that is all")


async def test_everything_a_person_writes_is_told(app: Tenant):
    number, person = phone(), chat()
    written = [f"Number {place}" for place in range(10)]

    for text in written:
        await app.say("SMS", number, text)
        await app.say("TELEGRAM", person, text)

    await wait_until(lambda: min(len(texts(app, number)), len(texts(app, person))) >= 10, 20, "all were told")
    # Each is a message of its own, and callbacks are in order within one.
    assert sorted(texts(app, number)) == sorted(texts(app, person)) == sorted(written)


async def test_a_pressed_button_comes_back_as_a_choice(app: Tenant):
    person = chat()
    choice = {
        "choice_message": {
            "text_message": {"text": "Which ferry?"},
            "choices": [
                {"text_message": {"text": "Noon"}, "postback_data": "noon-ferry"},
                {"text_message": {"text": "Six"}, "postback_data": "six-ferry"},
            ],
        }
    }
    message_id = await app.send("", ("TELEGRAM", person), message=choice)
    await app.reported(message_id, "QUEUED_ON_CHANNEL")
    shown = (await app.installation.simulator("GET", f"/phones/TELEGRAM/{person}")).json["messages"][-1]

    pressed = await app.installation.simulator(
        "POST", "/press", channel="TELEGRAM", recipient=person, message_id=shown["id"], button="Six"
    )
    assert pressed.status == 200, pressed.content

    await wait_until(lambda: app.inbound(person), 20, "the app was told")
    [message] = app.inbound(person)
    answer = message["contact_message"]["choice_response_message"]
    assert (answer["message_id"], answer["postback_data"]) == (message_id, "six-ferry")


async def test_a_word_of_refusal_is_not_lost(app: Tenant):
    number = phone()

    await app.say("SMS", number, "STOP")

    await heard(app, number, "STOP")
