"""When a message would get its slot, from the rows of its lanes."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from switchboard.ids import LaneId
from switchboard.lanes.gate import Gate, GateState
from switchboard.lanes.lane import Lane, LaneKind, microseconds
from switchboard.lanes.outlook import Outlook, outlook

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def lane(kind: LaneKind, per_second: float, *, busy_for: float = 0, in_flight: int = 0) -> Lane:
    return Lane(
        LaneId(f"{kind}:x"), kind, int(1_000_000_000 / per_second), 1.0,
        microseconds(NOW + timedelta(seconds=busy_for)), 0, in_flight, 100, Gate(), 0, None, 0, None,
    )  # fmt: skip


APP = lane(LaneKind.DISPATCH, 20)
ACCOUNT = lane(LaneKind.ACCOUNT, 10)


@pytest.mark.parametrize(
    ("dispatch", "account", "ahead", "units", "seconds"),
    [
        (None, None, 0, 1, 0.0),
        (APP, None, 0, 1, 0.0),
        (APP, None, 40, 1, 2.0),
        (lane(LaneKind.DISPATCH, 20, busy_for=0.5), None, 40, 1, 2.5),
        (lane(LaneKind.DISPATCH, 20, busy_for=-60), None, 0, 1, 0.0),
        (APP, ACCOUNT, 40, 1, 4.0),
        (APP, ACCOUNT, 40, 3, 12.0),
        (APP, lane(LaneKind.ACCOUNT, 10, busy_for=1), 0, 1, 1.0),
        (lane(LaneKind.DISPATCH, 20, in_flight=100), None, 0, 1, None),
        (APP, lane(LaneKind.ACCOUNT, 10, in_flight=100), 0, 1, None),
    ],
)
def test_the_slower_lane_says_how_long(
    dispatch: Lane | None, account: Lane | None, ahead: int, units: int, seconds: float | None
) -> None:
    assert outlook(dispatch, account, ahead=ahead, units=units, now=NOW).expected_wait_seconds == seconds


def test_at_a_gate_that_is_not_open_nobody_can_tell() -> None:
    closed = lane(LaneKind.ACCOUNT, 10)
    closed.gate = replace(Gate(), state=GateState.CLOSED, probe_at=NOW)

    assert outlook(APP, closed, ahead=3, units=1, now=NOW) == Outlook(GateState.CLOSED, 3, 20.0, None)
