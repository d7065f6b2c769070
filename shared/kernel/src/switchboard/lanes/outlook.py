"""When a message would get its slot, as far as the rows of its lanes can tell. Pure."""

from datetime import datetime

from msgspec import Struct

from switchboard.lanes.gate import GateState
from switchboard.lanes.lane import Lane, microseconds


class Outlook(Struct, frozen=True):
    """What a message planned now would meet in its lanes."""

    #: The stricter of the two gates.
    gate: GateState = GateState.OPEN
    #: Before it in its own line.
    ahead: int = 0
    #: Messages a second its own lane lets through; 0 where nothing was ever sent there.
    per_second: float = 0.0
    #: Until its slot. Other apps that wait for the same account are not reckoned with. None: nobody can tell, for a
    #: gate is not open or as many are under way as may be.
    expected_wait_seconds: float | None = 0.0


def outlook(dispatch: Lane | None, account: Lane | None, *, ahead: int, units: int, now: datetime) -> Outlook:
    """What a message of `units` would meet behind `ahead` others. None: a lane nothing was ever planned for."""
    lanes = [lane for lane in (dispatch, account) if lane is not None]
    gate = max((lane.gate.state for lane in lanes), key=_STRICTNESS.index, default=GateState.OPEN)
    is_blocked = gate is not GateState.OPEN or any(lane.in_flight >= lane.max_in_flight for lane in lanes)
    waits = [_seconds(dispatch, ahead, now)] if dispatch is not None else []
    # Each of those ahead is taken to cost what this one does.
    waits += [_seconds(account, ahead * units, now)] if account is not None else []
    return Outlook(
        gate=gate,
        ahead=ahead,
        per_second=0.0 if dispatch is None else round(_NANOSECONDS / dispatch.paced_interval_ns, 3),
        expected_wait_seconds=None if is_blocked else round(max(waits, default=0.0), 3),
    )


def _seconds(lane: Lane, units_ahead: int, now: datetime) -> float:
    until_slot = max(0, lane.tat_us - microseconds(now)) / 1_000_000
    return until_slot + units_ahead * lane.paced_interval_ns / _NANOSECONDS


_NANOSECONDS = 1_000_000_000
_STRICTNESS = (GateState.OPEN, GateState.CLOSED, GateState.PAUSED)
