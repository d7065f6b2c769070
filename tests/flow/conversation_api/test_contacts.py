"""Contacts over HTTP: made, found, changed, merged, deleted, and what is told of it."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from tests.flow.conversation_api.changes import ChangesTopic
from tests.flow.conversation_api.objects import CHAT, PHONE, STORED_PHONE, a_contact, a_conversation
from tests.flow.ingress.conftest import OTHER_PROJECT, Client, a_send

from switchboard.configuration import App
from switchboard.ids import mint
from switchboard.records import (
    ContactCreated,
    ContactDeleted,
    ContactMerged,
    ContactUpdated,
    ConversationDeleted,
    ConversationStarted,
)
from switchboard.store.pool import Pool


async def test_a_contact_is_made_read_and_told(call: Client, changes: ChangesTopic):
    made = await a_contact(call, display_name="Ida", language="SV", email="i@x", external_id="crm-1", metadata="m")

    assert made == {
        "id": made["id"], "channel_identities": [STORED_PHONE], "channel_priority": [], "display_name": "Ida",
        "email": "i@x", "external_id": "crm-1", "metadata": "m", "language": "SV",
    }  # fmt: skip
    assert (await call("GET", f"/contacts/{made['id']}")).json == made
    [told] = await changes.read()
    assert isinstance(told, ContactCreated)
    assert (told.contact.id, told.sequence, told.duplicates) == (made["id"], 1, ())


BAD_CONTACTS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["channel_identities"]),
    ({"channel_identities": []}, ["channel_identities"]),
    ({"channel_identities": [{"channel": "PIGEON", "identity": "1"}]}, ["channel_identities[0].channel"]),
    ({"channel_identities": [{"channel": "SMS", "identity": "abc"}]}, ["channel_identities[0].identity"]),
    ({"channel_identities": [{"channel": "SMS", "identity": " "}]}, ["channel_identities[0].identity"]),
    ({"channel_identities": [{"channel": "KAKAOTALK", "identity": "x" * 257}]}, ["channel_identities[0].identity"]),
    ({"channel_identities": [{"channel": "WHATSAPP", "identity": "1" * 257}]}, ["channel_identities[0].identity"]),
    ({"channel_identities": [PHONE], "external_id": "x" * 513}, ["external_id"]),
    ({"channel_identities": [PHONE, PHONE]}, ["channel_identities[1]"]),
    ({"channel_identities": [{"channel": "MESSENGER", "identity": "9"}]}, ["channel_identities[0].app_id"]),
    ({"channel_identities": [PHONE], "metadata": "x" * 1025}, ["metadata"]),
    ({"channel_identities": [PHONE], "language": "XX"}, ["language"]),
    ({"channel_identities": [PHONE], "channel_priority": ["SMS", "SMS"]}, ["channel_priority[1]"]),
    ({"channel_identities": [PHONE], "channel_priority": ["PIGEON"]}, ["channel_priority[0]"]),
    ({"channel_identities": "SMS"}, ["channel_identities"]),
]


@pytest.mark.parametrize(("body", "fields"), BAD_CONTACTS)
async def test_a_wrong_contact_is_refused_by_field(call: Client, pool: Pool, body: Any, fields: list[str]):
    refused = await call("POST", "/contacts", body)

    assert (refused.status, refused.fields) == (400, fields)
    assert await pool.fetchval("SELECT count(*) FROM switchboard.outbox") == 0


async def test_contacts_are_listed_in_pages_and_found_by_what_they_have(call: Client):
    made = [await a_contact(call, {"channel": "SMS", "identity": f"4670123000{n}"}) for n in range(3)]
    named = await a_contact(call, CHAT, external_id="crm-9")

    first = (await call("GET", "/contacts?page_size=2")).json
    second = (await call("GET", f"/contacts?page_size=2&page_token={first['next_page_token']}")).json
    assert first["contacts"] + second["contacts"] == [*made, named]
    assert second["next_page_token"] == ""
    assert (await call("GET", "/contacts?external_id=crm-9")).json["contacts"] == [named]
    # A raw "+" arrives as a space.
    assert (await call("GET", "/contacts?channel=SMS&identity=+46701230001")).json["contacts"] == [made[1]]
    assert (await call("GET", "/contacts?channel=SMS&identity=nobody")).json["contacts"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("external_id=a&channel=SMS&identity=1", "external_id"),
        ("channel=SMS", "identity"),
        ("identity=1", "channel"),
        ("channel=PIGEON&identity=1", "channel"),
        ("page_size=-1", "page_size"),
        ("page_token=abc", "page_token"),
    ],
)
async def test_contradictory_filters_are_refused(call: Client, query: str, field: str):
    refused = await call("GET", f"/contacts?{query}")

    assert (refused.status, refused.fields) == (400, [field])


async def test_a_change_touches_what_it_names_and_is_told_once(call: Client, changes: ChangesTopic):
    made = await a_contact(call, display_name="Ida", email="i@x")
    path = f"/contacts/{made['id']}"

    named = (await call("PATCH", path, {"display_name": "Ida B."})).json
    masked = (await call("PATCH", f"{path}?update_mask=email,channel_priority", {"channel_priority": ["SMS"]})).json
    same = (await call("PATCH", path, {})).json

    assert named == made | {"display_name": "Ida B."}
    assert masked == named | {"email": "", "channel_priority": ["SMS"]}
    assert same == masked
    told = await changes.read()
    assert [(type(change), change.sequence) for change in told] == [
        (ContactCreated, 1), (ContactUpdated, 2), (ContactUpdated, 3),
    ]  # fmt: skip
    refused = await call("PATCH", f"{path}?update_mask=channel_identities", {})
    assert (refused.status, refused.fields) == (400, ["channel_identities"])


async def test_a_shared_identity_is_told_and_listed_as_a_conflict(call: Client, changes: ChangesTopic):
    first, second = await a_contact(call), await a_contact(call, PHONE, CHAT)

    both = [first["id"], second["id"]]
    told = await changes.read()
    assert isinstance(told[1], ContactCreated)
    assert [shared.contact_ids for shared in told[1].duplicates] == [tuple(both)]
    found = (await call("GET", "/contacts:identityConflicts")).json
    assert found == {
        "conflicts": [{"identity": "46701230001", "channels": ["SMS"], "contact_ids": both}], "next_page_token": "",
    }  # fmt: skip


async def test_a_deleted_contact_takes_its_conversations_along(
    call: Client, app: App, pool: Pool, changes: ChangesTopic
):
    contact = await a_contact(call)
    conversation = await a_conversation(call, app, contact)

    assert (await call("DELETE", f"/contacts/{contact['id']}")).json == {}

    assert (await call("GET", f"/contacts/{contact['id']}")).status == 404
    assert (await call("GET", f"/conversations/{conversation['id']}")).status == 404
    assert (await call("DELETE", f"/contacts/{contact['id']}")).status == 404
    told = await changes.read()
    assert [type(change) for change in told] == [
        ContactCreated, ConversationStarted, ConversationDeleted, ContactDeleted,
    ]  # fmt: skip
    assert await pool.fetchval("SELECT count(*) FROM switchboard.contact_identities") == 0


async def test_a_merge_keeps_the_destination_and_moves_what_it_lacks(
    call: Client, app: App, pool: Pool, changes: ChangesTopic
):
    destination = await a_contact(call, PHONE, display_name="Ida", channel_priority=["SMS"])
    source = await a_contact(call, PHONE, CHAT, email="i@x")
    kept = await a_conversation(call, app, destination)
    gone = await a_conversation(call, app, source)
    injected = {
        "accept_time": datetime.now(UTC).isoformat(), "direction": "TO_APP", "contact_id": source["id"],
        "channel_identity": CHAT, "contact_message": {"text_message": {"text": "Hi"}},
    }  # fmt: skip
    assert (await call("POST", f"/conversations/{gone['id']}:inject-message", injected)).json == {}
    wish = {"source_id": source["id"], "strategy": "MERGE"}

    merged = await call("POST", f"/contacts/{destination['id']}:merge", wish)

    assert merged.json == destination | {
        "channel_identities": [STORED_PHONE, CHAT | {"app_id": ""}], "channel_priority": ["SMS", "TELEGRAM"],
        "email": "i@x",
    }  # fmt: skip
    assert (await call("GET", f"/contacts/{source['id']}")).status == 404
    assert (await call("GET", f"/conversations/{gone['id']}")).status == 404
    [moved] = (await call("GET", f"/messages?conversation_id={kept['id']}")).json["messages"]
    assert (moved["contact_id"], moved["contact_message"]["text_message"]["text"]) == (destination["id"], "Hi")
    assert (await call("GET", f"/conversations/{kept['id']}")).json["last_received"] == moved["accept_time"]
    told = await changes.read()
    assert [type(change) for change in told][-2:] == [ConversationDeleted, ContactMerged]
    assert isinstance(told[-1], ContactMerged)
    assert (told[-1].preserved.id, told[-1].deleted.id) == (destination["id"], source["id"])


async def test_a_merge_that_cannot_be_is_refused(call: Client):
    contact = await a_contact(call)
    path = f"/contacts/{contact['id']}:merge"

    assert (await call("POST", path, {"source_id": contact["id"], "strategy": "MERGE"})).fields == ["source_id"]
    assert (await call("POST", path, {"source_id": mint(), "strategy": "SPLIT"})).fields == ["strategy"]
    assert (await call("POST", path, {})).fields == ["source_id"]
    assert (await call("POST", path, {"source_id": mint()})).status == 404


async def test_contacts_of_another_project_are_not_there(call: Client):
    contact = await a_contact(call)
    other = Client(call.api, OTHER_PROJECT)
    theirs = {"authorization": "Basic b3RoZXI6YS1sb25nLXJhbmRvbS1hY2Nlc3Mtc2VjcmV0"}

    assert (await other("GET", f"/contacts/{contact['id']}", headers=theirs)).status == 404
    assert (await other("GET", "/contacts", headers=theirs)).json["contacts"] == []


@pytest.mark.parametrize("channel", ["SMS", "MESSENGER"])
async def test_a_profile_is_refused_for_channels_that_are_not_here(call: Client, app: App, channel: str):
    refused = await call(
        "POST",
        "/contacts:getChannelProfile",
        {"app_id": app.id, "recipient": {"contact_id": mint()}, "channel": channel},
    )

    assert (refused.status, refused.fields) == (400, ["channel"])


async def test_the_longest_texts_a_contact_may_have_are_found_again(call: Client):
    longest = "".join(chr(0x1F300 + number) for number in range(512))
    made = await a_contact(call, {"channel": "KAKAOTALK", "identity": longest[:256]}, external_id=longest)

    for query in (f"external_id={quote(longest)}", f"channel=KAKAOTALK&identity={quote(longest[:256])}"):
        assert (await call("GET", f"/contacts?{query}")).json["contacts"] == [made]


async def test_a_contact_id_too_long_to_be_one_is_refused_before_it_is_sent(call: Client, app: App):
    for path in ("/messages:send", "/messages:explain", "/capability:query"):
        refused = await call("POST", path, a_send(app, recipient={"contact_id": "x" * 129}))
        assert refused.fields == ["recipient.contact_id"]


@pytest.mark.parametrize("channel", ["WHATSAPP", "PIGEON"])
async def test_a_step_on_a_channel_the_app_has_not_is_refused_for_a_contact_too(call: Client, app: App, channel: str):
    contact = await a_contact(call)
    steps = [{"channel": channel, "success": "SUBMITTED"}]

    refused = await call(
        "POST", "/messages:send", a_send(app, recipient={"contact_id": contact["id"]}, channel_steps=steps)
    )

    assert (refused.status, refused.fields) == (400, ["channel_steps[0].channel"])


LISTS = {
    "/messages": ("app_id", "channel_identity", "contact_id", "conversation_id", "page_token"),
    "/contacts": ("external_id",),
    "/conversations": ("app_id", "contact_id"),
    "/conversations:recent": ("app_id",),
    "/events": ("conversation_id", "contact_id"),
    "/apps/{app}/callbacks": ("webhook_id", "message_id"),
}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in LISTS.items() for name in names])
async def test_a_filter_that_no_row_can_match_is_refused_by_name(call: Client, app: App, path: str, name: str):
    refused = await call("GET", f"{path.format(app=app.id)}?{name}=a%00b")

    assert (refused.status, refused.fields) == (400, [name])


@pytest.mark.parametrize(
    "path", ["/contacts/{}", "/conversations/{}", "/messages/{}", "/events/{}", "/webhooks/{}", "/apps/{}"]
)
async def test_an_id_that_no_row_can_have_is_nobodys(call: Client, path: str):
    for method, body in (("GET", None), ("PATCH", {"metadata": "m"}), ("DELETE", None)):
        answer = await call(method, path.format("a%00b"), body)
        assert answer.status == 404
