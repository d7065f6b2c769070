"""Two channels: what makes a message go on with the next, and what does not."""

from collections.abc import AsyncIterator

import pytest
from msgspec import Struct
from tests.flow.installed import Installed
from tests.flow.vertical.tenant import Tenant, chat, phone, tenant

from switchboard.ids import MessageId

SWITCHED = "SWITCHING_CHANNEL"
QUEUED = "QUEUED_ON_CHANNEL"


class Case(Struct, frozen=True):
    """What the first and the second recipient do, and what has to follow."""

    what: str
    first: tuple[str, str]
    second: tuple[str, str]
    told: tuple[tuple[str, str], ...]
    story: tuple[str, ...]
    #: Submissions on the first and on the second channel.
    submits: tuple[int, int]


CASES = (
    Case(
        "rejected by SMS", ("SMS", "9901"), ("TELEGRAM", "0000"),
        ((SWITCHED, "SMS"), (QUEUED, "TELEGRAM")), ("planned", "rejected", "accepted"), (1, 1),
    ),
    Case(
        "reported failed on SMS", ("SMS", "9918"), ("TELEGRAM", "0000"),
        ((QUEUED, "SMS"), (SWITCHED, "SMS"), (QUEUED, "TELEGRAM")),
        ("planned", "accepted", "failed receipt", "accepted"), (1, 1),
    ),
    Case(
        "expired at the SMSC", ("SMS", "9919"), ("TELEGRAM", "0000"),
        ((QUEUED, "SMS"), (SWITCHED, "SMS"), (QUEUED, "TELEGRAM")),
        ("planned", "accepted", "failed receipt", "accepted"), (1, 1),
    ),
    Case(
        "blocked on TELEGRAM", ("TELEGRAM", "9929"), ("SMS", "0000"),
        ((SWITCHED, "TELEGRAM"), (QUEUED, "SMS"), ("DELIVERED", "SMS")),
        ("planned", "rejected", "accepted", "delivered"), (1, 1),
    ),
    Case(
        "the bot's token is refused", ("TELEGRAM", "9903"), ("SMS", "0000"),
        ((SWITCHED, "TELEGRAM"), (QUEUED, "SMS"), ("DELIVERED", "SMS")),
        ("planned", "rejected", "accepted", "delivered"), (1, 1),
    ),
    Case(
        "delivered by the first", ("SMS", "0000"), ("TELEGRAM", "0000"),
        ((QUEUED, "SMS"), ("DELIVERED", "SMS")), ("planned", "accepted", "delivered"), (1, 0),
    ),
    Case(
        "taken by the first", ("TELEGRAM", "0000"), ("SMS", "0000"),
        ((QUEUED, "TELEGRAM"),), ("planned", "accepted"), (1, 0),
    ),
    Case(
        "both refuse", ("SMS", "9901"), ("TELEGRAM", "9901"),
        ((SWITCHED, "SMS"), ("FAILED", "TELEGRAM")), ("planned", "rejected", "rejected, no channel left"), (1, 1),
    ),
    Case(
        "the second fails by receipt", ("TELEGRAM", "9901"), ("SMS", "9918"),
        ((SWITCHED, "TELEGRAM"), (QUEUED, "SMS"), ("FAILED", "SMS")),
        ("planned", "rejected", "accepted", "failed receipt, no channel left"), (1, 1),
    ),
    Case(
        "nobody knows whether TELEGRAM took it", ("TELEGRAM", "9913"), ("SMS", "0000"),
        (("FAILED", "TELEGRAM"),), ("planned", "stayed unknown"), (1, 0),
    ),
    Case(
        "a failure for now is tried again, not switched", ("TELEGRAM", "9904"), ("SMS", "0000"),
        ((QUEUED, "TELEGRAM"),), ("planned", "failed for now", "retry", "accepted"), (2, 0),
    ),
)  # fmt: skip


class Sent(Struct, frozen=True):
    first: str
    second: str
    message_id: MessageId


def recipient(channel: str, ending: str) -> str:
    return phone(ending) if channel == "SMS" else chat(ending)


@pytest.fixture(scope="module")
async def sent(app: Tenant) -> dict[str, Sent]:
    """All cases at once, so that their waits run side by side."""
    found = {}
    for case in CASES:
        first, second = recipient(*case.first), recipient(*case.second)
        message_id = await app.send("The ferry is late", (case.first[0], first), (case.second[0], second))
        found[case.what] = Sent(first, second, message_id)
    return found


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
async def test_every_way_over_two_channels_is_told(app: Tenant, sent: dict[str, Sent], case: Case):
    way = sent[case.what]

    await app.reported(way.message_id, *(status for status, _ in case.told))

    told = [(report["status"], report["channel_identity"]["channel"]) for report in app.reports(way.message_id)]
    submits = tuple(len(app.installation.submissions(person)) for person in (way.first, way.second))
    assert told == list(case.told)
    assert submits == case.submits
    assert await app.story(way.message_id) == list(case.story)


async def test_retries_that_are_exhausted_go_on_with_the_next_channel(app: Tenant):
    number, chat_id = phone("9908"), chat()
    message_id = await app.send("The ferry is late", ("SMS", number), ("TELEGRAM", chat_id))
    await app.in_phase(message_id, "RETRYING")

    await app.hasten(message_id, seconds=3600)

    await app.reported(message_id, SWITCHED, QUEUED)
    assert app.reports(message_id)[0]["reason"]["code"] == "RATE_LIMITED"
    assert len(app.installation.submissions(number)) == 2
    assert await app.installation.phone("TELEGRAM", chat_id) == ["The ferry is late"]


async def test_after_its_ttl_a_message_is_not_failed_over(app: Tenant):
    number, chat_id = phone("9914"), chat()
    message_id = await app.send("The ferry is late", ("SMS", number), ("TELEGRAM", chat_id), ttl="60s")
    await app.reported(message_id, QUEUED)
    await app.hasten(message_id, seconds=60)
    [submission] = app.installation.submissions(number)

    await app.installation.simulator("POST", "/receipts", provider_id=submission["provider_id"], state="UNDELIV")

    await app.reported(message_id, QUEUED, "FAILED")
    assert app.reports(message_id)[-1]["reason"]["code"] == "MESSAGE_EXPIRED"
    assert app.installation.submissions(chat_id) == []


@pytest.fixture(scope="module")
async def impatient(installation: Installed) -> AsyncIterator[Tenant]:
    """An app that does not wait for a report for ever."""
    waits = {"enabled": True, "delivery_report_waiting_time": 10}
    async with tenant(installation, "impatient", delivery_report_based_fallback=waits) as made:
        yield made


async def test_silence_of_a_channel_switches_and_a_late_delivery_is_told(impatient: Tenant):
    number, chat_id = phone("9914"), chat()
    message_id = await impatient.send("The ferry is late", ("SMS", number), ("TELEGRAM", chat_id))
    await impatient.reported(message_id, QUEUED)

    await impatient.hasten(message_id, seconds=10)
    await impatient.reported(message_id, QUEUED, SWITCHED, QUEUED)
    assert impatient.reports(message_id)[1]["reason"]["code"] == "DELIVERY_REPORT_TIME_OUT"
    [submission] = impatient.installation.submissions(number)
    await impatient.installation.simulator("POST", "/receipts", provider_id=submission["provider_id"])

    await impatient.reported(message_id, QUEUED, SWITCHED, QUEUED, "DELIVERED")
    assert impatient.reports(message_id)[-1]["channel_identity"]["channel"] == "SMS"
    assert await impatient.installation.phone("TELEGRAM", chat_id) == ["The ferry is late"]


async def test_a_report_in_time_stops_the_timer(impatient: Tenant):
    number, chat_id = phone(), chat()
    message_id = await impatient.send("The ferry is late", ("SMS", number), ("TELEGRAM", chat_id))

    await impatient.reported(message_id, QUEUED, "DELIVERED")

    row = await impatient.row(message_id)
    assert (row["final"], row["next_due"], row["step_due_at"]) == (True, None, None)
    assert impatient.installation.submissions(chat_id) == []


async def test_an_unknown_outcome_waits_as_long_as_the_channel_has_and_then_fails(impatient: Tenant):
    number, chat_id = phone("9912"), chat()
    message_id = await impatient.send("The ferry is late", ("SMS", number), ("TELEGRAM", chat_id))
    await impatient.noted(message_id, "unknown")

    await impatient.hasten(message_id, seconds=10)

    await impatient.reported(message_id, "FAILED")
    assert impatient.installation.submissions(chat_id) == []
