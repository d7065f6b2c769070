"""A day of retries, on a clock that the tests move."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Answer, Receiver

from switchboard.ids import mint
from switchboard.testing import wait_until


async def _attempts(world: World) -> int:
    return int(await world.pool.fetchval("SELECT coalesce(sum(attempts), 0) FROM switchboard.callback_events"))


async def _live_through(world: World, until: str) -> list[timedelta]:
    """Move the clock from try to try until a row is in that state. Returns the waits."""
    waits: list[timedelta] = []
    for _ in range(60):
        seen = await _attempts(world)
        waits.append(await world.advance_to_next_try())
        await wait_until(partial(_more, world, seen, until), describe=f"another try after {seen}", timeout_seconds=10)
        if until in await world.states():
            return waits
    raise AssertionError("no end after 60 tries")


async def _more(world: World, seen: int, until: str) -> bool:
    return await _attempts(world) > seen or until in await world.states()


async def test_a_callback_to_a_dead_endpoint_is_tried_for_a_day_and_then_listed_as_expired(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url(), days=7)
    receiver.behave = lambda got: Answer(503, body=b"down for maintenance")
    await world.run()
    begun = await world.now()

    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="waiting"))
    await _live_through(world, "expired")

    (row,) = await world.rows()
    assert row["attempts"] in (16, 17)
    assert len(receiver.got) == row["attempts"]
    assert [got.attempt for got in receiver.got] == list(range(1, row["attempts"] + 1))
    assert timedelta(hours=23, minutes=30) < row["finished_at"] - begun <= timedelta(hours=24)
    assert (row["last_status"], bytes(row["last_answer"])) == (503, b"down for maintenance")
    assert row["body"] is not None, "kept for replay as long as the app keeps messages"
    assert await world.pool.fetchval("SELECT count(*) FROM switchboard.callback_streams") == 0


async def test_a_dead_endpoint_is_only_probed_and_catches_up_once_a_probe_succeeds(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url())
    receiver.behave = lambda got: Answer(500)
    await world.run()
    orders = [callback(webhook) for _ in range(40)]

    await world.publish(*orders[:20])
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 20 FROM switchboard.callback_events"))
    await wait_until(lambda: world.pool.fetchval("SELECT gate = 'closed' FROM switchboard.lanes"))
    tries = len(receiver.got)
    await world.publish(*orders[20:])
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 40 FROM switchboard.callback_events"))

    assert len(receiver.got) == tries, "nothing but a probe passes a closed gate"
    await world.advance_to_next_try()
    await wait_until(lambda: len(receiver.got) == tries + 1)
    receiver.behave = lambda got: Answer(200)
    await wait_until(lambda: world.pool.fetchval("SELECT NOT probing FROM switchboard.lanes"))
    await world.advance_to_next_try()
    await wait_until(lambda: len(receiver.taken) == 40)
    assert {got.event_id for got in receiver.taken} == {order.callback_id for order in orders}
    await wait_until(lambda: world.pool.fetchval("SELECT waiting = 0 AND gate = 'open' FROM switchboard.lanes"))


async def test_every_event_gets_one_real_try_before_it_expires_even_at_a_closed_gate(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url())
    receiver.behave = lambda got: Answer(500)
    await world.run()
    orders = [callback(webhook) for _ in range(30)]
    stream = mint()
    followers = [callback(webhook, stream=stream, sequence=number) for number in (1, 2, 3)]

    await world.publish(*orders, *followers)
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 33 FROM switchboard.callback_events"))
    await wait_until(lambda: world.pool.fetchval("SELECT gate = 'closed' FROM switchboard.lanes"))
    untried = await world.pool.fetchval("SELECT count(*) FROM switchboard.callback_events WHERE attempts = 0")
    await world.advance(timedelta(hours=25))

    await wait_until(lambda: world.pool.fetchval("SELECT bool_and(state = 'expired') FROM switchboard.callback_events"))
    assert untried > 0
    assert {got.event_id for got in receiver.got} == {order.callback_id for order in (*orders, *followers)}
    assert await world.pool.fetchval("SELECT min(attempts) FROM switchboard.callback_events") == 1
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 0


async def test_followers_pass_a_head_that_is_refused_for_15_minutes_while_its_endpoint_takes_others(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url())
    stream = mint()
    head = callback(webhook, stream=stream, sequence=1)
    receiver.behave = lambda got: Answer(400 if got.event_id == head.callback_id else 200)
    running = await world.run()

    await world.publish(
        head, callback(webhook, stream=stream, sequence=2), callback(webhook, stream=stream, sequence=3)
    )
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 3 FROM switchboard.callback_events"))
    await world.advance(timedelta(minutes=10))
    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="delivered"))
    assert await running.machine.drainer.pass_stuck_heads() == 0
    await world.advance(timedelta(minutes=6))

    async def passed() -> bool:
        # Whichever sees it first: this look, or the end of the head's next try.
        await running.machine.drainer.pass_stuck_heads()
        return bool((await world.rows(id=head.callback_id))[0]["passed"])

    await wait_until(passed)
    await wait_until(lambda: len(receiver.taken) == 3)

    assert [got.sequence for got in receiver.taken if got.headers["switchboard-sequence"] != "1"] == [2, 3]
    (row,) = await world.rows(id=head.callback_id)
    assert (row["state"], row["passed"]) == ("waiting", True)
    receiver.behave = lambda got: Answer(200)

    async def delivered() -> list[str]:
        # It may just have been refused once more, and be due only later.
        await world.advance(timedelta(minutes=1))
        return await world.states(id=head.callback_id, state="delivered")

    await wait_until(delivered)
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 0


async def test_retry_after_is_heard_and_429_slows_the_endpoint_down(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    receiver.behave = lambda got: Answer(429, {"retry-after": "120"})
    await world.run()

    await world.publish(callback(webhook))
    await wait_until(lambda: world.states(state="waiting"))

    wait = await world.pool.fetchval("SELECT due_at - scheduled_at FROM switchboard.callback_streams")
    assert timedelta(seconds=120) <= wait < timedelta(seconds=121)
    assert await world.pool.fetchval("SELECT slowdown FROM switchboard.lanes") == 2
    assert await world.pool.fetchval("SELECT gate FROM switchboard.lanes") == "open"


async def test_a_hanging_endpoint_delays_nobody_else_and_holds_no_record(world: World, receiver: Receiver) -> None:
    hanging, lively = world.apps.add(receiver.url("/hang")), world.apps.add(receiver.url("/well"))
    wake = asyncio.Event()
    receiver.behave = lambda got: Answer(200, after=wake if got.path == "/hang" else None)
    await world.run(slots=16, slow_seconds=0.1)

    await world.publish(*(callback(hanging) for _ in range(40)))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 40 FROM switchboard.callback_events"))
    assert receiver.most_under_way <= 16 // 4 * 2, "a quarter of the slots, and of those of retries"
    await world.publish(*(callback(lively) for _ in range(40)))
    await wait_until(lambda: len([got for got in receiver.taken if got.path == "/well"]) == 40)

    leased = await world.pool.fetchval("SELECT count(*) FROM switchboard.callback_streams WHERE owner IS NOT NULL")
    assert leased > 0
    wake.set()
    await wait_until(lambda: len({got.event_id for got in receiver.taken}) == 80, timeout_seconds=20)
    await wait_until(lambda: world.pool.fetchval("SELECT bool_and(waiting = 0) FROM switchboard.lanes"))


async def test_the_rate_of_an_endpoint_is_kept(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), per_second=50)
    await world.run()

    await world.publish(*(callback(webhook) for _ in range(60)))
    begun = await world.now()
    await wait_until(
        lambda: world.pool.fetchval("SELECT count(*) = 60 FROM switchboard.callback_events WHERE state = 'delivered'")
    )

    took = await world.pool.fetchval(
        "SELECT max(finished_at) - $1::timestamptz FROM switchboard.callback_events", begun
    )
    assert took > timedelta(seconds=(60 - 50 * 0.1 - 5) / 50 * 0.9), "slots are granted 100 ms ahead, not more"
    assert len(receiver.taken) == 60


async def test_an_outcome_of_a_lost_lease_has_no_effect(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url())
    wake = asyncio.Event()
    receiver.behave = lambda got: Answer(200, after=wake) if len(receiver.got) == 1 else Answer(500)
    first = await world.run(slow_seconds=0.05)
    await world.publish(callback(webhook))
    await wait_until(lambda: world.pool.fetchval("SELECT owner IS NOT NULL FROM switchboard.callback_streams"))

    await world.advance(timedelta(seconds=31))
    await wait_until(lambda: world.pool.fetchval("SELECT attempts = 1 FROM switchboard.callback_events"))
    wake.set()
    await first.stop()

    (row,) = await world.rows()
    assert (row["state"], row["attempts"], row["last_status"]) == ("waiting", 1, 500)
    assert len({got.event_id for got in receiver.got}) == 1, "duplicates carry the same event id"
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 1
