"""What becomes of an event from the topic at first: dropped, tried at once, or left to wait (DESIGN 6, 7).

It is looked up and decided without a lock, and the slots of those that are tried are taken only if nobody took any
since the look. That is two statements for a batch. What cannot go this way is decided again under its lane's lock.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from switchboard.ids import LaneId
from switchboard.lanes.gcra import interval_ns
from switchboard.lanes.lane import Limits
from switchboard.lanes.locked import LockedLanes
from switchboard_callback_delivery import pacing
from switchboard_callback_delivery.event import Event
from switchboard_callback_delivery.store.endpoints import Standings


class Admitted(Struct, frozen=True):
    """The places of events in their batch, by what becomes of them."""

    #: It has a row: it is finished, or parked by an earlier sight of its record.
    known: list[int]
    #: It has a slot.
    granted: list[int]
    #: It may not be tried now.
    waiting: list[int]


def admit(
    events: Sequence[Event],
    standings: Standings,
    lanes: LockedLanes,
    room: Callable[[LaneId], int],
    closed: Collection[LaneId] = (),
) -> Admitted:
    """Decide for each event in turn, and take the slots of those that are granted.

    `room`: how many tries an endpoint may begin. None is begun in lanes that are `closed`.
    """
    admitted = Admitted([], [], [])
    left: dict[LaneId, int] = {}
    for place, event in enumerate(events):
        endpoint = event.endpoint
        if event.id in standings.known:
            admitted.known.append(place)
            continue
        if endpoint not in left:
            left[endpoint] = 0 if endpoint in closed else room(endpoint)
        if event.id in standings.blocked or left[endpoint] <= 0 or not pacing.bypass(lanes, endpoint, standings.now):
            admitted.waiting.append(place)
        else:
            left[endpoint] -= 1
            admitted.granted.append(place)
    return admitted


def changed(lanes: LockedLanes, limits: Mapping[LaneId, Limits]) -> set[LaneId]:
    """The lanes that do not exist yet, or not with these limits."""
    return {
        lane_id
        for lane_id, limit in limits.items()
        if lane_id not in lanes or lanes[lane_id].interval_ns != interval_ns(limit.per_second)
    }
