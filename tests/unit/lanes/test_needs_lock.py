"""Which decisions about lanes need their rows locked, and which need them only as they were seen."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId, LaneId, MessageId, mint
from switchboard.lanes import Ask, Ended, Limits, LockedLanes, account_lane, dispatch_lane
from switchboard.lanes.gate import DEFAULT_RULE, OPEN, Gate, GateState
from switchboard.lanes.lane import Lane, kind_of
from switchboard.rules.progress import AttemptEnd

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DISPATCH, ACCOUNT = dispatch_lane(AppId("app"), ChannelName("SMS")), account_lane(AccountKey("SMS:main"))
NEARLY_CLOSED = Gate(fail_streak=DEFAULT_RULE.closes_after - 1)
CLOSED = Gate(GateState.CLOSED, DEFAULT_RULE.closes_after, NOW)

Act = Callable[[LockedLanes], object]


def lane(id: LaneId = DISPATCH, *, waiting: int = 0, in_flight: int = 1, gate: Gate = OPEN) -> Lane:
    return Lane(id, kind_of(id), 50_000_000, 1.0, 0, waiting, in_flight, 10, gate, 0, None, 0, None)


def start(lanes: LockedLanes) -> object:
    return lanes.reserve([Ask(MessageId(mint()), 0, 1, DISPATCH, Limits(20, 10))])


def end(how: AttemptEnd = AttemptEnd.OK, *, of: LaneId = DISPATCH) -> Act:
    return lambda lanes: lanes.release([Ended((of,), how)])


@pytest.mark.parametrize(
    ("seen", "act", "needs_lock"),
    [
        (lane(), start, False),
        (lane(waiting=1), start, True),
        (lane(in_flight=10), start, True),
        (lane(gate=Gate(GateState.PAUSED)), start, True),
        # A probe changes nothing that somebody waits for.
        (lane(gate=CLOSED), start, False),
        (lane(), end(), False),
        (lane(), end(AttemptEnd.FAILED), False),
        (lane(in_flight=10), end(), False),
        (lane(in_flight=9, waiting=1), end(), False),
        # There is room for those who wait; in an account's lane nobody knows who does.
        (lane(in_flight=10, waiting=1), end(), True),
        (lane(ACCOUNT, in_flight=10), end(of=ACCOUNT), True),
        # The gate closes, or opens.
        (lane(gate=NEARLY_CLOSED), end(AttemptEnd.FAILED), True),
        (lane(gate=CLOSED), end(), True),
        # Nobody has seen the lane, or it cannot be as it was seen.
        (lane(), end(of=ACCOUNT), True),
        (lane(in_flight=0), end(), True),
    ],
)
def test_only_a_slot_taken_or_given_back_needs_no_lock(seen: Lane, act: Act, needs_lock: bool) -> None:
    lanes = LockedLanes([seen], NOW)
    assert not lanes.needs_lock

    act(lanes)

    assert lanes.needs_lock is needs_lock


def test_what_changed_is_told_by_id() -> None:
    lanes = LockedLanes([lane(ACCOUNT), lane(DISPATCH), lane(LaneId("dispatch:other:SMS"))], NOW)
    end(of=DISPATCH)(lanes)
    end(of=ACCOUNT)(lanes)

    assert [changed.id for changed in lanes.changed] == [ACCOUNT, DISPATCH]
