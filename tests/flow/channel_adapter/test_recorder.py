"""Outcomes are in the database before they are told, and receipts meet them in either order."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from switchboard.channel.contract import ReceiptFact
from switchboard.channel.outcome import Accepted, FailedForNow
from switchboard.ids import AttemptId
from switchboard.reason import Reason, ReasonCode
from switchboard.status import Status
from switchboard.store import timeline
from switchboard.store.pool import Connection, Pool
from switchboard_channel_adapter import receipts
from switchboard_channel_adapter.receipts import Heard
from switchboard_channel_adapter.recorder import Recorder

from .conftest import TELEGRAM, World

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DELIVERED = ReceiptFact(("p1",), Status.DELIVERED, AT, identity="777000")
THROTTLED = FailedForNow(Reason(ReasonCode.RATE_LIMITED), throttled=True)


def heard(world: World, fact: ReceiptFact = DELIVERED) -> Heard:
    return Heard(TELEGRAM, world.account, fact)


async def waiting(world: World) -> int:
    count: int = await world.pool.fetchval("SELECT count(*) FROM switchboard.receipts")
    return count


async def test_a_receipt_after_its_outcome_is_told(world: World) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.recorder.record(world.ended(order, Accepted(("p1",))))
    await world.receipts.take(heard(world))

    (receipt,) = await world.receipts_told(order)
    assert (receipt.provider_id, receipt.status, receipt.step, receipt.submission) == ("p1", Status.DELIVERED, 0, 1)
    assert await waiting(world) == 0


async def test_a_receipt_before_its_outcome_waits_and_is_told_after_it(world: World) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.receipts.take(heard(world))
    before = (await world.told(), await waiting(world))
    await world.recorder.record(world.ended(order, Accepted(("p1",))))

    assert before == ([], 1)
    assert [type(record).__name__ for record in await world.told(order)] == ["AttemptFinished", "ReceiptReceived"]
    assert await waiting(world) == 0


async def test_a_receipt_whose_outcome_was_recorded_by_one_that_died_then_is_told_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message has moved on by another part's receipt: no timer would look for it before the horizon."""

    async def died(_: object) -> list[receipts.Met]:
        return []

    order = await world.plan()
    await world.claims().claim(order)
    await world.receipts.take(heard(world))
    monkeypatch.setattr(world.receipts, "waiting_for", died)
    await world.recorder.record(world.ended(order, Accepted(("p1",))))
    assert await world.receipts.meet_missed() == 0, "its writer may be about to see it"
    await world.pool.execute("UPDATE switchboard.receipts SET received_at = received_at - interval '10 s'")

    assert await world.receipts.meet_missed() == 1
    assert [receipt.provider_id for receipt in await world.receipts_told(order)] == ["p1"]
    assert await world.receipts.meet_missed() == 0


async def test_receipts_and_outcomes_that_race_always_meet(world: World) -> None:
    orders = [await world.plan() for _ in range(40)]
    claims = world.claims()
    await asyncio.gather(*(claims.claim(order) for order in orders))
    await asyncio.gather(
        *(world.recorder.record(world.ended(o, Accepted((f"p{n}",)))) for n, o in enumerate(orders)),
        *(world.receipts.take(heard(world, replace(DELIVERED, provider_ids=(f"p{n}",)))) for n in range(40)),
    )

    told = {record.message_id for record in await world.told() if type(record).__name__ == "ReceiptReceived"}
    assert told == {order.message_id for order in orders}
    assert await waiting(world) == 0


async def test_an_outcome_recorded_between_a_receipt_s_look_and_its_row_is_found_by_its_second_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    keep = receipts._keep

    async def outcome_first(connection: Connection, batch: Sequence[Heard]) -> None:
        await world.recorder.record(world.ended(order, Accepted(("p1",))))
        await keep(connection, batch)

    monkeypatch.setattr(receipts, "_keep", outcome_first)
    await world.receipts.take(heard(world))

    assert len(await world.receipts_told(order)) == 1
    assert await waiting(world) == 0


async def test_a_receipt_is_found_under_any_spelling_of_its_id(world: World) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.recorder.record(world.ended(order, Accepted(("1a",))))
    await world.receipts.take(heard(world, replace(DELIVERED, provider_ids=("26", "1A", "1a"))))

    assert [receipt.provider_id for receipt in await world.receipts_told(order)] == ["1a"]


async def test_a_waiting_receipt_is_found_under_any_spelling_of_its_id(world: World) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.receipts.take(heard(world, replace(DELIVERED, provider_ids=("26", "1A", "1a"))))
    await world.recorder.record(world.ended(order, Accepted(("1a",))))

    assert [receipt.provider_id for receipt in await world.receipts_told(order)] == ["1a"]


async def test_a_receipt_of_another_person_is_not_met(world: World) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.receipts.take(heard(world, replace(DELIVERED, identity="1")))
    await world.recorder.record(world.ended(order, Accepted(("p1",))))
    await world.receipts.take(heard(world, replace(DELIVERED, identity="2")))

    assert await world.receipts_told(order) == []


async def test_a_receipt_that_echoes_our_attempt_needs_no_look(world: World) -> None:
    order = await world.plan()
    fact = replace(DELIVERED, attempt_id=AttemptId(f"{order.message_id}.0.1"))
    await world.receipts.take(heard(world, fact))

    assert len(await world.receipts_told(order)) == 1


async def test_a_receipt_twice_is_told_twice_with_nothing_left_behind(world: World) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.receipts.take(heard(world))
    await world.receipts.take(heard(world))
    await world.recorder.record(world.ended(order, Accepted(("p1",))))
    await world.receipts.take(heard(world))

    assert len(await world.receipts_told(order)) == 2
    assert await waiting(world) == 0


async def test_an_attempt_that_was_never_claimed_ends_only_while_planned(world: World) -> None:
    planned, cancelled = await world.plan(), await world.plan()
    await world.pool.execute(
        "UPDATE switchboard.attempts SET state = 'cancelled' WHERE message_id = $1", cancelled.message_id
    )
    told = await asyncio.gather(
        *(world.recorder.record(world.ended(order, THROTTLED, was_planned=True)) for order in (planned, cancelled))
    )

    assert told == [True, False]
    assert await world.outcomes(planned) == [THROTTLED]
    assert await world.outcomes(cancelled) == []


class LosesCommits:
    """A pool that carries statements out and then loses the answer, so many times."""

    def __init__(self, pool: Pool, times: int) -> None:
        self._pool = pool
        self.times = times

    async def fetch(self, *arguments: Any) -> Any:
        rows = await self._pool.fetch(*arguments)
        if self.times:
            self.times -= 1
            raise ConnectionResetError
        return rows


async def test_an_outcome_is_recorded_once_and_told_however_often_the_database_fails(world: World) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    pool = LosesCommits(world.pool, times=3)
    recorder = Recorder(pool, world.producer, world.receipts, topic_prefix=world.prefix)  # type: ignore[arg-type]
    await recorder.record_whatever_it_takes(world.ended(order, Accepted(("p1",))))

    async with world.pool.acquire() as connection:
        moments = await timeline.read(connection, order.message_id)
    assert pool.times == 0
    assert await world.outcomes(order) == [Accepted(("p1",))]
    assert len(moments) == 1


async def test_a_late_outcome_is_told_even_if_the_router_gave_the_attempt_up(world: World) -> None:
    order = await world.plan()
    await world.claims().claim(order)
    await world.pool.execute("UPDATE switchboard.attempts SET state = 'finished', finished_at = switchboard.now()")
    await world.recorder.record(world.ended(order, Accepted(("p1",))))

    assert await world.outcomes(order) == [Accepted(("p1",))]
    assert (await world.row(order))["outcome"] is not None


async def test_an_outcome_that_cannot_be_stored_is_left_to_the_router_and_harms_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchboard_channel_adapter.recorder._FIRST_PAUSE_SECONDS", 0.001)
    bad, good = await world.plan(), await world.plan()
    claims = world.claims()
    await asyncio.gather(claims.claim(bad), claims.claim(good))
    await asyncio.gather(
        world.recorder.record_whatever_it_takes(world.ended(bad, Accepted(("p\x00",)))),
        world.recorder.record_whatever_it_takes(world.ended(good, Accepted(("p1",)))),
    )

    assert (await world.row(bad))["state"] == "claimed"
    assert await world.outcomes(bad) == []
    assert await world.outcomes(good) == [Accepted(("p1",))]
