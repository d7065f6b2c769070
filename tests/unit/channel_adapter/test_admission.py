"""Slots: what can be written now goes first, no account takes more than its share, nobody waits for long."""

import asyncio

import pytest

from switchboard.identity import ChannelName
from switchboard.ids import AccountKey
from switchboard_channel_adapter.admission import Admission, SharedSlots, admissions

A, B = AccountKey("a"), AccountKey("b")


def channel_of(slots: int, patience_seconds: float) -> Admission:
    """A channel that has the process for itself."""
    return Admission(slots // 2, SharedSlots(slots // 2), most=slots // 4, patience_seconds=patience_seconds)


def way() -> str:
    return "way"


def none() -> str | None:
    return None


async def test_one_account_takes_a_quarter_and_others_have_the_rest() -> None:
    admission = channel_of(8, 0.0)
    of_a = [await admission.enter(A, way) for _ in range(3)]
    of_b = [await admission.enter(B, way) for _ in range(3)]

    assert of_a == of_b == ["way", "way", None]


async def test_no_more_than_all_slots_are_taken() -> None:
    admission = channel_of(4, 0.0)
    taken = [await admission.enter(AccountKey(name), way) for name in "abcdef"]

    assert taken == ["way"] * 4 + [None] * 2
    assert admission.held == 4


async def test_a_slot_given_back_goes_to_who_waits() -> None:
    admission = channel_of(4, 60.0)
    await admission.enter(A, way)
    waiting = asyncio.create_task(admission.enter(A, way))
    await asyncio.sleep(0)
    admission.leave(A)

    assert await waiting == "way"


async def test_a_slot_given_back_goes_to_another_account_if_all_were_taken() -> None:
    admission = channel_of(4, 60.0)
    for name in "abcd":
        await admission.enter(AccountKey(name), way)
    waiting = asyncio.create_task(admission.enter(AccountKey("e"), way))
    await asyncio.sleep(0)
    admission.leave(A)

    assert await waiting == "way"


async def test_who_waits_longest_goes_first() -> None:
    admission = channel_of(4, 60.0)
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
    admission = channel_of(8, 60.0)
    waiting = [asyncio.create_task(admission.enter(A, none)) for _ in range(2)]
    await asyncio.sleep(0)

    assert await admission.enter(A, none) is None
    for task in waiting:
        task.cancel()


async def test_a_way_that_opens_while_waiting_is_taken() -> None:
    admission = channel_of(4, 60.0)
    looks = iter([None, None, "way"])

    assert await admission.enter(A, lambda: next(looks)) == "way"


async def test_nothing_is_held_by_who_was_not_admitted() -> None:
    admission = channel_of(4, 0.0)
    await admission.enter(A, none)

    assert admission.held == 0


async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    admission = channel_of(4, 60.0)
    await admission.enter(A, way)
    cancelled = asyncio.create_task(admission.enter(A, way))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    other = asyncio.create_task(admission.enter(A, way))
    await asyncio.sleep(0)
    admission.leave(A)

    assert await other == "way"


async def fill(admission: Admission) -> int:
    """Take all slots there are, each for an account of its own; how many they were."""
    taken = 0
    while await admission.enter(AccountKey(f"{taken}"), way) is not None:
        taken += 1
    return taken


@pytest.mark.parametrize(
    ("slots", "channels", "first", "second"),
    [
        # Half of the slots are divided, the other half goes to who comes first.
        (16, 1, 16, None),
        (16, 2, 12, 4),
        (48, 3, 32, 8),
        (48, 12, 26, 2),
        # Too few to divide: whoever comes first has them.
        (4, 3, 4, 0),
    ],
)
async def test_a_channel_whose_accounts_all_hang_leaves_the_others_their_own(
    slots: int, channels: int, first: int, second: int | None
) -> None:
    names = [ChannelName(f"C{number}") for number in range(channels)]
    among = list(admissions(slots, names, patience_seconds=0.0).values())

    assert await fill(among[0]) == first
    assert [await fill(one) for one in among[1:]] == ([] if second is None else [second] * (channels - 1))


async def test_a_shared_slot_is_given_back_before_an_own_one() -> None:
    shared = SharedSlots(1)
    one, other = (Admission(1, shared, most=9, patience_seconds=0.0) for _ in range(2))
    assert [await one.enter(A, way) for _ in range(3)] == ["way", "way", None]
    assert [await other.enter(B, way) for _ in range(2)] == ["way", None]

    one.leave(A)

    assert await other.enter(B, way) == "way"
    assert await one.enter(A, way) is None
    one.leave(A)
    assert await one.enter(A, way) == "way"
