"""Stored messages over HTTP: who sees what, in which order, page by page."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.flow.ingress.conftest import OTHER_PROJECT, PROJECT, Client, make_app

from switchboard.configuration import App, ConfigurationStore
from switchboard.configuration.app import Enabled
from switchboard.content import AppMessage, ContactMessage, ReplyTo, TextMessage
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import MessageId, ProjectId, derive_at
from switchboard.reason import Reason, ReasonCode
from switchboard.records import MessageReceived, ProcessingMode
from switchboard.rules.facts import start
from switchboard.rules.route import Route
from switchboard.store import inbound, messages
from switchboard.store.inbound import Inbound, InboundEnvelope
from switchboard.store.messages import Envelope, Message
from switchboard.store.pool import Pool
from switchboard.store.writes import Writes

SMS = ChannelName("SMS")
NOW = datetime.now(UTC).replace(microsecond=120_000)
DISPATCH = "messages_source=DISPATCH_SOURCE"
EMPTY = Route((), empty_because=Reason(ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT, "none"))


async def stored(
    pool: Pool,
    app: App,
    seconds: int = 0,
    *,
    identity: str = "46701230001",
    project_id: ProjectId = PROJECT,
    mode: ProcessingMode = ProcessingMode.DISPATCH,
    kept: timedelta | None = timedelta(days=7),
) -> MessageId:
    """A message to a contact that failed: accepted `seconds` after NOW, its content kept for so long."""
    at = NOW + timedelta(seconds=seconds)
    message_id = MessageId(derive_at(at, seconds, app.id))
    message = Message(
        id=message_id,
        project_id=project_id,
        app_id=app.id,
        mode=mode,
        accepted_at=at,
        high_priority=False,
        envelope=Envelope(identities=(ChannelIdentity(SMS, identity),), metadata=f"order-{seconds}"),
        route=EMPTY,
        progress=start(EMPTY, at, None, at).progress,
        body=msgspec.json.encode(AppMessage(text_message=TextMessage(f"Ferry {seconds}"))),
        body_until=None if kept is None else at + kept,
    )
    writes = Writes()
    messages.insert(writes, [message])
    async with pool.acquire() as connection:
        await writes.execute(connection)
    return message_id


async def received(pool: Pool, app: App, seconds: int = 0) -> MessageId:
    """A message from a contact."""
    at = NOW + timedelta(seconds=seconds)
    record = MessageReceived(
        message_id=MessageId(derive_at(at, "inbound", seconds)),
        project_id=PROJECT,
        app_id=app.id,
        identity=ChannelIdentity(SMS, "46701230001"),
        message=ContactMessage(text_message=TextMessage("Thank you"), reply_to=ReplyTo("x")),
        provider_id="p",
        accepted_at=at,
        event_at=at,
    )
    item = Inbound(
        record, ProcessingMode.DISPATCH, InboundEnvelope("46701239999", '{"operator":"24001"}'), at + timedelta(7)
    )
    async with pool.acquire() as connection:
        await inbound.insert(connection, [item], at)
    return record.message_id


async def test_a_message_to_a_contact_is_read(call: Client, app: App, pool: Pool) -> None:
    message_id = await stored(pool, app)
    answer = await call("GET", f"/messages/{message_id}?{DISPATCH}")

    assert answer.status == 200
    assert answer.json == {
        "id": message_id,
        "direction": "TO_CONTACT",
        "app_message": {"text_message": {"text": "Ferry 0"}},
        "channel_identity": {"channel": "SMS", "identity": "46701230001", "app_id": ""},
        "conversation_id": "",
        "contact_id": "",
        "metadata": "order-0",
        "accept_time": f"{NOW:%Y-%m-%dT%H:%M:%S}.120Z",
        "injected": False,
        "sender_id": "",
        "processing_mode": "DISPATCH",
        "message_status": None,
    }


async def test_a_message_from_a_contact_is_read(call: Client, app: App, pool: Pool) -> None:
    message_id = await received(pool, app)
    shown = (await call("GET", f"/messages/{message_id}?{DISPATCH}")).json

    assert shown["direction"] == "TO_APP"
    assert shown["contact_message"] == {"text_message": {"text": "Thank you"}, "reply_to": {"message_id": "x"}}
    assert shown["sender_id"] == "46701239999"
    assert shown["metadata"] == '{"operator":"24001"}'
    assert "app_message" not in shown


async def test_the_status_is_shown_for_apps_that_keep_it(call: Client, pool: Pool, store: ConfigurationStore) -> None:
    app = make_app(persist_message_status=Enabled(True))
    await store.insert_app(app)
    message_id = await stored(pool, app)
    status = (await call("GET", f"/messages/{message_id}?{DISPATCH}")).json["message_status"]

    assert status["status"] == "FAILED"
    assert status["reason"]["code"] == "NO_CHANNEL_IDENTITY_FOR_CONTACT"
    assert status["event_time"].endswith("Z")


async def test_what_retention_does_not_keep_is_not_there(call: Client, app: App, pool: Pool) -> None:
    unkept = await stored(pool, app, 1, kept=None)
    expired = await stored(pool, app, 2, kept=timedelta(seconds=-60))
    purged = await stored(pool, app, 3)
    await pool.execute("UPDATE switchboard.messages SET body = NULL WHERE id = $1", purged)

    for message_id in (unkept, expired, purged):
        for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"metadata": "m"})):
            assert (await call(method, f"/messages/{message_id}?{DISPATCH}", body)).status == 404
    assert (await call("GET", f"/messages?{DISPATCH}")).json == {"messages": [], "next_page_token": ""}


async def test_a_message_is_found_in_its_source_only(call: Client, app: App, pool: Pool) -> None:
    dispatch = await stored(pool, app, 1)
    conversation = await stored(pool, app, 2, mode=ProcessingMode.CONVERSATION)

    assert (await call("GET", f"/messages/{dispatch}")).status == 404
    assert (await call("GET", f"/messages/{conversation}")).status == 200
    assert (await call("GET", f"/messages/{conversation}?{DISPATCH}")).status == 404
    assert (await call("GET", f"/messages/{conversation}?messages_source=ELSEWHERE")).fields == ["messages_source"]


async def test_messages_of_other_projects_are_not_there(call: Client, pool: Pool, store: ConfigurationStore) -> None:
    others = make_app(project_id=OTHER_PROJECT)
    await store.insert_app(others)
    message_id = await stored(pool, others, project_id=OTHER_PROJECT)

    assert (await call("GET", f"/messages/{message_id}?{DISPATCH}")).status == 404
    assert (await call("GET", f"/messages?{DISPATCH}")).json["messages"] == []
    assert (await call("GET", f"/messages?{DISPATCH}&app_id={others.id}")).status == 404
    assert (await call("GET", f"/messages/nothing?{DISPATCH}")).status == 404


async def test_metadata_is_changed(call: Client, app: App, pool: Pool) -> None:
    for message_id in (await stored(pool, app), await received(pool, app)):
        path = f"/messages/{message_id}?{DISPATCH}"
        before = (await call("GET", path)).json
        answer = await call("PATCH", path, {"metadata": "new"})

        assert answer.status == 200
        assert answer.json == before | {"metadata": "new"}
        assert (await call("GET", path)).json == answer.json
    assert (await call("PATCH", path, {"metadata": "x" * 1025})).fields == ["metadata"]
    assert (await call("PATCH", path, {})).fields == ["metadata"]


async def test_a_deleted_message_is_gone(call: Client, app: App, pool: Pool) -> None:
    message_id = await stored(pool, app)
    deleted = await call("DELETE", f"/messages/{message_id}?{DISPATCH}")

    assert (deleted.status, deleted.json) == (200, {})
    assert (await call("GET", f"/messages/{message_id}?{DISPATCH}")).status == 404
    assert (await call("DELETE", f"/messages/{message_id}?{DISPATCH}")).status == 404
    assert await pool.fetchval("SELECT body FROM switchboard.messages WHERE id = $1", message_id) is None


async def test_deleting_what_is_under_way_keeps_what_it_needs(call: Client, app: App, pool: Pool) -> None:
    message_id = await stored(pool, app)
    await pool.execute(
        "UPDATE switchboard.messages SET final = false, next_due = accepted_at WHERE id = $1", message_id
    )
    assert (await call("DELETE", f"/messages/{message_id}?{DISPATCH}")).status == 200

    assert (await call("GET", f"/messages/{message_id}?{DISPATCH}")).status == 404
    row = await pool.fetchrow("SELECT body, body_until FROM switchboard.messages WHERE id = $1", message_id)
    assert row is not None
    assert row["body"] is not None
    assert row["body_until"] is None


async def pages(call: Client, query: str) -> list[list[str]]:
    found = []
    token = ""
    while True:
        answer = (await call("GET", f"/messages?{query}&page_token={token}")).json
        found.append([message["id"] for message in answer["messages"]])
        token = answer["next_page_token"]
        if not token:
            return found
        assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


async def test_messages_are_listed_page_by_page_the_newest_first(
    call: Client, app: App, pool: Pool, store: ConfigurationStore
) -> None:
    second = make_app()
    await store.insert_app(second)
    ids = [await stored(pool, app if seconds % 2 else second, seconds) for seconds in range(7)]
    newest_first = ids[::-1]

    assert await pages(call, f"{DISPATCH}&page_size=3") == [newest_first[:3], newest_first[3:6], newest_first[6:]]
    assert await pages(call, f"{DISPATCH}&page_size=7") == [newest_first]
    assert await pages(call, f"{DISPATCH}&page_size=0") == [newest_first]
    assert await pages(call, f"{DISPATCH}&page_size=100000&app_id={app.id}") == [newest_first[1::2]]


FILTERS: list[tuple[str, set[str]]] = [
    ("", {"a", "b", "c"}),
    ("&only_recipient_originated=True", {"c"}),
    ("&only_recipient_originated=False", {"a", "b", "c"}),
    ("&direction=TO_CONTACT", {"a", "b"}),
    ("&direction=TO_APP", {"c"}),
    ("&channel=SMS", {"a", "b", "c"}),
    ("&channel=RCS", set()),
    ("&channel_identity=46701230001", {"a", "c"}),
    ("&channel_identity=+46701230001", {"a", "c"}),
    ("&channel_identity=%2B46701230002", {"b"}),
    (f"&start_time={NOW + timedelta(seconds=5):%Y-%m-%dT%H:%M:%SZ}", {"b", "c"}),
    (f"&end_time={NOW + timedelta(seconds=5):%Y-%m-%dT%H:%M:%S}+00:00", {"a"}),
    (f"&start_time={NOW + timedelta(seconds=5):%Y-%m-%dT%H:%M:%SZ}&end_time=2999-01-01T00:00:00Z", {"b", "c"}),
]


async def test_filters_leave_what_they_name(call: Client, app: App, pool: Pool) -> None:
    names = {
        await stored(pool, app, 0): "a",
        await stored(pool, app, 10, identity="46701230002"): "b",
        await received(pool, app, 20): "c",
    }
    for query, expected in FILTERS:
        answer = await call("GET", f"/messages?{DISPATCH}{query}")
        assert {names[message["id"]] for message in answer.json["messages"]} == expected, query


async def test_metadata_can_be_left_out_of_a_list(call: Client, app: App, pool: Pool) -> None:
    await stored(pool, app)
    answer = await call("GET", f"/messages?{DISPATCH}&view=WITHOUT_METADATA")

    assert answer.json["messages"][0]["metadata"] == ""


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (f"{DISPATCH}&contact_id=x", "contact_id"),
        (f"{DISPATCH}&conversation_id=x", "conversation_id"),
        ("only_recipient_originated=true", "only_recipient_originated"),
        ("only_recipient_originated=maybe", "only_recipient_originated"),
        ("messages_source=X", "messages_source"),
        ("view=X", "view"),
        ("direction=X", "direction"),
        ("channel=X", "channel"),
        ("page_size=-1", "page_size"),
        ("page_size=x", "page_size"),
        ("page_token=abc", "page_token"),
        ("page_token=%C3%A9", "page_token"),
        ("start_time=yesterday", "start_time"),
        ("start_time=2025-01-02T00:00:00Z&end_time=2025-01-01T00:00:00Z", "start_time"),
        ("start_time=2025-01-01T00:00:00Z&end_time=2025-01-01T00:00:00Z", "start_time"),
    ],
)
async def test_wrong_filters_are_refused_by_name(call: Client, query: str, field: str) -> None:
    assert (await call("GET", f"/messages?{query}")).fields == [field]


async def test_a_page_token_is_good_for_its_own_query_only(call: Client, app: App, pool: Pool) -> None:
    for seconds in range(3):
        await stored(pool, app, seconds)
    token = (await call("GET", f"/messages?{DISPATCH}&page_size=1")).json["next_page_token"]

    assert (await call("GET", f"/messages?{DISPATCH}&page_size=2&page_token={token}")).status == 200
    answer: Any = await call("GET", f"/messages?{DISPATCH}&channel=SMS&page_token={token}")
    assert answer.fields == ["page_token"]


async def test_contacts_and_conversations_filter_the_other_source(call: Client) -> None:
    answer = await call("GET", "/messages?contact_id=x&conversation_id=y")

    assert answer.json == {"messages": [], "next_page_token": ""}
