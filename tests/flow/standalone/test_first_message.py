"""A first message, through the installation that the flow tests share."""

from tests.flow.installed import Installed, new_number

from switchboard.testing import wait_until


async def test_a_text_reaches_its_phone_and_the_app_is_told(installation: Installed) -> None:
    number = new_number()

    message_id = await installation.send("Hello from the tests", ("SMS", number))

    await installation.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")
    assert await installation.phone("SMS", number) == ["Hello from the tests"]
    assert [line["operation"] for line in installation.submissions(number)] == ["submit_sm"]
    assert "message_submit_notification" in installation.callbacks(message_id)[0]


async def test_a_text_reaches_a_chat(installation: Installed) -> None:
    message_id = await installation.send("Hello chat", ("TELEGRAM", "5551001"))

    await installation.reported(message_id, "QUEUED_ON_CHANNEL")
    assert await installation.phone("TELEGRAM", "5551001") == ["Hello chat"]


async def test_what_people_write_reaches_the_app(installation: Installed) -> None:
    number = new_number()

    await installation.say("SMS", number, "Hello app")
    await installation.say("TELEGRAM", "5551002", "Hello bot")

    await wait_until(lambda: installation.callbacks(number), 20, "the SMS was called back")
    await wait_until(lambda: installation.callbacks("5551002"), 20, "the chat message was called back")
