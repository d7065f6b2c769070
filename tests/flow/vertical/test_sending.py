"""Sending: once however often it is asked for, in order, the urgent first; and what is refused at the door."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from tests.flow.installed import Installed
from tests.flow.vertical.tenant import Tenant, phone, tenant

from switchboard.configuration import AccessKey
from switchboard.secrets import KeyRing
from switchboard.testing import wait_until
from switchboard_ingress.auth import TokenMint

REPORTED = ("QUEUED_ON_CHANNEL", "DELIVERED")


async def test_a_send_repeated_with_its_key_is_one_message(app: Tenant):
    number = phone()
    key = {"idempotency-key": f"key-{number}"}

    ids = await asyncio.gather(*(app.send("Hello", ("SMS", number), headers=key) for _ in range(5)))
    again = await app.send("Hello", ("SMS", number), headers=key)
    await app.reported(again, *REPORTED)

    assert set(ids) == {again}
    assert len(app.installation.submissions(number)) == 1
    assert len(await app.story(again)) == 3


async def test_messages_to_one_person_arrive_in_the_order_they_were_sent(app: Tenant):
    numbers = [phone() for _ in range(5)]
    written = [f"Number {place}" for place in range(8)]

    async def send_all(number: str) -> None:
        ids = [await app.send(text, ("SMS", number)) for text in written]
        await asyncio.gather(*(app.reported(message_id, *REPORTED) for message_id in ids))

    await asyncio.gather(*(send_all(number) for number in numbers))

    for number in numbers:
        assert [line["text"] for line in app.installation.submissions(number)] == written
        assert await app.installation.phone("SMS", number) == written


async def test_in_a_line_the_urgent_go_first(installation: Installed):
    async with tenant(installation, "paced", rate=2) as paced:
        numbers = [phone() for _ in range(5)]
        ids = [await paced.send("Whenever", ("SMS", number)) for number in numbers]
        urgent = phone()
        ids.append(await paced.send("Now", ("SMS", urgent), queue="HIGH_PRIORITY"))
        await asyncio.gather(*(paced.reported(message_id, *REPORTED) for message_id in ids))

        log = {number: installation.submissions(number)[0]["at"] for number in (*numbers, urgent)}
        # Only one person's messages are promised an order; these five enter the line as their partitions bring them.
        assert log[urgent] < max(log[number] for number in numbers)


async def test_what_waits_when_its_app_is_deleted_ends(installation: Installed):
    async with tenant(installation, "deleted", rate=1) as doomed:
        numbers = [phone() for _ in range(6)]
        ids = [await doomed.send("Hello", ("SMS", number)) for number in numbers]
        deleted = await installation.call("DELETE", f"/apps/{doomed.app_id}")
        assert deleted.status == 200

        async def all_ended() -> bool:
            rows = [await doomed.row(message_id) for message_id in ids]
            return all(row["final"] for row in rows)

        await wait_until(all_ended, 30, "every message ended")
        statuses = [(await doomed.row(message_id))["status"] for message_id in ids]
        assert set(statuses) <= {"DELIVERED", "FAILED"}
        assert sum(len(installation.submissions(number)) for number in numbers) == statuses.count("DELIVERED")


def request(app: Tenant, **fields: Any) -> dict[str, Any]:
    """A send that is right but for `fields`."""
    return {
        "app_id": app.app_id,
        "recipient": {"identified_by": {"channel_identities": [{"channel": "SMS", "identity": phone()}]}},
        "message": {"text_message": {"text": "Hello"}},
        **fields,
    }


def to(channel: str, identity: str) -> dict[str, Any]:
    return {"identified_by": {"channel_identities": [{"channel": channel, "identity": identity}]}}


@pytest.mark.parametrize(
    ("what", "fields", "status", "named"),
    [
        ("a channel the app does not have", {"recipient": to("WHATSAPP", "46701")}, 400, "WHATSAPP"),
        ("a channel nobody has", {"recipient": to("PIGEON", "p1")}, 400, "unknown channel"),
        ("no number", {"recipient": to("SMS", "not a number")}, 400, "identity"),
        ("a message without content", {"message": {}}, 400, "message"),
        ("a ttl that is none", {"ttl": "soon"}, 400, "ttl"),
        ("metadata that is too long", {"message_metadata": "x" * 1025}, 400, "message_metadata"),
        ("a wrong type", {"message": {"text_message": {"text": 7}}}, 400, "message.text_message.text"),
        ("an unknown app", {"app_id": "01EB37HMH1M6SV18BSNS3G135H"}, 404, ""),
    ],
)
async def test_a_wrong_send_is_refused_by_name_and_goes_nowhere(
    app: Tenant, what: str, fields: dict[str, Any], status: int, named: str
):
    answer = await app.installation.call("POST", "/messages:send", request(app, **fields))

    assert answer.status == status, answer.content
    assert named in answer.content.decode()
    assert answer.json["error"]["code"] == status


async def test_another_project_is_forbidden(app: Tenant):
    url = f"{app.installation.running.base_url}/v1/projects/0b3f7f0c-0000-4000-8000-000000000000/messages:send"

    answer = await app.installation.post(url, request(app), basic=True)

    assert (answer.status, answer.json["error"]["status"]) == (403, "PERMISSION_DENIED")


async def test_a_token_that_expired_is_refused_as_expired(app: Tenant):
    running = app.installation.running
    keys = KeyRing.parse(os.environ.get("SWITCHBOARD_SECRET_KEYS") or app.installation.home.secret_keys())
    url = f"{running.base_url}/v1/projects/{running.project_id}/messages:send"
    key = AccessKey(running.key_id, running.project_id, b"")
    answers = []
    for age_seconds in (60, 3601):
        mint = TokenMint(keys, partial(_ago, age_seconds), 3600)
        answers.append(
            await app.installation.post(url, request(app), headers={"authorization": f"Bearer {mint.make(key)}"})
        )

    assert [answer.status for answer in answers] == [200, 401]
    assert "expired" in answers[1].headers["www-authenticate"]


def _ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


@pytest.mark.parametrize("token", ["", "Bearer nonsense", "Basic bm9ib2R5Om5vdGhpbmc="])
async def test_without_good_credentials_nothing_is_sent(app: Tenant, token: str):
    running = app.installation.running
    url = f"{running.base_url}/v1/projects/{running.project_id}/messages:send"

    answer = await app.installation.post(url, request(app), headers={"authorization": token} if token else {})

    assert (answer.status, answer.json["error"]["status"]) == (401, "UNAUTHENTICATED")
