"""Slots: what can be written now goes first, no account takes more than its share, nobody waits for long."""

import asyncio

from switchboard.ids import AccountKey
from switchboard_channel_adapter.admission import Admission

A, B = AccountKey("a"), AccountKey("b")


def way() -> str:
    return "way"


def none() -> str | None:
    return None


async def test_one_account_takes_a_quarter_and_others_have_the_rest() -> None:
    admission = Admission(8, patience_seconds=0.0)
    of_a = [await admission.enter(A, way) for _ in range(3)]
    of_b = [await admission.enter(B, way) for _ in range(3)]

    assert of_a == of_b == ["way", "way", None]


async def test_no_more_than_all_slots_are_taken() -> None:
    admission = Admission(4, patience_seconds=0.0)
    taken = [await admission.enter(AccountKey(name), way) for name in "abcdef"]

    assert taken == ["way"] * 4 + [None] * 2
    assert admission.held == 4


async def test_a_slot_given_back_goes_to_who_waits() -> None:
    admission = Admission(4, patience_seconds=60.0)
    await admission.enter(A, way)
    waiting = asyncio.create_task(admission.enter(A, way))
    await asyncio.sleep(0)
    admission.leave(A)

    assert await waiting == "way"


async def test_a_slot_given_back_goes_to_another_account_if_all_were_taken() -> None:
    admission = Admission(4, patience_seconds=60.0)
    for name in "abcd":
        await admission.enter(AccountKey(name), way)
    waiting = asyncio.create_task(admission.enter(AccountKey("e"), way))
    await asyncio.sleep(0)
    admission.leave(A)

    assert await waiting == "way"


async def test_who_waits_longest_goes_first() -> None:
    admission = Admission(4, patience_seconds=60.0)
    await admission.enter(A, way)
    entered: list[int] = []

    async def enter(number: int) -> None:
        await admission.enter(A, way)
        entered.append(number)

    first = asyncio.create_task(enter(1))
    await asyncio.sleep(0)
    admission.leave(A)
    await first

    assert entered == [1]


async def test_a_line_of_waiters_of_one_account_is_bounded() -> None:
    admission = Admission(8, patience_seconds=60.0)
    waiting = [asyncio.create_task(admission.enter(A, none)) for _ in range(2)]
    await asyncio.sleep(0)

    assert await admission.enter(A, none) is None
    for task in waiting:
        task.cancel()


async def test_a_way_that_opens_while_waiting_is_taken() -> None:
    admission = Admission(4, patience_seconds=60.0)
    looks = iter([None, None, "way"])

    assert await admission.enter(A, lambda: next(looks)) == "way"


async def test_nothing_is_held_by_who_was_not_admitted() -> None:
    admission = Admission(4, patience_seconds=0.0)
    await admission.enter(A, none)

    assert admission.held == 0


async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    admission = Admission(4, patience_seconds=60.0)
    await admission.enter(A, way)
    cancelled = asyncio.create_task(admission.enter(A, way))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    other = asyncio.create_task(admission.enter(A, way))
    await asyncio.sleep(0)
    admission.leave(A)

    assert await other == "way"
