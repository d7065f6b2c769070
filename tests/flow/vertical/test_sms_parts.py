"""Long SMS: every part is submitted once, and all of them are told as one."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.flow.vertical.tenant import LONG, Tenant, phone

from switchboard.testing import wait_until


async def told_on_paper(app: Tenant, number: str, count: int) -> list[dict[str, Any]]:
    """The submissions, once there are that many."""
    await wait_until(lambda: len(app.installation.submissions(number)) >= count, 20, f"{count} submissions")
    return app.installation.submissions(number)


async def test_a_long_text_is_one_message_on_the_phone_and_one_to_the_app(app: Tenant):
    number = phone()

    message_id = await app.send(LONG, ("SMS", number))
    await app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")

    submissions = app.installation.submissions(number)
    assert [line["operation"] for line in submissions] == [f"submit_sm {part}/3" for part in (1, 2, 3)]
    assert await app.installation.phone("SMS", number) == [LONG]
    assert await app.story(message_id) == ["planned", "accepted", "receipt of a part", "receipt of a part", "delivered"]


async def test_message_metadata_is_as_the_contract_shows_it(app: Tenant):
    number = phone()

    message_id = await app.send(
        LONG, ("SMS", number), channel_properties={"SMS_MAX_NUMBER_OF_MESSAGE_PARTS": "5"}, correlation_id="corr-1"
    )
    await app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")

    [*_, queued, delivered] = app.callbacks(message_id)
    before, after = (msgspec.json.decode(body["message_metadata"]) for body in (queued, delivered))
    assert (set(before), set(after)) == (
        {"sms_batch_id", "number_of_message_parts"},
        {"sms_batch_id", "number_of_message_parts", "operator"},
    )
    assert before["sms_batch_id"] == after["sms_batch_id"]
    assert (after["number_of_message_parts"], after["operator"]) == (3, "24001")
    assert delivered["correlation_id"] == "corr-1"


async def test_a_part_refused_after_the_first_fails_the_message_and_sends_nothing_again(app: Tenant):
    number = phone("9921")

    message_id = await app.send(LONG, ("SMS", number), ("TELEGRAM", number))
    await app.reported(message_id, "FAILED")

    submissions = app.installation.submissions(number)
    assert [(line["operation"], line["accepted"]) for line in submissions] == [
        ("submit_sm 1/3", True), ("submit_sm 2/3", False),
    ]  # fmt: skip
    assert (await app.story(message_id))[:2] == ["planned", "partly accepted"]


async def test_a_part_that_fails_for_now_after_the_first_fails_the_message(app: Tenant):
    number = phone("9922")

    message_id = await app.send(LONG, ("SMS", number), ("TELEGRAM", number))
    await app.reported(message_id, "FAILED")

    assert [line["accepted"] for line in app.installation.submissions(number)][:2] == [True, False]
    assert len([line for line in app.installation.submissions(number) if line["operation"] == "submit_sm 1/3"]) == 1


async def test_a_part_that_is_not_answered_leaves_the_message_unknown(app: Tenant):
    number = phone("9923")

    message_id = await app.send(LONG, ("SMS", number), ("TELEGRAM", number))
    await app.noted(message_id, "unknown")
    await app.hasten(message_id, seconds=301)
    await app.reported(message_id, "FAILED")

    assert app.reports(message_id)[0]["reason"]["code"] == "UNKNOWN"
    operations = [line["operation"] for line in app.installation.submissions(number)]
    assert sorted(set(operations)) == sorted(operations)
    assert await app.installation.phone("TELEGRAM", number) == []


async def test_receipts_of_all_parts_settle_the_doubt_about_the_last(app: Tenant):
    number = phone("9923")

    message_id = await app.send(LONG[:200], ("SMS", number))
    await app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")

    assert [line["answer"] for line in app.installation.submissions(number)] == ["ESME_ROK", "none"]
    assert await app.installation.phone("SMS", number) == [LONG[:200]]


@pytest.mark.parametrize("kind", ["receipt_failed", "receipt_expired"])
async def test_one_part_failing_fails_the_message(app: Tenant, kind: str):
    number = phone()
    await app.installation.fault("SMS", "silence", recipient=number, count=1)
    await app.installation.fault("SMS", kind, recipient=number, count=1)
    await app.installation.fault("SMS", "silence", recipient=number, count=1)

    message_id = await app.send(LONG, ("SMS", number), ("TELEGRAM", number))

    # The person has nothing of it, so another channel may bring it.
    await app.reported(message_id, "QUEUED_ON_CHANNEL", "SWITCHING_CHANNEL", "QUEUED_ON_CHANNEL")
    assert len(app.installation.submissions(number)) == 4


async def test_a_part_failing_after_another_was_delivered_fails_the_message_without_failover(app: Tenant):
    number = phone("9914")
    message_id = await app.send(LONG, ("SMS", number), ("TELEGRAM", number))
    await app.reported(message_id, "QUEUED_ON_CHANNEL")
    first, second, _ = [line["provider_id"] for line in await told_on_paper(app, number, 3)]

    await app.installation.simulator("POST", "/receipts", provider_id=first)
    await app.noted(message_id, "receipt of a part")
    await app.installation.simulator("POST", "/receipts", provider_id=second, state="UNDELIV", error="153")

    await app.reported(message_id, "QUEUED_ON_CHANNEL", "FAILED")
    assert (await app.story(message_id))[-1] == "a part failed after another was delivered"
    assert await app.installation.phone("TELEGRAM", number) == []


@pytest.mark.parametrize(
    ("what", "text", "properties", "code"),
    [
        ("more parts than allowed", LONG, {"SMS_MAX_NUMBER_OF_MESSAGE_PARTS": "2"}, "MESSAGE_SPLIT_REQUIRED"),
        ("a sender that is too long", "Hello", {"SMS_SENDER": "A sender of 22 letters"}, "BAD_REQUEST"),
    ],
)
async def test_what_sms_cannot_carry_fails_unsent(
    app: Tenant, what: str, text: str, properties: dict[str, str], code: str
):
    number = phone()

    message_id = await app.send(text, ("SMS", number), channel_properties=properties)
    await app.reported(message_id, "FAILED")

    assert app.reports(message_id)[0]["reason"]["code"] == code
    assert app.installation.submissions(number) == []


async def test_parts_of_many_messages_at_once_are_told_message_by_message(app: Tenant):
    numbers = [phone() for _ in range(10)]

    ids = await asyncio.gather(*(app.send(LONG, ("SMS", number)) for number in numbers))

    await asyncio.gather(*(app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED") for message_id in ids))
    assert all([await app.installation.phone("SMS", number) == [LONG] for number in numbers])
