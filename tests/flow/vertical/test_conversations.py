"""Conversations through the whole system: one person, both directions, and what the app is told."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.flow.installed import Installed, new_number

from switchboard.testing import wait_until
from switchboard_simulator.journal import read_lines


@pytest.fixture
async def talking(installation: Installed) -> AsyncIterator[Installed]:
    """The development app, keeping conversations for the length of a test."""
    path = f"/apps/{installation.running.app_id}"
    view = {"processing_mode": "CONVERSATION", "conversation_metadata_report_view": "FULL"}
    assert (await installation.call("PATCH", path, view)).status == 200
    yield installation
    back = {"processing_mode": "DISPATCH", "conversation_metadata_report_view": "NONE"}
    assert (await installation.call("PATCH", path, back)).status == 200


def told(installation: Installed, key: str, word: str) -> list[Any]:
    """The bodies with this payload key that mention a word."""
    log = installation.home.callbacks_log
    lines = read_lines(log) if log.exists() else ()
    bodies = [msgspec.json.decode(line["body"]) for line in lines if word in line["body"]]
    return [body for body in bodies if key in body]


async def test_a_person_has_one_contact_and_one_conversation_in_both_directions(talking: Installed):
    number = new_number()
    first = await talking.send("The ferry leaves at noon.", ("SMS", number), correlation_id="corr-1")
    await talking.reported(first, "QUEUED_ON_CHANNEL", "DELIVERED")
    report = talking.callbacks(first)[-1]["message_delivery_report"]

    await talking.say("SMS", number, "Thank you")
    await wait_until(lambda: told(talking, "message", number), 20, "the answer is told")

    [answer] = told(talking, "message", number)
    assert answer["correlation_id"] == "corr-1"
    assert answer["message"]["contact_id"] == report["contact_id"]
    assert answer["message"]["conversation_id"] == report["conversation_id"]
    contact = (await talking.call("GET", f"/contacts/{report['contact_id']}")).json
    assert (contact["display_name"], contact["channel_priority"]) == ("Unknown", ["SMS"])
    listed = (await talking.call("GET", f"/messages?conversation_id={report['conversation_id']}")).json["messages"]
    assert [message["direction"] for message in listed] == ["TO_APP", "TO_CONTACT"]
    second = await talking.call(
        "POST",
        "/messages:send",
        {
            "app_id": talking.running.app_id,
            "recipient": {"contact_id": contact["id"]},
            "message": {"text_message": {"text": "You are welcome."}},
        },
    )
    await talking.reported(second.json["message_id"], "QUEUED_ON_CHANNEL", "DELIVERED")


async def test_a_stopped_conversation_is_followed_by_another(talking: Installed):
    number = new_number()
    await talking.say("SMS", number, "Hello")
    await wait_until(lambda: told(talking, "message", number), 20, "the message is told")
    [first] = told(talking, "message", number)
    conversation_id = first["message"]["conversation_id"]

    assert (await talking.call("POST", f"/conversations/{conversation_id}:stop")).json == {}
    await talking.say("SMS", number, "Hello again")
    await wait_until(lambda: len(told(talking, "message", number)) == 2, 20, "the second message is told")

    second = told(talking, "message", number)[1]["message"]
    assert second["conversation_id"] != conversation_id
    assert second["contact_id"] == first["message"]["contact_id"]
    for key in ("conversation_start_notification", "conversation_stop_notification"):
        await wait_until(lambda key=key: told(talking, key, conversation_id), 20, key)
