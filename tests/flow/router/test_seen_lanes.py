"""Slots are taken and given back in lanes that nobody locked before (ADR 0030)."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import json
from tests.flow.router.conftest import PHONE, SMS, Router, impatient
from tests.flow.router.line import Line

from switchboard.bus import Transient
from switchboard.channel.outcome import Accepted, FailedForNow
from switchboard.configuration import ConfigurationStore
from switchboard.ids import LaneId
from switchboard.lanes import LaneMemory, dispatch_lane, operate
from switchboard.reason import Reason, ReasonCode
from switchboard.records import AttemptFinished, MessageAccepted
from switchboard.store.pool import Connection
from switchboard.store.writes import Writes
from switchboard.trigger import Trigger

#: Slots enough for every message of a test ahead of time.
FAST = 2_000


def outcome(message: MessageAccepted) -> AttemptFinished:
    return AttemptFinished(message.message_id, 0, 1, Accepted(("p1",)), datetime.now(UTC))


def failed(message: MessageAccepted) -> AttemptFinished:
    reason = FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE, "busy"), retry_after_seconds=1)
    return AttemptFinished(message.message_id, 0, 1, reason, datetime.now(UTC))


@pytest.fixture
async def fast_account(store: ConfigurationStore) -> None:
    settings = {"host": "127.0.0.1", "system_id": "sb", "account_messages_per_second": FAST}
    await store.put_account(SMS, "main", json.encode(settings))


@pytest.fixture
async def router(fast_account: None, make_router: Any) -> Router:
    # Contents are read for MESSAGE_SUBMIT.
    made: Router = await make_router([Trigger.MESSAGE_DELIVERY], per_second=FAST)
    return made.beside(lanes=impatient())


@pytest.fixture
async def said(router: Router) -> list[str]:
    """What is said to the database from now on, in a lane that exists and is remembered."""
    await router.plan(router.accepted(PHONE))
    await router.plan(router.accepted(PHONE))
    said: list[str] = []
    pool = router.context.pool
    # One of them is the configuration's, which listens.
    connections = [await pool.acquire() for _ in range(pool.get_max_size() - 1)]
    for connection in connections:
        connection.add_query_logger(lambda record: said.extend([record.query] * (not _is_about_types(record.query))))
    for connection in connections:
        await pool.release(connection)
    return said


def _is_about_types(query: str) -> bool:
    """What the client asks once on each connection."""
    return "typeinfo_tree" in query or "current_setting('jit')" in query


async def in_flight(router: Router) -> int:
    return int((await router.lane())["in_flight"])


async def counted(router: Router) -> tuple[int, int]:
    """Attempts in flight, as the lane says and as they say themselves."""
    rows = await router.context.pool.fetchval("SELECT count(*) FROM attempts WHERE lanes <> '{}'")
    return await in_flight(router), int(rows)


async def told_once(router: Router) -> bool:
    causes = await router.context.pool.fetch("SELECT count(*) FROM timeline GROUP BY message_id, cause")
    return {row["count"] for row in causes} == {1}


async def test_a_plan_and_an_outcome_are_two_statements_each(router: Router, said: list[str]) -> None:
    message = router.accepted(PHONE)
    await router.plan(message)
    planned, said[:] = said[:], []
    await router.tell(outcome(message))

    assert len(planned) == 2
    assert len(said) == 2
    assert await in_flight(router) == 2


async def test_a_lane_that_had_to_be_locked_is_locked_for_a_while(router: Router, said: list[str]) -> None:
    router = router.beside(lanes=LaneMemory(monotonic=lambda: 0.0))
    await router.context.pool.execute("UPDATE lanes SET interval_ns = 1")
    await router.plan(router.accepted(PHONE))
    said.clear()
    await router.plan(router.accepted(PHONE))

    # The look, and a transaction that locks and writes.
    assert len(said) == 5
    assert await in_flight(router) == 4


@pytest.mark.parametrize("tell", [outcome, failed], ids=["accepted", "failed for now"])
async def test_lanes_that_changed_since_are_locked_and_counted_right(router: Router, tell: Any) -> None:
    messages = [router.accepted(PHONE) for _ in range(3)]
    for message in messages:
        await router.plan(message)
    await router.context.pool.execute("UPDATE lanes SET in_flight = in_flight + 10")

    await router.plan(late := router.accepted(PHONE))
    await router.context.pool.execute("UPDATE lanes SET in_flight = in_flight - 10")
    await router.tell(tell(messages[0]))

    assert await counted(router) == (3, 3)
    assert (await router.dispatched(SMS))[-1].message_id == late.message_id


async def test_two_routers_grant_no_slot_twice(router: Router) -> None:
    await router.plan(router.accepted(PHONE))
    began: datetime = (await router.lane())["tat"]
    other = router.beside(lanes=impatient())
    batches = [[router.accepted(PHONE) for _ in range(2)] for _ in range(20)]
    await asyncio.gather(
        *[(router, other)[number % 2].plan(*batch) for number, batch in enumerate(batches)],
    )

    flying, started = await counted(router)
    assert flying == started > 1
    assert (await router.lane())["tat"] >= began + (started - 1) * timedelta(seconds=1 / FAST)


async def test_two_routers_count_every_end_once(router: Router) -> None:
    other = router.beside(lanes=impatient())
    messages = [router.accepted(PHONE) for _ in range(24)]
    await router.plan(*messages)
    batches = [list(map(outcome, messages[start : start + 3])) for start in range(0, 24, 3)]
    # Each half meets the other's in the lane, and itself at both routers.
    await asyncio.gather(
        *[(router, other)[number % 2].tell(*batch) for number, batch in enumerate(batches)],
        *[(other, router)[number % 2].tell(*batch) for number, batch in enumerate(batches)],
    )

    assert await counted(router) == (0, 0)
    assert await told_once(router)


async def test_an_answer_that_is_lost_changes_nothing(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement was carried out, and nobody said so: its record is seen again."""
    await router.plan(router.accepted(PHONE))
    await router.plan(router.accepted(PHONE))
    lost: list[str] = []
    really = Writes.execute_or_nothing

    async def lose(writes: Writes, connection: Connection) -> int:
        version = await really(writes, connection)
        if len(lost) < 2:
            lost.append("answer")
            raise ConnectionResetError
        return version

    monkeypatch.setattr(Writes, "execute_or_nothing", lose)
    message = router.accepted(PHONE)
    with pytest.raises(Transient):
        await router.plan(message)
    await router.plan(message)
    assert await counted(router) == (3, 3)

    # Its plan's second sight wrote nothing: it was the first's answer that was lost, and now the outcome's.
    with pytest.raises(Transient):
        await router.tell(outcome(message))
    await router.tell(outcome(message))

    assert lost == ["answer", "answer"]
    assert await counted(router) == (2, 2)
    assert await told_once(router)
    assert [order.message_id for order in await router.dispatched(SMS)].count(message.message_id) == 1


async def test_nothing_of_a_batch_is_written_if_one_of_its_lanes_moved(router: Router, make_router: Any) -> None:
    other: Router = await make_router(per_second=FAST)
    apps = (router, other)
    for _ in range(2):
        await router.plan(*[app.accepted(PHONE) for app in apps])
    await router.context.pool.execute("UPDATE lanes SET in_flight = 9 WHERE id = $1", dispatch_lane(other.app.id, SMS))

    await router.plan(*[app.accepted(PHONE) for app in apps])

    lanes = await router.context.pool.fetch("SELECT id, in_flight FROM lanes WHERE kind = 'dispatch'")
    assert {row["id"]: row["in_flight"] for row in lanes} == {
        dispatch_lane(router.app.id, SMS): 3,
        dispatch_lane(other.app.id, SMS): 10,
    }
    assert await router.context.pool.fetchval("SELECT count(*) FROM attempts") == 6


async def test_who_has_to_wait_enters_the_line(make_router: Any) -> None:
    slow = (await make_router(per_second=1)).beside(lanes=impatient())
    messages = [slow.accepted(PHONE) for _ in range(3)]
    for message in messages:
        await slow.plan(message)

    lane = await slow.lane()
    assert (lane["in_flight"], lane["waiting"], lane["last_sequence"]) == (1, 2, 2)
    waiting = await slow.context.pool.fetch("SELECT message_id FROM lane_items ORDER BY sequence")
    assert [row["message_id"] for row in waiting] == [message.message_id for message in messages[1:]]


@pytest.mark.parametrize("seed", range(3))
async def test_counts_fit_where_all_meet_in_a_lane(router: Router, seed: int) -> None:
    """Three routers plan and end attempts, two drainers give out slots, and an operator closes the lane meanwhile."""
    chance = random.Random(seed)
    routers = [router, router.beside(lanes=impatient()), router.beside()]
    lines = [Line(one) for one in routers[:2]]
    lane = dispatch_lane(router.app.id, SMS)
    messages = [router.accepted(PHONE)]
    await router.plan(*messages)
    for _ in range(15):
        batches = [[router.accepted(PHONE) for _ in range(chance.randint(1, 6))] for _ in routers]
        started = await router.context.pool.fetch("SELECT message_id FROM attempts WHERE lanes <> '{}' LIMIT 12")
        ids = {row["message_id"] for row in started}
        ends = [outcome(message) for message in messages if message.message_id in ids]
        meeting: list[Awaitable[object]] = [line.drainer.drain_once() for line in lines]
        for number, one in enumerate(routers):
            meeting += [_until_done(one.plan, *batches[number]), _until_done(one.tell, *ends[number::3])]
        # A third is told at two routers.
        meeting.append(_until_done(router.tell, *ends[1::3]))
        if chance.random() < 0.2:
            meeting.append(_pause_and_resume(router, lane))
        for line in lines:
            line.drainer.wake()
        chance.shuffle(meeting)
        await asyncio.gather(*meeting)
        messages += [message for batch in batches for message in batch]

    pool = router.context.pool
    rows = await pool.fetch("SELECT id, in_flight FROM lanes")
    flying = await pool.fetch("SELECT lane, count(*) FROM attempts, unnest(lanes) AS lane GROUP BY lane")
    assert {row["id"]: row["in_flight"] for row in rows if row["in_flight"]} == dict(map(tuple, flying))
    assert (await router.lane())["waiting"] == await pool.fetchval("SELECT count(*) FROM lane_items")
    assert await pool.fetchval("SELECT count(*) FROM messages") == len(messages)
    assert await told_once(router)


async def _until_done(handle: Callable[..., Awaitable[None]], *records: Any) -> None:
    """What the bus does with records that another router was faster with."""
    for _ in range(20):
        try:
            return await handle(*records)
        except Transient:
            await asyncio.sleep(0)
    raise AssertionError("they never get on")


async def _pause_and_resume(router: Router, lane: LaneId) -> None:
    await operate.pause(router.context.pool, lane)
    await operate.resume(router.context.pool, lane)
