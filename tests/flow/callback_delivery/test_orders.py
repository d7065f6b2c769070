"""What owners order: resume, replay, dismiss, test; and what becomes of endpoints that are down for long."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Answer, Receiver

from switchboard.configuration import ConfigurationStore, Webhook
from switchboard.ids import MessageId, derive_at, mint
from switchboard.secrets import KeyRing
from switchboard.store import timeline
from switchboard.store.callbacks import (
    LOST,
    CallbackOrder,
    CallbackQuery,
    CallbackState,
    ContentGone,
    EndpointState,
    OrderKind,
    OrderState,
    callbacks,
    cancel,
    dismiss_waiting,
    endpoints,
    order,
    place,
    redeliver,
)
from switchboard.store.callbacks import callback as read
from switchboard.testing import wait_until
from switchboard.trigger import Trigger


async def ordered(world: World, webhook: Webhook, kind: OrderKind, **more: Any) -> CallbackOrder:
    """Place an order for an app's callbacks and wait for its end."""
    fields: dict[str, Any] = {"states": tuple(CallbackState), **more}
    wish = CallbackOrder(id=mint(), project_id=webhook.project_id, app_id=webhook.app_id, kind=kind, **fields)
    return await finished(world, await place(world.pool, wish))


async def finished(world: World, placed: CallbackOrder) -> CallbackOrder:
    """Wait for an order's end."""
    found: list[CallbackOrder] = []

    async def is_over() -> bool:
        now = await order(world.pool, placed.project_id, placed.id)
        assert now is not None
        found[:] = [now]
        return now.finished_at is not None

    await wait_until(is_over, timeout_seconds=20)
    return found[0]


async def expire(world: World, webhook: Webhook, receiver: Receiver, count: int, **more: Any) -> list[str]:
    """Let so many callbacks expire. Returns their ids in order of sequence."""
    receiver.behave = lambda got: Answer(500, body=b"down")
    stream = mint()
    orders = [callback(webhook, stream=stream, sequence=number, **more) for number in range(1, count + 1)]
    await world.publish(*orders)
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = $1 FROM switchboard.callback_events", count))
    await world.advance(timedelta(hours=25))
    await wait_until(lambda: world.pool.fetchval("SELECT bool_and(state = 'expired') FROM switchboard.callback_events"))
    receiver.got.clear()
    receiver.behave = lambda got: Answer(200)
    return [one.callback_id for one in orders]


async def test_everything_that_expired_is_resumed_in_order_for_another_24_hours(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url(), days=3)
    await world.run()
    ids = await expire(world, webhook, receiver, 5)

    end = await ordered(world, webhook, OrderKind.RESUME, states=LOST)
    await wait_until(lambda: len(receiver.taken) == 5)

    assert (end.state, end.done, end.gone) == (OrderState.FINISHED, 5, 0)
    assert [got.event_id for got in receiver.taken] == ids
    assert {got.headers["switchboard-replay"] for got in receiver.taken} == {"true"}
    assert all(got.attempt > 1 for got in receiver.taken), "tries are counted over both rounds"
    await wait_until(lambda: world.pool.fetchval("SELECT waiting = 0 AND gate = 'open' FROM switchboard.lanes"))
    assert set(await world.states()) == {"delivered"}


async def test_a_resumed_callback_is_tried_for_a_whole_new_day(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=7)
    await world.run()
    (expired,) = await expire(world, webhook, receiver, 1)
    receiver.behave = lambda got: Answer(500)
    found = await read(world.pool, webhook.project_id, expired)
    assert found is not None

    await finished(world, await redeliver(world.pool, found))
    await wait_until(lambda: len(receiver.got) >= 1)
    await wait_until(lambda: world.pool.fetchval("SELECT owner IS NULL FROM switchboard.callback_streams"))

    waits = await world.pool.fetchval("SELECT due_at - scheduled_at FROM switchboard.callback_streams")
    assert waits < timedelta(seconds=6), "its schedule begins anew"
    left = await world.pool.fetchval("SELECT expires_at - switchboard.now() FROM switchboard.callback_events")
    assert left > timedelta(hours=23)


async def test_without_a_kept_body_it_is_said_that_the_content_is_gone(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=0)
    await world.run()
    (expired,) = await expire(world, webhook, receiver, 1)
    found = await read(world.pool, webhook.project_id, expired)
    assert found is not None
    assert not found.has_content

    with pytest.raises(ContentGone):
        await redeliver(world.pool, found)
    resumed = await ordered(world, webhook, OrderKind.RESUME, states=LOST)
    replayed = await ordered(world, webhook, OrderKind.REPLAY)

    assert (resumed.done, resumed.gone) == (0, 1)
    assert (replayed.done, replayed.failed, replayed.gone) == (0, 0, 1)
    assert receiver.got == []
    assert await world.states() == ["expired"]


async def test_a_window_is_replayed_in_order_marked_and_changes_nothing(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=3)
    await world.run()
    stream = mint()
    first = [callback(webhook, stream=stream, sequence=number) for number in (1, 2, 3)]
    await world.publish(*first)
    await wait_until(lambda: len(receiver.taken) == 3)
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 3 FROM switchboard.callback_events"))
    before = [dict(row) for row in await world.rows()]
    receiver.got.clear()
    receiver.behave = lambda got: Answer(418 if got.sequence == 2 else 200, body=b"teapot")

    end = await ordered(world, webhook, OrderKind.REPLAY, states=(CallbackState.DELIVERED,), per_second=500)

    assert (end.done, end.failed, end.gone) == (2, 1, 0)
    assert (end.last_status, end.last_answer) == (418, "teapot")
    assert [got.event_id for got in receiver.got] == [one.callback_id for one in first]
    assert {got.headers["switchboard-replay"] for got in receiver.got} == {"true"}
    assert [dict(row) for row in await world.rows()] == before
    assert await world.pool.fetchval("SELECT fail_streak FROM switchboard.lanes") == 0
    async with world.pool.acquire() as connection:
        notes = [moment.entry.note for moment in await timeline.read(connection, MessageId(stream))]
    assert notes[-3:] == [f"MESSAGE_DELIVERY replay {what}" for what in ("taken", "refused", "taken")]


async def test_a_replay_goes_to_another_target_though_the_endpoint_is_down(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url("/down"), days=3)
    await world.run()
    ids = await expire(world, webhook, receiver, 6)
    receiver.behave = lambda got: Answer(500 if got.path == "/down" else 200)

    end = await ordered(world, webhook, OrderKind.REPLAY, target=receiver.url("/spare"), per_second=500)

    assert (end.done, end.failed) == (6, 0)
    assert [(got.path, got.event_id) for got in receiver.got] == [("/spare", one) for one in ids]
    assert set(await world.states()) == {"expired"}


async def test_a_replay_keeps_its_rate_and_stops_when_it_is_cancelled(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=3)
    await world.run()
    now = await world.now()
    # Of one millisecond they would be one piece.
    streams = [derive_at(now - timedelta(milliseconds=age), age) for age in range(30)]
    await world.publish(*(callback(webhook, stream=stream) for stream in streams))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 30 FROM switchboard.callback_events"))
    receiver.got.clear()
    wish = CallbackOrder(
        id=mint(), project_id=webhook.project_id, app_id=webhook.app_id, kind=OrderKind.REPLAY,
        states=tuple(CallbackState), per_second=0.001,
    )  # fmt: skip

    await place(world.pool, wish)
    await wait_until(lambda: world.pool.fetchval("SELECT done > 0 FROM switchboard.callback_orders"))
    wait = await world.pool.fetchval("SELECT due_at - switchboard.now() FROM switchboard.callback_orders")
    end = await cancel(world.pool, webhook.project_id, wish.id)

    assert wait > timedelta(seconds=900 * len(receiver.got))
    assert end is not None
    assert end.state is OrderState.CANCELLED
    assert end.done == len(receiver.got) < 30


async def test_a_killed_replay_is_taken_up_by_another_process(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=3)
    wake = asyncio.Event()
    running = await world.run()
    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="delivered"))
    receiver.got.clear()
    receiver.behave = lambda got: Answer(200, after=wake)
    wish = CallbackOrder(
        id=mint(), project_id=webhook.project_id, app_id=webhook.app_id, kind=OrderKind.REPLAY,
        states=tuple(CallbackState),
    )  # fmt: skip
    await place(world.pool, wish)
    await wait_until(lambda: len(receiver.got) == 1)

    await running.machine.orders.stop()
    await world.advance(timedelta(seconds=31))
    running.machine.orders.start()
    await wait_until(lambda: len(receiver.got) == 2)
    wake.set()

    end = await finished(world, wish)
    assert (end.done, end.failed) == (1, 0)
    assert len({got.event_id for got in receiver.got}) == 1


async def test_what_is_dismissed_is_not_tried_again_and_its_followers_go_on(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=3)
    stream = mint()
    orders = [callback(webhook, stream=stream, sequence=number) for number in (1, 2, 3)]
    receiver.behave = lambda got: Answer(400 if got.sequence == 1 else 200)
    await world.run()
    await world.publish(*orders)
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 3 FROM switchboard.callback_events"))

    end = await ordered(world, webhook, OrderKind.DISMISS, callback_ids=(orders[0].callback_id,))
    await wait_until(lambda: len(receiver.taken) == 2)

    assert end.done == 1
    assert [got.sequence for got in receiver.taken] == [2, 3]
    await wait_until(lambda: world.pool.fetchval("SELECT waiting = 0 FROM switchboard.lanes"))
    assert await world.states() == ["dismissed", "delivered", "delivered"]
    assert await world.pool.fetchval("SELECT count(*) FROM switchboard.callback_streams") == 0


async def test_dismissing_all_that_waits_leaves_no_stream_and_a_try_under_way_without_effect(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url(), days=3)
    wake = asyncio.Event()
    receiver.behave = lambda got: Answer(200, after=wake)
    stream = mint()
    await world.run(slow_seconds=0.05)
    await world.publish(*(callback(webhook, stream=stream, sequence=number) for number in (1, 2, 3)))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 3 FROM switchboard.callback_events"))
    await wait_until(lambda: world.pool.fetchval("SELECT owner IS NOT NULL FROM switchboard.callback_streams"))

    end = await ordered(world, webhook, OrderKind.DISMISS, states=(CallbackState.WAITING,))
    wake.set()
    last = callback(webhook)
    await world.publish(last)
    await wait_until(lambda: world.states(id=last.callback_id, state="delivered"))

    assert end.done == 3
    assert await world.states(stream=stream) == ["dismissed"] * 3
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 0


async def test_what_waits_for_a_deleted_webhook_is_given_up_though_its_gate_is_closed(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url())
    receiver.behave = lambda got: Answer(500)
    await world.run()
    await world.publish(*(callback(webhook) for _ in range(20)))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 20 FROM switchboard.callback_events"))
    await wait_until(lambda: world.pool.fetchval("SELECT gate = 'closed' FROM switchboard.lanes"))
    world.apps.hooks[webhook.app_id] = ()

    await finished(world, await dismiss_waiting(world.pool, webhook.project_id, webhook.app_id, webhook.id))

    assert set(await world.states()) == {"dismissed"}
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 0


async def test_a_test_callback_is_signed_and_its_answer_is_told(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    receiver.behave = lambda got: Answer(502, body=b"not yet")
    await world.run()

    end = await ordered(world, webhook, OrderKind.TEST, webhook_id=webhook.id)

    (got,) = receiver.got
    assert got.headers["switchboard-trigger"] == "WEBHOOK_TEST"
    assert "x-sinch-webhook-signature" in got.headers
    assert msgspec.json.decode(got.body)["webhook_test_notification"] == {"webhook_id": webhook.id}
    assert (end.done, end.failed, end.last_status, end.last_answer) == (0, 1, 502, "not yet")
    assert await world.rows() == []


async def test_an_answer_the_webhook_wants_to_be_final_ends_the_callback(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=3, ends_retries_on=(410,))
    receiver.behave = lambda got: Answer(410)
    await world.run()

    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="ended"))

    assert len(receiver.got) == 1


async def test_owners_see_how_their_endpoints_and_callbacks_are(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), days=3)
    running = await world.run()
    await world.publish(*(callback(webhook) for _ in range(3)))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 3 FROM switchboard.callback_events"))
    receiver.behave = lambda got: Answer(503, body=b"closed for winter")
    failing = [callback(webhook) for _ in range(2)]
    await world.publish(*failing)
    await wait_until(lambda: world.pool.fetchval("SELECT sum(attempts) = 5 FROM switchboard.callback_events"))
    await running.machine.recorder.save_tallies()

    (seen,) = await endpoints(world.pool, webhook.app_id)
    assert (seen.state, seen.waiting, seen.taken, seen.failed) == (EndpointState.FAILING, 2, 3, 2)
    assert seen.success_rate == 0.6
    assert (seen.last_status, seen.last_answer) == (503, "closed for winter")
    assert seen.next_try_at is not None
    assert seen.oldest_waiting_at is not None

    async def ids(**wish: Any) -> set[str]:
        query = CallbackQuery(project_id=webhook.project_id, app_id=webhook.app_id, **wish)
        return {one.id for one in await callbacks(world.pool, query)}

    assert await ids(states=(CallbackState.WAITING,)) == {one.callback_id for one in failing}
    assert await ids(message_id=failing[0].stream) == {failing[0].callback_id}
    assert len(await ids(min_attempts=1)) == 5
    assert await ids(min_attempts=9) == set()
    assert await ids(until_at=await world.now() - timedelta(hours=1)) == set()


async def test_an_endpoint_down_for_long_is_suspended_told_of_and_catches_up(world: World, receiver: Receiver) -> None:
    dead = world.apps.add(receiver.url("/dead"))
    other = msgspec.structs.replace(
        world.apps.add(receiver.url("/alarm"), app_id=dead.app_id), triggers=(Trigger.ENDPOINT_SUSPENDED,)
    )
    world.apps.hooks[dead.app_id] = (dead, other)
    store = ConfigurationStore(world.pool, KeyRing.parse(KeyRing.generate()), {})
    await store.put_project(dead.project_id, "Harbour")
    await store.insert_app(world.apps.apps[dead.app_id])
    for webhook in (dead, other):
        await store.put_webhook(webhook)
    receiver.behave = lambda got: Answer(200 if got.path == "/alarm" else 503)
    running = await world.run()
    orders = [callback(dead) for _ in range(8)]
    await world.publish(*orders)
    lane = f"endpoint:{dead.id}"
    await wait_until(lambda: world.pool.fetchval("SELECT gate = 'closed' FROM switchboard.lanes WHERE id = $1", lane))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 8 FROM switchboard.callback_events"))

    assert await running.machine.drainer.suspend() == 0, "it is not down for long"
    await world.advance(timedelta(hours=13))
    await wait_until(lambda: _suspended(world, running))
    await wait_until(lambda: [got for got in receiver.taken if got.path == "/alarm"])

    (alarm,) = [got for got in receiver.taken if got.path == "/alarm"]
    told = msgspec.json.decode(alarm.body)["endpoint_suspended_notification"]
    assert (told["webhook_id"], told["waiting"], told["last_status"]) == (dead.id, 8, 503)
    assert {one.webhook_id: one.state for one in await endpoints(world.pool, dead.app_id)}[dead.id] is (
        EndpointState.SUSPENDED
    )
    await world.advance(timedelta(minutes=10))
    await wait_until(lambda: world.pool.fetchval(_PROBED_LATER, lane))
    receiver.behave = lambda got: Answer(200)
    await world.advance(timedelta(hours=1, minutes=5))
    await wait_until(lambda: len([got for got in receiver.taken if got.path == "/dead"]) == 8)
    await wait_until(
        lambda: world.pool.fetchval(
            "SELECT suspended_at IS NULL FROM switchboard.callback_endpoints WHERE endpoint = $1", lane
        )
    )


#: A probe after the suspension failed: the next is further away than that of an endpoint just down.
_PROBED_LATER = (
    "SELECT NOT probing AND probe_at > switchboard.now() + interval '10 min' FROM switchboard.lanes WHERE id = $1"
)


async def _suspended(world: World, running: Any) -> bool:
    await running.machine.drainer.suspend()
    return bool(
        await world.pool.fetchval("SELECT true FROM switchboard.callback_endpoints WHERE suspended_at IS NOT NULL")
    )
