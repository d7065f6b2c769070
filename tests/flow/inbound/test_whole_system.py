"""People answer, leave and come back, apps show that they type and ask whom they reach: through every service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from tests.flow.installed import Installed, new_number

from switchboard.testing import wait_until
from switchboard_simulator.journal import read_lines


def told(installation: Installed, key: str, about: str) -> list[Any]:
    """Payloads of the app's callbacks with this key that name `about`."""
    log = installation.home.callbacks_log
    lines = [line for line in read_lines(log) if about in line["body"]] if log.exists() else []
    bodies = [msgspec.json.decode(line["body"]) for line in lines if line["receiver"] == "app"]
    return [body[key] for body in bodies if key in body]


async def heard(installation: Installed, key: str, about: str, number: int = 1) -> list[Any]:
    """The same, once there are so many."""
    await wait_until(lambda: len(told(installation, key, about)) >= number, 20, f"{number} {key}")
    return told(installation, key, about)


@asynccontextmanager
async def consent(installation: Installed) -> AsyncIterator[None]:
    """Consent management in the primary mode, until the block ends."""
    setting = "UPDATE switchboard.apps SET settings = jsonb_set(settings, '{consent}', $2::text::jsonb) WHERE id = $1"
    async with installation.database() as connection:
        await connection.execute(setting, installation.running.app_id, '{"mode":"PRIMARY"}')
        try:
            yield
        finally:
            await connection.execute(setting, installation.running.app_id, "{}")


async def test_a_choice_is_answered_by_typing_it(installation: Installed) -> None:
    number = new_number()
    choices = [{"text_message": {"text": "Noon"}, "postback_data": "noon-1"}, {"text_message": {"text": "Six"}}]
    content = {"choice_message": {"text_message": {"text": "Which ferry?"}, "choices": choices}}
    message_id = await installation.send("", ("SMS", number), message=content, message_metadata="order-5521")
    await installation.reported(message_id, "QUEUED_ON_CHANNEL", "DELIVERED")

    await installation.say("SMS", number, "noon")

    [message] = await heard(installation, "message", number)
    response = {"message_id": message_id, "postback_data": "noon-1"}
    assert message["contact_message"]["choice_response_message"] == response
    assert message["metadata"] == "order-5521"


async def test_who_writes_stop_is_confirmed_and_not_written_to_until_start(installation: Installed) -> None:
    number = new_number()
    async with consent(installation):
        await installation.say("SMS", number, "Stop")
        [opt_out] = await heard(installation, "opt_out_notification", number)
        assert (opt_out["channel"], opt_out["status"]) == ("SMS", "OPT_OUT_SUCCEEDED")
        await wait_until(lambda: _has(installation, number, "Reply START"), 20, "the confirmation")

        blocked = await installation.send("Hello", ("SMS", number))
        await installation.reported(blocked, "FAILED")
        [report] = told(installation, "message_delivery_report", blocked)
        assert report["reason"]["code"] == "RECIPIENT_NOT_OPTED_IN"
        path = f"/apps/{installation.running.app_id}/consents"
        listed = (await installation.call("GET", f"{path}/OPT_OUT_ALL?page_size=50")).json["identities"]
        assert {"identity": number} in listed

        await installation.say("SMS", number, "START")
        await heard(installation, "opt_in_notification", number)
        sent = await installation.send("Hello again", ("SMS", number))
        await installation.reported(sent, "QUEUED_ON_CHANNEL", "DELIVERED")
        audit = (await installation.call("GET", f"{path}/identities/{number}")).json["audit_records"]
        assert [one["operation"] for one in audit] == ["OPERATION_INSERT", "OPERATION_DELETE"]
    assert "Hello" not in await installation.phone("SMS", number)


async def _has(installation: Installed, number: str, words: str) -> bool:
    return any(words in text for text in await installation.phone("SMS", number))


async def test_an_event_is_shown_where_the_channel_can_and_refused_where_it_cannot(installation: Installed) -> None:
    chat = new_number()[:9]
    await installation.say("TELEGRAM", chat, "Hello")
    await heard(installation, "message", chat)

    async def send(channel: str, identity: str) -> str:
        recipient = {"identified_by": {"channel_identities": [{"channel": channel, "identity": identity}]}}
        body = {"app_id": installation.running.app_id, "event": {"composing_event": {}}, "recipient": recipient}
        answer = await installation.call("POST", "/events:send", body)
        assert answer.status == 200, answer.content
        return str(answer.json["event_id"])

    [shown] = await heard(installation, "event_delivery_report", event_id := await send("TELEGRAM", chat))
    assert (shown["event_id"], shown["status"]) == (event_id, "DELIVERED")
    [refused] = await heard(installation, "event_delivery_report", await send("SMS", new_number()))
    assert (refused["status"], refused["reason"]["code"]) == ("FAILED", "BAD_REQUEST")
    assert refused["reason"]["description"] == "SMS does not support composing_event."
    stored = (await installation.call("GET", f"/events/{event_id}")).json
    assert stored["app_event"] == {"composing_event": {}}


async def test_a_capability_query_is_answered_for_every_channel(installation: Installed) -> None:
    chat, number = new_number()[:9], new_number()
    identities = [{"channel": "TELEGRAM", "identity": chat}, {"channel": "SMS", "identity": number}]
    answer = await installation.call(
        "POST", "/capability:query",
        {
            "app_id": installation.running.app_id, "request_id": f"ask-{number}",
            "recipient": {"identified_by": {"channel_identities": identities}},
        },
    )  # fmt: skip
    assert answer.status == 200, answer.content

    answers = await heard(installation, "capability_notification", f"ask-{number}", 2)
    told_by = {one["channel"]: one["capability_status"] for one in answers}
    assert told_by == {"TELEGRAM": "CAPABILITY_FULL", "SMS": "CAPABILITY_UNKNOWN"}
