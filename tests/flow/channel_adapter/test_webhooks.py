"""What providers post is answered when it is durable, and only then; the same thing twice has one id."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from switchboard.channel.contract import (
    ChannelEventFact,
    EventFact,
    InboundFact,
    OptInFact,
    OptOutFact,
    ReceiptFact,
    UnsupportedFact,
    WebhookAnswer,
)
from switchboard.channel.manifest import AccountOwner
from switchboard.channel.outcome import Accepted
from switchboard.content import (
    ChoiceResponseMessage,
    ContactEvent,
    ContactMessage,
    ContactMessageEvent,
    Empty,
    Reaction,
    ReactionAction,
    TextMessage,
)
from switchboard.http.client import HttpAnswer, HttpClient
from switchboard.http.pooled import PooledHttpClient
from switchboard.ids import mint
from switchboard.records import (
    ChannelEvent,
    EventReceived,
    OptInReceived,
    OptOutReceived,
    UnsupportedReceived,
)
from switchboard.runtime import start_server
from switchboard.status import Status
from switchboard.testing import wait_until
from switchboard_channel_adapter.webhooks import BODY_LIMIT_BYTES
from switchboard_channels.telegram.manifest import MANIFEST

from .conftest import ScriptedChannel, Start, World

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEXT = InboundFact("update:1", "777000", ContactMessage(text_message=TextMessage("Is it late?")), AT)

Post = Callable[..., Awaitable[HttpAnswer]]


@pytest.fixture
def channel() -> ScriptedChannel:
    return ScriptedChannel()


@pytest.fixture
async def post(world: World, start: Start, channel: ScriptedChannel) -> AsyncIterator[Post]:
    """Post to the service's webhook over HTTP, by default as the app's provider."""
    runtime = await start(channel)
    server = await start_server(runtime.health_app(), "127.0.0.1", 0)
    client = PooledHttpClient()

    async def post(path: str = "", secret: str = "1:token", body: bytes = b"{}") -> HttpAnswer:
        url = f"http://127.0.0.1:{server.port}{path or f'/channels/TELEGRAM/{world.app_id}'}"
        return await client.request("POST", url, body=body, headers={"x-secret": secret})

    yield post
    await client.close()
    await server.stop()


async def test_a_message_is_published_before_the_answer(world: World, post: Post, channel: ScriptedChannel) -> None:
    channel.answer = WebhookAnswer((TEXT,))
    answer = await post()

    (received,) = await world.received()
    assert answer.status == 200
    assert (received.app_id, received.identity.identity, received.provider_id) == (world.app_id, "777000", "update:1")
    assert received.message == TEXT.message
    assert received.event_at == AT


async def test_a_message_that_is_told_again_keeps_its_id(world: World, post: Post, channel: ScriptedChannel) -> None:
    channel.answer = WebhookAnswer((TEXT,))
    await asyncio.gather(*(post() for _ in range(5)))

    assert len({received.message_id for received in await world.received()}) == 1


async def test_a_request_that_is_not_the_provider_s_is_refused(
    world: World, post: Post, channel: ScriptedChannel
) -> None:
    channel.answer = WebhookAnswer((TEXT,))
    answer = await post(secret="guessed")

    assert answer.status == 401
    assert await world.received() == []


@pytest.mark.parametrize("path", [f"/channels/TELEGRAM/{mint()}", "/channels/NOWHERE/x", "/channels/TELEGRAM"])
async def test_an_unknown_channel_or_app_is_not_found(post: Post, path: str) -> None:
    assert (await post(path)).status == 404


async def test_a_body_over_the_limit_is_refused(post: Post) -> None:
    assert (await post(body=b"x" * (BODY_LIMIT_BYTES + 1))).status == 413


async def test_what_cannot_be_made_durable_is_not_acknowledged(
    world: World, post: Post, channel: ScriptedChannel
) -> None:
    channel.answer = WebhookAnswer((TEXT,))
    await world.producer.stop()

    assert (await post()).status == 503


async def test_the_answer_is_the_channel_s(post: Post, channel: ScriptedChannel) -> None:
    channel.answer = WebhookAnswer((), 202, b"<ok/>", "text/xml")
    answer = await post()

    assert (answer.status, answer.body) == (202, b"<ok/>")
    assert answer.headers["content-type"].startswith("text/xml")


async def test_facts_that_are_no_messages_are_told_with_one_id(
    world: World, post: Post, channel: ScriptedChannel
) -> None:
    channel.answer = WebhookAnswer(
        (
            OptOutFact("update:2", "777000", AT),
            OptInFact("update:3", "777000", AT),
            UnsupportedFact("update:4", "{}", AT),
            EventFact("update:5", "777000", AT, contact_event=ContactEvent(composing_event=Empty())),
            ChannelEventFact("update:6", "QUALITY_RATING_CHANGED", AT, {"quality_rating": "MEDIUM"}),
        )
    )
    answers = [(await post()).status for _ in range(2)]

    told = await world.received()
    assert answers == [200, 200]
    kinds = [OptOutReceived, OptInReceived, UnsupportedReceived, EventReceived, ChannelEvent]
    assert Counter(type(record) for record in told) == dict.fromkeys(kinds, 2)
    assert len({msgspec.json.encode(record) for record in told}) == 5
    assert {record.app_id for record in told} == {world.app_id}
    assert {record.identity.identity for record in told if isinstance(record, OptOutReceived)} == {"777000"}


async def test_a_reaction_names_our_message(world: World, post: Post, channel: ScriptedChannel) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.recorder.record(world.ended(order, Accepted(("777000:42",))))
    reaction = ContactMessageEvent(reaction_event=Reaction("👍", ReactionAction.REACT, "42"))
    channel.answer = WebhookAnswer(
        (EventFact("update:7", "777000", AT, contact_message_event=reaction, about="777000:42"),)
    )
    await post()

    (received,) = await world.received()
    assert received.contact_message_event.reaction_event.message_id == order.message_id


async def test_facts_of_no_app_are_kept_raw(world: World) -> None:
    facts = world.facts(replace(MANIFEST, owner=AccountOwner.OPERATOR))
    await facts.take(world.account, [OptOutFact("1", "46701230001", AT, sender_id="46709999999")])

    kept = await world.pool.fetch("SELECT kind FROM switchboard.kept_facts")
    assert [row["kind"] for row in kept] == ["OptOutFact"]
    assert await world.received() == []


async def test_a_receipt_is_told(world: World, post: Post, channel: ScriptedChannel) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.recorder.record(world.ended(order, Accepted(("p1",))))
    channel.answer = WebhookAnswer((ReceiptFact(("p1",), Status.DELIVERED, AT),))
    await post()

    assert [receipt.status for receipt in await world.receipts_told(order)] == [Status.DELIVERED]


async def test_a_reply_names_our_message(world: World, post: Post, channel: ScriptedChannel) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.recorder.record(world.ended(order, Accepted(("777000:42",))))
    reply = InboundFact("update:4", "777000", TEXT.message, AT, answers="777000:42")
    channel.answer = WebhookAnswer((reply,))
    await post()

    (received,) = await world.received()
    assert received.message.reply_to.message_id == order.message_id


async def test_a_pressed_button_brings_its_long_postback_back(
    world: World, post: Post, channel: ScriptedChannel
) -> None:
    await world.pool.execute(
        "INSERT INTO switchboard.postbacks VALUES ($1, 'm:1', 'a long one', switchboard.now())", world.account
    )
    pressed = ContactMessage(choice_response_message=ChoiceResponseMessage("m", "m:1"))
    channel.answer = WebhookAnswer((InboundFact("update:5", "777000", pressed, AT, postback_key="m:1"),))
    await post()

    (received,) = await world.received()
    assert received.message.choice_response_message == ChoiceResponseMessage("m", "a long one")


async def test_follow_ups_are_made_after_the_answer(post: Post, channel: ScriptedChannel) -> None:
    called: list[Any] = []

    async def follow_up(http: HttpClient) -> None:
        called.append(http)

    channel.answer = WebhookAnswer((), follow_ups=(follow_up,))
    answer = await post()
    await wait_until(lambda: called)

    assert answer.status == 200
