"""SMS nobody knows about, and SMS that wait: no answer, cut connections, silence, a full queue, time that is up."""

import asyncio

import pytest
from tests.flow.vertical.tenant import Tenant, phone

from switchboard.ids import MessageId

#: What an unknown outcome waits for a receipt before it is given up (docs/reference/failover.md).
UNKNOWN_WAIT_SECONDS = 301


async def unknown(app: Tenant, number: str) -> MessageId:
    """Send, and wait until nobody knows what became of it."""
    message_id = await app.send("Are you there?", ("SMS", number))
    await app.noted(message_id, "unknown")
    return message_id


@pytest.mark.parametrize(
    ("what", "ending", "taken"),
    [
        ("not taken, no answer", "9909", False),
        ("taken, no answer, no receipt", "9911", True),
        ("not taken, connection cut", "9912", False),
    ],
)
async def test_an_sms_of_unknown_fate_fails_after_its_wait_and_is_not_sent_again(
    app: Tenant, what: str, ending: str, taken: bool
):
    number = phone(ending)

    message_id = await unknown(app, number)
    assert app.told(message_id) == []
    await app.hasten(message_id, seconds=UNKNOWN_WAIT_SECONDS)
    await app.reported(message_id, "FAILED")

    [report] = app.reports(message_id)
    [submission] = app.installation.submissions(number)
    assert report["reason"]["code"] == "UNKNOWN"
    assert submission["accepted"] is taken
    assert await app.story(message_id) == ["planned", "unknown", "stayed unknown"]
    assert await app.installation.phone("SMS", number) == []


async def test_a_connection_cut_with_submits_unanswered_sends_none_of_them_again(app: Tenant):
    silent, cutting = [phone("9909") for _ in range(4)], [phone("9912") for _ in range(2)]
    numbers = [*silent, *cutting]

    ids = [await app.send("Are you there?", ("SMS", number)) for number in numbers]
    await asyncio.gather(*(app.noted(message_id, "unknown") for message_id in ids))
    for message_id in ids:
        await app.hasten(message_id, seconds=UNKNOWN_WAIT_SECONDS)
    await asyncio.gather(*(app.reported(message_id, "FAILED") for message_id in ids))
    after = await app.send("And now?", ("SMS", phone()))
    await app.reported(after, "QUEUED_ON_CHANNEL", "DELIVERED")

    assert [len(app.installation.submissions(number)) for number in numbers] == [1] * 6


@pytest.mark.parametrize(
    ("what", "ending"),
    [("no answer", "9910"), ("connection cut", "9913"), ("the answer is no PDU", "9928")],
)
async def test_a_receipt_within_the_wait_tells_that_an_sms_of_unknown_fate_arrived(app: Tenant, what: str, ending: str):
    number = phone(ending)

    message_id = await app.send("Are you there?", ("SMS", number))
    await app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")

    assert len(app.installation.submissions(number)) == 1
    assert await app.installation.phone("SMS", number) == ["Are you there?"]


async def test_an_sms_whose_delivery_is_never_reported_stays_submitted_and_ends_at_the_horizon(app: Tenant):
    numbers = phone("9914"), phone("9925")
    ids = [await app.send("Are you there?", ("SMS", number)) for number in numbers]
    await asyncio.gather(*(app.reported(message_id, "QUEUED_ON_CHANNEL") for message_id in ids))

    for message_id, number in zip(ids, numbers, strict=True):
        await app.hasten(message_id, hours=72)
        await app.noted(message_id, "receipt horizon passed")

        row = await app.row(message_id)
        assert (row["final"], row["status"]) == (True, "QUEUED_ON_CHANNEL")
        assert app.told(message_id) == ["QUEUED_ON_CHANNEL"]
        assert len(app.installation.submissions(number)) == 1


async def test_a_receipt_after_the_horizon_is_told_all_the_same(app: Tenant):
    number = phone("9914")
    message_id = await app.send("Are you there?", ("SMS", number))
    await app.reported(message_id, "QUEUED_ON_CHANNEL")
    await app.hasten(message_id, hours=72)
    await app.noted(message_id, "receipt horizon passed")
    [submission] = app.installation.submissions(number)

    await app.installation.simulator("POST", "/receipts", provider_id=submission["provider_id"])

    await app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")


async def test_a_full_queue_is_tried_again_after_ten_seconds(app: Tenant):
    number = phone("9907")
    message_id = await app.send("Are you there?", ("SMS", number))
    await app.in_phase(message_id, "RETRYING")
    row = await app.row(message_id)
    assert 9 < (row["retry_at"] - row["first_failed_at"]).total_seconds() <= 10

    await app.hasten(message_id, seconds=10)

    await app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")
    assert [line["answer"] for line in app.installation.submissions(number)] == ["ESME_RMSGQFUL", "ESME_ROK"]


async def test_a_system_error_is_given_up_after_five_tries(app: Tenant):
    number = phone("9905")
    message_id = await app.send("Are you there?", ("SMS", number))
    for tries in range(1, 5):

        async def is_waiting(tries: int = tries) -> bool:
            row = await app.row(message_id)
            return bool(row["phase"] == "RETRYING" and row["tries"] >= tries)

        await app.until(is_waiting, f"{tries} tries failed")
        await app.hasten(message_id, seconds=30)

    await app.reported(message_id, "FAILED")
    [report] = app.reports(message_id)
    assert report["reason"]["code"] == "CHANNEL_FAILURE"
    assert len(app.installation.submissions(number)) == 5
    assert (await app.story(message_id))[-1] == "retries exhausted, no channel left"


async def test_a_channel_that_fails_for_the_whole_retry_duration_is_given_up(app: Tenant):
    number = phone("9908")
    message_id = await app.send("Are you there?", ("SMS", number))
    await app.in_phase(message_id, "RETRYING")

    await app.hasten(message_id, seconds=3600)

    await app.reported(message_id, "FAILED")
    assert app.reports(message_id)[0]["reason"]["code"] == "RATE_LIMITED"
    assert await app.story(message_id) == ["planned", "failed for now", "retry", "retries exhausted, no channel left"]


async def test_an_sms_that_no_channel_took_within_its_ttl_expires(app: Tenant):
    number = phone("9908")
    message_id = await app.send("Are you there?", ("SMS", number), ttl="60s")
    await app.in_phase(message_id, "RETRYING")

    await app.hasten(message_id, seconds=60)

    await app.reported(message_id, "FAILED")
    assert app.reports(message_id)[0]["reason"]["code"] == "MESSAGE_EXPIRED"
    assert len(app.installation.submissions(number)) == 1


async def test_an_sms_a_channel_took_does_not_expire(app: Tenant):
    number = phone("9914")
    message_id = await app.send("Are you there?", ("SMS", number), ttl="60s")
    await app.reported(message_id, "QUEUED_ON_CHANNEL")
    await app.hasten(message_id, seconds=600)
    [submission] = app.installation.submissions(number)

    await app.installation.simulator("POST", "/receipts", provider_id=submission["provider_id"])

    await app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")
