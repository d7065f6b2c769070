"""Conversations over HTTP: started, listed, changed, stopped, deleted, and what is put into them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.flow.conversation_api.changes import ChangesTopic
from tests.flow.conversation_api.objects import CHAT, PHONE, a_contact, a_conversation
from tests.flow.ingress.conftest import Client

from switchboard.configuration import App
from switchboard.ids import mint
from switchboard.records import ConversationDeleted, ConversationStarted, ConversationStopped
from switchboard.store.pool import Pool


def ago(**given: float) -> str:
    return (datetime.now(UTC) - timedelta(**given)).isoformat(timespec="milliseconds")


async def inject(call: Client, conversation: Any, text: str, at: str, **fields: Any) -> Any:
    body = {
        "accept_time": at, "direction": "TO_APP", "contact_id": conversation["contact_id"],
        "channel_identity": PHONE, "contact_message": {"text_message": {"text": text}}, **fields,
    }  # fmt: skip
    return await call("POST", f"/conversations/{conversation['id']}:inject-message", body)


async def test_a_conversation_is_started_read_and_told(call: Client, app: App, changes: ChangesTopic):
    contact = await a_contact(call)

    made = await a_conversation(call, app, contact, metadata_json={"a": 1.50}, correlation_id="c-1", id="ignored")

    assert made == {
        "id": made["id"], "app_id": app.id, "contact_id": contact["id"], "last_received": "1970-01-01T00:00:00Z",
        "active_channel": "CHANNEL_UNSPECIFIED", "active": True, "metadata": "", "metadata_json": {"a": 1.5},
        "correlation_id": "c-1",
    }  # fmt: skip
    assert (await call("GET", f"/conversations/{made['id']}")).json == made
    told = await changes.read()
    assert isinstance(told[-1], ConversationStarted)


async def test_one_that_is_active_stops_when_another_starts(call: Client, app: App, changes: ChangesTopic):
    contact = await a_contact(call)
    first = await a_conversation(call, app, contact)

    second = await a_conversation(call, app, contact)

    assert not (await call("GET", f"/conversations/{first['id']}")).json["active"]
    assert (await call("GET", f"/conversations/{second['id']}")).json["active"]
    told = await changes.read()
    assert [type(change) for change in told][1:] == [ConversationStarted, ConversationStopped, ConversationStarted]
    again = await call("PATCH", f"/conversations/{first['id']}", {"active": True})
    assert again.json["active"]
    assert not (await call("GET", f"/conversations/{second['id']}")).json["active"]


async def test_of_conversations_started_at_once_one_is_active(call: Client, app: App, pool: Pool):
    contact = await a_contact(call)

    started = await asyncio.gather(*(a_conversation(call, app, contact) for _ in range(5)))
    again = [call("PATCH", f"/conversations/{one['id']}", {"active": True}) for one in started]
    answers = await asyncio.gather(*again)

    assert {answer.status for answer in answers} == {200}
    assert await pool.fetchval("SELECT count(*) FROM switchboard.conversations WHERE active") == 1


async def test_a_conversation_needs_an_app_that_has_them_and_a_contact(call: Client, app: App, dispatching: App):
    contact = await a_contact(call)

    async def refused(**fields: Any) -> Any:
        return await call("POST", "/conversations", {"app_id": app.id, "contact_id": contact["id"], **fields})

    assert (await refused(app_id=dispatching.id)).fields == ["app_id"]
    assert (await refused(app_id=mint())).status == 404
    assert (await refused(contact_id=mint())).status == 404
    assert (await refused(contact_id="")).fields == ["contact_id"]
    assert (await refused(metadata="x" * 1025)).fields == ["metadata"]
    assert (await refused(metadata_json={"a": "x" * 2048})).fields == ["metadata_json"]
    assert (await refused(metadata_json=[1])).fields == ["metadata_json"]
    assert (await refused(active_channel="PIGEON")).fields == ["active_channel"]


async def test_conversations_are_listed_by_app_or_contact(call: Client, app: App):
    people = [await a_contact(call, {"channel": "SMS", "identity": f"4670123000{n}"}) for n in range(3)]
    made = [await a_conversation(call, app, person) for person in people]
    await call("POST", f"/conversations/{made[0]['id']}:stop")

    first = (await call("GET", f"/conversations?app_id={app.id}&page_size=2")).json
    rest = (await call("GET", f"/conversations?app_id={app.id}&page_size=2&page_token={first['next_page_token']}")).json
    assert [one["id"] for one in first["conversations"] + rest["conversations"]] == [one["id"] for one in made[::-1]]
    assert (first["total_size"], rest["next_page_token"]) == (3, "")
    of_one = (await call("GET", f"/conversations?contact_id={people[1]['id']}")).json
    assert [one["id"] for one in of_one["conversations"]] == [made[1]["id"]]
    active = (await call("GET", f"/conversations?app_id={app.id}&only_active=True")).json
    assert active["total_size"] == 2
    assert (await call("GET", "/conversations")).fields == ["app_id"]
    assert (await call("GET", f"/conversations?app_id={app.id}&only_active=maybe")).fields == ["only_active"]


async def test_recent_ones_come_in_the_order_of_their_last_messages(call: Client, app: App):
    people = [await a_contact(call, {"channel": "SMS", "identity": f"4670123000{n}"}) for n in range(3)]
    old, young, silent = [await a_conversation(call, app, person) for person in people]
    await inject(call, old, "first", ago(days=5))
    await inject(call, young, "second", ago(days=2))
    await inject(call, old, "third", ago(days=3))

    path = f"/conversations:recent?app_id={app.id}"
    found = (await call("GET", f"{path}&page_size=1")).json
    rest = (await call("GET", f"{path}&page_size=1&page_token={found['next_page_token']}")).json
    ascending = (await call("GET", f"{path}&order=ASC")).json

    shown = [
        (one["conversation"]["id"], one["last_message"]["contact_message"]["text_message"]["text"])
        for one in found["conversations"] + rest["conversations"]
    ]
    assert shown == [(young["id"], "second"), (old["id"], "third")]
    assert (found["total_size"], rest["next_page_token"]) == (2, "")
    assert [one["conversation"]["id"] for one in ascending["conversations"]] == [old["id"], young["id"]]
    assert silent["id"] not in str(ascending)
    assert (await call("GET", "/conversations:recent")).fields == ["app_id"]
    assert (await call("GET", f"{path}&order=UP")).fields == ["order"]


async def test_metadata_is_replaced_or_patched(call: Client, app: App):
    made = await a_conversation(call, app, await a_contact(call), metadata_json={"a": 1, "b": 2})
    path = f"/conversations/{made['id']}"

    patched = await call(
        "PATCH", f"{path}?metadata_update_strategy=MERGE_PATCH", {"metadata_json": {"a": None, "c": 3}}
    )
    other = await call("PATCH", path, {"correlation_id": "c-2"})
    replaced = await call("PATCH", f"{path}?update_mask=metadata_json", {"metadata_json": {"d": 4}})

    assert patched.json["metadata_json"] == {"b": 2, "c": 3}
    assert (other.json["metadata_json"], other.json["correlation_id"]) == ({"b": 2, "c": 3}, "c-2")
    assert replaced.json == other.json | {"metadata_json": {"d": 4}}
    assert (await call("PATCH", f"{path}?metadata_update_strategy=X", {})).fields == ["metadata_update_strategy"]
    assert (await call("PATCH", f"/conversations/{mint()}", {"metadata": "m"})).status == 404


@pytest.mark.parametrize(
    ("query", "given", "left"),
    [
        ("update_mask=metadata_json.b", {"b": 5, "ownName": 6}, {"b": 5, "ownName": 1}),
        ("update_mask=metadataJson.ownName", {"ownName": 6}, {"b": 2, "ownName": 6}),
        ("update_mask=metadata_json.ownName", {}, {"b": 2}),
        ("update_mask=metadata_json.b&metadata_update_strategy=MERGE_PATCH", {"b": None, "c": 3}, {"ownName": 1}),
        ("update_mask=metadata_json&metadata_update_strategy=MERGE_PATCH", {"c": 3}, {"b": 2, "ownName": 1, "c": 3}),
        ("metadata_update_strategy=MERGE_PATCH", {"b": {"d": 4}}, {"b": {"d": 4}, "ownName": 1}),
        ("metadata_update_strategy=REPLACE", {"d": 4}, {"d": 4}),
    ],
)
async def test_a_mask_may_name_single_keys_of_the_metadata(call: Client, app: App, query: str, given: Any, left: Any):
    made = await a_conversation(call, app, await a_contact(call), metadata_json={"b": 2, "ownName": 1})

    changed = await call("PATCH", f"/conversations/{made['id']}?{query}", {"metadata_json": given})

    assert changed.json == made | {"metadata_json": left}


async def test_a_stop_is_told_once(call: Client, app: App, changes: ChangesTopic):
    made = await a_conversation(call, app, await a_contact(call))

    for _ in range(2):
        assert (await call("POST", f"/conversations/{made['id']}:stop")).json == {}

    told = [change for change in await changes.read() if isinstance(change, ConversationStopped)]
    assert [(change.conversation.active, change.sequence) for change in told] == [(False, 2)]
    assert (await call("POST", f"/conversations/{mint()}:stop")).status == 404


async def test_a_deleted_conversation_takes_its_messages_along(
    call: Client, app: App, pool: Pool, changes: ChangesTopic
):
    made = await a_conversation(call, app, await a_contact(call))
    await inject(call, made, "canary", ago(days=1))

    assert (await call("DELETE", f"/conversations/{made['id']}")).json == {}

    assert (await call("GET", f"/messages?app_id={app.id}")).json["messages"] == []
    assert await pool.fetchval("SELECT count(*) FROM switchboard.messages WHERE body IS NOT NULL") == 0
    assert isinstance((await changes.read())[-1], ConversationDeleted)


async def test_injected_messages_are_read_in_the_order_of_their_times(call: Client, app: App):
    made = await a_conversation(call, app, await a_contact(call))
    for text, days in (("b", 2), ("a", 1), ("c", 3)):
        await inject(call, made, text, ago(days=days), metadata=f"m-{text}", sender_id="46799")
    sent = {"direction": "TO_CONTACT", "contact_message": None, "app_message": {"text_message": {"text": "d"}}}
    await inject(call, made, "", ago(days=4), **sent)

    first = (await call("GET", f"/messages?conversation_id={made['id']}&page_size=3")).json
    path = f"/messages?conversation_id={made['id']}&page_size=3&page_token={first['next_page_token']}"
    second = (await call("GET", path)).json

    assert [one["contact_message"]["text_message"]["text"] for one in first["messages"]] == ["a", "b", "c"]
    [last] = second["messages"]
    assert (last["app_message"], last["direction"]) == ({"text_message": {"text": "d"}}, "TO_CONTACT")
    shown = first["messages"][0]
    assert (shown["injected"], shown["metadata"], shown["sender_id"]) == (True, "m-a", "46799")
    assert (shown["conversation_id"], shown["contact_id"]) == (made["id"], made["contact_id"])
    assert (await call("GET", f"/messages/{shown['id']}")).json == shown
    assert (await call("GET", f"/messages/{shown['id']}?messages_source=DISPATCH_SOURCE")).status == 404
    assert (await call("GET", f"/conversations/{made['id']}")).json["last_received"] == shown["accept_time"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"accept_time": "tomorrow"}, ["accept_time"]),
        ({"accept_time": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, ["accept_time"]),
        ({"accept_time": (datetime.now(UTC) - timedelta(days=31)).isoformat()}, ["accept_time"]),
        ({"contact_id": "somebody else"}, ["contact_id"]),
        ({"contact_message": None}, ["app_message", "direction"]),
        ({"contact_message": {}}, ["contact_message"]),
        (
            {"contact_message": {"text_message": {"text": "a"}, "fallback_message": {"raw_message": "b"}}},
            ["contact_message"],
        ),
        ({"direction": "TO_CONTACT"}, ["direction"]),
        ({"direction": "SIDEWAYS"}, ["direction"]),
        ({"channel_identity": {"channel": "SMS", "identity": ""}}, ["channel_identity.identity"]),
        ({"channel_identity": {"channel": "KAKAOTALK", "identity": "x" * 257}}, ["channel_identity.identity"]),
        ({"sender_id": "a\x00b"}, ["sender_id"]),
        ({"processing_mode": "DISPATCH"}, ["processing_mode"]),
    ],
)
async def test_a_wrong_injection_is_refused_by_field(call: Client, app: App, fields: Any, named: list[str]):
    made = await a_conversation(call, app, await a_contact(call))

    refused = await inject(call, made, "x", ago(days=1), **fields)

    assert (refused.status, refused.fields) == (400, named)


async def test_the_window_of_injections_is_a_setting(serve: Any, app: App):
    call = await serve(injection_days=0)
    made = await a_conversation(call, app, await a_contact(call))

    assert (await inject(call, made, "x", "2021-01-01T00:00:00Z")).json == {}


async def test_an_event_is_injected_and_read(call: Client, app: App):
    made = await a_conversation(call, app, await a_contact(call), active_channel="SMS")
    at = ago(days=1)

    answer = await call(
        "POST",
        f"/conversations/{made['id']}:inject-event",
        {"app_event": {"composing_event": {}}, "accept_time": at, "channel_identity": PHONE},
    )

    assert answer.json["accepted_time"] == at.replace("+00:00", "Z")
    [event] = (await call("GET", f"/events?conversation_id={made['id']}")).json["events"]
    assert (event["id"], event["app_event"]) == (answer.json["event_id"], {"composing_event": {}})
    refused = await call("POST", f"/conversations/{made['id']}:inject-event", {"app_event": {}, "accept_time": at})
    assert refused.status == 400


async def test_the_last_message_of_each_recipient_is_found(call: Client, app: App):
    ida, bo = await a_contact(call), await a_contact(call, CHAT)
    first, second = await a_conversation(call, app, ida), await a_conversation(call, app, bo)
    for conversation, text, days in ((first, "1", 5), (first, "2", 3), (second, "3", 4)):
        await inject(call, conversation, text, ago(days=days))

    async def last(**fields: Any) -> Any:
        given = {"app_id": app.id, "messages_source": "CONVERSATION_SOURCE", "page_token": None, **fields}
        return await call("POST", "/messages:fetch-last-message", given)

    found = (await last(contact_ids=[ida["id"], bo["id"]], page_size=1)).json
    rest = (await last(contact_ids=[ida["id"], bo["id"]], page_size=1, page_token=found["next_page_token"])).json
    texts = [one["contact_message"]["text_message"]["text"] for one in found["messages"] + rest["messages"]]
    assert (texts, rest["next_page_token"]) == (["2", "3"], "")
    by_identity = (await last(channel_identities=["+46701230001"])).json["messages"]
    assert [one["contact_message"]["text_message"]["text"] for one in by_identity] == ["2"]
    assert (await last()).fields == ["channel_identities"]
    assert (await last(contact_ids=["a"], channel_identities=["b"])).fields == ["channel_identities"]
    assert (await last(contact_ids=["a"], messages_source="DISPATCH_SOURCE")).fields == ["contact_ids"]


async def test_a_dispatch_app_has_no_contacts_to_list_by(call: Client, dispatching: App):
    for name in ("contact_id", "conversation_id"):
        refused = await call("GET", f"/messages?app_id={dispatching.id}&{name}={mint()}")
        assert (refused.status, refused.fields) == (400, [name])
