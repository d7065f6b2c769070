"""Signatures, tokens, overriding URLs, dismissed and broken callbacks, what is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from standardwebhooks import Webhook as Standard
from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Answer, Got, Receiver

from switchboard.bus import Outgoing
from switchboard.configuration import ClientCredentials, TargetType
from switchboard.configuration.types import TokenRequestType
from switchboard.ids import MessageId, mint
from switchboard.store import timeline
from switchboard.testing import wait_until
from switchboard.timeline import Kind
from switchboard.topics import CALLBACKS


async def test_an_overriding_url_is_signed_with_the_secret_of_the_app(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    await world.run()

    await world.publish(callback(None, target=receiver.url("/mine?x=1"), app_id=webhook.app_id))
    await wait_until(lambda: world.states(state="delivered"))

    (got,) = receiver.got
    assert got.path == "/mine?x=1"
    assert Standard(b"override-secret").verify(got.body, got.headers)
    (row,) = await world.rows()
    assert row["endpoint"] == f"endpoint:{webhook.app_id}:http:127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("kind", TokenRequestType)
async def test_a_token_is_fetched_once_and_sent_and_fetched_again_when_refused(
    world: World, receiver: Receiver, kind: TokenRequestType
) -> None:
    credentials = ClientCredentials("ferry", "s3cret/+", receiver.url("/token"), "hooks", None, kind)
    webhook = world.apps.add(receiver.url(), client_credentials=credentials)
    tokens = iter(["first", "second"])
    valid = ["first"]

    def behave(got: Got) -> Answer:
        if got.path == "/token":
            return Answer(body=msgspec.json.encode({"access_token": next(tokens), "expires_in": 3600}))
        return Answer(200 if got.headers["authorization"] == f"Bearer {valid[0]}" else 401)

    receiver.behave = behave
    await world.run()
    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="delivered"))
    await world.publish(callback(webhook))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 2 FROM switchboard.callback_events"))

    asked = [got for got in receiver.got if got.path == "/token"]
    assert len(asked) == 1
    assert b"grant_type=client_credentials&scope=hooks" in asked[0].body
    assert (b"client_secret=s3cret%2F%2B" in asked[0].body) is (kind is TokenRequestType.FORM)
    assert ("authorization" in asked[0].headers) is (kind is TokenRequestType.BASIC)

    valid[0] = "second"
    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="waiting"))
    await world.advance_to_next_try()
    await wait_until(
        lambda: world.pool.fetchval("SELECT bool_and(state = 'delivered') FROM switchboard.callback_events")
    )
    assert len([got for got in receiver.got if got.path == "/token"]) == 2


async def test_without_a_token_the_try_has_failed(world: World, receiver: Receiver) -> None:
    credentials = ClientCredentials("ferry", "s", receiver.url("/token"))
    webhook = world.apps.add(receiver.url(), client_credentials=credentials)
    receiver.behave = lambda got: Answer(500 if got.path == "/token" else 200)
    await world.run()

    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="waiting"))

    (row,) = await world.rows()
    assert (row["attempts"], row["last_status"], row["last_error"]) == (1, 0, "no token: its server answered 500")
    assert [got.path for got in receiver.got] == ["/token"]


async def test_a_url_that_leads_inside_is_refused_and_told_to_its_owner(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add("http://169.254.169.254/latest/meta-data")
    await world.run()

    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="waiting"))

    assert (await world.rows())[0]["last_error"] == "the URL leads to an address that is not allowed"
    assert await world.pool.fetchval("SELECT last_error FROM switchboard.callback_endpoints") == (
        "the URL leads to an address that is not allowed"
    )


async def test_what_nobody_wants_any_more_is_dismissed(world: World, receiver: Receiver) -> None:
    gone = world.apps.add(receiver.url("/gone"))
    quiet = world.apps.add(receiver.url("/quiet"), target_type=TargetType.DISMISS)
    del world.apps.apps[gone.app_id]
    await world.run()

    await world.publish(callback(gone), callback(quiet))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 2 FROM switchboard.callback_events"))

    assert await world.states() == ["dismissed", "dismissed"]
    assert receiver.got == []


async def test_a_callback_for_a_webhook_that_was_not_heard_of_yet_is_delivered(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url())
    world.apps.missed.add(webhook.app_id)
    await world.run()

    await world.publish(callback(webhook))

    await wait_until(lambda: world.states(state="delivered"))


async def test_a_webhook_that_moves_gets_what_waits_at_its_new_target(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url("/old"))
    receiver.behave = lambda got: Answer(503 if got.path == "/old" else 200)
    await world.run()
    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="waiting"))

    world.apps.hooks[webhook.app_id] = (msgspec.structs.replace(webhook, target=receiver.url("/new")),)
    await world.advance_to_next_try()
    await wait_until(lambda: world.states(state="delivered"))

    assert [got.path for got in receiver.got] == ["/old", "/new"]
    assert receiver.got[0].body == receiver.got[1].body


async def test_a_record_seen_again_is_not_posted_again(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    await world.run()
    order, last = callback(webhook), callback(webhook)
    await world.publish(order)
    await wait_until(lambda: world.states(state="delivered"))

    await world.publish(order, last)
    await wait_until(lambda: world.states(id=last.callback_id, state="delivered"))
    await world.publish(order)

    assert [got.event_id for got in receiver.got] == [order.callback_id, last.callback_id]


async def test_a_body_is_kept_as_long_as_the_app_keeps_messages(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=3)
    running = await world.run()
    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="delivered"))

    (row,) = await world.rows()
    assert row["body"] == receiver.got[0].body
    assert row["body_until"] - row["finished_at"] == timedelta(days=3)
    await world.advance(timedelta(days=3, seconds=1))
    await running.machine.drainer.purge_bodies()
    assert (await world.rows())[0]["body"] is None


async def test_a_dead_letter_is_listed_for_its_owner_and_holds_up_nobody(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    await world.run()
    topic, headers = CALLBACKS.name(world.prefix), {"type": b"DeliverCallback"}
    nowhere = callback(None, target="mailto:x", app_id=webhook.app_id)

    await (await world.producer()).publish([Outgoing(topic, b"k", b"{", headers)])
    await world.publish(nowhere, callback(webhook))
    await wait_until(lambda: world.states(state="delivered"))
    await wait_until(lambda: world.states(state="ended"))

    (row,) = await world.rows(id=nowhere.callback_id)
    assert (row["attempts"], row["last_error"]) == (0, "the callback URL names no server that can be reached by HTTP")
    assert row["body"] == bytes(nowhere.body), "its owner may have it delivered again"
    assert row["body_until"] - row["finished_at"] == timedelta(days=1), "though the app keeps nothing"
    assert len(receiver.got) == 1


async def test_a_dead_letter_that_no_table_can_hold_ends_nothing(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    await world.run()
    topic = CALLBACKS.name(world.prefix)
    orders = [callback(webhook, stream=mint()[:25] + "\x00"), callback(webhook)]

    # Under one key: the second is not looked at before the first is buried.
    await (await world.producer()).publish(
        [Outgoing(topic, b"one", CALLBACKS.encode(order), CALLBACKS.headers(order)) for order in orders]
    )

    await wait_until(lambda: world.states(state="delivered"))
    assert [got.event_id for got in receiver.got] == [orders[1].callback_id]


async def test_every_try_stands_in_the_timeline_of_its_message(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    receiver.behave = lambda got: Answer(200 if got.attempt == 2 else 502)
    await world.run()
    order = callback(webhook)
    await world.publish(order)
    await wait_until(lambda: world.states(state="waiting"))
    await world.advance_to_next_try()
    await wait_until(lambda: world.states(state="delivered"))

    async with world.pool.acquire() as connection:
        moments = await timeline.read(connection, MessageId(order.stream))
    assert [(moment.kind, moment.entry.try_number, moment.entry.http_status) for moment in moments] == [
        (Kind.CALLBACK, 1, 502),
        (Kind.CALLBACK, 2, 200),
    ]
    assert {moment.entry.callback_id for moment in moments} == {order.callback_id}


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_traces_are_asked_for_where_a_try_failed_or_the_message_is_sampled(
    world: World, receiver: Receiver, ratio: float
) -> None:
    webhook = world.apps.add(receiver.url())
    good, bad = callback(webhook), callback(webhook)
    receiver.behave = lambda got: Answer(500 if got.event_id == bad.callback_id else 200)
    await world.run(otlp_endpoint="http://127.0.0.1:1/v1/traces", trace_sample_ratio=ratio)

    await world.publish(good, bad)
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 2 FROM switchboard.callback_events"))

    asked = {row["message_id"] for row in await world.pool.fetch("SELECT message_id FROM switchboard.trace_exports")}
    assert asked == ({good.stream, bad.stream} if ratio else {bad.stream})


async def test_without_an_endpoint_for_traces_none_is_asked_for(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    receiver.behave = lambda got: Answer(500)
    await world.run()

    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="waiting"))

    assert await world.pool.fetchval("SELECT count(*) FROM switchboard.trace_exports") == 0


async def test_after_a_rotation_both_secrets_sign_and_then_the_newest_alone(world: World, receiver: Receiver) -> None:
    now = datetime.now(UTC)
    during = world.apps.add(
        receiver.url("/a"), secrets=("new-secret", "old-secret"), rotation_until=now + timedelta(hours=1)
    )
    after = world.apps.add(
        receiver.url("/b"), secrets=("new-secret", "old-secret"), rotation_until=now - timedelta(seconds=1)
    )
    await world.run()

    await world.publish(callback(during), callback(after))
    await wait_until(lambda: len(receiver.taken) == 2)

    signatures = {got.path: got.headers["webhook-signature"].split() for got in receiver.got}
    assert len(signatures["/a"]) == 2
    assert len(signatures["/b"]) == 1
    for got in receiver.got:
        assert Standard(b"new-secret").verify(got.body, got.headers)
