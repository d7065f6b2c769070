"""The official Python client, with only its addresses changed, gets what it expects (conversation-api 15.2)."""

import asyncio
from datetime import UTC, datetime

import pytest
from sinch import SinchClient
from tests.flow.installed import Installed, new_number

from switchboard.testing import wait_until
from switchboard_simulator.journal import read_lines


@pytest.fixture
def client(installation: Installed) -> SinchClient:
    running = installation.running
    client = SinchClient(
        project_id=running.project_id,
        key_id=running.key_id,
        key_secret=running.key_secret,
        conversation_region="eu",
    )
    client.configuration.auth_origin = running.base_url
    client.configuration.conversation_origin = running.base_url
    return client


async def secret(installation: Installed) -> str:
    """The secret of the app's webhook, as the API tells it."""
    webhook = await installation.call("GET", f"/webhooks/{installation.running.webhook_id}")
    return str(webhook.json["secret"])


async def send(client: SinchClient, installation: Installed, number: str) -> str:
    sent = await asyncio.to_thread(
        client.conversation.messages.send_text_message,
        app_id=installation.running.app_id,
        text="Berth 12 is free from Friday.",
        recipient_identities=[{"channel": "SMS", "identity": f"+{number}"}],
        message_metadata="order-5521",
        correlation_id="corr-5521",
        ttl="600s",
    )
    assert abs((datetime.now(UTC) - sent.accepted_time).total_seconds()) < 60
    return str(sent.message_id)


async def test_it_gets_a_token_sends_and_reads(client: SinchClient, installation: Installed):
    number = new_number()

    message_id = await send(client, installation, number)
    await installation.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")
    found = await asyncio.to_thread(
        client.conversation.messages.get, message_id=message_id, messages_source="DISPATCH_SOURCE"
    )

    assert client.configuration.token_manager.token is not None
    assert found.app_message.text_message.text == "Berth 12 is free from Friday."
    assert found.channel_identity.identity == number
    assert found.processing_mode == "DISPATCH"
    assert await installation.phone("SMS", number) == ["Berth 12 is free from Friday."]


async def test_it_lists_what_was_sent_to_somebody(client: SinchClient, installation: Installed):
    number = new_number()
    ids = [await send(client, installation, number) for _ in range(3)]
    await installation.reported(ids[-1], "QUEUED_ON_CHANNEL", "DELIVERED")

    def listed() -> list[str]:
        pages = client.conversation.messages.list(
            app_id=installation.running.app_id,
            channel_identity=number,
            messages_source="DISPATCH_SOURCE",
            page_size=2,
        )
        return [message.id for message in pages.iterator()]

    assert await asyncio.to_thread(listed) == ids[::-1]


async def test_its_own_check_accepts_our_callbacks_and_its_parser_reads_them(
    client: SinchClient, installation: Installed
):
    message_id = await send(client, installation, new_number())
    await installation.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")
    checker = client.conversation.sinch_events(await secret(installation))
    log = installation.home.callbacks_log

    lines = [line for line in read_lines(log) if message_id in line["body"]]
    parsed = []
    for line in lines:
        assert checker.validate_authentication_header(line["headers"], line["body"])
        assert not checker.validate_authentication_header(line["headers"], line["body"] + " ")
        parsed.append(checker.parse_event(line["body"]))

    assert [type(event).__name__ for event in parsed] == [
        "MessageSubmitEvent",
        "MessageDeliveryReceiptEvent",
        "MessageDeliveryReceiptEvent",
    ]
    assert parsed[-1].message_delivery_report.status == "DELIVERED"
    assert parsed[-1].message_delivery_report.metadata == "order-5521"
    assert parsed[-1].correlation_id == "corr-5521"


async def test_it_reads_what_a_person_wrote(client: SinchClient, installation: Installed):
    number = new_number()
    await installation.say("SMS", number, "Thank you")

    def about() -> list[dict[str, object]]:
        return [line for line in read_lines(installation.home.callbacks_log) if f'"{number}"' in str(line["body"])]

    await wait_until(about, 20, "a MESSAGE_INBOUND callback")
    checker = client.conversation.sinch_events(await secret(installation))

    event = checker.parse_event(str(about()[0]["body"]))

    assert event.message.contact_message.text_message.text == "Thank you"
    assert event.message.sender_id == installation.running.number
