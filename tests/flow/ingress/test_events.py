"""Events, capability queries and consent lists over HTTP (conversation-api 4.6 to 4.8)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.flow.ingress.conftest import PROJECT, Client, Topic, make_app

from switchboard.configuration import App, ConfigurationStore
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import MessageId, mint, time_of
from switchboard.records import CapabilityAsked, EventAccepted, ProcessingMode
from switchboard.rules.consent import ConsentList, ContentType
from switchboard.status import Status
from switchboard.store import consents, events
from switchboard.store.consents import Change, Origin
from switchboard.store.events import StoredEvent
from switchboard.store.pool import Pool

CHAT = ChannelIdentity(ChannelName("TELEGRAM"), "777000")
NOBODY = "01K098EK8NWJ47TAN9ZT24MNPZ"


def an_event(app: App, **fields: Any) -> dict[str, Any]:
    identities = [{"channel": "TELEGRAM", "identity": "777000"}]
    return {
        "app_id": app.id,
        "event": {"composing_event": {}},
        "recipient": {"identified_by": {"channel_identities": identities}},
    } | fields


async def store_event(pool: Pool, app: App, kind: str = "app_event", **fields: Any) -> MessageId:
    event_id = MessageId(mint())
    given: dict[str, Any] = {
        "kind": kind, "body": b'{"composing_event":{}}', "body_until": datetime.now(UTC) + timedelta(days=1),
        "state": "final", "status": Status.DELIVERED, "final_at": datetime.now(UTC),
        "direction": "TO_CONTACT" if kind == "app_event" else "TO_APP", "mode": ProcessingMode.DISPATCH,
    } | fields  # fmt: skip
    event = StoredEvent(
        id=event_id, project_id=app.project_id, app_id=app.id, accepted_at=time_of(event_id), identity=CHAT, **given
    )
    async with pool.acquire() as connection:
        await events.insert(connection, [event])
    return event_id


async def test_an_event_is_accepted_when_the_broker_has_it(call: Client, app: App, topic: Topic):
    reply = await call("POST", "/events:send", an_event(app, event_metadata="tag-1"))

    [(_, record, headers)] = await topic.read()
    assert isinstance(record, EventAccepted)
    assert reply.status == 200
    assert reply.json == {"event_id": record.event_id, "accepted_time": reply.json["accepted_time"]}
    assert (record.identities, record.metadata, record.mode) == ((CHAT,), "tag-1", ProcessingMode.DISPATCH)
    assert headers["event_id"].decode() == record.event_id


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"event": {}}, "event"),
        ({"event": {"composing_event": {}, "composing_end_event": {}}}, "event"),
        ({"event": {"comment_reply_event": {"text": ""}}}, "event.comment_reply_event.text"),
        ({"channel_priority_order": ["TELEGRAM", "SMS"]}, "channel_priority_order"),
        ({"channel_priority_order": ["RCS"]}, "channel_priority_order[0]"),
        ({"recipient": {"contact_id": NOBODY}}, "recipient.contact_id"),
        ({"recipient": {}}, "recipient"),
        ({"event_metadata": "x" * 1025}, "event_metadata"),
        ({"callback_url": "nowhere"}, "callback_url"),
        ({"callback_url": "https://quay.example/" + "x" * 722}, "callback_url"),
        ({"app_id": ""}, "app_id"),
    ],
)
async def test_a_bad_event_is_refused_by_field(call: Client, app: App, topic: Topic, fields, field):
    reply = await call("POST", "/events:send", an_event(app, **fields))

    assert reply.status == 400
    assert field in reply.fields
    assert await topic.read() == []


async def test_a_stored_event_is_shown_as_it_was_given(call: Client, app: App, pool: Pool):
    event_id = await store_event(pool, app)

    assert (await call("GET", f"/events/{event_id}")).json == {
        "id": event_id,
        "direction": "TO_CONTACT",
        "app_event": {"composing_event": {}},
        "conversation_id": "",
        "contact_id": "",
        "channel_identity": {"channel": "TELEGRAM", "identity": "777000", "app_id": ""},
        "accept_time": (await call("GET", f"/events/{event_id}")).json["accept_time"],
        "processing_mode": "DISPATCH",
    }


async def test_events_are_listed_in_pages_the_newest_first(call: Client, app: App, pool: Pool):
    ids = [await store_event(pool, app, "contact_event") for _ in range(3)]

    first = (await call("GET", "/events?page_size=2")).json
    second = (await call("GET", f"/events?page_size=2&page_token={first['next_page_token']}")).json

    assert [event["id"] for event in first["events"] + second["events"]] == sorted(ids, reverse=True)
    assert second["next_page_token"] == ""
    assert all(event["contact_event"] == {"composing_event": {}} for event in first["events"])


async def test_events_are_listed_by_conversation_and_contact(call: Client, app: App, pool: Pool):
    mine = await store_event(pool, app, conversation_id="c1", contact_id="p1", mode=ProcessingMode.CONVERSATION)
    await store_event(pool, app, conversation_id="c2", contact_id="p2", mode=ProcessingMode.CONVERSATION)

    for query in ("conversation_id=c1", "contact_id=p1"):
        found = (await call("GET", f"/events?{query}")).json["events"]
        assert [event["id"] for event in found] == [mine]


@pytest.mark.parametrize(
    "fields", [{"body": None}, {"body_until": datetime(2026, 1, 1, tzinfo=UTC)}, {"body_until": None}]
)
async def test_what_is_not_retained_is_not_readable(call: Client, app: App, pool: Pool, fields):
    event_id = await store_event(pool, app, **fields)

    assert (await call("GET", f"/events/{event_id}")).status == 404
    assert (await call("GET", "/events")).json["events"] == []


async def test_a_deleted_event_is_gone(call: Client, app: App, pool: Pool):
    event_id = await store_event(pool, app)

    assert (await call("DELETE", f"/events/{event_id}")).json == {}
    assert (await call("DELETE", f"/events/{event_id}")).status == 404
    assert await pool.fetchval("SELECT body FROM switchboard.events WHERE id = $1", event_id) is None


async def test_events_of_another_project_are_not_there(call: Client, app: App, pool: Pool):
    event_id = await store_event(pool, msgspec.structs.replace(app, project_id="another"))

    assert (await call("GET", f"/events/{event_id}")).status == 404


@pytest.mark.parametrize("request_id", ["mine-1", None])
async def test_a_capability_query_is_echoed_and_passed_on(call: Client, app: App, topic: Topic, request_id):
    recipient = an_event(app)["recipient"]
    body = {"app_id": app.id, "recipient": recipient} | ({"request_id": request_id} if request_id else {})
    reply = await call("POST", "/capability:query", body)

    [(_, record, _)] = await topic.read()
    assert isinstance(record, CapabilityAsked)
    assert reply.json == {"app_id": app.id, "recipient": recipient, "request_id": request_id or record.query_id}
    assert (record.identities, record.request_id) == ((CHAT,), request_id or record.query_id)


async def test_nobody_unknown_is_asked_about_in_conversation_mode(
    call: Client, store: ConfigurationStore, topic: Topic
):
    app = make_app(processing_mode=ProcessingMode.CONVERSATION)
    await store.insert_app(app)

    for recipient in ({"contact_id": NOBODY}, an_event(app)["recipient"]):
        reply = await call("POST", "/capability:query", {"app_id": app.id, "recipient": recipient})
        assert reply.status == 404
    assert await topic.read() == []


async def leave(pool: Pool, app: App, identity: str, *, leaves: bool = True) -> None:
    cause, at = mint(), datetime(2026, 3, 1, 12, tzinfo=UTC)
    change = Change(app.id, PROJECT, identity, ConsentList.OPT_OUT_ALL, leaves, Origin.ORIGIN_MO, cause, at)
    async with pool.acquire() as connection:
        await consents.change(connection, [change])


async def test_who_left_is_listed_in_pages(call: Client, app: App, pool: Pool):
    for identity in ("46701230003", "46701230001", "46701230002"):
        await leave(pool, app, identity)
    path = f"/apps/{app.id}/consents/OPT_OUT_ALL"

    first = (await call("GET", f"{path}?page_size=2")).json
    second = (await call("GET", f"{path}?page_size=2&page_token={first['next_page_token']}")).json

    listed = [one["identity"] for one in first["identities"] + second["identities"]]
    assert listed == ["46701230001", "46701230002", "46701230003"]
    assert second["next_page_token"] == ""
    assert (await call("GET", f"/apps/{app.id}/consents/OPT_OUT_MARKETING")).json["identities"] == []


@pytest.mark.parametrize("spelled", ["46701230001", "+46701230001", "%2B46701230001"])
async def test_every_change_of_consent_is_audited(call: Client, app: App, pool: Pool, spelled):
    await leave(pool, app, "46701230001")
    await leave(pool, app, "46701230001", leaves=False)

    reply = (await call("GET", f"/apps/{app.id}/consents/identities/{spelled}")).json

    assert reply["identity"] == {"identity": "46701230001"}
    assert sorted(one["operation"] for one in reply["audit_records"]) == ["OPERATION_DELETE", "OPERATION_INSERT"]
    assert reply["audit_records"][0] | {"operation": ""} == {
        "origin": "ORIGIN_MO", "operation": "", "list_type": "OPT_OUT_ALL", "project_id": PROJECT, "app_id": app.id,
        "datetime": "2026-03-01T12:00:00.000Z",
    }  # fmt: skip


async def test_an_unknown_list_is_a_bad_request_and_an_unknown_app_not_found(call: Client, app: App):
    assert (await call("GET", f"/apps/{app.id}/consents/OPT_OUT_SOME")).fields == ["list_type"]
    assert (await call("GET", f"/apps/{NOBODY}/consents/OPT_OUT_ALL")).status == 404
    assert (await call("GET", f"/apps/{NOBODY}/consents/identities/46701230001")).status == 404


async def test_the_kind_of_message_is_passed_on(call: Client, app: App, topic: Topic):
    identities = [{"channel": "SMS", "identity": "46701230001"}]
    body = {
        "app_id": app.id,
        "recipient": {"identified_by": {"channel_identities": identities}},
        "message": {"text_message": {"text": "The ferry leaves at noon."}},
        "message_content_type": "CONTENT_MARKETING",
    }
    assert (await call("POST", "/messages:send", body)).status == 200

    [message] = await topic.messages()
    assert message.content_type is ContentType.CONTENT_MARKETING
