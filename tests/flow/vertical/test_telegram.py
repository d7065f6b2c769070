"""One TELEGRAM message: every answer of the Bot API, from the HTTP call to the last callback; no receipt follows."""

import pytest
from msgspec import Struct
from tests.flow.vertical.tenant import Tenant, chat

from switchboard.ids import MessageId

REJECTED = "rejected, no channel left"
TAKEN = ("QUEUED_ON_CHANNEL",)


class Case(Struct, frozen=True):
    """What a chat does, and what has to follow."""

    what: str
    ending: str
    told: tuple[str, ...]
    story: tuple[str, ...]
    reason: str = ""
    submits: int = 1
    shown: bool = True


CASES = (
    Case("taken", "0000", TAKEN, ("planned", "accepted")),
    Case("no such chat", "9901", ("FAILED",), ("planned", REJECTED), "RECIPIENT_INVALID_CHANNEL_IDENTITY", shown=False),
    Case("never started the bot", "9902", ("FAILED",), ("planned", REJECTED), "RECIPIENT_NOT_OPTED_IN", shown=False),
    Case("the token is refused", "9903", ("FAILED",), ("planned", REJECTED), "CHANNEL_BAD_CONFIGURATION", shown=False),
    Case("500, then taken", "9904", TAKEN, ("planned", "failed for now", "retry", "accepted"), submits=2),
    Case("429, then taken", "9906", TAKEN, ("planned", "throttled", "retry", "accepted"), submits=2),
    Case("502, then taken", "9907", TAKEN, ("planned", "failed for now", "retry", "accepted"), submits=2),
    Case("no answer, not taken", "9909", ("FAILED",), ("planned", "stayed unknown"), "UNKNOWN", shown=False),
    Case("no answer, taken", "9910", ("FAILED",), ("planned", "stayed unknown"), "UNKNOWN"),
    Case("connection cut, not taken", "9912", ("FAILED",), ("planned", "stayed unknown"), "UNKNOWN", shown=False),
    Case("connection cut, taken", "9913", ("FAILED",), ("planned", "stayed unknown"), "UNKNOWN"),
    Case("taken and never shown", "9914", TAKEN, ("planned", "accepted"), shown=False),
    Case("answered after two seconds", "9927", TAKEN, ("planned", "accepted")),
    Case("answered with a proxy's page", "9928", ("FAILED",), ("planned", "stayed unknown"), "UNKNOWN"),
    Case("blocked", "9929", ("FAILED",), ("planned", REJECTED), "RECIPIENT_NOT_OPTED_IN", shown=False),
    Case("the account is gone", "9940", ("FAILED",), ("planned", REJECTED), "RECIPIENT_NOT_REACHABLE", shown=False),
)  # fmt: skip


class Sent(Struct, frozen=True):
    chat: str
    message_id: MessageId


@pytest.fixture(scope="module")
async def sent(app: Tenant) -> dict[str, Sent]:
    """All cases at once, so that their waits run side by side. Good ones lie between bad ones: the gate stays open."""
    chats = {case.what: chat(case.ending) for case in CASES}
    return {
        what: Sent(chat_id, await app.send(f"About {what}", ("TELEGRAM", chat_id), message_metadata=what))
        for what, chat_id in chats.items()
    }


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
async def test_every_end_of_a_chat_message_is_told(app: Tenant, sent: dict[str, Sent], case: Case):
    chat_id, message_id = sent[case.what].chat, sent[case.what].message_id

    await app.reported(message_id, *case.told)

    [report] = app.reports(message_id)
    submissions = app.installation.submissions(chat_id)
    assert report.get("reason", {}).get("code", "") == case.reason
    assert report["metadata"] == case.what
    assert await app.story(message_id) == list(case.story)
    assert len(submissions) == await app.submitted(message_id) == case.submits
    assert await app.installation.phone("TELEGRAM", chat_id) == [f"About {case.what}"] * case.shown
    assert (await app.row(message_id))["final"]


async def test_a_chat_that_is_throttled_for_the_whole_retry_duration_is_given_up(app: Tenant):
    chat_id = chat("9908")
    message_id = await app.send("Hello", ("TELEGRAM", chat_id))
    await app.noted(message_id, "throttled")

    await app.until(lambda: len(app.installation.submissions(chat_id)) >= 2, "it is tried again")
    await app.in_phase(message_id, "RETRYING")
    await app.hasten(message_id, seconds=3600)

    await app.reported(message_id, "FAILED")
    assert app.reports(message_id)[0]["reason"]["code"] == "RATE_LIMITED"
    assert (await app.row(message_id))["tries"] == 0


async def test_a_person_who_blocks_the_bot_is_told_apart_and_heard_again_after(app: Tenant):
    chat_id = chat()
    await app.say("TELEGRAM", chat_id, "Hello bot")
    await app.installation.simulator("PUT", f"/phones/TELEGRAM/{chat_id}", blocked=True, to=app.token.partition(":")[0])

    blocked = await app.send("Are you there?", ("TELEGRAM", chat_id))
    await app.reported(blocked, "FAILED")
    await app.installation.simulator(
        "PUT", f"/phones/TELEGRAM/{chat_id}", blocked=False, to=app.token.partition(":")[0]
    )
    again = await app.send("Welcome back", ("TELEGRAM", chat_id))

    await app.reported(again, "QUEUED_ON_CHANNEL")
    assert app.reports(blocked)[0]["reason"]["code"] == "RECIPIENT_NOT_OPTED_IN"
    assert await app.installation.phone("TELEGRAM", chat_id) == ["Welcome back"]
