"""One SMS of one part: every answer and receipt of a provider, from the HTTP call to the last callback."""

import pytest
from msgspec import Struct
from tests.flow.vertical.tenant import Tenant, phone

from switchboard.ids import MessageId

PLANNED, TAKEN, DELIVERED = "planned", "accepted", "delivered"
FAILED_RECEIPT = "failed receipt, no channel left"
REJECTED = "rejected, no channel left"


class Case(Struct, frozen=True):
    """What a recipient does, and what has to follow."""

    what: str
    ending: str
    told: tuple[str, ...]
    story: tuple[str, ...]
    reason: str = ""
    submits: int = 1
    shown: bool = True


CASES = (
    Case("delivered", "0000", ("QUEUED_ON_CHANNEL", "DELIVERED"), (PLANNED, TAKEN, DELIVERED)),
    Case("no such number", "9901", ("FAILED",), (PLANNED, REJECTED), "RECIPIENT_INVALID_CHANNEL_IDENTITY", shown=False),
    Case("refused", "9902", ("FAILED",), (PLANNED, REJECTED), "CHANNEL_REJECT", shown=False),
    Case("our sender is refused", "9903", ("FAILED",), (PLANNED, REJECTED), "CHANNEL_BAD_CONFIGURATION", shown=False),
    Case(
        "system error, then taken", "9904", ("QUEUED_ON_CHANNEL", "DELIVERED"),
        (PLANNED, "failed for now", "retry", TAKEN, DELIVERED), submits=2,
    ),
    Case(
        "throttled, then taken", "9906", ("QUEUED_ON_CHANNEL", "DELIVERED"),
        (PLANNED, "throttled", "retry", TAKEN, DELIVERED), submits=2,
    ),
    Case("receipt given twice", "9915", ("QUEUED_ON_CHANNEL", "DELIVERED"), (PLANNED, TAKEN, DELIVERED)),
    Case("receipt before the answer", "9916", ("QUEUED_ON_CHANNEL", "DELIVERED"), (PLANNED, TAKEN, DELIVERED)),
    Case("receipt five seconds late", "9917", ("QUEUED_ON_CHANNEL", "DELIVERED"), (PLANNED, TAKEN, DELIVERED)),
    Case(
        "absent", "9918", ("QUEUED_ON_CHANNEL", "FAILED"), (PLANNED, TAKEN, FAILED_RECEIPT),
        "RECIPIENT_NOT_REACHABLE", shown=False,
    ),
    Case(
        "expired at the provider", "9919", ("QUEUED_ON_CHANNEL", "FAILED"), (PLANNED, TAKEN, FAILED_RECEIPT),
        "DELIVERY_TIMED_OUT", shown=False,
    ),
    Case(
        "refused by the network", "9920", ("QUEUED_ON_CHANNEL", "FAILED"), (PLANNED, TAKEN, FAILED_RECEIPT),
        "CHANNEL_REJECT", shown=False,
    ),
    Case("on its way, then delivered", "9924", ("QUEUED_ON_CHANNEL", "DELIVERED"), (PLANNED, TAKEN, DELIVERED)),
    Case(
        "opted out", "9929", ("QUEUED_ON_CHANNEL", "FAILED"), (PLANNED, TAKEN, FAILED_RECEIPT),
        "RECIPIENT_NOT_OPTED_IN", shown=False,
    ),
)  # fmt: skip


class Sent(Struct, frozen=True):
    number: str
    message_id: MessageId


@pytest.fixture(scope="module")
async def sent(app: Tenant) -> dict[str, Sent]:
    """All cases at once, so that their waits run side by side."""
    numbers = {case.what: phone(case.ending) for case in CASES}
    return {
        what: Sent(number, await app.send(f"About {what}", ("SMS", number), message_metadata=what))
        for what, number in numbers.items()
    }


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
async def test_every_end_of_an_sms_is_told(app: Tenant, sent: dict[str, Sent], case: Case):
    number, message_id = sent[case.what].number, sent[case.what].message_id

    await app.reported(message_id, *case.told)

    last = app.reports(message_id)[-1]
    submissions = app.installation.submissions(number)
    assert last.get("reason", {}).get("code", "") == case.reason
    assert last["metadata"] == case.what
    assert await app.story(message_id) == list(case.story)
    assert len(submissions) == await app.submitted(message_id) == case.submits
    assert len([line for line in submissions if line["accepted"]]) == ("QUEUED_ON_CHANNEL" in case.told)
    assert await app.installation.phone("SMS", number) == [f"About {case.what}"] * case.shown
    assert (await app.installation.message(message_id))["channel_identity"]["identity"] == number


async def test_throttling_counts_no_try(app: Tenant, sent: dict[str, Sent]):
    throttled, failed = sent["throttled, then taken"].message_id, sent["system error, then taken"].message_id
    await app.reported(throttled, "QUEUED_ON_CHANNEL", "DELIVERED")
    await app.reported(failed, "QUEUED_ON_CHANNEL", "DELIVERED")

    assert ((await app.row(throttled))["tries"], (await app.row(failed))["tries"]) == (0, 1)


async def test_submission_is_told_before_anything_else(app: Tenant, sent: dict[str, Sent]):
    message_id = sent["delivered"].message_id
    await app.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")

    first = app.callbacks(message_id)[0]

    assert first["message_submit_notification"]["submitted_message"]["text_message"]["text"] == "About delivered"


async def test_a_receipt_given_twice_is_told_once(app: Tenant, sent: dict[str, Sent]):
    twice = sent["receipt given twice"]
    later = await app.send("And another", ("SMS", twice.number))
    await app.reported(later, "QUEUED_ON_CHANNEL", "DELIVERED")

    assert app.told(twice.message_id) == ["QUEUED_ON_CHANNEL", "DELIVERED"]


async def test_a_delivery_reported_after_a_failure_outranks_it(app: Tenant, sent: dict[str, Sent]):
    absent = sent["absent"]
    await app.reported(absent.message_id, "QUEUED_ON_CHANNEL", "FAILED")
    [submission] = app.installation.submissions(absent.number)

    await app.installation.simulator("POST", "/receipts", provider_id=submission["provider_id"])

    await app.reported(absent.message_id, "QUEUED_ON_CHANNEL", "FAILED", "DELIVERED")
    assert (await app.row(absent.message_id))["status"] == "DELIVERED"
