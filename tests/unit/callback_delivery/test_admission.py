"""Which events from the topic are dropped, tried at once, or left to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from switchboard.ids import AppId, CallbackId
from switchboard.lanes.gate import OPEN, Gate, GateState
from switchboard.lanes.lane import Lane, LaneKind, endpoint_lane, microseconds
from switchboard.lanes.locked import LockedLanes
from switchboard.trigger import Trigger
from switchboard_callback_delivery.admission import admit, changed
from switchboard_callback_delivery.event import Event
from switchboard_callback_delivery.pacing import limits_of
from switchboard_callback_delivery.store.endpoints import Standings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LANE = endpoint_lane("harbour")
OTHER = endpoint_lane("quay")
CLOSED = Gate(GateState.CLOSED, 5, NOW)


def event(name: str, endpoint: str = LANE) -> Event:
    return Event(
        id=CallbackId(name),
        project_id="p",
        app_id=AppId("a"),
        endpoint=endpoint,  # type: ignore[arg-type]
        webhook_id="w",
        target="",
        trigger=Trigger.MESSAGE_DELIVERY,
        stream=name,
        sequence=1,
        event_at=NOW,
        body=b"{}",
    )


def lane(per_second: int = 100, **more: Any) -> Lane:
    made = Lane(LANE, LaneKind.ENDPOINT, 10**9 // per_second, 1.0, 0, 0, 0, 1000, OPEN, 0, None, 0, None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def standings(*, known: str = "", blocked: str = "") -> Standings:
    return Standings(NOW, frozenset(known.split()), frozenset(blocked.split()), ())


def admitted(
    names: str, *lanes: Lane, room: int = 100, closed: tuple[str, ...] = (), **known: str
) -> tuple[list[int], list[int], list[int]]:
    found = admit(
        [event(name) for name in names.split()],
        standings(**known),
        LockedLanes(lanes or [lane()], NOW),
        lambda _: room,
        closed,  # type: ignore[arg-type]
    )
    return found.known, found.granted, found.waiting


def test_an_event_that_has_a_row_is_dropped_and_takes_no_slot() -> None:
    # Its lane has one slot.
    assert admitted("a b c", lane(per_second=10), known="a") == ([0], [1], [2])


def test_an_event_behind_an_unfinished_one_waits_and_takes_no_slot() -> None:
    assert admitted("a b", lane(per_second=10), blocked="a") == ([], [1], [0])


def test_no_more_are_tried_than_there_is_room_for() -> None:
    assert admitted("a b c", room=2) == ([], [0, 1], [2])


@pytest.mark.parametrize(
    ("state", "granted"),
    [
        ({}, 10),
        # Slots up to 100 ms ahead are given; these are taken.
        ({"tat_us": microseconds(NOW + timedelta(milliseconds=60))}, 4),
        # Where others wait the greater part is theirs.
        ({"waiting": 3}, 5),
        ({"slowdown": 2.0}, 5),
        ({"gate": CLOSED}, 0),
        ({"gate": replace(OPEN, state=GateState.PAUSED)}, 0),
    ],
)
def test_the_lane_gives_as_many_slots_as_its_rate_and_gate_allow(state: dict[str, Any], granted: int) -> None:
    found = admitted(" ".join(f"e{number}" for number in range(20)), lane(**state))

    assert found == ([], list(range(granted)), list(range(granted, 20)))


def test_nothing_is_tried_in_a_lane_that_is_closed_to_it() -> None:
    assert admitted("a", closed=(LANE,)) == ([], [], [0])


@pytest.mark.parametrize(("per_second", "is_changed"), [(100.0, False), (50.0, True)])
def test_a_lane_with_other_limits_or_none_has_changed(per_second: float, is_changed: bool) -> None:
    lanes = LockedLanes([lane(per_second=100)], NOW)

    assert changed(lanes, {LANE: limits_of(per_second)}) == ({LANE} if is_changed else set())
    assert changed(lanes, {OTHER: limits_of(100)}) == {OTHER}
