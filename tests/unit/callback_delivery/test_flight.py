"""How many tries one endpoint may have at once, and who awaits his turn."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from switchboard.lanes.lane import endpoint_lane
from switchboard_callback_delivery.flight import SOON_SECONDS, Flights, Turn
from switchboard_callback_delivery.metrics import DeliveryMetrics

HARBOUR, QUAY = endpoint_lane("harbour"), endpoint_lane("quay")


class Clock:
    """Stands still."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sea:
    """Tries that end when they are told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._answers: dict[str, asyncio.Event] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def sail(self, name: str, turn: Turn) -> None:
        self.begun.append(name)
        await self._answers.setdefault(name, asyncio.Event()).wait()
        turn.answered()
        await self._ends.setdefault(name, asyncio.Event()).wait()

    async def answer(self, name: str) -> None:
        self._answers.setdefault(name, asyncio.Event()).set()
        await settle()

    async def end(self, name: str) -> None:
        self._answers.setdefault(name, asyncio.Event()).set()
        self._ends.setdefault(name, asyncio.Event()).set()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_above_its_share_an_endpoint_waits_its_turn_in_order() -> None:
    sea, flights = Sea(), Flights(2, DeliveryMetrics(), least=5)
    for name in "abcd":
        flights.begin(HARBOUR, partial(sea.sail, name))
    await settle()
    assert sea.begun == ["a", "b"]
    assert (len(flights), flights.room(HARBOUR)) == (2, 1)

    await sea.end("b")
    assert sea.begun == ["a", "b", "c"]
    await sea.end("a")
    assert sea.begun == ["a", "b", "c", "d"]
    assert (len(flights), flights.room(HARBOUR)) == (2, 3)
    await flights.stop(0)


async def test_the_next_has_its_turn_when_the_endpoint_has_answered() -> None:
    sea, flights = Sea(), Flights(1, DeliveryMetrics(), least=3)
    for name in "abc":
        flights.begin(HARBOUR, partial(sea.sail, name))
    await settle()

    await sea.answer("a")
    assert sea.begun == ["a", "b"]
    assert (len(flights), flights.room(HARBOUR)) == (2, 0)

    await sea.end("a")
    assert sea.begun == ["a", "b"]
    assert (len(flights), flights.room(HARBOUR)) == (1, 1)

    await sea.end("b")
    await sea.end("c")
    assert (len(flights), flights.room(HARBOUR)) == (0, 3)


async def test_who_waits_at_one_endpoint_holds_up_no_other() -> None:
    sea, flights = Sea(), Flights(1, DeliveryMetrics(), least=2)
    for name in "ab":
        flights.begin(HARBOUR, partial(sea.sail, name))
    flights.begin(QUAY, partial(sea.sail, "c"))
    await settle()

    assert sea.begun == ["a", "c"]
    assert (flights.room(HARBOUR), flights.room(QUAY)) == (0, 1)
    await flights.stop(0)


async def test_all_room_is_free_again_when_all_ended() -> None:
    sea, flights = Sea(), Flights(1, DeliveryMetrics(), least=2)
    for name in "ab":
        flights.begin(HARBOUR, partial(sea.sail, name))
    await settle()
    await sea.end("a")
    await sea.end("b")

    assert (len(flights), flights.room(HARBOUR)) == (0, 2)


async def test_what_awaits_its_turn_at_the_end_is_not_begun() -> None:
    sea, flights = Sea(), Flights(1, DeliveryMetrics(), least=2)
    for name in "ab":
        flights.begin(HARBOUR, partial(sea.sail, name))
    await settle()

    await flights.stop(0)

    assert sea.begun == ["a"]


@pytest.mark.parametrize(
    ("given", "answers", "room"),
    [
        ("nobody knows how quick it is", [], 5),
        ("two at once in 100 ms are twenty in a second", [0.1], 20),
        ("it may have all there is, and no more", [0.001], 30),
        ("it never has less than any other", [2.0], 5),
        ("slow answers slow it down", [0.1, *[2.0] * 20], 5),
        ("one slow answer among quick ones does not", [*[0.04] * 20, 0.4], 23),
        ("quick answers make it quick again", [2.0, *[0.05] * 60], 30),
    ],
)
async def test_the_quicker_an_endpoint_the_more_may_await_their_turn(
    given: str, answers: list[float], room: int
) -> None:
    clock = Clock()
    sea, flights = Sea(), Flights(2, DeliveryMetrics(), least=5, most=30, clock=clock)
    for number, seconds in enumerate(answers):
        flights.begin(HARBOUR, partial(sea.sail, f"{number}"))
        await settle()
        clock.now += seconds
        await sea.end(f"{number}")
    clock.now += 3600

    assert (flights.room(HARBOUR), flights.room(QUAY)) == (room, 5), given


async def test_a_quick_endpoint_that_falls_silent_is_slow() -> None:
    clock = Clock()
    sea, flights = Sea(), Flights(2, DeliveryMetrics(), least=5, most=30, clock=clock)
    flights.begin(HARBOUR, partial(sea.sail, "a"))
    await settle()
    await sea.end("a")
    clock.now += 3600
    flights.begin(HARBOUR, partial(sea.sail, "b"))
    assert flights.room(HARBOUR) == 29

    clock.now += SOON_SECONDS + 0.1
    assert flights.room(HARBOUR) == 4

    await settle()
    await sea.end("b")
    assert flights.room(HARBOUR) == 14
    await flights.stop(0)


async def test_what_was_never_asked_says_nothing_of_an_endpoint() -> None:
    sea, flights = Sea(), Flights(1, DeliveryMetrics(), least=2, most=30)

    async def think_better_of_it(_: Turn) -> None:
        sea.begun.append("a")

    flights.begin(HARBOUR, think_better_of_it)
    flights.begin(HARBOUR, partial(sea.sail, "b"))
    await settle()

    assert sea.begun == ["a", "b"]
    assert flights.room(HARBOUR) == 1
    await flights.stop(0)
