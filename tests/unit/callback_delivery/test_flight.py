"""How many tries one endpoint may have at once, and who awaits his turn."""

from __future__ import annotations

import asyncio
from functools import partial

from switchboard.lanes.lane import endpoint_lane
from switchboard_callback_delivery.flight import Flights
from switchboard_callback_delivery.metrics import DeliveryMetrics

HARBOUR, QUAY = endpoint_lane("harbour"), endpoint_lane("quay")


class Sea:
    """Tries that end when they are told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def sail(self, name: str) -> None:
        self.begun.append(name)
        await self._ends.setdefault(name, asyncio.Event()).wait()

    async def end(self, name: str) -> None:
        self._ends.setdefault(name, asyncio.Event()).set()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_above_its_share_an_endpoint_waits_its_turn_in_order() -> None:
    sea, flights = Sea(), Flights(2, DeliveryMetrics(), waiting=3)
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


async def test_who_waits_at_one_endpoint_holds_up_no_other() -> None:
    sea, flights = Sea(), Flights(1, DeliveryMetrics(), waiting=1)
    for name in "ab":
        flights.begin(HARBOUR, partial(sea.sail, name))
    flights.begin(QUAY, partial(sea.sail, "c"))
    await settle()

    assert sea.begun == ["a", "c"]
    assert (flights.room(HARBOUR), flights.room(QUAY)) == (0, 1)
    await flights.stop(0)


async def test_all_room_is_free_again_when_all_ended() -> None:
    sea, flights = Sea(), Flights(1, DeliveryMetrics(), waiting=1)
    for name in "ab":
        flights.begin(HARBOUR, partial(sea.sail, name))
    await settle()
    await sea.end("a")
    await sea.end("b")

    assert (len(flights), flights.room(HARBOUR)) == (0, 2)


async def test_what_awaits_its_turn_at_the_end_is_not_begun() -> None:
    sea, flights = Sea(), Flights(1, DeliveryMetrics(), waiting=1)
    for name in "ab":
        flights.begin(HARBOUR, partial(sea.sail, name))
    await settle()

    await flights.stop(0)

    assert sea.begun == ["a"]
